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

from headstart.objectives.domain_risks import DomainPenalty, Loss, domain_risks
from headstart.objectives.precision import full_precision, widen
from headstart.objectives.supervised import cross_entropy

__all__ = ["IRM", "irm_penalty"]


@full_precision
def irm_penalty(logits_bk: Tensor, labels: Tensor, domains: Tensor, loss: Loss = cross_entropy) -> Tensor:
    """Return the mean over domains of the squared derivative of the domain's risk by the scale of the logits.

    Parameters
    ----------
    logits_bk, labels, domains, loss
        As of `headstart.objectives.domain_risks`.

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
    logits_bk = widen(logits_bk)
    numbers_e, places_b = torch.unique(domains, return_inverse=True)
    scales_e = torch.ones(len(numbers_e), dtype=logits_bk.dtype, device=logits_bk.device, requires_grad=True)
    with torch.enable_grad():  # the risk of a domain depends on its own scale alone
        total = domain_risks(scales_e[places_b, None] * logits_bk, labels, domains, loss).sum()
    (slopes_e,) = torch.autograd.grad(total, [scales_e], create_graph=logits_bk.requires_grad)
    return slopes_e.square().mean()


class IRM(DomainPenalty):
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
    >>> from headstart.objectives.objective import Batch, Setup
    >>> term = IRM(weight=0.5)
    >>> term.prepare(Setup(torch.nn.Identity(), Task("regression")))
    >>> term(Batch(labels=torch.tensor([2.0]), logits=torch.tensor([[1.0]]), domains=torch.tensor([0])))
    tensor(2.)
    """

    def penalty(self, logits_bk: Tensor, labels: Tensor, domains: Tensor) -> Tensor:
        """Return `irm_penalty` of some rows."""
        return irm_penalty(logits_bk, labels, domains, self.task_loss)
