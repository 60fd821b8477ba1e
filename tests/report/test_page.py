"""The page stands alone, is well formed, can be read by everybody, and believes nothing that data say."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.core.tasks import Task
from headstart.data import Finding
from headstart.evaluation import evaluate
from headstart.report import (
    Candidate,
    Climb,
    HeadSummary,
    NoveltySummary,
    RankData,
    ReportData,
    RowExample,
    RungLine,
    TrainingCurves,
    render_rank,
    render_report,
    write_report,
)
from page_checks import EVIL, Page, check_accessible, check_stands_alone

STYLES = Path(__file__).parents[2] / "src/headstart/report/page.css"


@pytest.mark.golden
def test_every_kind_of_run(any_report: ReportData, tmp_path: Path) -> None:
    path = write_report(any_report, tmp_path)
    html = path.read_text("utf-8")
    page = check_stands_alone(html)
    check_accessible(page)
    assert path.stat().st_size < 2_000_000
    assert not re.search(r"#0102[0-9a-f]{2}", html), "a placeholder colour was left"
    sentence = any_report.verdict.text.partition(": ")[2]
    assert sentence[1:] in page.text
    assert page.text.index(sentence[1:]) < page.text.index("Figures")
    assert any_report.command in page.text
    for name in any_report.task.classes[:3]:
        assert name in page.text


def test_a_ranking(ranking: RankData) -> None:
    page = check_stands_alone(render_rank(ranking))
    check_accessible(page)
    assert "Best base model: resnet50 (imagenet)" in page.text
    assert "Probably the best: first in 91 % of bootstrap draws of the rows" in page.text
    assert "no hub may be asked" in page.text
    empty = check_stands_alone(render_rank(replace(ranking, candidates=[Candidate("x", note="too big")], cost=None)))
    assert "No base model could be scored" in empty.text
    assert "too big" in empty.text


@pytest.mark.golden
def test_the_page_of_a_climb_stands_alone_too(report: ReportData) -> None:
    rungs = [
        RungLine(1, "head", "solved head", value=0.8, low=0.7, high=0.9, decision="go"),
        RungLine(2, "full", "full", value=0.85, low=0.75, high=0.95, kept=True, notes=["one"], tries=[{"value": 0.8}]),
        RungLine(3, "search", "search", status="skipped", reason="not worth it"),
    ]
    climb = Climb(report.verdict.metric, 100, rungs, "goal", "the goal is met", 0.01, goal=0.84)
    data = replace(report, climb=climb, negative_transfer="Negative transfer: raw input is better.", size_bytes=10**7)
    page = check_stands_alone(render_report(data))
    check_accessible(page)
    assert "What was tried" in page.text and "10.0 MB" in page.text


def test_the_least_a_run_can_have(bare_report: ReportData) -> None:
    page = check_stands_alone(render_report(bare_report))
    check_accessible(page)
    assert "Worst mistakes" not in page.text
    assert "Base models" not in page.text


@pytest.mark.golden
def test_hostile_names_are_text(report: ReportData) -> None:
    task = Task("classification", tuple(EVIL), target_name=EVIL[0])
    random = np.random.default_rng(0)
    targets = random.integers(0, 8, 80)
    evil = "".join(EVIL)
    example = RowExample(evil, evil, evil, 0.5, np.zeros((8, 8, 3), dtype=np.uint8), None, evil)
    worded = RowExample(evil, evil, evil, 0.5, None, evil, evil)
    candidate = Candidate(evil, {evil: 1.0}, 0.5, 0.4, 0.6, licence=evil, note=evil, size_bytes=5, chosen=True)
    data = replace(
        report,
        title=evil,
        task=task,
        backbone=evil,
        verdict=replace(report.verdict, text=evil, reasons=(evil,)),
        evaluation=replace(evaluate(task, targets, random.dirichlet(np.ones(8), 80), num_resamples=20), notes=(evil,)),
        baselines=[replace(report.baselines[0], name=evil, trained=evil, budget=evil)],
        goal=replace(report.goal, text=evil, note=evil),  # type: ignore[type-var]
        class_rows=dict.fromkeys(EVIL, 3),
        preflight=[evil],
        findings=[Finding(evil, "error", (evil,), evil)],
        training_curves=[TrainingCurves(evil, [1.0, 0.5], [1.0, 0.7], [0.5, 0.6], [0.5, 0.6], measure=EVIL[1])],
        candidates=[candidate, candidate],
        score_name=EVIL[0],
        head=HeadSummary(evil, evil, [1, 10, 100], [0.1, 0.2, 0.3], EVIL[0], 10),
        mistakes=[example],
        suspects=[worded],
        novelty=NoveltySummary(1, 2, evil, [worded]),
        versions={evil: evil},
        command=evil,
        config_toml=evil,
        created=evil,
        notes=[evil],
    )
    html = render_report(data)
    page = check_stands_alone(html)
    assert "alert(1)" in page.text
    assert "7777" not in page.text
    assert "{{ 7 * 1111 }}" in page.text
    assert "<script" not in html
    ranked = RankData(evil, task, "image", 5, [candidate, candidate], EVIL[0], 0.5, notes=(evil,), command=evil)
    check_stands_alone(render_rank(ranked))


@pytest.mark.golden
def test_names_no_font_has_give_no_warning(report: ReportData) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        render_report(
            replace(report, score_name="得分", candidates=[replace(c, backbone="模型") for c in report.candidates])
        )


@pytest.mark.golden
def test_the_same_run_gives_the_same_bytes(report: ReportData) -> None:
    assert render_report(report) == render_report(report)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("helped", "words"),
    [(True, "Transfer helped"), (False, "Transfer did not help"), ("unclear", "Unclear whether transfer helped")],
)
def test_the_headline_is_the_verdict(report: ReportData, helped: Any, words: str) -> None:
    verdict = replace(report.verdict, transfer_helped=helped, text=f"{words}: accuracy 91.2 %.")
    page = Page(render_report(replace(report, verdict=verdict)))
    assert f"{words} Accuracy 91.2 %." in page.text


@pytest.mark.golden
def test_many_classes_show_the_hardest_and_the_worst_pairs(report: ReportData) -> None:
    names = tuple(f"class {index:03d}" for index in range(150))
    task = Task("classification", names)
    targets = np.repeat(np.arange(150), 4)
    scores = np.eye(150)[targets] * 0.9 + 0.1 / 150
    scores[targets == 7] = np.eye(150)[8] * 0.9 + 0.1 / 150
    data = replace(report, task=task, evaluation=evaluate(task, targets, scores, num_resamples=20), class_rows={})
    html = render_report(data)
    page = Page(html)
    assert "The 20 hardest of 150 classes" in page.text
    assert page.text.index("class 007") < page.text.index("class 000")
    assert "class 007 class 008 4 100.0 %" in page.text
    assert [image for image in page.all("img") if "heat" in (image.get("class") or "")]
    assert len(html) < 500_000


@pytest.mark.golden
def test_one_class_and_perfect_answers(report: ReportData) -> None:
    task = Task("classification", ("only",))
    data = replace(report, task=task, evaluation=evaluate(task, np.zeros(5, dtype=int), np.ones((5, 1))))
    check_accessible(check_stands_alone(render_report(data)))


@pytest.mark.golden
def test_long_lists_are_folded(report: ReportData) -> None:
    findings = [Finding("truncated", "error", (f"a/{i}.jpg",), "cut short") for i in range(300)]
    mistakes = [RowExample(f"a/{i}.jpg", "a", "b", 0.5, text="word " * 500) for i in range(100)]
    html = render_report(replace(report, findings=findings, mistakes=mistakes, suspects=(), novelty=None))
    page = Page(html)
    assert "292 more findings" in page.text
    assert len(page.all("blockquote")) == 24
    assert len(html) < 500_000


# WCAG 2.2: contrast of text at least 4.5, of shapes that carry meaning at least 3.


def themes() -> dict[str, dict[str, str]]:
    blocks = re.findall(r":root \{(.*?)\}", STYLES.read_text("utf-8"), flags=re.DOTALL)
    light, dark = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in blocks[:2])
    assert set(light) == set(dark)
    return {"light": light, "dark": dark}


def luminance(colour: tuple[float, ...]) -> float:
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]


def contrast(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(theme: str) -> None:
    assert contrast(rgb("#000000"), rgb("#ffffff")) == pytest.approx(21)
    colours = {name: rgb(value) for name, value in themes()[theme].items()}
    for ground in ("paper", "card", "code"):
        for words in ("ink", "soft", "model", "good", "bad", "unsure"):
            if ground != "code" or words in {"ink", "soft"}:
                assert contrast(colours[words], colours[ground]) >= 4.5, (words, ground)
        for shape in ("model", "base"):
            assert contrast(colours[shape], colours[ground]) >= 3, (shape, ground)
    for wash, words in (("good-wash", "good"), ("good-wash", "ink"), ("unsure-wash", "ink"), ("unsure-wash", "soft")):
        assert contrast(colours[words], colours[wash]) >= 4.5, (words, wash)
    for tone in ("model", "bad"):  # cells of the confusion matrix: up to 45 % of the tone
        mixed = tuple(0.45 * a + 0.55 * b for a, b in zip(colours[tone], colours["paper"], strict=True))
        assert contrast(colours["ink"], mixed) >= 4.5, tone
    assert contrast(colours["card"], colours["base"]) >= 3  # numbers in the circles of the ranking, bold


@pytest.mark.golden
def test_every_colour_is_defined(report: ReportData) -> None:
    html = render_report(report)
    defined = set(re.findall(r"--([a-z]+(?:-[a-z]+)?):", html))
    used = set(re.findall(r"var\(--([a-z-]+)\)", html))
    assert used <= defined
    assert {"model", "base", "grid", "soft"} <= used


@pytest.mark.golden
@pytest.mark.parametrize("stray", [lambda d: replace(d, learning_curve=d.learning_curve[:1]),
                                   lambda d: replace(d, training_curves=[TrainingCurves("x", [0.5], [], [], [])]),
                                   lambda d: replace(d, training_curves=[TrainingCurves("x")]),
                                   lambda d: replace(d, head=HeadSummary("ridge", penalties=[0, 1], scores=[1, 2])),
                                   lambda d: replace(d, candidates=d.candidates[:1]),
                                   lambda d: replace(d, runtime=None, stages=(), novelty=None, goal=None)])  # fmt: skip
def test_half_filled_runs(report: ReportData, stray: Callable[[ReportData], ReportData]) -> None:
    check_accessible(check_stands_alone(render_report(stray(report))))


@pytest.mark.golden
def test_baselines_stand_in_one_order_whatever_the_runs(report: ReportData) -> None:
    turned = replace(report, baselines=report.baselines[::-1])
    assert render_report(turned) == render_report(report)


@pytest.mark.parametrize(
    ("created", "shown"),
    [
        ("2026-11-20T21:57:34Z", "20 November 2026, 21:57 UTC"),
        ("2026-11-02", "2 November 2026"),
        ("last night", "last night"),
    ],
)
def test_times_are_for_people(bare_report: ReportData, created: str, shown: str) -> None:
    assert f"· {shown} " in Page(render_report(replace(bare_report, created=created))).text


@pytest.mark.golden
def test_training_curves_name_their_step(report: ReportData) -> None:
    curves = TrainingCurves("from scratch", [1.0, 0.9], [1.0, 0.8], [0.5, 0.6], [0.5, 0.6], step="check of 5 batches")
    html = render_report(replace(report, training_curves=[curves]))
    assert "From scratch: loss and accuracy after each check of 5 batches." in html
    assert ">epoch<" not in html
