"""Domain risks: the task's loss of every source domain by itself, which generalisation to unseen domains is built on.

    R_e = 1/n_e sum over the rows i of domain e of loss(z_i, y_i)

Source: Arjovsky et al., "Invariant Risk Minimization", 2019 (arXiv:1907.02893), section 1, the risk under an environment.
Use it where labelled rows come from several domains, with ``balance="domains"`` so that each batch has rows of all of them.
Of several processes each sees the risks, and so the objectives built on them, of the rows of all: value and gradient are those
of one process (`headstart.objectives.together`).
It ignores domains without a row in the batch, label smoothing and class weights.
Shapes: b rows in a batch, k outputs, e domains that occur in the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from headstart.core.checks import check_same_rows
from headstart.core.errors import ConfigError
from headstart.objectives.objective import Batch, Objective, Setup
from headstart.objectives.precision import widen
from headstart.objectives.supervised import cross_entropy, supervised_objective

__all__ = ["DomainPenalty", "DomainRisks", "Loss", "begins", "domain_risks", "domains_present"]

Loss = Callable[[Tensor, Tensor], Tensor]


def domains_present(logits_bk: Tensor, domains: Tensor) -> list[tuple[int, Tensor]]:
    """Return the domains that occur, in order, each with a mask of its rows.

    Examples
    --------
    >>> [(number, mask.tolist()) for number, mask in domains_present(torch.zeros(3, 1), torch.tensor([4, 0, 4]))]
    [(0, [False, True, False]), (4, [True, False, True])]
    """
    check_same_rows("domains_present", "rows", logits_bk, "domains", domains)
    numbers: Tensor = torch.unique(domains)
    return [(int(number), domains == number) for number in numbers]


def domain_risks(logits_bk: Tensor, labels: Tensor, domains: Tensor, loss: Loss = cross_entropy) -> Tensor:
    """Return the mean loss of the rows of each domain that occurs, in the order of the domains' numbers.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Outputs before the softmax. Half precision is computed in float32.
    labels : Tensor of shape (b,) or (b, k)
        What the loss takes.
    domains : Tensor of shape (b,)
        int64 number of each row's domain.
    loss : callable
        Mean loss of some rows, of their logits and labels.

    Returns
    -------
    Tensor of shape (e,)
        The loss's unit.

    Raises
    ------
    ShapeError
        If there is not one domain a row, or the loss does not take the rows.

    Examples
    --------
    >>> logits, labels = torch.tensor([[0.0, 0.0], [100.0, 0.0]]), torch.tensor([0, 0])
    >>> domain_risks(logits, labels, torch.tensor([0, 1]))          # log 2, and nothing
    tensor([0.6931, 0.0000])
    """
    return torch.stack([loss(logits_bk[mask], labels[mask]) for _, mask in domains_present(logits_bk, domains)])


def begins(share: float, start: float) -> float:
    """Return 0 before a share of the training is done, and 1 from then on: the schedule of a penalty.

    Examples
    --------
    >>> begins(0.0, 0.2), begins(0.2, 0.2), begins(1.0, 0.2)
    (0.0, 1.0, 1.0)
    """
    return float(share >= start)


class DomainRisks(Objective):
    """What objectives over several source domains have in common: the task's own loss, for each domain.

    Attributes
    ----------
    head : str
        Name of the head that answers; a subclass takes it as an argument.
    """

    needs = frozenset({"labels", "logits", "domains"})
    head: str

    def __init__(self) -> None:
        super().__init__()
        self.task_loss: Loss = cross_entropy

    def prepare(self, setup: Setup) -> None:
        """Take the loss that belongs to the task."""
        plain = supervised_objective(setup.task)
        self.task_loss = lambda logits_bk, labels: plain(Batch(labels=labels, logits=logits_bk))

    def rows(self, source: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, labels and domains of the labelled rows, of all processes."""
        logits_bk, labels, domains = self.together.whole(
            widen(self.take_logits(source, self.head)), self.take(source, "labels"), self.take(source, "domains")
        )
        return logits_bk, labels, domains


class DomainPenalty(DomainRisks):
    """A penalty on domains that are unlike, beside the task's own loss, from some share of the training on.

    A subclass writes `penalty`.

    Parameters
    ----------
    start : float in [0, 1)
        Share of the training before which the term is 0.
    head : str
        Name of the head that answers.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If ``start`` is no share.
    """

    def __init__(self, start: float = 0.0, head: str = "main", weight: float = 1.0) -> None:
        super().__init__()
        if not 0 <= start < 1:
            raise ConfigError(
                f"{type(self).__name__}: start is the share of the training before the penalty begins, in [0, 1); got {start}."
            )
        self.start, self.head, self.weight = start, head, weight

    def penalty(self, logits_bk: Tensor, labels: Tensor, domains: Tensor) -> Tensor:
        """Return the penalty of some rows, a tensor of shape ()."""
        raise NotImplementedError

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the penalty, once it has begun."""
        return self.weight * begins(source.share, self.start) * self.penalty(*self.rows(source))
