"""Ridge and linear regression heads: solved once, held out n times for free.

    labels are coded +1 and -1; the formulas, and the leave-one-out that chooses the penalty, are `LeaveOneOut`'s

Source: Rifkin, Yeo & Poggio, "Regularized least-squares classification", 2003.
Use ridge first: it is the fastest head, and its held-out predictions are exact.
It ignores that labels are not numbers: a row far on the right side of a boundary still counts as an error.
Shapes: n rows, r directions, k outputs. Penalties refer to rows of mean squared length 1 (see `RowSpace`).
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from headstart.core.errors import ConfigError
from headstart.heads.head import LinearHead
from headstart.heads.rows import ClassWeight, TrainingRows
from headstart.heads.search import HeldOut, score_held_out, search_grid, search_report
from headstart.transferability.leave_one_out import PENALTIES, LeaveOneOut

__all__ = ["LinearRegressionHead", "RidgeHead"]

Array = npt.NDArray[Any]


class _FoldRidge:
    """Ridge without each fold in turn: one Gram matrix a fold, then a Cholesky factor for every penalty."""

    def __init__(self, rows: TrainingRows) -> None:
        self.rows = rows
        rotated, codes = rows.space.rotated, rows.codes
        self.systems = []
        for fold in np.unique(rows.folds):
            train, held = np.flatnonzero(rows.folds != fold), np.flatnonzero(rows.folds == fold)
            weights = rows.weights[train]
            x = rotated[train].astype(np.float64)
            mean_x, mean_y = np.average(x, axis=0, weights=weights), np.average(codes[train], axis=0, weights=weights)
            x -= mean_x
            weighted = (x * weights[:, None]).T
            self.systems.append((held, mean_x, mean_y, weighted @ x, weighted @ (codes[train] - mean_y)))

    def predictions(self, penalty: float) -> npt.NDArray[np.float64]:
        from scipy.linalg import cho_factor, cho_solve

        predicted = np.empty_like(self.rows.codes)
        for held, mean_x, mean_y, gram, cross in self.systems:
            system = gram + max(penalty, 1e-10 * float(np.trace(gram)) / max(len(gram), 1)) * np.eye(len(gram))
            weight = cho_solve(cho_factor(system, overwrite_a=True, check_finite=False), cross, check_finite=False)
            predicted[held] = (self.rows.space.rotated[held] - mean_x) @ weight + mean_y
        return predicted


class RidgeHead(LinearHead):
    """Ridge regression on numbers, or on labels coded +1 and -1, with the penalty chosen by exact leave-one-out.

    Parameters
    ----------
    penalty : float, optional
        Positive. When left out, the path `PENALTIES` is searched: calibrated log loss of the left-out predictions for
        labels, squared error for numbers. With groups, folds of groups take the place of single rows.
    class_weight : "balanced", optional
        Make every class count alike.
    num_folds, seed : int
        Of the folds, when there are groups, and for the nested score.

    Examples
    --------
    >>> from headstart.core.tasks import Task
    >>> features, labels = np.array([[0.0], [1.0], [9.0], [10.0]]), np.array([0, 0, 1, 1])
    >>> head = RidgeHead().fit(features, labels, Task("classification", ("low", "high")))
    >>> head.predict(np.array([[2.0], [8.0]]))
    array([0, 1])
    """

    kind: ClassVar[str] = "ridge"

    def __init__(
        self,
        penalty: float | None = None,
        class_weight: ClassWeight | None = None,
        num_folds: int = 5,
        seed: int = 0,
    ) -> None:
        if penalty is not None and not (penalty > 0 and np.isfinite(penalty)):
            raise ConfigError(f"RidgeHead: penalty is positive; got {penalty}. For none, use LinearRegressionHead.")
        self.penalty = penalty
        self.class_weight = class_weight
        self.num_folds = num_folds
        self.seed = seed

    def _candidates(self) -> npt.NDArray[np.float64]:
        return PENALTIES if self.penalty is None else np.array([self.penalty])

    def fit_rows(self, rows: TrainingRows) -> Self:
        """Learn from rows that were made ready before."""
        rows = rows.weighted(type(self).__name__, self.class_weight)
        exact = _leave_one_out(rows)
        folded = _FoldRidge(rows) if rows.by_group else None
        grid = self._candidates()
        seen: dict[float, HeldOut] = {}

        def loss_at(place: int) -> float:
            penalty = float(grid[place])
            scores = folded.predictions(penalty) if folded else exact.predictions(penalty)
            nearest = min(seen, key=lambda known: abs(np.log(max(known, 1e-300) / max(penalty, 1e-300))), default=None)
            start = None if nearest is None else seen[nearest].temperature
            seen[penalty] = score_held_out(rows.task, scores, rows.targets, rows.weights, start)
            return seen[penalty].loss

        place = search_grid(len(grid), loss_at, list(range(0, len(grid), 5)), [2, 1])
        penalty = float(grid[place])
        how = f"{len(np.unique(rows.folds))} folds of groups" if folded else "leave-one-out"
        report = search_report(seen, penalty, rows.folds, rows.weights, rows.task, how)
        best = seen[penalty]
        return self._accept(rows, *exact.solution(penalty), best.scores_nk, best.temperature, report)

    def fold_scores(self, rows: TrainingRows) -> Array:
        """Return scores of every row from a fit without its fold."""
        weighted = rows.weighted(type(self).__name__, self.class_weight)
        return _FoldRidge(weighted).predictions(float(self.report["penalty"]))


class LinearRegressionHead(RidgeHead):
    """Least squares without a penalty; of all perfect fits the one of smallest length.

    For regression, and only sensible with many more rows than features. Held-out predictions are exact leave-one-out.

    Examples
    --------
    >>> from headstart.core.tasks import Task
    >>> features, numbers = np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 3.0, 5.0])
    >>> head = LinearRegressionHead().fit(features, numbers, Task("regression"))
    >>> round(float(head.predict(np.array([[10.0]]))[0]), 6)
    21.0
    """

    kind: ClassVar[str] = "linear-regression"

    def __init__(self, num_folds: int = 5, seed: int = 0) -> None:
        super().__init__(None, None, num_folds, seed)

    def _candidates(self) -> npt.NDArray[np.float64]:
        return np.zeros(1)

    def fit_rows(self, rows: TrainingRows) -> Self:
        """Learn from rows that were made ready before."""
        if rows.task.kind != "regression":
            raise ConfigError(
                f"LinearRegressionHead: fits numbers, not {rows.task.kind}; use RidgeHead or LogisticHead."
            )
        return super().fit_rows(rows)


def _leave_one_out(rows: TrainingRows) -> LeaveOneOut:
    plain = bool((rows.weights == 1).all())
    return LeaveOneOut(rows.space.rotated, rows.codes, rows.weights, rows.space.strength if plain else None)
