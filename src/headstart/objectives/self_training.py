"""Class-balanced self-training: the surest share of each class's target rows gets its answer as a label, a share that grows.

    l_c = the ceil(a n_c)-th largest of max_c' p_jc' over the n_c rows j that are answered c          (1 where there are none)
    y_i = argmax over c of p_ic / l_c,  taken where p_iy >= l_y            a = start + (end - start) * share of the training done
    self-training = 1/b sum over the taken i of  - log softmax(z_i)_y_i

Source: Zou, Yu, Vijaya Kumar & Wang, "Unsupervised Domain Adaptation for Semantic Segmentation via Class-Balanced Self-Training",
ECCV 2018 (arXiv:1810.07911), section 4: a threshold for each class, calibrated by its own answers, from 20 % of the rows
to 50 %. They label all rows anew in rounds; here thresholds follow a memory of each row's last answer, step by step.
Use it on target rows with the loss of labelled rows, weight 1.
It ignores whether the surest rows are right; a class that no row is answered with gets none.
Shapes: b rows, m rows of the target stream, k classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_matrix
from headstart.objectives.fixmatch import check_share
from headstart.objectives.objective import Batch, Objective, Setup
from headstart.objectives.precision import widen
from headstart.objectives.target_memory import first_outputs

__all__ = ["SelfTraining", "balanced_thresholds", "self_training_loss"]


def balanced_thresholds(probabilities_mk: Tensor, portion: float) -> Tensor:
    """Return for each class the probability that a share of the rows answered with it reach.

    Parameters
    ----------
    probabilities_mk : Tensor of shape (m, k)
        Answers of all rows.
    portion : float in [0, 1]
        Share of each class's rows; at least one row reaches the threshold.

    Returns
    -------
    Tensor of shape (k,)
        1 for a class that no row is answered with.

    Raises
    ------
    ShapeError
        If the answers are no matrix.

    Examples
    --------
    >>> answers = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]])
    >>> balanced_thresholds(answers, 0.5)                                     # the second of three; the only one
    tensor([0.8000, 0.6000])
    """
    check_matrix("balanced_thresholds", "probabilities", probabilities_mk)
    sure_m, labels_m = probabilities_mk.max(1)
    thresholds_k = torch.ones_like(probabilities_mk[0])
    for label in range(len(thresholds_k)):
        mine = sure_m[labels_m == label].sort(descending=True).values
        if len(mine):
            thresholds_k[label] = mine[max(1, math.ceil(portion * len(mine))) - 1]
    return thresholds_k


def self_training_loss(logits_bk: Tensor, thresholds_k: Tensor) -> Tensor:
    """Return the cross-entropy of rows with their own answers, where those reach their class's threshold; 0 for other rows.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Half precision is computed in float32.
    thresholds_k : Tensor of shape (k,)
        Above 0; the answer is the class that is largest against its own.

    Returns
    -------
    Tensor of shape ()
        Nats, over all rows.

    Raises
    ------
    ShapeError
        If the logits are no matrix.

    Examples
    --------
    >>> logits = torch.log(torch.tensor([[0.6, 0.4], [0.8, 0.2]]))
    >>> self_training_loss(logits, torch.tensor([0.9, 0.3]))                  # the first is of class 1: -log(0.4) / 2
    tensor(0.4581)
    """
    check_matrix("self_training_loss", "logits", logits_bk)
    logits_bk = widen(logits_bk)
    against_bk = functional.softmax(logits_bk.detach(), dim=1) / thresholds_k.to(logits_bk.dtype)
    reached_b, labels_b = against_bk.max(1)
    losses_b = functional.cross_entropy(logits_bk, labels_b, reduction="none")
    return torch.where(reached_b >= 1, losses_b, 0.0).mean()


class SelfTraining(Objective):
    """`self_training_loss` of target rows, with `balanced_thresholds` of each row's last answer.

    The answers are a buffer, written after each step.

    Parameters
    ----------
    start, end : float in [0, 1]
        Share of each class's rows that is labelled, at the beginning and at the end of the training.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If a share lies outside [0, 1], or there is no second stream.

    Examples
    --------
    >>> import numpy as np
    >>> outputs = lambda: (np.ones((1, 1), np.float32), np.log([[0.6, 0.4]]).astype(np.float32))
    >>> objective = SelfTraining()
    >>> objective.prepare(Setup(torch.nn.Module(), task=None, num_target=1, target_outputs=outputs))
    >>> objective(Batch(), Batch(rows=torch.tensor([0]), logits=torch.log(torch.tensor([[0.7, 0.3]]))))   # -log(0.7)
    tensor(0.3567)
    """

    needs = frozenset({"logits"})
    reads_classes = True
    answers_mk: Tensor

    def __init__(self, start: float = 0.2, end: float = 0.5, weight: float = 1.0) -> None:
        super().__init__()
        check_share("SelfTraining", "start", start)
        check_share("SelfTraining", "end", end)
        self.start, self.end, self.weight = start, end, weight
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def prepare(self, setup: Setup) -> None:
        """Take the network's answers at the start."""
        self.register_buffer("answers_mk", functional.softmax(first_outputs("SelfTraining", setup)[1], dim=1))

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the loss; in training mode the rows' answers wait for `after_step`."""
        (batch,) = self.chosen("target", source, target)
        logits_bk, rows_b = self.take(batch, "logits"), self.take(batch, "rows")
        portion = self.start + (self.end - self.start) * batch.share
        thresholds_k = balanced_thresholds(self.answers_mk, portion)
        if self.training:
            self._waiting.append((rows_b, functional.softmax(widen(logits_bk.detach()), dim=1)))
        return self.weight * self_training_loss(logits_bk, thresholds_k)

    @torch.no_grad()
    def after_step(self) -> None:
        """Write down the step's answers."""
        for waiting in self._waiting:
            rows_b, answers_bk = self.together.rows(*waiting)
            self.answers_mk[rows_b] = answers_bk.to(self.answers_mk.dtype)
        self._waiting = []
