"""``adapt.html`` and ``adapt.json``: what was chosen without target labels, why, what it changed, and how to use it.

Shapes: n source rows drawn, m target rows drawn.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.files import write_json, write_text
from headstart.core.progress import format_seconds
from headstart.core.tasks import Modality, Task
from headstart.distances import Measurement
from headstart.evaluation import format_interval, format_metric, format_number, metric_title
from headstart.evaluation.selection import Selection
from headstart.report import tables
from headstart.report.adapt_charts import PLANE_WIDTH, class_map
from headstart.report.adapted import AdaptedLine, Hindsight
from headstart.report.contract import clean_text, plain
from headstart.report.data import Cost, RowExample, RuntimeSummary
from headstart.report.gap_charts import domain_map
from headstart.report.page import page_environment, safe_markup
from headstart.report.plots import comparison_chart

if TYPE_CHECKING:
    from headstart.data.findings import Finding

__all__ = [
    "ADAPT_FORMAT",
    "AdaptData",
    "AnswerShift",
    "DomainsInPlane",
    "SavedFigures",
    "adapt_json",
    "render_adapt",
    "write_adapt_report",
]

ADAPT_FORMAT = "headstart adapt 1"
_CLASSES_SHOWN = 20


@dataclass(frozen=True)
class DomainsInPlane:
    """Rows of both domains on two directions.

    Parameters
    ----------
    source_n2, target_m2 : arrays of shape (n, 2) and (m, 2)
        Places.
    source_classes_n, target_classes_m : sequences of str
        Class of each source row; answer for each target row. Empty where rows have numbers.
    explained : float
        Share of all variance that the two directions hold.
    """

    source_n2: NDArray[np.float64]
    target_m2: NDArray[np.float64]
    source_classes_n: Sequence[str]
    target_classes_m: Sequence[str]
    explained: float


@dataclass(frozen=True)
class AnswerShift:
    """What the choice changed for one class.

    Parameters
    ----------
    name : str
        The class.
    answered_before, answered_after : int
        Target rows given it by "do not adapt", and by what was chosen.
    rows : int, optional
        Target rows labelled with it, where labels came with the target.
    right_before, right_after : int, optional
        Of these, rows answered rightly.
    """

    name: str
    answered_before: int
    answered_after: int
    rows: int | None = None
    right_before: int | None = None
    right_after: int | None = None


@dataclass(frozen=True)
class SavedFigures:
    """What can be said of a saved model's target rows before and after, where source rows are gone.

    Parameters
    ----------
    entropy : pair of float, optional
        Mean entropy of the answers in nats, before and after.
    unlike : pair of float, optional
        Share of target rows unlike the training rows, as the head sees them, before and after.
    kept_rows : int
        Training rows that the model keeps to tell by.
    """

    entropy: tuple[float, float] | None = None
    unlike: tuple[float, float] | None = None
    kept_rows: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value."""
        pairs = {"entropy": self.entropy, "unlike_training": self.unlike}
        both = {name: None if pair is None else {"before": pair[0], "after": pair[1]} for name, pair in pairs.items()}
        return {**both, "kept_training_rows": self.kept_rows}


