"""Co-training: two classifiers label target rows for each other, from two views of the features or by two ways of learning.

    each round, until no target row is unlabelled:
        each classifier names the unlabelled rows it is surest of, a set number for each class
        those rows join one labelled set with the class they were given (named twice with different classes: they wait)
        both classifiers are trained on it, each on its view
    answer: the product of both classifiers' probabilities

Source: Blum & Mitchell, "Combining labeled and unlabeled data with co-training", COLT 1998 (labelled set:
the source). The paper draws a pool of 75 rows each round; here the pool is every unlabelled target row, so that
nothing is drawn. The number a class is named grows with its share of the source, as p and n do in the paper. Use it
when each of two groups of features suffices to tell the classes and, given the class, they say independent things
(image and caption); without ``views`` the columns are dealt out alternately, which helps where many features are redundant.
It ignores that class shares may differ in the target, and that two views that err together confirm each other.
Shapes: n source rows, m target rows, d features, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.alignment.aligner import DomainClassifier, Domains
from headstart.alignment.option_checks import check_count
from headstart.alignment.trained_classifier import as_double, class_probabilities, fit_classifier, stack_rows
from headstart.core.errors import ConfigError

__all__ = ["CoTraining", "name_rows", "product_of"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def product_of(*probabilities: FloatArray) -> FloatArray:
    """Return the normalised product of several classifiers' probabilities; equal shares where they exclude each other.

    Examples
    --------
    >>> product_of(np.array([[0.75, 0.25]]), np.array([[0.5, 0.5]])).tolist()
    [[0.75, 0.25]]
    """
    product = np.prod(np.stack(probabilities), axis=0)
    total = product.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, product / np.where(total > 0, total, 1.0), 1.0 / product.shape[1]))


def name_rows(probabilities_mk: FloatArray, num_named_k: IntArray) -> dict[int, int]:
    """Return, for the rows that are surest of each class among those that prefer it, row -> class.

    Examples
    --------
    >>> name_rows(np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]), np.array([1, 1]))
    {0: 0, 2: 1}
    """
    preferred = probabilities_mk.argmax(axis=1)
    named: dict[int, int] = {}
    for code, number in enumerate(num_named_k):
        rows = np.flatnonzero(preferred == code)
        order = rows[np.argsort(-probabilities_mk[rows, code], kind="stable")]
        named.update((int(row), code) for row in order[:number])
    return named


def agreed(first: dict[int, int], second: dict[int, int]) -> dict[int, int]:
    """Return what either named, without rows that they gave different classes.

    Examples
    --------
    >>> agreed({0: 1, 1: 0}, {1: 1, 2: 1})
    {0: 1, 2: 1}
    """
    return {row: code for row, code in {**first, **second}.items() if first.get(row, code) == code}


def named_each_round(codes_n: IntArray, num_classes: int, num_target: int, num_rounds: int) -> IntArray:
    """Return how many rows of each class a classifier names, so that two of them label the target in ``num_rounds``."""
    shares = np.bincount(codes_n, minlength=num_classes) / len(codes_n)
    return np.maximum(1, np.ceil(shares * num_target / (2 * num_rounds))).astype(np.int64)


class CoTraining(DomainClassifier):
    """Two classifiers that label target rows for each other.

    After ``fit``: ``estimators_`` (two), ``views_`` (two arrays of columns), ``target_codes_`` (the class each target
    row was given, a place in ``classes_``; -1: none).

    Parameters
    ----------
    estimator : scikit-learn classifier with ``predict_proba``, optional
        The first classifier; logistic regression when left out.
    second : scikit-learn classifier with ``predict_proba``, optional
        The second; like the first when left out.
    views : pair of sequences of column numbers, optional
        What each classifier sees. Left out: every column where ``second`` is given, else every other column.
    num_rounds : int, at least 1
        Rounds in which the two could label the whole target; they stop then, or when no row is left.

    Examples
    --------
    >>> source, target = np.array([[-1.0, -1.0], [-2.0, -1.0], [1.0, 1.0], [2.0, 1.0]]), np.array([[-1.0, -3.0], [1.0, 3.0]])
    >>> model = CoTraining(views=([0], [1])).fit(source, ["a", "a", "b", "b"], target)
    >>> model.predict([[-1.0, -2.0], [1.0, 2.0]]).tolist()
    ['a', 'b']
    """

    def __init__(
        self,
        estimator: Any = None,
        second: Any = None,
        views: tuple[Sequence[int], Sequence[int]] | None = None,
        num_rounds: int = 10,
    ) -> None:
        self.estimator = estimator
        self.second = second
        self.views = views
        self.num_rounds = num_rounds

    def _learn(self, domains: Domains, codes_n: IntArray) -> None:
        num_rounds = check_count("CoTraining", "num_rounds", self.num_rounds)
        source_nd, target_md = as_double(domains.source_nd), as_double(domains.target_md)
        self.views_ = self._columns(source_nd.shape[1])
        self.target_codes_ = np.full(len(target_md), -1, dtype=np.int64)
        number = named_each_round(codes_n, len(self.classes_), len(target_md), num_rounds)
        self._train(source_nd, target_md, codes_n)
        for _ in range(num_rounds):
            waiting = np.flatnonzero(self.target_codes_ < 0)
            if not len(waiting):
                break
            first, second = (name_rows(part, number) for part in self._each(target_md[waiting]))
            for row, code in agreed(first, second).items():
                self.target_codes_[waiting[row]] = code
            self._train(source_nd, target_md, codes_n)

    def _columns(self, num_features: int) -> list[IntArray]:
        every = np.arange(num_features)
        if self.views is None:
            alternate = self.second is None and num_features > 1
            return [every[::2], every[1::2]] if alternate else [every, every]
        views = [np.asarray(view) for view in self.views]
        if len(views) != 2 or any(
            view.ndim != 1 or view.dtype.kind not in "iu" or not len(view) or (view < 0).any()
            or (view >= num_features).any() for view in views
        ):  # fmt: skip
            raise ConfigError(
                f"CoTraining: views must be two lists of column numbers from 0 to {num_features - 1}; got {self.views!r}."
            )
        return views

    def _train(self, source_nd: FloatArray, target_md: FloatArray, codes_n: IntArray) -> None:
        known = self.target_codes_ >= 0
        rows = stack_rows(source_nd, target_md[known])
        codes = np.concatenate([codes_n, self.target_codes_[known]])
        learners = [self.estimator, self.estimator if self.second is None else self.second]
        self.estimators_ = [
            fit_classifier("CoTraining", learner, rows[:, view], codes)
            for learner, view in zip(learners, self.views_, strict=True)
        ]

    def _each(self, rows: FloatArray) -> list[FloatArray]:
        return [
            class_probabilities("CoTraining", trained, rows[:, view], len(self.classes_))
            for trained, view in zip(self.estimators_, self.views_, strict=True)
        ]

    def _probabilities(self, X: Any) -> FloatArray:
        return product_of(*self._each(as_double(X)))
