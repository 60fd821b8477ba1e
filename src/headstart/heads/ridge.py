"""Ridge and linear regression with exact leave-one-out: solved once, held out n times for free.

    minimise sum_i w_i |y_i - W x_i - b|^2 + penalty |W|^2        the bias is not penalised
    left-out residual_i = residual_i / (1 - h_ii)
    H = q q' + U diag(s^2 / (s^2 + penalty)) U',   q = sqrt(w) / |sqrt(w)|,   sqrt(w) (X - mean) = U S V'

Source: Allen, "The relationship between variable selection and data augmentation", Technometrics 1974 (PRESS); Golub,
Heath & Wahba, "Generalized cross-validation", Technometrics 1979; labels as +1 and -1: Rifkin, Yeo & Poggio,
"Regularized least-squares classification", 2003.
Use ridge first: it is the fastest head, and its held-out predictions are exact. The constant direction q belongs to
the bias and must never be shrunk: whoever forgets it reports perfect accuracy on random labels.
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
from headstart.heads.space import rotate

__all__ = ["PENALTIES", "LeaveOneOut", "LinearRegressionHead", "RidgeHead"]

Array = npt.NDArray[Any]
PENALTIES = np.logspace(-4, 4, 40)
"""The path that is searched when no penalty is given."""


class LeaveOneOut:
    """One eigendecomposition, then the ridge solution and its left-out predictions for any penalty.

    Parameters
    ----------
    rotated_nr : ndarray of shape (n, r)
    codes_nk : ndarray of shape (n, k)
        Numbers to aim at.
    weights_n : ndarray of shape (n,)
        Positive.
    strength_r : ndarray of shape (r,), optional
        Sums of squares of the columns, when these are centred and orthogonal already and all weights are 1.

    Examples
    --------
    >>> rows = np.array([[-1.0], [0.0], [1.0]])
    >>> exact = LeaveOneOut(rows, np.array([[0.0], [1.0], [5.0]]), np.ones(3))
    >>> exact.predictions(0.0).round(6).ravel().tolist()        # the line through the two other points, each time
    [-3.0, 2.5, 2.0]
    """

    def __init__(
        self, rotated_nr: Array, codes_nk: Array, weights_n: Array, strength_r: npt.NDArray[np.float64] | None = None
    ) -> None:
        root_n = np.sqrt(weights_n)
        self.codes = codes_nk
        self.root = root_n[:, None]
        self.basis: Array | None = None
        self.mean_x = np.average(rotated_nr, axis=0, weights=weights_n)
        self.mean_y = np.average(codes_nk, axis=0, weights=weights_n)
        if strength_r is None:
            rotated, strength, self.basis = rotate((rotated_nr - self.mean_x).astype(np.float64) * self.root)
        else:
            rotated, strength = rotated_nr.astype(np.float64), strength_r
        self.singular = np.sqrt(strength)
        self.U = rotated / self.singular if len(strength) else np.zeros((len(rotated_nr), 0))
        self.U_squared = self.U**2
        self.centred = (codes_nk - self.mean_y) * self.root
        self.projected = self.U.T @ self.centred
        full = len(strength) == len(rotated_nr) - 1
        self.beyond = np.zeros_like(self.centred) if full else self.centred - self.U @ self.projected
        constant = weights_n / weights_n.sum()
        self.room = np.zeros(len(rotated_nr)) if full else np.clip(1 - constant - self.U_squared.sum(axis=1), 0, None)

    def _shrunk(self, penalty: float) -> npt.NDArray[np.float64]:
        """Return penalty / (s^2 + penalty); for penalty 0 and as many directions as rows, its limit's direction."""
        squared = self.singular**2
        if penalty > 0:
            shrunk: npt.NDArray[np.float64] = penalty / (squared + penalty)
            return shrunk
        interpolates = len(squared) == len(self.codes) - 1
        return 1 / squared if interpolates else np.zeros_like(squared)

    def predictions(self, penalty: float) -> npt.NDArray[np.float64]:
        """Return for every row what a fit without it predicts, shape (n, k)."""
        shrunk = self._shrunk(penalty)
        residual = self.beyond + self.U @ (shrunk[:, None] * self.projected)
        room = self.room + self.U_squared @ shrunk
        alone = room <= 1e-12 * max(float(room.max(initial=0.0)), 1e-300)  # only this row knows its direction
        correction = residual / (np.where(alone, 1.0, room)[:, None] * self.root)
        left_out: npt.NDArray[np.float64] = np.where(alone[:, None], self.mean_y, self.codes - correction)
        return left_out

    def solution(self, penalty: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return weights (k, r) and biases (k,) of the fit on all rows."""
        shares = self.singular / (self.singular**2 + penalty)
        weight = (shares[:, None] * self.projected).T
        if self.basis is not None:
            weight = weight @ self.basis.T
        return weight, self.mean_y - weight @ self.mean_x


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
