"""Monge alignment of many domains: every source domain and the target meet in the middle.

    S = sum_k w_k (S^1/2 C_k S^1/2)^1/2          the Bures-Wasserstein barycentre of the covariances, by its fixed point
    S <- S^-1/2 (sum_k w_k (S^1/2 C_k S^1/2)^1/2)^2 S^-1/2
    x' = (x - mean_k) T_k + sum_k w_k mean_k     T_k the Monge map from C_k to S

Sources: barycentre and fixed point, Agueh & Carlier 2011, Alvarez-Esteban et al. 2016 (arXiv:1511.05355); mapping every domain to
it, Gnassounou, Flamary & Gramfort 2023 (arXiv:2305.18831). All domains, the target among them, weigh the same by default.
Use it with several source domains whose statistics differ from each other too (hospitals, subjects, sites).
It ignores everything beyond mean and covariance, and labels.
Shapes: n source rows, m target rows, d features, k domains.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from headstart.alignment.aligner import Domains, FeatureAligner, read_sample_domain
from headstart.alignment.gaussians import (
    mean_and_covariance,
    monge_map,
    move_rows,
    ridge_covariance,
    symmetric_power,
    symmetric_powers,
)
from headstart.core.errors import ConfigError, DomainError

__all__ = ["MongeAlignment", "gaussian_barycentre"]

Array = npt.NDArray[Any]


def gaussian_barycentre(
    covariances_kdd: Array, weights_k: npt.ArrayLike | None = None, tolerance: float = 1e-8, max_steps: int = 100
) -> Array:
    """Return the Bures-Wasserstein barycentre of covariances.

    Parameters
    ----------
    covariances_kdd : ndarray of shape (k, d, d)
        Symmetric, eigenvalues above 0.
    weights_k : array-like of shape (k,), optional
        Weights of at least 0, on any scale; equal when left out.
    tolerance : float
        The fixed point is reached when no entry moves by more than this share of the largest.
    max_steps : int
        Steps at most. Well-conditioned covariances need about 10. Two domains need none.

    Returns
    -------
    ndarray of shape (d, d)
        The covariance with the least weighted sum of squared 2-Wasserstein distances.

    Examples
    --------
    >>> gaussian_barycentre(np.array([[[1.0]], [[9.0]]])).tolist()      # deviations 1 and 3 meet at 2
    [[4.0]]
    """
    num_domains = len(covariances_kdd)
    weights = np.ones(num_domains) if weights_k is None else np.asarray(weights_k, dtype=np.float64)
    weights = weights / weights.sum()
    if num_domains == 2:  # a point on the geodesic between them, without iterating
        between = weights[0] * np.eye(covariances_kdd.shape[1]) + weights[1] * monge_map(*covariances_kdd)
        return np.asarray(between @ covariances_kdd[0] @ between)
    centre = np.tensordot(weights, np.asarray(covariances_kdd, dtype=np.float64), axes=1)
    for _ in range(max_steps):
        root, inverse = symmetric_powers(centre, 0.5, -0.5)
        mixed = np.zeros_like(centre)
        for weight, covariance in zip(weights, covariances_kdd, strict=True):
            inner = root @ covariance @ root
            mixed += weight * symmetric_power((inner + inner.T) / 2, 0.5)
        moved = inverse @ mixed @ mixed @ inverse
        moved = (moved + moved.T) / 2
        change, centre = np.abs(moved - centre).max(), moved
        if change <= tolerance * np.abs(centre).max():
            break
    return np.asarray(centre)


class MongeAlignment(FeatureAligner):
    """Map each source domain and the target to the Wasserstein barycentre of their Gaussians.

    With domains numbered in ``sample_domain`` each number above 0 is a source domain of its own, and `transform` maps rows
    by the same numbers; without numbers there is one source.

    Parameters
    ----------
    regularisation : float, at least 0
        Share of a domain's mean variance that is added to each of its variances.
    target_weight : float between 0 and 1, optional
        Weight of the target in the barycentre, the sources sharing the rest; equal weights for all domains when left out. With 1
        every source domain is mapped onto the target, which stays where it is.

    Examples
    --------
    >>> source, target = np.array([[0.0], [2.0]]), np.array([[4.0], [10.0]])     # deviations 1 and 3 around 1 and 7
    >>> aligner = MongeAlignment(regularisation=0.0).fit(source, None, target)
    >>> aligner.transform(np.concatenate([source, target]), sample_domain=[1, 1, -1, -1]).round(9).tolist()
    [[2.0], [6.0], [2.0], [6.0]]
    """

    min_rows = 2
    separates_sources = True

    def __init__(self, regularisation: float = 1e-3, target_weight: float | None = None) -> None:
        self.regularisation = regularisation
        self.target_weight = target_weight

    def fit(self, X: Any, y: Any = None, target: Any = None, *, sample_domain: Any = None) -> Self:
        """Learn one map a domain from rows and the numbers of their domains (or from one source and a target)."""
        super().fit(X, y, target, sample_domain=sample_domain)
        numbers = np.ones(1) if sample_domain is None else np.asarray(sample_domain)
        self.source_numbers_ = np.unique(numbers[numbers > 0]).astype(np.int64)
        return self

    def transform(self, X: Any, *, sample_domain: Any = None) -> Any:
        """Return rows in their order, each mapped by its own domain; without ``sample_domain`` as target rows."""
        check_is_fitted(self)
        X = self._check(getattr(X, "values_nd", X), reset=False)
        if sample_domain is None:
            return self._map_target(X)
        numbers = read_sample_domain("MongeAlignment", sample_domain, X.shape[0])
        unknown = np.setdiff1d(numbers[numbers > 0], self.source_numbers_)
        if len(unknown):
            raise DomainError(
                f"MongeAlignment: no map for source domain {unknown[0]}; it learned from {self.source_numbers_.tolist()}. "
                "Fit again with rows of that domain."
            )
        moved = np.empty_like(X)
        moved[numbers < 0] = self._map_target(X[numbers < 0])
        for group, number in enumerate(self.source_numbers_):
            moved[numbers == number] = self._map(X[numbers == number], group)
        return moved

    def _align(self, domains: Domains) -> None:
        groups = [domains.source_nd[domains.source_groups_n == k] for k in range(domains.num_sources)]
        few = [k for k, rows in enumerate(groups) if rows.shape[0] < self.min_rows]
        if few:
            raise DomainError(
                f"MongeAlignment needs at least {self.min_rows} rows in every source domain; domain {few[0] + 1} of "
                f"{len(groups)} has {groups[few[0]].shape[0]}. Join it with another domain."
            )
        weights = self._domain_weights(len(groups))
        means, covariances = zip(*(mean_and_covariance(rows) for rows in [*groups, domains.target_md]), strict=True)
        ridged = np.stack([ridge_covariance(covariance, self.regularisation) for covariance in covariances])
        self.barycentre_ = gaussian_barycentre(ridged, weights)
        self.barycentre_mean_ = weights @ np.stack(means)
        self.means_ = np.stack(means)
        self.maps_ = np.stack([monge_map(covariance, self.barycentre_) for covariance in ridged])

    def _domain_weights(self, num_sources: int) -> Array:
        """Return the weights of the source domains and, last, of the target."""
        if not self.regularisation >= 0:
            raise ConfigError(f"MongeAlignment: regularisation must be at least 0; got {self.regularisation!r}.")
        share = 1.0 / (num_sources + 1) if self.target_weight is None else self.target_weight
        if not 0 <= share <= 1:
            raise ConfigError(f"MongeAlignment: target_weight must be between 0 and 1; got {self.target_weight!r}.")
        return np.append(np.full(num_sources, (1.0 - share) / num_sources), share)

    def _map(self, X: Array, domain: int) -> Array:
        return move_rows(X, self.means_[domain], self.maps_[domain], self.barycentre_mean_)

    def _map_source(self, X: Array) -> Array:
        return self._map(X, 0)

    def _map_target(self, X: Array) -> Array:
        return self._map(X, -1)
