"""One evaluation of one set of scores: every metric with its interval, per class, by confidence.

Shapes: n test rows, k classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.tasks import Task
from headstart.evaluation.intervals import Interval, bootstrap_intervals, wilson_interval
from headstart.evaluation.resampling import check_rows
from headstart.metrics import (
    class_counts,
    confusion_matrix,
    metric_notes,
    metrics_for,
    reliability_bins,
    to_predictions,
)

__all__ = ["ClassRow", "Evaluation", "ReliabilityBin", "evaluate"]

Array = NDArray[Any]


@dataclass(frozen=True)
class ClassRow:
    """How one class fared.

    Parameters
    ----------
    name : str
        Class name.
    support : int
        Test rows that carry the class.
    predicted : int
        Test rows the model gave the class.
    precision, recall, f1 : float in [0, 1]
        0 where the class was never predicted or never occurs.
    recall_low, recall_high : float in [0, 1]
        Wilson's 95 % interval of the recall; 0 and 1 where the class never occurs.
    """

    name: str
    support: int
    predicted: int
    precision: float
    recall: float
    f1: float
    recall_low: float
    recall_high: float


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose stated confidence lies in (low, high]: what was promised and what came true.

    ``confidence`` is the mean stated probability, ``accuracy`` the share that came true; both 0 where ``count`` is 0.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Evaluation:
    """What one model reached on one set of test rows.

    Parameters
    ----------
    task : Task
        What was predicted.
    rows : int
        Number of test rows.
    metrics : dict of str to Interval
        Every metric that applies, in the order of the metric table.
    confusion_kk : int64 array of shape (k, k), optional
        Rows: true class, columns: predicted class. Only for classification.
    per_class : tuple of ClassRow
        In model order; empty for regression.
    reliability : tuple of ReliabilityBin
        Stated confidence against what came true; empty for regression.
    notes : tuple of str
        What a reader must know: classes without test rows, metrics that do not apply.
    """

    task: Task
    rows: int
    metrics: dict[str, Interval]
    confusion_kk: NDArray[np.int64] | None = None
    per_class: tuple[ClassRow, ...] = ()
    reliability: tuple[ReliabilityBin, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics and notes as a JSON value."""
        return {
            "rows": self.rows,
            "metrics": {name: interval.to_dict() for name, interval in self.metrics.items()},
            "notes": list(self.notes),
        }


def evaluate(
    task: Task,
    targets: Array,
    scores: Array,
    *,
    groups: Array | None = None,
    seed: int = 0,
    num_resamples: int = 1000,
    num_bins: int = 10,
) -> Evaluation:
    """Measure one set of scores in every way its task allows.

    Parameters
    ----------
    task : Task
        What is predicted.
    targets : array of shape (n,) or (n, k)
        Class indices, 0/1 indicators, or numbers.
    scores : array of shape (n, k) or (n,)
        Probabilities, or numbers for regression. Class indices (n,) do too, without what needs probabilities.
    groups : array of shape (n,), optional
        Rows of one group are not independent; intervals draw whole groups.
    seed : int
        Of the bootstrap.
    num_resamples : int
        Of the bootstrap.
    num_bins : int
        Of the reliability diagram.

    Returns
    -------
    Evaluation

    Raises
    ------
    DataError
        If there are no rows, or a score is NaN.
    ShapeError
        If targets and scores do not fit each other.

    Examples
    --------
    >>> task = Task("classification", ("a", "b"))
    >>> result = evaluate(task, np.array([0, 0, 1, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]]))
    >>> result.metrics["accuracy"].value, result.confusion_kk.tolist()
    (0.75, [[1, 1], [0, 2]])
    """
    targets, scores = check_rows("evaluate", task, targets, scores)
    names = [m.name for m in metrics_for(task) if m.needs != "probabilities" or scores.ndim == 2]
    metrics = bootstrap_intervals(task, targets, scores, names, num_resamples=num_resamples, seed=seed, groups=groups)
    notes = tuple(metric_notes(task, targets))
    if task.kind == "regression":
        return Evaluation(task, len(targets), metrics, notes=notes)
    confusion = None
    if task.kind == "classification":
        confusion = confusion_matrix(targets, to_predictions(targets, scores), len(task.classes))
    reliability = _reliability(targets, scores, num_bins) if scores.ndim == 2 else ()
    return Evaluation(task, len(targets), metrics, confusion, _class_rows(task, targets, scores), reliability, notes)


def _class_rows(task: Task, targets: Array, scores: Array) -> tuple[ClassRow, ...]:
    counts = class_counts(targets, scores, len(task.classes))
    precision_k, recall_k, f1_k = (np.nan_to_num(a) for a in (counts.precision(), counts.recall(), counts.f1()))
    rows = []
    for index, name in enumerate(task.classes):
        support = int(counts.actual[index])
        wilson = wilson_interval(float(counts.hits[index]), support)
        rows.append(
            ClassRow(
                name,
                support,
                int(counts.predicted[index]),
                float(precision_k[index]),
                float(recall_k[index]),
                float(f1_k[index]),
                wilson.low,
                wilson.high,
            )
        )
    return tuple(rows)


def _reliability(targets: Array, probabilities_nk: Array, num_bins: int) -> tuple[ReliabilityBin, ...]:
    bins = reliability_bins(targets, probabilities_nk, num_bins)
    return tuple(
        ReliabilityBin(
            float(bins.edges[b]),
            float(bins.edges[b + 1]),
            int(bins.counts[b]),
            float(np.nan_to_num(bins.confidence[b])),
            float(np.nan_to_num(bins.accuracy[b])),
        )
        for b in range(num_bins)
    )
