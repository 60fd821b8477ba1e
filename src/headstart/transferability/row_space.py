"""The row space: features standardised and rotated so that all solvers work on a small, well-shaped matrix.

    z_ij = (x_ij - mean_j) / std_j,   Z = U S V',   rotated = U S / g,   g^2 = mean squared length of a row of Z

An L2 penalty does not change under rotation, and a solution never leaves the span of the rows, so solving on the
rotated matrix is exact. With fewer rows than features it is also far smaller: n columns in place of d.
Source: Hastie & Tibshirani, "Efficient quadratic regularization for expression arrays", Biostatistics 2004.
Dividing by g makes penalties comparable between data sets: a row has length 1 on average.
Shapes: n rows, d features, r <= min(n - 1, d) directions, k outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.checks import check_matrix
from headstart.core.errors import DataError

__all__ = ["RowSpace", "rotate"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RowSpace:
    """Standardised features in rotated coordinates, and the way back.

    Attributes
    ----------
    rotated : ndarray of shape (n, r)
        Centred; columns are orthogonal, the strongest first; mean squared row length 1. Same precision as the features.
    strength : ndarray of shape (r,)
        Sum of squares of each column, in float64.
    mean, scale : ndarray of shape (d,)
        The standardisation; a constant feature has scale 1 and gets weight 0.
    basis : ndarray of shape (d, r)
        rotated = (x - mean) / scale @ basis; its columns are orthogonal and of length 1 / g.
    """

    rotated: Array
    strength: npt.NDArray[np.float64]
    mean: Array
    scale: Array
    basis: Array

    @classmethod
    def of(cls, features_nd: Array) -> RowSpace:
        """Return the row space of some features.

        Parameters
        ----------
        features_nd : ndarray of shape (n, d), n >= 2
            Any float type; half precision is computed in float32.

        Raises
        ------
        ShapeError
            If it is not a matrix or has fewer than two rows.
        DataError
            If a value is NaN or infinite.
        """
        check_matrix("fit", "features", features_nd, min_rows=2)
        dtype = np.float64 if features_nd.dtype == np.float64 else np.float32
        features = np.asarray(features_nd, dtype=dtype)
        mean = features.mean(axis=0, dtype=np.float64)
        if not np.isfinite(mean).all():
            raise DataError(
                "fit: features must be finite; some are NaN or infinite. Look for rows the backbone could not read."
            )
        standard = features - mean.astype(dtype)
        spread = np.sqrt(np.einsum("nd,nd->d", standard, standard) / len(standard))
        varies = spread > 1e-6 * np.abs(mean) + np.finfo(dtype).tiny
        scale = np.where(varies, spread, 1.0).astype(dtype)
        standard *= np.where(varies, np.reciprocal(scale), 0.0).astype(dtype)
        rotated, strength, basis = rotate(standard)
        length = float(np.sqrt(float(strength.sum()) / len(standard))) or 1.0
        rotated /= np.asarray(length, dtype=dtype)
        basis[~varies] = 0
        return cls(rotated, strength / length**2, mean.astype(dtype), scale, basis / np.asarray(length, dtype=dtype))

    def rotate(self, features_md: Array) -> Array:
        """Return other rows in rotated coordinates, shape (m, r)."""
        features = np.asarray(features_md, dtype=self.basis.dtype)
        rotated: Array = ((features - self.mean) / self.scale) @ self.basis
        return rotated

    def unrotate(self, weight_kr: Array, bias_k: Array) -> tuple[Array, Array]:
        """Return weights (k, d) and biases (k,) that give the same scores on raw features, in float64."""
        weight = (np.asarray(weight_kr, np.float64) @ self.basis.T.astype(np.float64)) / self.scale
        return weight, np.asarray(bias_k, np.float64) - weight @ self.mean.astype(np.float64)

    def project(self, weight_kd: Array) -> Array:
        """Return the part of raw-space weights (k, d) that these rows can see, as weights (k, r) in rotated space."""
        projected: Array = (np.asarray(weight_kd) * self.scale) @ (self.basis / np.square(self.basis).sum(axis=0))
        return projected


def rotate(standard_nd: Array) -> tuple[Array, npt.NDArray[np.float64], Array]:
    """Return Z V, its squared singular values and V, from the smaller of the two Gram matrices."""
    num_rows, width = standard_nd.shape
    wide = width > num_rows
    values, vectors = np.linalg.eigh(_gram(standard_nd if wide else standard_nd.T))
    most = min(num_rows - 1, width)
    values, vectors = values[::-1][:most], vectors[:, ::-1][:, :most]
    kept = values > 1e-12 * max(float(values[0]), np.finfo(np.float64).tiny) if most else np.zeros(0, dtype=bool)
    values, vectors = values[kept], vectors[:, kept]
    if not wide:
        basis = vectors.astype(standard_nd.dtype)
        return standard_nd @ basis, values, basis
    lengths = np.sqrt(values)
    basis = standard_nd.T @ (vectors / lengths).astype(standard_nd.dtype)
    return (vectors * lengths).astype(standard_nd.dtype), values, basis


def _gram(matrix_ab: Array) -> npt.NDArray[np.float64]:
    """Return M M' in float64, a block of columns at a time so that no large copy is made."""
    total = np.zeros((len(matrix_ab), len(matrix_ab)))
    for start in range(0, matrix_ab.shape[1], 4096):
        block = matrix_ab[:, start : start + 4096].astype(np.float64)
        total += block @ block.T
    return total
