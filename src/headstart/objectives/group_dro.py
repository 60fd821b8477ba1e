"""GroupDRO: the domain with the largest risk counts most.

    q_e <- q_e exp(step R_e),  q <- q / sum q;      loss = sum_e q_e R_e          R_e: risk of domain e, q begins even

Source: Sagawa, Koh, Hashimoto & Liang, "Distributionally Robust Neural Networks for Group Shifts", ICLR 2020 (arXiv:1911.08731),
algorithm 1 and equation 5; for every domain of a batch at once, as published code does.
Use it in place of the task's loss, where the worst domain matters: small groups, signs that hold for most rows only. The paper
needs strong regularisation or early stopping beside it, because a network that fits all rows has no worst domain left.
It ignores everything but the size of risks: a domain of noisy labels draws all weight. Each piece of a batch taken in pieces is
weighed by its own risks, and the weights then move once, by their mean. Several processes add their rows up first.
Shapes: b rows in a batch, k outputs, e domains.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.core.errors import DataError
from headstart.objectives.domain_risks import DomainRisks, domain_risks
from headstart.objectives.objective import Batch, Setup, check_positive

__all__ = ["GroupDRO", "exponential_update"]


def exponential_update(weights_e: Tensor, risks_e: Tensor, step: float) -> Tensor:
    """Return weights that sum to 1, moved towards the domains of large risk.

    Parameters
    ----------
    weights_e : Tensor of shape (e,)
        Above 0.
    risks_e : Tensor of shape (e,)
        Of the same domains; 0 for one that has no rows now.
    step : float
        How fast.

    Returns
    -------
    Tensor of shape (e,)
        Without gradient. Computed in logarithms, so that large risks do not overflow.

    Examples
    --------
    >>> exponential_update(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 3.0]).log1p(), step=1.0)       # 1 : 4
    tensor([0.2000, 0.8000])
    """
    return (weights_e.log() + step * risks_e.detach()).softmax(0)


class GroupDRO(DomainRisks):
    """The risks of the labelled rows' domains, weighed towards the largest; stands in place of the task's own loss.

    Parameters
    ----------
    step : float
        How fast weights move.
    head : str
        Name of the head that answers.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If ``step`` is not above 0.

    Examples
    --------
    >>> from headstart.core.tasks import Task
    >>> term = GroupDRO(step=1.0)
    >>> term.prepare(Setup(torch.nn.Identity(), Task("classification", ("a", "b")), num_domains=2))
    >>> batch = Batch(
    ...     labels=torch.tensor([0, 0]), logits=torch.tensor([[0.0, 0.0], [100.0, 0.0]]), domains=torch.tensor([0, 1])
    ... )
    >>> term(batch)                                # weights exp(log 2) : 1, risks log 2 and 0
    tensor(0.4621)
    >>> term.after_step()
    >>> term.domain_weights
    tensor([0.6667, 0.3333])
    """

    compares_sources = True
    domain_weights: Tensor

    def __init__(self, step: float = 0.01, head: str = "main", weight: float = 1.0) -> None:
        super().__init__()
        check_positive("GroupDRO", "step", step)
        self.step, self.head, self.weight = step, head, weight
        self.register_buffer("domain_weights", torch.ones(1))
        self._seen: list[Tensor] = []  # risks (e,) of the pieces of this step, not a number for domains without a row

    def prepare(self, setup: Setup) -> None:
        """Take the task's loss, and begin with even weights."""
        super().prepare(setup)
        count = setup.num_domains
        self.domain_weights = torch.full((count,), 1 / count, device=self.domain_weights.device)

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the risks, weighed as the weights will be after this step.

        Raises
        ------
        DataError
            If a row comes from a domain that was not there at the start.
        """
        logits_bk, labels, domains = self.rows(source)
        numbers = torch.unique(domains).tolist()
        risks_e = domain_risks(logits_bk, labels, domains, self.task_loss)
        if numbers[-1] >= len(self.domain_weights):
            raise DataError(
                f"GroupDRO: a row comes from domain {numbers[-1]}, but there were {len(self.domain_weights)} domains when the "
                "training began; number them from 0 on."
            )
        every_e = torch.full_like(self.domain_weights, torch.nan)
        every_e[numbers] = risks_e.detach().to(every_e.dtype)
        self._seen.append(every_e)
        moved_e = exponential_update(self.domain_weights, every_e.nan_to_num(0.0), self.step)
        return self.weight * (moved_e[numbers].to(risks_e.dtype) * risks_e).sum()

    def after_step(self) -> None:
        """Move the weights by the mean risks of the step."""
        if not self._seen:
            return
        risks_e = torch.stack(self._seen).nanmean(0).nan_to_num(0.0)
        self.domain_weights.copy_(exponential_update(self.domain_weights, risks_e, self.step))
        self._seen.clear()