@dataclass(frozen=True)
class AdaptData:
    """Everything the page of ``headstart adapt`` is made of.

    Parameters
    ----------
    source, target : str
        Names of the two sets of rows.
    source_rows : int, optional
        Labelled rows; None where the source is a saved model.
    target_rows : int
        Rows adapted to.
    modality : {"image", "text", "vector"}
        What a row is.
    task : Task
        What is answered.
    selection : Selection
        The choice.
    rule_title, rule_fails : str
        What the rule measures, and when it errs.
    rule_sees : str
        What it sees of the target's labels, in words.
    lines : sequence of AdaptedLine
        The candidates.
    hindsight : Hindsight, optional
        What the target's labels said afterwards.
    changed : int, optional
        Target rows answered otherwise than without adaptation.
    before, after : DomainsInPlane, optional
        The same rows before adaptation and as the chosen candidate sees them; ``after`` is None where it moves no rows.
    gaps : sequence of (Measurement, Measurement or None)
        How far apart the domains are, before and after.
    shifts : sequence of AnswerShift
        Class by class.
    examples : sequence of RowExample
        Target rows whose answer changed; ``truth`` holds the answer without adaptation.
    summaries : mapping of str to str
        What each candidate is.
    seen_as : str
        What ``after`` shows of a candidate that has no one view of the rows.
    new_rows : str
        How rows that were not adapted to are answered, where that differs.
    folder : str
        Where the model lies; empty where none was saved.
    budget : float, optional
        Wall-clock seconds that were allowed.
    left_out : sequence of str
        Candidates that there was no time for.
    saved : SavedFigures, optional
        Where the source is a saved model.
    """

    source: str
    target: str
    source_rows: int | None
    target_rows: int
    modality: Modality
    task: Task
    selection: Selection
    rule_title: str
    rule_fails: str
    lines: Sequence[AdaptedLine]
    hindsight: Hindsight | None = None
    changed: int | None = None
    before: DomainsInPlane | None = None
    after: DomainsInPlane | None = None
    gaps: Sequence[tuple[Measurement, Measurement | None]] = ()
    shifts: Sequence[AnswerShift] = ()
    examples: Sequence[RowExample] = ()
    summaries: Mapping[str, str] = field(default_factory=dict)
    seen_as: str = ""
    new_rows: str = ""
    folder: str = ""
    backbone: str = ""
    cost: Cost | None = None
    runtime: RuntimeSummary | None = None
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    created: str = ""
    budget: float | None = None
    left_out: Sequence[str] = ()
    rule_sees: str = "which sees no label of the target"
    saved: SavedFigures | None = None


def write_adapt_report(data: AdaptData, folder: Path) -> Path:
    """Write ``adapt.html`` and then ``adapt.json`` into a folder, and return the page's path."""
    write_text(folder / "adapt.html", render_adapt(data))
    write_json(folder / "adapt.json", adapt_json(data))
    return folder / "adapt.html"


def render_adapt(data: AdaptData) -> str:
    """Return the page as text."""
    seen = data.hindsight
    headline, kind = _headline(data)
    view = {
        "data": data,
        "headline": headline,
        "kind": kind,
        "sentence": "" if seen is None else _as_sentence(seen),
        "metric": metric_title("accuracy" if seen is None else seen.metric),
        "lines": [_line(line, data) for line in data.lines],
        "figures": _figures(data),
        "maps": _maps(data),
        "gaps": [_gap(before, after) for before, after in data.gaps],
        "moves": [] if data.saved is None else _saved_lines(data.saved, len(data.task.classes)),
        "told": data.saved is not None and any(line.entropy is not None for line in data.lines),
        "shifts": _shifts(data),
        "cards": tables.cards(data.examples, data.task),
        "largest": _CLASSES_SHOWN,
        "typed": shlex.quote(data.folder),
    }
    return clean_text(page_environment().get_template("adapt.html").render(view))


def adapt_json(data: AdaptData) -> dict[str, Any]:
    """Return the contract: what the page shows, without the pictures."""
    value = {
        "format": ADAPT_FORMAT,
        "source": data.source,
        "target": data.target,
        "rows": {"source": data.source_rows, "target": data.target_rows},
        "modality": data.modality,
        "backbone": data.backbone,
        "task": data.task.kind,
        "classes": list(data.task.classes),
        "selection": data.selection.to_dict(),
        "candidates": [line.to_dict() for line in data.lines],
        "changed_rows": data.changed,
        "hindsight": None if data.hindsight is None else data.hindsight.to_dict(),
        "gap": [
            {"before": vars(before), "after": None if after is None else vars(after)} for before, after in data.gaps
        ],
        "answers": [vars(shift) for shift in data.shifts],
        "examples": [
            {"row": item.row, "source_only": item.truth, "selected": item.predicted, "note": item.note}
            for item in data.examples
        ],
        "new_rows": data.new_rows,
        "saved_model": None if data.saved is None else data.saved.to_dict(),
        "budget": None if data.budget is None else {"seconds": data.budget, "left_out": list(data.left_out)},
        "cost": None if data.cost is None else vars(data.cost),
        "findings": [finding.to_dict() for finding in data.findings],
        "notes": list(data.notes),
        "versions": dict(data.versions),
        "command": data.command,
        "created": data.created,
    }
    return dict(plain(value))


