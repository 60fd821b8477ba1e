"""Rows on their way into the store: gathered into segments of a few megabytes, written every few seconds at the latest.

A disk that refuses ends the writing, not the extraction.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import StoreError
from headstart.features.ragged import num_bytes
from headstart.features.store import FeatureStore, Space

__all__ = ["StoreWriter"]

_FLUSH_BYTES = 8_000_000
_FLUSH_SECONDS = 5.0


class StoreWriter:
    """Gathers rows and writes them.

    Parameters
    ----------
    store : FeatureStore or None
        Where to; nowhere for None.
    spaces : list of Space
        One for each view.
    """

    def __init__(self, store: FeatureStore | None, spaces: list[Space]) -> None:
        self.store = store
        self.spaces = spaces
        self.trouble = ""  # why the store could not be written, once it could not
        self._empty()

    def add(self, view: int, keys: list[str], values: NDArray[Any]) -> None:
        """Take rows of one view, in the space's number type; an object array where they are of unequal length."""
        if self.store is None or not keys:
            return
        self._keys[view].extend(keys)
        self._values[view].append(values)
        self._bytes += num_bytes(values)
        if self._bytes >= _FLUSH_BYTES or time.monotonic() - self._since >= _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered."""
        try:
            for space, keys, values in zip(self.spaces, self._keys, self._values, strict=True):
                if self.store is not None and keys:
                    self.store.put(space, keys, np.concatenate(values))
        except StoreError as error:
            self.store, self.trouble = None, str(error)
        self._empty()

    def _empty(self) -> None:
        self._keys: list[list[str]] = [[] for _ in self.spaces]
        self._values: list[list[NDArray[Any]]] = [[] for _ in self.spaces]
        self._bytes = 0
        self._since = time.monotonic()
