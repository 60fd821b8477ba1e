"""The learning curve of a solved head: what more rows would bring, and the ground on which expectations stand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.progress import Progress
from headstart.data import Dataset
from headstart.evaluation import CurvePoint, learning_curve
from headstart.features import Features
from headstart.heads import LinearHead, LinearRegressionHead, NearestMeanHead, RidgeHead
from headstart.workflow.candidates import stratified_rows

__all__ = ["head_curve"]

_CURVE_ROWS = 4000


def head_curve(
    train: Dataset,
    features: Features,
    groups: NDArray[Any] | None,
    head: Any,
    metric: str,
    *,
    seed: int,
    progress: Progress,
) -> list[CurvePoint]:
    """Return the curve of the head's own kind at its own penalty, or of the ridge head where there is none to fix.

    Parameters
    ----------
    train : Dataset
        Training rows; ``features`` are theirs, of those that were kept.
    groups : array of shape (n,), optional
        Rows that must not be split between folds.
    head : Head
        Says which kind.
    metric, seed, progress
        What is measured, folds, where the line goes.
    """
    task = train.task
    assert task is not None and train.targets is not None
    values = features.values_nd if features.values_nd.ndim == 2 else features.values_nd[:, 0]
    targets = train.targets[features.kept]
    groups = None if groups is None else np.asarray(groups)[features.kept]
    if len(values) > _CURVE_ROWS:
        places = stratified_rows(targets, task, _CURVE_ROWS, seed)
        values, targets, groups = values[places], targets[places], None if groups is None else groups[places]
    if len(values) < 20:
        return []

    def solve(features_nd: Any, some_targets: Any) -> Any:
        return _same_kind(head).fit(features_nd, some_targets, task).predict_scores

    with progress.stage("curve", len(values)) as stage:
        points = learning_curve(values, targets, task, solve, metric=metric, seed=seed, groups=groups)
        stage.advance(len(values))
    return points


def _same_kind(head: Any) -> LinearHead:
    """Return an unfitted head of the same kind that need not search for its penalty."""
    if isinstance(head, (NearestMeanHead, LinearRegressionHead)):
        return type(head)()
    return RidgeHead()
