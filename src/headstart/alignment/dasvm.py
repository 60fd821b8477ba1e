"""DASVM: a support vector machine that walks to the target: source rows leave, target rows enter with its answers.

    f trained on the source; then each round, with rho rows a side at most:
        enter: target rows outside, inside the margin and nearest its edge, 0 <= f < 1 as positive, -1 < f < 0 as negative
        out:   target rows inside whose answer has changed since they entered; the next round may take them again
        leave: as many source rows a side as entered there, those farthest from the boundary; rho a side where nothing entered
        f trained on what is left; a row that entered a rounds ago weighs c + (1 - c) min(1, a / A)^2
    until no source row is left, and at most beta of the target rows enter and at most beta go out
    more than two classes: one machine a class against the rest

Source: Bruzzone & Marconcini, "Domain adaptation problems: a DASVM classification technique and a circular validation
strategy", TPAMI 32(5), 2010. The paper was not at hand. What enters, goes out and leaves, rho where nothing enters, and the
end with beta = 0.03 are as in van Laarhoven's program (github.com/twanvl/domain-adaptation, predict_dasvm.m), which quotes
the paper; skada's reading differs: as many rows of every class leave whatever enters, the walk ends where no target row lies
in the margin, and one more machine is trained on all target rows with the last answers. Ours are: the weights (the paper
changes the costs of both domains' rows from round to round, neither program does); that a row leaves on the side it lies on;
that of rows equally far those far from the target's mean leave first; that a class never loses its last row; and that rounds
are limited. The circular validation they propose is a selection rule, and not here.
Use it for a gradual shift without labels: overlapping domains whose boundary turns or moves a little.
It has no way back: where early answers are wrong, the source rows that knew better have left. With many classes and
wide overlap it costs several points of accuracy.
Shapes: n source rows, m target rows, d features, k classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax
from sklearn.svm import SVC

from headstart.alignment.aligner import DomainClassifier, Domains
from headstart.alignment.option_checks import check_count, check_number
from headstart.alignment.trained_classifier import as_double, fit_weighted, stack_rows
from headstart.core.errors import ConfigError

__all__ = ["DASVM", "rows_entering", "rows_leaving"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def rows_entering(values_m: FloatArray, waiting_m: BoolArray, number: int) -> tuple[IntArray, IntArray]:
    """Return the waiting rows inside the margin nearest its positive and its negative edge, ``number`` of each at most.

    Examples
    --------
    >>> values = np.array([2.0, 0.9, 0.1, -0.2, -0.8, -3.0])
    >>> [rows.tolist() for rows in rows_entering(values, np.ones(6, dtype=bool), 1)]
    [[1], [4]]
    """
    above = np.flatnonzero(waiting_m & (values_m >= 0) & (values_m < 1))
    below = np.flatnonzero(waiting_m & (values_m < 0) & (values_m > -1))
    return (
        above[np.argsort(-values_m[above], kind="stable")][:number],
        below[np.argsort(values_m[below], kind="stable")][:number],
    )


def rows_leaving(
    values_n: FloatArray, staying_n: BoolArray, num_above: int, num_below: int, away_n: FloatArray | None = None
) -> IntArray:
    """Return the staying rows farthest from the boundary, a number of each side; of equal ones those with more ``away_n`` first.

    Values are equal where they agree to four decimals: the last rows of a class are all support vectors, at 1.

    Examples
    --------
    >>> rows_leaving(np.array([2.0, 0.5, -0.1, -4.0]), np.ones(4, dtype=bool), 1, 1).tolist()
    [0, 3]
    >>> rows_leaving(np.array([1.0, 1.000001, -1.0]), np.ones(3, dtype=bool), 1, 0, np.array([7.0, 5.0, 3.0])).tolist()
    [0]
    """
    away = np.zeros(len(values_n)) if away_n is None else away_n
    sides = np.flatnonzero(staying_n & (values_n >= 0)), np.flatnonzero(staying_n & (values_n < 0))
    return np.concatenate(
        [
            rows[np.lexsort((-away[rows], -np.abs(values_n[rows]).round(4)))][:number]
            for rows, number in zip(sides, (num_above, num_below), strict=True)
        ]
    )


class DASVM(DomainClassifier):
    """A support vector machine that moves from source rows to target rows, round by round.

    Its probabilities are softmax of decision values, not calibrated. After ``fit``: ``estimators_`` (one; more than
    two classes: one a class), ``num_rounds_`` and ``is_target_only_`` of each.

    Parameters
    ----------
    estimator : scikit-learn classifier with ``decision_function`` and ``sample_weight``, optional
        What learns; `SVC` with a Gaussian kernel, solved to 1e-6, when left out. A looser one lets the order of rows decide.
    share : float above 0, at most 1
        rho as a share of the target rows: how many may enter a side and round.
    max_rounds : int, at least 1
        Rounds at most; where they end the walk the last machine may still know source rows.
    first_weight : float above 0, at most 1
        c, the weight of a row that enters.
    growth_rounds : int, at least 1
        A, the rounds until it weighs as much as a source row.
    settled : float from 0 to 1
        beta, the share of target rows up to which so few enter or go out that the walk may end.

    Examples
    --------
    >>> source = np.linspace(-2.5, 2.5, 20)[:, None]
    >>> model = DASVM(SVC(kernel="linear")).fit(source, np.repeat(["no", "yes"], 10), source + 0.5)
    >>> model.predict([[-1.0], [3.0]]).tolist(), model.is_target_only_
    (['no', 'yes'], [True])
    """

    accepts_sparse = True

    def __init__(
        self,
        estimator: Any = None,
        share: float = 0.1,
        max_rounds: int = 100,
        first_weight: float = 0.25,
        growth_rounds: int = 4,
        settled: float = 0.03,
    ) -> None:
        self.estimator = estimator
        self.share = share
        self.max_rounds = max_rounds
        self.first_weight = first_weight
        self.growth_rounds = growth_rounds
        self.settled = settled

    def _learn(self, domains: Domains, codes_n: IntArray) -> None:
        check_number("DASVM", "share", self.share, 0.0, 1.0, low_included=False)
        check_number("DASVM", "first_weight", self.first_weight, 0.0, 1.0, low_included=False)
        check_number("DASVM", "settled", self.settled, 0.0, 1.0)
        check_count("DASVM", "max_rounds", self.max_rounds)
        check_count("DASVM", "growth_rounds", self.growth_rounds)
        if self.estimator is not None and not hasattr(self.estimator, "decision_function"):
            raise ConfigError(
                f"DASVM: estimator must have a decision_function, since rows are taken by their margin; "
                f"{type(self.estimator).__name__} has none. Choose SVC, or another linear or kernel classifier."
            )
        source_nd, target_md = as_double(domains.source_nd), as_double(domains.target_md)
        positives = [1] if len(self.classes_) == 2 else range(len(self.classes_))
        self.estimators_, self.num_rounds_, self.is_target_only_ = [], [], []
        for code in positives:
            trained, rounds, alone = self._walk(source_nd, codes_n == code, target_md)
            self.estimators_.append(trained)
            self.num_rounds_.append(rounds)
            self.is_target_only_.append(alone)

    def _fit_signs(self, rows: Any, positive: BoolArray, weights: FloatArray) -> Any:
        estimator = SVC(tol=1e-6) if self.estimator is None else self.estimator
        return fit_weighted("DASVM", estimator, rows, positive.astype(np.int64), weights)

    def _walk(self, source_nd: Any, positive_n: BoolArray, target_md: Any) -> tuple[Any, int, bool]:
        """Return the last machine of one class against the rest, its rounds, and whether the target alone trained it."""
        num_source, num_target = source_nd.shape[0], target_md.shape[0]
        number, few = max(1, round(self.share * num_target)), int(np.ceil(self.settled * num_target))
        staying = np.ones(num_source, dtype=bool)
        entered, given = np.full(num_target, -1), np.zeros(num_target, dtype=bool)
        trained = self._fit_signs(source_nd, positive_n, np.ones(num_source))
        away, rounds = _away(source_nd, target_md), 0
        for rounds in range(1, self.max_rounds + 1):
            values, before = trained.decision_function(target_md), staying.copy()
            above, below = rows_entering(values, entered < 0, number)
            turned = (entered >= 0) & (given != (values >= 0))
            num_entering = len(above) + len(below)
            from_above, from_below = (len(above), len(below)) if num_entering else (number, number)
            entered[turned] = -1
            entered[above], entered[below] = rounds, rounds
            given[above], given[below] = True, False
            gone = rows_leaving(trained.decision_function(source_nd), staying, from_above, from_below, away)
            staying[gone] = False
            inside = entered >= 0
            for side in (True, False):
                if not (staying & (positive_n == side)).any() and not (inside & (given == side)).any():
                    own = positive_n == side
                    staying[np.flatnonzero(before & own if (before & own).any() else own)[:1]] = True
            if (staying == before).all() and num_entering <= few and turned.sum() <= few:
                break
            ages = np.minimum(1.0, (rounds - entered[inside]) / self.growth_rounds)
            weights = np.concatenate(
                [np.ones(staying.sum()), self.first_weight + (1 - self.first_weight) * np.square(ages)]
            )
            rows = stack_rows(source_nd[np.flatnonzero(staying)], target_md[np.flatnonzero(inside)])
            trained = self._fit_signs(rows, np.concatenate([positive_n[staying], given[inside]]), weights)
        return trained, rounds, not staying.any()

    def decision_function(self, X: Any) -> FloatArray:
        """Return margins of target rows: one a row (above 0: the second class), or one a class."""
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        values = self._margins(self._check(getattr(X, "values_nd", X), reset=False))
        return values[:, 0] if len(self.classes_) == 2 else values

    def _margins(self, X: Any) -> FloatArray:
        rows = as_double(X)
        return np.stack([trained.decision_function(rows) for trained in self.estimators_], axis=1)

    def _probabilities(self, X: Any) -> FloatArray:
        values = self._margins(X)
        if len(self.classes_) == 2:
            values = np.concatenate([-values, values], axis=1)
        return np.asarray(softmax(values, axis=1))


def _away(source_nd: Any, target_md: Any) -> FloatArray:
    """Return squared distances of source rows from the mean of the target, up to a constant."""
    mean = np.asarray(target_md.mean(axis=0)).ravel()
    is_dense = isinstance(source_nd, np.ndarray)
    squares = np.square(source_nd).sum(axis=1) if is_dense else source_nd.multiply(source_nd).sum(axis=1)
    return np.asarray(np.asarray(squares).ravel() - 2 * np.asarray(source_nd @ mean).ravel())
