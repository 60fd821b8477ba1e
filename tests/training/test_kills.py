"""A training that was stopped goes on bit for bit: after errors, signals, full disks and SIGKILL at chosen and random moments.

The trainings are those of ``benchmarks/kills.py``: four recipes that between them use every kind of state.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from headstart.core.errors import CheckpointError, TrainingError
from headstart.training import checkpoint_file
from headstart.training.checkpoint import Checkpoint

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "kills.py"
# when labelled rows are fetched for which time it is broken off: in the first step, early, and where it averages or soon ends
RECIPES = {"unfreezing": (1, 9, 12), "averaging": (1, 56, 40), "teacher": (1, 18, 24), "frozen-stem": (1, 9, 12)}
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are made by fork")


@cache
def kills() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kills", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def end(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "end.json").read_text(encoding="utf-8"))
    return content


def during_step(monkeypatch: pytest.MonkeyPatch, step: int, event: Callable[[], None]) -> None:
    """Let something happen when the rows of a step are fetched, once."""
    original = kills().NoisyImages.batch
    seen = [0]

    def batch(self: Any, indices: Any, draws: Any = None) -> Any:
        if draws is not None and len(self) == 80:
            seen[0] += 1
            if seen[0] == step:
                event()
        return original(self, indices, draws)

    monkeypatch.setattr(kills().NoisyImages, "batch", batch)


class Stop(Exception):
    """What breaks a training off in these tests."""


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """How each recipe ends undisturbed."""

    @cache
    def undisturbed(name: str) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("undisturbed")
        kills().work(name, folder, every_steps=1000)
        return end(folder)

    return undisturbed


@pytest.mark.golden
@pytest.mark.parametrize("name", RECIPES)
def test_broken_off_at_three_places(
    name: str, wanted: Callable[[str], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        raise Stop

    for place in RECIPES[name]:
        with monkeypatch.context() as patch:
            during_step(patch, place, stop)
            with pytest.raises(Stop):
                kills().work(name, tmp_path, every_steps=2)
    kills().work(name, tmp_path)
    assert end(tmp_path) == wanted(name)
    assert wanted(name)["steps"] == (25 if name == "unfreezing" else 30)  # patience ends that one


def test_the_comparison_notices_another_seed(wanted: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    kills().work("unfreezing", tmp_path, seed=1)
    assert end(tmp_path)["end"] != wanted("unfreezing")["end"]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("data", ["data.rows was"]),
        ("labels", ["data.labels was"]),
        ("backbone", ["network.weights was"]),
        ("config", ["config.learning_rate was 2.0, is 0.06"]),
    ],
)
def test_what_changed_since_is_refused_by_name(
    what: str, told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        raise Stop

    with monkeypatch.context() as patch:
        during_step(patch, 4, stop)
        with pytest.raises(Stop):
            kills().work("unfreezing", tmp_path)
    module = kills()
    images, network, recipe = module.NoisyImages.__init__, module.build_network, module.recipe

    def changed_rows(self: Any, num_rows: int, seed: int) -> None:
        images(self, num_rows, seed)
        if what == "data":
            self.images[3, 0, 0, 0] += 1e-6
        else:
            self.labels[3] = (self.labels[3] + 1) % 4

    def changed_network() -> Any:
        made = network()
        with torch.no_grad():
            next(made.parameters())[0].add_(1e-6)
        return made

    def changed_recipe(*arguments: Any) -> Any:
        made = recipe(*arguments)
        object.__setattr__(made["config"], "learning_rate", 0.06)
        return made

    if what in {"data", "labels"}:
        monkeypatch.setattr(module.NoisyImages, "__init__", changed_rows)
    elif what == "backbone":
        monkeypatch.setattr(module, "build_network", changed_network)
    else:
        monkeypatch.setattr(module, "recipe", changed_recipe)
    with pytest.raises(CheckpointError) as caught:
        module.work("unfreezing", tmp_path)
    message = str(caught.value)
    assert all(part in message for part in told) and message.count(" was ") == 1


def test_a_full_disk_changes_nothing(
    wanted: Callable[[str], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The disk is full from the sixth step to the ninth, where the training breaks off: it goes on from the fifth."""
    real = checkpoint_file.save_file
    written = [0]

    def filling(packed: Any, path: Path, metadata: Any) -> None:
        written[0] += 1
        if written[0] > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(packed, path, metadata)

    def stop() -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_file, "save_file", filling)
        during_step(patch, 10, stop)
        with pytest.raises(Stop):
            kills().work("frozen-stem", tmp_path)
    assert capsys.readouterr().err.count("No space left") == 1
    with Checkpoint(tmp_path / "state") as checkpoint, pytest.raises(CheckpointError):
        checkpoint.load()  # it is there, and knows whose it is
    kills().work("frozen-stem", tmp_path)
    assert end(tmp_path) == wanted("frozen-stem")


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_asked_to_stop_it_saves_and_says_how_to_go_on(
    number: int,
    error: type[BaseException],
    wanted: Callable[[str], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        during_step(patch, 5, lambda: signal.raise_signal(number))
        with pytest.raises(error):
            kills().work("frozen-stem", tmp_path, every_steps=1000)
    assert "training stopped after step 5" in capsys.readouterr().err
    kills().work("frozen-stem", tmp_path, every_steps=1000)
    assert end(tmp_path) == wanted("frozen-stem")


def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(
    wanted: Callable[[str], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = kills().NoisyImages.batch
    with monkeypatch.context() as patch:
        seen = [0]

        def batch(self: Any, indices: Any, draws: Any = None) -> Any:
            seen[0] += draws is not None
            (images,) = original(self, indices, draws)
            return (images * np.nan if seen[0] == 8 and draws is not None else images,)

        patch.setattr(kills().NoisyImages, "batch", batch)
        with pytest.raises(TrainingError, match="step 8"):
            kills().work("frozen-stem", tmp_path)
    kills().work("frozen-stem", tmp_path)
    assert end(tmp_path) == wanted("frozen-stem")


@needs_fork
@pytest.mark.golden
def test_killed_at_chosen_places(tmp_path: Path) -> None:
    """SIGKILL from within: in the first step, in the middle of writing a file, between its two new names, in the last step."""
    script = f"""
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(SCRIPT.parent)!r})
import kills
from headstart.training import checkpoint, checkpoint_file

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def in_step(place):
    batch, seen = kills.NoisyImages.batch, [0]
    def counted(self, indices, draws=None):
        seen[0] += draws is not None and len(self) == 80
        if seen[0] == place:
            die()
        return batch(self, indices, draws)
    kills.NoisyImages.batch = counted

def in_write(place, half):
    real, seen = checkpoint_file.save_file, [0]
    def write(packed, path, metadata):
        seen[0] += 1
        real(packed, path, metadata)
        if seen[0] == place:
            if half:
                content = path.read_bytes()
                path.write_bytes(content[: len(content) // 2])
            die()
    checkpoint_file.save_file = write

def between_names(place):
    real, seen = Path.replace, [0]
    def replace(self, target):
        result = real(self, target)
        if self.name == "newest.safetensors":
            seen[0] += 1
            if seen[0] == place:
                die()
        return result
    Path.replace = replace

place = Path({str(tmp_path)!r})
for name in kills.RECIPES:
    folder = place / name
    for part in ("whole", "killed"):
        (folder / part).mkdir(parents=True)
    kills.undisturbed(name, folder / "whole")
    for ready in (lambda: in_step(1), lambda: in_write(3, True), lambda: between_names(5), lambda: in_write(2, False),
                  lambda: in_step(2)):
        def job():
            ready()
            kills.work(name, folder / "killed")
        assert not kills.in_child(job), "was to be killed"
    assert kills.in_child(lambda: kills.work(name, folder / "killed"))
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    for name in RECIPES:
        assert end(tmp_path / name / "killed") == end(tmp_path / name / "whole")


@needs_fork
@pytest.mark.golden
def test_killed_at_random_moments() -> None:
    finished = subprocess.run(
        [sys.executable, str(SCRIPT), "--trainings", "4", "--no-store"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr[-3000:]
    result = json.loads(finished.stdout.splitlines()[-1])
    assert result["kills"] >= 4 and result["identical ends"] == result["trainings"] == 4
