"""What keeps a network from forgetting while it learns from other rows: weights that mattered stay near where they were.

    penalty = weight * sum_j F_j (theta_j - theta0_j)^2          F_j = mean over batches of (d CE(z, argmax z) / d theta_j)^2

Source: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017 (arXiv:1612.00796); for test-time
adaptation Niu et al., ICML 2022 (arXiv:2204.02610), equations 7 to 9: F of rows as in training, with the network's own answers
for labels, squared batch by batch as in the authors' code.
Use it through `headstart.methods.TestTimeAdaptation`. It ignores parameters that do not train.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.objectives import Batch, Objective
from headstart.training import Network

__all__ = ["FisherAnchor", "diagonal_fisher"]


def diagonal_fisher(network: Network, names: Iterable[str], batches: Iterable[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Return how much each parameter matters for the network's answers.

    Parameters
    ----------
    network : Network
        Run as it is set: training mode for the statistics of batches.
    names : iterable of str
        Parameters, as `Network.named_parameters` has them.
    batches : iterable of tuple of Tensor
        Inputs of the network.

    Returns
    -------
    dict of str to Tensor
        At least 0, by name; all 0 without a batch.

    Examples
    --------
    >>> network = Network({"features": nn.Identity()}, {"main": nn.Linear(1, 2, bias=False)})
    >>> _ = nn.init.zeros_(network.heads["main"].weight)
    >>> diagonal_fisher(network, ["heads.main.weight"], [(torch.ones(1, 1),)])["heads.main.weight"].tolist()    # (1/2 - 1)^2
    [[0.25], [0.25]]
    """
    known: Mapping[str, nn.Parameter] = dict(network.named_parameters())
    chosen = {name: known[name] for name in names}
    sums = {name: torch.zeros_like(parameter) for name, parameter in chosen.items()}
    count = 0
    for inputs in batches:
        logits_bk = network(*inputs).logits
        loss = functional.cross_entropy(logits_bk, logits_bk.detach().argmax(1))
        gradients = torch.autograd.grad(loss, list(chosen.values()))
        for name, gradient in zip(chosen, gradients, strict=True):
            sums[name] += gradient.square()
        count += 1
    return {name: total / max(1, count) for name, total in sums.items()}


class FisherAnchor(Objective):
    """The penalty on weights that move away from where they were, by what they matter.

    Parameters
    ----------
    network : Network
        Whose parameters, at the weights they are to stay near.
    fisher : mapping of str to Tensor
        What `diagonal_fisher` returned.
    weight : float
        Multiplies the penalty.

    Examples
    --------
    >>> network = Network({"features": nn.Identity()}, {"main": nn.Linear(1, 1, bias=False)})
    >>> anchor = FisherAnchor(network, {"heads.main.weight": torch.tensor([[2.0]])}, weight=3.0)
    >>> _ = network.heads["main"].weight.data.add_(0.5)
    >>> round(anchor(Batch()).item(), 4)                                      # 3 * 2 * 0.5^2
    1.5
    """

    needs = frozenset[str]()

    def __init__(self, network: Network, fisher: Mapping[str, Tensor], weight: float) -> None:
        super().__init__()
        known = dict(network.named_parameters())
        self.weight = weight
        self._parameters_here = [known[name] for name in fisher]  # in a list: they are the network's, not ours
        for number, (name, matters) in enumerate(fisher.items()):
            self.register_buffer(f"fisher_{number}", matters)
            self.register_buffer(f"start_{number}", known[name].detach().clone())

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the penalty; rows are not looked at."""
        terms = [
            (getattr(self, f"fisher_{number}") * (parameter - getattr(self, f"start_{number}")).square()).sum()
            for number, parameter in enumerate(self._parameters_here)
        ]
        return self.weight * torch.stack(terms).sum()

    def extra_repr(self) -> str:
        """Return what ``repr`` shows: there is no configuration that a file could hold."""
        return f"{len(self._parameters_here)} tensors, weight={self.weight}"
