"""Where the content of rows comes from: files, texts in memory, or arrays in memory. Labels live in `Dataset`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from headstart.core.digests import digest_array, digest_bytes
from headstart.core.errors import DataError, UnreadableRow
from headstart.core.tasks import Modality
from headstart.data.memo import FileStamp, read_digests, stamp_file, write_digests

__all__ = ["ArrayRows", "Content", "FileRows", "Rows", "TextRows"]

Content = bytes | str | np.ndarray[Any, Any]


class Rows(Protocol):
    """Content by position. Digests are remembered, and are ``""`` for a row that cannot be read."""

    modality: Modality

    def __len__(self) -> int: ...

    def read(self, position: int) -> Content: ...

    def path(self, position: int) -> Path | None: ...

    def digests(self, positions: Sequence[int], threads: int = 2) -> list[str]: ...


class FileRows:
    """One file a row: an image, or a text in UTF-8 (Windows-1252 where it is not). ``column`` is a table's, of the paths."""

    def __init__(self, paths: Sequence[str], modality: Modality = "image", column: str = "") -> None:
        self.modality, self.column = modality, column
        self.paths = [os.path.abspath(path) for path in paths]  # noqa: PTH100 - a million Path objects are slow
        self.known: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, position: int) -> Path | None:
        return Path(self.paths[position])

    def read_bytes(self, position: int) -> bytes:
        """Return the file's bytes; raises UnreadableRow where it cannot be opened."""
        try:
            with open(self.paths[position], "rb") as stream:  # noqa: PTH123
                return stream.read()
        except OSError as error:
            raise UnreadableRow(f"{self.paths[position]}: {error.strerror or error}") from None

    def read(self, position: int) -> Content:
        content = self.read_bytes(position)
        if self.modality != "text":
            return content
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError:
            return content.decode("cp1252", errors="replace")

    def digests(self, positions: Sequence[int], threads: int = 2) -> list[str]:
        missing = list(dict.fromkeys(position for position in positions if position not in self.known))
        if missing:
            stamps = self.look_up(missing)
            if unknown := [position for position in missing if position not in self.known]:
                with ThreadPoolExecutor(threads) as pool:
                    for position, digest in zip(unknown, pool.map(self._digest_file, unknown), strict=True):
                        self.known[position] = digest
                self.remember(stamps, unknown)
        return [self.known[position] for position in positions]

    def look_up(self, positions: Sequence[int]) -> dict[int, FileStamp]:
        """Fill in digests that the memo knows; return the stamps of the files that can be reached."""
        stamps: dict[int, FileStamp] = {}
        for position in positions:
            try:
                stamps[position] = stamp_file(self.paths[position])
            except OSError:
                continue
        found = read_digests(list(stamps.values()))
        for position, stamp in stamps.items():
            if digest := found.get(stamp.path):
                self.known[position] = digest
        return stamps

    def remember(self, stamps: dict[int, FileStamp], positions: Sequence[int]) -> None:
        """Write digests into the memo, each with the stamp its file had *before* it was read."""
        write_digests((stamps[at], self.known[at]) for at in positions if at in stamps and self.known[at])

    def _digest_file(self, position: int) -> str:
        try:
            return digest_bytes(self.read_bytes(position))
        except UnreadableRow:
            return ""


class TextRows:
    """Texts in memory; ``column`` is that of a table which held them."""

    modality: Modality = "text"

    def __init__(self, texts: Sequence[str], column: str = "") -> None:
        self.texts, self.column = texts, column
        self.known: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.texts)

    def read(self, position: int) -> Content:
        return self.texts[position]

    def path(self, position: int) -> Path | None:
        return None

    def digests(self, positions: Sequence[int], threads: int = 2) -> list[str]:
        for position in positions:
            if position not in self.known:
                self.known[position] = digest_bytes(self.texts[position].encode("utf-8", errors="surrogatepass"))
        return [self.known[position] for position in positions]


class ArrayRows:
    """Images (uint8) or feature vectors (float32) in memory; the first axis counts rows. ``names`` are those of table columns."""

    def __init__(self, array: np.ndarray[Any, Any], modality: Modality, names: Sequence[str] = ()) -> None:
        if modality == "image" and array.dtype != np.uint8:
            raise DataError(
                f"open_dataset: image arrays are uint8 (0..255); got {array.dtype}; "
                "scale them to 0..255 and convert with .astype(np.uint8)."
            )
        self.modality, self.names = modality, tuple(names)
        self.array = array if modality == "image" else np.asarray(array, np.float32)
        self.known: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.array)

    def read(self, position: int) -> Content:
        row: np.ndarray[Any, Any] = self.array[position]
        return row

    def path(self, position: int) -> Path | None:
        return None

    def digests(self, positions: Sequence[int], threads: int = 2) -> list[str]:
        for position in positions:
            if position not in self.known:
                self.known[position] = digest_array(self.array[position])
        return [self.known[position] for position in positions]
