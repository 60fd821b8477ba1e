"""Files that are either the old one or the whole new one, whatever happens in between.

A file is made in a hidden folder of its own beside its place, which goes whatever happens. Only a process that is killed leaves
one behind: the first write of a later process beside it removes those that nobody has touched for an hour.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["atomic_path", "follow_umask", "own_folder", "remove_leftovers", "write_bytes", "write_json", "write_text"]

_SUFFIX = ".headstart.tmp"
_STALE_SECONDS = 3600.0
_LONGEST_NAME = 40  # characters of a name that are repeated: four bytes each, and a file's name has room for 255
_swept: set[Path] = set()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block ends well it is synced to disk and takes the place of ``path`` at once.

    When the block raises, the temporary file is removed and ``path`` keeps what it held. The file follows the umask, whatever
    library wrote it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with own_folder(path) as folder:
        temporary = folder / "content.tmp"  # a name that nobody who looks for files of a kind takes for one
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        follow_umask(temporary)
        temporary.replace(path)


@contextlib.contextmanager
def own_folder(path: Path) -> Iterator[Path]:
    """Yield a hidden folder beside ``path``, on the same disk, to make it in; it goes afterwards, with all that is left in it."""
    if path.parent not in _swept:
        _swept.add(path.parent)
        remove_leftovers(path.parent)
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name[:_LONGEST_NAME]}.", suffix=_SUFFIX))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folder: Path, prefix: str = ".", suffix: str = _SUFFIX) -> None:
    """Remove hidden folders that killed processes left there and nobody has touched for an hour.

    Parameters
    ----------
    folder : Path
        Where they would lie; one that cannot be read is left alone.
    prefix, suffix : str
        What their names begin and end with; those of `own_folder` when left out.
    """
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.name.startswith(prefix) and entry.name.endswith(suffix) and _is_stale(Path(entry.path)):
                shutil.rmtree(entry.path, ignore_errors=True)


def _is_stale(folder: Path) -> bool:
    """Return whether neither a folder nor anything in it was touched within the hour."""
    with contextlib.suppress(OSError):
        latest = max(path.stat(follow_symlinks=False).st_mtime for path in (folder, *folder.rglob("*")))
        return time.time() - latest > _STALE_SECONDS
    return False  # it goes while it is looked at


def follow_umask(path: Path) -> None:
    """Give a file the mode that one made by ``open`` has; some libraries make theirs for the owner alone."""
    path.chmod(0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, indented, keys in the order given. NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
