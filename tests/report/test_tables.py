"""The tables' words, and the pictures' bytes."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from headstart.core.tasks import Task
from headstart.evaluation import Interval, evaluate
from headstart.report import Candidate, ReportData, RowExample, TrainingCurves, plots, tables
from headstart.report.pictures import heatmap_uri, picture_uri


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_bars_stand_in_order_and_skip_what_is_undefined(report: ReportData) -> None:
    bars = tables.comparison_bars(report)
    assert [label for label, _ in bars] == ["this model", "from scratch", "raw input", "majority"]
    nothing = Interval(float("nan"), float("nan"), float("nan"))
    first = report.baselines[0]
    gone = replace(first, evaluation=replace(first.evaluation, metrics={"accuracy": nothing}))
    assert [label for label, _ in tables.comparison_bars(replace(report, baselines=[gone]))] == ["this model"]


def test_metric_table_marks_the_verdicts_metric_and_hides_micro(report: ReportData) -> None:
    lines = {line["title"]: line for line in tables.metric_table(report)}
    assert lines["accuracy"]["chief"]
    assert [title for title, line in lines.items() if line["hidden"]] == [
        "precision (micro)", "recall (micro)", "F1 (micro)",
    ]  # fmt: skip
    assert len(lines["accuracy"]["baselines"]) == 3


def test_paired_lines_speak_in_points(report: ReportData) -> None:
    line = tables.paired_lines(report)[0]
    assert line["title"] == "from scratch"
    assert line["gap"].endswith(" points")
    assert line["gap"].startswith("+")
    assert line["test"] == "p < 0.001, exact McNemar"


def test_confused_pairs_by_hand() -> None:
    task = Task("classification", ("a", "b", "c"))
    result = evaluate(task, np.array([0, 0, 0, 0, 1, 2]), np.array([0, 1, 1, 2, 1, 2]), num_resamples=10)
    assert tables.confused_pairs(result) == [
        {"truth": "a", "predicted": "b", "rows": 2, "share": "50.0 %"},
        {"truth": "a", "predicted": "c", "rows": 1, "share": "25.0 %"},
    ]
    assert tables.confused_pairs(result, most=1)[0]["predicted"] == "b"
    cells = tables.confusion_cells(result)
    assert cells[0][1] == {"count": 2, "share": 0.5, "right": False}
    assert cells[2][2] == {"count": 1, "share": 1.0, "right": True}


def test_candidates_have_a_column_for_each_score() -> None:
    table = tables.candidate_table(
        [
            Candidate("x", {"logme": 1.25, "probe": 0.9}, 1.25, 1.0, 1.5, 0.9, 12.0, 18_600_000),
            Candidate("y", note="no"),
        ],
        "logme",
    )
    assert table["names"] == ["probe"]
    assert table["with_probe"]
    first, second = table["lines"]
    assert (first["score"], first["range"], first["probe"], first["size"]) == (
        "1.250",
        "1.000 to 1.500",
        "90.0 %",
        "18.6 MB",
    )
    assert (second["score"], second["cost"], second["scores"]) == ("–", "–", ["–"])


def test_cards_cut_long_texts_and_say_how_sure() -> None:
    task = Task("classification", ("a", "b"))
    [card] = tables.cards([RowExample("row 3", "a", "b", 0.984, text="word\n  " * 200)], task)
    assert card.sureness == "98 % sure"
    assert len(card.text) <= 362
    assert card.text.startswith("word word")
    assert card.text.endswith("…")
    [number] = tables.cards([RowExample("row 3", "1", "2", 26.4)], Task("regression"))
    assert number.sureness == "off by 26.40"


@pytest.mark.parametrize(
    ("shape", "size", "tiny", "kind"),
    [
        ((28, 28), (28, 28), True, "PNG"),
        ((28, 20, 1), (20, 28), True, "PNG"),
        ((300, 600, 3), (200, 100), False, "JPEG"),
        ((100, 90, 4), (90, 100), False, "JPEG"),
    ],
)
def test_pictures_of_every_shape(shape: tuple[int, ...], size: tuple[int, int], tiny: bool, kind: str) -> None:
    uri, small = picture_uri(np.full(shape, 200, dtype=np.uint8))
    picture = decoded(uri)
    assert (picture.size, small, picture.format) == (size, tiny, kind)
    assert abs(int(np.asarray(picture.convert("RGB"))[5, 5, 0]) - 200) < 4


def test_heatmap_shows_where_the_mistakes_are() -> None:
    confusion = np.array([[10, 0, 0], [5, 5, 0], [0, 0, 0]])
    pixels = np.asarray(decoded(heatmap_uri(confusion)))
    assert pixels.shape == (3, 3, 4)
    assert (pixels[..., 3] > 0).tolist() == (confusion > 0).tolist()
    assert pixels[0, 0, 2] > pixels[0, 0, 0]  # blue: right
    assert pixels[1, 0, 0] > pixels[1, 0, 2]  # red: wrong
    assert pixels[0, 0, 3] == 255 > pixels[1, 1, 3]


def test_a_chart_tells_its_figures_in_words() -> None:
    svg = plots.comparison_chart(
        "accuracy", [("this model", Interval(0.9, 0.8, 0.95)), ("majority", Interval(0.5, 0.4, 0.6))]
    )
    assert "this model 90.0 %; majority 50.0 %</desc>" in svg
    assert "var(--model)" in svg
    assert ">90.0 %<" in svg, "text stays text"
    curves = plots.training_chart(TrainingCurves("scratch", [2.0, 1.0], [2.0, 1.5], [0.1, 0.5], [0.1, 0.4]))
    assert "loss 1.5, accuracy 0.4" in curves


def test_a_chart_draws_what_it_is_given() -> None:
    """The dot of 50 % lies halfway between those of 40 % and 60 %."""
    import re

    bars = [(name, Interval(value, value, value)) for name, value in (("a", 0.4), ("b", 0.5), ("c", 0.6))]
    svg = plots.comparison_chart("accuracy", bars)
    places = [float(x) for x in re.findall(r'<use [^>]*x="([0-9.]+)"[^>]*style="fill: var\(--(?:model|base)\)', svg)]
    assert len(places) == 3
    assert places[1] == pytest.approx((places[0] + places[2]) / 2)
    assert places[2] > places[0]
