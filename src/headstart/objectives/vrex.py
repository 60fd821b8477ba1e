"""VREx: the risks of all source domains become the same.

    vrex = 1/e sum_e (R_e - mean R)^2                         R_e: risk of domain e

Source: Krueger et al., "Out-of-Distribution Generalization via Risk Extrapolation (REx)", ICML 2021 (arXiv:2003.00688), equation
8, beta times the variance of the training risks; the paper adds it to the sum of the risks, here (as in the published benchmark
DomainBed) it stands beside their mean, that is beside the task's loss under domain-balanced batches.
Use it as IRM, where the share of a misleading sign differs between domains; it also acts on shifts of the inputs alone.
It ignores domains that are harder by nature: their risk is brought level by raising the others'.
Shapes: b rows in a batch, k outputs, e domains that occur in the batch.
"""

from __future__ import annotations

from torch import Tensor

from headstart.objectives.domain_risks import DomainPenalty, domain_risks

__all__ = ["VREx", "risk_variance"]


def risk_variance(risks_e: Tensor) -> Tensor:
    """Return the variance of the risks, divided by their number.

    Parameters
    ----------
    risks_e : Tensor of shape (e,)
        One risk a domain; see `headstart.objectives.domain_risks`.

    Returns
    -------
    Tensor of shape ()
        At least 0, and 0 for a single domain; the squared unit of the risk.

    Examples
    --------
    >>> import torch
    >>> risk_variance(torch.tensor([1.0, 3.0]))
    tensor(1.)
    """
    return (risks_e - risks_e.mean()).square().mean()


class VREx(DomainPenalty):
    """`risk_variance` of the labelled rows' domains, beside the task's own loss.

    Parameters
    ----------
    start : float in [0, 1)
        Share of the training before which the term is 0.
    head : str
        Name of the head that answers.
    weight : float
        Multiplies the term; the beta of the paper.

    Raises
    ------
    ConfigError
        If ``start`` is no share.

    Examples
    --------
    >>> import torch
    >>> from headstart.objectives.objective import Batch
    >>> batch = Batch(
    ...     labels=torch.tensor([0, 0]), logits=torch.tensor([[0.0, 0.0], [100.0, 0.0]]), domains=torch.tensor([0, 1])
    ... )
    >>> VREx()(batch)                                                # (log 2 / 2)^2
    tensor(0.1201)
    """

    compares_sources = True

    def penalty(self, logits_bk: Tensor, labels: Tensor, domains: Tensor) -> Tensor:
        """Return `risk_variance` of some rows."""
        return risk_variance(domain_risks(logits_bk, labels, domains, self.task_loss))
