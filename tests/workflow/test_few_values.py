"""A few labelled target rows where labels are numbers: who learns from them, when they choose, and what is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import headstart
from few_labelled import count_few_learned, heard, saved_models_answer_alike, write_tables
from headstart.alignment import AdaptedRegressor, FusionRegressor
from headstart.catalog import read_recipe
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import Progress
from headstart.data import open_dataset
from headstart.methods import AdaptedNetworkRegressor
from headstart.workflow.adaptations import NO_ADAPTATION
from headstart.workflow.domains import open_two_domains
from headstart.workflow.few_choice import FewValueTest
from headstart.workflow.few_labels import FEW_ALONE, FEW_VALUE_CANDIDATES, FewValuesAlone, RegressorFromFew
from headstart.workflow.few_rows import FewRows, open_few
from headstart.workflow.several_sources import SourceNumbers
from headstart.workflow.value_candidates import value_aligners
from striped_pictures import small_residual

QUIET = Progress(quiet=True)


def other_gain(num_few: int = 20, seed: int = 0) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Return a source, a target whose numbers hang on its columns otherwise, and a few labelled rows of that target."""
    random = np.random.default_rng(seed)
    parts: list[Any] = []
    for size, slopes in ((80, [2.0, -1.0, 0.5]), (80, [2.0, 3.0, 0.5]), (num_few, [2.0, 3.0, 0.5])):
        rows = random.normal(size=(size, 3)).astype(np.float32)
        parts += [rows, rows @ np.array(slopes) + 0.1 * random.normal(size=size) + 10]
    return tuple(parts)


def few_rows(rows: Any, values: Any) -> FewRows:
    return FewRows(open_dataset(rows, labels=values, task="regression"), np.asarray(values, float), rows, rows)


def test_candidates_learn_from_them_and_go_back_without() -> None:
    source, values, target, _, rows, own = other_gain()
    few, numbers = few_rows(rows, own), SourceNumbers(source, np.zeros(80))
    fitted = RegressorFromFew(FusionRegressor(), numbers, few).fit(source, values, target)
    every, known = np.concatenate([target, rows]), [None] * 80 + own.tolist()
    by_hand = FusionRegressor().fit(source, values, every, target_labels=known)
    np.testing.assert_allclose(fitted.predict(target), by_hand.predict(target))
    with pytest.raises(DataError, match="FusionRegressor cannot go back"):
        RegressorFromFew(FusionRegressor(), numbers, few).fit(target, values, source)


@pytest.mark.golden
def test_a_network_has_them_as_a_domain_of_its_own() -> None:
    source, values, target, _, rows, own = other_gain()
    few, numbers = few_rows(rows, own), SourceNumbers(source, np.zeros(80))
    network = AdaptedNetworkRegressor(read_recipe("dan"), "dense8-relu", num_steps=10)
    told = RegressorFromFew(network, numbers, few).fit(source, values, target)
    every = np.concatenate([source, rows, target]), np.concatenate([values, own, np.zeros(80)])
    where = np.concatenate([np.full(80, 1), np.full(20, 2), np.full(80, -1)])
    again = AdaptedNetworkRegressor(read_recipe("dan"), "dense8-relu", num_steps=10).fit(*every, sample_domain=where)
    np.testing.assert_array_equal(told.predict(target), again.predict(target))


def test_few_labels_alone_knows_nothing_of_the_source() -> None:
    source, values, target, truth, rows, own = other_gain()
    few, numbers = few_rows(rows, own), SourceNumbers(source, np.zeros(80))
    first = FewValuesAlone(AdaptedRegressor(None), numbers, few).fit(source, values, target)
    other = FewValuesAlone(AdaptedRegressor(None), numbers, few).fit(source, -values, target)
    np.testing.assert_array_equal(first.predict(target), other.predict(target))
    assert np.abs(first.predict(target) - truth).mean() < 0.3
    with pytest.raises(DataError, match="no way back"):
        FewValuesAlone(AdaptedRegressor(None), numbers, few).fit(target, values, source)
    with pytest.raises(DataError, match="one labelled target row alone"):
        FewValuesAlone(AdaptedRegressor(None), numbers, few.subset(np.array([3]))).fit(source, values, target)


def test_ten_of_them_may_choose() -> None:
    rows = np.zeros((10, 1), np.float32)
    assert few_rows(rows[:9], np.arange(9.0)).too_few() == "9 labelled target rows, and 10 could choose"
    assert few_rows(rows, np.arange(10.0)).too_few() == ""
    assert few_rows(rows, np.ones(10)).too_few() == "all labelled target rows have one number"
    answered = [answer.tolist() for _, answer in few_rows(rows, np.arange(10.0)).folds(seed=0)]
    assert sorted(np.concatenate(answered)) == list(range(10)) and {len(part) for part in answered} == {2}


@given(st.lists(st.floats(-100, 100), min_size=4, max_size=12), st.integers(0, 5))
def test_the_score_is_r2_and_its_rows_are_outcomes(labels: list[float], seed: int) -> None:
    truth = np.array([*labels, max(labels) + 1.0])
    answers = np.random.default_rng(seed).normal(size=len(truth))
    score = FewValueTest(truth, {"a": answers}).scores({"a": None})["a"]
    residual = sum((a - t) ** 2 for a, t in zip(answers, truth, strict=True))
    total = sum((t - sum(truth) / len(truth)) ** 2 for t in truth)
    assert score.value == pytest.approx(1 - residual / total)
    assert score.outcomes is not None and score.outcomes.mean() == pytest.approx(score.value)


