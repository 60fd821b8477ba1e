"""Consistency: two views of a row get the same answer, from the network in training and from its teacher.

    kl       = 1/b sum_i KL(softmax(f_i) || softmax(g_i))
    squared  = 1/b sum_i || softmax(f_i) - softmax(g_i) ||^2           f of the network in training, g of the teacher

Source: Tarvainen & Valpola, "Mean teachers are better role models", NeurIPS 2017 (arXiv:1703.01780), section 2, for the squared
form: the expected squared norm, which the authors' code divides by the number of classes and we, as the paper, do not.
Use it with rows that have no labels; the teacher is the network's own weights, averaged over steps.
It ignores whether the teacher is right.
Shapes: b rows, k classes.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from headstart.objectives.distillation import kl_divergence, same_shape
from headstart.objectives.feature_mapping import feature_mapping_loss
from headstart.objectives.objective import Batch, Objective, Rows, check_choice

__all__ = ["Consistency", "Form", "consistency_loss"]

Form = Literal["squared", "kl"]


def consistency_loss(logits_bk: Tensor, teacher_bk: Tensor, *, form: Form = "squared") -> Tensor:
    """Return how far a network's softmax outputs are from its teacher's.

    Parameters
    ----------
    logits_bk, teacher_bk : Tensor of shape (b, k)
        Logits over the same classes. No gradient flows to the teacher. Half precision is computed in float32.
    form : {"squared", "kl"}
        Squared distance, or ``KL(network || teacher)`` in nats.

    Returns
    -------
    Tensor of shape ()
        At least 0; the squared form at most 2.

    Raises
    ------
    ShapeError
        If the shapes differ or are no matrices.

    Examples
    --------
    >>> even, sure = torch.zeros(1, 2), torch.tensor([[100.0, 0.0]])
    >>> consistency_loss(even, sure)                              # 0.5^2 + 0.5^2
    tensor(0.5000)
    >>> consistency_loss(sure, even, form="kl")                   # 1 log(1 / 0.5)
    tensor(0.6931)
    """
    logits_bk, teacher_bk = same_shape("consistency_loss", logits_bk, teacher_bk.detach())
    if form == "kl":
        return kl_divergence(logits_bk, teacher_bk)
    return feature_mapping_loss(functional.softmax(logits_bk, dim=1), functional.softmax(teacher_bk, dim=1))


class Consistency(Objective):
    """`consistency_loss` between the network in training and its averaged teacher.

    Parameters
    ----------
    form : {"squared", "kl"}
        Squared distance as in mean teacher, or Kullback-Leibler divergence.
    rows : {"source", "target", "both"}
        Of which stream; mean teacher uses all rows.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If a choice is unknown.

    Examples
    --------
    >>> Consistency()(Batch(logits=torch.zeros(1, 2), teacher_logits=torch.tensor([[100.0, 0.0]])))
    tensor(0.5000)
    """

    needs = frozenset({"logits", "teacher_logits"})
    reads_classes = True

    def __init__(self, form: Form = "squared", rows: Rows = "both", weight: float = 1.0) -> None:
        super().__init__()
        check_choice("Consistency", "form", form, ("squared", "kl"))
        check_choice("Consistency", "rows", rows, ("source", "target", "both"))
        self.form, self.rows, self.weight = form, rows, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the distance from the teacher's answers."""
        batches = self.chosen(self.rows, source, target)
        logits_bk = torch.cat([self.take(batch, "logits") for batch in batches])
        teacher_bk = torch.cat([self.take(batch, "teacher_logits") for batch in batches])
        return self.weight * consistency_loss(logits_bk, teacher_bk, form=self.form)
