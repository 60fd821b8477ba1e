"""The rows that rungs are compared on, and every figure computed there.

All rungs of a run are judged on the same rows, with predictions made without those rows: a fine-tuned network learns from the
other training rows alone, and a solved head is judged by its held-out predictions. The test rows stay sealed.

The rung that is kept is the best of several on the same rows, so its figure there flatters. By how much is estimated by choosing
again: on each bootstrap draw of the judging rows the best rung is picked, and measured on the rows that were not drawn.

    optimism = mean over draws of (value of the picked rung on the draw - value of the picked rung outside the draw)

Source: Efron & Tibshirani, JASA 92 (1997), the leave-one-out bootstrap. It speaks of the choice between rungs alone.
Shapes: n judging rows, k classes, b draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.seeds import generator
from headstart.core.tasks import Task
from headstart.data import Dataset, folds
from headstart.evaluation import Interval, PairedTest, bootstrap_interval, paired_test
from headstart.evaluation.resampling import weighted_metric
from headstart.metrics import METRICS, compute_metrics

__all__ = ["Judging", "choose_rows"]

Array = NDArray[Any]
_FOLDS = 5
_DRAWS = 200


@dataclass(frozen=True)
class Judging:
    """Rows of the training data that rungs are compared on.

    Parameters
    ----------
    task : Task
        What is predicted.
    metric : str
        What rungs are compared by.
    targets : array of shape (n,) or (n, k)
        Of the judging rows.
    rows : int64 array of shape (n,)
        Which of the training rows judge.
    learning : int64 array
        The others, which fine-tuned rungs learn from; all rows where nothing is fine-tuned.
    groups : array of shape (n,), optional
        Judging rows of one group are drawn together.
    seed : int
        Draws.
    """

    task: Task
    metric: str
    targets: Array
    rows: NDArray[np.int64]
    learning: NDArray[np.int64]
    groups: Array | None = None
    seed: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def value(self, scores: Array) -> float:
        """Return the metric."""
        return float(METRICS[self.metric](self.task, self.targets, scores))

    def interval(self, scores: Array) -> Interval:
        """Return the metric with its 95 % interval."""
        return bootstrap_interval(
            self.metric, self.task, self.targets, scores, num_resamples=500, seed=self.seed, groups=self.groups
        )

    def metrics(self, scores: Array) -> dict[str, float]:
        """Return every metric."""
        return compute_metrics(self.task, self.targets, scores)

    def compare(self, scores: Array, others: Array) -> PairedTest:
        """Return the paired test of two rungs; positive favours the first."""
        return paired_test(self.task, self.targets, scores, others, self.metric, seed=self.seed, groups=self.groups)

    def optimism(self, scores: Sequence[Array]) -> float:
        """Return by how much the figure of the best of several rungs flatters, in the metric's unit; 0 for a single one.

        Positive always means flattered, also where a lower metric is better.
        """
        if len(scores) < 2:
            return 0.0
        n = len(self.rows)
        unit_n = np.arange(n) if self.groups is None else np.unique(self.groups, return_inverse=True)[1].reshape(-1)
        num_units = int(unit_n.max()) + 1
        drawn_bu = generator(self.seed, "optimism").multinomial(
            num_units, np.full(num_units, 1 / num_units), size=_DRAWS
        )
        weights_nb = drawn_bu.T[unit_n].astype(np.float32)
        left_nb = (weights_nb == 0).astype(np.float32)
        sign = 1.0 if METRICS[self.metric].higher_is_better else -1.0
        measures = [weighted_metric(self.metric, self.task, self.targets, one) for one in scores]
        inside_rb = sign * np.stack([measure(weights_nb) for measure in measures])
        outside_rb = sign * np.stack([measure(left_nb) for measure in measures])
        usable_b = np.isfinite(inside_rb).all(0) & np.isfinite(outside_rb).all(0)
        if not usable_b.any():
            return 0.0
        inside_rb, outside_rb = inside_rb[:, usable_b], outside_rb[:, usable_b]
        picked_b = inside_rb.argmax(0)
        columns = np.arange(picked_b.size)
        return max(0.0, float(np.mean(inside_rb[picked_b, columns] - outside_rb[picked_b, columns])))


def choose_rows(rows: Dataset, groups: Array | None, metric: str, *, seed: int = 0, all_rows: bool = False) -> Judging:
    """Return which training rows judge: a fifth of them, in the proportions of the classes, groups kept together.

    Parameters
    ----------
    rows : Dataset
        The training rows, labelled.
    groups : array of shape (n,), optional
        Rows of one group (duplicates of each other) lie on one side.
    metric : str
        What rungs are compared by.
    seed : int
        Another seed, other rows.
    all_rows : bool
        Every row judges: for heads alone, whose predictions are held out for every row.
    """
    task, targets = rows.task, rows.targets
    assert task is not None and targets is not None
    if all_rows or len(rows) < 2 * _FOLDS:
        everything = np.arange(len(rows))
        return Judging(task, metric, targets, everything, everything, groups, seed)
    learning, judging = folds(rows, _FOLDS, seed=seed, groups=groups)[0]
    learning, judging = np.asarray(learning, np.int64), np.asarray(judging, np.int64)
    if task.kind == "classification":
        lost = ~np.isin(targets[judging], targets[learning])
        if lost.any():  # a class that only judging rows have could not be learnt
            learning = np.sort(np.concatenate([learning, judging[lost]]))
            judging = judging[~lost]
    return Judging(
        task, metric, targets[judging], judging, learning, None if groups is None else np.asarray(groups)[judging], seed
    )
