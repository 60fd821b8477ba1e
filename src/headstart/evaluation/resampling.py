"""Many resamples at once: every metric as a function of row weights.

A bootstrap draw is a vector of counts (how often each row was drawn), a permutation of a paired test is a vector of
zeros and ones. Class counts, means and sums of squares are linear in those weights, so that a thousand resamples are
one matrix product instead of a thousand calls. Every formula here equals `headstart.metrics` on repeated rows (tested
for each name); a metric without such a form is computed on the repeated rows themselves.
Shapes: n rows, k classes, b resamples; weights are (n, b).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from headstart.core.checks import check_same_rows
from headstart.core.errors import DataError
from headstart.core.seeds import generator
from headstart.core.tasks import Task
from headstart.metrics import METRICS, Average, ClassCounts, balanced_accuracy, f1, precision, recall, to_predictions

__all__ = ["WeightedMetric", "bootstrap_weights", "check_rows", "repeated_rows", "resample_budget", "weighted_metric"]

Array = NDArray[Any]
WeightedMetric = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""From row weights (n, b) to one value for each of b resamples."""

_CELLS = 4_000_000


def check_rows(who: str, task: Task, targets: Array, scores: Array) -> tuple[Array, Array]:
    """Return targets and scores as arrays; numbers of shape (n, 1) become (n,).

    Raises
    ------
    DataError
        If there are no rows.
    ShapeError
        If the numbers of rows differ.
    """
    targets, scores = np.asarray(targets), np.asarray(scores)
    if task.kind == "regression":
        targets, scores = targets.reshape(len(targets), -1), scores.reshape(len(scores), -1)
        targets, scores = targets[:, 0].astype(np.float64), scores[:, 0].astype(np.float64)
    check_same_rows(who, "targets", targets, "scores", scores)
    if not len(targets):
        raise DataError(f"{who}: needs at least one row to measure; got none. Keep some rows for the test.")
    return targets, scores


