"""The section on what was tried: every kind of rung, hostile text, numbers of every sign, and the contract."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from headstart.evaluation import PairedTest
from headstart.report import Climb, ReportData, RungLine, TrainingCurves, render_report, report_json
from headstart.report.contract import RUNGS_SCHEMA, rungs_json
from headstart.report.rung_table import difference_text, recipe_text, rung_lines, stop_sentence

HOSTILE = "<script>alert('x')</script>"
RECIPE = {"strategy": "layerwise-decay:0.75", "epochs": 12, "learning_rate": 1e-4, "regularisers": {"l2-sp": 1.0}}


def climb(metric: str = "accuracy", name: str = "net") -> Climb:
    def test(gap: float) -> PairedTest:
        return PairedTest(metric, "exact McNemar", gap, gap - 0.02, gap + 0.02, 0.03)

    return Climb(
        metric,
        200,
        [
            RungLine(1, "head", f"solved head on {name}", name, decision="go", reason="x is expected to bring +1.0 points",
                     value=0.8, low=0.75, high=0.85, held_out=0.81, cpu_seconds=4.0, wall_seconds=3.0),
            RungLine(2, "base-model", "11 more base models", status="skipped", reason="not worth it: expected +0.01 points",
                     expected=0.0001, worth=0.004, settings={"base_models": ["a", "b"]}),
            RungLine(3, "partial", "fine-tuning of the last stages", name, status="cut-off", reason="the budget ran out",
                     expected=0.01, cpu_seconds=60.0, wall_seconds=70.0),
            RungLine(4, "full", "full fine-tuning", name, status="failed", reason="the loss is not finite at step 3"),
            RungLine(5, "search", "search over recipes", name, decision="stop", reason="the goal is met", expected=0.02,
                     expected_why="20 points to the ideal x 0.5", value=0.9, low=0.86, high=0.94, paired=test(0.1),
                     cpu_seconds=120.0, wall_seconds=100.0, memory_bytes=2e9, size_bytes=2e7, latency_seconds=0.01,
                     kept=True, settings=RECIPE, notes=["a note"],
                     tries=[{"recipe": RECIPE, "value": 0.88}, {"recipe": RECIPE, "value": None, "problem": "no"}]),
        ],
        "goal",
        "the goal is met on rows held out from training",
        optimism=0.012,
        refit="made again from all 1,000 training rows by the same recipe",
        goal=0.9,
    )  # fmt: skip


@pytest.mark.golden
def test_every_kind_of_rung_is_on_the_page(report: ReportData) -> None:
    curves = TrainingCurves("full fine-tuning", [1.0, 0.5], [1.1, 0.8], [0.5, 0.9], [0.5, 0.8])
    page = render_report(replace(report, climb=climb(report.verdict.metric), training_curves=[curves]))
    section = page[page.index('id="tried"') : page.index("</section>", page.index('id="tried"'))]
    for words in (
        "not tried",
        "cut off",
        "failed",
        "kept",
        "go on",
        "stop",
        "2 tries",
        "made again",
        "A note",
        "1.2 points",
    ):
        assert words in section, words
    assert section.count("<svg") == 2  # the figures of the rungs, the training curves
    assert "How training went" not in page.replace(section, "")


@pytest.mark.golden
def test_names_of_base_models_are_text(report: ReportData) -> None:
    data = replace(
        report, climb=climb(report.verdict.metric, HOSTILE), negative_transfer=f"Negative transfer: {HOSTILE}."
    )
    page = render_report(data)
    assert HOSTILE not in page and "&lt;script&gt;" in page


@pytest.mark.golden
def test_one_rung_has_no_chart_and_no_word_on_flattery(report: ReportData) -> None:
    alone = replace(climb(report.verdict.metric), rungs=climb().rungs[:1], stopped="no-goal", optimism=0.0)
    page = render_report(replace(report, climb=alone))
    assert "flatters" not in page and "What each rung reached" not in page
    assert "flatters" in stop_sentence(climb())


def test_the_contract_holds_the_rungs_as_they_are(report: ReportData) -> None:
    value = report_json(replace(report, climb=climb(), negative_transfer="Negative transfer: yes.", size_bytes=5))
    own = rungs_json(climb(), finished=True)
    assert value["rungs"] == own["rungs"] and value["climb"] == {k: own[k] for k in value["climb"]}
    assert value["model"] == {"size_bytes": 5, "peak_memory_bytes": None, "latency_seconds": None}
    assert value["negative_transfer"] == "Negative transfer: yes."
    assert set(own) == {*RUNGS_SCHEMA["required"]}
    bare = report_json(report)
    assert bare["rungs"] == [] and bare["climb"] is None and bare["negative_transfer"] == ""


def test_figures_that_are_not_finite_become_null() -> None:
    line = RungLine(1, "head", "head", value=math.nan, low=-math.inf, high=1.0)
    value: Any = rungs_json(replace(climb(), rungs=[line]), finished=False)
    assert value["rungs"][0]["value"] is None and value["rungs"][0]["low"] is None


@pytest.mark.parametrize(
    ("metric", "gain", "text"),
    [
        ("accuracy", 0.1234, "+12.3 points"),
        ("accuracy", -0.0012, "-0.12 points"),
        ("rmse", 1.5, "+1.50"),
        ("rmse", -1500.0, "-1,500"),
        ("log_loss", 0.0, "none"),
    ],
)
def test_differences_carry_sign_and_unit(metric: str, gain: float, text: str) -> None:
    assert difference_text(metric, gain) == text


def test_lines_for_people() -> None:
    lines = rung_lines(climb())
    assert lines[0]["range"] == "75.0 to 85.0" and lines[0]["cost"] == "4.0 s" and lines[0]["expected"] == "–"
    assert lines[1]["cost"] == "–" and lines[1]["expected"] == "+0.01 points"
    assert lines[4]["needs"] == "model 20.0 MB, peak memory 2.0 GB, 10 ms a row"
    assert lines[4]["brought"] == "+10.0 points" and lines[4]["p_value"] == "p = 0.030"
    assert lines[4]["tries"][1]["value"] == "–"
    assert recipe_text({"head": "ridge"}) == "" and "l2-sp 1" in recipe_text(RECIPE)
