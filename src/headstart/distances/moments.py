"""Mean, covariance and second moments of many rows, read block by block.

    mean = 1/n sum_i x_i        C = (sum_i (x_i - c)(x_i - c)' - n (mean - c)(mean - c)') / (n - 1)        c: near the mean

Source: Chan, Golub & LeVeque, "Algorithms for computing the sample variance", The American Statistician 1983 (the
corrected two-pass algorithm). With c near the mean nothing cancels, however far the rows lie from 0.
Memory is one block of rows and one d x d matrix, whatever n.
Shapes: n rows, d features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from headstart.distances.rows import constant

__all__ = ["BLOCK_ROWS", "blocks", "column_mean", "largest_change", "mean_and_covariance", "second_moment"]

BLOCK_ROWS = 8192


def blocks(rows: Any, block_rows: int = BLOCK_ROWS) -> Iterator[Any]:
    """Yield the rows in blocks."""
    for start in range(0, rows.shape[0], block_rows):
        yield rows[start : start + block_rows]


def column_mean(xp: Any, rows_nd: Any) -> Any:
    """Return the mean row; sums of blocks are summed, which keeps float32 accurate over many rows."""
    shift_d = constant(rows_nd[0, :])
    total_d = xp.zeros_like(shift_d)
    for block in blocks(rows_nd):
        total_d = total_d + xp.sum(block - shift_d, axis=0)
    return shift_d + total_d / rows_nd.shape[0]


def mean_and_covariance(xp: Any, rows_nd: Any) -> tuple[Any, Any]:
    """Return the mean row and the unbiased covariance of at least two rows."""
    num_rows = rows_nd.shape[0]
    mean_d = column_mean(xp, rows_nd)
    centre_d = constant(mean_d)
    covariance_dd, rest_d = None, xp.zeros_like(centre_d)
    for block in blocks(rows_nd):
        centred = block - centre_d
        product = centred.T @ centred
        covariance_dd = product if covariance_dd is None else covariance_dd + product
        rest_d = rest_d + xp.sum(centred, axis=0)
    covariance_dd = covariance_dd - rest_d[:, None] * rest_d[None, :] / num_rows
    return mean_d, covariance_dd / (num_rows - 1)


def second_moment(xp: Any, rows_nd: Any) -> Any:
    """Return ``1/n sum_i x_i x_i'``."""
    total_dd = None
    for block in blocks(rows_nd):
        product = block.T @ block
        total_dd = product if total_dd is None else total_dd + product
    assert total_dd is not None
    return total_dd / rows_nd.shape[0]


def largest_change(source_nd: npt.NDArray[Any], target_md: npt.NDArray[Any]) -> tuple[float, npt.NDArray[np.float64]]:
    """Return the eigenvalue of largest size of ``E_S x x' - E_T x x'`` and its unit vector; no d x d matrix where d is large.

    Examples
    --------
    >>> value, vector = largest_change(np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]]))
    >>> value, np.abs(vector).tolist()
    (-4.0, [0.0, 1.0])
    """
    width = source_nd.shape[1]
    scale = float(max(np.abs(source_nd).max(), np.abs(target_md).max())) or 1.0

    def apply(vector_d: npt.NDArray[Any]) -> npt.NDArray[Any]:
        placed = vector_d.ravel().astype(source_nd.dtype)
        pulls = [rows.T @ (rows @ placed / (scale * scale)) / len(rows) for rows in (source_nd, target_md)]
        return np.asarray(pulls[0] - pulls[1], dtype=np.float64)

    if width > 64:
        operator = LinearOperator((width, width), matvec=apply, dtype=np.float64)
        start_d = np.random.default_rng(0).normal(size=width)
        try:
            values, vectors = eigsh(  # type: ignore[call-overload]
                operator, k=1, which="LM", v0=start_d, tol=1e-6
            )
            return float(values[0]) * scale * scale, np.asarray(vectors[:, 0])
        except ArpackNoConvergence:
            pass  # two eigenvalues of one size: the dense way below
    gap_dd = np.asarray(second_moment(np, source_nd / scale) - second_moment(np, target_md / scale), dtype=np.float64)
    values, vectors = np.linalg.eigh(gap_dd)
    place = int(np.abs(values).argmax())
    return float(values[place]) * scale * scale, np.asarray(vectors[:, place])
