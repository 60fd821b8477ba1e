"""One file of the feature store: the keys of some rows and their values, written once and never changed.

A segment is a safetensors file with two tensors: ``keys`` (uint8, n x 32, a digest a row) and ``values`` (float16 or float32,
n x ...). It is published under its name by one rename, so it is either whole or absent. Values are read through a memory
map that lives only as long as the read, so what was read does not stay in memory.
Shapes: n rows.
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

__all__ = ["KEY_BYTES", "SUFFIX", "Segment", "pack_keys", "read_segment", "write_segment"]

KEY_BYTES = 32
SUFFIX = ".safetensors"
_TYPES: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "U8": np.dtype("u1")}
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
        Shape of one row's values.
    offset : int
        Where the values begin in the file, in bytes.
    """

    path: Path
    keys_nb: NDArray[np.uint8]
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    offset: int

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the values at some row numbers; raises OSError where the file is gone."""
        shape = (len(self.keys_nb), *self.row_shape)
        values = np.memmap(self.path, self.dtype, mode="r", offset=self.offset, shape=shape)
        return np.array(values[rows])


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
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    header: dict[str, Any] = {"__metadata__": {"format": "headstart-features-1"}}
    end = 0
    for name, array in (("values", little), ("keys", keys_nb)):  # values first: they stay aligned
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
        stream.write(little.data)
        stream.write(np.ascontiguousarray(keys_nb).data)


def read_segment(path: Path) -> Segment:
    """Read a segment's header and keys.

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
            values, keys = header["values"], header["keys"]
            start = 8 + length
            rows = int(values["shape"][0])
            row_shape = tuple(int(item) for item in values["shape"][1:])
            dtype = _TYPES[values["dtype"]]
            whole = rows * math.prod(row_shape) * dtype.itemsize
            sound = (
                keys["dtype"] == "U8"
                and keys["shape"] == [rows, KEY_BYTES]
                and values["data_offsets"] == [0, whole]
                and keys["data_offsets"] == [whole, whole + rows * KEY_BYTES]
                and size == start + whole + rows * KEY_BYTES
            )
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{path}: not a segment of the feature store ({error})") from None
        if not sound:
            raise ValueError(f"{path}: not a whole segment of the feature store")
        stream.seek(start + whole)
        keys_nb = np.frombuffer(stream.read(rows * KEY_BYTES), np.uint8).reshape(rows, KEY_BYTES)
    return Segment(path, keys_nb, dtype, row_shape, start)
