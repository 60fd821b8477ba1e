"""CORAL: give the source the target's covariance, and its mean.

    x' = (x - mean_S) (C_S + e I)^-1/2 (C_T + e I)^1/2 + mean_T        C_X = X_c' X_c / (n - 1)

Source: Sun, Feng & Saenko, "Return of frustratingly easy domain adaptation", AAAI 2016 (arXiv:1511.05547), algorithm 1.
The paper standardises both domains first, which removes their means, and adds e = 1 to every variance; here means are matched
explicitly, and ``regularisation`` is a share of the mean variance, so that the unit of the features does not matter.
Use it when the shift is second-order (sensor, style, lighting) and both domains share their classes and proportions.
It ignores everything beyond mean and covariance, and labels; with other class proportions it mixes classes.
Two symmetric eigendecompositions, of d x d or, with fewer rows, of n x n and m x m; rows are read block by block.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from headstart.alignment.aligner import Domains
from headstart.alignment.gaussian_map import GaussianMap
from headstart.alignment.gaussians import ridge_power

__all__ = ["CORAL"]

Array = npt.NDArray[Any]


class CORAL(GaussianMap):
    """Correlation alignment of source rows; target rows stay as they are.

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
    >>> CORAL(regularisation=0.0).fit_transform(source, None, target).tolist()
    [[5.0], [9.0]]
    """

    def _learn_map(self, domains: Domains) -> tuple[Array, Array, Array]:
        source_mean, whiten = ridge_power(domains.source_nd, -0.5, self.regularisation)
        target_mean, colour = ridge_power(domains.target_md, 0.5, self.regularisation)
        return source_mean, target_mean, whiten @ colour
