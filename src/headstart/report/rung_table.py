"""The section "What was tried" of the page: every rung as a line of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstart.core.progress import format_seconds
from headstart.evaluation import Interval, format_interval, format_metric, format_number, format_p_value, metric_title
from headstart.evaluation.wording import is_share
from headstart.report.rungs import Climb, RungLine, short_name

__all__ = ["difference_text", "recipe_text", "rung_lines", "stop_sentence"]

_TAGS = {"skipped": "not tried", "failed": "failed", "cut-off": "cut off"}


def rung_lines(climb: Climb) -> list[dict[str, Any]]:
    """Return one line a rung: what it was, its figure, what it was expected to bring and brought, its cost, the decision."""
    return [_line(climb, line) for line in climb.rungs]


def _line(climb: Climb, line: RungLine) -> dict[str, Any]:
    metric, test = climb.metric, line.paired
    known = line.value is not None and line.low is not None and line.high is not None
    interval = Interval(line.value or 0.0, line.low or 0.0, line.high or 0.0)
    reason = line.reason[:1].upper() + line.reason[1:]
    return {
        "number": line.number,
        "title": line.title,
        "backbone": "" if line.name in {"head", "base-model"} else short_name(line.backbone),
        "kept": line.kept,
        "tag": _TAGS.get(line.status, ""),
        "recipe": recipe_text(line.settings),
        "value": format_metric(metric, line.value) if known else "–",
        "range": format_interval(metric, interval) if known else "",
        "expected": "–" if line.expected is None else difference_text(metric, line.expected),
        "brought": "–" if test is None else difference_text(metric, test.difference),
        "p_value": "" if test is None else format_p_value(test.p_value),
        "cost": format_seconds(line.cpu_seconds) if line.status != "skipped" else "–",
        "waiting": format_seconds(line.wall_seconds) if line.status != "skipped" else "",
        "needs": ", ".join(_needs(line)),
        "decision": {"go": "go on", "stop": "stop"}.get(line.decision, ""),
        "reason": reason,
        "why": line.expected_why,
        "notes": list(line.notes),
        "tries": [
            {"recipe": recipe_text(item.get("recipe", {})), "value": format_metric(metric, item.get("value"))}
            for item in line.tries
        ],
    }


def _needs(line: RungLine) -> list[str]:
    parts = []
    if line.size_bytes:
        parts.append(f"model {line.size_bytes / 1e6:.1f} MB")
    if line.memory_bytes:
        parts.append(f"peak memory {line.memory_bytes / 1e9:.1f} GB")
    if line.latency_seconds:
        parts.append(f"{1000 * line.latency_seconds:.3g} ms a row")
    return parts


def recipe_text(settings: Mapping[str, Any]) -> str:
    """Return a recipe in a line.

    Examples
    --------
    >>> recipe_text({"strategy": "full", "epochs": 5, "learning_rate": 0.0001, "regularisers": {"l2-sp": 1.0}})
    'full, 5 epochs, learning rate 0.0001, l2-sp 1'
    """
    if "strategy" not in settings:
        return ""
    parts = [str(settings["strategy"])]
    if "epochs" in settings:
        parts.append(f"{settings['epochs']} epochs")
    if "learning_rate" in settings:
        parts.append(f"learning rate {settings['learning_rate']:g}")
    parts += [f"{name} {weight:.3g}" for name, weight in (settings.get("regularisers") or {}).items()]
    return ", ".join(parts)


def difference_text(metric: str, gain: float) -> str:
    """Return a difference with its sign: points for shares.

    Examples
    --------
    >>> difference_text("accuracy", 0.012), difference_text("rmse", -0.5), difference_text("accuracy", 0.0)
    ('+1.2 points', '-0.500', 'none')
    """
    if gain == 0:
        return "none"
    if is_share(metric):
        return f"{100 * gain:+.{1 if abs(gain) >= 0.01 else 2}f} points"
    return f"{'+' if gain > 0 else '-'}{format_number(abs(gain))}"


def stop_sentence(climb: Climb) -> str:
    """Return why the climb went no further, and how its figures are to be read."""
    text = f"Stopped: {climb.reason}."
    if len(climb.tried) > 1:
        text += (
            f" Figures are {metric_title(climb.metric)} on the same {climb.rows:,} training rows, which no prediction for them "
            "has seen."
        )
        if climb.optimism > 0:
            flatters = difference_text(climb.metric, climb.optimism).lstrip("+")
            text += f" The best of several flatters, here by about {flatters}; the sealed test rows chose nothing."
    return text
