"""TrAdaBoost: boosting that trusts missed target rows more and missed source rows less, with a few labelled target rows.

Classification, N rounds, rows of both domains together, all weights 1 at first; h_t is trained on the weights w:

    e_t = sum_target w [h_t missed] / sum_target w                     b = 1 / (1 + sqrt(2 ln n / N))
    source row:  w <- w b^[h_t missed]           target row:  w <- w exp(a_t [h_t missed])
    a_t = ln((1 - e_t) / e_t) + ln(k - 1)        answer: vote of the rounds from N/2 on, h_t with weight a_t

Source: Dai, Yang, Xue & Yu, "Boosting for transfer learning", ICML 2007, for two classes. More classes as
SAMME does it
(Zhu, Zou, Rosset & Hastie 2009): the term ln(k - 1), which is 0 for two classes, makes chance the point where a_t is 0. Where the
paper asks for e_t below chance, a worse round has no vote and leaves the target's weights; e_t = 0 counts as half a row. Read
beside the adapt package 0.4.4, which counts errors by probabilities and takes e / (2 - e) for the paper's e / (1 - e).
Use it when some source rows are right for the target and others are wrong, and you have a few labelled target rows.
It ignores unlabelled target rows; with a handful of labels all source weight may drain away within the rounds.
Shapes: n source rows, l labelled target rows, d features, k classes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.tree import DecisionTreeRegressor

from headstart.alignment.aligner import Domains
from headstart.alignment.few_labels import FewLabelsClassifier, FewLabelsRegressor
from headstart.alignment.option_checks import check_count
from headstart.alignment.trained_classifier import as_double, deal_folds, fit_classifier, fit_weighted, stack_rows

__all__ = ["TrAdaBoost", "TrAdaBoostR2"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class TrAdaBoost(FewLabelsClassifier):
    """TrAdaBoost for any number of classes.

    After ``fit``: ``estimators_`` and ``votes_`` (the rounds that vote, and a_t), ``source_weights_`` and
    ``target_weights_`` (the rows' final weights, together summing to 1; target rows are the labelled ones),
    ``errors_`` (e_t of every round).

    Parameters
    ----------
    estimator : scikit-learn classifier that takes ``sample_weight``, optional
        What is boosted; logistic regression when left out.
    num_rounds : int, at least 1
        N.

    Examples
    --------
    >>> source, target = np.array([[-1.0], [1.0], [2.0], [3.0]]), np.array([[1.0], [2.0], [5.0]])
    >>> model = TrAdaBoost(num_rounds=4).fit(source, [0, 0, 1, 1], target, target_labels=[0, None, 1])
    >>> model.predict([[-2.0], [6.0]]).tolist(), model.num_target_labels_
    ([0, 1], 2)
    """

    accepts_sparse = True

    def __init__(self, estimator: Any = None, num_rounds: int = 20) -> None:
        self.estimator = estimator
        self.num_rounds = num_rounds

    def _learn(self, domains: Domains, codes_n: IntArray) -> None:
        num_rounds = check_count("TrAdaBoost", "num_rounds", self.num_rounds)
        target_ld, target_codes = self._labelled(domains)
        source_nd, num_source = as_double(domains.source_nd), len(codes_n)
        self.errors_: list[float] = []
        if not len(target_codes):
            self.estimators_ = [fit_classifier("TrAdaBoost", self.estimator, source_nd, codes_n)]
            self.votes_ = np.ones(1)
            self.source_weights_, self.target_weights_ = np.full(num_source, 1 / num_source), np.empty(0)
            return
        rows, codes = stack_rows(source_nd, target_ld), np.concatenate([codes_n, target_codes])
        log_beta = -np.log1p(np.sqrt(2 * np.log(num_source) / num_rounds))
        log_weights, trained, votes = np.zeros(len(codes)), [], []
        for _ in range(num_rounds):
            weights = _shares(log_weights)
            trained.append(fit_classifier("TrAdaBoost", self.estimator, rows, codes, weights * len(codes)))
            missed = trained[-1].predict(rows) != codes
            error = float(weights[num_source:] @ missed[num_source:] / weights[num_source:].sum())
            self.errors_.append(error)
            votes.append(self._vote(error, len(target_codes)))
            log_weights[:num_source] += log_beta * missed[:num_source]
            log_weights[num_source:] += votes[-1] * missed[num_source:]
        first = -(-num_rounds // 2) - 1  # round N/2, rounded up, counted from 1
        self.estimators_, self.votes_ = trained[first:], np.array(votes[first:])
        if not self.votes_.any():
            self.votes_ = np.ones(len(self.votes_))
        weights = _shares(log_weights)
        self.source_weights_, self.target_weights_ = weights[:num_source], weights[num_source:]

    def _vote(self, error: float, num_labelled: int) -> float:
        floor = 1 / (2 * num_labelled)
        error = min(max(error, floor), 1 - floor)
        return max(0.0, float(np.log((1 - error) / error) + np.log(len(self.classes_) - 1)))

    def _probabilities(self, X: Any) -> FloatArray:
        """Return each class's share of the votes."""
        rows, every = as_double(X), np.arange(X.shape[0])
        shares = np.zeros((X.shape[0], len(self.classes_)))
        for trained, vote in zip(self.estimators_, self.votes_, strict=True):
            shares[every, trained.predict(rows)] += vote
        return np.asarray(shares / self.votes_.sum())


def _shares(log_weights: FloatArray) -> FloatArray:
    weights = np.exp(log_weights - log_weights.max())
    return np.asarray(weights / weights.sum())


class TrAdaBoostR2(FewLabelsRegressor):
    """Two-stage TrAdaBoost.R2: regression by boosting the target rows, at a source weight chosen by cross-validation.

    Stage t of S trains AdaBoost.R2' at weights w_t and takes its error on held-out target rows; then one learner is
    trained on w_t, and source rows lose weight by their error, ``w <- w b^e`` with ``e = |y - h(x)| / max |y -
    h(x)|`` over both domains, where b brings the target's total weight to ``l/(n+l) + t/(S-1) (1 - l/(n+l))``: equal
    rows at first, the target alone at last. The stage with the least error is trained on all rows. AdaBoost.R2' is
    AdaBoost.R2 (Drucker 1997, linear loss) with the source's weights left as they are, so that the target's keep
    their sum.

    Source: Pardoe & Stone, "Boosting for regression transfer", ICML 2010. Compared with the adapt package 0.4.4: the
    source's weights after a stage, the scaling of the target's in AdaBoost.R2' and the weighted median are the same. It
    differs where it leaves the paper: it begins the shares at stage 0, so that its first stage changes nothing, reweighs
    by the boosted regressor instead of one learner, chooses the stage by one learner instead of the boosted regressor,
    and takes e / (2 - e) for e / (1 - e). Use it when the source's values are off for part of its rows and you have some
    target values (ten or more: they are cross-validated). With one target value the first stage (equal rows) is taken.
    It ignores unlabelled target rows.
    After ``fit``: ``stage_errors_`` (mean squared, held out), ``source_share_`` (the source's part of the weight in
    the stage taken), ``estimators_``, ``votes_``.

    Parameters
    ----------
    estimator : scikit-learn regressor that takes ``sample_weight``, optional
        What is boosted; a regression tree of depth 4 when left out.
    num_stages : int, at least 1
        S, weights of the source that are tried.
    num_rounds : int, at least 1
        Rounds of boosting, at most; a round with an error of one half or more ends it.
    num_folds : int, at least 2
        Folds of the target rows that choose the stage.

    Examples
    --------
    >>> source, target = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([[0.0], [3.0]])
    >>> model = TrAdaBoostR2().fit(source, [0.0, 0.0, 4.0, 4.0], target)          # no target values: boosting on the source
    >>> model.predict([[0.0], [3.0]]).tolist(), model.num_target_labels_
    ([0.0, 4.0], 0)
    """

    fit_only: ClassVar[frozenset[str]] = frozenset({"stage_errors_"})

    accepts_sparse = True

    def __init__(self, estimator: Any = None, num_stages: int = 10, num_rounds: int = 10, num_folds: int = 5) -> None:
        self.estimator = estimator
        self.num_stages = num_stages
        self.num_rounds = num_rounds
        self.num_folds = num_folds

    def _learn(self, domains: Domains, values_n: npt.NDArray[np.floating[Any]]) -> None:
        num_stages = check_count("TrAdaBoostR2", "num_stages", self.num_stages)
        check_count("TrAdaBoostR2", "num_rounds", self.num_rounds)
        num_folds = check_count("TrAdaBoostR2", "num_folds", self.num_folds, least=2)
        target_ld, target_values = self._labelled(domains)
        num_source, num_labelled = len(values_n), len(target_values)
        rows = stack_rows(as_double(domains.source_nd), target_ld)
        values = np.concatenate([values_n, target_values])
        weights = np.full(len(values), 1 / len(values))
        boosted = num_source if num_labelled else 0
        stages = [weights]
        if num_labelled > 1:
            folds = deal_folds(target_values, min(num_folds, num_labelled))
            for stage in range(1, num_stages):
                stages.append(self._lean(rows, values, stages[-1], num_source, stage / (num_stages - 1)))
            errors = [self._held_out(rows, values, stage, num_source, folds) for stage in stages]
        else:
            errors = [float("nan")]
        self.stage_errors_ = np.array(errors)
        weights = stages[0 if np.isnan(errors[0]) else int(np.argmin(errors))]
        self.source_share_ = float(weights[:num_source].sum())
        self.estimators_, self.votes_ = self._boost(rows, values, weights, boosted)

    def _fit_one(self, rows: Any, values: FloatArray, weights: FloatArray) -> Any:
        estimator = DecisionTreeRegressor(max_depth=4, random_state=0) if self.estimator is None else self.estimator
        return fit_weighted("TrAdaBoostR2", estimator, rows, values, weights * len(weights))

    def _boost(self, rows: Any, values: FloatArray, weights: FloatArray, first: int) -> tuple[list[Any], FloatArray]:
        """Return AdaBoost.R2's regressors and votes; weights of rows before ``first`` stay."""
        weights = weights / weights.sum()
        trained: list[Any] = []
        votes: list[float] = []
        total = weights[first:].sum()
        for _ in range(self.num_rounds):
            one = self._fit_one(rows, values, weights)
            gaps = np.abs(one.predict(rows) - values)
            counted = weights > 0
            largest = float(gaps[counted].max())
            losses = np.where(counted, gaps / largest, 0.0) if largest > 0 else np.zeros(len(gaps))
            error = float(weights @ losses)
            if error >= 0.5 and trained:
                break
            trained.append(one)
            votes.append(float(np.log((1 - error) / error)) if 0 < error < 0.5 else 1.0)
            if not 0 < error < 0.5:
                if error == 0:  # nothing left to learn: this one answers alone
                    trained, votes = [one], [1.0]
                break
            moved = weights[first:] * (error / (1 - error)) ** (1 - losses[first:])
            weights = np.concatenate([weights[:first], moved * (total / moved.sum())])
        return trained, np.array(votes)

    def _held_out(
        self, rows: Any, values: FloatArray, weights: FloatArray, num_source: int, folds_l: IntArray
    ) -> float:
        """Return the mean squared error on target rows, each predicted by boosting that has not seen it."""
        errors = np.empty(len(folds_l))
        for fold in np.unique(folds_l):
            held = np.concatenate([np.zeros(num_source, dtype=bool), folds_l == fold])
            trained = self._boost(rows[np.flatnonzero(~held)], values[~held], weights[~held], num_source)
            errors[folds_l == fold] = weighted_median(*trained, rows[np.flatnonzero(held)]) - values[held]
        return float(np.square(errors).mean())

    def _lean(self, rows: Any, values: FloatArray, weights: FloatArray, num_source: int, step: float) -> FloatArray:
        """Return the next stage's weights: source rows lose by their error until the target has its share."""
        source, target = weights[:num_source], weights[num_source:]
        if step >= 1:
            return np.concatenate([np.zeros(num_source), target / target.sum()])
        gaps = np.abs(self._fit_one(rows, values, weights).predict(rows) - values)
        losses = gaps[:num_source] / max(float(gaps.max()), np.finfo(float).tiny)
        share = len(target) / len(values)
        goal = share + step * (1 - share)
        wanted = target.sum() * (1 - goal) / goal
        low, high = -700.0, 0.0
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if source @ np.exp(middle * losses) < wanted else (low, middle)
        leaned = np.concatenate([source * np.exp(high * losses), target])
        return np.asarray(leaned / leaned.sum())

    def _estimate(self, X: Any) -> FloatArray:
        return weighted_median(self.estimators_, self.votes_, as_double(X))


def weighted_median(trained: list[Any], votes: FloatArray, rows: Any) -> FloatArray:
    """Return, for each row, the smallest prediction that has at least half the votes at or below it."""
    predictions = np.stack([one.predict(rows) for one in trained])
    order = predictions.argsort(axis=0, kind="stable")
    reached = np.cumsum(votes[order], axis=0) >= 0.5 * votes.sum()
    chosen = order[reached.argmax(axis=0), np.arange(predictions.shape[1])]
    return np.asarray(predictions[chosen, np.arange(predictions.shape[1])])
