"""Democratic co-learning: several ways of learning vote on target rows, and the outvoted learn from the majority.

    w_i = middle of the 95 % interval [l_i, h_i] of learner i's accuracy on held-out source rows
    a target row gets the class with most votes where the sum of its voters' w exceeds every other class's
    it is offered to each learner that answered otherwise; learner i takes its offers L' where they should help:
        q_i  = |L_i| (1 - 2 e_i / |L_i|)^2                   e' = (1 - mean of l over the learners) |L'|
        q'_i = |L_i + L'| (1 - 2 (e_i + e') / |L_i + L'|)^2   takes them where q'_i > q_i; then e_i <- e_i + e'
    until nobody takes anything.  Answer: each class scores (g + 1/2) / (g + 1) times the mean w of the g learners that choose it,
    learners with w <= 1/2 left out

Source: Zhou & Goldman, "Democratic co-learning", ICTAI 2004. The vote, q, q' and e' were compared with the program of
KemalTy/DemocraticCoLearning (by its words a changed one: it takes every offer, and means of confidences for intervals of
accuracy); the authors' own is not public. Two readings of ours, beside the mean of l over all learners in e': the class is the
one with most votes (a tie: with most weight; the program passes over rows without a strict majority), and q counts |L| with
repetition, since a row may be offered again.
Use it when there are no natural views but learners of different kinds; the source is the labelled set.
It ignores that accuracy on the source is not accuracy on the target: e' is too small under shift, and too many rows
are taken.
Shapes: n source rows, m target rows, k classes, c learners.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from headstart.alignment.aligner import DomainClassifier, Domains
from headstart.alignment.option_checks import check_count
from headstart.alignment.trained_classifier import as_double, deal_folds, fit_classifier
from headstart.core.errors import ConfigError

__all__ = ["DemocraticCoLearning", "accuracy_interval", "majority_classes"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def accuracy_interval(num_right: int, num_rows: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of an accuracy.

    Examples
    --------
    >>> low, high = accuracy_interval(50, 100)
    >>> round(low, 4), round(high, 4)
    (0.4038, 0.5962)
    """
    z, share = 1.959963984540054, num_right / num_rows
    middle = (share + z**2 / (2 * num_rows)) / (1 + z**2 / num_rows)
    half = z / (1 + z**2 / num_rows) * np.sqrt(share * (1 - share) / num_rows + z**2 / (4 * num_rows**2))
    return float(middle - half), float(middle + half)


def majority_classes(votes_cm: IntArray, weights_c: FloatArray, num_classes: int) -> IntArray:
    """Return each row's class by number of votes, where its voters also weigh more than any other class's; else -1.

    Examples
    --------
    >>> majority_classes(np.array([[0, 0], [0, 1], [1, 1]]), np.array([0.5, 0.5, 0.9]), 2).tolist()
    [0, 1]
    >>> majority_classes(np.array([[0], [0], [1]]), np.array([0.5, 0.5, 1.1]), 2).tolist()      # two votes, too light
    [-1]
    """
    chosen = votes_cm[:, :, None] == np.arange(num_classes)
    numbers, weights = chosen.sum(axis=0), np.einsum("c,cmk->mk", weights_c, chosen)
    most = (numbers + weights / (1 + weights_c.sum())).argmax(axis=1)
    others = weights.copy()
    others[np.arange(len(most)), most] = -np.inf
    return np.where(weights[np.arange(len(most)), most] > others.max(axis=1), most, -1)


