"""What CODA minimises in one round: two sparse linear classifiers on disjoint features that can label rows for each other.

    min over u, v   log(exp f(u) + exp f(v)),    f(w) = loss(w; L) + gamma sum_j D_j |w_j|
    with  h = sum_j u_j^2 v_j^2 = 0                      every feature belongs to one of both at most
    and   g = e min(sum_U c_u c_v, sum_U (1 - c_u)(1 - c_v)) - sum_U [c_u (1 - c_v) + (1 - c_u) c_v]  <= 0
    D_j = 1 - r_L(x_j, y) r_U(x_j, p),     r the correlation with the label in L and with its probability in U
    augmented Lagrangian:   + a h + m h^2 / 2 + (max(0, b + m g)^2 - b^2) / (2 m)

Source: Chen, Weinberger & Blitzer, "Co-training for domain adaptation", NeurIPS 2011, section 3; the split into two views
is Chen, Weinberger & Chen, "Automatic feature decomposition for single view co-training", ICML 2011. The formulas are from
memory of both papers; no implementation of the authors' was at hand to check them. Ours are: the sure-or-not indicator c is
a sigmoid of the largest probability, so that it has a slope; D is held fixed during a round, from the answers of the round
before, and is at least 0.01; intercepts are free and belong to neither constraint; h is divided by its value for two equal
classifiers and g by the number of rows. More than two classes have a column of weights each, h then multiplies squared
lengths, and D has an entry a class.
Solved as `sparse_descent` says, on the few columns of wide rows that matter.
Use these inside `CODA`. They ignore what no linear classifier sees.
Shapes: n labelled rows L, m unlabelled rows U, d features, k classes, q columns of weights (1 for two classes, else k).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, softmax

from headstart.alignment.gradual_co_training import class_correlations
from headstart.alignment.sparse_descent import Smooth, minimise_sparse, solve_growing

__all__ = [
    "LinearScores",
    "SplitObjective",
    "class_columns",
    "expandability_gap",
    "feature_penalties",
    "fit_sparse",
    "largest_penalty",
    "log_loss",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
LEAST_PENALTY = 0.01  # a feature that agrees perfectly still costs this much, so that its weight stays finite
WIDTH = 0.05  # how far in probability a row is from sure to unsure
_JOININGS = 1  # how often they may while both classifiers are sought


def class_columns(num_classes: int) -> FloatArray:
    """Return the matrix (q, k) from columns of scores to logits: one column, halved and mirrored, for two classes.

    Examples
    --------
    >>> class_columns(2).tolist()
    [[-0.5, 0.5]]
    """
    return np.array([[-0.5, 0.5]]) if num_classes == 2 else np.eye(num_classes)


@dataclass(frozen=True)
class LinearScores:
    """A linear classifier: ``weights_dq`` and ``offsets_q``, with ``columns_qk`` from scores to logits."""

    weights_dq: FloatArray
    offsets_q: FloatArray
    columns_qk: FloatArray

    def on(self, places: IntArray) -> LinearScores:
        """Return the classifier of these features alone."""
        return LinearScores(self.weights_dq[places], self.offsets_q, self.columns_qk)

    def spread(self, places: IntArray, num_features: int) -> LinearScores:
        """Return the classifier of all features whose weights at ``places`` are these, and 0 elsewhere."""
        weights = np.zeros((num_features, self.weights_dq.shape[1]))
        weights[places] = self.weights_dq
        return LinearScores(weights, self.offsets_q, self.columns_qk)

    def logits(self, rows: Any) -> FloatArray:
        """Return logits (rows, k)."""
        return np.asarray((rows @ self.weights_dq + self.offsets_q) @ self.columns_qk)

    def probabilities(self, rows: Any) -> FloatArray:
        """Return probabilities (rows, k)."""
        return _softmax(self.logits(rows))


def log_loss(scores: LinearScores, rows: Any, truth_nk: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    """Return the mean log-loss (nat) and its slopes by weights (d, q) and offsets (q,).

    Examples
    --------
    >>> blank = LinearScores(np.zeros((1, 1)), np.zeros(1), class_columns(2))
    >>> value, slope, _ = log_loss(blank, np.array([[2.0]]), np.array([[0.0, 1.0]]))
    >>> round(value, 4), slope.tolist()             # log 2;  x (p - 1)
    (0.6931, [[-1.0]])
    """
    value, by_logits = _log_loss_of(scores.logits(rows), truth_nk)
    excess = by_logits @ scores.columns_qk.T
    return value, np.asarray(rows.T @ excess), excess.sum(axis=0)


def _log_loss_of(logits_nk: FloatArray, truth_nk: FloatArray) -> tuple[float, FloatArray]:
    """Return the mean log-loss and its slopes by logits."""
    logs = logits_nk - logits_nk.max(axis=1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
    return -float(truth_nk.ravel() @ logs.ravel()) / len(truth_nk), (np.exp(logs) - truth_nk) / len(truth_nk)


def _softmax(logits_nk: FloatArray) -> FloatArray:
    shares = np.exp(logits_nk - logits_nk.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return np.asarray(shares)


def feature_penalties(
    labelled: Any, truth_nk: FloatArray, unlabelled: Any, probabilities_mk: FloatArray, columns_qk: FloatArray
) -> FloatArray:
    """Return D (d, q): 0.01 for a feature that says the same of the label in both sets, 1 for one that says nothing, to 2.

    Examples
    --------
    >>> rows, classes = np.array([[0.0, 0.0, 5.0], [1.0, 1.0, 5.0]]), np.eye(2)
    >>> feature_penalties(rows, classes, rows * [1.0, -1.0, 1.0], classes, class_columns(2)).round(6).ravel().tolist()
    [0.01, 2.0, 1.0]
    """
    known = class_correlations(labelled, truth_nk @ columns_qk.T)
    guessed = class_correlations(unlabelled, probabilities_mk @ columns_qk.T)
    return np.asarray(np.maximum(1.0 - known * guessed, LEAST_PENALTY))


def largest_penalty(rows: Any, truth_nk: FloatArray, columns_qk: FloatArray) -> float:
    """Return the gamma from which on no feature has a weight, all D being 1: the largest slope where only offsets are fitted.

    Examples
    --------
    >>> largest_penalty(np.array([[-1.0], [1.0]]), np.eye(2), class_columns(2))
    0.5
    """
    excess = (truth_nk.mean(axis=0) - truth_nk) @ columns_qk.T / len(truth_nk)
    return float(np.abs(rows.T @ excess).max())


def expandability_gap(
    first_mk: FloatArray, second_mk: FloatArray, sure: float, expandability: float
) -> tuple[float, FloatArray, FloatArray]:
    """Return g over m, and its slopes by both classifiers' logits (m, k): above 0 where too few rows are sure for one alone.

    Parameters
    ----------
    first_mk, second_mk : ndarray of shape (m, k)
        Probabilities of both classifiers.
    sure : float
        The probability from which on a row is sure.
    expandability : float
        e: how many rows that one alone is sure of there must be for each row of the rarer of "both" and "neither".

    Examples
    --------
    >>> p = np.array([[0.99, 0.01], [0.5, 0.5]])
    >>> gap, _, _ = expandability_gap(p, p, 0.8, 1.0)        # one row both are sure of, one neither: none to exchange
    >>> round(gap, 2)
    0.45
    """
    (first, first_slope), (second, second_slope) = _sureness(first_mk, sure), _sureness(second_mk, sure)
    both, neither = float(first @ second), float((1 - first) @ (1 - second))
    alone = float(first.sum() + second.sum()) - 2 * both
    if both <= neither:
        by_first, by_second = expandability * second, expandability * first
    else:
        by_first, by_second = -expandability * (1 - second), -expandability * (1 - first)
    by_first, by_second = by_first - (1 - 2 * second), by_second - (1 - 2 * first)
    gap = expandability * min(both, neither) - alone
    number = len(first)
    return gap / number, by_first[:, None] * first_slope / number, by_second[:, None] * second_slope / number


def _sureness(probabilities_mk: FloatArray, sure: float) -> tuple[FloatArray, FloatArray]:
    """Return how sure each row is, 0 to 1, and the slope by its logits."""
    places = probabilities_mk.argmax(axis=1)
    top = probabilities_mk[np.arange(len(places)), places]
    share = expit((top - sure) / WIDTH)
    slope = top[:, None] * (np.eye(probabilities_mk.shape[1])[places] - probabilities_mk)
    return np.asarray(share), np.asarray((share * (1 - share) / WIDTH)[:, None] * slope)


@dataclass(frozen=True, kw_only=True)
class SplitObjective:
    """One round's augmented Lagrangian, of two classifiers.

    Parameters
    ----------
    labelled, truth_nk, unlabelled
        L with its classes (0 or 1 a column), and U.
    penalties : pair of ndarray of shape (d, q)
        gamma D of each classifier.
    columns_qk : ndarray
        `class_columns`.
    sure, expandability : float
        As in `expandability_gap`.
    unit : float
        h is divided by this.
    split_price, gap_price : float
        a and b, the multipliers of h and g.
    weight : float
        m, by which their squares count.
    """

    labelled: Any
    truth_nk: FloatArray
    unlabelled: Any
    penalties: tuple[FloatArray, FloatArray]
    columns_qk: FloatArray
    sure: float
    expandability: float
    unit: float
    split_price: float = 0.0
    gap_price: float = 0.0
    weight: float = 1.0

    def constraints(self, first: LinearScores, second: LinearScores) -> tuple[float, float]:
        """Return h and g."""
        lengths = [np.square(scores.weights_dq).sum(axis=1) for scores in (first, second)]
        return float(lengths[0] @ lengths[1]) / self.unit, self._gap(first, second)[0]

    def _gap(self, first: LinearScores, second: LinearScores) -> tuple[float, FloatArray, FloatArray]:
        ours, theirs = first.probabilities(self.unlabelled), second.probabilities(self.unlabelled)
        return expandability_gap(ours, theirs, self.sure, self.expandability)

    def __call__(
        self, first: LinearScores, second: LinearScores
    ) -> tuple[float, list[FloatArray], list[FloatArray], FloatArray]:
        """Return the value, slopes by weights without the l1 terms, slopes by offsets, and the share of each f in the value."""
        every = np.arange(len(self.penalties[0]))
        views = _View(self.labelled, self.unlabelled, self.penalties[0], every)
        return self._value((first, second), (views, replace(views, penalty=self.penalties[1])))

    def _value(
        self, pair: tuple[LinearScores, LinearScores], views: tuple[_View, _View]
    ) -> tuple[float, list[FloatArray], list[FloatArray], FloatArray]:
        told = [
            _log_loss_of(scores.logits(view.labelled), self.truth_nk) for scores, view in zip(pair, views, strict=True)
        ]
        shares = softmax(
            losses := [
                loss + float(view.penalty.ravel() @ np.abs(scores.weights_dq).ravel())
                for (loss, _), view, scores in zip(told, views, pair, strict=True)
            ]
        )
        value = float(np.logaddexp(losses[0], losses[1]))
        shared = views[0].shared, views[1].shared
        lengths = [
            np.square(scores.weights_dq[places]).sum(axis=1) for scores, places in zip(pair, shared, strict=True)
        ]
        overlap = float(lengths[0] @ lengths[1]) / self.unit
        value += self.split_price * overlap + self.weight / 2 * overlap**2
        steepness = 2 * (self.split_price + self.weight * overlap) / self.unit
        ours, theirs = (scores.probabilities(view.unlabelled) for scores, view in zip(pair, views, strict=True))
        gap, *by_logits = expandability_gap(ours, theirs, self.sure, self.expandability)
        push = max(0.0, self.gap_price + self.weight * gap)
        value += (push**2 - self.gap_price**2) / (2 * self.weight)
        by_weights, by_offsets = [], []
        for place, (scores, view) in enumerate(zip(pair, views, strict=True)):
            by_scores = shares[place] * told[place][1] @ self.columns_qk.T
            slope, by_offset = np.asarray(view.labelled.T @ by_scores), by_scores.sum(axis=0)
            if push:
                by_scores = push * by_logits[place] @ self.columns_qk.T
                slope, by_offset = slope + view.unlabelled.T @ by_scores, by_offset + by_scores.sum(axis=0)
            slope[view.shared] += steepness * scores.weights_dq[view.shared] * lengths[1 - place][:, None]
            by_weights.append(slope)
            by_offsets.append(by_offset)
        return value, by_weights, by_offsets, shares

    def minimise(self, first: LinearScores, second: LinearScores, max_steps: int) -> tuple[LinearScores, LinearScores]:
        """Return where the value is least from here on, in ``max_steps`` steps each time that features join."""
        width, pair = len(self.penalties[0]), [first, second]

        def excess() -> FloatArray:
            _, slopes, _, shares = self(*pair)
            return np.concatenate(
                [
                    (np.abs(slope) - share * penalty).max(axis=1)
                    for slope, share, penalty in zip(slopes, shares, self.penalties, strict=True)
                ]
            )

        def solve(places: IntArray) -> None:
            own = places[places < width], places[places >= width] - width
            shared = np.intersect1d(*own, assume_unique=True, return_indices=True)[1:]
            one, other = (
                _View(self.labelled[:, features], self.unlabelled[:, features], penalty[features], common)
                for features, penalty, common in zip(own, self.penalties, shared, strict=True)
            )
            found = self._minimise_on((one, other), (pair[0].on(own[0]), pair[1].on(own[1])), max_steps)
            pair[:] = [scores.spread(features, width) for scores, features in zip(found, own, strict=True)]

        in_use = np.concatenate([scores.weights_dq.any(axis=1) for scores in pair])
        solve_growing(in_use, excess, solve, _JOININGS)
        return pair[0], pair[1]

    def _minimise_on(
        self, views: tuple[_View, _View], start: tuple[LinearScores, LinearScores], max_steps: int
    ) -> tuple[LinearScores, LinearScores]:
        shapes = [scores.weights_dq.shape for scores in start]
        cut = start[0].weights_dq.size

        def unpack(weights: FloatArray, offsets: FloatArray) -> tuple[LinearScores, LinearScores]:
            half = len(offsets) // 2
            return (
                LinearScores(weights[:cut].reshape(shapes[0]), offsets[:half], self.columns_qk),
                LinearScores(weights[cut:].reshape(shapes[1]), offsets[half:], self.columns_qk),
            )

        def smooth(weights: FloatArray, offsets: FloatArray) -> Smooth:
            value, slopes, offset_slopes, shares = self._value(unpack(weights, offsets), views)
            costs = np.concatenate([share * view.penalty.ravel() for share, view in zip(shares, views, strict=True)])
            return value, np.concatenate([part.ravel() for part in slopes]), np.concatenate(offset_slopes), costs

        weights = np.concatenate([scores.weights_dq.ravel() for scores in start])
        offsets = np.concatenate([scores.offsets_q for scores in start])
        return unpack(*minimise_sparse(smooth, weights, offsets, max_steps))


@dataclass(frozen=True)
class _View:
    """What one classifier sees: rows cut to its features, their ``penalty``, and which of them the other one has too."""

    labelled: Any
    unlabelled: Any
    penalty: FloatArray
    shared: IntArray


def fit_sparse(
    rows: Any, truth_nk: FloatArray, penalties_dq: FloatArray, columns_qk: FloatArray, start: LinearScores | None = None
) -> LinearScores:
    """Return the one classifier with the least ``loss + sum penalties |w|``.

    Examples
    --------
    >>> rows = np.array([[-1.0], [1.0], [-1.0], [1.0]])
    >>> truth = np.eye(2)[[0, 1, 0, 0]]
    >>> fit_sparse(rows, truth, np.full((1, 1), 9.0), class_columns(2)).weights_dq.tolist()       # too dear
    [[0.0]]
    """
    shape = penalties_dq.shape
    found = [LinearScores(np.zeros(shape), np.zeros(shape[1]), columns_qk) if start is None else start]

    def excess() -> FloatArray:
        slope = log_loss(found[0], rows, truth_nk)[1]
        return np.asarray((np.abs(slope) - penalties_dq).max(axis=1))

    def solve(places: IntArray) -> None:
        few = _fit_whole(rows[:, places], truth_nk, penalties_dq[places], found[0].on(places))
        found[0] = few.spread(places, shape[0])

    solve_growing(np.asarray(found[0].weights_dq.any(axis=1)), excess, solve)
    return found[0]


def _fit_whole(rows: Any, truth_nk: FloatArray, penalties_dq: FloatArray, start: LinearScores) -> LinearScores:
    shape, costs = penalties_dq.shape, penalties_dq.ravel()

    def smooth(weights: FloatArray, offsets: FloatArray) -> Smooth:
        scores = LinearScores(weights.reshape(shape), offsets, start.columns_qk)
        value, slope, offset_slope = log_loss(scores, rows, truth_nk)
        return value + float(costs @ np.abs(weights)), slope.ravel(), offset_slope, costs

    weights, offsets = minimise_sparse(smooth, start.weights_dq.ravel(), start.offsets_q, 1000)
    return LinearScores(weights.reshape(shape), offsets, start.columns_qk)
