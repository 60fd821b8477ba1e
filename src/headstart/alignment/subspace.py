"""Subspace alignment: turn the source's principal axes towards the target's.

    source: x' = (x - mean_S) P_S (P_S' P_T)        target: x' = (x - mean_T) P_T

Source: Fernando, Habrard, Sebban & Tuytelaars, "Unsupervised visual domain adaptation using subspace alignment", ICCV 2013,
equations 1 to 3. P_S and P_T hold the first r principal axes (d, r) of each domain; M = P_S' P_T minimises |P_S M - P_T|_F.
Use it when the domains' main directions differ but carry the same meaning; it is fast and also drops noise.
It ignores variances along the axes, and labels.
Shapes: n source rows, m target rows, d features, r components.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.alignment.aligner import Domains, FeatureAligner
from headstart.alignment.gaussians import move_rows
from headstart.alignment.mmd_projection import check_whole
from headstart.alignment.principal_axes import principal_axes
from headstart.core.errors import DomainError

__all__ = ["SubspaceAlignment"]

Array = npt.NDArray[Any]


class SubspaceAlignment(FeatureAligner):
    """Source rows in the source's subspace turned to the target's; target rows in the target's subspace.

    Parameters
    ----------
    num_components : int
        Principal axes of each domain; fewer where a domain has fewer directions.
    match_mean : bool
        Whether each domain is centred on its own mean (the paper's standardised data); otherwise both on the mean of all rows.

    Examples
    --------
    >>> source, target = np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([[0.0, 0.0], [1.2, 1.6]])   # axes (1, 0) and (0.6, 0.8)
    >>> aligner = SubspaceAlignment(num_components=1).fit(source, None, target)
    >>> aligner.transform(source, sample_domain=[1, 1]).round(6).tolist()            # -1 and 1, times P_S'P_T = 0.6
    [[-0.6], [0.6]]
    >>> aligner.transform(target).round(6).tolist()
    [[-1.0], [1.0]]
    """

    min_rows = 2

    def __init__(self, num_components: int = 30, match_mean: bool = True) -> None:
        self.num_components = num_components
        self.match_mean = match_mean

    def _align(self, domains: Domains) -> None:
        check_whole("SubspaceAlignment", "num_components", self.num_components)
        source_mean, source_axes, _ = principal_axes(domains.source_nd, self.num_components)
        target_mean, target_axes, _ = principal_axes(domains.target_md, self.num_components)
        kept = min(source_axes.shape[1], target_axes.shape[1])
        if not kept:
            raise DomainError("SubspaceAlignment: the rows of a domain are all the same; it has no subspace to align.")
        if not self.match_mean:
            sizes = [len(domains.source_nd), len(domains.target_md)]
            source_mean = target_mean = np.average([source_mean, target_mean], axis=0, weights=sizes)
        self.source_mean_, self.target_mean_ = source_mean, target_mean
        self.target_map_ = target_axes[:, :kept]
        self.source_map_ = source_axes[:, :kept] @ (source_axes[:, :kept].T @ self.target_map_)

    def _map_source(self, X: Array) -> Array:
        return move_rows(X, self.source_mean_, self.source_map_, np.zeros(self.source_map_.shape[1]))

    def _map_target(self, X: Array) -> Array:
        return move_rows(X, self.target_mean_, self.target_map_, np.zeros(self.target_map_.shape[1]))
