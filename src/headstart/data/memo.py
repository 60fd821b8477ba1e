"""What was learnt about files before: digests by (path, size, times), scan results by digest.

A memo only saves time. It lives in one SQLite file in the cache folder, shared by processes, safe to kill and safe to
delete; whatever goes wrong with it (full disk, damage, a lock held too long), the work is done again and nothing is
said.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from headstart.core.places import cache_folder

__all__ = ["FileStamp", "read_digests", "read_scans", "stamp_file", "write_digests", "write_scans"]

_MOST_BYTES = 1_000_000_000
_CHUNK = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INT, mtime INT, ctime INT, digest BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scans (key BLOB PRIMARY KEY, result BLOB) WITHOUT ROWID;
"""


class FileStamp(NamedTuple):
    """A file's absolute path, and what changes with its content: size, times in nanoseconds."""

    path: str
    size: int
    mtime: int
    ctime: int


def stamp_file(path: str) -> FileStamp:
    """Return the stamp of a file; raises OSError where there is none."""
    facts = os.stat(path)  # noqa: PTH116 - a Path object for each of a million rows costs more than the call
    return FileStamp(path, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def _settled(stamp: FileStamp, now: int) -> bool:
    """Return whether a later change of the file is sure to change its stamp (clocks of file systems are coarse)."""
    whole_seconds = stamp.mtime % 1_000_000_000 == 0 and stamp.ctime % 1_000_000_000 == 0
    grain = 2_500_000_000 if whole_seconds else 50_000_000
    return now - max(stamp.mtime, stamp.ctime) > grain


def read_digests(stamps: Sequence[FileStamp]) -> dict[str, str]:
    """Return the digests known for these very files, by path."""
    known: dict[str, str] = {}
    wanted = {os.fsencode(stamp.path): stamp for stamp in stamps}

    def look_up(memo: sqlite3.Connection) -> None:
        for keys in _chunks(list(wanted)):
            query = f"SELECT path, size, mtime, ctime, digest FROM files WHERE path IN ({','.join('?' * len(keys))})"
            for path, size, mtime, ctime, digest in memo.execute(query, keys):
                stamp = wanted[path]
                if (size, mtime, ctime) == stamp[1:]:
                    known[stamp.path] = digest.hex()

    _with_memo(look_up)
    return known


def write_digests(rows: Iterable[tuple[FileStamp, str]]) -> None:
    """Remember digests of files; files changed a moment ago are left out, since the next change might not show."""
    now = time.time_ns()
    values = [
        (os.fsencode(stamp.path), stamp.size, stamp.mtime, stamp.ctime, bytes.fromhex(digest))
        for stamp, digest in rows
        if _settled(stamp, now)
    ]
    if values:
        _with_memo(lambda memo: _store(memo, "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", values))


def read_scans(keys: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the scan results known under these keys."""
    known: dict[bytes, bytes] = {}

    def look_up(memo: sqlite3.Connection) -> None:
        for part in _chunks(list(keys)):
            query = f"SELECT key, result FROM scans WHERE key IN ({','.join('?' * len(part))})"
            known.update(memo.execute(query, part).fetchall())

    _with_memo(look_up)
    return known


def write_scans(results: dict[bytes, bytes]) -> None:
    """Remember scan results."""
    if results:
        _with_memo(lambda memo: _store(memo, "INSERT OR REPLACE INTO scans VALUES (?, ?)", list(results.items())))


def _store(memo: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    memo.executemany(statement, rows)


def _chunks(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), _CHUNK):
        yield keys[start : start + _CHUNK]


def _with_memo(action: Callable[[sqlite3.Connection], None]) -> None:
    """Open the memo, act and commit; every failure of the database ends the action quietly."""
    path = cache_folder() / "scan.sqlite"
    connection: sqlite3.Connection | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _MOST_BYTES:
            _remove(path)
        connection = sqlite3.connect(path, timeout=10)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.executescript(_SCHEMA)
        action(connection)
        connection.commit()
    except (sqlite3.OperationalError, OSError):
        pass
    except sqlite3.DatabaseError:  # damaged: the next call begins a new one
        _remove(path)
    finally:
        if connection is not None:
            connection.close()


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + suffix).unlink()
