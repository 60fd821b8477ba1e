"""One line per stage: rows done, rows a second, time left, and how much came from the cache.

A `Progress` also keeps the account of what every stage cost, which the report prints. Work that is called through an interface
with no room for one (``fit`` of a scikit-learn estimator) reports to the one that `watching` has set.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TextIO

__all__ = ["Progress", "Stage", "StageCost", "format_seconds", "watched", "watching"]


def format_seconds(seconds: float) -> str:
    """Return a duration for people.

    Examples
    --------
    >>> format_seconds(0.25), format_seconds(75), format_seconds(7300)
    ('0.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@dataclass
class StageCost:
    """What one stage cost.

    ``rows`` counts all rows it served, ``from_cache`` those that cost nothing. CPU seconds are of this process, all
    threads.
    """

    name: str
    rows: int = 0
    from_cache: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass
class Stage:
    """A running stage; call `advance` for every batch of rows."""

    name: str
    total: int | None
    progress: Progress
    done: int = 0
    from_cache: int = 0
    note: str = ""
    started: float = field(default_factory=time.perf_counter)
    cpu_started: float = field(default_factory=time.process_time)

    def advance(self, rows: int, from_cache: int = 0) -> None:
        """Count ``rows`` more rows, of which ``from_cache`` were already known."""
        self.done += rows
        self.from_cache += from_cache
        self.progress._draw(self)

    def line(self) -> str:
        """Return the stage's line as it stands."""
        elapsed = time.perf_counter() - self.started
        computed = self.done - self.from_cache
        parts = [f"{self.name:<9}"]
        if self.total is not None:
            parts.append(f"{self.done:,}/{self.total:,} rows")
        elif self.done:
            parts.append(f"{self.done:,} rows")
        if computed > 0 and elapsed > 0.05:
            parts.append(f"{computed / elapsed:,.0f} rows/s")
        if self.from_cache and self.done:
            parts.append(f"{100 * self.from_cache / self.done:.0f} % from cache")
        if self.total and 0 < self.done < self.total:
            rate = (computed or self.done) / max(elapsed, 1e-9)
            parts.append(f"{format_seconds((self.total - self.done) / rate)} left")
        else:
            parts.append(format_seconds(elapsed))
        if self.note:
            parts.append(self.note)
        return "  ".join(parts)


class Progress:
    """Prints stages and remembers their cost.

    Parameters
    ----------
    stream : text stream, optional
        Where lines go; standard error when left out. On a terminal the running line is redrawn in place.
    quiet : bool
        Print nothing, only keep the account.
    """

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.quiet = quiet
        self.costs: list[StageCost] = []
        self._last_drawn = 0.0

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """Open a stage. Its line is printed when the block ends, and redrawn meanwhile on a terminal."""
        stage = Stage(name, total, self)
        try:
            yield stage
        finally:
            self.costs.append(
                StageCost(
                    name,
                    stage.done,
                    stage.from_cache,
                    time.perf_counter() - stage.started,
                    time.process_time() - stage.cpu_started,
                )
            )
            if not self.quiet:
                lead = "\r\033[K" if self._redraws() else ""
                print(lead + stage.line(), file=self.stream, flush=True)

    def say(self, text: str) -> None:
        """Print a line between stages."""
        if not self.quiet:
            print(text, file=self.stream, flush=True)

    def _redraws(self) -> bool:
        return bool(getattr(self.stream, "isatty", lambda: False)())

    def _draw(self, stage: Stage) -> None:
        now = time.perf_counter()
        if self.quiet or not self._redraws() or now - self._last_drawn < 0.1:
            return
        self._last_drawn = now
        print("\r\033[K" + stage.line(), end="", file=self.stream, flush=True)


_WATCHED: ContextVar[Progress | None] = ContextVar("watched", default=None)


@contextlib.contextmanager
def watching(progress: Progress) -> Iterator[None]:
    """Let everything called within report to ``progress``, where nobody hands it one.

    Examples
    --------
    >>> mine = Progress(quiet=True)
    >>> with watching(mine):
    ...     watched() is mine
    True
    >>> watched() is mine
    False
    """
    token = _WATCHED.set(progress)
    try:
        yield
    finally:
        _WATCHED.reset(token)


def watched() -> Progress:
    """Return the progress that `watching` has set around the caller; a quiet one where nobody has."""
    return _WATCHED.get() or Progress(quiet=True)
