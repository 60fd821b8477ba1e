"""``report.json``: what other programs may rely on. Names below stay; new ones may be added.

    task                                  "classification", "multilabel" or "regression"
    rows, classes                         number of all rows found; class names in model order
    metrics.<name>.{value,low,high}       on the sealed test rows, 95 % interval
    baselines.{majority,raw,scratch}.<name>   the same metrics, value alone
    verdict, transfer_helped              one sentence; true, false or "unclear"
    candidates[].{backbone,score,cost}    base models considered; cost in CPU seconds
    cost.{cpu_seconds,wall_seconds,from_cache}   of the whole run; from_cache in rows
    versions.<library>                    what it ran on
    rungs[].{number,name,title,status,decision,reason,expected,value,low,high,cpu_seconds,wall_seconds,kept}   what was tried
    climb.{metric,judging_rows,stopped,reason,optimism,refit}   how the climb was judged and why it ended
    negative_transfer                     a sentence where a baseline without transfer beats the model, else ""
    model.{size_bytes,peak_memory_bytes,latency_seconds}   measured; null where it was not

A figure that is undefined is left out, never NaN. `REPORT_SCHEMA` says all of it as a JSON schema.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headstart.evaluation import Evaluation
from headstart.report.data import Baseline, Candidate, Cost, HeadSummary, RankData, ReportData
from headstart.report.rungs import Climb

__all__ = [
    "RANK_SCHEMA",
    "REPORT_SCHEMA",
    "RUNGS_SCHEMA",
    "clean_text",
    "plain",
    "rank_json",
    "report_json",
    "rungs_json",
]


def clean_text(text: str) -> str:
    """Return text that every UTF-8 file can hold: undecodable bytes of a file name become ``\\\\udcff``.

    Examples
    --------
    >>> clean_text("caf\\u00e9"), clean_text("caf\\udce9")
    ('café', 'caf\\\\udce9')
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def report_json(data: ReportData) -> dict[str, Any]:
    """Return the contract for one run, as a JSON value without NaN or infinity.

    Parameters
    ----------
    data : ReportData
        What the run found.

    Returns
    -------
    dict
        See the module and `REPORT_SCHEMA`.
    """
    metrics = data.evaluation.metrics
    value = {
        "format": "headstart report 1",
        "title": data.title,
        "created": data.created,
        "task": data.task.kind,
        "modality": data.modality,
        "rows": data.rows.total,
        "rows_by_part": {
            "train": data.rows.train,
            "validation": data.rows.validation,
            "test": data.rows.test,
            "quarantined": data.rows.quarantined,
        },
        "classes": list(data.task.classes),
        "class_rows": dict(data.class_rows),
        "backbone": data.backbone,
        "head": None if data.head is None else data.head.name,
        "head_details": None if data.head is None else _head(data.head),
        "verdict": data.verdict.text,
        "transfer_helped": data.verdict.transfer_helped,
        "verdict_metric": data.verdict.metric,
        "reasons": list(data.verdict.reasons),
        "goal": None if data.goal is None else {"text": data.goal.text, "met": data.goal.met, "note": data.goal.note},
        "metrics": {name: interval.to_dict() for name, interval in metrics.items() if interval.finite},
        "undefined_metrics": [name for name, interval in metrics.items() if not interval.finite],
        "baselines": {baseline.name: _values(baseline.evaluation) for baseline in data.baselines},
        "baseline_details": {baseline.name: _baseline(baseline) for baseline in data.baselines},
        "candidates": [_candidate(candidate) for candidate in data.candidates],
        "order_confidence": data.order_confidence,
        "cost": _cost(data.cost),
        "stages": [vars(stage) for stage in data.stages],
        "per_class": [vars(row) for row in data.evaluation.per_class],
        "confusion": _confusion(data.evaluation),
        "learning_curve": [vars(point) for point in data.learning_curve],
        "suspect_labels": [
            {"row": row.row, "given": row.truth, "suggested": row.predicted, "confidence": row.confidence}
            for row in data.suspects
        ],
        "unlike_training": None if data.novelty is None else data.novelty.flagged,
        "findings": [finding.to_dict() for finding in data.findings],
        "runtime": None if data.runtime is None else data.runtime.label,
        "notes": [*data.evaluation.notes, *data.notes],
        "rungs": [] if data.climb is None else [line.to_dict() for line in data.climb.rungs],
        "climb": None if data.climb is None else {k: v for k, v in data.climb.to_dict().items() if k != "rungs"},
        "negative_transfer": data.negative_transfer,
        "model": {
            "size_bytes": data.size_bytes,
            "peak_memory_bytes": data.memory_bytes,
            "latency_seconds": data.latency_seconds,
        },
        "test_digest": data.test_digest,
        "training_curves": [vars(curves) for curves in data.training_curves],
        "versions": dict(data.versions),
        "command": data.command,
        "config": data.config_toml,
    }
    return dict(plain(value))


