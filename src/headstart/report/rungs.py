"""What a run tried, rung by rung: the account the page shows and ``rungs.json`` keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from headstart.evaluation import PairedTest

__all__ = ["Climb", "RungLine", "RungStatus", "StoppedBy", "short_name"]

RungStatus = Literal["tried", "skipped", "failed", "cut-off"]
StoppedBy = Literal["goal", "budget", "not-worth-it", "limits", "last-rung", "no-goal", "asked"]


def short_name(backbone: str) -> str:
    """Return a base model's name for a line of text: of a path only the last part.

    Examples
    --------
    >>> short_name("/weights/resnet50.safetensors"), short_name("timm:resnet18"), short_name("weights/bert/")
    ('resnet50', 'timm:resnet18', 'bert')
    """
    return backbone.rstrip("/\\").replace("\\", "/").rpartition("/")[2].removesuffix(".safetensors")


@dataclass(frozen=True)
class RungLine:
    """One rung of the climb.

    Parameters
    ----------
    number : int
        Place in the climb, from 1.
    name : str
        ``"head"``, ``"base-model"``, ``"partial"``, ``"full"``, ``"search"``, ``"asked"`` or ``"adaptation"`` (to rows without
        labels: a second model, which has no figure on the judging rows).
    title : str
        What it is, for people.
    backbone : str
        Base model.
    status : {"tried", "skipped", "failed", "cut-off"}
        A skipped rung was never started; a cut-off one ran out of budget and changed nothing.
    reason : str
        Why it was not tried; for one that was, why the climb went on or stopped after it.
    decision : {"go", "stop", ""}
        What was decided after it; empty for rungs that were not tried.
    expected : float, optional
        What it was expected to bring over the best before, in the metric's unit, positive better.
    expected_why : str
        The arithmetic of that number.
    worth : float, optional
        The least gain that was worth it.
    value, low, high : float, optional
        The metric on the judging rows, with its 95 % interval; predictions made without those rows.
    paired : PairedTest, optional
        Against the best before; positive favours this rung.
    held_out : float, optional
        The metric on held-out predictions of every training row, for heads.
    cpu_seconds, wall_seconds : float
        What it cost.
    memory_bytes, size_bytes, latency_seconds : optional
        Measured peak of the process, size of the saved model, time for one row.
    kept : bool
        Whether it is the model delivered.
    settings : mapping
        The recipe: strategy, epochs, learning rate, weights of losses.
    tries : sequence of mappings
        Of a search: every recipe with the figure it was chosen by.
    notes : sequence of str
        What a person should know.
    """

    number: int
    name: str
    title: str
    backbone: str = ""
    status: RungStatus = "tried"
    reason: str = ""
    decision: Literal["go", "stop", ""] = ""
    expected: float | None = None
    expected_why: str = ""
    worth: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    paired: PairedTest | None = None
    held_out: float | None = None
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_bytes: float | None = None
    size_bytes: float | None = None
    latency_seconds: float | None = None
    kept: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    tries: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value with the same names."""
        return {**vars(self), "paired": None if self.paired is None else self.paired.to_dict()}


@dataclass(frozen=True)
class Climb:
    """All rungs of a run, and why it went no further.

    Parameters
    ----------
    metric : str
        What rungs were compared by.
    rows : int
        Judging rows: training rows that no rung's prediction for them has seen.
    rungs : sequence of RungLine
        In the order they were considered.
    stopped : str
        ``"goal"`` met, ``"budget"`` spent, ``"not-worth-it"``, ``"limits"`` (nothing more fits them), ``"last-rung"``,
        ``"no-goal"`` (nothing to climb for) or ``"asked"`` (a strategy was named).
    reason : str
        The same in a sentence.
    optimism : float
        By how much the kept rung's figure flatters for being the best of several, in the metric's unit.
    refit : str
        Whether the fine-tuned model learnt from all training rows in the end, and why; empty for heads, which always do.
    goal : float, optional
        The value the metric had to reach.
    """

    metric: str
    rows: int
    rungs: Sequence[RungLine]
    stopped: StoppedBy
    reason: str
    optimism: float = 0.0
    refit: str = ""
    goal: float | None = None

    @property
    def tried(self) -> list[RungLine]:
        """Rungs that have a figure."""
        return [line for line in self.rungs if line.status == "tried" and line.value is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value."""
        return {
            "metric": self.metric,
            "judging_rows": self.rows,
            "stopped": self.stopped,
            "reason": self.reason,
            "optimism": self.optimism,
            "refit": self.refit,
            "goal": self.goal,
            "rungs": [line.to_dict() for line in self.rungs],
        }
