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
Use these inside `CODA`. They ignore what no linear classifier sees.
Shapes: n labelled rows L, m unlabelled rows U, d features, k classes, q columns of weights (1 for two classes, else k).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, minimize
from scipy.special import expit, log_softmax, softmax

from headstart.alignment.gradual_co_training import class_correlations

__all__ = [
    "LinearScores",
    "SplitObjective",
    "class_columns",
    "expandability_gap",
    "feature_penalties",
    "fit_sparse",
    "largest_penalty",
    "log_loss",
    "minimise_sparse",
]

FloatArray = npt.NDArray[np.float64]
Smooth = tuple[float, FloatArray, FloatArray, FloatArray]
LEAST_PENALTY = 0.01  # a feature that agrees perfectly still costs this much, so that its weight stays finite
WIDTH = 0.05  # how far in probability a row is from sure to unsure


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

    def logits(self, rows: Any) -> FloatArray:
        """Return logits (rows, k)."""
        return np.asarray((rows @ self.weights_dq + self.offsets_q) @ self.columns_qk)

    def probabilities(self, rows: Any) -> FloatArray:
        """Return probabilities (rows, k)."""
        return np.asarray(softmax(self.logits(rows), axis=1))


def log_loss(scores: LinearScores, rows: Any, truth_nk: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    """Return the mean log-loss (nat) and its slopes by weights (d, q) and offsets (q,).

    Examples
    --------
    >>> blank = LinearScores(np.zeros((1, 1)), np.zeros(1), class_columns(2))
    >>> value, slope, _ = log_loss(blank, np.array([[2.0]]), np.array([[0.0, 1.0]]))
    >>> round(value, 4), slope.tolist()             # log 2;  x (p - 1)
    (0.6931, [[-1.0]])
    """
    logs = log_softmax(scores.logits(rows), axis=1)
    excess = (np.exp(logs) - truth_nk) @ scores.columns_qk.T / len(truth_nk)
    return float(-(truth_nk * logs).sum() / len(truth_nk)), np.asarray(rows.T @ excess), excess.sum(axis=0)


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
        self, first: LinearScores, second: LinearScores, sizes: tuple[FloatArray, FloatArray] | None = None
    ) -> tuple[float, list[FloatArray], list[FloatArray], FloatArray]:
        """Return the value, slopes by weights without the l1 terms, slopes by offsets, and the share of each f in the value.

        ``sizes`` stand for the absolute weights, where they are held apart as positive and negative parts.
        """
        pair = (first, second)
        sizes = (np.abs(first.weights_dq), np.abs(second.weights_dq)) if sizes is None else sizes
        losses, by_weights, by_offsets = [], [], []
        for scores, penalty, size in zip(pair, self.penalties, sizes, strict=True):
            value, slope, offset_slope = log_loss(scores, self.labelled, self.truth_nk)
            losses.append(value + float((penalty * size).sum()))
            by_weights.append(slope)
            by_offsets.append(offset_slope)
        shares = softmax(losses)
        value = float(np.logaddexp(losses[0], losses[1]))
        lengths = [np.square(scores.weights_dq).sum(axis=1) for scores in pair]
        overlap = float(lengths[0] @ lengths[1]) / self.unit
        value += self.split_price * overlap + self.weight / 2 * overlap**2
        steepness = 2 * (self.split_price + self.weight * overlap) / self.unit
        gap, *by_logits = self._gap(first, second)
        push = max(0.0, self.gap_price + self.weight * gap)
        value += (push**2 - self.gap_price**2) / (2 * self.weight)
        for place, scores in enumerate(pair):
            by_scores = push * by_logits[place] @ self.columns_qk.T
            by_weights[place] = (
                shares[place] * by_weights[place]
                + steepness * scores.weights_dq * lengths[1 - place][:, None]
                + self.unlabelled.T @ by_scores
            )
            by_offsets[place] = shares[place] * by_offsets[place] + by_scores.sum(axis=0)
        return value, by_weights, by_offsets, shares

    def minimise(self, first: LinearScores, second: LinearScores, max_steps: int) -> tuple[LinearScores, LinearScores]:
        """Return where the value is least from here on."""
        shape = first.weights_dq.shape

        def unpack(weights: FloatArray, offsets: FloatArray) -> list[LinearScores]:
            return [
                LinearScores(part.reshape(shape), offset, self.columns_qk)
                for part, offset in zip(np.split(weights, 2), np.split(offsets, 2), strict=True)
            ]

        def smooth(weights: FloatArray, sizes: FloatArray, offsets: FloatArray) -> Smooth:
            one, other = unpack(weights, offsets)
            halves = [part.reshape(shape) for part in np.split(sizes, 2)]
            value, slopes, offset_slopes, shares = self(one, other, (halves[0], halves[1]))
            costs = np.concatenate([share * cost.ravel() for share, cost in zip(shares, self.penalties, strict=True)])
            return value, np.concatenate([part.ravel() for part in slopes]), np.concatenate(offset_slopes), costs

        start = np.concatenate([first.weights_dq.ravel(), second.weights_dq.ravel()])
        weights, offsets = minimise_sparse(
            smooth, start, np.concatenate([first.offsets_q, second.offsets_q]), max_steps
        )
        found = unpack(weights, offsets)
        return found[0], found[1]


def minimise_sparse(
    smooth: Callable[[FloatArray, FloatArray, FloatArray], Smooth],
    weights: FloatArray,
    offsets: FloatArray,
    max_steps: int,
) -> tuple[FloatArray, FloatArray]:
    """Return weights and offsets of least value by L-BFGS-B; positive and negative parts apart, so that weights can be exactly 0.

    Parameters
    ----------
    smooth : callable
        ``(weights, their sizes, offsets) -> value, slopes by weights, by offsets, and by sizes``.
    weights, offsets : ndarray
        Where to begin.
    max_steps : int
        Iterations at most.
    """
    width = len(weights)

    def value_and_slope(flat: FloatArray) -> tuple[float, FloatArray]:
        positive, negative, free = flat[:width], flat[width : 2 * width], flat[2 * width :]
        value, slopes, offset_slopes, costs = smooth(positive - negative, positive + negative, free)
        return value, np.concatenate([costs + slopes, costs - slopes, offset_slopes])

    least = np.concatenate([np.zeros(2 * width), np.full(len(offsets), -np.inf)])
    start = np.concatenate([np.maximum(weights, 0), np.maximum(-weights, 0), offsets])
    bounds: Any = Bounds(least, np.full(len(least), np.inf))
    options: Any = {"maxiter": max_steps, "ftol": 1e-9, "gtol": 1e-6}
    found = minimize(
        value_and_slope,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options=options,
    ).x
    return np.asarray(found[:width] - found[width : 2 * width]), np.asarray(found[2 * width :])


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
    start = LinearScores(np.zeros(shape), np.zeros(shape[1]), columns_qk) if start is None else start

    costs = penalties_dq.ravel()

    def smooth(weights: FloatArray, sizes: FloatArray, offsets: FloatArray) -> Smooth:
        scores = LinearScores(weights.reshape(shape), offsets, columns_qk)
        value, slope, offset_slope = log_loss(scores, rows, truth_nk)
        return value + float(costs @ sizes), slope.ravel(), offset_slope, costs

    weights, offsets = minimise_sparse(smooth, start.weights_dq.ravel(), start.offsets_q, 1000)
    return LinearScores(weights.reshape(shape), offsets, columns_qk)
