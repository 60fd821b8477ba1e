"""Where extracted rows are gathered: in memory, or in a mapped file that vanishes with the process where they are large.

The file has no name: nothing that happens to the store, and no other process, can change what is read from it.
Shapes: n rows, v views.
"""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.features.ragged import no_room

__all__ = ["RowTable"]

_MOST_IN_MEMORY = 64_000_000
_MOVED_AT_ONCE = 128


class RowTable:
    """Features of n rows and v views, filled in any order.

    Parameters
    ----------
    rows, views : int
        Its size.
    dtype : dtype
        Of its numbers.
    folder : Path, optional
        Where a mapped file may lie, if the table may be one; always in memory when left out.
    """

    def __init__(self, rows: int, views: int, dtype: Any, folder: Path | None = None) -> None:
        self.rows, self.views, self.dtype, self.folder = rows, views, np.dtype(dtype), folder
        self._values: NDArray[Any] | None = None

    def set(self, rows: NDArray[np.int64] | list[int], view: int, values: NDArray[Any]) -> None:
        """Fill in rows of one view; the first call decides the shape of a row."""
        if self._values is None:
            self._values = self._allocate((self.rows, self.views, *values.shape[1:]))
        self._values[rows, view] = values

    def finish(self, owners_n: NDArray[np.int64], kept: NDArray[np.int64]) -> NDArray[Any]:
        """Return the rows ``kept``, in place: no second table is made.

        Parameters
        ----------
        owners_n : int array of shape (n,)
            For each row the first row with the same content, which alone was filled in.
        kept : increasing int array
            Rows to return.
        """
        assert self._values is not None
        values = self._values
        copies = np.flatnonzero(owners_n != np.arange(self.rows))
        for block in _blocks(copies):
            values[block] = values[owners_n[block]]
        if len(kept) < self.rows:
            for start, block in zip(range(0, len(kept), _MOVED_AT_ONCE), _blocks(kept), strict=True):
                values[start : start + len(block)] = values[block]  # forward only: kept[i] >= i
            values = values[: len(kept)]
        return values[:, 0] if self.views == 1 else values

    def _allocate(self, shape: tuple[int, ...]) -> NDArray[Any]:
        size = math.prod(shape) * self.dtype.itemsize
        if self.folder is None or size <= _MOST_IN_MEMORY:
            return np.zeros(shape, self.dtype)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as stream:
                # reserved now: a full disk met while writing into a mapped file would kill the process
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(stream.fileno(), 0, size)
                else:
                    stream.truncate(size)
                return np.memmap(stream, self.dtype, mode="r+", shape=shape)
        except OSError as error:
            raise no_room(size, self.folder, error) from error


def _blocks(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[start : start + _MOVED_AT_ONCE] for start in range(0, len(rows), _MOVED_AT_ONCE)]
