"""Means, covariances and their powers: what every aligner of first and second moments is made of.

    C = X_c' X_c / (n - 1),  X_c = X - mean(X);     C^p = V diag(v^p) V'  from  C = V diag(v) V'
    T = A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2           the symmetric map with T A T = B  (Olkin & Pukelsheim 1982)

Use these to write an aligner. All of it is computed in float64; rows are read in blocks, so that nothing of their size is made
but the answer.
Shapes: n rows, d features, r features after a map.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg

__all__ = [
    "mean_and_covariance",
    "monge_map",
    "move_rows",
    "ridge_covariance",
    "ridge_power",
    "symmetric_power",
    "symmetric_powers",
]

Array = npt.NDArray[Any]
_BLOCK = 8192


def mean_and_covariance(rows_nd: Array) -> tuple[Array, Array]:
    """Return mean (d,) and covariance (d, d) in float64; one row alone has covariance 0.

    Examples
    --------
    >>> mean, covariance = mean_and_covariance(np.array([[0.0, 1.0], [2.0, 1.0]]))
    >>> mean.tolist(), covariance.tolist()
    ([1.0, 1.0], [[2.0, 0.0], [0.0, 0.0]])
    """
    num_rows, width = rows_nd.shape
    mean = rows_nd.mean(axis=0, dtype=np.float64)
    scatter = np.zeros((width, width))
    for start in range(0, num_rows, _BLOCK):
        centred = rows_nd[start : start + _BLOCK] - mean
        scatter += centred.T @ centred
    return mean, scatter / max(num_rows - 1, 1)


def ridge_covariance(covariance_dd: Array, regularisation: float) -> Array:
    """Return a covariance with ``regularisation`` times its mean variance added to every variance.

    Examples
    --------
    >>> ridge_covariance(np.diag([1.0, 3.0]), 0.5).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """
    added = regularisation * np.trace(covariance_dd) / len(covariance_dd)
    return np.asarray(covariance_dd + added * np.eye(len(covariance_dd)))


def symmetric_power(matrix_dd: Array, power: float) -> Array:
    """Return a power of a symmetric matrix whose eigenvalues are at least 0.

    Directions without spread (an eigenvalue that is rounding error) have power 0, negative powers included.

    Examples
    --------
    >>> symmetric_power(np.diag([4.0, 0.0]), -0.5).tolist()
    [[0.5, 0.0], [0.0, 0.0]]
    """
    return symmetric_powers(matrix_dd, power)[0]


def symmetric_powers(matrix_dd: Array, *powers: float) -> tuple[Array, ...]:
    """Return several powers from one eigendecomposition; see `symmetric_power`."""
    values, vectors = linalg.eigh(matrix_dd, driver="evd", check_finite=False)
    tiny = values <= max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    scales = [np.where(tiny, 0.0, np.where(tiny, 1.0, values) ** power) for power in powers]
    return tuple(np.asarray((vectors * scale) @ vectors.T) for scale in scales)


def ridge_power(rows_nd: Array, power: float, regularisation: float) -> tuple[Array, Array]:
    """Return the mean of rows and a power of their covariance with a ridge (`ridge_covariance`).

    With fewer rows than features and a ridge, the products between rows hold all that differs from the ridge, and no
    decomposition of a (d, d) matrix is needed.

    Examples
    --------
    >>> mean, root = ridge_power(np.array([[0.0], [2.0]]), 0.5, 1.0)        # variance 2, ridge 2
    >>> mean.tolist(), root.tolist()
    ([1.0], [[2.0]])
    """
    num_rows, width = rows_nd.shape
    if num_rows >= width or not regularisation > 0:
        mean, covariance = mean_and_covariance(rows_nd)
        return mean, symmetric_power(ridge_covariance(covariance, regularisation), power)
    mean = rows_nd.mean(axis=0, dtype=np.float64)
    centred = rows_nd - mean
    squares, left = linalg.eigh(centred @ centred.T, driver="evd", check_finite=False)
    ridge = regularisation * np.square(centred).sum() / (max(num_rows - 1, 1) * width)
    if ridge == 0.0:
        return mean, np.zeros((width, width))
    # directions far below the ridge are the ridge's; dividing by their lengths would only bring in rounding errors
    kept = squares > 1e-12 * squares[-1]
    axes = centred.T @ (left[:, kept] / np.sqrt(squares[kept]))
    gains = (squares[kept] / max(num_rows - 1, 1) + ridge) ** power - ridge**power
    powered = (axes * gains) @ axes.T
    powered[np.diag_indices(width)] += ridge**power
    return mean, np.asarray(powered)


def monge_map(source_dd: Array, target_dd: Array) -> Array:
    """Return the symmetric matrix T with ``T source T = target``: the optimal transport between centred Gaussians.

    Where the source has no spread, T is 0.

    Examples
    --------
    >>> monge_map(np.diag([1.0, 4.0]), np.diag([9.0, 1.0])).tolist()
    [[3.0, 0.0], [0.0, 0.5]]
    """
    values, vectors = linalg.eigh(source_dd, driver="evd", check_finite=False)
    tiny = values <= max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    roots = np.sqrt(np.where(tiny, 0.0, values))
    inverse = np.where(tiny, 0.0, 1.0 / np.where(tiny, 1.0, roots))
    inner = (vectors.T @ target_dd @ vectors) * np.outer(roots, roots)
    half = vectors * inverse
    return np.asarray(half @ symmetric_power((inner + inner.T) / 2, 0.5) @ half.T)


def move_rows(rows_nd: Array, before_d: Array, map_dr: Array, after_r: Array) -> Array:
    """Return ``(rows - before) @ map + after`` in the rows' own precision, block by block.

    Examples
    --------
    >>> move_rows(np.array([[3.0], [5.0]]), np.array([3.0]), np.array([[10.0]]), np.array([1.0])).tolist()
    [[1.0], [21.0]]
    """
    before, matrix, after = (part.astype(rows_nd.dtype) for part in (before_d, map_dr, after_r))
    moved = np.empty((rows_nd.shape[0], matrix.shape[1]), dtype=rows_nd.dtype)
    for start in range(0, rows_nd.shape[0], _BLOCK):
        block = slice(start, start + _BLOCK)
        np.matmul(rows_nd[block] - before, matrix, out=moved[block])
        moved[block] += after
    return moved
