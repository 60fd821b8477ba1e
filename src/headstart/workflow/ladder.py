"""The loop: rung after rung, the cheapest first, until the goal is met, the budget is spent, or nothing is worth it.

    1 solved head on the base model ranked first      4 full fine-tuning with regularisers
    2 better base models, each with a solved head     5 search over recipes
    3 fine-tuning of the last stages

Before a rung starts: what it is expected to bring (`headstart.workflow.expectation`), whether that is worth it, whether it fits
the limits on size, memory and latency, and whether the budget has room. After it: its figure on the judging rows with an
interval, a paired test against the best before, its cost, and go or stop with the reason. The better figure wins; at equal
figures the earlier, cheaper rung. Nothing here sees a test row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from headstart.core.errors import GoalError, HeadstartError
from headstart.core.progress import Progress, format_seconds
from headstart.evaluation import CurvePoint, Interval, format_interval, format_metric, format_p_value, metric_title
from headstart.features import Features
from headstart.model import Model
from headstart.report import Climb, RungLine, StoppedBy, TrainingCurves
from headstart.workflow.clock import BudgetSpent, Clock, with_deadline
from headstart.workflow.expectation import Expectation, gain_text, worth_of
from headstart.workflow.goal import Goal
from headstart.workflow.judging import Array, Judging
from headstart.workflow.limits import Limits, bytes_text, watch_memory

__all__ = ["Climbed", "Ladder", "Needs", "Rung", "Standing", "Tried"]


_SOLVES_HEAD = {"head", "base-model"}


@dataclass(frozen=True)
class Needs:
    """What a rung will need, estimated before it starts; None where nothing is known."""

    wall_seconds: float = 0.0
    size: float | None = None
    memory: float | None = None
    latency: float | None = None


@dataclass(frozen=True)
class Tried:
    """One rung carried through.

    Parameters
    ----------
    model : Model
        What it made.
    scores : array of shape (n, k) or (n,)
        For the judging rows, made without them.
    backbone : str
        Base model it began from.
    goal_metrics : mapping
        Every metric, by which the goal is judged: on all training rows where they are held out, else on the judging rows.
    features : Features, optional
        Of the training rows, where a head was solved on them.
    held_out : float, optional
        The metric on all training rows, where they are held out.
    curves : TrainingCurves, optional
        Of a fine-tuned rung.
    refit : callable, optional
        Makes the model again from all training rows, by the same recipe.
    size, latency : float, optional
        Measured.
    costs : tuple of 2 floats, optional
        CPU and wall-clock seconds where they were spent in an earlier process.
    """

    model: Model
    scores: Array
    backbone: str
    goal_metrics: Mapping[str, float]
    features: Features | None = None
    held_out: float | None = None
    curves: TrainingCurves | None = None
    refit: Callable[[Progress], Model] | None = None
    size: float | None = None
    latency: float | None = None
    costs: tuple[float, float] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    tries: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()


@dataclass
class Standing:
    """Where a climb stands: what a rung may look at before and while it runs."""

    judging: Judging
    clock: Clock
    progress: Progress
    best: Tried | None = None
    head: Tried | None = None
    tuned: tuple[float, float] | None = None
    """What the last fine-tuned rung was expected to bring, and what it brought."""
    curve: Callable[[], Sequence[CurvePoint]] = tuple
    """Learning curve of the best solved head; computed once, when first asked for."""

    @property
    def value(self) -> float:
        """The best figure so far."""
        assert self.best is not None
        return self.judging.value(self.best.scores)


class Rung(Protocol):
    """One way to a better model.

    Attributes
    ----------
    name, title : str
        As in `RungLine`.
    backbone : str
        Base model, where it is known beforehand.
    forced : bool
        Tried whatever it is expected to bring, because the user named it.
    """

    name: str
    title: str
    backbone: str
    forced: bool

    def expect(self, standing: Standing) -> Expectation:
        """Return what it may bring over the best so far."""

    def needs(self, standing: Standing) -> Needs:
        """Return what it will need; may time a few rows."""

    def run(self, standing: Standing) -> Tried:
        """Do it."""


@dataclass(frozen=True)
class Climbed:
    """How a climb ended: the rung kept, the best solved head, the account, the curves of every fine-tuned rung."""

    best: Tried
    head: Tried
    climb: Climb
    curves: Sequence[TrainingCurves] = ()


class Ladder:
    """Climbs.

    Parameters
    ----------
    standing : Standing
        Judging rows, clock, where lines go.
    goal : Goal, optional
        What ends the climb when it is met.
    limits : Limits
        What a rung may need at most.
    reserve : float
        Seconds of the budget kept for what comes after the climb.
    on_change : callable, optional
        Called with the account so far after every rung.
    """

    def __init__(
        self,
        standing: Standing,
        goal: Goal | None,
        limits: Limits,
        *,
        reserve: float = 0.0,
        on_change: Callable[[Climb], None] | None = None,
    ) -> None:
        self.standing, self.goal, self.limits = standing, goal, limits
        self.reserve, self.on_change = reserve, on_change
        self.lines: list[RungLine] = []
        self.scores: list[Array] = []
        self.curves: list[TrainingCurves] = []
        self.metric = standing.judging.metric
        self._refused = {"budget": 0, "not-worth-it": 0, "limits": 0, "no-goal": 0}
        self._kept = -1

    def climb(self, rungs: Sequence[Rung]) -> Climbed:
        """Try the rungs in order.

        Raises
        ------
        GoalError
            If no base model at all fits the limits.
        HeadstartError
            If the first rung fails: there is nothing to fall back on.
        """
        standing = self.standing
        for rung in rungs:
            if standing.head is None and rung.name not in _SOLVES_HEAD:
                continue  # no base model fitted the limits: there is nothing to fine-tune
            if standing.best is not None and self._met() and not rung.forced:
                break
            if standing.best is not None and self.goal is None and not rung.forced:
                self._foretell(rung)
                continue
            if standing.best is not None and standing.clock.left <= 0:
                self._refuse(rung, "budget", "the budget was spent")
                continue
            self._consider(rung)
        if standing.best is None:
            reasons = "; ".join(f"{line.title}: {line.reason}" for line in self.lines)
            raise GoalError(
                f"fit: no base model fits the limits ({self.limits}); {reasons}. Raise a limit, or name another."
            )
        assert standing.head is not None
        stopped, reason = self._why_stopped(rungs)
        self._decide("stop", reason)
        climb = self._account(stopped, reason)
        standing.progress.say(f"climb: stopped, {reason}")
        return Climbed(standing.best, standing.head, climb, self.curves)

    def _foretell(self, rung: Rung) -> None:
        """Say what a rung would be expected to bring, where nothing asks for it."""
        expectation = rung.expect(self.standing)
        worth = worth_of(self.metric, self.standing.value)
        verdict = (
            "worth a try" if expectation.gain >= worth else f"less than {gain_text(self.metric, worth)}, not worth it"
        )
        reason = f"not asked for; expected to bring {gain_text(self.metric, expectation.gain)}, {verdict} (--goal or --strategy)"
        self._refuse(rung, "no-goal", reason, expectation, worth)

    def _consider(self, rung: Rung) -> None:
        standing, expectation, worth = self.standing, None, None
        if standing.best is not None:
            expectation = rung.expect(standing)
            worth = worth_of(self.metric, standing.value)
            if expectation.gain < worth and not rung.forced:
                gain, least = (gain_text(self.metric, number) for number in (expectation.gain, worth))
                reason = f"not worth it: expected {gain}, less than {least}, 2 % of what is missing to the ideal"
                self._refuse(rung, "not-worth-it", reason, expectation, worth)
                return
        needs = rung.needs(standing)
        broken = self.limits.broken_by(size=needs.size, memory=needs.memory, latency=needs.latency)
        if broken:
            self._refuse(rung, "limits", f"never started: {'; '.join(broken)}", expectation, worth)
            return
        room = standing.clock.left - self.reserve
        if standing.best is not None and needs.wall_seconds > max(room, 0.0):
            reason = (
                f"the budget is too small for it: about {format_seconds(needs.wall_seconds)} needed, "
                f"{format_seconds(max(room, 0))} left"
            )
            self._refuse(rung, "budget", reason, expectation, worth)
            return
        if expectation is not None:
            gain = gain_text(self.metric, expectation.gain)
            self._decide(
                "go", f"{rung.title} is expected to bring {gain}" + (" and was asked for" if rung.forced else "")
            )
        self._run(rung, expectation, worth)

    def _run(self, rung: Rung, expectation: Expectation | None, worth: float | None) -> None:
        standing, said = self.standing, self.standing.progress
        line = self._line(rung, expectation, worth)
        started, cpu_started = time.perf_counter(), time.process_time()
        if standing.best is not None:
            standing.progress = with_deadline(said, standing.clock.left)
        try:
            with watch_memory() as memory:
                tried = rung.run(standing)
        except HeadstartError as error:
            if standing.best is None:
                raise
            cut = isinstance(error, BudgetSpent)
            reason = "the budget ran out in the middle of it" if cut else str(error)
            self.lines.append(
                replace(
                    line,
                    status="cut-off" if cut else "failed",
                    reason=reason,
                    cpu_seconds=time.process_time() - cpu_started,
                    wall_seconds=time.perf_counter() - started,
                )
            )
            self._refused["budget"] += cut
            said.say(f"{rung.title}: {reason}")
            self._changed()
            return
        finally:
            standing.progress = said
        costs_now = (time.process_time() - cpu_started, time.perf_counter() - started)
        self._take(rung, replace(line, memory_bytes=memory.peak or None), tried, tried.costs or costs_now)

    def _take(self, rung: Rung, line: RungLine, tried: Tried, costs: tuple[float, float]) -> None:
        """Judge what a rung made, write its line, and keep it if it is the best."""
        standing, judging = self.standing, self.standing.judging
        interval = judging.interval(tried.scores)
        paired = None if standing.best is None else judging.compare(tried.scores, standing.best.scores)
        line = replace(
            line,
            backbone=tried.backbone,
            value=interval.value,
            low=interval.low,
            high=interval.high,
            paired=paired,
            held_out=tried.held_out,
            cpu_seconds=costs[0],
            wall_seconds=costs[1],
            size_bytes=tried.size,
            latency_seconds=tried.latency,
            settings=tried.settings,
            tries=tried.tries,
            notes=tried.notes,
        )
        over = self.limits.broken_by(size=tried.size, memory=line.memory_bytes, latency=tried.latency)
        if over:
            line = replace(line, notes=[*line.notes, f"measured above its limit: {'; '.join(over)}"])
        better = paired is None or paired.difference > 0 or rung.forced
        if paired is not None and tried.features is None:
            standing.tuned = (line.expected or 0.0, paired.difference)
        if better and (not over or standing.best is None):
            standing.best, self._kept = tried, len(self.lines)
        if tried.features is not None and (standing.head is None or (better and not over)):
            standing.head = tried
        self.lines.append(line)
        self.scores.append(tried.scores)
        if tried.curves is not None:
            self.curves.append(tried.curves)
        standing.progress.say(rung_text(self.metric, line, len(judging)))
        self._changed()

    def _line(self, rung: Rung, expectation: Expectation | None, worth: float | None) -> RungLine:
        return RungLine(
            len(self.lines) + 1,
            rung.name,
            rung.title,
            rung.backbone,
            expected=None if expectation is None else expectation.gain,
            expected_why="" if expectation is None else expectation.why,
            worth=worth,
        )

    def _refuse(
        self, rung: Rung, cause: str, reason: str, expectation: Expectation | None = None, worth: float | None = None
    ) -> None:
        """Write a line for a rung that is not started; several base models in a row share one."""
        self._refused[cause] += 1
        line = replace(self._line(rung, expectation, worth), status="skipped", reason=reason)
        last = self.lines[-1] if self.lines else None
        alike = last is not None and last.status == "skipped" and last.name == line.name == "base-model"
        if (
            last is not None
            and alike
            and cause != "limits"
            and last.reason.partition(":")[0] == reason.partition(":")[0]
        ):
            names = [*last.settings.get("base_models", [last.backbone]), rung.backbone]
            title = f"{len(names)} more base models"
            self.lines[-1] = replace(last, title=title, backbone="", settings={"base_models": names})
            return
        self.lines.append(line)
        self.standing.progress.say(f"{rung.title}: {reason}")
        self._changed()

    def _decide(self, decision: Any, reason: str) -> None:
        """Write into the line of the last rung that was tried what was decided after it."""
        for place in range(len(self.lines) - 1, -1, -1):
            if self.lines[place].status != "skipped":
                if self.lines[place].status == "tried":
                    self.lines[place] = replace(self.lines[place], decision=decision, reason=reason)
                return

    def _met(self) -> bool:
        best, kept = self.standing.best, self.lines[self._kept]
        if self.goal is None or best is None or not self.goal.met_by(best.goal_metrics):
            return False
        return not self.limits.broken_by(size=best.size, memory=kept.memory_bytes, latency=best.latency)

    def _why_stopped(self, rungs: Sequence[Rung]) -> tuple[StoppedBy, str]:
        if any(rung.forced for rung in rungs):
            return "asked", "the strategy that was asked for has been tried"
        if self.goal is None:
            return "no-goal", "without a goal the solved head is the answer"
        if self._met():
            return "goal", "the goal is met on rows held out from training"
        if self._refused["budget"]:
            few = "" if sum(line.status == "tried" for line in self.lines) > 1 else " for a rung beyond the solved head"
            return "budget", f"the budget is spent, or too small{few}"
        if self._refused["not-worth-it"]:
            return "not-worth-it", "no rung left is expected to bring enough to be worth it"
        if self._refused["limits"]:
            return "limits", "every rung left needs more than the limits allow"
        return "last-rung", "every rung was tried"

    def _account(self, stopped: StoppedBy, reason: str) -> Climb:
        kept = self._kept
        lines = [replace(line, kept=place == kept) for place, line in enumerate(self.lines)]
        goal = None
        if self.goal is not None:
            goal = next((r.threshold for r in self.goal.requirements if r.metric == self.metric), None)
        optimism = self.standing.judging.optimism(self.scores)
        return Climb(self.metric, len(self.standing.judging), lines, stopped, reason, optimism, goal=goal)

    def _changed(self) -> None:
        if self.on_change is not None and self._kept >= 0:
            self.on_change(self._account("last-rung", "not finished"))


def rung_text(metric: str, line: RungLine, num_rows: int) -> str:
    """Return what is printed after a rung: its figure, the comparison with the best before, its cost."""
    assert line.value is not None and line.low is not None and line.high is not None
    ends = format_interval(metric, Interval(line.value, line.low, line.high))
    parts = [f"{metric_title(metric)} {format_metric(metric, line.value)} ({ends}) on {num_rows:,} judging rows"]
    if line.paired is not None:
        word = "better" if line.paired.difference > 0 else "worse" if line.paired.difference < 0 else "equal"
        size = gain_text(metric, abs(line.paired.difference), sign=False)
        parts.append(f"{word} by {size}, {format_p_value(line.paired.p_value)}" if word != "equal" else "no better")
    parts.append(f"{format_seconds(line.cpu_seconds)} of CPU time")
    if line.memory_bytes:
        parts.append(f"peak {bytes_text(line.memory_bytes)}")
    return f"rung {line.number}, {line.title}: {'; '.join(parts)}"
