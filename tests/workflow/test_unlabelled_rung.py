"""The rung of `fit` for rows without labels: with a shift and without, what is delivered, what is said, and refusals."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

import headstart
from headstart.backbones import vector_backbone
from headstart.core.errors import DataError, DomainError
from headstart.core.preprocessing import View
from headstart.core.progress import Progress
from headstart.evaluation.selection import CandidateEvidence
from headstart.methods import FeatureExtraction
from headstart.workflow import FitConfig, adapting, candidates_of_adapt
from headstart.workflow.clock import Clock
from headstart.workflow.entrants import Room
from headstart.workflow.finishing import _above_limits, _is_of_a_run
from headstart.workflow.head_rungs import HeadSettings
from headstart.workflow.limits import Limits
from headstart.workflow.unlabelled_rung import Served, UnlabelledRung, open_unlabelled

QUIET = Progress(quiet=True)


def rows(num_rows: int = 80, seed: int = 0) -> tuple[Any, Any]:
    """Return rows of two classes and their names."""
    draws = np.random.default_rng(seed)
    codes = draws.integers(0, 2, size=num_rows)
    values = draws.normal(size=(num_rows, 3))
    values[:, 0] += 4 * codes
    return values.astype(np.float32), np.array(["ant", "bee"])[codes]


def moved(values: Any) -> Any:
    """Return the same rows as another instrument would see them."""
    return (values * [3.0, 0.3, 1.0] + [20.0, -2.0, 0.0]).astype(np.float32)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two cheap aligners compete, so that tests are quick."""
    monkeypatch.setattr(candidates_of_adapt, "default_candidates", lambda _: ("coral", "moment-matching"))
    monkeypatch.setattr(candidates_of_adapt, "DEFAULT_NETWORKS", ())


def served(others: Any, room: Room | None = None, labels: Any = None) -> Served:
    values, names = rows()
    train = headstart.open_dataset(values, labels=names if labels is None else labels)
    settings = HeadSettings(train, FeatureExtraction("auto"), (View(),), "auto", store=False)
    given = open_unlabelled(others, train, FitConfig())
    return UnlabelledRung(given, settings, vector_backbone(3), room or Room()).run(2, QUIET)


@pytest.mark.usefixtures("few")
def test_rows_that_moved_get_a_model_of_their_own_and_no_figure() -> None:
    others, truth = rows(seed=1)
    found = served(moved(others))
    line, adaptation = found.line, found.adaptation
    assert line.name == "adaptation" and line.status == "tried" and line.number == 2
    assert line.value is None and line.paired is None and not line.kept  # nothing here can judge it
    assert line.settings["gap"] in {"covariate shift", "support mismatch"} and line.settings["folder"] == "adapted"
    assert adaptation is not None and line.settings["selected"] == adaptation.selection.chosen == "committee"
    assert "model/ is for rows like the labelled ones" in line.reason and "cannot judge adapted/" in line.reason
    assert adaptation.selection.reason in line.notes
    assert np.mean(np.array(adaptation.predictions) == truth) > 0.9
    assert adaptation.hindsight is None and adaptation.truth is None


@pytest.mark.usefixtures("few")
def test_rows_of_the_same_domain_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.workflow.unlabelled_rung.adapt_between", lambda *_, **__: 1 / 0)
    found = served(rows(seed=1)[0])
    assert found.adaptation is None and found.line.status == "skipped" and found.line.settings["gap"] == "no shift"
    assert found.line.reason.startswith("no shift that matters") and found.line.reason.endswith("model/ is for both")


def test_other_class_shares_are_no_reason_to_move_features() -> None:
    draws = np.random.default_rng(3)
    codes = (draws.random(300) < 0.95).astype(int)
    others = draws.normal(size=(300, 3))
    others[:, 0] += 4 * codes
    found = served(others.astype(np.float32))
    assert found.adaptation is None and found.line.settings["gap"] == "label shift"
    assert "features are not aligned" in found.line.reason and "em-priors" in found.line.reason


@pytest.mark.usefixtures("few")
def test_where_nothing_brings_back_more_the_source_model_stays_and_is_unmeasured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Never(adapting.resolve("circular-test", "rule")):  # type: ignore[misc]
        def margin(self, *_: Any) -> float:
            return 1.0

    monkeypatch.setattr(adapting, "resolve", lambda *_: Never)
    found = served(moved(rows(seed=1)[0]))
    assert found.adaptation is None and found.line.status == "tried" and found.line.settings["folder"] == ""
    assert "nobody has measured it on" in found.line.reason


