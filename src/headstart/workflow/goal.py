"""What the user wants, parsed: ``"macro_f1 >= 0.95 and log_loss <= 0.2 and size <= 20MB"`` and ``"10m"``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from headstart.core.errors import ConfigError, GoalError
from headstart.core.tasks import Task
from headstart.metrics import find_metric, metrics_for
from headstart.workflow.limits import LIMITS, Limits, parse_size, parse_time

__all__ = ["Goal", "Requirement", "parse_budget", "parse_goal"]

_REQUIREMENT = re.compile(r"\s*([A-Za-z][\w ]*?)\s*(>=|<=|>|<|=>|=<|≥|≤)\s*([-+]?[\d.]+(?:e-?\d+)?)\s*(%?)\s*")
_LIMIT = re.compile(r"\s*([A-Za-z]+)\s*(>=|<=|>|<|=>|=<|≥|≤)\s*([\d.]+(?:e\d+)?\s*[A-Za-zµ]*)\s*")
_UNITS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "hour": 3600.0, "hours": 3600.0}


@dataclass(frozen=True)
class Requirement:
    """One metric and the value it has to reach."""

    metric: str
    threshold: float
    at_least: bool
    strict: bool = False

    def met_by(self, value: float) -> bool:
        """Return whether a value reaches it; NaN never does."""
        if math.isnan(value):
            return False
        if self.strict:
            return value > self.threshold if self.at_least else value < self.threshold
        return value >= self.threshold if self.at_least else value <= self.threshold


@dataclass(frozen=True)
class Goal:
    """Requirements that must all be met, and limits on what the model may need.

    Examples
    --------
    >>> goal = parse_goal("macro_f1 >= 0.95", Task("classification", ("a", "b")))
    >>> goal.met_by({"f1_macro": 0.96}), goal.met_by({"f1_macro": 0.90})
    (True, False)
    """

    text: str
    requirements: tuple[Requirement, ...]
    limits: Limits = field(default_factory=Limits)

    def met_by(self, metrics: Mapping[str, float]) -> bool:
        """Return whether measured values meet every requirement; limits are judged by `Limits.broken_by`."""
        return all(r.met_by(metrics.get(r.metric, math.nan)) for r in self.requirements)

    @property
    def metric(self) -> str:
        """The first metric named: what candidates are compared by."""
        return self.requirements[0].metric


def parse_goal(text: str, task: Task | None = None) -> Goal:
    """Return what a goal says.

    Parameters
    ----------
    text : str
        ``METRIC >= NUMBER``, several joined by "and" or a comma. A number followed by ``%`` is a percentage.
        Limits count as requirements: ``size <= 20MB``, ``memory <= 4GB``, ``latency <= 20ms``.
    task : Task, optional
        Says which metrics there are; all are allowed when left out, which finds most mistakes before any row is read.

    Raises
    ------
    GoalError
        If it cannot be read, names no metric of this task, asks a metric to be worse than a value, or can never be met.

    Examples
    --------
    >>> parse_goal("accuracy >= 95 %, log_loss <= 0.2", Task("classification", ("a", "b"))).requirements[0].threshold
    0.95
    """
    parts = [part for part in re.split(r"\s+and\s+|,|;|&&?", text.strip()) if part.strip()]
    if not parts:
        raise GoalError('goal: name at least one metric and a value, for example "accuracy >= 0.95"; got nothing.')
    limits = Limits()
    requirements = []
    for part in parts:
        limit = _limit(part)
        if limit is None:
            requirements.append(_requirement(part, text, task))
        else:
            limits = limits.tightened(limit)
    if not requirements:
        raise GoalError(
            f'goal: {text.strip()!r} limits what a model needs but names no metric; add one, "accuracy >= 0.95".'
        )
    return Goal(text.strip(), tuple(requirements), limits)


def _limit(part: str) -> Limits | None:
    """Return the limit a part of a goal states, None where it is about a metric."""
    match = _LIMIT.fullmatch(part)
    if match is None or match[1].lower() not in LIMITS:
        return None
    name, sign, amount = match[1].lower(), match[2], match[3]
    if sign in {">=", ">", "=>", "≥"}:
        raise GoalError(f"goal: {part.strip()!r} asks for a larger {name}; turn the sign round.")
    value = parse_size(amount, name) if LIMITS[name] == "bytes" else parse_time(amount, name)
    return Limits(**{name: value})


def _requirement(part: str, whole: str, task: Task | None) -> Requirement:
    match = _REQUIREMENT.fullmatch(part)
    if match is None:
        raise GoalError(
            f'goal: {whole!r} cannot be read at {part.strip()!r}; write METRIC >= NUMBER, for example "accuracy >= 0.95".'
        )
    name, sign, number, percent = match.groups()
    try:
        metric = find_metric(name.strip().replace(" ", "_").lower())
    except ConfigError as error:
        raise GoalError(f"goal: {str(error).removeprefix('find_metric: ')}") from error
    if task is not None and task.kind not in metric.kinds:
        known = ", ".join(item.name for item in metrics_for(task))
        raise GoalError(f"goal: {metric.name} is not defined for {task.kind}; use one of {known}.")
    try:
        threshold = float(number) / (100 if percent else 1)
    except ValueError as error:
        raise GoalError(f"goal: {number!r} is not a number; write METRIC >= NUMBER.") from error
    at_least = sign in {">=", ">", "=>", "≥"}
    if at_least != metric.higher_is_better:
        better = "higher" if metric.higher_is_better else "lower"
        raise GoalError(
            f"goal: {part.strip()!r} asks for a worse model, {better} {metric.name} is better; turn the sign round."
        )
    if threshold > 1 if at_least else threshold < 0:
        ends = "at most 1" if at_least else "at least 0"
        hint = f"; write {threshold:g} % or {threshold / 100:g}" if at_least and threshold <= 100 else ""
        raise GoalError(f"goal: {part.strip()!r} can never be met, {metric.name} is {ends}{hint}.")
    return Requirement(metric.name, threshold, at_least, strict=sign in {">", "<"})


def parse_budget(text: str | float | None) -> float:
    """Return a budget in seconds of wall-clock time; infinity for None.

    Raises
    ------
    GoalError
        If it is no positive duration.

    Examples
    --------
    >>> parse_budget("10m"), parse_budget("1h30m"), parse_budget("45"), parse_budget(None)
    (600.0, 5400.0, 45.0, inf)
    """
    if text is None:
        return math.inf
    written = str(text).strip().lower()
    pieces = re.findall(r"([\d.]+)\s*([a-z]*)\s*", written)
    try:
        if "".join(f"{number}{unit}" for number, unit in pieces) != written.replace(" ", ""):
            raise ValueError(written)
        seconds = sum(float(number) * _UNITS[unit or "s"] for number, unit in pieces)
    except (ValueError, KeyError) as error:
        raise GoalError(f'budget: {str(text)!r} is not a duration; write "10m", "90s" or "1h30m".') from error
    if not (math.isfinite(seconds) and seconds > 0):
        raise GoalError(f'budget: {str(text)!r} must be longer than nothing; write "10m", "90s" or "1h30m".')
    return seconds
