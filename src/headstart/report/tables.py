"""What the page's tables say, row by row, as text; the templates only lay it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core.progress import format_seconds
from headstart.core.tasks import Task
from headstart.evaluation import (
    Evaluation,
    Interval,
    baseline_title,
    format_interval,
    format_metric,
    format_number,
    format_p_value,
    metric_title,
)
from headstart.report.data import Candidate, ReportData, RowExample
from headstart.report.pictures import picture_uri

__all__ = [
    "Card",
    "bytes_text",
    "candidate_table",
    "cards",
    "class_table",
    "comparison_bars",
    "confused_pairs",
    "confusion_cells",
    "metric_table",
    "paired_lines",
    "score_title",
    "verdict_headline",
]

_LONG_TEXT = 360
_MOST_CARDS = 24
_SCORES = {"logme": "LogME", "leep": "LEEP", "nce": "NCE", "h_score": "H-score", "transrate": "TransRate"}


@dataclass(frozen=True)
class Card:
    """One row as the page shows it: a picture or a text, and what was said about it."""

    row: str
    truth: str
    predicted: str
    sureness: str
    picture: str
    tiny: bool
    text: str
    note: str


def verdict_headline(data: ReportData) -> tuple[str, str, str]:
    """Return the verdict's word, its kind (for the colour) and the sentence that follows."""
    helped = data.verdict.transfer_helped
    word, kind = {
        True: ("Transfer helped", "good"),
        False: ("Transfer did not help", "bad"),
        "unclear": ("Unclear whether transfer helped", "unsure"),
    }[helped]
    lead, _, rest = data.verdict.text.partition(": ")
    sentence = rest if lead == word and rest else data.verdict.text
    return word, kind, sentence[:1].upper() + sentence[1:]


def comparison_bars(data: ReportData) -> list[tuple[str, Interval]]:
    """Return the model and every baseline with its interval in the verdict's metric; those without one are left out."""
    named = [("this model", data.evaluation)]
    named += [(baseline_title(item.name, data.task), item.evaluation) for item in data.baselines]
    bars = [(label, item.metrics.get(data.verdict.metric)) for label, item in named]
    return [(label, interval) for label, interval in bars if interval is not None and interval.finite]


def metric_table(data: ReportData) -> list[dict[str, Any]]:
    """Return one line a metric: its name, the model's figure and interval, and every baseline's figure."""
    return [
        {
            "title": metric_title(name),
            "chief": name == data.verdict.metric,
            "hidden": data.task.kind == "classification" and name.endswith("_micro") and name != data.verdict.metric,
            "value": format_metric(name, interval.value),
            "interval": format_interval(name, interval),
            "baselines": [_figure(baseline.evaluation, name) for baseline in data.baselines],
        }
        for name, interval in data.evaluation.metrics.items()
    ]


def _figure(evaluation: Evaluation, name: str) -> str:
    interval = evaluation.metrics.get(name)
    return format_metric(name, None if interval is None else interval.value)


def paired_lines(data: ReportData) -> list[dict[str, str]]:
    """Return, for each baseline, how it was trained, what it cost and the paired test against it."""
    lines = []
    for baseline in data.baselines:
        test = baseline.paired
        points = test is not None and format_metric(test.metric, 1.0).endswith("%")
        scale, unit = (100, " points") if points else (1, "")
        lines.append(
            {
                "title": baseline_title(baseline.name, data.task),
                "trained": baseline.trained,
                "budget": baseline.budget,
                "cost": format_seconds(baseline.cpu_seconds),
                "gap": "–" if test is None else f"{scale * test.difference:+.3g}{unit}",
                "range": "" if test is None else f"{scale * test.low:+.3g} to {scale * test.high:+.3g}",
                "test": "–" if test is None else f"{format_p_value(test.p_value)}, {test.test}",
            }
        )
    return lines


def class_table(data: ReportData) -> list[dict[str, Any]]:
    """Return one line a class in model order; ``f1`` also as a number for the bar behind it."""
    return [
        {
            "name": row.name,
            "training": data.class_rows.get(row.name),
            "support": row.support,
            "precision": format_metric("precision", row.precision),
            "recall": format_metric("recall", row.recall) if row.support else "–",
            "range": format_interval("recall", Interval(row.recall, row.recall_low, row.recall_high))
            if row.support
            else "",
            "f1": format_metric("f1", row.f1),
            "share": round(row.f1, 4),
        }
        for row in data.evaluation.per_class
    ]


