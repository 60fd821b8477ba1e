"""One file of the feature store: the keys of some rows and their values, written once and never changed.

A segment is a safetensors file with two tensors: ``keys`` (uint8, n x 32, a digest a row) and ``values`` (float16 or float32,
n x ...). Rows of unequal length (a text has as many vectors as tokens) lie one after another in ``values`` (m x d), and a third
tensor, ``lengths`` (int64, n), says where each ends; in memory such rows are an object array (n,) of arrays (t, d).
It is published under its name by one rename, so it is either whole or absent. Values are read through a memory
map that lives only as long as the read, so what was read does not stay in memory.
Shapes: n rows, m vectors of all rows, t vectors of one row, d numbers a vector.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.files import atomic_path
from headstart.features.ragged import as_ragged, is_ragged

__all__ = [
    "KEY_BYTES",
    "SUFFIX",
    "Segment",
    "pack_keys",
    "read_segment",
    "write_segment",
]

KEY_BYTES = 32
SUFFIX = ".safetensors"
_TYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "U8": np.dtype("u1"),
    "I64": np.dtype("<i8"),
}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
_LONGEST_HEADER = 1 << 16


@dataclass(frozen=True)
class Segment:
    """A segment on disk whose keys are in memory and whose values are not.

    Parameters
    ----------
    path : Path
        Its file.
    keys_nb : uint8 array of shape (n, 32)
        Row digests.
    dtype : dtype
        Of the values.
    row_shape : tuple of int
        Shape of one row's values, or of one vector of a ragged segment.
    offset : int
        Where the values begin in the file, in bytes.
    lengths_n : int64 array of shape (n,), optional
        Number of vectors of each row, in a ragged segment.
    """

    path: Path
    keys_nb: NDArray[np.uint8]
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    offset: int
    lengths_n: NDArray[np.int64] | None = None

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the values at some row numbers; raises OSError where the file is gone."""
        if self.lengths_n is None:
            shape = (len(self.keys_nb), *self.row_shape)
            return np.array(np.memmap(self.path, self.dtype, mode="r", offset=self.offset, shape=shape)[rows])
        ends_n = np.cumsum(self.lengths_n)
        shape = (int(ends_n[-1]), *self.row_shape)
        flat = np.memmap(self.path, self.dtype, mode="r", offset=self.offset, shape=shape)
        return as_ragged([np.array(flat[ends_n[row] - self.lengths_n[row] : ends_n[row]]) for row in rows])


def pack_keys(digests: Sequence[str]) -> NDArray[np.uint8]:
    """Return hexadecimal digests as a uint8 array of shape (n, 32).

    Examples
    --------
    >>> pack_keys(["00" * 31 + "ff"])[0, -1]
    np.uint8(255)
    """
    return np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(len(digests), KEY_BYTES)


def write_segment(path: Path, keys_nb: NDArray[np.uint8], values: NDArray[Any]) -> None:
    """Publish a segment; raises OSError, leaving nothing behind, where the disk refuses it."""
    tensors: list[tuple[str, NDArray[Any]]] = [("keys", np.ascontiguousarray(keys_nb))]
    if is_ragged(values):
        tensors.insert(0, ("lengths", np.array([len(row) for row in values], "<i8")))
        values = np.concatenate(list(values))
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    header: dict[str, Any] = {"__metadata__": {"format": "headstart-features-1"}}
    end = 0
    for name, array in (("values", little), *tensors):  # values first: they stay aligned
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [end, end + array.nbytes],
        }
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little"))
        stream.write(text)
        for array in (little, *(item for _, item in tensors)):
            stream.write(array.data)


def read_segment(path: Path) -> Segment:
    """Read a segment's header, keys and lengths.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= _LONGEST_HEADER:
            raise ValueError(f"{path}: no safetensors header")
        header = json.loads(stream.read(length))
        try:
            values, keys, ragged = header["values"], header["keys"], "lengths" in header
            rows, vectors = int(keys["shape"][0]), int(values["shape"][0])
            row_shape = tuple(int(item) for item in values["shape"][1:])
            dtype = _TYPES[values["dtype"]]
            whole = vectors * math.prod(row_shape) * dtype.itemsize
            after = whole + (8 * rows if ragged else 0)
            sound = (
                keys["dtype"] == "U8"
                and keys["shape"] == [rows, KEY_BYTES]
                and values["data_offsets"] == [0, whole]
                and keys["data_offsets"] == [after, after + rows * KEY_BYTES]
                and size == 8 + length + after + rows * KEY_BYTES
                and (header["lengths"]["data_offsets"] == [whole, after] if ragged else rows == vectors)
            )
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{path}: not a segment of the feature store ({error})") from None
        if not sound:
            raise ValueError(f"{path}: not a whole segment of the feature store")
        stream.seek(8 + length + whole)
        lengths_n = np.frombuffer(stream.read(8 * rows), "<i8").astype(np.int64) if ragged else None
        keys_nb = np.frombuffer(stream.read(rows * KEY_BYTES), np.uint8).reshape(rows, KEY_BYTES)
    if lengths_n is not None and not (lengths_n.sum() == vectors and (lengths_n > 0).all()):
        raise ValueError(f"{path}: lengths that do not add up to what it holds")
    return Segment(path, keys_nb, dtype, row_shape, 8 + length, lengths_n)
