"""Logistic regression by L-BFGS on rotated features, with the penalty chosen by cross-validation.

    minimise sum_i w_i loss(y_i, W x_i + b) + penalty / 2 |W|^2
    loss: softmax cross-entropy, or with several labels at once a sigmoid for each

Source: Liu & Nocedal, "On the limited memory BFGS method", Mathematical Programming 1989. The bias is not penalised.
Use it when classes overlap or are many: it puts effort where rows are doubtful, which ridge does not.
It ignores nothing but time: about 50 times the cost of ridge.
Three things make it quick. The rotation makes the Hessian nearly diagonal, mean(p (1 - p))_k mean(x^2)_r + penalty, and
dividing by its root is a preconditioner that saves most of the steps. Each penalty starts from the nearest one solved.
And penalties are searched by decades, then once at the vertex of the parabola through the best three, on as many folds
as give 2,000 held-out rows; a weaker penalty must lower the loss by 1 % and 0.001 nats, for it costs time and margin.
Shapes: n rows, r directions, k outputs. Penalties refer to rows of mean squared length 1 (see `RowSpace`).
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from headstart.core.errors import ConfigError
from headstart.core.tasks import Task
from headstart.heads.head import LinearHead
from headstart.heads.lbfgs import minimise
from headstart.heads.rows import ClassWeight, TrainingRows
from headstart.heads.search import HeldOut, score_held_out, search_report

__all__ = ["LogisticHead", "solve_logistic"]

Array = npt.NDArray[Any]
FIRST, WEAKEST, STRONGEST = 0.1, 1e-5, 1e5
LEAST_GAIN = 0.01
ENOUGH_HELD_OUT = 2000
SEARCH_TOLERANCE = 50  # times that of the final fit


def solve_logistic(
    rotated_nr: Array,
    indicators_nk: Array,
    weights_n: Array,
    penalty: float,
    exclusive: bool,
    *,
    start: tuple[Array, Array] | None = None,
    tolerance: float = 1e-5,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return weights (k, r) and biases (k,) that minimise the penalised log loss.

    Parameters
    ----------
    rotated_nr : ndarray of shape (n, r)
        Columns nearly orthogonal; its precision is that of the computation.
    indicators_nk : ndarray of shape (n, k)
        Labels as 0 and 1.
    weights_n : ndarray of shape (n,)
        Positive.
    penalty : float
        Positive.
    exclusive : bool
        One class for each row (softmax), or several labels at once (a sigmoid each).
    start : (weights, biases), optional
        Where to begin.
    tolerance : float
        How far the value may lie above its minimum, as an estimated share of it.

    Examples
    --------
    >>> rows, labels = np.array([[-1.0], [1.0]]), np.eye(2)
    >>> weight, bias = solve_logistic(rows, labels, np.ones(2), 1.0, True, tolerance=1e-14)
    >>> wrong = 1 / (1 + np.exp(2 * weight[1, 0]))             # where the slope 2 p(wrong) equals the penalty's, w
    >>> bool(abs(weight[1, 0] - 2 * wrong) < 1e-6)
    True
    """
    moving = _learnable(indicators_nk, exclusive)
    num_outputs, num_directions = indicators_nk.shape[1], rotated_nr.shape[1]
    weight, bias = np.zeros((num_outputs, num_directions)), np.zeros(num_outputs)
    problem = _Problem(rotated_nr, indicators_nk[:, moving], weights_n, penalty, exclusive)
    begin = (start[0][moving], start[1][moving]) if start is not None else None
    weight[moving], bias[moving] = problem.minimise(begin, tolerance)
    unseen = 1.0 / (len(rotated_nr) + 2.0)
    if exclusive:
        bias[moving] -= bias[moving].mean()
        bias[~moving] = bias[moving].min(initial=0.0) + np.log(unseen)
    else:
        bias[~moving] = np.where(indicators_nk[:, ~moving].any(axis=0), -np.log(unseen), np.log(unseen))
    return weight, bias


