"""Two runs side by side: a paired test on the same sealed test rows, costs, and the settings that differ."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import ConfigError
from headstart.core.progress import format_seconds
from headstart.core.tasks import Task
from headstart.evaluation import PairedTest, format_p_value, metric_title, paired_test
from headstart.workflow.expectation import gain_text
from headstart.workflow.limits import bytes_text

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """Run a against run b; printing it prints the table, the test first.

    Parameters
    ----------
    names : tuple of 2 str
        How the runs were named.
    test : PairedTest
        Positive favours a.
    rows : int
        Test rows both answered.
    metrics : mapping of str to (float, float)
        On these rows.
    costs : mapping of str to (str, str)
        Time, memory, size, what was tried.
    settings : mapping of str to (str, str)
        Options that differ.
    notes : tuple of str
        What a person should know.
    """

    names: tuple[str, str]
    test: PairedTest
    rows: int
    metrics: Mapping[str, tuple[float, float]]
    costs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    settings: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Which run is better, in a sentence."""
        test, (first, second) = self.test, self.names
        measure = metric_title(test.metric)
        on = f"on the same {self.rows:,} test rows ({test.test}, {format_p_value(test.p_value)})"
        if test.p_value >= 0.05 or test.difference == 0:
            gap = gain_text(test.metric, test.difference)
            return f"No difference beyond chance: {first} against {second}, {measure} {gap} {on}."
        better, worse = (first, second) if test.difference > 0 else (second, first)
        ends = sorted((abs(test.low), abs(test.high)))
        span = " to ".join(gain_text(test.metric, end, sign=False).removesuffix(" points") for end in ends)
        gap = gain_text(test.metric, abs(test.difference), sign=False)
        return f"{better} is better than {worse}: {measure} by {gap} (95 % CI {span}) {on}."

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value."""
        return {
            "runs": list(self.names),
            "verdict": self.verdict,
            "rows": self.rows,
            "paired": self.test.to_dict(),
            "metrics": {name: list(pair) for name, pair in self.metrics.items()},
            "costs": {name: list(pair) for name, pair in self.costs.items()},
            "settings": {name: list(pair) for name, pair in self.settings.items()},
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        from headstart.workflow.tables import comparison_table

        return comparison_table(self)


@dataclass(frozen=True)
class _Side:
    name: str
    folder: Path
    report: dict[str, Any]
    settings: dict[str, Any]
    task: Task
    rows: list[str]
    truth: list[str]
    scores: NDArray[np.float64]


def compare(a: str | Path, b: str | Path, *, metric: str | None = None, seed: int = 0) -> Comparison:
    """Set two runs side by side.

    Parameters
    ----------
    a, b : path or str
        Run folders, or names of runs that `runs` lists.
    metric : str, optional
        What to test; the metric run a was judged by when left out.
    seed : int
        Of permutations and draws.

    Returns
    -------
    Comparison

    Raises
    ------
    ConfigError
        If one is no finished run, or the runs were not tested on the same rows: same data, split and seed are needed.
    """
    from headstart.metrics import compute_metrics, find_metric

    first, second = _open(a), _open(b)
    name = find_metric(metric or str(first.report["verdict_metric"])).name
    order, notes = _same_rows(first, second)
    task = first.task
    targets = _targets(task, first.truth)
    theirs = second.scores[order]
    test = paired_test(task, targets, first.scores, theirs, name, seed=seed)
    ours, others = compute_metrics(task, targets, first.scores), compute_metrics(task, targets, theirs)
    return Comparison(
        (first.name, second.name),
        test,
        len(first.rows),
        {key: (ours[key], others[key]) for key in ours},
        {label: (show(first.report), show(second.report)) for label, show in _COSTS.items()},
        _differences(first.settings, second.settings),
        tuple(notes),
    )


def _open(run: str | Path) -> _Side:
    folder = Path(run)
    if not (folder / "report.json").is_file():
        from headstart.workflow.index import runs

        known = [line for line in runs() if line.name == str(run)]
        if len(known) != 1:
            more = "several runs have this name; give its folder" if known else "give a folder that `fit` wrote"
            raise ConfigError(f"compare: {run} is no finished run; {more} (`headstart runs` lists them).")
        folder = Path(known[0].folder)
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        settings = tomllib.loads((folder / "run.toml").read_text(encoding="utf-8"))
        task = Task(report["task"], tuple(report["classes"]))
        rows, truth, scores = _answers(folder / "test_predictions.csv", task)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"compare: {folder} is incomplete or damaged ({error}); fit again.") from error
    return _Side(str(run), folder, report, settings, task, rows, truth, scores)


def _answers(path: Path, task: Task) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Return the row names, the truth and the scores of a run's test rows."""
    import pandas as pd

    frame = pd.read_csv(path, dtype={"row": str, "truth": str, "prediction": str}, keep_default_na=False)
    if task.kind == "regression":
        scores: NDArray[np.float64] = np.asarray(frame["prediction"].astype(float), np.float64)
    else:
        scores = np.asarray(frame[[f"p({name})" for name in task.classes]].astype(float), np.float64)
    return frame["row"].tolist(), frame["truth"].tolist(), scores