def rungs_json(climb: Climb, *, finished: bool) -> dict[str, Any]:
    """Return what ``rungs.json`` holds: the climb, and whether its run came to its end."""
    return dict(plain({"format": "headstart rungs 1", "finished": finished, **climb.to_dict()}))


def rank_json(data: RankData) -> dict[str, Any]:
    """Return the contract for a ranking of base models: ``candidates`` best first, as in a report."""
    value = {
        "format": "headstart rank 1",
        "title": data.title,
        "created": data.created,
        "task": data.task.kind,
        "modality": data.modality,
        "rows": data.rows,
        "classes": list(data.task.classes),
        "score": data.score_name,
        "candidates": [_candidate(candidate) for candidate in data.candidates],
        "order_confidence": data.order_confidence,
        "cost": None if data.cost is None else _cost(data.cost),
        "notes": list(data.notes),
        "versions": dict(data.versions),
        "command": data.command,
    }
    return dict(plain(value))


def _values(evaluation: Evaluation) -> dict[str, float]:
    return {name: interval.value for name, interval in evaluation.metrics.items() if interval.finite}


def _baseline(baseline: Baseline) -> dict[str, Any]:
    metrics = baseline.evaluation.metrics
    return {
        "trained": baseline.trained,
        "budget": baseline.budget,
        "cpu_seconds": baseline.cpu_seconds,
        "metrics": {name: interval.to_dict() for name, interval in metrics.items() if interval.finite},
        "paired": None if baseline.paired is None else baseline.paired.to_dict(),
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    value = {key: item for key, item in vars(candidate).items() if key != "cpu_seconds"}
    return {**value, "cost": candidate.cpu_seconds, "scores": dict(candidate.scores)}


def _head(head: HeadSummary) -> dict[str, Any]:
    return {"reason": head.reason, "penalty": head.chosen, "contenders": dict(head.contenders)}


def _cost(cost: Cost) -> dict[str, Any]:
    return {"cpu_seconds": cost.cpu_seconds, "wall_seconds": cost.wall_seconds, "from_cache": cost.from_cache}


def _confusion(evaluation: Evaluation) -> list[dict[str, Any]] | None:
    """Return the filled cells alone: 150 classes have 22,500 of which few are not zero."""
    if evaluation.confusion_kk is None:
        return None
    classes = evaluation.task.classes
    return [
        {"true": classes[row], "predicted": classes[column], "rows": int(evaluation.confusion_kk[row, column])}
        for row, column in np.argwhere(evaluation.confusion_kk)
    ]


def plain(value: Any) -> Any:
    """Return a value of plain Python types: NumPy scalars unpacked, what is not finite as None, text writable."""
    if isinstance(value, Mapping):
        return {clean_text(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, np.ndarray | Sequence):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


_TEXT, _NUMBER, _COUNT = {"type": "string"}, {"type": "number"}, {"type": "integer", "minimum": 0}
_MAYBE_NUMBER = {"type": ["number", "null"]}
_INTERVAL = {
    "type": "object",
    "required": ["value", "low", "high"],
    "properties": {"value": _NUMBER, "low": _NUMBER, "high": _NUMBER},
    "additionalProperties": False,
}
_COST = {
    "type": "object",
    "required": ["cpu_seconds", "wall_seconds", "from_cache"],
    "properties": {"cpu_seconds": _NUMBER, "wall_seconds": _NUMBER, "from_cache": _COUNT},
}
_CANDIDATE = {
    "type": "object",
    "required": ["backbone", "score", "cost"],
    "properties": {
        "backbone": _TEXT,
        "score": _MAYBE_NUMBER,
        "low": _MAYBE_NUMBER,
        "high": _MAYBE_NUMBER,
        "cost": _NUMBER,
        "scores": {"type": "object", "additionalProperties": _MAYBE_NUMBER},
        "size_bytes": _COUNT,
        "parameters": _COUNT,
        "multiply_adds": _COUNT,
        "chosen": {"type": "boolean"},
        "share_best": _MAYBE_NUMBER,
        "note": _TEXT,
    },
}
_SHARED: dict[str, Any] = {
    "format": _TEXT,
    "title": _TEXT,
    "created": _TEXT,
    "task": {"enum": ["classification", "multilabel", "regression"]},
    "modality": {"enum": ["image", "text", "vector"]},
    "rows": _COUNT,
    "classes": {"type": "array", "items": _TEXT},
    "candidates": {"type": "array", "items": _CANDIDATE},
    "order_confidence": _MAYBE_NUMBER,
    "versions": {"type": "object", "additionalProperties": _TEXT},
    "command": _TEXT,
    "notes": {"type": "array", "items": _TEXT},
}

_RUNG = {
    "type": "object",
    "required": [
        *("number", "name", "title", "backbone", "status", "decision", "reason", "expected", "value", "low", "high"),
        *("cpu_seconds", "wall_seconds", "kept"),
    ],
    "properties": {
        "number": _COUNT,
        "name": {"enum": ["head", "base-model", "partial", "full", "search", "asked", "adaptation"]},
        "title": _TEXT,
        "backbone": _TEXT,
        "status": {"enum": ["tried", "skipped", "failed", "cut-off"]},
        "decision": {"enum": ["go", "stop", ""]},
        "reason": _TEXT,
        "expected": _MAYBE_NUMBER,
        "expected_why": _TEXT,
        "worth": _MAYBE_NUMBER,
        "value": _MAYBE_NUMBER,
        "low": _MAYBE_NUMBER,
        "high": _MAYBE_NUMBER,
        "held_out": _MAYBE_NUMBER,
        "paired": {"type": ["object", "null"]},
        "cpu_seconds": _NUMBER,
        "wall_seconds": _NUMBER,
        "memory_bytes": _MAYBE_NUMBER,
        "size_bytes": _MAYBE_NUMBER,
        "latency_seconds": _MAYBE_NUMBER,
        "kept": {"type": "boolean"},
        "settings": {"type": "object"},
        "tries": {"type": "array", "items": {"type": "object"}},
        "notes": {"type": "array", "items": _TEXT},
    },
}
_CLIMB: dict[str, Any] = {
    "metric": _TEXT,
    "judging_rows": _COUNT,
    "stopped": {"enum": ["goal", "budget", "not-worth-it", "limits", "last-rung", "no-goal", "asked"]},
    "reason": _TEXT,
    "optimism": _NUMBER,
    "refit": _TEXT,
    "goal": _MAYBE_NUMBER,
}

RUNGS_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "headstart rungs",
    "type": "object",
    "required": ["format", "finished", *_CLIMB, "rungs"],
    "properties": {
        **_CLIMB,
        "format": _TEXT,
        "finished": {"type": "boolean"},
        "rungs": {"type": "array", "items": _RUNG},
    },
}
"""JSON schema of ``rungs.json``."""

REPORT_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "headstart report",
    "type": "object",
    "required": [
        *("task", "rows", "classes", "metrics", "baselines", "verdict", "transfer_helped"),
        *("candidates", "cost", "versions", "command"),
    ],
    "properties": {
        **_SHARED,
        "rows_by_part": {"type": "object", "additionalProperties": _COUNT},
        "metrics": {"type": "object", "additionalProperties": _INTERVAL},
        "baselines": {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": _NUMBER}},
        "verdict": _TEXT,
        "transfer_helped": {"enum": [True, False, "unclear"]},
        "cost": _COST,
        "rungs": {"type": "array", "items": _RUNG},
        "climb": {"type": ["object", "null"], "properties": _CLIMB},
        "negative_transfer": _TEXT,
        "model": {"type": "object", "additionalProperties": _MAYBE_NUMBER},
    },
}
"""JSON schema of ``report.json``; more properties than it names are allowed."""

RANK_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "headstart rank",
    "type": "object",
    "required": ["task", "rows", "classes", "score", "candidates", "versions", "command"],
    "properties": {**_SHARED, "score": _TEXT},
}
"""JSON schema of ``rank.json``."""