def _learnable(indicators_nk: Array, exclusive: bool) -> npt.NDArray[np.bool_]:
    """Return the outputs with something to learn: classes that occur, labels that are neither always on nor always off.

    The bias of any other would run off to infinity.
    """
    present = indicators_nk.any(axis=0)
    return np.asarray(present if exclusive else present & ~indicators_nk.all(axis=0), dtype=np.bool_)


class _Problem:
    """The objective in preconditioned variables, and its minimiser."""

    def __init__(self, rotated: Array, indicators: Array, weights: Array, penalty: float, exclusive: bool) -> None:
        self.x = rotated
        self.dtype = rotated.dtype
        self.y = indicators.astype(self.dtype)
        self.total = float(weights.sum())
        self.shares = (weights / self.total).astype(self.dtype)[:, None]
        self.penalty = penalty / self.total
        self.exclusive = exclusive
        self.shape = (indicators.shape[1], rotated.shape[1])

    def _probabilities(self, weight: Array, bias: Array) -> tuple[float, Array]:
        """Return the mean loss without penalty, and probabilities (n, k)."""
        scores = self.x @ weight.T.astype(self.dtype, copy=False)
        scores += bias.astype(self.dtype, copy=False)
        if self.exclusive:
            scores -= scores.max(axis=1, keepdims=True)
            right = np.einsum("nk,nk->n", scores, self.y)
            raised = np.exp(scores, out=scores)
            sums = raised.sum(axis=1)
            losses = np.log(sums) - right
            raised /= sums[:, None]
            return float(self.shares[:, 0] @ losses), raised
        decay = np.exp(-np.abs(scores))
        losses = (np.maximum(scores, 0) - scores * self.y + np.log1p(decay)).sum(axis=1)
        return float(self.shares[:, 0] @ losses), np.where(scores >= 0, 1, decay) / (1 + decay)

    def minimise(self, start: tuple[Array, Array] | None, tolerance: float) -> tuple[Array, Array]:
        num_outputs, num_directions = self.shape
        if not num_outputs:
            return np.zeros(self.shape), np.zeros(0)
        weight, bias = start if start is not None else (np.zeros(self.shape), self._prior())
        _, probabilities = self._probabilities(weight, bias)
        spread = (self.shares * probabilities * (1 - probabilities)).sum(axis=0) + self.dtype.type(1e-7)
        energy = np.square(self.x).T @ self.shares[:, 0]
        root = np.sqrt(spread[:, None] * energy + self.dtype.type(self.penalty))
        root_bias = np.sqrt(spread)
        split = num_outputs * num_directions
        penalty = self.dtype.type(self.penalty)

        def objective(flat: Array) -> tuple[float, Array]:
            weight, bias = flat[:split].reshape(self.shape) / root, flat[split:] / root_bias
            loss, error = self._probabilities(weight, bias)
            error -= self.y
            error *= self.shares
            slope = np.empty_like(flat)
            part = np.matmul(error.T, self.x, out=slope[:split].reshape(self.shape))
            loss += 0.5 * self.penalty * float(np.vdot(weight, weight))
            weight *= penalty
            part += weight
            part /= root
            np.divide(error.sum(axis=0), root_bias, out=slope[split:])
            return loss, slope

        begin = np.concatenate([(weight.astype(self.dtype) * root).ravel(), bias.astype(self.dtype) * root_bias])
        found = minimise(objective, begin, tolerance)
        return found[:split].reshape(self.shape) / root, found[split:] / root_bias

    def _prior(self) -> Array:
        share = np.clip((self.shares * self.y).sum(axis=0, dtype=np.float64), 1e-9, 1 - 1e-9)
        return np.asarray(np.log(share) if self.exclusive else np.log(share / (1 - share)))


