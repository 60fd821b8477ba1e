"""Class-weighted cross-entropy: a source class counts as much as the network believes it to occur in the target.

    q <- momentum q + (1 - momentum) mean over target rows of softmax(z)         w_c = q_c / max q
    loss = 1/b sum_i w_{y_i} (-log softmax(z_i)_{y_i})

Source: Cao, Ma, Long & Wang, "Partial Adversarial Domain Adaptation", ECCV 2018 (arXiv:1808.04205), equations 2 and 3 and the
first term of 4: class weights from the target's mean answers, divided by the largest. The paper makes them anew every 500 steps
from all target rows; the moving average is ours. `PADA` has the critic to it.
Use it in place of the task's loss where the target has only some of the source's classes; it goes with any other term.
It ignores whether the answers are right: a class that the network misses in the target is unlearned. Where all classes occur in
other shares than in the source, it follows them, which is what a prior would do.
Shapes: b source rows, k classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_matrix, check_same_rows
from headstart.core.errors import ConfigError
from headstart.objectives.objective import Batch, Objective, Setup
from headstart.objectives.precision import widen

__all__ = ["ClassWeightedCrossEntropy", "class_weighted_cross_entropy", "class_weights_of"]


def class_weights_of(shares_k: Tensor) -> Tensor:
    """Return how much each class counts: its share of the target, over the largest.

    Examples
    --------
    >>> class_weights_of(torch.tensor([0.5, 0.25, 0.25]))
    tensor([1.0000, 0.5000, 0.5000])
    """
    return shares_k / shares_k.max()


def class_weighted_cross_entropy(logits_bk: Tensor, labels_b: Tensor, weights_k: Tensor) -> Tensor:
    """Return the mean over rows of the cross-entropy times the weight of the row's class.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Outputs before the softmax. Half precision is computed in float32.
    labels_b : Tensor of shape (b,)
        int64 class numbers.
    weights_k : Tensor of shape (k,)
        Of the classes.

    Returns
    -------
    Tensor of shape ()
        Nats a row; at least 0.

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    Examples
    --------
    >>> class_weighted_cross_entropy(torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([1.0, 0.0]))     # log 2 / 2
    tensor(0.3466)
    """
    check_matrix("class_weighted_cross_entropy", "logits", logits_bk)
    check_same_rows("class_weighted_cross_entropy", "logits", logits_bk, "labels", labels_b)
    logits_bk = widen(logits_bk)
    losses_b = functional.cross_entropy(logits_bk, labels_b, reduction="none")
    return (weights_k.to(logits_bk.dtype)[labels_b] * losses_b).mean()


class ClassWeightedCrossEntropy(Objective):
    """`class_weighted_cross_entropy` of the source rows, by the classes' shares among the answers for the target.

    Parameters
    ----------
    momentum : float in [0, 1)
        How much of the shares stays in each step.
    head : str
        Name of the head.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If ``momentum`` lies outside [0, 1).

    Examples
    --------
    >>> ClassWeightedCrossEntropy().config()
    {'momentum': 0.99, 'head': 'main', 'weight': 1.0}
    """

    needs = frozenset({"labels", "logits"})
    reads_classes = True
    shares: Tensor

    def __init__(self, momentum: float = 0.99, head: str = "main", weight: float = 1.0) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ConfigError(f"ClassWeightedCrossEntropy: momentum lies in [0, 1); got {momentum}.")
        self.momentum, self.head, self.weight = momentum, head, weight
        self.register_buffer("shares", torch.ones(0))
        self._seen: list[Tensor] = []

    def prepare(self, setup: Setup) -> None:
        """Begin with even shares.

        Raises
        ------
        ConfigError
            If rows have not one class each.
        """
        if setup.task.kind != "classification":
            raise ConfigError(
                f"ClassWeightedCrossEntropy: needs one class for each row; this task is {setup.task.kind}. Take the task's loss."
            )
        count = setup.task.num_outputs
        self.shares = torch.full((count,), 1 / count, device=self.shares.device)

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the weighed cross-entropy.

        Raises
        ------
        ConfigError
            If there is no target, or `prepare` has not been called.
        """
        (other,) = self.chosen("target", source, target)
        if not len(self.shares):
            raise ConfigError("ClassWeightedCrossEntropy: knows no classes yet; call prepare before the first step.")
        answers_mk = widen(self.take_logits(other, self.head).detach()).softmax(1)
        self._seen.append(answers_mk)
        logits_bk, labels_b = self.take_logits(source, self.head), self.take(source, "labels")
        return self.weight * class_weighted_cross_entropy(logits_bk, labels_b, class_weights_of(self.shares))

    def after_step(self) -> None:
        """Move the shares towards the answers of this step."""
        if self._seen:
            step = 1 - self.momentum
            (answers_mk,) = self.together.rows(torch.cat(self._seen))
            self.shares.lerp_(answers_mk.mean(0).to(self.shares.dtype), step)
            self._seen.clear()
