"""A few labelled target rows: who learns from them, when they choose, and that no row is answered by who has learned from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import headstart
from few_labelled import count_few_learned, heard, saved_models_answer_alike, write_tables
from headstart.alignment import AdaptedClassifier, Fusion
from headstart.catalog import read_recipe
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import Progress
from headstart.data import open_dataset
from headstart.methods import AdaptedNetwork
from headstart.workflow.domains import open_two_domains
from headstart.workflow.few_choice import FewLabelTest
from headstart.workflow.few_labels import FEW_ALONE, FewAlone, LearnsFromFew
from headstart.workflow.few_rows import FewRows, open_few
from headstart.workflow.several_sources import SourceNumbers
from striped_pictures import small_residual

QUIET = Progress(quiet=True)
NAMES = np.array(["ant", "bee"])


def turned(num_few: int = 12, seed: int = 0) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Return a source, a target in which the other column tells the classes, and a few labelled rows of that target."""
    random = np.random.default_rng(seed)
    parts = []
    for size, column in ((80, 0), (80, 1), (num_few, 1)):
        codes = np.arange(size) % 2
        rows = random.normal(size=(size, 3)).astype(np.float32)
        rows[:, column] += 4 * codes
        parts += [rows, NAMES[codes]]
    return tuple(parts)  # type: ignore[return-value]


def few_rows(rows: Any, codes: Any) -> FewRows:
    return FewRows(open_dataset(rows, labels=NAMES[codes]), np.asarray(codes), rows, rows)


@pytest.mark.golden
def test_candidates_learn_from_them_and_go_back_without() -> None:
    source, labels, target, _, rows, names = turned()
    codes, own = (labels == "bee").astype(int), (names == "bee").astype(int)
    few, numbers = few_rows(rows, own), SourceNumbers(source, np.zeros(80))
    fitted = LearnsFromFew(Fusion(), numbers, few).fit(source, codes, target)
    given = Fusion().fit(source, codes, np.concatenate([target, rows]), target_labels=[None] * 80 + own.tolist())
    np.testing.assert_allclose(fitted.predict_proba(target), given.predict_proba(target))
    with pytest.raises(DataError, match="Fusion cannot go back"):
        LearnsFromFew(Fusion(), numbers, few).fit(target, codes, source)
    network = AdaptedNetwork(read_recipe("mme"), "dense8-relu", num_steps=10)
    told = LearnsFromFew(network, numbers, few).fit(source, codes, target)
    every = np.concatenate([source, rows, target]), np.concatenate([codes, own, np.zeros(80, int)])
    where = np.concatenate([np.full(80, 1), np.full(12, 2), np.full(80, -1)])
    again = AdaptedNetwork(read_recipe("mme"), "dense8-relu", num_steps=10).fit(*every, sample_domain=where)
    np.testing.assert_array_equal(told.predict_proba(target), again.predict_proba(target))
    back = LearnsFromFew(network, numbers, few).fit(target, codes, source)
    plain = AdaptedNetwork(read_recipe("mme"), "dense8-relu", num_steps=10).fit(target, codes, source)
    np.testing.assert_array_equal(back.predict_proba(source), plain.predict_proba(source))


@pytest.mark.golden
def test_few_labels_alone_knows_nothing_of_the_source() -> None:
    source, labels, target, _, rows, names = turned()
    few, numbers = few_rows(rows, (names == "bee").astype(int)), SourceNumbers(source, np.zeros(80))
    first = FewAlone(AdaptedClassifier(None), numbers, few).fit(source, (labels == "bee").astype(int), target)
    other = FewAlone(AdaptedClassifier(None), numbers, few).fit(source, (labels == "ant").astype(int), target)
    np.testing.assert_array_equal(first.predict_proba(target), other.predict_proba(target))
    with pytest.raises(DataError, match="no way back"):
        FewAlone(AdaptedClassifier(None), numbers, few).fit(target, (labels == "bee").astype(int), source)
    with pytest.raises(DataError, match="1 classes have no labelled target row"):
        FewAlone(AdaptedClassifier(None), numbers, few.subset(np.arange(0, 12, 2))).fit(
            source, (labels == "bee").astype(int), target
        )


def test_no_row_is_answered_by_who_has_learned_from_it() -> None:
    rows = np.arange(20, dtype=np.float32)[:, None]
    few = few_rows(rows, np.arange(20) % 2)
    answered = []
    for learn, answer in few.folds(seed=0):
        assert not set(learn) & set(answer) and len(set(learn) | set(answer)) == 20
        learner = LearnsFromFew(Fusion(), SourceNumbers(rows, np.zeros(20)), few).without(answer)
        assert learner.few.raw_ld[:, 0].tolist() == sorted(learn.tolist())
        answered += answer.tolist()
    assert sorted(answered) == list(range(20))