def test_one_row_far_off_does_not_choose_by_itself() -> None:
    """A gain of one row alone is chance, as large as it may be: its error is as large as itself."""
    truth = np.arange(12.0)
    stay, adapted = truth.copy(), truth.copy()
    stay[3] += 50
    rule = FewValueTest(truth, {"stay": stay, "adapted": adapted})
    scores = rule.scores({"stay": None, "adapted": None})
    assert scores["adapted"].value > scores["stay"].value + 10
    assert scores["adapted"].value - scores["stay"].value < rule.margin(scores["adapted"], scores["stay"])
    rule = FewValueTest(truth, {"stay": truth + 3, "adapted": truth})
    scores = rule.scores({"stay": None, "adapted": None})
    assert scores["adapted"].value - scores["stay"].value > rule.margin(scores["adapted"], scores["stay"])


@pytest.mark.golden
def test_they_choose_what_no_rule_without_labels_could_know(tmp_path: Path) -> None:
    source, values, target, truth, rows, own = other_gain()
    progress, said = heard()
    found = headstart.adapt(
        source,
        target,
        labels=list(values),
        target_labels=list(truth),
        few=rows,
        few_labels=list(own),
        progress=progress,
        methods=["coral", *FEW_VALUE_CANDIDATES],
        store=False,
        out=tmp_path / "out",
    )
    names = [NO_ADAPTATION, FEW_ALONE, "coral", *FEW_VALUE_CANDIDATES]
    assert [line.name for line in found.lines] == names
    assert all(line.score is not None for line in found.lines), [line.note for line in found.lines]
    assert found.selection.rule == "FewValueTest" and found.selection.adapts and found.hindsight is not None
    assert found.hindsight.selected.value < 0.2 * found.hindsight.source_only.value
    assert any(line.startswith("selected by 20 labelled target rows: ") for line in said)
    about = json.loads((tmp_path / "out" / "adapt.json").read_text())
    assert about["selection"]["rule"] == "FewValueTest" and len(about["candidates"]) == len(names)
    page = (tmp_path / "out" / "adapt.html").read_text()
    assert "sees no label of the target" not in page and "20 of them, each held out in turn" in page
    card = (tmp_path / "out" / "model" / "README.md").read_text()
    assert "chosen by 20 labelled target rows" in card and "without target labels" not in card
    saved_models_answer_alike(found, names, target, tmp_path, rtol=1e-4)


@pytest.mark.golden
def test_fewer_of_them_teach_and_do_not_choose(tmp_path: Path) -> None:
    from headstart.cli.main import app

    source, values, target, _, rows, own = other_gain(6)
    parts = {"source": (source, values), "few": (rows, own.round()), "target": (target, None)}
    paths = write_tables(tmp_path, "value", parts)
    methods = "coral,fusion-regression,dan"
    arguments = ["adapt", paths[0], paths[2], "--few", paths[1], "--label", "value", "--method", methods]
    arguments += ["--rule", "source-accuracy", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "labelled target rows teach but do not choose: a rule was named" in done.output + done.stderr
    assert headstart.load_model(tmp_path / "out").predict(target, store=False).scores.shape == (80,)
    done = CliRunner().invoke(app, [*arguments[:-6], "--method", "fusion-regression"])
    assert done.exit_code == 0, done.output
    assert "6 labelled target rows, and 10 could choose" in done.output + done.stderr
    assert "fusion-regression: DataError: FusionRegressor cannot go back" in done.output
    assert "few labels alone: DataError: what labelled target rows alone teach has no way back" in done.output


@pytest.mark.golden
def test_stages_learn_from_them_and_are_trained_again_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    network, learned = small_residual(), count_few_learned(monkeypatch)
    monkeypatch.setattr("headstart.workflow.few_rows.FOLDS", 2)
    light = np.linspace(20, 200, 34)
    noise = np.random.default_rng(0).normal(0, 10, (34, 32, 32, 3))
    pictures = (light[:, None, None, None] + noise).clip(0, 255).astype(np.uint8)
    found = headstart.adapt(
        pictures[:12],
        pictures[12:24],
        labels=list(light[:12]),
        task="regression",
        few=pictures[24:],
        few_labels=list(light[24:]),
        methods="dan",
        strategy="last-stages:1",
        backbones=[network],
        runtime="torch-fp32",
        progress=QUIET,
        store=False,
    )
    assert [line.name for line in found.lines] == [NO_ADAPTATION, FEW_ALONE, "source-only", "dan"]
    assert all(line.score is not None for line in found.lines), [line.note for line in found.lines]
    assert learned == [0, 10, 5, 5]


def test_what_cannot_be_is_refused() -> None:
    source, values, target, truth, rows, own = other_gain()
    assert set(value_aligners(few=True)) - set(value_aligners()) == set(FEW_VALUE_CANDIDATES)
    options: dict[str, Any] = {"labels": list(values), "progress": QUIET, "store": False}
    with pytest.raises(ConfigError, match=r"tradaboost-r2 learns from labelled target rows; give some with few"):
        headstart.adapt(source, target, methods="tradaboost-r2", **options)
    with pytest.raises(ConfigError, match=r"fusion reads classes.*fusion-regression"):
        headstart.adapt(source, target, methods="fusion", few=rows, few_labels=list(own), **options)
    two = open_two_domains(
        "adapt", source, target, labelled=True, labels=list(values), target_labels=truth, store=False, progress=QUIET
    )
    whole = open_few(rows, [3, 4] * 10, two, (), {}, False)  # whole numbers are no classes here
    assert not whole.has_classes and whole.labels_l.tolist() == [3.0, 4.0] * 10
    with pytest.raises(DataError, match="20 of the few labelled rows are among the target rows too"):
        open_few(target[:20], truth[:20], two, (), {}, False)
    with pytest.raises(DataError, match="make a classification task, the source's labels a regression task"):
        open_few(open_dataset(rows, labels=["ant", "bee"] * 10), None, two, (), {}, False)
