"""Batch nuclear-norm maximisation: answers of a batch become sure, and differ from each other.

    bnm      = - 1/b ||P||_*               P_ic = softmax(z_i)_c,   ||.||_* the sum of the singular values
    fast bnm = - 1/b sum over the min(b, k) largest of  sqrt(sum_i P_ic^2)

Source: Cui et al., "Towards Discriminability and Diversity: Batch Nuclear-norm Maximization under Label Insufficient Situations",
CVPR 2020 (arXiv:2003.12237), section 3; the fast one, which leaves out the decomposition, is from "Fast Batch Nuclear-norm
Maximization and Minimization for Robust Domain Adaptation", 2021 (arXiv:2107.06154). The authors' training code divides by the
number of singular values, not by b; here, as in the formula, by b.
Use it on target rows with the loss of labelled rows, weight 1. Unlike entropy it does not give all rows one class.
It ignores class shares: rows of rare classes are pulled out of large ones. Batches with many more classes than rows see little.
Shapes: b rows, k classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_matrix
from headstart.objectives.objective import Batch, Objective
from headstart.objectives.precision import full_precision, widen

__all__ = ["BNM", "batch_nuclear_norm"]


@full_precision
def batch_nuclear_norm(logits_bk: Tensor, *, fast: bool = False) -> Tensor:
    """Return the nuclear norm of a batch's probabilities, over the number of rows.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Half precision is computed in float32.
    fast : bool
        Take the lengths of the columns for the singular values: exact where rows are certain, and cheaper.

    Returns
    -------
    Tensor of shape ()
        Above 0, at most ``sqrt(min(b, k) / b)``.

    Raises
    ------
    ShapeError
        If the logits are no matrix.

    Examples
    --------
    >>> batch_nuclear_norm(torch.tensor([[200.0, 0.0], [0.0, 200.0]]))       # the unit matrix: (1 + 1) / 2
    tensor(1.)
    >>> batch_nuclear_norm(torch.zeros(2, 2), fast=True)                     # two columns of length sqrt(1/2), over 2
    tensor(0.7071)
    """
    check_matrix("batch_nuclear_norm", "logits", logits_bk)
    probabilities_bk = functional.softmax(widen(logits_bk), dim=1)
    num_rows, num_classes = probabilities_bk.shape
    if not fast:
        values: Tensor = torch.linalg.svdvals(probabilities_bk)
        return values.sum() / num_rows
    lengths_k: Tensor = torch.linalg.vector_norm(probabilities_bk, dim=0)
    return lengths_k.topk(min(num_rows, num_classes)).values.sum() / num_rows


class BNM(Objective):
    """`batch_nuclear_norm` of a head's answers on target rows, to be made large.

    Parameters
    ----------
    fast : bool
        The lengths of columns for the singular values.
    head : str
        Whose answers.
    weight : float
        Multiplies the term.

    Examples
    --------
    >>> BNM()(Batch(), Batch(logits=torch.tensor([[200.0, 0.0], [0.0, 200.0]])))
    tensor(-1.)
    """

    needs = frozenset({"logits"})
    reads_classes = True

    def __init__(self, fast: bool = False, head: str = "main", weight: float = 1.0) -> None:
        super().__init__()
        self.fast, self.head, self.weight = fast, head, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``-weight`` times the norm."""
        (batch,) = self.chosen("target", source, target)
        return -self.weight * batch_nuclear_norm(self.take_logits(batch, self.head), fast=self.fast)
