"""``adapt.html`` and ``adapt.json``: what they say with and without target labels, and that the page stands alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.core.tasks import Task
from headstart.data import Finding
from headstart.distances import Measurement
from headstart.evaluation import Interval, PairedTest
from headstart.evaluation.selection import Score, Selection
from headstart.report import Cost, RowExample
from headstart.report.adapt import (
    AdaptData,
    AnswerShift,
    DomainsInPlane,
    SavedFigures,
    adapt_json,
    render_adapt,
    write_adapt_report,
)
from headstart.report.adapted import AdaptedLine, Hindsight
from page_checks import EVIL, check_accessible, check_stands_alone

STAYS = "do not adapt"


def plane(seed: int, classes: tuple[str, ...] = ("ant", "bee")) -> DomainsInPlane:
    draws = np.random.default_rng(seed)
    source, target = draws.normal(size=(40, 2)), draws.normal(size=(30, 2))
    names = np.array(classes, dtype=object)
    return DomainsInPlane(source, target, list(names[draws.integers(0, len(names), 40)]), list(names[[0] * 30]), 0.6)


def measured(value: float, p_value: float) -> Measurement:
    chance = "by chance between -0.30 and 0.30"
    return Measurement("proxy-a", value, value - 0.1, value + 0.1, p_value, "", "can they be told apart", chance)


@pytest.fixture
def data() -> AdaptData:
    scores = {STAYS: Score(0.4), "coral": Score(0.7), "kmm": Score(float("nan"), "failed: too few rows")}
    return AdaptData(
        source="photos",
        target="sketches",
        source_rows=40,
        target_rows=30,
        modality="image",
        task=Task("classification", ("ant", "bee")),
        selection=Selection("coral", "coral scores 0.7.", scores, "CircularValidation", STAYS, 0.08),
        rule_title="circular validation",
        rule_fails="classes are swapped",
        lines=(
            AdaptedLine(STAYS, 0.4, "", 0.0, 0.1),
            AdaptedLine("coral", 0.7, "", 0.3, 1.2),
            AdaptedLine("kmm", None, "failed: too few rows", None, 0.3),
        ),
        changed=9,
        before=plane(0),
        after=plane(1),
        gaps=[(measured(1.9, 0.01), measured(0.2, 0.4))],
        shifts=[AnswerShift("ant", 20, 11), AnswerShift("bee", 10, 19)],
        examples=[RowExample("1.jpg", "ant", "bee", 0.9, np.zeros((8, 8, 3), dtype=np.uint8), None, "labelled bee")],
        summaries={"coral": "equal covariances"},
        folder="adapted",
        backbone="resnet18",
        cost=Cost(3.0, 4.0, 10),
        findings=[Finding("unreadable", "error", ("2.jpg", "3.jpg", "4.jpg", "5.jpg"), "cannot be decoded")],
        notes=["target: a note"],
        versions={"headstart": "1"},
        command="headstart adapt photos sketches --out adapted",
        created="2030-01-02T03:04:05Z",
    )


@pytest.fixture
def labelled(data: AdaptData) -> AdaptData:
    test = PairedTest("accuracy", "exact McNemar", 0.2, 0.1, 0.3, 0.002)
    seen = Hindsight(30, 2, Interval(0.5, 0.3, 0.7), Interval(0.7, 0.5, 0.8), Interval(0.8, 0.6, 0.9), "jda", test)
    lines = [*data.lines, AdaptedLine("jda", 0.6, "", 0.5, 0.2)]
    figures = [seen.source_only, seen.selected, None, seen.oracle]
    return replace(
        data,
        lines=[replace(line, measured=value) for line, value in zip(lines, figures, strict=True)],
        hindsight=seen,
        shifts=[
            AnswerShift("ant", 20, 11, 14, 12, 9),
            AnswerShift("bee", 10, 19, 14, 3, 12),
            AnswerShift("fly", 0, 0, 2, 0, 0),
        ],
    )


@pytest.mark.golden
def test_without_labels_the_page_claims_no_gain(data: AdaptData) -> None:
    page = check_stands_alone(render_adapt(data))
    check_accessible(page)
    text = page.text
    assert (
        page.words
        and "Adapted with coral" in text
        and "Nobody has measured this: sketches came without labels." in text
    )
    assert "9 of 30 rows are answered otherwise" in text
    for absent in ("Adapting helped", "accuracy", "recall", "oracle", "Hindsight"):
        assert absent not in text.replace("no proof of accuracy", "")
    assert "Without labels of the target nobody knows which of these moves are gains" in text
    assert "20 66.7 % 11 36.7 % −30.0" in text  # ant: 20 of 30 rows, then 11
    assert "left out: failed: too few rows" in text
    assert "no proof of accuracy" in text and "by chance between -0.30 and 0.30" in text
    assert (
        "headstart predict adapted new_rows" in text
        and "The model answers for rows of sketches, not of photos." in text
    )
    assert "2.jpg, 3.jpg, 4.jpg and 1 more" in text and "target: a note" in text


def test_with_labels_gains_losses_and_the_oracle_are_shown(labelled: AdaptData) -> None:
    page = check_stands_alone(render_adapt(labelled))
    check_accessible(page)
    text = page.text
    assert "Adapting helped" in text and "Selected 70.0 % (95 % CI 50.0 to 80.0), source only 50.0 %" in text
    assert "+20.0 points, paired test p = 0.002" in text
    assert "oracle, unreachable" in text and "nobody can choose it" in text
    assert "2 of the labelled rows belong to classes the source does not have" in text
    assert "ant 14 85.7 % 64.3 % 12 → 9 −21.4" in text
    assert "bee 14 21.4 % 85.7 % 3 → 12 +64.3" in text
    assert "fly 2 0.0 % 0.0 % 0 → 0 0" in text
    assert [image for image in page.all("img") if "not adapted ant" in (image["alt"] or "")]


@pytest.mark.parametrize(
    "difference, p_value, word, kind",
    [
        (0.2, 0.01, "Adapting helped", "good"),
        (-0.2, 0.01, "Adapting hurt (negative transfer)", "bad"),
        (0.2, 0.3, "No difference beyond chance", "unsure"),
    ],
)
def test_the_headline_is_what_labels_say(
    labelled: AdaptData, difference: float, p_value: float, word: str, kind: str
) -> None:
    assert labelled.hindsight is not None and labelled.hindsight.test is not None
    test = replace(labelled.hindsight.test, difference=difference, p_value=p_value)
    page = check_stands_alone(render_adapt(replace(labelled, hindsight=replace(labelled.hindsight, test=test))))
    assert page.all("h1")[0]["class"] == kind and word in page.text


def test_errors_of_numbers_are_told_in_their_own_unit(labelled: AdaptData) -> None:
    assert labelled.hindsight is not None and labelled.hindsight.test is not None
    seen = replace(
        labelled.hindsight,
        metric="rmse",
        selected=Interval(1.5, 1.25, 2.0),
        test=replace(labelled.hindsight.test, metric="rmse", difference=0.25),
    )
    assert "selected RMSE 1.50 (95 % CI 1.25 to 2.00)" in seen.sentence and "+0.25, paired test" in seen.sentence


def test_not_adapting_shows_one_picture_and_no_after(data: AdaptData) -> None:
    selection = replace(data.selection, chosen=STAYS, reason="No adaptation scores above.")
    page = check_stands_alone(
        render_adapt(
            replace(data, selection=selection, after=None, gaps=[(data.gaps[0][0], None)], changed=0, examples=())
        )
    )
    assert "Nothing was adapted" in page.text and "there is one picture" in page.text and "After" not in page.text
    assert len([svg for svg in page.all("svg") if svg.get("role") == "img"]) == 2
    assert "unlike the source rows it learnt from" in page.text


def test_a_method_that_moves_no_rows_says_so(data: AdaptData) -> None:
    page = check_stands_alone(render_adapt(replace(data, after=None, gaps=[(data.gaps[0][0], None)])))
    assert "coral moves no rows" in page.text


def test_many_classes_show_those_that_changed_most(data: AdaptData) -> None:
    names = tuple(f"class {number}" for number in range(30))
    shifts = [AnswerShift(name, 10, 10 + number) for number, name in enumerate(names)]
    many = replace(
        data, task=Task("classification", names), shifts=shifts, before=plane(0, names), after=plane(1, names)
    )
    page = check_stands_alone(render_adapt(many))
    assert "The 20 classes that changed most, of 30." in page.text and "All 30 classes" in page.text
    assert page.text.index("class 29") < page.text.index("class 11") and "other classes" in page.text


@pytest.mark.golden
def test_hostile_names_are_text(labelled: AdaptData) -> None:
    evil, names = "".join(EVIL), tuple(EVIL)
    score = {STAYS: Score(0.1), evil: Score(0.2)}
    hostile = replace(
        labelled,
        source=evil,
        target=evil,
        task=Task("classification", names),
        selection=Selection(evil, evil, score, evil, STAYS, 0.1),
        rule_title=evil,
        rule_fails=evil,
        lines=[AdaptedLine(evil, 0.2, evil, 0.1, 0.1)],
        before=plane(0, names),
        after=plane(1, names),
        gaps=[(replace(measured(1.0, 0.1), name=evil, meaning=evil, note=evil), measured(1.0, 0.1))],
        shifts=[AnswerShift(name, 1, 2, 3, 1, 1) for name in names],
        examples=[RowExample(evil, evil, evil, 0.5, None, evil, evil)],
        summaries={evil: evil},
        new_rows=evil,
        folder=evil,
        backbone=evil,
        findings=[Finding(evil, "error", (evil,), evil)],
        notes=[evil],
        versions={evil: evil},
        command=evil,
        created=evil,
    )
    html = render_adapt(hostile)
    page = check_stands_alone(html)
    assert "alert(1)" in page.text and "7777" not in page.text and "<script" not in html
    json.dumps(adapt_json(hostile), allow_nan=False)


def test_the_promised_names(labelled: AdaptData, tmp_path: Path) -> None:
    write_adapt_report(labelled, tmp_path)
    about: dict[str, Any] = json.loads((tmp_path / "adapt.json").read_text())
    documented = (Path(__file__).parents[2] / "docs" / "report-json.md").read_text()
    section = documented[documented.index("# adapt.json") :]
    for name in about:
        assert f"`{name}" in section or f"{name}.{{" in section or f"`{name}[]" in section, name
    assert about["format"] == "headstart adapt 1" and about["candidates"][2]["score"] is None
    assert about["hindsight"]["oracle_unreachable"]["name"] == "jda"
    assert about["answers"][1] == {
        "name": "bee",
        "answered_before": 10,
        "answered_after": 19,
        "rows": 14,
        "right_before": 3,
        "right_after": 12,
    }
    assert about["gap"][0]["after"]["value"] == 0.2
    assert about["examples"] == [{"row": "1.jpg", "source_only": "ant", "selected": "bee", "note": "labelled bee"}]


@pytest.mark.golden
def test_a_saved_models_page_claims_no_gap_and_no_rule(data: AdaptData) -> None:
    before, after = (replace(plane(seed), source_classes_n=[]) for seed in (0, 1))
    scores = {STAYS: Score(float("nan")), "tent": Score(float("nan"))}
    saved = replace(
        data,
        source="run",
        source_rows=None,
        selection=Selection("tent", "tent was asked for.", scores, "", STAYS, 0.0),
        rule_title="",
        rule_fails="",
        lines=(
            AdaptedLine(STAYS, None, "", 0.0, 0.1, entropy=0.5, unlike=0.4),
            AdaptedLine("tent", None, "", 0.3, 1.2, entropy=0.1, unlike=0.2),
        ),
        gaps=[],
        before=before,
        after=after,
        saved=SavedFigures((0.5, 0.1), (0.4, 0.2), 40),
    )
    page = check_stands_alone(render_adapt(saved))
    check_accessible(page)
    text = page.text
    assert "run (a saved model) to sketches (30 rows)" in text and "labelled rows)" not in text
    assert "mean entropy of the answers at most 0.693, all classes alike 0.500 0.100" in text
    assert (
        "rows unlike the training rows told by the 40 training rows that the model keeps as features 40.0 % 20.0 %"
        in text
    )
    assert "no rule can tell which method helps" in text and "The choice was made by" not in text
    assert "How far apart" not in text and "Marks are target rows by their answer" in text
    assert "not of those it was trained on" in text
    value = adapt_json(saved)
    assert value["rows"] == {"source": None, "target": 30}
    assert value["saved_model"] == {
        "entropy": {"before": 0.5, "after": 0.1},
        "unlike_training": {"before": 0.4, "after": 0.2},
        "kept_training_rows": 40,
    }
    stays = replace(saved, selection=Selection(STAYS, "None was chosen.", scores, "", STAYS, 0.0), after=None)
    text = check_stands_alone(render_adapt(stays)).text
    assert "The model is run as it was." in text and "No candidate scores enough" not in text


@pytest.mark.golden
def test_the_same_data_give_the_same_bytes(labelled: AdaptData) -> None:
    assert render_adapt(labelled) == render_adapt(labelled)
