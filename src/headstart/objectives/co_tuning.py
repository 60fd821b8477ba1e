"""Co-tuning: the source task's head is trained along, on what the base model would call each class of the new task.

    loss          = weight / b sum_i H(p(y_s | y_t = y_i), softmax(source head(x_i)))     beside the new head's cross-entropy
    direct        : p(y_s | y_t = y)  = mean of the base model's answers over training rows of class y
    reverse       : p(y_s | y_t)      = p(y_t | y_s) p(y_s) / sum over y_s        with p(y_t | y_s) by logistic regression

Source: You, Kou, Long & Wang, "Co-Tuning for Transfer Learning", NeurIPS 2020, section 3: the two ways to learn how categories
relate, and the loss (weight 2.3 in the authors' code). In the reverse way p(y_s) is the mean answer and the sum over y_s replaces
p(y_t), as in the authors' code, so that what comes out is a distribution.
Use it to fine-tune the whole base model, its head included, when rows are few. Calibrate the base model by ``temperature`` where
its answers are too sure (the authors divide ResNet-50's logits by 1.13).
It ignores rows that their class's typical answer does not fit.
Shapes: n training rows, b rows in a batch, s classes of the source task, t of the new one.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from torch import Tensor

from headstart.core.checks import check_matrix, check_same_rows
from headstart.core.errors import ConfigError, ShapeError
from headstart.core.seeds import generator
from headstart.objectives.objective import Batch, Objective, Setup, check_choice, check_positive
from headstart.objectives.precision import full_precision
from headstart.objectives.supervised import cross_entropy

__all__ = ["CoTuning", "direct_relationship", "reverse_relationship"]

_STRENGTHS = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4)
_HELD_OUT_EVERY = 5


def direct_relationship(
    probabilities_ns: NDArray[Any], targets_n: NDArray[Any], num_classes: int
) -> NDArray[np.float64]:
    """Return the mean answer of the base model for each class of the new task.

    Parameters
    ----------
    probabilities_ns : array of shape (n, s)
        Answers of the base model, rows summing to 1.
    targets_n : array of shape (n,)
        Class numbers.
    num_classes : int
        t.

    Returns
    -------
    array of shape (t, s)
        Rows sum to 1. A class without rows gets the mean of all answers.

    Raises
    ------
    ShapeError
        If the shapes do not fit, or a class number lies outside 0..t-1.

    Examples
    --------
    >>> answers = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    >>> direct_relationship(answers, np.array([0, 0, 1]), 2).tolist()
    [[0.75, 0.25], [0.0, 1.0]]
    """
    probabilities_ns, targets_n = _checked("direct_relationship", probabilities_ns, targets_n, num_classes)
    counts_t = np.bincount(targets_n, minlength=num_classes)
    sums_ts = np.zeros((num_classes, probabilities_ns.shape[1]))
    np.add.at(sums_ts, targets_n, probabilities_ns)
    means_ts = sums_ts / np.maximum(counts_t, 1)[:, None]
    means_ts[counts_t == 0] = probabilities_ns.mean(0)
    return means_ts


def reverse_relationship(
    probabilities_ns: NDArray[Any], targets_n: NDArray[Any], num_classes: int, *, seed: int = 0
) -> NDArray[np.float64]:
    """Return how classes relate by way of ``p(y_t | y_s)``: logistic regression from answers to classes, then Bayes' rule.

    One row in five is held out; these rows choose the strength of the penalty and the temperature of the regression.

    Parameters
    ----------
    probabilities_ns : array of shape (n, s)
        Answers of the base model, rows summing to 1.
    targets_n : array of shape (n,)
        Class numbers.
    num_classes : int
        t.
    seed : int
        Of the choice of rows that are held out.

    Returns
    -------
    array of shape (t, s)
        Rows sum to 1. A class without rows gets the mean of all answers.

    Raises
    ------
    ShapeError
        If the shapes do not fit, or a class number lies outside 0..t-1.

    Examples
    --------
    >>> answers = np.repeat(np.array([[0.9, 0.1], [0.1, 0.9]]), 10, axis=0)
    >>> relation = reverse_relationship(answers, np.repeat([0, 1], 10), 2)
    >>> bool(relation[0, 0] > 0.9), bool(relation[1, 1] > 0.9)
    (True, True)
    """
    probabilities_ns, targets_n = _checked("reverse_relationship", probabilities_ns, targets_n, num_classes)
    marginal_s = probabilities_ns.mean(0)
    present = np.unique(targets_n)
    relation_ts = np.tile(marginal_s, (num_classes, 1))
    if len(present) < 2:
        return relation_ts
    coefficients_ts, scale = _regression(probabilities_ns, np.searchsorted(present, targets_n), seed)
    log_joint_ts = log_softmax(coefficients_ts.T * scale, axis=1).T + np.log(np.maximum(marginal_s, 1e-300))
    relation_ts[present] = softmax(
        log_joint_ts, axis=1
    )  # in logarithms: a class no source class leads to underflows otherwise
    return relation_ts


class CoTuning(Objective):
    """Cross-entropy between the source-task head and what the base model calls the row's class.

    Add it to the cross-entropy of the head of the new task. Classification only.

    Parameters
    ----------
    method : {"direct", "reverse"}
        How the relation of the classes is learned at `prepare`.
    temperature : float, above 0
        Divides the base model's logits; its calibration.
    head : str
        Name of the head that answers for the source task.
    seed : int
        Of the rows held out by the reverse method.
    weight : float
        Multiplies the term; the paper's lambda.

    Raises
    ------
    ConfigError
        If the temperature is not above 0, or a choice is unknown.

    Examples
    --------
    >>> from headstart.core.tasks import Task
    >>> objective = CoTuning(weight=1.0)
    >>> answers = np.array([[0.0, 100.0], [100.0, 0.0]], dtype=np.float32)
    >>> setup = Setup(torch.nn.Module(), Task("classification", ("a", "b")), np.array([0, 1]), lambda: answers)
    >>> objective.prepare(setup)
    >>> objective.relation_ts.round().tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    >>> objective(Batch(labels=torch.tensor([0]), head_logits={"source": torch.zeros(1, 2)}))
    tensor(0.6931)
    """

    needs = frozenset({"labels", "logits"})
    reads_classes = True
    relation_ts: Tensor

    def __init__(
        self,
        method: Literal["direct", "reverse"] = "direct",
        temperature: float = 1.0,
        head: str = "source",
        seed: int = 0,
        weight: float = 2.3,
    ) -> None:
        super().__init__()
        check_choice("CoTuning", "method", method, ("direct", "reverse"))
        check_positive("CoTuning", "temperature", temperature)
        self.method, self.temperature, self.head, self.seed, self.weight = method, temperature, head, seed, weight

    def prepare(self, setup: Setup) -> None:
        """Learn how the classes of the two tasks relate."""
        if setup.task.kind != "classification" or setup.targets is None or setup.targets.ndim != 1:
            raise ConfigError("CoTuning: needs a classification task with class numbers; leave it out.")
        if setup.base_logits is None:
            raise ConfigError(
                "CoTuning: needs a base model that still has the head of its own task; choose one that has."
            )
        logits_ns = np.asarray(setup.base_logits(), dtype=np.float64)
        probabilities_ns = softmax(logits_ns / self.temperature, axis=1)
        num_classes = setup.task.num_outputs
        relation_ts = (
            direct_relationship(probabilities_ns, setup.targets, num_classes)
            if self.method == "direct"
            else reverse_relationship(probabilities_ns, setup.targets, num_classes, seed=self.seed)
        )
        device = next((parameter.device for parameter in setup.network.parameters()), torch.device("cpu"))
        self.register_buffer("relation_ts", torch.from_numpy(relation_ts).float().to(device))

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the cross-entropy of the source-task head."""
        if not hasattr(self, "relation_ts"):
            raise ConfigError("CoTuning: does not know how the classes relate; call prepare before the first step.")
        labels, logits_bs = self.take(source, "labels"), self.take_logits(source, self.head)
        soft_bs = _mixed(labels, self.relation_ts) if labels.ndim == 2 else self.relation_ts[labels]
        return self.weight * cross_entropy(logits_bs, soft_bs)


