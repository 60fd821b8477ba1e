"""Several sources: joined by name, told apart by those who can, pooled by the others, on the command line and in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import headstart
from headstart.alignment import CORAL, JCPOT, AdaptedClassifier, AdaptedRegressor, MongeAlignment
from headstart.catalog import read_recipe
from headstart.core.errors import DataError
from headstart.core.progress import Progress
from headstart.data import join_datasets, open_dataset
from headstart.methods import AdaptedNetwork
from headstart.workflow.domains import as_sources, names_of
from headstart.workflow.several_sources import ApartClassifier, ApartRegressor, SourceNumbers, tells_sources_apart

QUIET = Progress(quiet=True)


def three(num_rows: int = 60, seed: int = 0) -> tuple[list[Any], list[Any], Any, Any]:
    """Return two sources moved apart, their names, a target moved otherwise, and the target's names."""
    random = np.random.default_rng(seed)
    names, rows, labels = np.array(["ant", "bee"]), [], []
    for move in ([0.0, 0.0], [0.0, 6.0], [3.0, 3.0]):
        codes = np.arange(num_rows) % 2
        part = random.normal(size=(num_rows, 2)) * 0.5
        part[:, 0] += 3 * codes
        rows.append((part + move).astype(np.float32))
        labels.append(names[codes])
    return rows[:2], labels[:2], rows[2], labels[2]


def test_sets_are_joined_by_class_name_and_remember_where_rows_came_from() -> None:
    first = open_dataset(np.zeros((2, 3), np.float32), labels=["bee", "ant"])
    second = open_dataset(np.ones((3, 3), np.float32), labels=["cat", "bee", "cat"])
    both = join_datasets([first, second], ["a", "b"])
    assert both.task is not None and both.targets is not None and both.domains is not None
    assert [both.task.classes[code] for code in both.targets] == ["bee", "ant", "cat", "bee", "cat"]
    assert both.domains.tolist() == ["a", "a", "b", "b", "b"] and both.ids[2] == f"b/{second.ids[0]}"
    assert both.matrix().tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 3


def test_images_of_several_sets_are_read_and_known_as_before() -> None:
    first, second = (open_dataset(np.full((2, 8, 8, 3), level, np.uint8), unlabelled=True) for level in (1, 2))
    both = join_datasets([first, second], ["a", "b"])
    assert [int(np.asarray(both.read(place)).max()) for place in range(4)] == [1, 1, 2, 2]
    assert both.digests() == [*first.digests(), *second.digests()]
    assert both.subset([3, 0]).digests() == [second.digest(1), first.digest(0)]
    assert both.path(0) is None


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (open_dataset(["a", "b"], labels=["x", "y"]), "holds vector rows but b text rows"),
        (open_dataset(np.eye(2, dtype=np.float32), labels=[0.5, 1.5], task="regression"), "make a classification task"),
        (open_dataset(np.eye(3, dtype=np.float32)[:2], labels=["x", "y"]), "2 feature columns but b has 3"),
    ],
)
def test_sets_that_do_not_go_together_are_refused(other: Any, words: str) -> None:
    first = open_dataset(np.eye(2, dtype=np.float32), labels=["x", "y"])
    with pytest.raises(DataError, match=words):
        join_datasets([first, other], ["a", "b"])


def test_what_counts_as_several_sources(tmp_path: Path) -> None:
    frame, array = pd.DataFrame({"a": [1.0]}), np.zeros((2, 3))
    for several in ([frame, frame], (array, array), [str(tmp_path), tmp_path], ["a.csv", "b.parquet"]):
        assert len(as_sources(several)) == 2
    for one in (array, [[1.0], [2.0]], ["a text", "b"], ["a.png", "b.png"], [array], frame):
        assert len(as_sources(one)) == 1
    assert names_of(["x/a", "y/a", "z/a"]) == ["a", "a 2", "a 3"]


def test_who_tells_sources_apart() -> None:
    assert [tells_sources_apart(one) for one in (AdaptedClassifier(CORAL()), JCPOT())] == [False, True]
    networks = {name: AdaptedNetwork(read_recipe(name)) for name in ("mcc", "m3sda", "mdan", "multi-domain-dann")}
    assert [name for name, network in networks.items() if tells_sources_apart(network)] == list(networks)[1:]


