"""Gradual co-training: co-training for domain adaptation, where both features and target rows come in by and by.

    round t of T, classes of target rows so far known from both classifiers' probabilities p:
        a feature scores  |corr_S(x_j, y)| - |corr_S(x_j, y) - corr_T(x_j, p)|       mean over classes (0/1 indicators)
        the best share of the features stays, ``first_share`` at first, ``last_share`` at last
        they are dealt out into two views of equal score: 1 4 5 8 .. and 2 3 6 7 ..
        one classifier a view is trained on the source and the target rows labelled so far; each names its surest
        rows, as in `co_training`
    answer: the product of both classifiers' probabilities, on all features

After Chen, Weinberger & Blitzer, "Co-training for domain adaptation", NeurIPS 2011: their three ideas (features
compatible with both domains first, an artificial split into two views, target rows by and by) with any classifier and
without their one optimisation over two weight vectors, which is `CODA`. Use it with many features of which some mean the
same in both domains and others do not (words, sensors).
It ignores interactions of features, and what co-training ignores: class shares that differ, views that err together.
Shapes: n source rows, m target rows, d features, k classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.alignment.aligner import DomainClassifier, Domains
from headstart.alignment.co_training import agreed, name_rows, named_each_round, product_of
from headstart.alignment.option_checks import check_count, check_number
from headstart.alignment.trained_classifier import as_double, class_probabilities, fit_classifier

__all__ = ["GradualCoTraining", "class_correlations", "feature_scores"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def class_correlations(rows_nd: Any, probabilities_nk: FloatArray) -> FloatArray:
    """Return the correlation (d, k) of each feature with each class's probability; 0 where one of them is constant.

    Rows may be a CSR matrix; it is never filled.

    Examples
    --------
    >>> class_correlations(np.array([[0.0, 7.0], [1.0, 7.0]]), np.eye(2)).round(6).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    classes = probabilities_nk - probabilities_nk.mean(axis=0)
    size = np.linalg.norm(classes, axis=0)
    size[size <= 1e-12] = np.inf
    if not isinstance(rows_nd, np.ndarray):
        mean = np.asarray(rows_nd.mean(axis=0)).ravel()
        squares = np.asarray(rows_nd.multiply(rows_nd).sum(axis=0)).ravel()
        left = squares - rows_nd.shape[0] * mean**2
        spread = np.where(left > 1e-12 * squares, np.sqrt(np.maximum(left, 0.0)), np.inf)
        return np.asarray(rows_nd.T @ classes / spread[:, None] / size)  # classes have mean 0: rows need none taken off
    rows = rows_nd - rows_nd.mean(axis=0)
    spread = np.linalg.norm(rows, axis=0)
    spread[spread <= 1e-12 * np.abs(rows_nd).max(axis=0, initial=0.0) * np.sqrt(len(rows))] = np.inf
    return np.asarray(rows.T @ classes / spread[:, None] / size)


def feature_scores(
    source_nd: FloatArray, source_nk: FloatArray, target_md: FloatArray, target_mk: FloatArray
) -> FloatArray:
    """Return for each feature how much it says of the class in the source, less how differently it says so in the target.

    Examples
    --------
    >>> rows, classes = np.array([[0.0, 0.0], [1.0, 1.0]]), np.eye(2)
    >>> feature_scores(rows, classes, rows * [1.0, -1.0], classes).round(6).tolist()      # the second changes its sign
    [1.0, -1.0]
    """
    source, target = class_correlations(source_nd, source_nk), class_correlations(target_md, target_mk)
    return np.asarray((np.abs(source) - np.abs(source - target)).mean(axis=1))


