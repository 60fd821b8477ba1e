"""Density ratios without kernels: from a classifier of domains, from nearest neighbours, from two Gaussians.

    DiscriminatorRatio          w(x) = P(target | x) / P(source | x) * n / m                        logistic regression
    NearestNeighbourWeighting   w_i = smoothing + number of target rows whose nearest source row is x_i
    GaussianRatio               w(x) = N(x; mean_T, C_T) / N(x; mean_S, C_S)                        C with a ridge

Source: Bickel, Brueckner & Scheffer, "Discriminative learning under covariate shift", JMLR 2009, for
the classifier; Loog, "Nearest neighbor-based importance weighting", IEEE MLSP 2012, for the Voronoi cells, with its
Laplace smoothing of 1; Shimodaira, J. Statistical Planning and Inference 2000, for weighting by the ratio of densities.
Use the classifier in many dimensions and for sparse rows; neighbours when nothing is known of the shift; Gaussians in few
dimensions. All assume that labels depend on rows alone (covariate shift), and ignore labels.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse

from headstart.alignment.aligner import Domains, Reweighter
from headstart.alignment.gaussians import mean_and_covariance, ridge_covariance
from headstart.alignment.option_checks import check_number
from headstart.core.errors import DomainError

__all__ = ["DiscriminatorRatio", "GaussianRatio", "NearestNeighbourWeighting"]

Array = npt.NDArray[Any]


class DiscriminatorRatio(Reweighter):
    """Odds of a logistic regression that tells target from source rows, on features divided by their deviation; takes
    sparse rows.

    After ``fit`` also ``discriminator_``, the fitted pipeline.

    Parameters
    ----------
    regularisation : float, above 0
        Weight of half the squared norm of the coefficients against the sum of the rows' losses; more draws weights towards 1.
    min_effective_rows : float
        Weights worth fewer rows are refused.

    Examples
    --------
    >>> source, target = np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([[0.0], [1.0], [1.0], [1.0]])
    >>> fitted = DiscriminatorRatio(regularisation=1e-9, min_effective_rows=1).fit(source, None, target)
    >>> fitted.weights_.round(2).tolist()
    [0.5, 0.5, 1.5, 1.5]
    """

    accepts_sparse = True

    def __init__(self, regularisation: float = 1.0, min_effective_rows: float = 10.0) -> None:
        self.regularisation = regularisation
        self.min_effective_rows = min_effective_rows

    def _weigh(self, domains: Domains) -> Array:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        check_number(
            "DiscriminatorRatio", "regularisation", self.regularisation, low_included=False, high_included=False
        )
        num_source, num_target = domains.source_nd.shape[0], domains.target_md.shape[0]
        both = [domains.source_nd, domains.target_md]
        is_sparse = sparse.issparse(domains.source_nd)
        rows = sparse.vstack(both, format="csr") if is_sparse else np.concatenate(both)
        self.discriminator_ = make_pipeline(
            StandardScaler(with_mean=not is_sparse),
            LogisticRegression(C=1.0 / self.regularisation, max_iter=5000, tol=1e-6),
        ).fit(rows.astype(np.float64), np.repeat([0, 1], [num_source, num_target]))
        odds = self.discriminator_.decision_function(domains.source_nd.astype(np.float64))
        return np.asarray(np.exp(odds - odds.max()))


class NearestNeighbourWeighting(Reweighter):
    """Count the target rows in each source row's Voronoi cell; equal source rows share a cell evenly.

    Parameters
    ----------
    smoothing : float, at least 0
        Added to every count; 0 gives source rows without a target row near them no weight.
    min_effective_rows : float
        Weights worth fewer rows are refused.

    Examples
    --------
    >>> source, target = np.array([[0.0], [9.0]]), np.array([[1.0], [8.0], [8.5], [9.5]])
    >>> NearestNeighbourWeighting(0.0, min_effective_rows=1).fit(source, None, target).weights_.tolist()
    [0.5, 1.5]
    """

    def __init__(self, smoothing: float = 1.0, min_effective_rows: float = 10.0) -> None:
        self.smoothing = smoothing
        self.min_effective_rows = min_effective_rows

    def _weigh(self, domains: Domains) -> Array:
        from sklearn.metrics import pairwise_distances_argmin

        check_number("NearestNeighbourWeighting", "smoothing", self.smoothing, high_included=False)
        rows, places, num_equal = np.unique(domains.source_nd, axis=0, return_inverse=True, return_counts=True)
        centre = rows.mean(axis=0, dtype=np.float64)
        nearest = pairwise_distances_argmin(domains.target_md - centre, rows - centre)
        counts = np.bincount(nearest, minlength=len(rows)) / num_equal
        return np.asarray(counts[places.reshape(-1)] + self.smoothing)


class GaussianRatio(Reweighter):
    """Ratio of two Gaussian densities.

    Parameters
    ----------
    regularisation : float, at least 0
        Share of a domain's mean variance that is added to each of its variances; 0 needs more rows than features.
    min_effective_rows : float
        Weights worth fewer rows are refused.

    Examples
    --------
    >>> source, target = np.array([[-1.0], [0.0], [1.0]]), np.array([[0.0], [1.0], [2.0]])        # variance 1, means 0 and 1
    >>> weights = GaussianRatio(regularisation=0.0, min_effective_rows=1).fit(source, None, target).weights_
    >>> (weights[1:] / weights[:-1]).round(6).tolist()                                             # exp(x - 1/2): e a step
    [2.718282, 2.718282]
    """

    min_rows = 2

    def __init__(self, regularisation: float = 0.01, min_effective_rows: float = 10.0) -> None:
        self.regularisation = regularisation
        self.min_effective_rows = min_effective_rows

    def _weigh(self, domains: Domains) -> Array:
        check_number("GaussianRatio", "regularisation", self.regularisation, high_included=False)
        spread = domains.source_nd.std(dtype=np.float64, axis=0).max() or 1.0
        origin = domains.source_nd.mean(axis=0, dtype=np.float64)
        source, target = (domains.source_nd - origin) / spread, (domains.target_md - origin) / spread
        logs = self._log_density(source, target) - self._log_density(source, source)
        return np.asarray(np.exp(logs - logs.max()))

    def _log_density(self, rows_nd: Array, learned_md: Array) -> Array:
        """Return the log density of rows, up to a constant, under the Gaussian of ``learned_md``."""
        mean, covariance = mean_and_covariance(learned_md)
        try:
            root = linalg.cholesky(ridge_covariance(covariance, self.regularisation), lower=True)
        except linalg.LinAlgError:
            raise DomainError(
                f"GaussianRatio: a domain's covariance has no inverse ({learned_md.shape[0]} rows, {learned_md.shape[1]} "
                "features, some constant or combined of others); raise regularisation or reduce the features."
            ) from None
        white = linalg.solve_triangular(root, (rows_nd - mean).T, lower=True)
        return np.asarray(-0.5 * np.square(white).sum(axis=0))
