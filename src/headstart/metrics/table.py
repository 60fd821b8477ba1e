"""The names of all metrics, and what each needs: the one list that goals, reports and searches read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from headstart.core.checks import check_same_rows
from headstart.core.errors import ConfigError, did_you_mean
from headstart.core.tasks import Task, TaskKind
from headstart.metrics import classification, regression
from headstart.metrics.calibration import calibration_error
from headstart.metrics.classification import Average, ClassCounts, class_counts, counts_from_confusion
from headstart.metrics.probability import log_loss, roc_auc

__all__ = ["ALIASES", "METRICS", "Metric", "Needs", "compute_metrics", "find_metric", "metric_notes", "metrics_for"]

Array = npt.NDArray[Any]
Needs = Literal["predictions", "probabilities", "numbers"]
BOTH: frozenset[TaskKind] = frozenset({"classification", "multilabel"})


@dataclass(frozen=True)
class Metric:
    """One measure of success.

    Attributes
    ----------
    name : str
        What a user types in a goal.
    function : callable (task, targets, scores) -> float
        NaN where it is undefined, never an error for a class that is absent.
    higher_is_better : bool
        False for losses.
    needs : {"predictions", "probabilities", "numbers"}
        The least it can be computed from; probabilities always do where predictions do.
    kinds : frozenset of TaskKind
        Tasks it is defined for.
    summary : str
        One line for people.
    from_confusion : callable (confusion of shape (..., k, k)) -> ndarray of shape (...), optional
        Where the confusion matrix suffices, for one class of several: the same measure for any number of matrices at
        once, which makes a bootstrap one call.
    """

    name: str
    function: Callable[[Task, Array, Array], float]
    higher_is_better: bool
    needs: Needs
    kinds: frozenset[TaskKind]
    summary: str
    from_confusion: Callable[[Array], npt.NDArray[np.float64]] | None = None

    def __call__(self, task: Task, targets: Array, scores: Array) -> float:
        """Return the metric's value for one set of rows."""
        if task.kind not in self.kinds:
            known = ", ".join(metric.name for metric in metrics_for(task))
            raise ConfigError(f"{self.name}: not defined for {task.kind}; use one of {known}.")
        targets, scores = np.asarray(targets), np.asarray(scores)
        if self.needs == "probabilities" and scores.ndim != 2:
            raise ConfigError(f"{self.name}: needs probabilities (n, k); got predictions of shape {scores.shape}.")
        return self.function(task, targets, scores)

    def better(self, first: float, second: float) -> bool:
        """Return whether ``first`` is a better value than ``second``; a NaN is never better."""
        return first > second if self.higher_is_better else first < second


def _accuracy_from_confusion(confusion_kk: Array) -> npt.NDArray[np.float64]:
    return classification.recall(counts_from_confusion(confusion_kk), "micro")


def _counted(
    name: str,
    from_counts: Callable[[ClassCounts], npt.NDArray[np.float64]],
    summary: str,
    kinds: frozenset[TaskKind] = BOTH,
) -> Metric:
    def function(task: Task, targets: Array, scores: Array) -> float:
        return float(from_counts(class_counts(targets, scores, len(task.classes))))

    def from_confusion(confusion_kk: Array) -> npt.NDArray[np.float64]:
        return from_counts(counts_from_confusion(confusion_kk))

    return Metric(name, function, True, "predictions", kinds, summary, from_confusion)


def _averages() -> list[Metric]:
    averages: tuple[Average, ...] = ("macro", "micro", "weighted")
    said = {
        "macro": "every class counts alike",
        "micro": "every row counts alike",
        "weighted": "classes weighted by rows",
    }
    measures = {"precision": classification.precision, "recall": classification.recall, "f1": classification.f1}
    return [
        _counted(f"{name}_{average}", partial(measure, average=average), f"{name}, {said[average]}")
        for name, measure in measures.items()
        for average in averages
    ]


def _plain(function: Callable[[Array, Array], float]) -> Callable[[Task, Array, Array], float]:
    return lambda task, targets, scores: function(targets, scores)


def _numbers(name: str, function: Callable[[Array, Array], float], higher: bool, summary: str) -> Metric:
    return Metric(name, _plain(function), higher, "numbers", frozenset({"regression"}), summary)


def _probabilities(name: str, function: Callable[[Array, Array], float], higher: bool, summary: str) -> Metric:
    return Metric(name, _plain(function), higher, "probabilities", BOTH, summary)


def _accuracy(task: Task, targets: Array, scores: Array) -> float:
    return classification.accuracy(targets, scores)


