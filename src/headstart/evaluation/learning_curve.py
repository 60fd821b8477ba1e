"""What more rows would bring: the metric against the number of training rows.

Training rows only; the sealed test rows are not needed. The rows are dealt into folds; for each fold, heads are solved
on ever larger nested, stratified draws of the other folds and measured on the fold. The last point trains on
(folds - 1) / folds of the rows, so it sits a little below what the final model reaches.
Shapes: n rows, d features, k classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.checks import check_matrix, check_same_rows
from headstart.core.seeds import generator
from headstart.core.tasks import Task
from headstart.evaluation.verdict import default_metric

__all__ = ["CurvePoint", "Solve", "learning_curve", "learning_sizes"]

Solve = Callable[[NDArray[np.floating[Any]], NDArray[Any]], Callable[[NDArray[np.floating[Any]]], NDArray[Any]]]
"""Given training features and targets, return a function from features to scores (probabilities, or numbers)."""


@dataclass(frozen=True)
class CurvePoint:
    """One point of a learning curve.

    Parameters
    ----------
    size : int
        Training rows.
    value, low, high : float
        Metric on held-out rows: the mean over folds, the lowest and the highest fold.
    """

    size: int
    value: float
    low: float
    high: float


def learning_sizes(available: int, smallest: int, num_points: int = 6) -> list[int]:
    """Return training sizes that double (about) up to all available rows.

    Examples
    --------
    >>> learning_sizes(800, 50, 5)
    [50, 100, 200, 400, 800]
    >>> learning_sizes(10, 10)
    [10]
    """
    smallest = max(1, min(smallest, available))
    return sorted({round(size) for size in np.geomspace(smallest, available, num_points)})


def learning_curve(
    features_nd: NDArray[np.floating[Any]],
    targets: NDArray[Any],
    task: Task,
    solve: Solve,
    *,
    metric: str | None = None,
    sizes: Sequence[int] | None = None,
    num_folds: int = 4,
    seed: int = 0,
    groups: NDArray[Any] | None = None,
) -> list[CurvePoint]:
    """Measure how the metric grows with the number of training rows.

    Parameters
    ----------
    features_nd : float array of shape (n, d)
        Features of the training rows.
    targets : array of shape (n,) or (n, k)
        Their targets, as the task has them.
    task : Task
        What is predicted.
    solve : function
        Takes training features and targets, returns a function from features to scores.
    metric : str, optional
        What to measure; the task's default when left out.
    sizes : sequence of int, optional
        Training sizes; about doubling from two rows a class (at least 8 rows) when left out. Larger ones than the
        folds allow are left out.
    num_folds : int at least 2
        How often each size is measured.
    seed : int
        Deals the folds and the draws.
    groups : array of shape (n,), optional
        Rows of one group stay on one side.

    Returns
    -------
    list of CurvePoint
        Empty when there are fewer rows than ``2 * num_folds``.

    Raises
    ------
    ShapeError
        If the features are not a matrix or the targets have another number of rows.

    Examples
    --------
    >>> features = np.repeat([[0.0], [1.0]], 20, axis=0)
    >>> targets = np.repeat([0, 1], 20)
    >>> def solve(features_nd, targets_n):
    ...     return lambda rows_md: np.column_stack([1 - rows_md[:, 0], rows_md[:, 0]])
    >>> [(point.size, point.value) for point in learning_curve(
    ...     features, targets, Task("classification", ("a", "b")), solve, sizes=[10, 30])]
    [(10, 1.0), (30, 1.0)]
    """
    from headstart.metrics import compute_metrics

    check_matrix("learning_curve", "features", features_nd)
    check_same_rows("learning_curve", "features", features_nd, "targets", targets)
    if len(targets) < 2 * num_folds:
        return []
    metric = metric or default_metric(task)
    fold_n = _deal(targets, task, num_folds, seed, groups)
    parts = [(np.flatnonzero(fold_n != fold), np.flatnonzero(fold_n == fold)) for fold in range(num_folds)]
    parts = [(train, held) for train, held in parts if len(train) and len(held)]
    available = min(len(train) for train, _ in parts)
    smallest = max(8, 2 * len(task.classes))
    sizes = [size for size in (sizes or learning_sizes(available, smallest)) if size <= available]
    values: dict[int, list[float]] = {size: [] for size in sizes}
    for fold, (train, held) in enumerate(parts):
        order = train[_stratified_order(targets[train], task, generator(seed, "learning curve draw", fold))]
        for size in sizes:
            rows = order[:size]
            if task.kind == "classification" and len(np.unique(targets[rows])) < 2:
                continue
            scores = solve(features_nd[rows], targets[rows])(features_nd[held])
            values[size].append(float(compute_metrics(task, targets[held], scores)[metric]))
    return [
        CurvePoint(size, float(np.mean(found)), float(np.min(found)), float(np.max(found)))
        for size, found in values.items()
        if found and np.isfinite(found).all()
    ]


def _deal(
    targets: NDArray[Any], task: Task, num_folds: int, seed: int, groups: NDArray[Any] | None
) -> NDArray[np.int64]:
    """Return the fold of every row: stratified, or by whole groups."""
    random = generator(seed, "learning curve folds")
    fold_n = np.empty(len(targets), dtype=np.int64)
    if groups is None:
        fold_n[_stratified_order(targets, task, random)] = np.arange(len(targets)) % num_folds
        return fold_n
    _, group_n = np.unique(groups, return_inverse=True)
    fold_of_group = random.permutation(int(group_n.max()) + 1) % num_folds
    return np.asarray(fold_of_group[group_n], dtype=np.int64)


def _stratified_order(targets: NDArray[Any], task: Task, random: np.random.Generator) -> NDArray[np.int64]:
    """Return a shuffled order whose every beginning has the classes in about their proportions, each class early."""
    shuffled = random.permutation(len(targets))
    if task.kind != "classification":
        return shuffled
    place_n = np.empty(len(targets))
    for label in np.unique(targets):
        rows = shuffled[targets[shuffled] == label]
        place_n[rows] = (np.arange(len(rows)) + random.random() * 0.5) / len(rows)
    return np.argsort(place_n, kind="stable")