@full_precision
def _mixed(labels_bt: Tensor, relation_ts: Tensor) -> Tensor:
    return labels_bt.to(relation_ts.dtype) @ relation_ts


def _checked(
    who: str, probabilities_ns: NDArray[Any], targets_n: NDArray[Any], num_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    check_matrix(who, "probabilities", probabilities_ns)
    check_same_rows(who, "probabilities", probabilities_ns, "targets", targets_n)
    if targets_n.ndim != 1 or targets_n.min() < 0 or targets_n.max() >= num_classes:
        raise ShapeError(f"{who}: targets must be class numbers in 0..{num_classes - 1}, one a row.")
    return probabilities_ns.astype(np.float64), targets_n.astype(np.int64)


def _regression(
    probabilities_ns: NDArray[np.float64], targets_n: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.float64], float]:
    """Return the coefficients (t, s) of the best of several penalties on held-out rows, and their calibrating scale."""
    from sklearn.linear_model import LogisticRegression

    held_n = _held_out(targets_n, seed)
    if not held_n.any():
        held_n, kept_n = np.ones_like(held_n), np.ones_like(held_n)
    else:
        kept_n = ~held_n
    best, coefficients_ts = -1.0, np.zeros((0, 0))
    for strength in _STRENGTHS:
        model = LogisticRegression(C=strength, fit_intercept=False, max_iter=1000)
        model.fit(probabilities_ns[kept_n], targets_n[kept_n])
        fitted_ts = model.coef_ if len(model.coef_) > 1 else np.concatenate([-model.coef_ / 2, model.coef_ / 2])
        accuracy = float(np.mean((probabilities_ns[held_n] @ fitted_ts.T).argmax(1) == targets_n[held_n]))
        if accuracy > best:
            best, coefficients_ts = accuracy, fitted_ts
    logits_nt, truth_n = probabilities_ns[held_n] @ coefficients_ts.T, targets_n[held_n]

    def loss(log_scale: float) -> float:
        return -float(log_softmax(logits_nt * np.exp(log_scale), axis=1)[np.arange(len(truth_n)), truth_n].mean())

    found = minimize_scalar(loss, bounds=(np.log(1e-2), np.log(1e2)), method="bounded")
    return coefficients_ts, float(np.exp(found.x))


def _held_out(targets_n: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Return which rows are held out: every fifth of each class, in random order."""
    held_n = np.zeros(len(targets_n), dtype=bool)
    random = generator(seed, "co-tuning")
    for number in np.unique(targets_n):
        rows = random.permutation(np.flatnonzero(targets_n == number))
        held_n[rows[_HELD_OUT_EVERY - 1 :: _HELD_OUT_EVERY]] = True
    return held_n