def test_a_candidate_that_is_told_answers_as_when_it_is_given_the_numbers() -> None:
    sources, labels, target, _ = three()
    rows, codes = np.concatenate(sources), np.concatenate([names == "bee" for names in labels]).astype(int)
    where = np.repeat([1, 2], 60)
    inner = AdaptedClassifier(MongeAlignment())
    told = ApartClassifier(inner, SourceNumbers(rows, where)).fit(rows, codes, target)
    every = np.concatenate([rows, target]), np.concatenate([codes, np.zeros(60, int)])
    given = AdaptedClassifier(MongeAlignment()).fit(*every, sample_domain=np.concatenate([where, np.full(60, -1)]))
    np.testing.assert_allclose(told.predict_proba(target), given.predict_proba(target))
    as_source = told.predict_proba(rows, sample_domain=np.ones(120, int))
    np.testing.assert_allclose(as_source, given.predict_proba(rows, sample_domain=where))
    pooled = AdaptedClassifier(MongeAlignment()).fit(rows, codes, target)
    assert not np.allclose(told.predict_proba(target), pooled.predict_proba(target))


@pytest.mark.golden
def test_several_sources_compete_pooled_and_apart_and_become_models(tmp_path: Path) -> None:
    from dataclasses import replace

    sources, labels, target, truth = three()
    said: list[str] = []
    progress = Progress(quiet=True)
    progress.say = said.append  # type: ignore[method-assign]
    found = headstart.adapt(
        sources,
        target,
        labels=labels,
        target_labels=truth,
        methods=["coral", "monge-alignment", "jcpot", "m3sda"],
        progress=progress,
        store=False,
    )
    assert all(line.score is not None for line in found.lines), [line.note for line in found.lines]
    assert any("monge-alignment, jcpot, m3sda tell them apart, all others take them as one" in line for line in said)
    assert found.names[0] == "source 1 + source 2"
    for name in ("monge-alignment", "jcpot", "m3sda", "committee"):
        chosen = replace(found, selection=replace(found.selection, chosen=name))
        loaded = headstart.load_model(chosen.model.save(tmp_path / name))
        fitted = chosen.rival.fitted
        assert fitted is not None
        np.testing.assert_allclose(loaded.predict(target, store=False).scores, fitted.target_scores, atol=1e-5)


@pytest.mark.golden
def test_several_sources_of_numbers_are_told_apart_too(tmp_path: Path) -> None:
    from dataclasses import replace

    sources, _, target, _ = three()
    random = np.random.default_rng(1)
    values = [
        list(rows @ [1.0, 0.5] + 0.1 * random.normal(size=len(rows)) + move)
        for rows, move in zip(sources, (0, 9), strict=True)
    ]
    said: list[str] = []
    progress = Progress(quiet=True)
    progress.say = said.append  # type: ignore[method-assign]
    found = headstart.adapt(
        sources, target, labels=values, methods=["coral", "monge-alignment"], progress=progress, store=False
    )
    assert any("monge-alignment tell them apart, all others take them as one" in line for line in said)
    assert all(line.score is not None for line in found.lines), [line.note for line in found.lines]
    rows, every = np.concatenate(sources), np.concatenate(values)
    inner, where = AdaptedRegressor(MongeAlignment()), np.repeat([1, 2], 60)
    told = ApartRegressor(inner, SourceNumbers(rows, where)).fit(rows, every, target)
    both = np.concatenate([rows, target]), np.concatenate([every, np.zeros(60)])
    given = AdaptedRegressor(MongeAlignment()).fit(*both, sample_domain=np.concatenate([where, np.full(60, -1)]))
    np.testing.assert_allclose(told.predict(target), given.predict(target))
    np.testing.assert_allclose(
        told.predict(rows, sample_domain=np.ones(120, int)), given.predict(rows, sample_domain=where)
    )
    chosen = replace(found, selection=replace(found.selection, chosen="monge-alignment"))
    loaded = headstart.load_model(chosen.model.save(tmp_path / "model"))
    assert chosen.rival.fitted is not None
    np.testing.assert_allclose(loaded.predict(target, store=False).scores, chosen.rival.fitted.target_scores, rtol=1e-4)


@pytest.mark.golden
def test_several_sources_on_the_command_line(tmp_path: Path) -> None:
    from headstart.cli.main import app

    sources, labels, target, _ = three()
    for name, rows, kinds in (("one", sources[0], labels[0]), ("two", sources[1], labels[1]), ("new", target, None)):
        table = pd.DataFrame(rows, columns=["a", "b"])
        if kinds is not None:
            table["kind"] = kinds
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    paths = [str(tmp_path / f"{name}.csv") for name in ("one", "two", "new")]
    done = CliRunner().invoke(
        app, ["adapt", *paths, "--label", "kind", "--method", "coral,jcpot", "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    assert "jcpot" in done.output
    card = (tmp_path / "out" / "model" / "README.md").read_text()
    assert "one.csv + two.csv" in card
    assert " ".join(paths) in (tmp_path / "out" / "adapt.json").read_text()
