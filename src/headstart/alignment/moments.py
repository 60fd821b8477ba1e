"""Moment matching: give every source feature the target's mean and variance.

    x' = (x - mean_S) / s_S * s_T + mean_T            s = standard deviation of one feature, ddof = 1

Source: the diagonal case of CORAL (Sun, Feng & Saenko 2016) and of the Monge map between Gaussians; in neuroimaging and
genomics it is known as standardisation by site or batch.
Use it when sensors differ in offset and gain, one feature at a time, or when there are too few rows for a covariance.
It ignores correlations between features, and labels; with other class proportions it mixes classes.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.alignment.aligner import Domains, FeatureAligner

__all__ = ["MomentMatching"]

Array = npt.NDArray[Any]


class MomentMatching(FeatureAligner):
    """Match mean and variance of each source feature to the target's; target rows stay as they are.

    Parameters
    ----------
    match_mean : bool
        Whether the source takes the target's means.
    match_variance : bool
        Whether the source takes the target's variances. A feature that is constant in the source keeps its spread of 0.

    Examples
    --------
    >>> source, target = np.array([[0.0], [2.0]]), np.array([[5.0], [9.0]])     # deviations 1 and 2 around 1 and 7
    >>> MomentMatching().fit_transform(source, None, target).tolist()
    [[5.0], [9.0]]
    >>> MomentMatching(match_variance=False).fit_transform(source, None, target).tolist()
    [[6.0], [8.0]]
    """

    min_rows = 2

    def __init__(self, match_mean: bool = True, match_variance: bool = True) -> None:
        self.match_mean = match_mean
        self.match_variance = match_variance

    def _align(self, domains: Domains) -> None:
        self.source_mean_, source_spread = _mean_and_spread(domains.source_nd)
        target_mean, target_spread = _mean_and_spread(domains.target_md)
        self.target_mean_ = target_mean if self.match_mean else self.source_mean_
        flat = source_spread <= np.abs(self.source_mean_) * np.finfo(domains.source_nd.dtype).eps
        gains = target_spread / np.where(flat, 1.0, source_spread)
        self.gain_ = np.where(flat | (not self.match_variance), 1.0, gains)

    def _map_source(self, X: Array) -> Array:
        moved = (X - self.source_mean_.astype(X.dtype)) * self.gain_.astype(X.dtype)
        return np.asarray(moved + self.target_mean_.astype(X.dtype))

    def _map_target(self, X: Array) -> Array:
        return X


def _mean_and_spread(rows_nd: Array) -> tuple[Array, Array]:
    """Return mean and standard deviation of each feature in float64."""
    mean = rows_nd.mean(axis=0, dtype=np.float64)
    return mean, rows_nd.std(axis=0, dtype=np.float64, ddof=1)
