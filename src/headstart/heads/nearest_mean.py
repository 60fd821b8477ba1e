"""Nearest class mean: a row belongs to the class whose mean lies nearest.

    score_ic = x_i . mean_c - |mean_c|^2 / 2        (the larger, the smaller |x_i - mean_c|)
    held out: mean_c without row i  =  (W_c mean_c - w_i x_i) / (W_c - w_i)

Source: Snell, Swersky & Zemel, "Prototypical networks for few-shot learning", NeurIPS 2017 (arXiv:1703.05175).
Use it with very few rows a class: there is nothing to choose, so nothing to overfit.
It ignores how features vary together, and class sizes.
Shapes: n rows, r directions, k outputs.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from headstart.core.errors import ConfigError
from headstart.heads.folds import cross_selected_score
from headstart.heads.head import LinearHead
from headstart.heads.rows import TrainingRows
from headstart.heads.search import score_held_out

__all__ = ["NearestMeanHead"]

Array = npt.NDArray[Any]


class NearestMeanHead(LinearHead):
    """Nearest class mean in standardised features; with several labels, the nearer of "has it" and "has it not".

    Examples
    --------
    >>> from headstart.core.tasks import Task
    >>> features, labels = np.array([[0.0], [2.0], [10.0]]), np.array([0, 0, 1])
    >>> head = NearestMeanHead().fit(features, labels, Task("classification", ("low", "high")))
    >>> head.predict(np.array([[5.0], [6.0]]))                 # the means are 1 and 10
    array([0, 1])
    """

    kind: ClassVar[str] = "nearest-mean"

    def fit_rows(self, rows: TrainingRows) -> Self:
        """Learn from rows that were made ready before."""
        if rows.task.kind == "regression":
            raise ConfigError("NearestMeanHead: fits labels, not numbers; use RidgeHead.")
        rotated = rows.space.rotated.astype(np.float64)
        scores = self.fold_scores(rows) if rows.by_group else _left_out_scores(rotated, rows)
        held_out = score_held_out(rows.task, scores, rows.targets, rows.weights)
        how = f"{len(np.unique(rows.folds))} folds of groups" if rows.by_group else "leave-one-out"
        nested = cross_selected_score(held_out.losses_n[:, None], rows.folds, rows.weights)
        report: dict[str, Any] = {
            "penalty": None,
            "criterion": "log loss",
            "held_out": how,
            "score": held_out.loss,
            "nested_score": nested,
            "path": [],
        }
        weight, bias = _means(rotated, rows.indicators, rows.weights, rows.task.kind == "classification")
        return self._accept(rows, weight, bias, scores, held_out.temperature, report)

    def fold_scores(self, rows: TrainingRows) -> Array:
        """Return scores of every row from a fit without its fold."""
        rotated = rows.space.rotated.astype(np.float64)
        scores = np.zeros((len(rotated), rows.task.num_outputs))
        for fold in np.unique(rows.folds):
            train, held = rows.folds != fold, rows.folds == fold
            exclusive = rows.task.kind == "classification"
            weight, bias = _means(rotated[train], rows.indicators[train], rows.weights[train], exclusive)
            scores[held] = rotated[held] @ weight.T + bias
        return scores


def _centres(rotated: Array, members: Array, weights: Array) -> Array:
    """Return weighted means (k, r); 0, the mean of all rows, for a class without rows."""
    totals = weights @ members
    return np.asarray((members * weights[:, None]).T @ rotated / np.where(totals > 0, totals, 1.0)[:, None])


def _means(rotated: Array, indicators: Array, weights: Array, exclusive: bool) -> tuple[Array, Array]:
    """Return weights (k, r) and biases (k,) of the scores."""
    centres = _centres(rotated, indicators, weights)
    bias = -0.5 * np.square(centres).sum(axis=1)
    if exclusive:
        bias[~indicators.any(axis=0)] = 4 * float(bias.min()) - 4.0  # a class without rows is never the nearest
        return centres, bias
    others = _centres(rotated, 1 - indicators, weights)
    return centres - others, bias + 0.5 * np.square(others).sum(axis=1)


def _left_out_scores(rotated: Array, rows: TrainingRows) -> Array:
    """Return scores of every row against means from which the row itself was taken out."""
    indicators, weights = rows.indicators, rows.weights
    scores = _scores_without(rotated, indicators, weights)
    if rows.task.kind == "multilabel":
        scores -= _scores_without(rotated, 1 - indicators, weights)
    else:
        scores[:, ~indicators.any(axis=0)] = scores.min() - 1.0
    return scores


def _scores_without(rotated: Array, members: Array, weights: Array) -> Array:
    centres = _centres(rotated, members, weights)
    products, squares = rotated @ centres.T, np.square(centres).sum(axis=1)
    scores: Array = products - 0.5 * squares
    totals = weights @ members
    row, label = np.nonzero(members)
    rest = totals[label] - weights[row]
    alone = rest <= 1e-12 * totals[label]
    rest = np.where(alone, 1.0, rest)
    whole, part = totals[label] / rest, weights[row] / rest  # new mean = whole * mean - part * row
    own = np.square(rotated).sum(axis=1)[row]
    product = whole * products[row, label] - part * own
    square = whole**2 * squares[label] - 2 * whole * part * products[row, label] + part**2 * own
    scores[row, label] = np.where(alone, 0.0, product - 0.5 * square)
    return scores
