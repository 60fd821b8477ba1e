"""What the loop watches: losses by objective, the measure on the rows as they train, and whether a loss can still be believed.

Losses are looked at in every step on a processor, and a few steps later on a GPU, which would have to wait otherwise. A training
breaks off where a loss or a gradient is not finite, and where the loss of a phase has exploded: its running mean over about ten
steps is more than ten times what it was at the first step, or what guessing would cost, whichever is larger. Every phase is
watched by itself, so a critic that runs away is noticed behind a classifier that learns.
Shapes: b rows in a batch, k outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.core.tasks import Task
from headstart.objectives import Batch, supervised_objective

__all__ = ["Broken", "LossWatch", "Measure", "chance_loss", "spread", "target_tensor", "validation_loss"]

_EXPLODED = 10.0
_SMOOTH = 0.9
_LOOK_EVERY = 16


def target_tensor(task: Task, targets: NDArray[Any] | None) -> Tensor | None:
    """Return targets as the objectives take them: int64 class numbers, float32 indicators or numbers."""
    if targets is None:
        return None
    if task.kind == "classification":
        return torch.from_numpy(np.ascontiguousarray(targets, dtype=np.int64))
    return torch.from_numpy(np.ascontiguousarray(targets, dtype=np.float32))


def validation_loss(task: Task, logits_bk: Tensor, targets: Tensor) -> float:
    """Return the task's plain loss: no smoothing, no weights."""
    return float(supervised_objective(task)(Batch(labels=targets, logits=logits_bk)))


def spread(task: Task, targets: NDArray[Any] | None) -> float:
    """Return the variance of targets that are numbers; 0 for classes."""
    return float(np.var(targets)) if task.kind == "regression" and targets is not None else 0.0


def chance_loss(task: Task, targets: NDArray[Any] | None) -> float:
    """Return what guessing costs: log k, log 2, or the variance."""
    if task.kind == "regression":
        return spread(task, targets)
    return math.log(max(2, task.num_outputs)) if task.kind == "classification" else math.log(2)


@dataclass
class Measure:
    """Accuracy, the mean per-class accuracy of multi-label rows, or R2, added up batch by batch.

    Parameters
    ----------
    task : Task
        Says which.
    spread : float
        Variance of the targets, for R2.

    Examples
    --------
    >>> measure = Measure(Task("classification", ("a", "b")))
    >>> measure.add(torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0]))
    >>> measure.value
    0.5
    """

    task: Task
    spread: float = 0.0
    good: float = 0.0
    count: int = 0
    _waiting: list[Tensor] = field(default_factory=list)

    def add(self, output_bk: Tensor, targets: Tensor) -> None:
        """Add a batch. Soft labels of classes count as the most likely one."""
        if self.task.kind == "classification":
            truth = targets if targets.ndim == 1 else targets.argmax(1)
            good = (output_bk.argmax(1) == truth).sum()
            self.count += len(truth)
        elif self.task.kind == "multilabel":
            good = ((output_bk > 0) == (targets > 0.5)).sum()
            self.count += targets.numel()
        else:
            good = (output_bk.reshape(-1) - targets.reshape(-1)).double().square().sum()
            self.count += targets.numel()
        self._waiting.append(good)
        if output_bk.device.type == "cpu" or len(self._waiting) >= _LOOK_EVERY:
            self.collect()

    def collect(self) -> None:
        """Fetch what was counted."""
        for value in self._waiting:
            self.good += float(value)
        self._waiting.clear()

    @property
    def value(self) -> float:
        """The measure of all batches so far; not a number before the first."""
        self.collect()
        if not self.count:
            return math.nan
        share = self.good / self.count
        if self.task.kind != "regression":
            return share
        return 1 - share / self.spread if self.spread > 0 else 0.0

    def reset(self) -> None:
        """Begin anew."""
        self.collect()
        self.good, self.count = 0.0, 0


class Broken(Exception):
    """A loss that cannot be believed: at which step, on which rows, and what is wrong. The loop makes a `TrainingError` of it."""

    def __init__(self, step: int, positions: NDArray[np.int64], what: str) -> None:
        super().__init__(what)
        self.step, self.positions, self.what = step, positions, what


class LossWatch:
    """Adds up losses by name between two checks, and notices when one cannot be believed.

    Parameters
    ----------
    names : list of str
        Every objective of every phase, in order.
    sizes : sequence of int
        How many of them belong to each phase.
    chance : float
        What guessing costs: a loss below ten times that is no explosion. Phases after the first may be about something else
        than the task, so theirs are none either below ten times log 2, which guessing between two costs.
    every_step : bool
        Look at losses at once.
    """

    def __init__(self, names: list[str], sizes: Sequence[int], chance: float, every_step: bool) -> None:
        ends = list(accumulate(sizes))
        self.names, self.chance = names, chance
        self._phases = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        self._every = 1 if every_step else _LOOK_EVERY
        self.sums = [0.0] * len(names)
        self.steps = 0
        self.first: list[float] = []
        self.recent: list[float] = []
        self._waiting: list[tuple[int, NDArray[np.int64], list[Tensor | float], Tensor | None]] = []

    def add(self, step: int, positions: NDArray[np.int64], terms: list[Tensor | float], norm: Tensor | None) -> None:
        """Take the losses of one step, in the order of the names, and the length of its gradient.

        Raises
        ------
        Broken
            If a loss of this step, or of one that waited, is not finite or has exploded.
        """
        self._waiting.append((step, positions, terms, norm))
        if len(self._waiting) >= self._every:
            self.collect()

    def collect(self) -> None:
        """Look at everything that waits."""
        waiting, self._waiting = self._waiting, []
        for step, positions, terms, norm in waiting:
            values = [float(term) for term in terms]
            self._believe(step, positions, values, 0.0 if norm is None else float(norm))
            self.steps += 1
            for place, value in enumerate(values):
                self.sums[place] += value

    def _believe(self, step: int, positions: NDArray[np.int64], values: list[float], norm: float) -> None:
        for name, value in zip(self.names, values, strict=True):
            if not math.isfinite(value):
                raise Broken(step, positions, f"the loss {name} is {value}")
        if not math.isfinite(norm):
            raise Broken(step, positions, f"the gradient is {norm}")
        losses = [abs(sum(values[phase])) for phase in self._phases]
        if not self.first:
            self.first, self.recent = list(losses), list(losses)
        for place, (phase, loss) in enumerate(zip(self._phases, losses, strict=True)):
            self.recent[place] = _SMOOTH * self.recent[place] + (1 - _SMOOTH) * loss
            chance = max(self.chance, math.log(2)) if place else self.chance
            if self.recent[place] > _EXPLODED * max(self.first[place], chance):
                name, _ = max(zip(self.names[phase], values[phase], strict=True), key=lambda item: abs(item[1]))
                what = f"the loss has exploded from {self.first[place]:.3g} to {loss:.3g}, most of all {name}"
                raise Broken(step, positions, what)

    def means(self) -> list[float]:
        """Return the mean of every loss since the last call, and begin anew."""
        self.collect()
        means = [value / max(1, self.steps) for value in self.sums]
        self.sums, self.steps = [0.0] * len(self.names), 0
        return means

    def state(self) -> dict[str, Any]:
        """Return a JSON value that `restore` takes back."""
        self.collect()
        return {"sums": list(self.sums), "steps": self.steps, "first": list(self.first), "recent": list(self.recent)}

    def restore(self, value: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.sums, self.steps = list(value["sums"]), value["steps"]
        self.first, self.recent = list(value["first"]), list(value["recent"])