def _same_rows(first: _Side, second: _Side) -> tuple[NDArray[np.int64], list[str]]:
    """Return where run b has each test row of run a.

    Raises
    ------
    ConfigError
        If tasks, rows or labels differ.
    """
    if first.task.kind != second.task.kind or first.task.classes != second.task.classes:
        raise ConfigError(
            f"compare: {first.name} and {second.name} were trained for different tasks ({_task(first.task)}; "
            f"{_task(second.task)}); compare runs on the same data."
        )
    fix = "fit both with the same data, --split or --test, and --seed"
    only_a, only_b = set(first.rows) - set(second.rows), set(second.rows) - set(first.rows)
    if only_a or only_b:
        raise ConfigError(
            f"compare: {first.name} and {second.name} were not tested on the same rows: {len(only_a):,} of "
            f"{len(first.rows):,} are only in the first, {len(only_b):,} of {len(second.rows):,} only in the second; {fix}."
        )
    place = {row: i for i, row in enumerate(second.rows)}
    order = np.array([place[row] for row in first.rows], np.int64)
    changed = sum(truth != second.truth[i] for truth, i in zip(first.truth, order, strict=True))
    if changed:
        raise ConfigError(f"compare: the labels of {changed:,} test rows differ between the runs; {fix}.")
    digests = [side.report.get("test_digest") for side in (first, second)]
    if all(digests) and digests[0] != digests[1]:
        raise ConfigError(
            f"compare: the test rows of {first.name} and {second.name} have the same names and labels but not the same content; "
            f"{fix}."
        )
    if not all(digests):
        return order, ["A run was made by an earlier version: rows are matched by name and label, not by content."]
    return order, []


def _task(task: Task) -> str:
    return f"{task.kind}, {len(task.classes)} classes" if task.classes else task.kind


def _targets(task: Task, truth: list[str]) -> NDArray[Any]:
    if task.kind == "regression":
        return np.array([float(text) for text in truth])
    place = {name: i for i, name in enumerate(task.classes)}
    if task.kind == "classification":
        return np.array([place[text] for text in truth], np.int64)
    found = np.zeros((len(truth), len(task.classes)), np.uint8)
    for row, text in enumerate(truth):
        for name in filter(None, text.split("|")):
            found[row, place[name]] = 1
    return found


def _differences(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[str, str]]:
    names = dict.fromkeys([*first, *second])
    return {
        name: (_text(first.get(name)), _text(second.get(name))) for name in names if first.get(name) != second.get(name)
    }


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "all at hand"
    return "not set" if value is None else str(value)


def _kept(report: dict[str, Any]) -> str:
    rungs = [rung for rung in report.get("rungs", []) if rung.get("kept")]
    return str(rungs[0]["title"]) if rungs else f"head on {report.get('backbone', '')}"


def _bytes(report: dict[str, Any], name: str) -> str:
    size = (report.get("model") or {}).get(name)
    return bytes_text(size) if size else ""


_COSTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "model": _kept,
    "base model": lambda report: str(report.get("backbone", "")),
    "training rows": lambda report: f"{report.get('rows_by_part', {}).get('train', 0):,}",
    "CPU time": lambda report: format_seconds(report["cost"]["cpu_seconds"]),
    "waiting time": lambda report: format_seconds(report["cost"]["wall_seconds"]),
    "size of the model": lambda report: _bytes(report, "size_bytes"),
    "peak memory": lambda report: _bytes(report, "peak_memory_bytes"),
    "rungs tried": lambda report: str(sum(rung.get("status") == "tried" for rung in report.get("rungs", []))),
    "transfer helped": lambda report: {True: "yes", False: "no"}.get(report["transfer_helped"], "unclear"),
}
