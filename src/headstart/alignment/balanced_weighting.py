"""Balanced weighting: one model, the source's and the target's mean losses mixed in a set proportion.

    min  (1 - gamma) / n  sum_source loss  +  gamma / l  sum_target loss  +  the estimator's own penalty

Source: Wu & Dietterich, "Improving SVM accuracy by training on auxiliary data sources", ICML 2004, as weights of
rows. Weights are (1 - gamma) (n + l) / n and gamma (n + l) / l, which sum to the number of rows, so that the penalty
means what it means without weights. gamma = 0 is the source alone, 1 the target alone, l / (n + l) plain pooling. Use
it when both domains' labels are right for the target and labelled target rows are few; choose gamma with `Fusion`. It
ignores unlabelled target rows, and which source rows fit the target.
Shapes: n source rows, l labelled target rows, d features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import Ridge

from headstart.alignment.aligner import Domains
from headstart.alignment.few_labels import FewLabelsClassifier, FewLabelsRegressor
from headstart.alignment.option_checks import check_number
from headstart.alignment.trained_classifier import (
    as_double,
    class_probabilities,
    fit_classifier,
    fit_weighted,
    stack_rows,
)

__all__ = ["BalancedWeighting", "BalancedWeightingRegressor", "balanced_weights"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def balanced_weights(num_source: int, num_target: int, gamma: float) -> FloatArray:
    """Return weights of source rows, then of target rows: mean 1, the target's part of their sum is ``gamma``.

    Without target rows all weight is the source's.

    Examples
    --------
    >>> balanced_weights(3, 1, 0.5).tolist()
    [0.6666666666666666, 0.6666666666666666, 0.6666666666666666, 2.0]
    """
    if not num_target:
        return np.ones(num_source)
    total = num_source + num_target
    parts = [(num_source, 1 - gamma), (num_target, gamma)]
    return np.concatenate([np.full(num, share * total / num) for num, share in parts])


class BalancedWeighting(FewLabelsClassifier):
    """A classifier trained on both domains, the target's mean loss with weight ``gamma``.

    Parameters
    ----------
    estimator : scikit-learn classifier with ``sample_weight`` and ``predict_proba``, optional
        What learns; logistic regression when left out.
    gamma : float from 0 to 1
        The target's part of the loss.

    Examples
    --------
    >>> source, target = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([[3.0], [5.0]])
    >>> model = BalancedWeighting(gamma=0.9).fit(source, [0, 0, 1, 1], target, target_labels=[0, 1])
    >>> model.predict([[2.0], [6.0]]).tolist()
    [0, 1]
    """

    accepts_sparse = True

    def __init__(self, estimator: Any = None, gamma: float = 0.5) -> None:
        self.estimator = estimator
        self.gamma = gamma

    def _learn(self, domains: Domains, codes_n: IntArray) -> None:
        gamma = check_number("BalancedWeighting", "gamma", self.gamma, 0.0, 1.0)
        target_ld, target_codes = self._labelled(domains)
        weights = balanced_weights(len(codes_n), len(target_codes), gamma)
        rows = stack_rows(as_double(domains.source_nd), target_ld)
        codes = np.concatenate([codes_n, target_codes])
        self.estimator_ = fit_classifier("BalancedWeighting", self.estimator, rows, codes, weights)

    def _probabilities(self, X: Any) -> FloatArray:
        return class_probabilities("BalancedWeighting", self.estimator_, as_double(X), len(self.classes_))


class BalancedWeightingRegressor(FewLabelsRegressor):
    """A regressor trained on both domains, the target's mean loss with weight ``gamma``.

    Parameters
    ----------
    estimator : scikit-learn regressor with ``sample_weight``, optional
        What learns; ridge regression when left out.
    gamma : float from 0 to 1
        The target's part of the loss.

    Examples
    --------
    >>> source, target = np.array([[0.0], [2.0]]), np.array([[0.0], [2.0]])
    >>> model = BalancedWeightingRegressor(Ridge(alpha=0.0), gamma=0.25)
    >>> model.fit(source, [0.0, 0.0], target, target_labels=[4.0, 4.0]).predict([[1.0]]).round(6).tolist()   # a quarter of 4
    [1.0]
    """

    accepts_sparse = True

    def __init__(self, estimator: Any = None, gamma: float = 0.5) -> None:
        self.estimator = estimator
        self.gamma = gamma

    def _learn(self, domains: Domains, values_n: npt.NDArray[np.floating[Any]]) -> None:
        gamma = check_number("BalancedWeightingRegressor", "gamma", self.gamma, 0.0, 1.0)
        target_ld, target_values = self._labelled(domains)
        weights = balanced_weights(len(values_n), len(target_values), gamma)
        rows = stack_rows(as_double(domains.source_nd), target_ld)
        values = np.concatenate([values_n, target_values])
        estimator = Ridge() if self.estimator is None else self.estimator
        self.estimator_ = fit_weighted("BalancedWeightingRegressor", estimator, rows, values, weights)

    def _estimate(self, X: Any) -> FloatArray:
        return np.asarray(self.estimator_.predict(as_double(X)), dtype=np.float64)
