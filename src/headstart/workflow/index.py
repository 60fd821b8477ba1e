"""The list of runs: an embedded SQLite file in the cache folder, made again from the run folders when it is damaged.

    runs.sqlite         one line a run
    run-places.txt      the folders that hold run folders, one a line: where to look when the list must be made again

The run folders are the truth; the list only spares reading them. A run whose folder was deleted is forgotten; one on a
disk that is not there now is only left out. Several processes may write at once: SQLite locks the file, and waits up to ten
seconds.
An index that cannot be written costs a line of warning, never a run.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from headstart.core.files import atomic_path
from headstart.core.places import cache_folder
from headstart.core.progress import Progress

__all__ = ["RunLine", "RunList", "index_path", "remember", "runs"]

_VERSION = 1
_WAIT = 10.0


@dataclass(frozen=True)
class RunLine:
    """One finished run.

    Parameters
    ----------
    folder : str
        Absolute path; opens its report.
    name, title, created, task : str
        Folder name, data, UTC time, kind of task.
    metric : str
        What it was judged by.
    value, low, high : float, optional
        On the sealed test rows, with the 95 % interval.
    transfer_helped : str
        ``"true"``, ``"false"`` or ``"unclear"``.
    goal, goal_met
        What was asked for, and whether it was met; empty and None without a goal.
    backbone, rung : str
        Base model, and the rung that was kept.
    rungs : int
        Rungs tried.
    cpu_seconds, wall_seconds : float
        Of the whole run.
    train_rows, test_rows, size_bytes : int
        Rows, and the size of the saved model.
    """

    folder: str
    name: str
    title: str
    created: str
    task: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    transfer_helped: str
    goal: str
    goal_met: int | None
    backbone: str
    rung: str
    rungs: int
    cpu_seconds: float
    wall_seconds: float
    train_rows: int
    test_rows: int
    size_bytes: int


_COLUMNS = [item.name for item in fields(RunLine)]
_TABLE = f"CREATE TABLE IF NOT EXISTS runs ({', '.join(_COLUMNS)}, PRIMARY KEY (folder))"
_INSERT = f"INSERT OR REPLACE INTO runs ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"


class RunList(list[RunLine]):
    """Runs, newest first; printing it prints the table."""

    def __str__(self) -> str:
        from headstart.workflow.tables import runs_table

        return runs_table(self)


def index_path() -> Path:
    """Return the file of the index."""
    return cache_folder() / "runs.sqlite"


def runs(folder: str | Path | None = None) -> RunList:
    """Return the finished runs that are known, newest first.

    Parameters
    ----------
    folder : path, optional
        Only those below this folder, which is searched for runs that the list does not know.

    Examples
    --------
    >>> len(runs("/nowhere"))
    0
    """
    known: dict[str, RunLine] = {line.folder: line for line in _known()}
    searched = _scan([Path(folder)] if folder is not None else [Path("runs")])
    fresh = [line for line in searched if known.get(line.folder) != line]
    if fresh:
        with contextlib.suppress(sqlite3.Error, OSError):
            _store(fresh)
        known |= {line.folder: line for line in fresh}
    found, gone = [], []
    for line in known.values():
        path = Path(line.folder)
        if (path / "report.json").is_file():
            if folder is None or path.is_relative_to(Path(folder).resolve()):
                found.append(line)
        elif path.parent.is_dir():
            gone.append(line.folder)
    if gone:
        with contextlib.suppress(sqlite3.Error, OSError), _open() as database:
            database.executemany("DELETE FROM runs WHERE folder = ?", [(path,) for path in gone])
    return RunList(sorted(found, key=lambda line: (line.created, line.folder), reverse=True))


def remember(folder: Path, report: dict[str, Any], progress: Progress) -> None:
    """Put a finished run on the list."""
    try:
        _store([_line(folder.resolve(), report)])
    except (sqlite3.Error, OSError, KeyError) as error:
        progress.say(f"the list of runs could not be written ({error}); the run itself is complete")


def _line(folder: Path, report: dict[str, Any]) -> RunLine:
    metric = str(report["verdict_metric"])
    figure = report["metrics"].get(metric, {})
    goal, rungs = report.get("goal") or {}, report.get("rungs") or []
    parts = report.get("rows_by_part", {})
    return RunLine(
        folder=str(folder),
        name=folder.name,
        title=str(report.get("title", "")),
        created=str(report.get("created", "")),
        task=str(report["task"]),
        metric=metric,
        value=figure.get("value"),
        low=figure.get("low"),
        high=figure.get("high"),
        transfer_helped=str(report["transfer_helped"]).lower(),
        goal=str(goal.get("text", "")),
        goal_met=None if not goal else int(bool(goal.get("met"))),
        backbone=str(report.get("backbone", "")),
        rung=next((str(rung["title"]) for rung in rungs if rung.get("kept")), ""),
        rungs=sum(rung.get("status") == "tried" for rung in rungs),
        cpu_seconds=float(report["cost"]["cpu_seconds"]),
        wall_seconds=float(report["cost"]["wall_seconds"]),
        train_rows=int(parts.get("train", 0)),
        test_rows=int(parts.get("test", 0)),
        size_bytes=int((report.get("model") or {}).get("size_bytes") or 0),
    )


def _known() -> list[RunLine]:
    """Return what the index holds; a damaged one, or one of another version, is made again."""
    if not index_path().exists():
        return _rebuild() if _places_path().exists() else []
    try:
        if index_path().stat().st_size == 0:
            return _rebuild()
        with _open() as database:
            rows = database.execute(f"SELECT {', '.join(_COLUMNS)} FROM runs").fetchall()
        return [RunLine(*row) for row in rows]
    except (sqlite3.DatabaseError, OSError) as error:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            return _scan(_places())
        return _rebuild()


def _store(lines: list[RunLine]) -> None:
    try:
        with _open() as database:
            database.executemany(_INSERT, [astuple(line) for line in lines])
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "readonly" in str(error) or "full" in str(error):
            raise
        _rebuild(lines)
    except sqlite3.DatabaseError:
        _rebuild(lines)
    _add_places({str(Path(line.folder).parent) for line in lines})


def _rebuild(lines: list[RunLine] | None = None) -> list[RunLine]:
    """Make the index again from the run folders, in a file of its own that then takes the name."""
    found = {line.folder: line for line in [*_scan(_places()), *(lines or [])]}
    with contextlib.suppress(sqlite3.Error, OSError), atomic_path(index_path()) as temporary:
        with contextlib.closing(sqlite3.connect(temporary)) as database, database:
            _prepare(database)
            database.executemany(_INSERT, [astuple(line) for line in found.values()])
        for left in ("-journal", "-wal"):
            index_path().with_name(index_path().name + left).unlink(missing_ok=True)
    return list(found.values())


@contextlib.contextmanager
def _open() -> Iterator[sqlite3.Connection]:
    index_path().parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(index_path(), timeout=_WAIT)) as database:
        with database:
            _prepare(database)
        with database:
            yield database


def _prepare(database: sqlite3.Connection) -> None:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, _VERSION):
        raise sqlite3.DatabaseError(f"the index has version {version}")
    if version == 0:
        database.execute(_TABLE)
        database.execute(f"PRAGMA user_version = {_VERSION}")


def _scan(places: list[Path]) -> list[RunLine]:
    """Return the finished runs that lie in some folders, or are these folders."""
    lines = []
    for place in places:
        with contextlib.suppress(OSError):
            for path in [place, *(sorted(place.iterdir()) if place.is_dir() else [])]:
                line = _read(path)
                if line is not None:
                    lines.append(line)
    return lines


def _read(path: Path) -> RunLine | None:
    if not (path / "run.toml").is_file():
        return None
    try:
        return _line(path.resolve(), json.loads((path / "report.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _places_path() -> Path:
    return cache_folder() / "run-places.txt"


def _places() -> list[Path]:
    try:
        text = _places_path().read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        text = ""
    return [Path(line) for line in dict.fromkeys([*text.splitlines(), str(Path("runs").resolve())]) if line]


def _add_places(places: set[str]) -> None:
    """Append folders that are not known yet: one write each, which other processes cannot tear."""
    new = sorted(places - {str(place) for place in _places()} - {""}) if _places_path().exists() else sorted(places)
    if new:
        text = "".join(f"{place}\n" for place in new)
        with _places_path().open("ab") as stream:
            stream.write(os.fsencode(text))
