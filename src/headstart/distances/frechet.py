"""Gaussian Fréchet distance: the Wasserstein-2 distance of the two Gaussians that share the domains' means and covariances.

    F^2 = |mean_S - mean_T|^2 + tr C_S + tr C_T - 2 |L_S' L_T|_*        C = L L',  |.|_*: sum of singular values

Source: Dowson & Landau, "The Fréchet distance between multivariate normal distributions", Journal of Multivariate Analysis 1982;
the square is the "FID" of Heusel et al., NeurIPS 2017 (arXiv:1706.08500). Unit: feature unit.
The sum of singular values equals tr (C_S^1/2 C_T C_S^1/2)^1/2 for any L; taken so, no root of a rounding error enters, and
equal domains are 0 apart even where covariances are singular.
Use it as a summary of what mean and covariance alignment (linear optimal transport) can remove.
It ignores everything beyond mean and covariance; with few rows and many features it is biased upwards.
Shapes: n source rows, m target rows, d features, r columns of L.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import is_torch_array

from headstart.distances.moments import column_mean, mean_and_covariance
from headstart.distances.rows import constant, finish, read_domains, root

__all__ = ["gaussian_frechet_distance"]


def gaussian_frechet_distance(source_nd: Any, target_md: Any) -> Any:
    """Return the Wasserstein-2 distance of the Gaussians with the domains' means and covariances.

    Parameters
    ----------
    source_nd, target_md : array or tensor of shape (n, d) and (m, d), at least 2 rows each
        Features. Arrays are read block by block.

    Returns
    -------
    float or Tensor of shape ()
        At least 0. Unit: feature unit.

    Raises
    ------
    HeadstartError
        If the rows cannot be compared.

    Examples
    --------
    >>> source, target = [[-1.0], [1.0]], [[1.0], [5.0]]               # means 0, 3; deviations sqrt(2), sqrt(8)
    >>> round(gaussian_frechet_distance(source, target) ** 2, 6)       # 3^2 + (sqrt(8) - sqrt(2))^2
    11.0
    """
    xp, source, target = read_domains("gaussian_frechet_distance", source_nd, target_md, min_rows=2)
    source_mean, source_factor, source_trace = _factor(xp, source)
    target_mean, target_factor, target_trace = _factor(xp, target)
    gap_d = source_mean - target_mean
    overlap = xp.sum(xp.linalg.svdvals(source_factor.T @ target_factor))
    spread = source_trace + target_trace
    spread_gap = spread - 2 * overlap
    rounding = 8 * xp.finfo(source.dtype).eps * source.shape[1] ** 0.5
    spread_gap = xp.where(spread_gap > rounding * spread, spread_gap, xp.zeros_like(spread_gap))
    return finish(root(xp, xp.sum(gap_d * gap_d) + spread_gap))


def _factor(xp: Any, rows_nd: Any) -> tuple[Any, Any, Any]:
    """Return the mean, L of shape (d, r) with ``C = L L'``, and the trace of C."""
    num_rows, width = rows_nd.shape
    if is_torch_array(rows_nd) or num_rows <= width:
        mean_d = column_mean(xp, rows_nd)
        factor_dr = (rows_nd - mean_d).T / (num_rows - 1) ** 0.5
        if num_rows > width:
            # L Q is a factor as good as L for any basis Q of its rows; held constant, it changes no gradient
            basis_nr = xp.linalg.qr(constant(factor_dr).T)[0]
            factor_dr = factor_dr @ basis_nr
        return mean_d, factor_dr, xp.sum(factor_dr * factor_dr)
    mean_d, covariance_dd = mean_and_covariance(xp, rows_nd)
    values, vectors = np.linalg.eigh(covariance_dd)
    factor_dr = vectors * np.sqrt(np.maximum(values, 0.0))
    return mean_d, factor_dr, np.sum(factor_dr * factor_dr)
