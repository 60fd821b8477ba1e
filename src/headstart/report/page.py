"""``report.html`` and ``report.json`` for a run, ``rank.html`` and ``rank.json`` for a ranking.

A page stands alone: one file, no script, no address outside itself (its content policy forbids both), pictures inside.
Everything a data set can put into it (class names, file names, texts) is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from headstart.core.files import write_json, write_text
from headstart.core.progress import format_seconds
from headstart.evaluation import baseline_title, format_metric, metric_title
from headstart.report import plots, tables
from headstart.report.contract import clean_text, rank_json, report_json
from headstart.report.data import Baseline, Candidate, RankData, ReportData
from headstart.report.pictures import heatmap_uri
from headstart.report.rung_table import rung_lines, stop_sentence

__all__ = [
    "page_environment",
    "render_rank",
    "render_report",
    "safe_markup",
    "write_rank_report",
    "write_report",
]

_HERE = Path(__file__).parent
_FEW_CLASSES = 16
_CLASSES_SHOWN = 20
_ROWS_SHOWN = 8


def write_report(data: ReportData, folder: Path) -> Path:
    """Write ``report.html`` and ``report.json`` into a folder, and return the page's path.

    Parameters
    ----------
    data : ReportData
        What the run found.
    folder : Path
        Made if it is not there. Each file is replaced as a whole.
    """
    write_json(folder / "report.json", report_json(data))
    write_text(folder / "report.html", render_report(data))
    return folder / "report.html"


def write_rank_report(data: RankData, folder: Path) -> Path:
    """Write ``rank.html`` and ``rank.json`` into a folder, and return the page's path."""
    write_json(folder / "rank.json", rank_json(data))
    write_text(folder / "rank.html", render_rank(data))
    return folder / "rank.html"


def render_report(data: ReportData) -> str:
    """Return the page of a run as text."""
    data = replace(data, baselines=sorted(data.baselines, key=_place_of_baseline))
    word, kind, sentence = tables.verdict_headline(data)
    view = {
        "data": data,
        "headline": word,
        "kind": kind,
        "sentence": sentence,
        "metric": metric_title(data.verdict.metric),
        "comparison": _comparison(data),
        "metrics": tables.metric_table(data),
        "baseline_names": [baseline_title(item.name, data.task) for item in data.baselines],
        "paired": tables.paired_lines(data),
        "classes": _classes(data),
        "confusion": _confusion(data),
        "reliability": _reliability(data),
        "numbers": _numbers(data),
        "curves": _curves(data),
        "climb": _climb(data),
        "examples": _examples(data),
        "ranking": _ranking(data.candidates, data.score_name),
        "score_title": tables.score_title(data.score_name),
        "certainty": _certainty(data.candidates, data.order_confidence),
        "head": _head(data),
        "rows_shown": _ROWS_SHOWN,
    }
    return clean_text(page_environment().get_template("report.html").render(view))


def render_rank(data: RankData) -> str:
    """Return the page of a ranking as text."""
    view = {
        "data": data,
        "ranking": _ranking(data.candidates, data.score_name),
        "score_title": tables.score_title(data.score_name),
        "certainty": _certainty(data.candidates, data.order_confidence),
    }
    return clean_text(page_environment().get_template("rank.html").render(view))


@lru_cache(maxsize=1)
def page_environment() -> Any:
    """Return the templates of all pages, with their filters; everything they print is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters: dict[str, Callable[..., str]] = {
        "moment": _moment,
        "seconds": format_seconds,
        "title_of": metric_title,
        "empty": lambda text: " none" if text == "–" else "",
        "thousands": lambda number: f"{number:,}",
        "metric": lambda value, name: format_metric(name, value),
    }
    environment.filters.update(filters)
    environment.globals["style"] = safe_markup((_HERE / "page.css").read_text(encoding="utf-8"))
    return environment


def safe_markup(text: str) -> Any:
    """Mark text as HTML that we wrote ourselves and that must not be escaped."""
    from markupsafe import Markup

    return Markup(text)


def _place_of_baseline(baseline: Baseline) -> int:
    """Return where a baseline stands: the hardest question first, unknown ones last."""
    order = ("scratch", "raw", "majority")
    return order.index(baseline.name) if baseline.name in order else len(order)


def _moment(text: str) -> str:
    """Return an ISO time as a person writes it; other text as it is."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    day = f"{moment.day} {moment:%B %Y}"
    return f"{day}, {moment:%H:%M} UTC" if moment.utcoffset() == timedelta(0) else day