class LogisticHead(LinearHead):
    """Multinomial logistic regression, or one sigmoid for each label, with a cross-validated penalty.

    Parameters
    ----------
    penalty : float, optional
        Positive. When left out, it is chosen by the calibrated log loss of held-out folds.
    class_weight : "balanced", optional
        Make every class count alike.
    num_folds, seed : int
        Of the folds.
    tolerance : float
        Of the final fit, see `solve_logistic`; the search is content with fifty times as much.

    Examples
    --------
    >>> features, labels = np.array([[0.0], [1.0], [9.0], [10.0]]), np.array([0, 0, 1, 1])
    >>> head = LogisticHead(num_folds=2).fit(features, labels, Task("classification", ("low", "high")))
    >>> head.predict(np.array([[2.0], [8.0]]))
    array([0, 1])
    """

    kind: ClassVar[str] = "logistic"

    def __init__(
        self,
        penalty: float | None = None,
        class_weight: ClassWeight | None = None,
        num_folds: int = 5,
        tolerance: float = 1e-5,
        seed: int = 0,
    ) -> None:
        if penalty is not None and not (penalty > 0 and np.isfinite(penalty)):
            raise ConfigError(f"LogisticHead: penalty is positive; got {penalty}.")
        if not tolerance > 0:
            raise ConfigError(f"LogisticHead: tolerance is positive; got {tolerance}.")
        self.penalty = penalty
        self.class_weight = class_weight
        self.num_folds = num_folds
        self.tolerance = tolerance
        self.seed = seed

    def fit(
        self,
        features_nd: Array,
        targets: Array,
        task: Task,
        *,
        groups: Array | None = None,
        sample_weight: Array | None = None,
        start: LinearHead | None = None,
    ) -> Self:
        """Learn as `LinearHead.fit` says; ``start`` is a head on the same features to begin the final fit from."""
        rows = TrainingRows.of(
            features_nd,
            targets,
            task,
            groups=groups,
            sample_weight=sample_weight,
            num_folds=self.num_folds,
            seed=self.seed,
        )
        return self.fit_rows(rows, start)

    def fit_rows(self, rows: TrainingRows, start: LinearHead | None = None) -> Self:
        """Learn from rows that were made ready before."""
        if rows.task.kind == "regression":
            raise ConfigError("LogisticHead: fits labels, not numbers; use RidgeHead.")
        rows = rows.weighted("LogisticHead", self.class_weight)
        search = _Search(rows, SEARCH_TOLERANCE * self.tolerance)
        penalty = search.best() if self.penalty is None else float(self.penalty)
        whole = search.all_folds(penalty)
        self._fold_scores = whole.scores_nk
        begin = search.nearest(penalty, 0) if start is None else _start(rows, start)
        weight, bias = solve_logistic(
            rows.space.rotated,
            rows.indicators,
            rows.weights,
            penalty,
            rows.task.kind == "classification",
            start=begin,
            tolerance=self.tolerance,
        )
        if penalty not in search.seen:
            search.loss(penalty)
        inside = search.searched
        how = f"{len(np.unique(rows.folds))} folds{' of groups' if rows.by_group else ''}"
        report = search_report(search.seen, penalty, rows.folds[inside], rows.weights[inside], rows.task, how)
        return self._accept(rows, weight, bias, whole.scores_nk, whole.temperature, report)

    def fold_scores(self, rows: TrainingRows) -> Array:
        """Return the scores by which `fit_rows` chose the penalty; ``rows`` must be the same."""
        if len(rows.folds) != len(self._fold_scores):
            raise ConfigError(f"LogisticHead: was fitted on {len(self._fold_scores)} rows, not on {len(rows.folds)}.")
        return self._fold_scores