_ALL = [
    Metric(
        "accuracy",
        _accuracy,
        True,
        "predictions",
        BOTH,
        "share of rows predicted right (several labels: every label right)",
        _accuracy_from_confusion,
    ),
    _counted(
        "balanced_accuracy",
        classification.balanced_accuracy,
        "mean recall over the classes that have rows",
        frozenset({"classification"}),
    ),
    *_averages(),
    Metric(
        "hamming_loss",
        _plain(classification.hamming_loss),
        False,
        "predictions",
        frozenset({"multilabel"}),
        "share of single labels that are wrong",
    ),
    _probabilities("roc_auc", roc_auc, True, "area under the ROC curve, one class against the rest, macro"),
    _probabilities("log_loss", log_loss, False, "mean surprise of the true labels, in nats"),
    _probabilities("calibration_error", calibration_error, False, "expected gap between confidence and share right"),
    _numbers("rmse", regression.root_mean_squared_error, False, "root mean squared error, in the target's unit"),
    _numbers("mae", regression.mean_absolute_error, False, "mean absolute error, in the target's unit"),
    _numbers("r2", regression.r2, True, "share of the target's variance explained"),
]

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric by its name, in the order of reports."""

ALIASES: dict[str, str] = {
    **{
        f"{average}_{name}": f"{name}_{average}"
        for name in ("precision", "recall", "f1")
        for average in ("macro", "micro", "weighted")
    },
    "auc": "roc_auc",
    "auroc": "roc_auc",
    "ece": "calibration_error",
    "subset_accuracy": "accuracy",
}
"""Other spellings a goal may use."""


def find_metric(name: str) -> Metric:
    """Return the metric of a name or alias; case, blanks and ``-`` for ``_`` do not matter.

    Raises
    ------
    ConfigError
        If there is none; the message names the nearest one.

    Examples
    --------
    >>> find_metric("Macro-F1").name
    'f1_macro'
    """
    folded = name.strip().lower().replace("-", "_").replace(" ", "_")
    key = ALIASES.get(folded, folded)
    if key not in METRICS:
        hint = did_you_mean(folded, [*METRICS, *ALIASES])
        raise ConfigError(f"find_metric: no metric is called {name!r}.{hint} There are: {', '.join(METRICS)}.")
    return METRICS[key]


def metrics_for(task: Task) -> list[Metric]:
    """Return the metrics that are defined for a task, in the order of reports.

    Examples
    --------
    >>> [metric.name for metric in metrics_for(Task("regression"))]
    ['rmse', 'mae', 'r2']
    """
    return [metric for metric in METRICS.values() if task.kind in metric.kinds]


def compute_metrics(task: Task, targets: Array, scores: Array) -> dict[str, float]:
    """Return every metric that the task and the scores allow.

    Parameters
    ----------
    task : Task
        Decides which metrics there are.
    targets : ndarray of shape (n,) or (n, k)
        Class numbers, 0/1 indicators or numbers.
    scores : ndarray of shape (n, k) or (n,)
        Probabilities, predicted classes (metrics that need probabilities are then left out), or predicted numbers.

    Returns
    -------
    dict of str to float
        NaN where a metric is undefined on these rows; `metric_notes` says why.

    Examples
    --------
    >>> compute_metrics(Task("regression"), np.array([0.0, 2.0]), np.array([0.0, 1.0]))["r2"]
    0.5
    """
    targets, scores = np.asarray(targets), np.asarray(scores)
    check_same_rows("compute_metrics", "targets", targets, "scores", scores)
    usable = [metric for metric in metrics_for(task) if metric.needs != "probabilities" or scores.ndim == 2]
    return {metric.name: metric(task, targets, scores) for metric in usable}


def metric_notes(task: Task, targets: Array) -> list[str]:
    """Return in words what these rows leave undefined, so that no gap in a table goes unexplained.

    Examples
    --------
    >>> metric_notes(Task("classification", ("ant", "bee", "fly")), np.array([0, 1, 1]))[0]
    "No row of class 'fly': recall and ROC-AUC are undefined there and left out of the averages."
    """
    targets = np.asarray(targets)
    if not len(targets):
        return ["No rows: every metric is undefined."]
    if task.kind == "regression":
        return ["All targets are equal: R2 is undefined."] if np.ptp(targets) == 0 else []
    if task.kind == "classification":
        counts = np.bincount(targets.astype(np.int64), minlength=len(task.classes))
    else:
        counts = (targets > 0).sum(axis=0)
    notes = []
    absent = [repr(task.classes[index]) for index in np.flatnonzero(counts == 0)]
    if absent:
        few = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        which = "class" if len(absent) == 1 else "classes"
        notes.append(f"No row of {which} {few}: recall and ROC-AUC are undefined there and left out of the averages.")
    everywhere = [repr(task.classes[index]) for index in np.flatnonzero(counts == len(targets))]
    if everywhere:
        notes.append(f"Every row has {', '.join(everywhere[:5])}: ROC-AUC is undefined there.")
    return notes
