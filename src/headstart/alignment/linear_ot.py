"""Linear optimal transport: the cheapest map that gives the source the target's mean and covariance.

    x' = (x - mean_S) T + mean_T        T = C_S^-1/2 (C_S^1/2 C_T C_S^1/2)^1/2 C_S^-1/2

Source: Olkin & Pukelsheim 1982; Flamary, Lounici & Ferrari, "Concentration bounds for linear Monge mapping estimation and
optimal transport domain adaptation", 2019 (arXiv:1905.10155). Exact between Gaussians; no map to that covariance moves rows less.
Use it like CORAL, whose map reaches the same covariance but moves rows farther.
It ignores everything beyond mean and covariance, and labels; with other class proportions it mixes classes.
``regularisation`` is a share of a domain's mean variance added to its variances, so that the unit does not matter.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from headstart.alignment.aligner import Domains
from headstart.alignment.gaussian_map import GaussianMap
from headstart.alignment.gaussians import mean_and_covariance, monge_map, ridge_covariance

__all__ = ["LinearOT"]

Array = npt.NDArray[Any]


class LinearOT(GaussianMap):
    """Monge map between two Gaussians for source rows, also ones that were not seen; target rows stay as they are.

    Parameters
    ----------
    regularisation : float, at least 0
        Share of a domain's mean variance that is added to each of its variances; 0 needs more rows than features.
    match_mean : bool
        Whether the source also takes the target's mean.

    Examples
    --------
    >>> import numpy as np
    >>> source, target = np.array([[0.0], [2.0]]), np.array([[5.0], [9.0]])     # deviations 1 and 2 around 1 and 7
    >>> aligner = LinearOT(regularisation=0.0).fit(source, None, target)
    >>> aligner.transform(np.array([[0.0], [3.0]]), sample_domain=[1, 1]).tolist()
    [[5.0], [11.0]]
    """

    def _learn_map(self, domains: Domains) -> tuple[Array, Array, Array]:
        source_mean, source_dd = mean_and_covariance(domains.source_nd)
        target_mean, target_dd = mean_and_covariance(domains.target_md)
        both = (ridge_covariance(part, self.regularisation) for part in (source_dd, target_dd))
        return source_mean, target_mean, monge_map(*both)
