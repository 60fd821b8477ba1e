"""A lock that one process at a time holds, and that dies with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["try_lock", "wait_lock"]


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Yield whether the lock was free and is now held; raises OSError where the file cannot be made."""
    with _locked(path, wait=False) as mine:
        yield mine


@contextlib.contextmanager
def wait_lock(path: Path) -> Iterator[None]:
    """Hold the lock, waiting for it; raises OSError where the file cannot be made."""
    with _locked(path, wait=True):
        yield


@contextlib.contextmanager
def _locked(path: Path, wait: bool) -> Iterator[bool]:
    try:
        import fcntl
    except ImportError:  # no such lock on this platform: the work it guards is safe without, at worst done twice
        yield True
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
