"""IRMv1: in every source domain the network's outputs could be scaled no better than they are.

    irm = 1/e sum_e ( d/dw R_e(w z) at w = 1 )^2              R_e: risk of domain e, z: its logits, w: one number

Source: Arjovsky, Bottou, Gulrajani & Lopez-Paz, "Invariant Risk Minimization", 2019 (arXiv:1907.02893), (IRMv1) of section 3.1;
the paper sums over domains, here is their mean, as in the published DomainBed, so that a weight means the same for any number.
Use it where something that predicts the label well, but not equally well everywhere (a colour, a camera), must not be learned.
The paper weighs it by up to 1e5, after a first part of the training without it: ``start``.
It ignores how large the risks are; and it squares a gradient over a batch, so noise of small batches counts as unlikeness. (The
published code multiplies the gradients of two halves of a batch instead, which is unbiased and can be negative.)
Shapes: b rows in a batch, k outputs, e domains that occur in the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.objectives.domain_risks import DomainRisks, Loss, begins, check_start, domains_present
from headstart.objectives.objective import Batch
from headstart.objectives.precision import full_precision, widen
from headstart.objectives.supervised import cross_entropy

__all__ = ["IRM", "irm_penalty", "risk_slopes"]


@full_precision
def irm_penalty(logits_bk: Tensor, labels: Tensor, domains: Tensor, loss: Loss = cross_entropy) -> Tensor:
    """Return the mean over domains of the squared derivative of the domain's risk by the scale of the logits.

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
    Tensor of shape ()
        At least 0; the squared unit of the loss.

    Raises
    ------
    ShapeError
        If there is not one domain a row, or the loss does not take the rows.

    Examples
    --------
    >>> from headstart.objectives.supervised import squared_error
    >>> logits, labels = torch.tensor([[1.0], [2.0]]), torch.tensor([2.0, 2.0])
    >>> irm_penalty(logits, labels, torch.tensor([0, 1]), squared_error)       # ((2 * (1 - 2) * 1)^2 + 0) / 2
    tensor(2.)
    """
    return risk_slopes(logits_bk, labels, domains, loss).square().mean()


@full_precision
def risk_slopes(logits_bk: Tensor, labels: Tensor, domains: Tensor, loss: Loss = cross_entropy) -> Tensor:
    """Return the derivative of each domain's risk by the scale of the logits, at 1.

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
        In the loss's unit, in the order of the domains' numbers.

    Examples
    --------
    >>> from headstart.objectives.supervised import squared_error
    >>> logits, labels = torch.tensor([[1.0], [2.0]]), torch.tensor([2.0, 2.0])
    >>> risk_slopes(logits, labels, torch.tensor([0, 1]), squared_error)       # 2 * (1 - 2) * 1, and 0
    tensor([-2.,  0.])
    """
    logits_bk = widen(logits_bk)
    slopes = []
    for _, mask in domains_present(logits_bk, domains):
        scale = torch.ones((), dtype=logits_bk.dtype, device=logits_bk.device, requires_grad=True)
        with torch.enable_grad():
            risk = loss(scale * logits_bk[mask], labels[mask])
        (slope,) = torch.autograd.grad(risk, [scale], create_graph=logits_bk.requires_grad)
        slopes.append(slope)
    return torch.stack(slopes)


class IRM(DomainRisks):
    """`irm_penalty` of the labelled rows, beside the task's own loss.

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

    Examples
    --------
    >>> from headstart.core.tasks import Task
    >>> from headstart.objectives.objective import Setup
    >>> term = IRM(weight=0.5)
    >>> term.prepare(Setup(torch.nn.Identity(), Task("regression")))
    >>> term(Batch(labels=torch.tensor([2.0]), logits=torch.tensor([[1.0]]), domains=torch.tensor([0])))
    tensor(2.)
    """

    def __init__(self, start: float = 0.0, head: str = "main", weight: float = 1.0) -> None:
        super().__init__()
        check_start("IRM", start)
        self.start, self.head, self.weight = start, head, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the penalty, once it has begun."""
        logits_bk, labels, domains = self.rows(source)
        _, slopes_e = self.whole(domains, risk_slopes(logits_bk, labels, domains, self.task_loss))
        return self.weight * begins(source.share, self.start) * slopes_e.square().mean()