class _Search:
    """Held-out scores for any penalty; every solution is kept as a start for the next."""

    def __init__(self, rows: TrainingRows, tolerance: float) -> None:
        self.rows, self.tolerance = rows, tolerance
        self.exclusive = rows.task.kind == "classification"
        self.solved: dict[tuple[float, int], tuple[Array, Array]] = {}
        self.seen: dict[float, HeldOut] = {}
        self.folds = np.unique(rows.folds)
        sizes = np.cumsum(np.bincount(rows.folds))
        self.few = self.folds[: 1 + int(np.searchsorted(sizes, ENOUGH_HELD_OUT))]
        self.searched = np.isin(rows.folds, self.few)

    def nearest(self, penalty: float, fold: int) -> tuple[Array, Array] | None:
        known = [key for key in self.solved if key[1] == fold]
        if not known:
            return None
        return self.solved[min(known, key=lambda key: abs(np.log(key[0] / penalty)))]

    def _scores(self, penalty: float, folds: Array) -> Array:
        rows = self.rows
        scores = np.zeros((len(rows.folds), rows.task.num_outputs))
        for fold in folds:
            train, held = np.flatnonzero(rows.folds != fold), np.flatnonzero(rows.folds == fold)
            if (penalty, int(fold)) not in self.solved:
                self.solved[penalty, int(fold)] = solve_logistic(
                    rows.space.rotated[train],
                    rows.indicators[train],
                    rows.weights[train],
                    penalty,
                    self.exclusive,
                    start=self.nearest(penalty, int(fold)),
                    tolerance=self.tolerance,
                )
            weight, bias = self.solved[penalty, int(fold)]
            scores[held] = rows.space.rotated[held] @ weight.T.astype(rows.space.rotated.dtype) + bias
        return scores

    def best(self) -> float:
        """Return the penalty with the smallest held-out loss."""
        found, lowest, moved = FIRST, self.loss(FIRST), False
        for factor in (0.1, 10.0):
            while WEAKEST < found * factor < STRONGEST:
                loss = self.loss(found * factor)
                if lowest - loss < (max(LEAST_GAIN * lowest, 1e-3) if factor < 1 else 0.0):
                    break
                found, lowest, moved = found * factor, loss, True
            if moved:
                break
        between = self._vertex(found)
        if abs(np.log10(between / found)) > 0.15 and self.loss(between) < lowest * (1 - LEAST_GAIN / 2):
            found = between
        return found

    def _vertex(self, penalty: float) -> float:
        """Return where the parabola through a penalty and its two neighbours is lowest, on logarithmic axes."""
        near = [self.seen[value].loss for value in (penalty / 10, penalty, penalty * 10) if value in self.seen]
        if len(near) < 3:
            return penalty
        low, middle, high = near
        bend = low - 2 * middle + high
        shift = 0.5 * (low - high) / bend if bend > 0 else 0.0
        return float(penalty * 10 ** float(np.clip(shift, -0.5, 0.5)))

    def loss(self, penalty: float) -> float:
        """Return the held-out loss on the folds that are searched."""
        inside, rows = self.searched, self.rows
        scores = self._scores(penalty, self.few)[inside]
        self.seen[penalty] = score_held_out(rows.task, scores, rows.targets[inside], rows.weights[inside])
        return self.seen[penalty].loss

    def all_folds(self, penalty: float) -> HeldOut:
        """Return held-out scores of every row."""
        if len(self.few) == len(self.folds) and penalty in self.seen:
            return self.seen[penalty]
        return score_held_out(self.rows.task, self._scores(penalty, self.folds), self.rows.targets, self.rows.weights)


def _start(rows: TrainingRows, head: LinearHead) -> tuple[Array, Array]:
    """Return another head's solution in this row space's coordinates."""
    if head.weight.shape != (rows.task.num_outputs, rows.space.basis.shape[0]):
        raise ConfigError(
            f"LogisticHead: start has weights {head.weight.shape} but {rows.task.num_outputs} outputs on "
            f"{rows.space.basis.shape[0]} features are wanted; start from a head on the same features and classes."
        )
    weight, mean = head.weight / head.temperature, rows.space.mean
    return rows.space.project(weight), (head.bias / head.temperature) + weight @ mean
