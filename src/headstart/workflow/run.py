"""A finished run: what it found, and the folder that explains it.

report.html, report.json    for people, for programs
model/                      the model, `headstart.load_model` reads it
adapted/                    where rows without labels are of another domain: the model for those, as `adapt` writes it
run.toml                    recreates the run
quarantine.json             every row left out, and everything `check` found
test_predictions.csv        the sealed test rows, truth and answer
rungs.json                  every rung that was tried, also of a run that has not ended
unfinished/                 only while a run goes on, or after it was killed: what it goes on from
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core.errors import ConfigError
from headstart.evaluation import format_metric, metric_title
from headstart.model import Model, Predictions
from headstart.report import Climb, ReportData
from headstart.workflow.expectation import gain_text
from headstart.workflow.unfinished import is_unfinished

if TYPE_CHECKING:
    from headstart.workflow.adaptation import Adaptation

__all__ = ["Run", "free_folder"]


@dataclass
class Run:
    """What `fit` returns; printing it prints the verdict first.

    Parameters
    ----------
    model : Model
        The trained model.
    report : ReportData
        Everything the report shows.
    predictions : Predictions
        Answers for the sealed test rows.
    folder : Path
        Where all of it was written.
    adaptation : Adaptation, optional
        What serves rows without labels that are of another domain; its model lies in ``adapted/``.
    """

    model: Model
    report: ReportData
    predictions: Predictions
    folder: Path
    adaptation: Adaptation | None = None

    @property
    def verdict(self) -> str:
        """One sentence: whether transfer helped, with the figures."""
        return self.report.verdict.text

    @property
    def transfer_helped(self) -> bool | str:
        """True, False or ``"unclear"``."""
        return self.report.verdict.transfer_helped

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric on the sealed test rows."""
        return {name: interval.value for name, interval in self.report.evaluation.metrics.items()}

    def __str__(self) -> str:
        lines = [self.verdict]
        if self.report.goal is not None:
            goal = self.report.goal
            met = "met" if goal.met else "not met"
            lines.append(f"Goal {goal.text}: {met}. {goal.note}".rstrip())
        if self.report.negative_transfer:
            lines.append(self.report.negative_transfer)
        climb = self.report.climb
        if climb is not None and len(climb.rungs) > 1 and (told := climb_text(climb)):
            lines.append(told)
        lines += (
            [f"Rows without labels: {line.reason}." for line in climb.rungs if line.name == "adaptation"]
            if climb
            else []
        )
        lines += [f"Report: {self.folder / 'report.html'}", f"Model:  {self.folder / 'model'}"]
        if self.adaptation is not None:
            lines.append(f"Model for rows like {self.adaptation.names[1]}: {self.adaptation.folder}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}: {self.verdict})"


def climb_text(climb: Climb) -> str:
    """Return what was tried in a line: the figure of every rung, which one was kept, why it went no further."""
    parts = [
        f"{line.title} {format_metric(climb.metric, line.value)}{' (kept)' if line.kept else ''}"
        for line in climb.tried
    ]
    waiting = [line for line in climb.rungs if line.status == "skipped" and line.expected is not None]
    text = f"Tried, {metric_title(climb.metric)} on {climb.rows:,} rows held out: {', '.join(parts)}."
    if climb.stopped == "no-goal":
        text = ""
    else:
        text += f" Stopped: {climb.reason}."
    if waiting:
        line = max(waiting, key=lambda item: item.expected or 0.0)
        text += f" Not tried: {line.title}, expected to bring {gain_text(climb.metric, line.expected or 0.0)}."
    return text.strip()


def free_folder(name: str, command: dict[str, Any] | None = None, parent: Path = Path("runs")) -> Path:
    """Return ``parent/name``, or the first of ``name-2``, ``name-3``, ... that is free, or was begun by this very command."""
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).strip("-.") or "run"
    folder, number = parent / plain, 2
    while folder.exists() and not (command and is_unfinished(folder, command) and not (folder / "run.toml").exists()):
        folder, number = parent / f"{plain}-{number}", number + 1
    return folder


def check_out(folder: Path) -> Path:
    """Refuse an output folder that holds something other than an earlier run."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"fit: out must be a folder; {folder} is a file. Choose another name.")
    earlier = (folder / "run.toml").exists() or is_unfinished(folder)
    if folder.is_dir() and any(folder.iterdir()) and not earlier:
        raise ConfigError(f"fit: {folder} holds files that are no earlier run; choose another --out or empty it.")
    return folder


def read_report(folder: Path) -> dict[str, Any]:
    """Return the ``report.json`` of a run folder."""
    path = folder / "report.json"
    if not path.is_file():
        raise ConfigError(f"read_report: {folder} holds no report.json; give a folder that `fit` wrote.")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