def _headline(data: AdaptData) -> tuple[str, str]:
    if data.hindsight is not None:
        return data.hindsight.word, data.hindsight.kind
    return (f"Adapted with {data.selection.chosen}" if data.selection.adapts else "Nothing was adapted"), "unsure"


def _as_sentence(seen: Hindsight) -> str:
    """Return the labels' verdict without the words that the headline says already."""
    text = seen.sentence.removeprefix(f"{seen.word}: ")
    return text[:1].upper() + text[1:]


def _line(line: AdaptedLine, data: AdaptData) -> dict[str, Any]:
    seen, value = data.hindsight, line.measured
    metric = "accuracy" if seen is None else seen.metric
    return {
        "name": line.name,
        "summary": data.summaries.get(line.name, ""),
        "score": "–" if line.score is None else f"{line.score:.4g}",
        "changed": "–" if line.changed is None else f"{100 * line.changed:.1f} %",
        "cost": format_seconds(line.cpu_seconds),
        "entropy": "–" if line.entropy is None else f"{line.entropy:.3f}",
        "unlike": "–" if line.unlike is None else f"{100 * line.unlike:.1f} %",
        "value": "–" if value is None else format_metric(metric, value.value),
        "interval": "" if value is None else format_interval(metric, value),
        "note": line.note,
        "chosen": line.name == data.selection.chosen,
        "oracle": seen is not None and line.name == seen.oracle_name and line.name != data.selection.chosen,
    }


def _figures(data: AdaptData) -> Any:
    """Return source only, selected and oracle as dots with their intervals."""
    seen = data.hindsight
    if seen is None:
        return None
    chosen, stays = data.selection.chosen, data.selection.no_adaptation
    bars = [(chosen, seen.selected)] + ([(stays, seen.source_only)] if chosen != stays else [])
    if seen.oracle_name not in (chosen, stays):
        bars.append((f"{seen.oracle_name} (unreachable)", seen.oracle))
    return safe_markup(comparison_chart(seen.metric, bars))


def _maps(data: AdaptData) -> list[dict[str, Any]]:
    """Return the maps by what colours them, before and after side by side."""
    if data.before is None:
        return []
    planes = [("before", data.before)] + ([("after", data.after)] if data.after is not None else [])
    shown = [
        {
            "title": "By domain",
            "about": "",
            "charts": [
                (
                    safe_markup(domain_map(plane.source_n2, plane.target_m2, f"domains-{when}", PLANE_WIDTH)),
                    _caption(when, plane, data),
                )
                for when, plane in planes
            ],
        }
    ]
    if data.before.target_classes_m:
        known = "Full marks are source rows by their class, hollow ones target rows by their answer"
        order = _frequent([name for _, plane in planes for name in plane.source_classes_n or plane.target_classes_m])
        shown.append(
            {
                "title": "By class",
                "about": (known if data.saved is None else "Marks are target rows by their answer")
                + (
                    ": without adaptation in the first picture, of what was chosen in the second."
                    if len(planes) > 1
                    else "."
                ),
                "charts": [(safe_markup(class_map(plane, order, f"classes-{when}")), "") for when, plane in planes],
            }
        )
    return shown


def _caption(when: str, plane: DomainsInPlane, data: AdaptData) -> str:
    held = f"These two directions hold {100 * plane.explained:.0f} % of the variance."
    if when == "before":
        return f"Before: the features as {'they came' if data.saved is None else 'the model saw them'}. {held}"
    return f"After {data.selection.chosen}{f': {data.seen_as}' if data.seen_as else ''}. {held}"


