"""The list of runs and the comparison of two: damage, deletion, several writers, and rows that are not the same."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart
from headstart.core.errors import ConfigError
from headstart.core.progress import Progress
from headstart.evaluation import paired_test
from headstart.workflow import index

pytestmark = pytest.mark.golden


@pytest.fixture(autouse=True)
def _fresh_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def _fit(out: Path, seed: int = 0, noise: float = 1.0, **options: Any) -> headstart.Run:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 150)
    vectors = (random.normal(size=(150, 6)) * noise + 2.0 * np.eye(6)[labels]).astype(np.float32)
    return headstart.fit(
        vectors, labels=[f"c{i}" for i in labels], out=out, seed=seed, progress=Progress(quiet=True), **options
    )


def test_runs_are_listed_newest_first_with_their_figures(tmp_path: Path) -> None:
    first = _fit(tmp_path / "runs" / "one")
    _fit(tmp_path / "elsewhere" / "two", goal="accuracy >= 0.99")
    lines = headstart.runs()
    assert {line.name for line in lines} == {"one", "two"}
    one = next(line for line in lines if line.name == "one")
    assert one.value == pytest.approx(first.metrics["accuracy"]) and one.size_bytes == first.report.size_bytes
    assert one.goal_met is None and next(line for line in lines if line.name == "two").goal_met == 0
    assert [line.created for line in lines] == sorted((line.created for line in lines), reverse=True)
    text = str(lines)
    assert "runs/one" in text and "elsewhere/two" in text and "not met" in text
    assert [line.name for line in headstart.runs(tmp_path / "elsewhere")] == ["two"]
    assert str(headstart.runs(tmp_path / "nowhere")).startswith("No finished runs")


def test_deleted_runs_are_forgotten_and_copied_ones_found(tmp_path: Path) -> None:
    _fit(tmp_path / "runs" / "one")
    _fit(tmp_path / "runs" / "two")
    shutil.copytree(tmp_path / "runs" / "one", tmp_path / "runs" / "copy")
    shutil.rmtree(tmp_path / "runs" / "two")
    assert {line.name for line in headstart.runs()} == {"one", "copy"}
    with sqlite3.connect(index.index_path()) as database:
        assert {row[0] for row in database.execute("SELECT name FROM runs")} == {"one", "copy"}
    (tmp_path / "runs" / "one" / "run.toml").unlink()  # an unfinished folder is not found, but what is known stays
    (tmp_path / "runs" / "copy" / "report.json").write_text("{")
    index.index_path().unlink()
    assert headstart.runs() == []


@pytest.mark.parametrize("damage", ["garbage", "truncated", "other table", "newer version", "empty", "folder"])
def test_a_damaged_index_is_made_again_from_the_run_folders(damage: str, tmp_path: Path) -> None:
    _fit(tmp_path / "far away" / "one")
    path = index.index_path()
    content = path.read_bytes()
    if damage == "garbage":
        path.write_bytes(b"not a database" * 100)
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2 + 7])
    elif damage == "other table":
        path.unlink()
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE runs (x)")
            database.execute("PRAGMA user_version = 1")
    elif damage == "newer version":
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA user_version = 99")
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
        path.mkdir()
    lines = headstart.runs()
    assert [line.name for line in lines] == ["one"]
    if damage != "folder":
        _fit(tmp_path / "far away" / "two")
        assert {line.name for line in headstart.runs()} == {"one", "two"}


def test_an_index_that_cannot_be_written_does_not_stop_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(index, "_store", full)
    run = _fit(tmp_path / "runs" / "one")
    assert (run.folder / "report.json").exists()
    assert [line.name for line in headstart.runs()] == ["one"]  # found where it lies


@pytest.mark.golden
def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    run = _fit(tmp_path / "runs" / "one")
    report = json.loads((run.folder / "report.json").read_text())
    folders = []
    for number in range(24):
        folder = tmp_path / "many" / f"run{number}"
        shutil.copytree(run.folder, folder)
        folders.append(folder)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda folder: index.remember(folder, report, Progress(quiet=True)), folders))
    code = (
        "import sys, json, pathlib; from headstart.workflow import index; from headstart.core.progress import Progress\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "report = json.loads((folder / 'report.json').read_text())\n"
        "[index.remember(folder.with_name(f'p{n}') , report, Progress()) for n in range(5)]"
    )
    subprocess.run([sys.executable, "-c", code, str(folders[0])], check=True, capture_output=True)
    with sqlite3.connect(index.index_path()) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone()[0] == 1 + 24 + 5


def test_the_comparison_is_the_paired_test_on_the_same_rows(tmp_path: Path) -> None:
    good, bad = _fit(tmp_path / "runs" / "good"), _fit(tmp_path / "runs" / "bad", head="nearest-mean")
    result = headstart.compare("runs/good", "bad")
    rows = {row: i for i, row in enumerate(bad.predictions.ids)}
    order = [rows[row] for row in good.predictions.ids]
    assert good.report.evaluation.confusion_kk is not None
    import pandas as pd

    truth = pd.read_csv(good.folder / "test_predictions.csv")["truth"]
    targets = np.array([good.model.task.classes.index(name) for name in truth])
    twin = paired_test(
        good.model.task, targets, good.predictions.scores, bad.predictions.scores[order], "accuracy", seed=0
    )
    assert result.test == twin
    assert result.metrics["accuracy"] == pytest.approx((good.metrics["accuracy"], bad.metrics["accuracy"]))
    assert set(result.settings) == {"head"} and result.settings["head"] == ("auto", "nearest-mean")
    text = str(result)
    assert text.splitlines()[0] == result.verdict and "CPU time" in text and "nearest-mean" in text
    json.dumps(result.to_dict())
    flipped = headstart.compare("bad", "good")
    assert flipped.test.difference == pytest.approx(-result.test.difference)
    other = headstart.compare("good", "bad", metric="log_loss")
    assert other.test.metric == "log_loss"


def test_runs_on_other_rows_are_refused_clearly(tmp_path: Path) -> None:
    first = _fit(tmp_path / "runs" / "a")
    _fit(tmp_path / "runs" / "b", seed=1)
    with pytest.raises(ConfigError, match=r"not tested on the same rows: \d+ of 30 are only in the first.*--seed"):
        headstart.compare("a", "b")
    _fit(tmp_path / "runs" / "noisy", noise=1.1)  # the same names and labels, other content
    with pytest.raises(ConfigError, match="not the same content"):
        headstart.compare("a", "noisy")
    random = np.random.default_rng(0)
    headstart.fit(
        random.normal(size=(60, 3)).astype(np.float32),
        labels=random.normal(size=60),
        out=tmp_path / "runs" / "numbers",
        progress=Progress(quiet=True),
    )
    with pytest.raises(ConfigError, match="different tasks"):
        headstart.compare("a", "numbers")
    with pytest.raises(ConfigError, match="no finished run"):
        headstart.compare("a", "nothing")
    shutil.copytree(first.folder, tmp_path / "elsewhere" / "a")
    headstart.runs(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="several runs have this name"):
        headstart.compare("a", "b")
    (first.folder / "test_predictions.csv").unlink()
    with pytest.raises(ConfigError, match="incomplete or damaged"):
        headstart.compare("runs/a", "b")


@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_other_targets_compare_too(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(120, 5)).astype(np.float32)
    labels: Any = vectors[:, 0] + 0.1 if kind == "regression" else (vectors[:, :2] > 0).astype(int)
    for name, head in (("a", "auto"), ("b", "ridge")):
        headstart.fit(vectors, labels=labels, out=tmp_path / "runs" / name, head=head, progress=Progress(quiet=True))
    result = headstart.compare("a", "b")
    assert result.rows >= 20 and np.isfinite(result.test.p_value)
