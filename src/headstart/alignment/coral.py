"""CORAL: give the source the target's covariance, and its mean.

    x' = (x - mean_S) (C_S + e I)^-1/2 (C_T + e I)^1/2 + mean_T        C_X = X_c' X_c / (n - 1)

Source: Sun, Feng & Saenko, "Return of frustratingly easy domain adaptation", AAAI 2016 (arXiv:1511.05547), algorithm 1.
The paper standardises both domains first, which removes their means, and adds e = 1 to every variance; here means are matched
explicitly, and ``regularisation`` is a share of the mean variance, so that the unit of the features does not matter.
Use it when the shift is second-order (sensor, style, lighting) and both domains share their classes and proportions.
It ignores everything beyond mean and covariance, and labels; with other class proportions it mixes classes.
Two symmetric eigendecompositions; n and m enter once.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg

from headstart.alignment.aligner import Domains, FeatureAligner
from headstart.core.errors import ConfigError

__all__ = ["CORAL"]

Array = npt.NDArray[Any]


class CORAL(FeatureAligner):
    """Correlation alignment of source rows; target rows stay as they are.

    Parameters
    ----------
    regularisation : float, at least 0
        Share of a domain's mean variance that is added to each of its variances; 0 needs more rows than features.
    match_mean : bool
        Whether the source also takes the target's mean.

    Examples
    --------
    >>> source, target = np.array([[0.0], [2.0]]), np.array([[5.0], [9.0]])     # deviations 1 and 2 around 1 and 7
    >>> CORAL(regularisation=0.0).fit_transform(source, None, target).tolist()
    [[5.0], [9.0]]
    """

    min_rows = 2

    def __init__(self, regularisation: float = 1e-3, match_mean: bool = True) -> None:
        self.regularisation = regularisation
        self.match_mean = match_mean

    def _align(self, domains: Domains) -> None:
        if not self.regularisation >= 0:
            raise ConfigError(f"CORAL: regularisation must be at least 0; got {self.regularisation!r}.")
        self.source_mean_, source_dd = _moments(domains.source_nd)
        target_mean, target_dd = _moments(domains.target_md)
        self.target_mean_ = target_mean if self.match_mean else self.source_mean_
        whiten = _power(source_dd, -0.5, self.regularisation)
        self.map_ = whiten @ _power(target_dd, 0.5, self.regularisation)

    def _map_source(self, X: Array) -> Array:
        moved = (X - self.source_mean_.astype(X.dtype)) @ self.map_.astype(X.dtype)
        return np.asarray(moved + self.target_mean_.astype(X.dtype))

    def _map_target(self, X: Array) -> Array:
        return X


def _moments(rows_nd: Array) -> tuple[Array, Array]:
    """Return mean and covariance in float64, reading the rows block by block."""
    num_rows, width = rows_nd.shape
    mean = rows_nd.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((width, width))
    for start in range(0, num_rows, 8192):
        centred = rows_nd[start : start + 8192] - mean
        covariance += centred.T @ centred
    return mean, covariance / (num_rows - 1)


def _power(covariance_dd: Array, power: float, regularisation: float) -> Array:
    """Return a symmetric power of a covariance with ``regularisation`` of its mean variance on the diagonal.

    Directions in which nothing varies stay out of a negative power.
    """
    values, vectors = linalg.eigh(covariance_dd, check_finite=False)
    values = np.maximum(values, 0.0) + regularisation * values.clip(0).mean()
    tiny = values <= values[-1] * len(values) * np.finfo(np.float64).eps
    powered = np.where(tiny, 0.0, np.where(tiny, 1.0, values) ** power)
    return np.asarray((vectors * powered) @ vectors.T)
