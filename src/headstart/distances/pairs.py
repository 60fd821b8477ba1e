"""Distances between all pairs of rows, from one matrix product a block: never an (n, m, d) array.

    |x - y|^2 = |x|^2 + |y|^2 - 2 x'y        rows are centred first, so that a common offset costs no digits

A squared distance within rounding of 0 is 0: duplicated rows are 0 apart, not the root of a rounding error.
Shapes: n first rows, m second rows, d features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.seeds import generator
from headstart.distances.moments import column_mean
from headstart.distances.rows import as_numpy, constant, take_rows

__all__ = [
    "MEDIAN_ROWS",
    "centre_together",
    "median_apart",
    "median_squared_distance",
    "pair_blocks",
    "squared_distances",
]

Array = npt.NDArray[Any]
MEDIAN_ROWS = 1000


def centre_together(xp: Any, first_nd: Any, second_md: Any) -> tuple[Any, Any]:
    """Return both sets of rows less one common row, which changes no distance."""
    centre_d = (column_mean(xp, constant(first_nd)) + column_mean(xp, constant(second_md))) / 2
    return first_nd - centre_d, second_md - centre_d


def squared_distances(xp: Any, first_nd: Any, second_md: Any) -> Any:
    """Return the squared distance of every pair, shape (n, m), at least 0.

    Examples
    --------
    >>> squared_distances(np, np.array([[0.0], [1.0]]), np.array([[3.0]])).tolist()
    [[9.0], [4.0]]
    """
    lengths_n, lengths_m = xp.sum(first_nd * first_nd, axis=1), xp.sum(second_md * second_md, axis=1)
    both_nm = lengths_n[:, None] + lengths_m[None, :]
    squared_nm = both_nm - 2 * (first_nd @ second_md.T)
    rounding = xp.finfo(first_nd.dtype).eps * (8 + first_nd.shape[1] ** 0.5)
    return xp.where(squared_nm > rounding * both_nm, squared_nm, xp.zeros_like(squared_nm))


def pair_blocks(xp: Any, first_nd: Any, second_md: Any, block_rows: int) -> Iterator[tuple[Any, float]]:
    """Yield squared distances block by block, each with the number of times it counts.

    Where both sets are the same object only blocks on and above the diagonal come, those above counting twice; a row's
    distance to itself is exactly 0.
    """
    same = first_nd is second_md
    for start in range(0, first_nd.shape[0], block_rows):
        block = first_nd[start : start + block_rows]
        for other in range(start if same else 0, second_md.shape[0], block_rows):
            squared = squared_distances(xp, block, second_md[other : other + block_rows])
            if same and other == start:
                squared = squared * (1 - xp.eye(block.shape[0], dtype=squared.dtype, device=squared.device))
            yield squared, 2.0 if same and other > start else 1.0


def median_squared_distance(
    xp: Any, source_nd: Any, target_md: Any, *, max_rows: int = MEDIAN_ROWS, seed: int = 0
) -> float:
    """Return the median squared distance between two different rows of the pooled domains.

    Of each domain at most ``max_rows`` rows, drawn under ``seed``, are looked at. Where more than half of the pairs are equal
    rows, the mean of the others counts; where all are, 1.
    """
    drawn = []
    for name, rows in (("source", source_nd), ("target", target_md)):
        if rows.shape[0] > max_rows:
            places = np.sort(generator(seed, "median", name).choice(rows.shape[0], max_rows, replace=False))
            rows = take_rows(xp, rows, places)  # noqa: PLW2901
        drawn.append(constant(rows))
    pooled = xp.concat(drawn, axis=0)
    return median_apart(as_numpy(squared_distances(xp, pooled, pooled)))


def median_apart(squared: Array) -> float:
    """Return the median of a symmetric matrix of squared distances, without those of rows to themselves.

    Examples
    --------
    >>> median_apart(np.array([[0.0, 4.0], [4.0, 0.0]]))
    4.0
    """
    apart = squared[np.triu(np.ones(squared.shape, dtype=bool), 1)]
    median = float(np.median(apart)) if len(apart) else 0.0
    if median > 0:
        return median
    apart = apart[apart > 0]
    return float(apart.mean()) if len(apart) else 1.0
