"""What fine-tuning made, and how it is judged on rows set aside: calibrated by one another, beside the head it began from.

Shapes: n rows, k outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.tasks import Task
from headstart.data import folds
from headstart.heads import fit_temperature, to_probabilities
from headstart.metrics import compute_metrics
from headstart.model import Model
from headstart.training import History
from headstart.training.strategies import Strategy

__all__ = ["FineTuned", "beside_the_start", "cross_calibrated", "judged_loss"]

Array = NDArray[Any]

_CALIBRATION_FOLDS = 5
_MEASURES = {"classification": "accuracy", "multilabel": "f1_macro", "regression": "r2"}


@dataclass(frozen=True)
class FineTuned:
    """What fine-tuning made, and how it went.

    Parameters
    ----------
    model : Model
        Tuned copy of the base model, trained head, temperature.
    history : History
        Losses and measures of every check.
    validation_scores : array of shape (n, k) or (n,), or None
        What the model says of the validation rows; each row's probabilities are calibrated by the other rows. None without
        validation rows.
    validation_kept : int64 array, or None
        Which rows these are: of ``validation_rows`` where they were given, of the training rows otherwise.
    solved_scores : array, or None
        What the solved head that training began from says of the same rows.
    strategy : Strategy
        What was carried out.
    mix : float
        Share of the way from the start to the trained weights at which the model's weights lie.
    plan_reason : str
        Why it, and what trained.
    notes : tuple of str
        What a person should know.
    cpu_seconds : float
        CPU time of all of it, all threads.
    """

    model: Model
    history: History
    validation_scores: NDArray[np.float64] | None
    validation_kept: NDArray[np.int64] | None
    solved_scores: NDArray[np.float64] | None
    strategy: Strategy
    mix: float
    plan_reason: str
    notes: tuple[str, ...] = ()
    cpu_seconds: float = 0.0


def cross_calibrated(task: Task, logits_nk: Array, targets: Array, seed: int) -> NDArray[np.float64]:
    """Return probabilities of rows, each with the temperature that the other rows give.

    Parameters
    ----------
    task : Task
        Classification or several labels at once.
    logits_nk : array of shape (n, k)
        Of rows that were not trained on.
    targets : array of shape (n,) or (n, k)
        In the task's own type.
    seed : int
        Of the folds.
    """
    found = np.empty(logits_nk.shape, np.float64)
    if len(targets) < 2 * _CALIBRATION_FOLDS:
        return np.asarray(to_probabilities(task, logits_nk), np.float64)
    for others, mine in folds(targets, _CALIBRATION_FOLDS, seed=seed):
        temperature = fit_temperature(task, logits_nk[others], targets[others], np.ones(len(others)))
        found[mine] = to_probabilities(task, logits_nk[mine], temperature)
    return found


def judged_loss(task: Task, answers_nk: Array, targets: Array, seed: int) -> float:
    """Return the mean loss of rows that were not trained on: log loss after `cross_calibrated`, or the squared error.

    Parameters
    ----------
    task : Task
        Says which.
    answers_nk : array of shape (n, k)
        Logits; for regression (n, 1) numbers in the unit of the targets.
    targets : array of shape (n,) or (n, k)
        In the task's own type.
    seed : int
        Of the folds.

    Examples
    --------
    >>> judged_loss(Task("regression"), np.array([[1.0], [3.0]]), np.array([1.0, 1.0]), seed=0)
    2.0
    """
    if task.kind == "regression":
        return float(np.mean((answers_nk[:, 0] - targets) ** 2))
    scores_nk = np.clip(cross_calibrated(task, answers_nk, targets, seed), 1e-12, 1 - 1e-12)
    if task.kind == "multilabel":
        return float(-np.mean(np.where(targets > 0, np.log(scores_nk), np.log1p(-scores_nk))))
    return float(-np.mean(np.log(scores_nk[np.arange(len(targets)), targets])))


def beside_the_start(task: Task, targets: Array, scores: Array, before: Array) -> str:
    """Return a line that sets scores of validation rows beside those of the solved head.

    Examples
    --------
    >>> targets, right, wrong = np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.array([2.0, 1.0])
    >>> beside_the_start(Task("regression"), targets, wrong, right)
    'on 2 validation rows: r2 -3, worse than the solved head it began from (1)'
    """
    metric = _MEASURES[task.kind]
    now, then = (compute_metrics(task, targets, item)[metric] for item in (scores, before))
    word = "better than" if now > then else ("as good as" if now == then else "worse than")
    return f"on {len(targets):,} validation rows: {metric} {now:.4g}, {word} the solved head it began from ({then:.4g})"