class DemocraticCoLearning(DomainClassifier):
    """Learners of different kinds that vote on target rows and learn from each other.

    After ``fit``: ``estimators_``, ``learner_weights_`` (w), ``num_taken_`` (target rows each learner took, with
    repetition).

    Parameters
    ----------
    estimators : sequence of at least two scikit-learn classifiers, optional
        The learners; left out: logistic regression, Gaussian naive Bayes and three nearest neighbours (the paper has
        naive Bayes, a decision tree and three nearest neighbours).
    num_folds : int, at least 2
        Folds of the source for the accuracies.
    max_rounds : int, at least 1
        Rounds at most.

    Examples
    --------
    >>> source = np.array([[-3.0], [-2.0], [-1.0], [1.0], [2.0], [3.0]])
    >>> model = DemocraticCoLearning(num_folds=3).fit(source, ["a"] * 3 + ["b"] * 3, np.array([[-2.5], [2.5]]))
    >>> model.predict([[-2.0], [2.0]]).tolist()
    ['a', 'b']
    """

    def __init__(self, estimators: Sequence[Any] | None = None, num_folds: int = 10, max_rounds: int = 10) -> None:
        self.estimators = estimators
        self.num_folds = num_folds
        self.max_rounds = max_rounds

    def _learn(self, domains: Domains, codes_n: IntArray) -> None:
        num_folds = check_count("DemocraticCoLearning", "num_folds", self.num_folds, least=2)
        max_rounds = check_count("DemocraticCoLearning", "max_rounds", self.max_rounds)
        source_nd, target_md = as_double(domains.source_nd), as_double(domains.target_md)
        learners = self._learners(len(codes_n))
        intervals = [self._interval(learner, source_nd, codes_n, num_folds) for learner in learners]
        lowest = float(np.mean([low for low, _ in intervals]))
        self.learner_weights_ = np.array([(low + high) / 2 for low, high in intervals])
        sets: list[list[tuple[int, int]]] = [[] for _ in learners]
        errors = [0.0] * len(learners)
        self.estimators_ = [fit_classifier("DemocraticCoLearning", one, source_nd, codes_n) for one in learners]
        for _ in range(max_rounds):
            votes = np.stack([one.predict(target_md) for one in self.estimators_])
            classes = majority_classes(votes, self.learner_weights_, len(self.classes_))
            changed = False
            for place, own in enumerate(votes):
                offered = np.flatnonzero((classes >= 0) & (classes != own))
                size, new_error = len(codes_n) + len(sets[place]), (1 - lowest) * len(offered)
                if len(offered) and _worth(size + len(offered), errors[place] + new_error) > _worth(
                    size, errors[place]
                ):
                    sets[place] += [(int(row), int(classes[row])) for row in offered]
                    errors[place] += new_error
                    changed = True
            if not changed:
                break
            self.estimators_ = [
                _fit_on(one, source_nd, codes_n, target_md, taken) for one, taken in zip(learners, sets, strict=True)
            ]
        self.num_taken_ = [len(taken) for taken in sets]

    def _learners(self, num_source: int) -> list[Any]:
        if self.estimators is None:
            return [LogisticRegression(max_iter=1000), GaussianNB(), KNeighborsClassifier(min(3, num_source))]
        if len(self.estimators) < 2:
            raise ConfigError(
                f"DemocraticCoLearning: estimators must hold at least two learners; got {len(self.estimators)}."
            )
        return list(self.estimators)

    def _interval(self, learner: Any, source_nd: FloatArray, codes_n: IntArray, num_folds: int) -> tuple[float, float]:
        folds = deal_folds(codes_n, min(num_folds, len(codes_n)))
        num_right = 0
        for fold in np.unique(folds):
            held = folds == fold
            learner_fold = self._shrunk(learner, int((~held).sum()))
            trained = fit_classifier("DemocraticCoLearning", learner_fold, source_nd[~held], codes_n[~held])
            num_right += int((trained.predict(source_nd[held]) == codes_n[held]).sum())
        return accuracy_interval(num_right, len(codes_n))

    def _shrunk(self, learner: Any, num_rows: int) -> Any:
        """Ask a default nearest-neighbour learner for no more neighbours than there are rows."""
        if self.estimators is None and isinstance(learner, KNeighborsClassifier):
            return KNeighborsClassifier(min(3, num_rows))
        return learner

    def _probabilities(self, X: Any) -> FloatArray:
        """Return each class's score over the sum of scores."""
        votes = np.stack([one.predict(as_double(X)) for one in self.estimators_])
        trusted = self.learner_weights_ > 0.5
        if not trusted.any():
            trusted = np.ones(len(votes), dtype=bool)
        chosen = votes[trusted][:, :, None] == np.arange(len(self.classes_))
        size = chosen.sum(axis=0)
        weight = np.einsum("c,cmk->mk", self.learner_weights_[trusted], chosen)
        scores = np.where(size > 0, (size + 0.5) / (size + 1) * weight / np.maximum(size, 1), 0.0)
        return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def _worth(size: float, error: float) -> float:
    """Return q: what a labelled set of ``size`` rows with ``error`` wrong ones is worth; 0 where half or more are wrong."""
    return float(size * max(0.0, 1 - 2 * error / size) ** 2)


def _fit_on(
    learner: Any, source_nd: FloatArray, codes_n: IntArray, target_md: FloatArray, taken: list[tuple[int, int]]
) -> Any:
    places = np.array([row for row, _ in taken], dtype=np.int64)
    codes = np.concatenate([codes_n, np.array([code for _, code in taken], dtype=np.int64)])
    return fit_classifier("DemocraticCoLearning", learner, np.concatenate([source_nd, target_md[places]]), codes)