def test_what_cannot_be_adapted_costs_the_rung_alone() -> None:
    several = [("ant", "bee") if code == "ant" else ("bee",) for code in rows()[1]]
    assert served(moved(rows(seed=1)[0]), labels=several).line.reason.startswith("never started: several labels")
    broken = served(rows(4, seed=1)[0]).line
    assert broken.status == "failed" and broken.value is None and "at least 5" in broken.reason
    assert served(moved(rows(seed=1)[0]), Room(Clock(1.0), 5.0)).line.reason == "the budget was spent"


@pytest.mark.golden
@pytest.mark.usefixtures("few")
def test_labels_that_come_with_them_are_left_behind() -> None:
    values, names = rows(seed=1)
    labelled = headstart.open_dataset(moved(values), labels=names)
    wrong = headstart.open_dataset(moved(values), labels=names[::-1])
    first, second = served(labelled), served(wrong)
    assert first.adaptation is not None and second.adaptation is not None
    np.testing.assert_array_equal(first.adaptation.probabilities_mk, second.adaptation.probabilities_mk)
    assert all(
        isinstance(rival.evidence, CandidateEvidence) and rival.fitted is not None for rival in first.adaptation.rivals
    )
    assert getattr(first.adaptation.domains.target, "targets", None) is None


def test_rows_of_another_kind_are_refused_before_any_work(tmp_path: Path) -> None:
    values, names = rows()
    with pytest.raises(DomainError, match="3 feature columns but those without labels 2"):
        headstart.fit(values, labels=names, unlabelled=values[:, :2], out=tmp_path / "out", progress=QUIET)
    with pytest.raises(DomainError, match="vector rows, but those without labels text rows"):
        headstart.fit(values, labels=names, unlabelled=["one", "another"], out=tmp_path / "out", progress=QUIET)
    with pytest.raises(DataError):
        headstart.fit(values, labels=names, unlabelled=tmp_path / "nothing.csv", out=tmp_path / "out", progress=QUIET)
    assert not (tmp_path / "out").exists()


def test_a_table_may_hold_both(tmp_path: Path) -> None:
    values, names = rows()
    table = pd.DataFrame(values, columns=["a", "b", "c"]).assign(kind=[None] * 30 + list(names[30:]))
    table.to_csv(tmp_path / "rows.csv", index=False)
    train = headstart.open_dataset(tmp_path / "rows.csv", label="kind")
    given: dict[str, Any] = {"labelled_ids": train.ids}
    for place, same in ((tmp_path / "rows.csv", str(tmp_path / "rows.csv")), (table, table)):
        own = open_unlabelled(place, train, FitConfig(label="kind"), labelled=same, **given).rows
        np.testing.assert_array_equal(own.matrix(), values[:30])
    other = open_unlabelled(tmp_path / "rows.csv", train, FitConfig(label="kind"), labelled=table, **given).rows
    assert len(other) == 80  # another table, whatever its rows are called
    full = headstart.open_dataset(values, labels=names)
    with pytest.raises(DataError, match="every row has a label"):
        open_unlabelled(values, full, FitConfig(), labelled=values, labelled_ids=full.ids)


