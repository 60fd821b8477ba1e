"""Multi-task loss: two tasks, each with its own rows and its own head, on layers that both share.

    L_source + L_target + L_shared + L_specific
    L_source   = loss of the first stream's rows at the source head       L_shared   = alpha / 2 || w_segments - w0_segments ||^2
    L_target   = loss of the second stream's rows at the target head      L_specific = beta / 2 || w_heads ||^2

Source: Caruana, "Multitask learning", Machine Learning 1997, for hard sharing; Evgeniou & Pontil, "Regularized multi-task
learning", KDD 2004, for a penalty of what tasks share and another of what each has alone; the shared part is pulled to its start
instead of zero, as in L2-SP (arXiv:1802.01483). Which penalties L_shared and L_specific stand for is our reading.
Use it where rows of the second stream are labelled as well, and the two tasks need not have the same classes. Adaptation takes
the labels off its second stream and so refuses this term; the loop itself (`headstart.training.train`) takes both with labels.
It ignores how much the tasks help each other; ``balance`` weighs the one loss against the other.
Shapes: b rows of a batch, k outputs of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from torch import Tensor, nn

from headstart.core.errors import ConfigError, did_you_mean
from headstart.objectives.l2_sp import check_multiplier, l2_sp_penalty
from headstart.objectives.objective import Batch, Objective, Setup, check_choice
from headstart.objectives.supervised import BinaryCrossEntropy, CrossEntropy, SquaredError

__all__ = ["MultiTask"]

Loss = Literal["cross-entropy", "binary-cross-entropy", "squared-error"]
_LOSSES: Mapping[str, type[CrossEntropy] | type[BinaryCrossEntropy] | type[SquaredError]] = MappingProxyType(
    {"cross-entropy": CrossEntropy, "binary-cross-entropy": BinaryCrossEntropy, "squared-error": SquaredError}
)


class MultiTask(Objective):
    """The four-part loss of two tasks on shared layers. The rows of the second stream have labels.

    Starting weights of the shared segments are those at `prepare`, kept as buffers.

    Parameters
    ----------
    source_head, target_head : str
        Heads of the two tasks.
    source_loss, target_loss : {"cross-entropy", "binary-cross-entropy", "squared-error"}
        Loss of each task.
    balance : float in [0, 1]
        Share of the target's loss: 2 (1 - balance) L_source + 2 balance L_target; one half weighs both by 1.
    alpha : float, at least 0
        Pull of the start on shared layers.
    beta : float, at least 0
        Pull of zero on the two heads.
    weight : float
        Multiplies all of it.

    Raises
    ------
    ConfigError
        If both heads are one, or an argument breaks its rule.

    Examples
    --------
    >>> import torch
    >>> network = nn.Module()
    >>> network.segments = nn.ModuleList([nn.Linear(1, 1, bias=False)])
    >>> network.heads = nn.ModuleDict({"source": nn.Linear(1, 2), "main": nn.Linear(1, 3)})
    >>> objective = MultiTask(alpha=1.0, beta=0.0)
    >>> objective.prepare(Setup(network, task=None))
    >>> with torch.no_grad():
    ...     network.segments[0].weight += 2
    >>> source = Batch(labels=torch.tensor([0]), head_logits={"source": torch.zeros(1, 2)})
    >>> target = Batch(labels=torch.tensor([0]), logits=torch.zeros(1, 3))
    >>> round(objective(source, target).item(), 4)                # log 2 + log 3 + 1 / 2 * 2^2
    3.7918
    """

    needs = frozenset({"labels", "logits"})
    labels_both = True

    def __init__(
        self,
        source_head: str = "source",
        target_head: str = "main",
        source_loss: Loss = "cross-entropy",
        target_loss: Loss = "cross-entropy",
        balance: float = 0.5,
        alpha: float = 0.1,
        beta: float = 0.01,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        if source_head == target_head:
            raise ConfigError(f"MultiTask: needs a head for each task; got {source_head!r} twice.")
        for name, loss in (("source_loss", source_loss), ("target_loss", target_loss)):
            check_choice("MultiTask", name, loss, tuple(_LOSSES))
        if not 0 <= balance <= 1:
            raise ConfigError(f"MultiTask: balance lies between 0 and 1; got {balance}.")
        check_multiplier("MultiTask", "alpha", alpha)
        check_multiplier("MultiTask", "beta", beta)
        self.source_head, self.target_head = source_head, target_head
        self.source_loss, self.target_loss = source_loss, target_loss
        self.balance, self.alpha, self.beta, self.weight = balance, alpha, beta, weight
        self._source = _LOSSES[source_loss](head=source_head)
        self._target = _LOSSES[target_loss](head=target_head)
        self._shared: list[nn.Parameter] | None = None
        self._specific: list[nn.Parameter] = []

    def prepare(self, setup: Setup) -> None:
        """Keep the starting weights of what is shared, and find the heads."""
        for name in list(self._buffers):
            delattr(self, name)
        heads = setup.heads()
        for name in (self.source_head, self.target_head):
            if name not in heads:
                raise ConfigError(
                    f"MultiTask: the network has no head {name!r}; its heads are {', '.join(heads)}."
                    + did_you_mean(name, heads)
                )
        self._shared = [parameter for segment in setup.segments().values() for parameter in segment.parameters()]
        self._specific = [*heads[self.source_head].parameters(), *heads[self.target_head].parameters()]
        for number, parameter in enumerate(self._shared):
            self.register_buffer(f"start_{number}", parameter.detach().clone())

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the sum of the four parts."""
        if self._shared is None:
            raise ConfigError("MultiTask: has no starting weights; call prepare before the first step.")
        (other,) = self.chosen("target", source, target)
        self.take(source, "labels")
        self.take(other, "labels")
        tasks = 2 * (1 - self.balance) * self._source(source) + 2 * self.balance * self._target(other)
        start = [getattr(self, f"start_{number}") for number in range(len(self._shared))]
        penalty = l2_sp_penalty(self._shared, start, self._specific, alpha=self.alpha, beta=self.beta)
        total: Tensor = tasks + penalty
        return self.weight * total
