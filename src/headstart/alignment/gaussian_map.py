"""The base of aligners that move source rows by one affine map between two Gaussians.

    x' = (x - mean_S) A + mean_T        A: from the domains' covariances, each with a ridge

Use it to write such an aligner: a subclass's ``_learn_map`` returns both means and A. It ignores labels.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy.typing as npt

from headstart.alignment.aligner import Domains, FeatureAligner
from headstart.alignment.gaussians import move_rows
from headstart.core.errors import ConfigError

__all__ = ["GaussianMap"]

Array = npt.NDArray[Any]


class GaussianMap(FeatureAligner):
    """Move source rows by ``map_`` from ``source_mean_`` to ``target_mean_``; target rows stay as they are.

    Parameters
    ----------
    regularisation : float, at least 0
        Share of a domain's mean variance that is added to each of its variances; 0 needs more rows than features.
    match_mean : bool
        Whether the source also takes the target's mean.
    """

    min_rows = 2

    def __init__(self, regularisation: float = 1e-3, match_mean: bool = True) -> None:
        self.regularisation = regularisation
        self.match_mean = match_mean

    def _align(self, domains: Domains) -> None:
        if not self.regularisation >= 0:
            raise ConfigError(f"{type(self).__name__}: regularisation must be at least 0; got {self.regularisation!r}.")
        self.source_mean_, target_mean, self.map_ = self._learn_map(domains)
        self.target_mean_ = target_mean if self.match_mean else self.source_mean_

    @abstractmethod
    def _learn_map(self, domains: Domains) -> tuple[Array, Array, Array]:
        """Return the source's mean, the target's, and the map (d, d)."""

    def _map_source(self, X: Array) -> Array:
        return move_rows(X, self.source_mean_, self.map_, self.target_mean_)

    def _map_target(self, X: Array) -> Array:
        return X
