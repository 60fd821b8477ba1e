"""`fit` beyond the solved head, with a network small enough for a test: what is written, what goes on, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import headstart
from headstart.backbones import Architecture, Backbone
from headstart.core.errors import CheckpointError, ConfigError
from headstart.core.preprocessing import ImageTransform
from headstart.core.progress import Progress
from headstart.methods import FineTuning

NUM = 80


def _network() -> Backbone:
    """A network of a few thousand weights, random, that a saved model can rebuild."""
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model("test_efficientnet", num_classes=0).eval()
    width = int(network(torch.zeros(1, 3, 48, 48)).shape[1])
    return Backbone(
        Architecture("timm", "test_efficientnet"), network, ImageTransform(48, 48), name="tiny", width=width
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two kinds, stripes across and down, in noise."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for axis, name in enumerate(("across", "down")):
        (folder / name).mkdir()
        for number in range(NUM // 2):
            wave = 40 * np.sin(np.arange(48) / random.uniform(1, 3) + random.uniform(0, 6))
            picture = 128 + (wave[:, None] if axis == 0 else wave[None, :]) + random.normal(0, 60, (48, 48))
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def _fit(source: Path, out: Path, **options: Any) -> headstart.Run:
    settings: dict[str, Any] = {"scratch": "off", "runtime": "torch-fp32", "progress": Progress(quiet=True), **options}
    return headstart.fit(source, out=out, backbones=[_network()], **settings)


def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs are enough to see the machinery move."""
    from dataclasses import replace

    import headstart.methods.recipe as module

    whole = module.default_config
    monkeypatch.setattr(module, "default_config", lambda *args, **kw: replace(whole(*args, **kw), max_epochs=2))


