"""Rows of unequal length: a text has as many vectors as tokens, inside an encoder.

On their way they are an object array (n,) of arrays (t, d); kept, their vectors lie one after another, without padding.
Shapes: n rows, m vectors of all rows, t vectors of one row, d numbers a vector, b rows of a batch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import StoreError
from headstart.features.engine import Batch

__all__ = [
    "RaggedRows",
    "RaggedTable",
    "as_ragged",
    "finite_rows",
    "is_ragged",
    "no_room",
    "num_bytes",
    "pad_rows",
    "real_tokens",
    "round_rows",
]

MOST_IN_MEMORY = 64_000_000


def as_ragged(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return rows of unequal length as an object array.

    Examples
    --------
    >>> as_ragged([np.zeros((2, 3)), np.zeros((2, 3))]).shape
    (2,)
    """
    values = np.empty(len(rows), object)
    for at, row in enumerate(rows):
        values[at] = row
    return values


def is_ragged(values: NDArray[Any]) -> bool:
    """Return whether these rows are of unequal length."""
    return values.dtype == object


def num_bytes(values: NDArray[Any]) -> int:
    """Return the size of some rows' numbers."""
    return sum(row.nbytes for row in values) if is_ragged(values) else values.nbytes


def real_tokens(batch: Batch, values: NDArray[Any]) -> NDArray[Any]:
    """Return the vectors of a text batch's real tokens, one array (t, d) a row, apart from the batch."""
    lengths = batch.arrays[1][: len(values)].sum(axis=1)
    return as_ragged([row[:length].copy() for row, length in zip(values, lengths, strict=True)])


def round_rows(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return rows in the number type that the store keeps them in."""
    with np.errstate(over="ignore"):
        return as_ragged([row.astype(dtype) for row in values]) if is_ragged(values) else values.astype(dtype)


def finite_rows(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows hold finite numbers alone."""
    if is_ragged(values):
        return np.array([bool(np.isfinite(row).all()) for row in values])
    finite_n: NDArray[np.bool_] = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    return finite_n


@dataclass(frozen=True)
class RaggedRows:
    """Rows of unequal length, kept without padding: the token vectors of texts.

    Parameters
    ----------
    values_md : float16 or float32 array of shape (m, d)
        Vectors of all rows, mapped from disk where large.
    starts_n, lengths_n : int64 arrays of shape (n,)
        Where each row begins, and how many vectors it has. Rows of equal content may share theirs.

    Examples
    --------
    >>> rows = RaggedRows(np.array([[1.0], [2.0], [3.0]]), np.array([0, 2]), np.array([2, 1]))
    >>> hidden_btd, mask_bt = rows.batch([1, 0])
    >>> hidden_btd[:, :, 0].tolist(), mask_bt.tolist()
    ([[3.0, 0.0], [1.0, 2.0]], [[1, 0], [1, 1]])
    """

    values_md: NDArray[Any]
    starts_n: NDArray[np.int64]
    lengths_n: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts_n)

    def row(self, index: int) -> NDArray[Any]:
        """Return the vectors of one row, (t, d), not copied."""
        start = self.starts_n[index]
        return self.values_md[start : start + self.lengths_n[index]]

    def batch(self, indices: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return some rows padded with zeros to the longest of them.

        Returns
        -------
        hidden_btd : float32 array of shape (b, t, d)
            Their vectors.
        mask_bt : int64 array of shape (b, t)
            1 where there is a vector.
        """
        return pad_rows([self.row(index) for index in indices])


def pad_rows(rows: list[NDArray[Any]]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return arrays (t, d) as one of shape (b, longest t, d), and its mask."""
    lengths_b = np.array([len(row) for row in rows], np.int64)
    longest, width = int(lengths_b.max(initial=0)), rows[0].shape[1] if rows else 0
    hidden_btd = np.zeros((len(rows), longest, width), np.float32)
    for padded_td, row in zip(hidden_btd, rows, strict=True):
        padded_td[: len(row)] = row
    return hidden_btd, (np.arange(longest) < lengths_b[:, None]).astype(np.int64)


class RaggedTable:
    """Rows of unequal length, filled in any order; what a `RowTable` is for others.

    Parameters
    ----------
    rows : int
        How many.
    dtype : dtype
        Of their numbers.
    folder : Path
        Where a mapped file may lie.
    """

    def __init__(self, rows: int, dtype: Any, folder: Path) -> None:
        self.dtype, self.folder = np.dtype(dtype), folder
        self._starts_n, self._lengths_n = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        self._parts: list[NDArray[Any]] = []
        self._stream: IO[bytes] | None = None
        self._bytes = self._end = self._width = 0

    def set(self, rows: NDArray[np.int64] | list[int], _view: int, values: NDArray[Any]) -> None:
        """Fill in rows; texts have one view."""
        for row, row_td in zip(rows, values, strict=True):
            self._starts_n[row], self._lengths_n[row] = self._end, len(row_td)
            self._end += len(row_td)
            self._width = row_td.shape[1]
            self._parts.append(np.asarray(row_td, self.dtype))
            self._bytes += self._parts[-1].nbytes
        if self._bytes > MOST_IN_MEMORY:
            self._spill()

    def finish(self, owners_n: NDArray[np.int64], kept: NDArray[np.int64]) -> RaggedRows:
        """Return the rows ``kept``; the arguments are those of `RowTable.finish`."""
        if self._stream is None:
            values_md = np.concatenate(self._parts)
        else:
            self._spill()
            values_md = np.memmap(self._stream, self.dtype, mode="r", shape=(self._end, self._width))
            self._stream.close()  # the map holds the file
        owners = owners_n[kept]
        return RaggedRows(values_md, self._starts_n[owners], self._lengths_n[owners])

    def _spill(self) -> None:
        """Write what has gathered in memory to the file: written, not mapped, so that a full disk is an error and no more."""
        try:
            if self._stream is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._stream = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115 - lives on in the map
            for part in self._parts:
                content = np.ascontiguousarray(part).data.cast("B")
                while content:
                    content = content[self._stream.write(content) :]
        except OSError as error:
            raise no_room(self._end * self._width * self.dtype.itemsize, self.folder, error) from error
        self._parts, self._bytes = [], 0


def no_room(size: int, folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"extract_features: the rows at this stage need {size / 1e9:.1f} GB in {folder}: "
        f"{error.strerror or error}; free some space, set HEADSTART_CACHE, or cut at a later stage."
    )
