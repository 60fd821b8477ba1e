"""One evaluation of one set of scores: every metric with its interval, per class, by confidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.tasks import Task
from headstart.evaluation.intervals import Interval

__all__ = ["ClassRow", "Evaluation", "ReliabilityBin"]


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
    """Rows whose stated confidence lies in [low, high): what was promised and what came true.

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
