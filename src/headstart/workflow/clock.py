"""Time against a budget: what is left, and work that is broken off when nothing is."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from headstart.core.errors import HeadstartError
from headstart.core.progress import Progress, Stage

__all__ = ["BudgetSpent", "Clock", "with_deadline"]


@dataclass
class Clock:
    """Time spent against the budget; ``earlier`` wall-clock and ``cpu_earlier`` CPU seconds went before this process began."""

    budget: float
    earlier: float = 0.0
    cpu_earlier: float = 0.0

    def __post_init__(self) -> None:
        self.started, self.cpu_started = time.perf_counter(), time.process_time()

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.budget - self.wall_spent

    @property
    def wall_spent(self) -> float:
        """Wall-clock seconds spent so far, by earlier processes too."""
        return self.earlier + time.perf_counter() - self.started

    @property
    def cpu_spent(self) -> float:
        """CPU seconds spent so far, by earlier processes too."""
        return self.cpu_earlier + time.process_time() - self.cpu_started

    @property
    def busy(self) -> float:
        """CPU seconds that one waiting second buys, at most 1: less where others share the machine."""
        waited = max(time.perf_counter() - self.started, 1e-9)
        return min(1.0, max(0.1, (time.process_time() - self.cpu_started) / waited))


class BudgetSpent(HeadstartError):
    """The budget ran out in the middle of a rung."""


class _Deadline(Progress):
    """A progress that breaks a rung off when the budget is spent; checked whenever a stage advances."""

    def __init__(self, progress: Progress, seconds: float) -> None:
        super().__init__(progress.stream, progress.quiet)
        self.costs = progress.costs
        self._ends = time.perf_counter() + seconds

    def _draw(self, stage: Stage) -> None:
        if time.perf_counter() > self._ends:
            raise BudgetSpent(f"{stage.name}: the budget is spent.")
        super()._draw(stage)


def with_deadline(progress: Progress, seconds: float) -> Progress:
    """Return a progress that breaks the work off after so many seconds; the same one where there is no end."""
    return progress if math.isinf(seconds) else _Deadline(progress, seconds)