@pytest.mark.golden
def test_every_rung_is_tried_written_down_and_shown(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _quick(monkeypatch)
    run = _fit(photos, tmp_path / "run", goal="accuracy >= 1 and size <= 10MB")
    stored = json.loads((tmp_path / "run" / "rungs.json").read_text())
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert stored["finished"] and stored["rungs"] == report["rungs"]
    names = [rung["name"] for rung in stored["rungs"]]
    assert names[:3] == ["head", "partial", "full"]
    assert stored["judging_rows"] == pytest.approx(NUM * 0.8 / 5, abs=3)
    for rung in stored["rungs"]:
        assert rung["status"] == "tried" or rung["reason"]
        if rung["status"] == "tried":
            assert rung["low"] <= rung["value"] <= rung["high"]
            assert rung["wall_seconds"] > 0
    tuned = [rung for rung in stored["rungs"] if rung["name"] in {"partial", "full"} and rung["status"] == "tried"]
    assert tuned and all(rung["settings"]["epochs"] == 2 for rung in tuned)
    assert next(curves["name"] for curves in report["training_curves"]).startswith("fine-tuning of the last stages")
    assert len(report["training_curves"][0]["validation_loss"]) == 2
    page = (tmp_path / "run" / "report.html").read_text()
    assert 'id="tried"' in page and "fine-tuning of the last stages" in page
    assert not (tmp_path / "run" / "unfinished").exists()
    assert report["model"]["size_bytes"] < 10e6
    assert "Tried, accuracy on" in str(run)
    loaded = headstart.load_model(run.folder)
    np.testing.assert_allclose(
        loaded.predict(photos, runtime="torch-fp32").scores,
        run.model.predict(photos, runtime="torch-fp32").scores,
        atol=1e-6,
    )


@pytest.mark.golden
def test_a_named_strategy_is_delivered_and_made_again_from_all_rows(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _quick(monkeypatch)
    seen: list[tuple[int, bool]] = []
    whole = FineTuning.fit

    def watched(self: FineTuning, rows: Any, *args: Any, **kw: Any) -> Any:
        seen.append((len(rows), kw.get("validation_rows") is not None))
        return whole(self, rows, *args, **kw)

    monkeypatch.setattr(FineTuning, "fit", watched)
    run = _fit(photos, tmp_path / "run", strategy="last-stages:1")
    climb = run.report.climb
    assert climb is not None and climb.stopped == "asked"
    assert climb.rungs[-1].kept and climb.rungs[-1].settings["strategy"] == "last-stages:1"
    assert seen == [(64 - climb.rows, True), (64, False)]
    assert "made again from all 64 training rows" in climb.refit
    assert run.model.backbone.weights_digest != _network().weights_digest


@pytest.mark.golden
def test_without_a_goal_nothing_is_fine_tuned_and_the_report_says_what_it_would_bring(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FineTuning, "fit", lambda *a, **k: pytest.fail("fine-tuned without being asked"))
    run = _fit(photos, tmp_path / "run")
    climb = run.report.climb
    assert climb is not None and climb.stopped == "no-goal"
    assert [line.status for line in climb.rungs] == ["tried", "skipped", "skipped"]
    assert all(line.expected is not None and "--strategy" in line.reason for line in climb.rungs[1:])
    assert "expected to bring" in str(run)


@pytest.mark.golden
def test_head_means_head(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FineTuning, "fit", lambda *a, **k: pytest.fail("fine-tuned though told not to"))
    run = _fit(photos, tmp_path / "run", strategy="head", goal="accuracy >= 1")
    assert run.report.climb is not None and [line.name for line in run.report.climb.rungs] == ["head"]


@pytest.mark.golden
def test_a_head_that_begins_a_training_has_not_seen_the_judging_rows(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changing the labels of judging rows must not change what fine-tuning starts from."""
    from headstart.workflow import recipes

    starts: list[np.ndarray] = []

    def caught(self: FineTuning, rows: Any, *args: Any, **kw: Any) -> Any:
        starts.append(kw["solved"].weight.copy())
        judged.append(set(kw["validation_rows"].ids))
        raise ConfigError("stop here")

    judged: list[set[str]] = []
    monkeypatch.setattr(FineTuning, "fit", caught)
    assert recipes.tune is not None
    _fit(photos, tmp_path / "a", strategy="full", store=False)
    across = sorted(row for row in judged[0] if "across" in row)
    down = sorted(row for row in judged[0] if "down" in row)
    changed = tmp_path / "changed"
    shutil.copytree(photos, changed)
    one, two = (changed / across[0]).read_bytes(), (changed / down[0]).read_bytes()
    (changed / across[0]).write_bytes(two)  # the labels of two judging rows change places; the split goes by names
    (changed / down[0]).write_bytes(one)
    _fit(changed, tmp_path / "b", strategy="full", store=False)
    assert judged[0] == judged[1]
    np.testing.assert_array_equal(starts[0], starts[1])


@pytest.mark.golden
def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _quick(monkeypatch)
    options: dict[str, Any] = {"goal": "accuracy >= 1", "max_size": "10MB"}
    from headstart.workflow import fitting, tuning_rungs

    monkeypatch.setattr(
        tuning_rungs, "evidence_of", lambda *a: 1.0
    )  # the second rung is tried whatever the first brought
    monkeypatch.setattr(fitting, "SearchRung", lambda *a, **k: None)
    monkeypatch.setattr(
        fitting._Fit, "_rungs", lambda self, order, whole=fitting._Fit._rungs: [r for r in whole(self, order) if r]
    )
    straight = _fit(photos, tmp_path / "straight", **options)
    whole, calls = FineTuning.fit, []

    def killed(self: FineTuning, rows: Any, *args: Any, **kw: Any) -> Any:
        calls.append(str(self.strategy))
        if str(self.strategy).startswith("layerwise"):
            raise KeyboardInterrupt
        return whole(self, rows, *args, **kw)

    monkeypatch.setattr(FineTuning, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        _fit(photos, tmp_path / "run", **options)
    stored = json.loads((tmp_path / "run" / "rungs.json").read_text())
    assert not stored["finished"] and [rung["name"] for rung in stored["rungs"]] == ["head", "partial"]
    assert not (tmp_path / "run" / "run.toml").exists()
    notes = tmp_path / "run" / "unfinished" / "run.json"
    spent = json.loads(notes.read_text())
    assert spent["cpu_seconds"] > 0
    notes.write_text(json.dumps({**spent, "cpu_seconds": 5000.0, "seconds": 7000.0}))
    before = len(calls)

    def counted(self: FineTuning, rows: Any, *args: Any, **kw: Any) -> Any:
        calls.append(str(self.strategy))
        return whole(self, rows, *args, **kw)

    monkeypatch.setattr(FineTuning, "fit", counted)
    run = _fit(photos, tmp_path / "run", **options)
    again = [name for name in calls[before:] if name.startswith("last-stages")]
    kept = next(line.name for line in run.report.climb.rungs if line.kept) if run.report.climb else ""
    assert (
        run.report.cost.cpu_seconds > 5000 and run.report.cost.wall_seconds > 7000
    )  # those of the killed process count
    assert len(again) == (1 if kept == "partial" else 0)  # only the final fit trains it again
    np.testing.assert_array_equal(run.predictions.scores, straight.predictions.scores)
    assert run.report.climb is not None and straight.report.climb is not None
    assert [line.value for line in run.report.climb.rungs] == [line.value for line in straight.report.climb.rungs]


@pytest.mark.golden
def test_other_rows_between_kill_and_restart_are_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _quick(monkeypatch)

    def killed(self: FineTuning, *args: Any, **kw: Any) -> Any:
        raise KeyboardInterrupt

    mine = tmp_path / "mine"
    shutil.copytree(photos, mine)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FineTuning, "fit", killed)
        _fit(mine, tmp_path / "run", strategy="full")
    for path in sorted(mine.rglob("*.png")):
        picture = np.asarray(Image.open(path)).copy()
        picture[0, 0] ^= 1
        Image.fromarray(picture).save(path)
    with pytest.raises(CheckpointError, match=r"other rows.*the content or the order of training rows"):
        _fit(mine, tmp_path / "run", strategy="full")
    for path in sorted(mine.rglob("3?.png")):
        path.unlink()
    with pytest.raises(CheckpointError, match="64 training rows then, 48 now"):
        _fit(mine, tmp_path / "run", strategy="full")
    changed = _fit(photos, tmp_path / "run", strategy="last-stages:1")  # another command begins anew
    assert changed.report.climb is not None and not (tmp_path / "run" / "unfinished").exists()


def test_features_cannot_be_fine_tuned(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    with pytest.raises(ConfigError, match="features already"):
        headstart.fit(
            vectors, labels=np.arange(40) % 2, strategy="full", out=tmp_path / "run", progress=Progress(quiet=True)
        )


@pytest.mark.golden
def test_a_search_without_optuna_is_a_clear_line(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _quick(monkeypatch)
    from headstart.workflow import searching

    monkeypatch.setattr(searching, "search_is_possible", lambda: False)
    run = _fit(photos, tmp_path / "run", goal="accuracy >= 1")
    assert run.report.climb is not None
    last = run.report.climb.rungs[-1]
    assert (last.name, last.status) == ("search", "skipped")
    assert 'pip install "headstart[tune]"' in last.expected_why + last.reason


@pytest.mark.golden
def test_a_search_chooses_by_rows_of_its_own(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    _quick(monkeypatch)
    from functools import partial

    from headstart.workflow import fitting

    monkeypatch.setattr(fitting, "SearchRung", partial(fitting.SearchRung, num_tries=3))
    seen: list[tuple[frozenset[str], frozenset[str]]] = []
    whole = FineTuning.fit

    def watched(self: FineTuning, rows: Any, *args: Any, **kw: Any) -> Any:
        judging = kw.get("validation_rows")
        seen.append((frozenset(rows.ids), frozenset(judging.ids) if judging is not None else frozenset()))
        return whole(self, rows, *args, **kw)

    monkeypatch.setattr(FineTuning, "fit", watched)
    run = _fit(photos, tmp_path / "run", strategy="search", seed=1)
    climb = run.report.climb
    assert climb is not None
    line = climb.rungs[-1]
    assert line.name == "search" and line.kept and len(line.tries) == 3
    *tries, final, refit = seen
    judging = final[1]
    assert judging and not final[0] & judging
    for learning, chosen_by in tries:
        assert not (learning | chosen_by) & judging and learning | chosen_by == final[0]
    assert refit[0] == final[0] | judging
    again = _fit(photos, tmp_path / "again", strategy="search", seed=1)
    assert again.report.climb is not None
    assert [one["recipe"] for one in again.report.climb.rungs[-1].tries] == [one["recipe"] for one in line.tries]
