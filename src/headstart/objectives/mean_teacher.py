"""Mean teacher across domains: the answers of an averaged network on another view, where it is sure, with a weight that rises.

    teacher loss = r(t) / b sum_i 1[max_c q_ic >= threshold]  1/k || p_i - q_i ||^2       p of the network, q of the teacher
    r(t) = exp(-5 (1 - t / T)^2) for t < T, 1 afterwards                                  t: share of the training done

Source: French, Mackiewicz & Fisher, "Self-ensembling for visual domain adaptation", ICLR 2018 (arXiv:1706.05208): threshold
0.968 in place of a rising weight, weight 3, target rows, teacher decay 0.99; squares are averaged over the classes, as in their
code. The rising weight r is that of Tarvainen & Valpola, "Mean teachers are better role models", NeurIPS 2017 (arXiv:1703.01780).
Use it with views that differ (mirrored, cut, noisy). `Consistency` is the plain form without threshold and ramp.
It ignores whether the teacher is right. The authors' balance of classes is a term of its own: add `InfoMax` or `BNM`.
Shapes: b rows, k classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from headstart.objectives.distillation import same_shape
from headstart.objectives.fixmatch import check_share
from headstart.objectives.objective import Batch, Objective, Rows, check_choice

__all__ = ["MeanTeacher", "gaussian_ramp", "teacher_loss"]


def gaussian_ramp(share: float, length: float) -> float:
    """Return the rising weight: ``exp(-5 (1 - share / length)^2)`` up to ``length``, 1 from there on.

    Parameters
    ----------
    share : float in [0, 1]
        How much of the training is done.
    length : float in [0, 1]
        Share of the training over which the weight rises; 0 for none.

    Examples
    --------
    >>> round(gaussian_ramp(0.0, 0.5), 4), round(gaussian_ramp(0.25, 0.5), 4), gaussian_ramp(0.5, 0.5)
    (0.0067, 0.2865, 1.0)
    """
    return 1.0 if share >= length else math.exp(-5.0 * (1.0 - share / length) ** 2)


def teacher_loss(logits_bk: Tensor, teacher_bk: Tensor, *, threshold: float = 0.968) -> Tensor:
    """Return the mean squared distance to the teacher's probabilities, of rows it is sure of; 0 for other rows.

    Parameters
    ----------
    logits_bk, teacher_bk : Tensor of shape (b, k)
        Logits over the same classes. No gradient flows to the teacher. Half precision is computed in float32.
    threshold : float in [0, 1]
        Probability of the teacher's answer from which a row counts.

    Returns
    -------
    Tensor of shape ()
        From 0 to 2 / k, over all rows.

    Raises
    ------
    ShapeError
        If the shapes differ or are no matrices.

    Examples
    --------
    >>> teacher = torch.tensor([[200.0, 0.0], [0.0, 0.0]])                     # sure, and not
    >>> teacher_loss(torch.zeros(2, 2), teacher)                              # (0.5^2 + 0.5^2) / 2 of two rows
    tensor(0.1250)
    """
    logits_bk, teacher_bk = same_shape("teacher_loss", logits_bk, teacher_bk.detach())
    answers_bk = functional.softmax(teacher_bk, dim=1)
    distances_b = (functional.softmax(logits_bk, dim=1) - answers_bk).square().mean(1)
    return torch.where(answers_bk.amax(1) >= threshold, distances_b, 0.0).mean()


class MeanTeacher(Objective):
    """`teacher_loss` between the network in training and its averaged teacher, with a rising weight.

    Parameters
    ----------
    threshold : float in [0, 1]
        Probability of the teacher's answer from which a row counts; 0 for all rows.
    ramp : float in [0, 1]
        Share of the training over which the weight rises; 0 for none.
    rows : {"source", "target", "both"}
        Of which stream.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If an argument breaks its rule.

    Examples
    --------
    >>> batch = Batch(logits=torch.zeros(1, 2), teacher_logits=torch.tensor([[200.0, 0.0]]))
    >>> MeanTeacher()(Batch(), batch)
    tensor(0.2500)
    """

    needs = frozenset({"logits", "teacher_logits"})
    reads_classes = True

    def __init__(self, threshold: float = 0.968, ramp: float = 0.0, rows: Rows = "target", weight: float = 1.0) -> None:
        super().__init__()
        check_share("MeanTeacher", "threshold", threshold)
        check_share("MeanTeacher", "ramp", ramp)
        check_choice("MeanTeacher", "rows", rows, ("source", "target", "both"))
        self.threshold, self.ramp, self.rows, self.weight = threshold, ramp, rows, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the loss, as far as it has risen."""
        batches = self.chosen(self.rows, source, target)
        logits_bk = torch.cat([self.take(batch, "logits") for batch in batches])
        teacher_bk = torch.cat([self.take(batch, "teacher_logits") for batch in batches])
        rise = gaussian_ramp(batches[0].share, self.ramp)
        return self.weight * rise * teacher_loss(logits_bk, teacher_bk, threshold=self.threshold)