def _comparison(data: ReportData) -> Any:
    bars = tables.comparison_bars(data)
    return safe_markup(plots.comparison_chart(data.verdict.metric, bars)) if len(bars) > 1 else None


def _classes(data: ReportData) -> dict[str, Any]:
    lines = tables.class_table(data)
    hardest = sorted(lines, key=lambda line: (line["support"] == 0, line["share"]))
    return {"all": lines, "first": lines if len(lines) <= _CLASSES_SHOWN else hardest[:_CLASSES_SHOWN]}


def _confusion(data: ReportData) -> dict[str, Any] | None:
    confusion = data.evaluation.confusion_kk
    if confusion is None or not confusion.any():
        return None
    few = len(confusion) <= _FEW_CLASSES
    return {
        "cells": tables.confusion_cells(data.evaluation) if few else [],
        "picture": "" if few else heatmap_uri(confusion),
        "pairs": tables.confused_pairs(data.evaluation, 10 if few else 15),
    }


def _reliability(data: ReportData) -> Any:
    bins = data.evaluation.reliability
    return safe_markup(plots.reliability_chart(bins)) if any(one.count for one in bins) else None


def _numbers(data: ReportData) -> list[Any]:
    if data.targets_n is None or data.predictions_n is None or not len(data.targets_n):
        return []
    arguments = (data.targets_n, data.predictions_n, data.task.target_name)
    return [safe_markup(plots.scatter_chart(*arguments)), safe_markup(plots.residual_chart(*arguments))]


def _curves(data: ReportData) -> dict[str, Any]:
    points = data.learning_curve
    final = data.evaluation.metrics.get(data.verdict.metric)
    training = [
        (curves, safe_markup(plots.training_chart(curves, f"training-{number}")))
        for number, curves in enumerate(data.training_curves)
        if any(map(len, (curves.train_loss, curves.validation_loss, curves.train_measure, curves.validation_measure)))
    ]
    learning = safe_markup(plots.learning_chart(data.verdict.metric, points, final)) if len(points) > 1 else None
    return {"learning": learning, "training": training}


def _climb(data: ReportData) -> dict[str, Any] | None:
    if data.climb is None or not data.climb.rungs:
        return None
    tried = data.climb.tried
    chart = safe_markup(plots.climb_chart(data.climb.metric, tried, data.climb.goal)) if len(tried) > 1 else None
    return {"lines": rung_lines(data.climb), "sentence": stop_sentence(data.climb), "chart": chart}


def _examples(data: ReportData) -> dict[str, list[tables.Card]]:
    novelty = data.novelty.examples if data.novelty is not None else ()
    groups = {"mistakes": data.mistakes, "suspects": data.suspects, "novelty": novelty}
    return {name: tables.cards(examples, data.task) for name, examples in groups.items()}


def _ranking(candidates: Any, score_name: str) -> dict[str, Any]:
    table = tables.candidate_table(candidates, score_name)
    scored = [item for item in candidates if item.score is not None]
    chart = None
    if len(scored) > 1:
        numbers = [line["number"] for line in table["lines"]]
        chart = safe_markup(plots.rank_chart(candidates, tables.score_title(score_name), numbers))
    return {**table, "chart": chart}


def _certainty(candidates: Sequence[Candidate], order_confidence: float | None) -> str:
    """Return how sure the first place is, in words; nothing where nothing competed."""
    scored = [item for item in candidates if item.score is not None]
    if len(scored) < 2:
        return ""
    sure = order_confidence if scored[0].share_best is None else scored[0].share_best
    if sure is None:
        return ""
    strength = "clearly" if sure >= 0.95 else "probably" if sure >= 0.7 else "not surely"
    return f"{strength} the best: first in {100 * sure:.0f} % of bootstrap draws of the rows"


def _head(data: ReportData) -> dict[str, Any] | None:
    head = data.head
    if head is None:
        return None
    usable = sum(p > 0 and math.isfinite(score) for p, score in zip(head.penalties, head.scores, strict=True))
    chart = None
    if usable > 2:
        chart = safe_markup(plots.penalty_chart(head.penalties, head.scores, head.chosen, head.score_name))
    return {"chart": chart}