def test_five_of_every_class_may_choose() -> None:
    few = few_rows(np.zeros((9, 1), np.float32), np.array([0, 1] * 4 + [0]))
    assert few.too_few(("ant", "bee")).startswith("4 labelled target rows of class 'bee'")
    assert few.too_few(("ant", "bee", "cat")).startswith("0 labelled target rows of class 'cat'")
    assert few_rows(np.zeros((10, 1), np.float32), np.arange(10) % 2).too_few(("ant", "bee")) == ""


def test_who_has_no_answers_is_not_judged() -> None:
    scores = FewLabelTest(np.array([0, 1]), {"a": np.eye(2), "b": "it broke off"}).scores(
        {"a": None, "b": None, "c": None}
    )  # type: ignore[dict-item]
    assert scores["a"].value == 1.0 and scores["b"].reason == "it broke off" and not scores["c"].is_judged


@pytest.mark.golden
def test_they_choose_what_a_rule_without_labels_could_not_know(tmp_path: Path) -> None:
    source, labels, target, truth, rows, names = turned(24)
    progress, said = heard()
    found = headstart.adapt(
        source,
        target,
        labels=labels,
        target_labels=truth,
        few=rows,
        few_labels=names,
        methods=["coral", "fusion", "mme"],
        progress=progress,
        store=False,
        out=tmp_path / "out",
    )
    assert [line.name for line in found.lines] == ["do not adapt", FEW_ALONE, "coral", "fusion", "mme", "committee"]
    assert all(line.score is not None for line in found.lines), [line.note for line in found.lines]
    assert found.selection.rule == "FewLabelTest" and found.selection.adapts and found.hindsight is not None
    assert found.hindsight.selected.value > found.hindsight.source_only.value + 0.3
    assert any(line.startswith("selected by 24 labelled target rows: ") for line in said)
    card = (tmp_path / "out" / "model" / "README.md").read_text()
    assert "chosen by 24 labelled target rows" in card and "without target labels" not in card
    assert "sees no label of the target" not in (tmp_path / "out" / "adapt.html").read_text()
    saved_models_answer_alike(found, [FEW_ALONE, "fusion", "mme", "committee"], target, tmp_path, atol=1e-5)


@pytest.mark.golden
def test_fewer_of_them_teach_and_do_not_choose(tmp_path: Path) -> None:
    from headstart.cli.main import app

    source, labels, target, _, rows, names = turned(6)
    parts = {"source": (source, labels), "few": (rows, names), "target": (target, None)}
    paths = write_tables(tmp_path, "kind", parts)
    arguments = ["adapt", paths[0], paths[2], "--few", paths[1], "--label", "kind", "--method", "coral,fusion,mcc"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "3 labelled target rows of class 'ant', and 5 of every class could choose" in done.output + done.stderr
    assert "fusion: DataError: Fusion cannot go back" in done.output
    assert "few labels alone: DataError: what labelled target rows alone teach has no way back" in done.output


@pytest.mark.golden
def test_stages_learn_from_them_and_are_trained_again_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    network, learned = small_residual(), count_few_learned(monkeypatch)
    random = np.random.default_rng(0)
    pictures = random.integers(0, 255, (34, 32, 32, 3)).astype(np.uint8)
    names = NAMES[np.arange(34) % 2]
    found = headstart.adapt(
        pictures[:12],
        pictures[12:24],
        labels=names[:12],
        few=pictures[24:],
        few_labels=names[24:],
        methods="mme",
        strategy="last-stages:1",
        backbones=[network],
        runtime="torch-fp32",
        progress=QUIET,
        store=False,
    )
    assert [line.name for line in found.lines] == ["do not adapt", FEW_ALONE, "source-only", "mme"]
    assert all(line.score is not None for line in found.lines), [line.note for line in found.lines]
    assert learned == [0, 10, 8, 8, 8, 8, 8]


def test_what_cannot_be_is_refused() -> None:
    source, labels, target, truth, rows, names = turned()
    with pytest.raises(ConfigError, match=r"fusion learns from labelled target rows; give some with few \(--few\)"):
        headstart.adapt(source, target, labels=labels, methods="fusion", progress=QUIET, store=False)
    two = open_two_domains(
        "adapt", source, target, labelled=True, labels=labels, target_labels=truth, store=False, progress=QUIET
    )
    with pytest.raises(DataError, match="'wasp', a class the source does not have; its classes are ant, bee"):
        open_few(rows, ["wasp", *names[1:]], two, ("ant", "bee"), {}, False)
    with pytest.raises(DataError, match="12 of the few labelled rows are among the target rows too"):
        open_few(target[:12], truth[:12], two, ("ant", "bee"), {}, False)
    with pytest.raises(DataError, match="has no labels"):
        open_few(rows, None, two, ("ant", "bee"), {}, False)