def _saved_lines(figures: SavedFigures, num_classes: int) -> list[dict[str, str]]:
    """Return what can be said without source rows, a line each."""
    lines = []
    if figures.entropy is not None:
        most = f"at most {math.log(num_classes):.3f}, all classes alike" if num_classes > 1 else ""
        before, after = (f"{value:.3f}" for value in figures.entropy)
        lines.append({"name": "mean entropy of the answers", "meaning": most, "before": before, "after": after})
    if figures.unlike is not None:
        before, after = (f"{100 * value:.1f} %" for value in figures.unlike)
        meaning = f"told by the {figures.kept_rows:,} training rows that the model keeps as features"
        lines.append({"name": "rows unlike the training rows", "meaning": meaning, "before": before, "after": after})
    return lines


def _frequent(names: Sequence[str]) -> list[str]:
    found, counts = np.unique(np.asarray(names, dtype=object).astype(str), return_counts=True)
    return [str(found[place]) for place in np.argsort(-counts, kind="stable")]


def _gap(before: Measurement, after: Measurement | None) -> dict[str, Any]:
    return {
        "name": before.name,
        "meaning": before.meaning,
        "before": _amount(before),
        "after": "–" if after is None else _amount(after),
        "before_note": _chance(before),
        "after_note": "" if after is None else _chance(after),
    }


def _amount(item: Measurement) -> str:
    return format_number(item.value) if math.isfinite(item.value) else "–"


def _chance(item: Measurement) -> str:
    if not math.isfinite(item.value):
        return item.note
    words = [item.note] if item.name == "proxy-a" and item.note else []
    if item.p_value is not None:
        words.append("p < 0.01" if item.p_value < 0.01 else f"p = {item.p_value:.2f}")
    return ", ".join(words)


def _shifts(data: AdaptData) -> dict[str, Any]:
    """Return the classes' lines: those that changed most first, all of them where there are few."""

    def change(shift: AnswerShift) -> float:
        if shift.right_before is not None and shift.right_after is not None:
            return abs(shift.right_after - shift.right_before) / max(1, shift.rows or 0)
        return abs(shift.answered_after - shift.answered_before)

    order = sorted(data.shifts, key=lambda shift: -change(shift))
    few = len(order) <= _CLASSES_SHOWN
    lines = [_shift_line(shift, data.target_rows) for shift in (data.shifts if few else order)]
    return {"first": lines[:_CLASSES_SHOWN], "all": lines, "labelled": any(shift.rows is not None for shift in order)}


def _shift_line(shift: AnswerShift, num_rows: int) -> dict[str, Any]:
    line: dict[str, Any] = {
        "name": shift.name,
        "answered_before": f"{shift.answered_before:,}",
        "answered_after": f"{shift.answered_after:,}",
        "share_before": f"{100 * shift.answered_before / max(1, num_rows):.1f} %",
        "share_after": f"{100 * shift.answered_after / max(1, num_rows):.1f} %",
        "move": _signed(100 * (shift.answered_after - shift.answered_before) / max(1, num_rows)),
        "direction": "",
        "rows": "–",
    }
    if shift.rows is not None and shift.right_before is not None and shift.right_after is not None:
        gain = shift.right_after - shift.right_before
        line |= {
            "rows": f"{shift.rows:,}",
            "before": _recall(shift.right_before, shift.rows),
            "after": _recall(shift.right_after, shift.rows),
            "counts": f"{shift.right_before:,} → {shift.right_after:,}",
            "move": _signed(100 * gain / shift.rows) if shift.rows else "–",
            "direction": "good" if gain > 0 else "bad" if gain < 0 else "",
        }
    return line


def _recall(right: int, rows: int) -> str:
    return f"{100 * right / rows:.1f} %" if rows else "–"


def _signed(points: float) -> str:
    return "0" if abs(points) < 0.05 else f"{points:+.1f}".replace("-", "\u2212")
