"""L2-SP: fine-tuned weights stay near their starting point, new weights near zero.

    omega(w) = alpha / 2 || w_S - w0_S ||^2 + beta / 2 || w_rest ||^2         S: what base model and network share

Source: Li, Grandvalet & Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", ICML 2018
(arXiv:1802.01483), section 3.1, the L2-SP penalty.
Use it instead of weight decay, which pulls towards zero what the base model has learned. Its authors use alpha 0.1 and beta 0.01.
It ignores that some weights may move freely without changing what the network computes.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core.errors import ConfigError, ShapeError
from headstart.objectives.objective import Batch, Objective, Setup
from headstart.objectives.precision import widen

__all__ = ["L2SP", "check_multiplier", "l2_sp_penalty", "new_parameters", "squared_norm"]


def squared_norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return the sum of all squared entries of all tensors; 0 for none.

    Examples
    --------
    >>> squared_norm([torch.tensor([3.0]), torch.tensor([[4.0]])])
    tensor(25.)
    """
    squares = [widen(tensor).square().sum() for tensor in tensors]
    return torch.stack(squares).sum() if squares else torch.zeros(())


def l2_sp_penalty(
    weights: Iterable[Tensor], start: Iterable[Tensor], new: Iterable[Tensor], *, alpha: float = 0.1, beta: float = 0.01
) -> Tensor:
    """Return the L2-SP penalty of a network's weights.

    Parameters
    ----------
    weights : iterable of Tensor
        Weights shared with the base model. Half precision is computed in float32.
    start : iterable of Tensor
        Where each of them began, in the same order and shapes.
    new : iterable of Tensor
        Weights that the base model does not have.
    alpha, beta : float
        Multipliers of the two parts.

    Returns
    -------
    Tensor of shape ()
        At least 0.

    Raises
    ------
    ShapeError
        If the numbers of tensors or two shapes differ.

    Examples
    --------
    >>> moved, start, head = torch.tensor([2.0, 1.0]), torch.tensor([0.0, 1.0]), torch.tensor([10.0])
    >>> l2_sp_penalty([moved], [start], [head], alpha=0.5, beta=0.1)       # 0.5 / 2 * 4 + 0.1 / 2 * 100
    tensor(6.)
    """
    pairs = list(zip(weights, start, strict=True))
    for weight, first in pairs:
        if weight.shape != first.shape:
            raise ShapeError(
                f"l2_sp_penalty: weights and their start must have one shape; got {tuple(weight.shape)} and {tuple(first.shape)}."
            )
    gaps = [
        functional.mse_loss(widen(weight), widen(first), reduction="sum") for weight, first in pairs
    ]  # one pass, fused
    moved = torch.stack(gaps).sum() if gaps else torch.zeros(())
    grown = squared_norm(new)
    return alpha / 2 * moved + beta / 2 * grown.to(moved.device)


class L2SP(Objective):
    """`l2_sp_penalty` of the network in training.

    Starting weights are those at `prepare`, kept as buffers, of the segments that may train and of a head named ``"source"``. All
    other heads are new. Parameters that do not train at the moment cost nothing.

    Parameters
    ----------
    alpha : float, at least 0
        Pull of the starting point.
    beta : float, at least 0
        Pull of zero on new heads.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If a multiplier is negative.

    Examples
    --------
    >>> network = nn.Module()
    >>> network.segments = nn.ModuleList([nn.Linear(1, 1, bias=False)])
    >>> network.heads = nn.ModuleDict()
    >>> _ = nn.init.ones_(network.segments[0].weight)
    >>> objective = L2SP(alpha=1.0)
    >>> objective.prepare(Setup(network, task=None))
    >>> with torch.no_grad():
    ...     network.segments[0].weight += 2
    >>> objective(Batch()).item()                                  # 1 / 2 * 2^2
    2.0
    """

    def __init__(self, alpha: float = 0.1, beta: float = 0.01, weight: float = 1.0) -> None:
        super().__init__()
        check_multiplier("L2SP", "alpha", alpha)
        check_multiplier("L2SP", "beta", beta)
        self.alpha, self.beta, self.weight = alpha, beta, weight
        self._shared: list[nn.Parameter] | None = None
        self._new: list[nn.Parameter] = []

    def prepare(self, setup: Setup) -> None:
        """Keep the starting weights."""
        for name in list(self._buffers):
            delattr(self, name)
        old_heads = [head for name, head in setup.heads().items() if name == "source"]
        modules = [*setup.segments().values(), *old_heads]
        self._shared = [parameter for module in modules for parameter in module.parameters()]
        self._new = new_parameters(setup)
        for number, parameter in enumerate(self._shared):
            self.register_buffer(f"start_{number}", parameter.detach().clone())

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the penalty of the weights as they are now; the batches do not matter."""
        if self._shared is None:
            raise ConfigError("L2SP: has no starting weights; call prepare before the first step.")
        training = [number for number, parameter in enumerate(self._shared) if parameter.requires_grad]
        return self.weight * l2_sp_penalty(
            [self._shared[number] for number in training],
            [self.get_buffer(f"start_{number}") for number in training],
            [parameter for parameter in self._new if parameter.requires_grad],
            alpha=self.alpha,
            beta=self.beta,
        )


def new_parameters(setup: Setup) -> list[nn.Parameter]:
    """Return the parameters of all heads but one named ``"source"``, which the base model had.

    Examples
    --------
    >>> network = nn.Module()
    >>> network.heads = nn.ModuleDict({"main": nn.Linear(2, 3), "source": nn.Linear(2, 9)})
    >>> [parameter.numel() for parameter in new_parameters(Setup(network, task=None))]
    [6, 3]
    """
    return [parameter for name, head in setup.heads().items() if name != "source" for parameter in head.parameters()]


def check_multiplier(who: str, name: str, value: float) -> None:
    """Refuse a negative multiplier.

    Raises
    ------
    ConfigError
        With what came.
    """
    if not value >= 0:
        raise ConfigError(f"{who}: {name} is at least 0; got {value}.")
