"""Rows as kernel methods see them: centred, of one scale, and compared with the rows they were fitted on.

    x <- x - mean of all rows;  x <- x / |x|  (unit rows)  or  x / root mean |x|^2
    rbf:  k(x, z) = exp(-|x - z|^2 / (2 b^2 s^2)),   s^2 = mean squared distance of the fitted rows from their mean

The origin, the unit and the order of the rows then make no difference, and one bandwidth fits every data set.
Use these to write a kernel aligner. New rows are treated with what was learned from the fitted ones.
Shapes: n rows, d features, p fitted rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["RowScale", "gaussian_kernel", "unit_rows"]

Array = npt.NDArray[Any]


class RowScale:
    """Centre rows on the mean of the fitted ones and give them length 1, or a root mean squared length of 1.

    Parameters
    ----------
    rows_nd : ndarray of shape (n, d)
        Rows of all domains.
    to_unit : bool
        Whether every row gets length 1; a row of zeros stays.

    Examples
    --------
    >>> scale = RowScale(np.array([[0.0], [4.0]]), to_unit=False)
    >>> scale(np.array([[0.0], [6.0]])).tolist()
    [[-1.0], [2.0]]
    """

    def __init__(self, rows_nd: Array, to_unit: bool) -> None:
        self.to_unit = to_unit
        self.mean = rows_nd.mean(axis=0, dtype=np.float64)
        centred = rows_nd - self.mean
        largest = np.abs(centred).max()
        self.is_constant = bool(largest <= 4 * np.finfo(rows_nd.dtype).eps * np.abs(self.mean).max())
        self.length = largest * np.sqrt(np.square(centred / (largest or 1.0)).sum(axis=1).mean()) or 1.0

    def __call__(self, rows_nd: Array) -> Array:
        """Return rows in float64, centred and scaled."""
        scaled = (rows_nd - self.mean) / self.length
        return unit_rows(scaled) if self.to_unit else np.asarray(scaled)


def unit_rows(rows_nd: Array) -> Array:
    """Return rows of length 1; a row of zeros stays.

    Examples
    --------
    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(rows_nd, axis=1, keepdims=True)
    return np.asarray(rows_nd / np.where(lengths > 0, lengths, 1.0))


def gaussian_kernel(rows_nd: Array, fitted_pd: Array, width: float) -> Array:
    """Return ``exp(-|x - z|^2 / (2 width^2))`` for every pair of rows.

    Examples
    --------
    >>> gaussian_kernel(np.array([[0.0], [2.0]]), np.array([[0.0]]), 1.0).round(4).tolist()
    [[1.0], [0.1353]]
    """
    squares = rows_nd @ fitted_pd.T
    squares *= -2.0
    squares += np.square(rows_nd).sum(axis=1)[:, None]
    squares += np.square(fitted_pd).sum(axis=1)
    np.maximum(squares, 0.0, out=squares)
    squares *= -0.5 / width**2
    return np.asarray(np.exp(squares, out=squares))
