"""The graph of nearest neighbours that label propagation and LAME share, and a memory of the rows they were fitted on.

Both answer for the target rows of `fit` all at once; `SeenRows` finds those rows again when they are asked for in any
order.
Shapes: n rows, k neighbours, d features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

__all__ = ["SeenRows", "nearest", "neighbour_matrix"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def nearest(rows_nd: FloatArray, num_neighbours: int, queries: FloatArray | None = None) -> tuple[FloatArray, IntArray]:
    """Return distances and places of the nearest rows, fewer where there are fewer; without ``queries`` no row is its own.

    Examples
    --------
    >>> nearest(np.array([[0.0], [1.0], [5.0]]), 1)[1].ravel().tolist()
    [1, 0, 1]
    """
    available = len(rows_nd) - (queries is None)
    index = NearestNeighbors(n_neighbors=max(1, min(num_neighbours, available))).fit(rows_nd)
    if not available:
        return np.empty((len(rows_nd), 0)), np.empty((len(rows_nd), 0), dtype=np.int64)
    distances, places = index.kneighbors(queries)
    return np.asarray(distances), np.asarray(places, dtype=np.int64)


def neighbour_matrix(values_nk: FloatArray, places_nk: IntArray, num_rows: int) -> Any:
    """Return the CSR matrix with ``values_nk[i, j]`` at ``(i, places_nk[i, j])``.

    Examples
    --------
    >>> neighbour_matrix(np.array([[2.0], [3.0]]), np.array([[1], [0]]), 2).toarray().tolist()
    [[0.0, 2.0], [3.0, 0.0]]
    """
    starts = np.arange(0, values_nk.size + 1, max(1, values_nk.shape[1]))[: len(values_nk) + 1]
    if not values_nk.size:
        return sparse.csr_matrix((len(values_nk), num_rows))
    return sparse.csr_matrix((values_nk.ravel(), places_nk.ravel(), starts), shape=(len(values_nk), num_rows))


class SeenRows:
    """Rows that were seen with an answer each; equal rows share the mean of their answers.

    Examples
    --------
    >>> seen = SeenRows(np.array([[1.0], [2.0], [1.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
    >>> places, answers = seen.find(np.array([[3.0], [1.0]]))
    >>> places.tolist(), answers.tolist()
    ([1], [[0.5, 0.5]])
    """

    def __init__(self, rows_nd: FloatArray, answers_nk: FloatArray) -> None:
        numbers: dict[bytes, int] = {}
        groups = np.array([numbers.setdefault(key, len(numbers)) for key in _keys(rows_nd)], dtype=np.int64)
        sums = np.zeros((len(numbers), answers_nk.shape[1]))
        np.add.at(sums, groups, answers_nk)
        self._numbers, self._answers = numbers, sums / np.bincount(groups)[:, None]

    def find(self, rows: FloatArray) -> tuple[IntArray, FloatArray]:
        """Return the places of rows seen before, and their answers."""
        numbers = np.array([self._numbers.get(key, -1) for key in _keys(rows)], dtype=np.int64)
        places = np.flatnonzero(numbers >= 0)
        return places, self._answers[numbers[places]]


def _keys(rows: FloatArray) -> list[bytes]:
    from hashlib import blake2b

    rows = np.ascontiguousarray(rows) + 0.0  # -0 becomes 0
    return [blake2b(row.tobytes(), digest_size=16).digest() for row in rows]