@pytest.mark.golden
def test_fit_delivers_both_models_says_what_each_is_for_and_forgets_an_old_one(tmp_path: Path) -> None:
    columns = ["a", "b", "c"]
    values, names = rows(200)
    others, truth = rows(160, seed=1)
    pd.DataFrame(values, columns=columns).assign(kind=names).to_csv(tmp_path / "rows.csv", index=False)
    pd.DataFrame(moved(others), columns=columns).assign(more=1.0).to_csv(tmp_path / "others.csv", index=False)
    options: dict[str, Any] = {"label": "kind", "out": tmp_path / "out", "progress": QUIET, "store": False}
    run = headstart.fit(tmp_path / "rows.csv", unlabelled=tmp_path / "others.csv", **options)
    own, source = (headstart.load_model(tmp_path / "out" / name) for name in ("adapted", "model"))
    right = [np.mean(np.array(model.predict(moved(others), store=False).labels) == truth) for model in (own, source)]
    assert right[0] > 0.9 > right[1]
    assert run.metrics["accuracy"] > 0.9  # of model/, on rows like the labelled ones
    said = str(run)
    assert "model/ is for rows like the labelled ones" in said
    assert f"Model for rows like others.csv: {tmp_path / 'out' / 'adapted'}" in said
    for name in ("report.json", "rungs.json"):
        last = json.loads((tmp_path / "out" / name).read_text())["rungs"][-1]
        assert last["name"] == "adaptation" and last["value"] is None and last["settings"]["folder"] == "adapted"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "adaptation to rows without labels" in page and "cannot judge adapted/" in page
    about = json.loads((tmp_path / "out" / "adapted" / "adapt.json").read_text())
    assert about["source"] == "rows" and about["target"] == "others.csv" and "--unlabelled" in about["command"]
    assert not any("above its limit" in note for note in run.report.notes)
    pd.DataFrame(rows(160, seed=2)[0], columns=columns).to_csv(tmp_path / "alike.csv", index=False)
    again = headstart.fit(tmp_path / "rows.csv", unlabelled=tmp_path / "alike.csv", **options)
    assert again.adaptation is None and not (tmp_path / "out" / "adapted").exists()
    assert "model/ is for both" in str(again)


def opinions(num_rows: int, of_films: bool) -> tuple[list[str], list[str]]:
    """Return texts about films, or about tools in other words, and what they say."""
    chance = random.Random(num_rows + of_films)
    things = ("film movie plot actor scene story" if of_films else "blender kettle pan knife toaster mixer").split()
    praise = "great lovely superb charming" if of_films else "sturdy reliable sharp durable handy"
    blame = "awful dull dreadful poor boring" if of_films else "broken leaking rusty flimsy useless"
    words = {"good": praise.split(), "bad": blame.split()}
    labels = [("good", "bad")[row % 2] for row in range(num_rows)]
    said = [f"The {chance.choice(things)} was {chance.choice(words[label])}" for label in labels]
    ending = ", we saw it on night" if of_films else "; ORDER NO."
    return [
        f"{text} and {chance.choice(words[label])}{ending} {row}"
        for row, (text, label) in enumerate(zip(said, labels, strict=True))
    ], labels


@pytest.mark.golden
@pytest.mark.usefixtures("few")
def test_texts_are_read_by_the_column_of_the_labelled_ones_and_adapted(tmp_path: Path) -> None:
    films, verdicts = opinions(80, of_films=True)
    tools, _ = opinions(60, of_films=False)
    pd.DataFrame({"opinion": films, "verdict": verdicts}).to_csv(tmp_path / "films.csv", index=False)
    shop = [
        f"a name of a shop with more to read than any opinion of it has, in a street with the number {n}"
        for n in range(60)
    ]
    others = pd.DataFrame({"shop": shop, "opinion": tools})
    others.to_csv(tmp_path / "tools.csv", index=False)
    run = headstart.fit(
        tmp_path / "films.csv",
        label="verdict",
        unlabelled=tmp_path / "tools.csv",
        scratch="off",
        out=tmp_path / "out",
        progress=QUIET,
        store=False,
    )
    line = json.loads((tmp_path / "out" / "report.json").read_text())["rungs"][-1]
    assert line["name"] == "adaptation" and line["settings"]["gap"] == "support mismatch"
    assert run.adaptation is not None
    assert run.adaptation.domains.target.read(0) == tools[0]
    loaded = headstart.load_model(tmp_path / "out" / "adapted")
    assert tuple(loaded.predict(others, store=False).labels) == run.adaptation.predictions
    assert "blender" in (tmp_path / "out" / "adapted" / "adapt.html").read_text()


def test_what_a_user_keeps_in_the_folder_is_left_alone_and_large_models_are_said(tmp_path: Path) -> None:
    (tmp_path / "adapt.json").write_text('{"command": "headstart adapt a b --out runs/x/adapted"}')
    assert not _is_of_a_run(tmp_path) and not _is_of_a_run(tmp_path / "nothing")
    (tmp_path / "adapt.json").write_text('{"command": "headstart fit a --unlabelled b"}')
    assert _is_of_a_run(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(bytes(2000))
    done, adaptation = Mock(limits=Limits(size=1000)), Mock(folder=tmp_path)
    assert _above_limits(done, adaptation)[0].startswith("The model in adapted/ is above its limit: size 2.0 kB")
    assert _above_limits(Mock(limits=Limits()), adaptation) == [] == _above_limits(done, None)