def confusion_cells(evaluation: Evaluation) -> list[list[dict[str, Any]]]:
    """Return the confusion matrix as cells: count, share of the true class, and whether it is the diagonal."""
    confusion = evaluation.confusion_kk
    if confusion is None:
        return []
    totals = np.maximum(confusion.sum(axis=1), 1)
    return [
        [
            {"count": int(count), "share": round(float(count / totals[row]), 3), "right": row == column}
            for column, count in enumerate(line)
        ]
        for row, line in enumerate(confusion)
    ]


def confused_pairs(evaluation: Evaluation, most: int = 15) -> list[dict[str, Any]]:
    """Return the most frequent mistakes: true class, answer, rows, share of the true class."""
    confusion = evaluation.confusion_kk
    if confusion is None:
        return []
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [(int(place) // len(wrong), int(place) % len(wrong)) for place in order]
    return [
        {
            "truth": evaluation.task.classes[row],
            "predicted": evaluation.task.classes[column],
            "rows": int(wrong[row, column]),
            "share": format_metric("accuracy", float(wrong[row, column] / confusion[row].sum())),
        }
        for row, column in pairs
        if wrong[row, column]
    ]


def score_title(name: str) -> str:
    """Return a transferability score's name for people.

    Examples
    --------
    >>> score_title("logme"), score_title("probe"), score_title("new_score")
    ('LogME', 'probe', 'new score')
    """
    return _SCORES.get(name, name.replace("_", " "))


def candidate_table(candidates: Sequence[Candidate], score_name: str) -> dict[str, Any]:
    """Return the names of the further scores, and one line a base model with numbers as in the chart."""
    names = list(dict.fromkeys(name for item in candidates for name in item.scores if name != score_name))
    with_probe = any(item.probe_accuracy is not None and item.probe_accuracy != item.score for item in candidates)
    lines = []
    for number, item in enumerate(candidates, start=1):
        has_interval = item.low is not None and item.high is not None
        lines.append(
            {
                "number": number,
                "backbone": item.backbone,
                "chosen": item.chosen,
                "score": _digits(item.score),
                "range": f"{_digits(item.low)} to {_digits(item.high)}" if has_interval else "",
                "first": "–" if item.share_best is None else f"{100 * item.share_best:.0f} %",
                "probe": "–" if item.probe_accuracy is None else f"{100 * item.probe_accuracy:.1f} %",
                "scores": [_digits(item.scores.get(name)) for name in names],
                "parameters": f"{item.parameters / 1e6:.1f} M" if item.parameters else "–",
                "work": f"{item.multiply_adds / 1e6:,.0f} M" if item.multiply_adds else "–",
                "size": bytes_text(item.size_bytes),
                "cost": format_seconds(item.cpu_seconds) if item.score is not None else "–",
                "licence": item.licence,
                "note": item.note,
            }
        )
    return {
        "names": [score_title(name) for name in names],
        "lines": lines,
        "with_probe": with_probe,
        "with_licence": any(item.licence for item in candidates),
        "with_first": any(item.share_best is not None for item in candidates),
    }


def _digits(value: float | None) -> str:
    """Return a score with three decimals, so that a column can be compared by eye."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 100 else format_number(value)


def bytes_text(size: int) -> str:
    """Return a size in megabytes.

    Examples
    --------
    >>> bytes_text(18_600_000), bytes_text(0)
    ('18.6 MB', '–')
    """
    return f"{size / 1e6:.1f} MB" if size else "–"


def cards(examples: Sequence[RowExample], task: Task) -> list[Card]:
    """Return rows ready to show, at most 24: pictures embedded, long texts cut."""
    return [_card(example, task) for example in examples[:_MOST_CARDS]]


def _card(example: RowExample, task: Task) -> Card:
    picture, tiny = picture_uri(example.image) if example.image is not None else ("", False)
    text = " ".join((example.text or "").split())
    if len(text) > _LONG_TEXT:
        text = text[:_LONG_TEXT].rstrip() + " …"
    sureness = ""
    if example.confidence is not None and np.isfinite(example.confidence):
        numbers = task.kind == "regression"
        sureness = (
            f"off by {format_number(example.confidence)}" if numbers else f"{100 * example.confidence:.0f} % sure"
        )
    return Card(example.row, example.truth, example.predicted, sureness, picture, tiny, text, example.note)
