"""``report.json`` keeps its promises: the schema, no NaN, nothing that a UTF-8 file cannot hold."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.core.tasks import Task
from headstart.evaluation import CurvePoint, Interval
from headstart.report import (
    RANK_SCHEMA,
    REPORT_SCHEMA,
    Candidate,
    RankData,
    ReportData,
    rank_json,
    report_json,
    write_rank_report,
    write_report,
)

TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


def violations(value: Any, schema: dict[str, Any], place: str = "$") -> list[str]:
    """Return where a value breaks a schema; the words of JSON Schema that ours use, and no others."""
    known = {"type", "enum", "required", "properties", "additionalProperties", "items", "minimum", "title", "$schema"}
    assert set(schema) <= known
    found = []
    if "enum" in schema and not any(
        value is one or (value == one and type(value) is type(one)) for one in schema["enum"]
    ):
        found.append(f"{place}: {value!r} is not one of {schema['enum']}")
    if "type" in schema:
        names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        fits = any(
            isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool)) for name in names
        )
        if not fits:
            return [*found, f"{place}: {value!r} is no {names}"]
    if isinstance(value, int | float) and value < schema.get("minimum", -math.inf):
        found.append(f"{place}: {value} is too small")
    if isinstance(value, dict):
        found += [f"{place}: {name} is missing" for name in schema.get("required", []) if name not in value]
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
        for name, item in value.items():
            if name in properties:
                found += violations(item, properties[name], f"{place}.{name}")
            elif rest is False:
                found.append(f"{place}: {name} is not allowed")
            elif isinstance(rest, dict):
                found += violations(item, rest, f"{place}.{name}")
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            found += violations(item, schema["items"], f"{place}[{index}]")
    return found


def strict(text: str) -> Any:
    """Parse JSON as the standard has it: NaN and infinity are errors."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} was written")

    return json.loads(text, parse_constant=refuse)


def test_the_validator_can_fail() -> None:
    assert violations({"a": "1"}, {"type": "object", "properties": {"a": {"type": "integer"}}})
    assert violations({}, {"required": ["a"]})
    assert violations(True, {"type": "integer"})
    assert violations(1, {"enum": [True, False]})
    assert violations([-1], {"items": {"minimum": 0}})
    assert violations({"b": 1}, {"additionalProperties": False})


def test_every_kind_of_run_fits_the_schema(any_report: ReportData) -> None:
    value = strict(json.dumps(report_json(any_report), allow_nan=False))
    assert violations(value, REPORT_SCHEMA) == []


def test_the_promised_names(report: ReportData) -> None:
    value = report_json(report)
    assert value["task"] == "classification"
    assert value["rows"] == 616 + 413 + 3
    assert value["classes"] == list(report.task.classes)
    accuracy = report.evaluation.metrics["accuracy"]
    assert value["metrics"]["accuracy"] == {"value": accuracy.value, "low": accuracy.low, "high": accuracy.high}
    assert set(value["baselines"]) == {"majority", "raw", "scratch"}
    assert value["baselines"]["majority"]["accuracy"] < value["baselines"]["scratch"]["accuracy"] < accuracy.value
    assert value["verdict"] == report.verdict.text
    assert value["transfer_helped"] is True
    first = value["candidates"][0]
    assert (first["backbone"], first["score"], first["cost"]) == ("resnet50 (imagenet)", 0.902, 41.0)
    assert value["cost"] == {"cpu_seconds": 48.7, "wall_seconds": 31.2, "from_cache": 0}
    assert value["versions"]["torch"] == "2.15.0"


def test_counts_agree(report: ReportData) -> None:
    value = report_json(report)
    assert sum(cell["rows"] for cell in value["confusion"]) == 413
    assert sum(line["support"] for line in value["per_class"]) == 413
    assert value["rows_by_part"] == {"train": 616, "validation": 0, "test": 413, "quarantined": 3}


def test_the_least_a_run_can_have(bare_report: ReportData) -> None:
    assert violations(report_json(bare_report), REPORT_SCHEMA) == []


def test_what_is_undefined_is_left_out(report: ReportData) -> None:
    nothing = float("nan")
    metrics = {**report.evaluation.metrics, "roc_auc": Interval(nothing, nothing, nothing)}
    data = replace(
        report,
        evaluation=replace(report.evaluation, metrics=metrics),
        candidates=[Candidate("odd", score=nothing, scores={"logme": np.float32("inf")}, cpu_seconds=np.float64(1.5))],
        learning_curve=[CurvePoint(4, nothing, 0.0, 1.0)],
    )
    value = strict(json.dumps(report_json(data), allow_nan=False))
    assert violations(value, REPORT_SCHEMA) == []
    assert "roc_auc" not in value["metrics"]
    assert value["undefined_metrics"] == ["roc_auc"]
    assert value["candidates"][0]["score"] is None
    assert value["candidates"][0]["scores"] == {"logme": None}
    assert value["learning_curve"][0]["value"] is None


@pytest.mark.golden
def test_undecodable_names_can_be_written(report: ReportData, tmp_path: Path) -> None:
    data = replace(report, title="caf\udce9", command="headstart fit 'caf\udce9'")
    page = write_report(data, tmp_path / "run")
    assert strict((tmp_path / "run" / "report.json").read_text("utf-8"))["title"] == "caf\\udce9"
    assert "caf\\udce9" in page.read_text("utf-8")


@pytest.mark.parametrize("helped", [True, False, "unclear"])
def test_transfer_helped_keeps_its_type(report: ReportData, helped: Any) -> None:
    data = replace(report, verdict=replace(report.verdict, transfer_helped=helped))
    value = strict(json.dumps(report_json(data)))
    assert value["transfer_helped"] is helped or value["transfer_helped"] == helped == "unclear"


def test_a_ranking_fits_its_schema(ranking: RankData, tmp_path: Path) -> None:
    page = write_rank_report(ranking, tmp_path)
    assert page == tmp_path / "rank.html"
    value = strict((tmp_path / "rank.json").read_text("utf-8"))
    assert violations(value, RANK_SCHEMA) == []
    assert [one["backbone"] for one in value["candidates"]][:2] == ["resnet50 (imagenet)", "efficientnet-lite0"]
    assert value["candidates"][-1]["score"] is None
    alone = RankData("x", Task("regression"), "vector", 5, [])
    assert violations(rank_json(alone), RANK_SCHEMA) == []
