"""The feature store: never compute an activation twice.

    <folder>/<space>/space.json               what computed these values
    <folder>/<space>/<segment>.safetensors    keys and values of some rows

A space is one way of computing (weights, stage, transform, view, runtime, number type); inside it a row's key is the digest of
its bytes. So rows added to a data set cost only themselves, and two data sets share rows. Segments appear by one rename
and never change: a killed process leaves nothing half-written, and any number of processes may read, write, merge and evict at
once (a row stored twice does no harm). The least recently used segments go first when the store outgrows its limit.
Shapes: n rows.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.digests import digest_json
from headstart.core.errors import ShapeError, StoreError
from headstart.core.files import remove_leftovers, write_json
from headstart.core.places import cache_folder
from headstart.features.locks import try_lock
from headstart.features.ragged import as_ragged, is_ragged
from headstart.features.segments import SUFFIX, Segment, pack_keys, read_segment, write_segment

__all__ = ["FeatureStore", "Space", "SpaceListing"]

_FORMAT = 1  # raise it when decoding or an engine changes what the same key should hold
_SMALL_BYTES = 4_000_000
_MOST_SMALL = 32
_TOUCH_SECONDS = 60


@dataclass(frozen=True)
class Space:
    """One way of computing features; rows of different spaces never mix.

    Parameters
    ----------
    weights_digest : str
        Of the base model.
    stage : str
        Where it was cut.
    transform_digest : str
        Of its preprocessing.
    view : str
        Name of the view.
    runtime : str
        Label of the runtime, precision included.
    dtype : {"float16", "float32"}
        Number type on disk.
    backbone : str
        Name of the base model, for people only.
    """

    weights_digest: str
    stage: str
    transform_digest: str
    view: str
    runtime: str
    dtype: str
    backbone: str = field(default="", compare=False)

    def digest(self) -> str:
        """Return 32 hexadecimal digits that name the space's folder; the base model's name is no part of it."""
        value = {key: item for key, item in asdict(self).items() if key != "backbone"}
        return digest_json({**value, "format": _FORMAT})[:32]


@dataclass(frozen=True)
class SpaceListing:
    """What a space holds; ``last_used`` counts seconds since 1970."""

    space: Space
    rows: int
    bytes: int
    last_used: float

    def __str__(self) -> str:
        space = self.space
        name = space.backbone or space.weights_digest[:12]
        return (
            f"{name}  {space.stage}  {space.view}  {space.runtime}  {self.rows:,} rows  {self.bytes / 1e6:.1f} MB  "
            f"used {time.strftime('%Y-%m-%d %H:%M', time.localtime(self.last_used))}"
        )


_Listings = list[SpaceListing]  # named here: inside the class `list` is a method
_Paths = list[Path]


@dataclass
class _Index:
    """The segments of a space as last seen, and where each key is."""

    segments: list[Segment]
    heads_n: NDArray[np.uint64]
    segment_n: NDArray[np.int64]
    row_n: NDArray[np.int64]


class FeatureStore:
    """Features on disk, shared by processes.

    Parameters
    ----------
    folder : Path, optional
        Where it lies; ``features`` in the cache folder when left out.
    max_bytes : float
        Size beyond which the least recently used segments are removed.

    Examples
    --------
    >>> import tempfile
    >>> store = FeatureStore(Path(tempfile.mkdtemp()))
    >>> space = Space("weights", "features", "transform", "centre", "torch-fp32", "float32")
    >>> store.put(space, ["aa" * 32], np.ones((1, 2), np.float32))
    >>> found_n, values = store.get(space, ["bb" * 32, "aa" * 32])
    >>> found_n.tolist(), values.tolist()
    ([False, True], [[1.0, 1.0]])
    """

    def __init__(self, folder: Path | str | None = None, max_bytes: float = 20e9) -> None:
        self.folder = cache_folder() / "features" if folder is None else Path(folder)
        self.max_bytes = max_bytes
        self._known: dict[str, dict[str, Segment]] = {}
        self._indices: dict[str, tuple[frozenset[str], _Index]] = {}
        self._guard = threading.RLock()

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.folder)!r})"

    def get(self, space: Space, keys: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """Look rows up.

        Parameters
        ----------
        space : Space
            Which way of computing.
        keys : sequence of str
            Digests of n rows' bytes, 64 hexadecimal digits each.

        Returns
        -------
        found_n : bool array of shape (n,)
            Which rows are stored.
        values : float16 or float32 array of shape (rows found, ...)
            Theirs, in the order of ``keys``; shape (0, 0) where none was found. An object array of arrays (t, d) where rows are
            of unequal length.
        """
        if not keys:
            return np.zeros(0, bool), np.zeros((0, 0), space.dtype)
        for _ in range(5):
            try:
                with self._guard:
                    return self._look_up(self._index(space), pack_keys(keys), space)
            except OSError:  # another process merged or evicted a segment after it was listed
                self._forget(space)
        return np.zeros(len(keys), bool), np.zeros((0, 0), space.dtype)

    def holds(self, space: Space, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Return which rows are stored, without reading them: a bool array of shape (n,)."""
        if not keys:
            return np.zeros(0, bool)
        with self._guard:
            return self._find(self._index(space), pack_keys(keys)) >= 0

    def put(self, space: Space, keys: Sequence[str], values: NDArray[Any]) -> None:
        """Store rows; whole or, on any failure, not at all.

        Parameters
        ----------
        space : Space
            Which way of computing.
        keys : sequence of str
            Digests of n rows' bytes.
        values : array of shape (n, ...), or object array of n arrays (t, d)
            Cast to the space's number type.

        Raises
        ------
        StoreError
            If the disk is full or may not be written.
        ShapeError
            If there are not as many keys as values.
        """
        if len(keys) != len(values):
            raise ShapeError(f"FeatureStore.put: {len(keys)} keys for {len(values)} rows of values; give one for each.")
        if not keys:
            return
        folder = self.folder / space.digest()
        path = folder / f"{time.time_ns():016x}-{secrets.token_hex(4)}{SUFFIX}"
        try:
            if not (folder / "space.json").exists():
                write_json(folder / "space.json", asdict(space))
            write_segment(path, pack_keys(keys), _cast(values, space.dtype))
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(
                f"FeatureStore: cannot write to {self.folder}: {reason}; free some space, or set HEADSTART_CACHE to a "
                "folder on a disk that has some."
            ) from error
        self._tidy(folder)

    def list(self) -> _Listings:
        """Return what each space holds, most recently used first."""
        listings = []
        for folder in self._space_folders():
            files = list(_segment_files(folder))
            segments = [segment for path, _ in files if (segment := _open(path)) is not None]
            space = _read_space(folder)
            if space is None or not segments:
                continue
            rows = len({key.tobytes() for segment in segments for key in segment.keys_nb})
            used = max(facts.st_mtime for _, facts in files)
            listings.append(SpaceListing(space, rows, sum(facts.st_size for _, facts in files), used))
        return sorted(listings, key=lambda listing: -listing.last_used)

    def size(self) -> int:
        """Return the size of everything in the store, in bytes."""
        return sum(facts.st_size for folder in self._space_folders() for _, facts in _segment_files(folder, ""))

    def clear(self, space: Space | None = None) -> None:
        """Remove one space, or everything."""
        folders = self._space_folders() if space is None else [self.folder / space.digest()]
        with self._guard:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            self._known.clear()
            self._indices.clear()

    def _space_folders(self) -> _Paths:
        try:
            return [entry for entry in self.folder.iterdir() if entry.is_dir() and not entry.is_symlink()]
        except OSError:
            return []

    def _forget(self, space: Space) -> None:
        with self._guard:
            self._known.pop(space.digest(), None)
            self._indices.pop(space.digest(), None)

    def _index(self, space: Space) -> _Index:
        """Return the index of a space, read anew only where a segment has come or gone."""
        name = space.digest()
        names = frozenset(path.name for path, _ in _segment_files(self.folder / name))
        if name in self._indices and self._indices[name][0] == names:
            return self._indices[name][1]
        known = self._known.setdefault(name, {})
        for gone in known.keys() - names:
            del known[gone]
        for new in names - known.keys():
            if (segment := _open(self.folder / name / new)) is not None and segment.dtype == np.dtype(space.dtype):
                known[new] = segment
        index = _build_index([known[item] for item in sorted(known)])
        self._indices[name] = names, index
        return index

    def _find(self, index: _Index, keys_nb: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return each row's place in the index, -1 for a row that is not there."""
        if not len(index.heads_n):
            return np.full(len(keys_nb), -1)
        places_n = np.searchsorted(index.heads_n, _heads(keys_nb)).clip(max=len(index.heads_n) - 1)
        segment_n, row_n = index.segment_n[places_n], index.row_n[places_n]
        same_n = np.zeros(len(keys_nb), bool)
        for number in np.unique(segment_n):
            asked = np.flatnonzero(segment_n == number)
            same_n[asked] = (index.segments[number].keys_nb[row_n[asked]] == keys_nb[asked]).all(axis=1)
        return np.where(same_n, places_n, -1)

    def _look_up(
        self, index: _Index, keys_nb: NDArray[np.uint8], space: Space
    ) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        found_n = np.zeros(len(keys_nb), bool)
        places_n = self._find(index, keys_nb)
        values = np.zeros((0, 0), space.dtype)
        for number in np.unique(index.segment_n[places_n[places_n >= 0]]):
            segment = index.segments[number]
            asked = np.flatnonzero((places_n >= 0) & (index.segment_n[places_n] == number))
            if not found_n.any():
                values = _blank(segment, len(keys_nb))
            if is_ragged(values) != (segment.lengths_n is not None) or (
                not is_ragged(values) and segment.row_shape != values.shape[1:]
            ):
                continue
            values[asked] = segment.read(index.row_n[places_n[asked]])
            found_n[asked] = True
            _touch(segment.path)
        return found_n, values[found_n] if found_n.any() and not found_n.all() else values

    def _tidy(self, folder: Path) -> None:
        """Merge small segments, drop what killed processes left, evict; another process doing so already is enough."""
        with contextlib.suppress(OSError), try_lock(self.folder / ".lock") as mine:
            if not mine:
                return
            small = [path for path, facts in _segment_files(folder) if facts.st_size < _SMALL_BYTES]
            if len(small) > _MOST_SMALL:
                _merge(small)
            self._evict()

    def _evict(self) -> None:
        for space in self._space_folders():
            remove_leftovers(space)
        files = [item for space in self._space_folders() for item in _segment_files(space, "")]
        total = sum(facts.st_size for _, facts in files)
        for path, facts in sorted(files, key=lambda item: item[1].st_mtime):
            if total <= self.max_bytes:
                break
            if path.suffix == SUFFIX:
                path.unlink(missing_ok=True)
                total -= facts.st_size


def _segment_files(folder: Path, suffix: str = SUFFIX) -> Iterator[tuple[Path, os.stat_result]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.name.endswith(suffix):
            with contextlib.suppress(OSError):
                yield Path(entry.path), entry.stat(follow_symlinks=False)


def _open(path: Path) -> Segment | None:
    """Return a segment; one that is damaged is removed, since its rows can be computed again."""
    try:
        return read_segment(path)
    except OSError:
        return None
    except ValueError:
        with contextlib.suppress(OSError):
            path.unlink()
        return None


def _read_space(folder: Path) -> Space | None:
    try:
        return Space(**json.loads((folder / "space.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _heads(keys_nb: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the first 64 bits of each key; two rows of one space that share them are a miss, not a mistake."""
    return np.ascontiguousarray(keys_nb[:, :8]).view(np.uint64).ravel()


def _build_index(segments: list[Segment]) -> _Index:
    none = np.zeros(0, np.int64)
    heads_n = np.concatenate([np.zeros(0, np.uint64), *(_heads(item.keys_nb) for item in segments)])
    segment_n = np.concatenate([none, *(np.full(len(item.keys_nb), at) for at, item in enumerate(segments))])
    row_n = np.concatenate([none, *(np.arange(len(item.keys_nb)) for item in segments)])
    order = np.argsort(heads_n, kind="stable")
    return _Index(segments, heads_n[order], segment_n[order], row_n[order])


def _cast(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    if is_ragged(values):
        return as_ragged([np.asarray(row, dtype) for row in values])
    return np.asarray(values, dtype)


def _blank(segment: Segment, rows: int) -> NDArray[Any]:
    """Return room for some rows like those of a segment."""
    if segment.lengths_n is not None:
        return np.empty(rows, object)
    return np.zeros((rows, *segment.row_shape), segment.dtype)


def _touch(path: Path) -> None:
    """Note that a segment was used; by the minute is enough."""
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > _TOUCH_SECONDS:
            os.utime(path)


def _merge(paths: list[Path]) -> None:
    """Write small segments as one, then remove them; readers that still list the old ones look again."""
    segments = [segment for path in sorted(paths) if (segment := _open(path)) is not None]
    if len({(item.dtype, item.row_shape, item.lengths_n is None) for item in segments}) != 1:
        return
    keys_nb = np.concatenate([item.keys_nb for item in segments])
    values = np.concatenate([item.read(np.arange(len(item.keys_nb))) for item in segments])
    _, first = np.unique(keys_nb, axis=0, return_index=True)
    first.sort()
    merged = paths[0].with_name(f"{time.time_ns():016x}-{secrets.token_hex(4)}{SUFFIX}")
    write_segment(merged, keys_nb[first], values[first])
    for path in paths:
        path.unlink(missing_ok=True)
