"""Principal axes of one domain, with fixed signs, and angles between subspaces.

Use these to write a subspace aligner.
Shapes: n rows, d features, r axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg

from headstart.alignment.gaussians import mean_and_covariance

__all__ = ["largest_angle", "principal_axes"]

Array = npt.NDArray[Any]


def principal_axes(rows_nd: Array, num_axes: int | None = None) -> tuple[Array, Array, Array]:
    """Return mean (d,), axes (d, r) and variances (r,), largest first, in float64.

    Directions without variance are left out. The largest entry of each axis is positive: signs do not depend on the solver.

    Examples
    --------
    >>> mean, axes, variances = principal_axes(np.array([[0.0, 0.0], [0.0, 2.0]]))
    >>> mean.tolist(), axes.tolist(), variances.tolist()
    ([0.0, 1.0], [[0.0], [1.0]], [2.0])
    """
    num_rows, width = rows_nd.shape
    wanted = min(num_rows, width) if num_axes is None else min(num_axes, num_rows, width)
    if num_rows < width and 4 * wanted <= num_rows:  # a few axes of wide rows: those of the products between rows
        mean = rows_nd.mean(axis=0, dtype=np.float64)
        centred = rows_nd - mean
        products = centred @ centred.T
        squares, left = linalg.eigh(products, subset_by_index=[num_rows - wanted, num_rows - 1], check_finite=False)
        axes = linalg.qr(centred.T @ left[:, ::-1], mode="economic", check_finite=False)[0]
        variances = squares[::-1] / (num_rows - 1)
    elif num_rows < width:
        mean = rows_nd.mean(axis=0, dtype=np.float64)
        _, sizes, right = linalg.svd(rows_nd - mean, full_matrices=False, check_finite=False)
        axes, variances = right[:wanted].T, np.square(sizes[:wanted]) / max(num_rows - 1, 1)
    else:
        mean, covariance = mean_and_covariance(rows_nd)
        chosen = None if wanted == width else [width - wanted, width - 1]
        variances, axes = linalg.eigh(covariance, subset_by_index=chosen, check_finite=False)
        variances, axes = variances[::-1], axes[:, ::-1]
    floor = (4 * np.finfo(rows_nd.dtype).eps * np.abs(mean).max(initial=0.0)) ** 2
    kept = variances > max(variances.max(initial=0.0) * width * np.finfo(np.float64).eps, floor)
    axes, variances = axes[:, kept], variances[kept]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return mean, np.ascontiguousarray(axes * signs), variances


def largest_angle(one_dr: Array, other_dr: Array) -> float:
    """Return the largest principal angle between two subspaces with orthonormal bases, in radians.

    Examples
    --------
    >>> round(largest_angle(np.array([[1.0], [0.0]]), np.array([[0.6], [0.8]])), 4)     # arccos 0.6
    0.9273
    """
    return float(np.arccos(np.clip(linalg.svdvals(one_dr.T @ other_dr)[-1], 0.0, 1.0)))