def bootstrap_weights(
    num_rows: int, num_resamples: int, seed: int, groups: Array | None = None
) -> Iterator[NDArray[np.float32]]:
    """Yield blocks of draw counts, shape (n, some of b); each column adds up to the number of rows drawn.

    Parameters
    ----------
    num_rows, num_resamples : int
        n and b.
    seed : int
        The user's seed; equal seeds draw equal rows, so that two models can be compared draw by draw.
    groups : array of shape (n,), optional
        Whole groups are drawn instead of rows.

    Examples
    --------
    >>> block = next(bootstrap_weights(4, 3, seed=0))
    >>> block.shape, block.sum(axis=0).tolist()
    ((4, 3), [4.0, 4.0, 4.0])
    """
    random = generator(seed, "bootstrap")
    unit_n = np.arange(num_rows) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    num_units = int(unit_n.max()) + 1
    block = max(1, _CELLS // num_rows)
    for start in range(0, num_resamples, block):
        columns = min(block, num_resamples - start)
        drawn = random.integers(0, num_units, size=(columns, num_units))
        drawn += np.arange(columns)[:, None] * num_units
        counts = np.bincount(drawn.reshape(-1), minlength=columns * num_units).reshape(columns, num_units)
        yield np.ascontiguousarray(counts.astype(np.float32).T[unit_n])


def resample_budget(metric: str, num_rows: int, num_classes: int, num_resamples: int) -> int:
    """Return how many resamples a metric gets: fewer (at least 200) for a ranking of many rows and classes.

    Examples
    --------
    >>> resample_budget("accuracy", 10_000, 150, 1000), resample_budget("roc_auc", 10_000, 150, 1000)
    (1000, 200)
    """
    if metric != "roc_auc":
        return num_resamples
    return min(num_resamples, max(200, 300_000_000 // max(1, num_rows * num_classes)))


def weighted_metric(metric: str, task: Task, targets: Array, scores: Array) -> WeightedMetric:
    """Return a metric as a function of row weights.

    Parameters
    ----------
    metric : str
        A name of `headstart.metrics.METRICS`.
    task : Task
        What is predicted.
    targets, scores : arrays
        As `headstart.metrics.compute_metrics` takes them.

    Returns
    -------
    function from float32 array of shape (n, b) to float64 array of shape (b,)
        NaN where the metric is undefined on a resample.

    Examples
    --------
    >>> accuracy = weighted_metric("accuracy", Task("classification", ("a", "b")), np.array([0, 1]), np.array([0, 0]))
    >>> accuracy(np.array([[1, 2], [1, 0]], dtype=np.float32))
    array([0.5, 1. ])
    """
    definition = METRICS[metric]
    if metric in _ROW_VALUES:
        return _mean_of(_ROW_VALUES[metric](targets, scores))
    if metric in _SPECIAL:
        return _SPECIAL[metric](targets, scores)
    if metric in _FROM_COUNTS:
        counts, from_counts = _class_counts(task, targets, scores), _FROM_COUNTS[metric]
        return lambda weights_nb: from_counts(counts(weights_nb))
    return repeated_rows(lambda rows: definition(task, targets[rows], scores[rows]))


def repeated_rows(statistic: Callable[[NDArray[np.int64]], float]) -> WeightedMetric:
    """Return any statistic of row indices as a function of whole-number weights, one call for each resample."""

    def values(weights_nb: NDArray[np.float32]) -> NDArray[np.float64]:
        rows = np.arange(len(weights_nb))
        counts_nb = np.rint(weights_nb).astype(np.int64)
        return np.array([statistic(np.repeat(rows, column)) for column in counts_nb.T], dtype=np.float64)

    return values


def _ratio(above: Array, below: Array) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=result, where=below > 0)
    return result


def _sum(weights_nb: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.sum(weights_nb, axis=0, dtype=np.float64))


def _mean_of(values_n: NDArray[np.float64]) -> WeightedMetric:
    return lambda weights_nb: _ratio(values_n @ weights_nb, _sum(weights_nb))


def _right(targets: Array, scores: Array) -> NDArray[np.float64]:
    same = to_predictions(targets, scores) == targets
    return np.asarray(same.all(axis=1) if same.ndim == 2 else same, dtype=np.float64)


def _wrong_labels(targets_nk: Array, scores_nk: Array) -> NDArray[np.float64]:
    return np.asarray((to_predictions(targets_nk, scores_nk) != targets_nk).mean(axis=1), dtype=np.float64)


def _surprise(targets: Array, probabilities_nk: Array) -> NDArray[np.float64]:
    clipped = np.clip(probabilities_nk.astype(np.float64), 1e-15, 1 - 1e-15)
    if targets.ndim == 2:
        return np.asarray(-np.where(targets > 0, np.log(clipped), np.log1p(-clipped)).mean(axis=1), dtype=np.float64)
    return np.asarray(-np.log(clipped[np.arange(len(targets)), targets.astype(np.int64)]), dtype=np.float64)


def _absolute_errors(targets_n: Array, predictions_n: Array) -> NDArray[np.float64]:
    return np.asarray(np.abs(targets_n - predictions_n), dtype=np.float64)


def _class_counts(task: Task, targets: Array, scores: Array) -> Callable[[NDArray[np.float32]], ClassCounts]:
    predictions, num_classes = to_predictions(targets, scores), len(task.classes)
    if targets.ndim == 2:
        tables = [(targets > 0) & (predictions > 0), predictions > 0, targets > 0]
        parts = [sparse.csr_array(table.T.astype(np.float32)) for table in tables]
    else:
        rows = np.arange(len(targets))
        right = predictions == targets
        cells = [(targets[right], rows[right]), (predictions, rows), (targets, rows)]
        shape = (num_classes, len(targets))
        parts = [
            sparse.csr_array((np.ones(len(row), dtype=np.float32), (label.astype(np.int64), row)), shape=shape)
            for label, row in cells
        ]

    def counts(weights_nb: NDArray[np.float32]) -> ClassCounts:
        return ClassCounts(*((part @ weights_nb).T.astype(np.float64) for part in parts))

    return counts


def _calibration_error(targets: Array, probabilities_nk: Array, num_bins: int = 15) -> WeightedMetric:
    probabilities = np.clip(probabilities_nk.astype(np.float64), 0.0, 1.0)
    if targets.ndim == 2:
        confidence_nl, right_nl = probabilities, (targets > 0).astype(np.float64)
    else:
        confidence_nl = probabilities.max(axis=1, keepdims=True)
        right_nl = (probabilities.argmax(axis=1) == targets).astype(np.float64)[:, None]
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    place_nl = np.clip(np.searchsorted(edges, confidence_nl, side="left") - 1, 0, num_bins - 1)
    gap_nc = np.zeros((len(targets), num_bins))
    np.add.at(gap_nc, (np.arange(len(targets))[:, None], place_nl), right_nl - confidence_nl)
    num_labels = confidence_nl.shape[1]
    return lambda weights_nb: _ratio(np.abs(gap_nc.T @ weights_nb).sum(axis=0), num_labels * _sum(weights_nb))


def _roc_auc(targets: Array, probabilities_nk: Array) -> WeightedMetric:
    tables = []
    for label in range(probabilities_nk.shape[1]):
        positive_n = targets[:, label] > 0 if targets.ndim == 2 else targets == label
        if positive_n.any() and not positive_n.all():
            tables.append(_ranking_table(positive_n, probabilities_nk[:, label]))

    def values(weights_nb: NDArray[np.float32]) -> NDArray[np.float64]:
        areas = np.full((max(1, len(tables)), weights_nb.shape[1]), np.nan)
        for row, (positive_sn, negative_sn) in enumerate(tables):
            positive_sb = (positive_sn @ weights_nb).astype(np.float64)
            negative_sb = (negative_sn @ weights_nb).astype(np.float64)
            below_sb = np.cumsum(negative_sb, axis=0) - 0.5 * negative_sb
            areas[row] = _ratio((positive_sb * below_sb).sum(axis=0), positive_sb.sum(axis=0) * negative_sb.sum(axis=0))
        defined = np.isfinite(areas)
        return _ratio(np.nansum(areas, axis=0), defined.sum(axis=0).astype(np.float64))

    return values


def _ranking_table(positive_n: NDArray[np.bool_], scores_n: Array) -> tuple[Any, Any]:
    """Return which slot of the ranking each positive and each negative row is in: on a positive's score, or between."""
    steps = np.unique(scores_n[positive_n])
    slot_n = np.searchsorted(steps, scores_n, "left") + np.searchsorted(steps, scores_n, "right")
    rows, shape = np.arange(len(scores_n)), (2 * len(steps) + 1, len(scores_n))
    one = np.ones(len(scores_n), dtype=np.float32)
    return (
        sparse.csr_array((one[positive_n], (slot_n[positive_n], rows[positive_n])), shape=shape),
        sparse.csr_array((one[~positive_n], (slot_n[~positive_n], rows[~positive_n])), shape=shape),
    )


def _rmse(targets_n: Array, predictions_n: Array) -> WeightedMetric:
    mean = _mean_of((targets_n - predictions_n) ** 2)
    return lambda weights_nb: np.sqrt(mean(weights_nb))


def _r2(targets_n: Array, predictions_n: Array) -> WeightedMetric:
    centred_n = targets_n - targets_n.mean()
    error, square, first = _mean_of((targets_n - predictions_n) ** 2), _mean_of(centred_n**2), _mean_of(centred_n)
    spread = float(np.mean(centred_n**2))

    def values(weights_nb: NDArray[np.float32]) -> NDArray[np.float64]:
        variance_b = square(weights_nb) - first(weights_nb) ** 2
        variance_b = np.where(variance_b > 1e-12 * spread, variance_b, 0.0)
        return 1 - _ratio(error(weights_nb), variance_b)

    return values


_FROM_COUNTS: dict[str, Callable[[ClassCounts], NDArray[np.float64]]] = {
    "balanced_accuracy": balanced_accuracy,
    **{
        f"{measure.__name__}_{average}": partial(measure, average=average)
        for measure in (precision, recall, f1)
        for average in get_args(Average)
    },
}
"""Metrics that class counts suffice for."""

_ROW_VALUES: dict[str, Callable[[Array, Array], NDArray[np.float64]]] = {
    "accuracy": _right,
    "hamming_loss": _wrong_labels,
    "log_loss": _surprise,
    "mae": _absolute_errors,
}
"""Metrics that are means of one value a row."""

_SPECIAL: dict[str, Callable[[Array, Array], WeightedMetric]] = {
    "calibration_error": _calibration_error,
    "roc_auc": _roc_auc,
    "rmse": _rmse,
    "r2": _r2,
}
