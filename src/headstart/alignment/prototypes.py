"""Prototypes: one mean a class, from the source, that moves to the target's rows.

    p(k | x) ~ exp(-|x - c_k|^2 / (2 s^2))
    round:   c_k <- (prior_rows mu_k + sum_target p(k | x) x) / (prior_rows + sum_target p(k | x))
    mu_k: the source's mean;  s^2: mean squared deviation of a source row's feature from its class's mean

Rounds of expectation-maximisation for equal spherical Gaussians (Dempster, Laird & Rubin 1977) that start from the
source's class means and are drawn back to them as by ``prior_rows`` rows each; the nearest-mean classifier is
``num_rounds=0``.
Use it when classes are compact and shift by less than half their distance; it is fast, and needs only k means of the
source.
It ignores the classes' shapes and shares. The probabilities are sharp where features are many: do not read them as
confidence.
Shapes: n source rows, m target rows, d features, k classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from headstart.alignment.aligner import DomainClassifier, Domains
from headstart.alignment.option_checks import check_count, check_number
from headstart.alignment.trained_classifier import as_double

__all__ = ["Prototypes", "class_means"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def class_means(rows_nd: FloatArray, codes_n: IntArray, num_classes: int) -> FloatArray:
    """Return the mean row of each class.

    Examples
    --------
    >>> class_means(np.array([[1.0], [3.0], [7.0]]), np.array([0, 0, 1]), 2).tolist()
    [[2.0], [7.0]]
    """
    return np.stack([rows_nd[codes_n == code].mean(axis=0) for code in range(num_classes)])


class Prototypes(DomainClassifier):
    """Nearest class mean, the means moved to the target's rows.

    After ``fit``: ``prototypes_`` and ``source_prototypes_`` (k, d), ``variance_`` (s^2).

    Parameters
    ----------
    num_rounds : int, at least 0
        Rounds of moving; 0 keeps the source's means.
    prior_rows : float, at least 0
        How many rows the source's mean of a class is worth.

    Examples
    --------
    >>> source, target = np.array([[0.0], [1.0], [4.0], [5.0]]), np.array([[2.0], [2.1], [6.0], [6.1]])
    >>> Prototypes(prior_rows=0.0).fit(source, ["a", "a", "b", "b"], target).prototypes_.round(2).tolist()
    [[2.05], [6.05]]
    """

    def __init__(self, num_rounds: int = 10, prior_rows: float = 1.0) -> None:
        self.num_rounds = num_rounds
        self.prior_rows = prior_rows

    def _learn(self, domains: Domains, codes_n: IntArray) -> None:
        num_rounds = check_count("Prototypes", "num_rounds", self.num_rounds, least=0)
        prior_rows = check_number("Prototypes", "prior_rows", self.prior_rows, high_included=False)
        source_nd, target_md = as_double(domains.source_nd), as_double(domains.target_md)
        self.source_prototypes_ = class_means(source_nd, codes_n, len(self.classes_))
        variance = float(np.square(source_nd - self.source_prototypes_[codes_n]).mean())
        spread = float(np.square(self.source_prototypes_ - self.source_prototypes_.mean(axis=0)).mean())
        self.variance_ = max(variance, 1e-6 * spread, np.finfo(np.float64).tiny)
        self.prototypes_ = self.source_prototypes_
        for _ in range(num_rounds):
            shares = self._probabilities(target_md)
            mass = prior_rows + shares.sum(axis=0)[:, None]
            sums = prior_rows * self.source_prototypes_ + shares.T @ target_md
            self.prototypes_ = np.where(mass > 1e-9, sums / np.maximum(mass, 1e-9), self.prototypes_)

    def _probabilities(self, X: Any) -> FloatArray:
        centre = self.prototypes_.mean(axis=0)  # distances in coordinates that lose no digits
        rows, means = as_double(X) - centre, self.prototypes_ - centre
        logits = (rows @ means.T - np.square(means).sum(axis=1) / 2) / self.variance_
        return np.asarray(softmax(logits, axis=1))
