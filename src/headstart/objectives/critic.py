"""Critics: small networks that tell domains apart, a gradient that turns round before them, and a penalty on their slope.

    reverse(x) = x,   d reverse / dx = -strength
    domain loss  = 1/2 mean_i w_i log(1 + exp(-c(f_i)))  over source  +  1/2 mean_j w_j log(1 + exp(c(f_j)))  over target
    penalty      = mean over points p of (|| d c(p) / dp || - 1)^2

Source: Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016 (arXiv:1505.07818), section 4.2, for the
reversal and the loss, whose two means the paper adds and published programs halve, as here: a critic that knows nothing costs
log 2. Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017 (arXiv:1704.00028), equation 3, for the penalty.
Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018 (arXiv:1802.05957).
Use it to write an adversarial objective: `CriticObjective` holds the critic, `frozen` shows it without letting it learn.
It ignores what the domains are; a critic that wins or loses at once teaches the features nothing.
Shapes: n source rows, m target rows, b rows in all, d features, k outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils import parametrizations

from headstart.core.checks import check_same_rows, check_same_width
from headstart.core.errors import ConfigError, ShapeError
from headstart.core.seeds import derive_seed
from headstart.objectives.objective import Batch, Objective, Setup, check_positive
from headstart.objectives.precision import full_precision, widen

__all__ = [
    "Critic",
    "CriticObjective",
    "between",
    "device_of",
    "domain_loss",
    "frozen",
    "gradient_penalty",
    "num_classes",
    "progress",
    "reverse_gradient",
]


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(tensor: Tensor, strength: float = 1.0) -> Tensor:
    """Return the same numbers; their gradient comes back times ``-strength``.

    Parameters
    ----------
    tensor : Tensor
        Of any shape.
    strength : float
        0 stops the gradient; 1 turns it round.

    Examples
    --------
    >>> features = torch.ones(2, requires_grad=True)
    >>> (3 * reverse_gradient(features, 0.5)).sum().backward()
    >>> features.grad
    tensor([-1.5000, -1.5000])
    """
    reversed_: Tensor = _Reversal.apply(tensor, strength)
    return reversed_


@full_precision
def domain_loss(
    source_n: Tensor, target_m: Tensor, source_weights_n: Tensor | None = None, target_weights_m: Tensor | None = None
) -> Tensor:
    """Return how badly a critic tells two domains apart: the mean of both domains' binary cross-entropies.

    Parameters
    ----------
    source_n, target_m : Tensor of shapes (n,), (m,) or (n, 1), (m, 1)
        What the critic says; above 0 means source. Half precision is computed in float32.
    source_weights_n, target_weights_m : Tensor of shapes (n,), (m,), optional
        Multiply the rows' losses, whose sum is still divided by the number of rows.

    Returns
    -------
    Tensor of shape ()
        Nats; log 2 where the critic says 0, without weights.

    Raises
    ------
    ShapeError
        If there is not one number, or weight, for each row.

    Examples
    --------
    >>> domain_loss(torch.zeros(3), torch.zeros(2))                              # log 2
    tensor(0.6931)
    >>> domain_loss(torch.zeros(1), torch.zeros(1), torch.tensor([2.0]))         # (2 log 2 + log 2) / 2
    tensor(1.0397)
    """
    source = _row_losses(source_n, -1.0, source_weights_n)
    return (source + _row_losses(target_m, 1.0, target_weights_m)) / 2


def _row_losses(logits_b: Tensor, sign: float, weights_b: Tensor | None) -> Tensor:
    logits_b = widen(logits_b)
    if logits_b.ndim == 2 and logits_b.shape[1] == 1:
        logits_b = logits_b[:, 0]
    if logits_b.ndim != 1:
        raise ShapeError(f"domain_loss: a critic gives one number a row; got {tuple(logits_b.shape)}.")
    losses_b = functional.softplus(sign * logits_b)
    if weights_b is not None:
        check_same_rows("domain_loss", "logits", logits_b, "weights", weights_b)
        losses_b = losses_b * weights_b.to(losses_b.dtype)
    return losses_b.mean()


class Critic(nn.Module):
    """A network of a few layers on features, whose first weights depend on the seed alone.

    Parameters
    ----------
    width : int
        Features d that it takes.
    num_outputs : int
        Numbers k that it gives.
    widths : sequence of int
        Of the layers between, each followed by a rectifier; none at all gives a linear critic.
    dropout : float in [0, 1)
        Share of each layer that is left out in training.
    spectral : bool
        Divide each layer by its largest singular value (a Lipschitz constant of at most 1), estimated along the way.
    seed : int
        Of the first weights.

    Examples
    --------
    >>> critic, again = Critic(3, widths=(4,)), Critic(3, widths=(4,))
    >>> critic(torch.ones(2, 3)).shape, bool((critic(torch.ones(2, 3)) == again(torch.ones(2, 3))).all())
    (torch.Size([2, 1]), True)
    """

    def __init__(
        self,
        width: int,
        num_outputs: int = 1,
        widths: Sequence[int] = (256, 256),
        *,
        dropout: float = 0.0,
        spectral: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        sizes = (width, *widths, num_outputs)
        layers: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "critic"))
            for first, last in pairwise(sizes):
                linear = nn.Linear(first, last)
                layers.append(parametrizations.spectral_norm(linear) if spectral else linear)
                layers += [nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        self.layers = nn.Sequential(*layers[: len(layers) - (2 if dropout else 1)])

    @full_precision
    def forward(self, rows_bd: Tensor) -> Tensor:
        """Return numbers of shape (b, k) for rows of shape (b, d)."""
        numbers_bk: Tensor = self.layers(rows_bd.to(next(self.parameters()).dtype))
        return numbers_bk


def frozen(module: nn.Module, rows_bd: Tensor) -> Tensor:
    """Return what a module says of rows while its own parameters count as constants: only the rows get a gradient.

    Parameters
    ----------
    module : nn.Module
        A critic.
    rows_bd : Tensor of shape (b, d)
        What it is shown.

    Examples
    --------
    >>> critic, rows = nn.Linear(1, 1), torch.ones(1, 1, requires_grad=True)
    >>> frozen(critic, rows).sum().backward()
    >>> critic.weight.grad is None, bool((rows.grad == critic.weight).all())
    (True, True)
    """
    constants = {name: parameter.detach() for name, parameter in module.named_parameters()}
    numbers: Tensor = functional_call(module, constants, (rows_bd,))
    return numbers


def between(source_nd: Tensor, target_md: Tensor) -> Tensor:
    """Return a random point on the line between each row of one domain and a row of the other.

    The shorter domain's rows come again from the first on. Draws are those of torch's own generator, which the loop seeds step
    by step.

    Parameters
    ----------
    source_nd, target_md : Tensor of shapes (n, d), (m, d)
        Features.

    Returns
    -------
    Tensor of shape (max(n, m), d)
        Without gradient.

    Raises
    ------
    ShapeError
        If the widths differ, or a domain has no row.

    Examples
    --------
    >>> points = between(torch.zeros(1, 2), torch.ones(3, 2))
    >>> points.shape, bool(((points > 0) & (points < 1)).all())
    (torch.Size([3, 2]), True)
    """
    check_same_width("between", source_nd, target_md)
    source_nd, target_md = widen(source_nd.detach()), widen(target_md.detach())
    num_points = max(len(source_nd), len(target_md))
    places = torch.arange(num_points, device=source_nd.device)
    source_bd, target_bd = source_nd[places % len(source_nd)], target_md[places % len(target_md)]
    share_b1 = torch.rand(num_points, 1, device=source_bd.device, dtype=source_bd.dtype)
    return target_bd + share_b1 * (source_bd - target_bd)


@full_precision
def gradient_penalty(critic: nn.Module, points_bd: Tensor) -> Tensor:
    """Return how far the critic's slope is from 1 at some points: the mean of ``(||gradient|| - 1)^2``.

    Parameters
    ----------
    critic : nn.Module
        Gives one number a row.
    points_bd : Tensor of shape (b, d)
        Where to look; they get no gradient.

    Returns
    -------
    Tensor of shape ()
        At least 0, with a gradient to the critic's parameters.

    Examples
    --------
    >>> critic = nn.Linear(2, 1)
    >>> _ = nn.init.constant_(critic.weight, 3.0)                                # slope (3, 3), of length 4.24
    >>> round(gradient_penalty(critic, torch.zeros(1, 2)).item(), 2)
    10.51
    """
    with torch.enable_grad():
        points_bd = widen(points_bd.detach()).requires_grad_()
        said = critic(points_bd).sum()
        (slopes_bd,) = torch.autograd.grad(said, points_bd, create_graph=True)
    squares_b = slopes_bd.square().sum(1)
    lengths_b = (squares_b + torch.finfo(squares_b.dtype).tiny).sqrt()  # the root has no gradient at 0 itself
    return (lengths_b - 1).square().mean()


class CriticObjective(Objective):
    """An objective with a critic of its own: what all of them configure, and the critic itself, made in `prepare`.

    Attributes
    ----------
    critic : Critic
        There after `prepare`.
    """

    strength: float

    def configure(self, strength: float, widths: Sequence[int], dropout: float, spectral: bool, seed: int) -> None:
        """Keep and check what every critic is configured by.

        Raises
        ------
        ConfigError
            If a number breaks its rule.
        """
        who = type(self).__name__
        if not strength >= 0:
            raise ConfigError(f"{who}: strength is at least 0; got {strength}.")
        for width in widths:
            check_positive(who, "each of widths", width)
        if not 0 <= dropout < 1:
            raise ConfigError(f"{who}: dropout lies in [0, 1); got {dropout}.")
        self.strength, self.widths, self.dropout = strength, tuple(widths), dropout
        self.spectral, self.seed = spectral, seed

    def make_critic(self, setup: Setup, width: int, num_outputs: int = 1) -> None:
        """Make the critic where the network is."""
        self.critic = Critic(
            width, num_outputs, self.widths, dropout=self.dropout, spectral=self.spectral, seed=self.seed
        ).to(device_of(setup))

    def known_critic(self) -> Critic:
        """Return the critic, or refuse in words.

        Raises
        ------
        ConfigError
            If `prepare` has not been called.
        """
        critic = getattr(self, "critic", None)
        if critic is None:
            raise ConfigError(
                f"{type(self).__name__}: has no critic yet, for it does not know how many features there are; call prepare "
                "before the first step."
            )
        found: Critic = critic
        return found


def progress(source: Batch, target: Batch | None) -> float:
    """Return how much of the training is done, as the batch of the second stream has it, which every adversarial phase sees.

    Examples
    --------
    >>> progress(Batch(), Batch(share=0.5)), progress(Batch(share=0.25), None)
    (0.5, 0.25)
    """
    return source.share if target is None else target.share


def num_classes(who: str, setup: Setup) -> int:
    """Return how many classes there are, or refuse a task without.

    Raises
    ------
    ConfigError
        If a row has several classes, or none.
    """
    if setup.task.kind != "classification":
        raise ConfigError(f"{who}: needs one class for each row; this task is {setup.task.kind}. Take dann or coral.")
    return setup.task.num_outputs


def device_of(setup: Setup) -> torch.device:
    """Return where the network is.

    Examples
    --------
    >>> device_of(Setup(nn.Linear(1, 1), task=None))
    device(type='cpu')
    """
    parameter = next(setup.network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