class GradualCoTraining(DomainClassifier):
    """Co-training that begins with the features both domains agree on.

    After ``fit``: ``estimators_`` and ``views_`` (two each), ``features_`` (columns of the first round),
    ``target_codes_`` (the class each target row was given; -1: none).

    Parameters
    ----------
    estimator : scikit-learn classifier with ``predict_proba``, optional
        What learns on each view; logistic regression when left out.
    num_rounds : int, at least 1
        T.
    first_share : float above 0, at most 1
        Share of the features in the first round.
    last_share : float above 0, at most 1
        Share of the features at the end.

    Examples
    --------
    >>> source = np.array([[-2.0, -1.0], [-1.0, -2.0], [1.0, 2.0], [2.0, 1.0]])
    >>> model = GradualCoTraining(num_rounds=2).fit(source, ["a", "a", "b", "b"], source + 0.1)
    >>> model.predict([[-3.0, -3.0], [3.0, 3.0]]).tolist()
    ['a', 'b']
    """

    def __init__(
        self, estimator: Any = None, num_rounds: int = 10, first_share: float = 0.5, last_share: float = 1.0
    ) -> None:
        self.estimator = estimator
        self.num_rounds = num_rounds
        self.first_share = first_share
        self.last_share = last_share

    def _learn(self, domains: Domains, codes_n: IntArray) -> None:
        who = "GradualCoTraining"
        num_rounds = check_count(who, "num_rounds", self.num_rounds)
        first = check_number(who, "first_share", self.first_share, 0.0, 1.0, low_included=False)
        last = check_number(who, "last_share", self.last_share, 0.0, 1.0, low_included=False)
        source_nd, target_md = as_double(domains.source_nd), as_double(domains.target_md)
        num_classes = len(self.classes_)
        source_nk = np.eye(num_classes)[codes_n]
        number = named_each_round(codes_n, num_classes, len(target_md), num_rounds)
        self.target_codes_ = np.full(len(target_md), -1, dtype=np.int64)
        plain = fit_classifier(who, self.estimator, source_nd, codes_n)
        probabilities = class_probabilities(who, plain, target_md, num_classes)
        for step in range(num_rounds + 1):
            scores = feature_scores(source_nd, source_nk, target_md, probabilities)
            self._train(source_nd, target_md, codes_n, scores, first + (last - first) * step / num_rounds)
            if step == 0:
                self.features_ = np.unique(np.concatenate(self.views_))
            waiting = np.flatnonzero(self.target_codes_ < 0)
            if step < num_rounds and len(waiting):
                one, other = (name_rows(part, number) for part in self._each(target_md[waiting]))
                for row, code in agreed(one, other).items():
                    self.target_codes_[waiting[row]] = code
            probabilities = product_of(*self._each(target_md))
            known = self.target_codes_ >= 0
            probabilities[known] = np.eye(num_classes)[self.target_codes_[known]]

    def _train(
        self, source_nd: FloatArray, target_md: FloatArray, codes_n: IntArray, scores_d: FloatArray, share: float
    ) -> None:
        """Split the best features into two views and train one classifier on each."""
        known = self.target_codes_ >= 0
        rows = np.concatenate([source_nd, target_md[known]])
        codes = np.concatenate([codes_n, self.target_codes_[known]])
        self.views_ = split_views(scores_d, share)
        self.estimators_ = [
            fit_classifier("GradualCoTraining", self.estimator, rows[:, view], codes) for view in self.views_
        ]

    def _each(self, rows: FloatArray) -> list[FloatArray]:
        return [
            class_probabilities("GradualCoTraining", trained, rows[:, view], len(self.classes_))
            for trained, view in zip(self.estimators_, self.views_, strict=True)
        ]

    def _probabilities(self, X: Any) -> FloatArray:
        return product_of(*self._each(as_double(X)))


def split_views(scores_d: FloatArray, share: float) -> list[IntArray]:
    """Return two views of the best features, dealt out 1 4 5 8 .. and 2 3 6 7 ..; one feature is both views.

    Examples
    --------
    >>> [view.tolist() for view in split_views(np.array([0.9, 0.1, 0.8, 0.7, 0.6]), 0.8)]
    [[0, 4], [2, 3]]
    """
    number = min(len(scores_d), max(2, round(share * len(scores_d))))
    best = np.argsort(-scores_d, kind="stable")[:number]
    if number == 1:
        return [best, best]
    turn = np.isin(np.arange(number) % 4, [0, 3])
    return [np.sort(best[turn]), np.sort(best[~turn])]
