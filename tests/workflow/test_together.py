"""The command in two processes: the same run as in one, written and printed once, and no process left waiting."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import headstart
from headstart.cli.main import main
from headstart.core.errors import ConfigError, DataError
from headstart.workflow.config import FitConfig
from headstart.workflow.sharing import Helper

NUM = 60


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


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of a few thousand weights in timm's format."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model("test_efficientnet", num_classes=0).eval()
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / "model.safetensors"
    )
    about = {
        "input_size": [3, 48, 48],
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
    }
    config = {"architecture": "test_efficientnet", "num_classes": 0, "pretrained_cfg": about}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _command(size: int, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command, under torchrun where there is more than one process."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"] if size > 1 else []
    return subprocess.run(
        [sys.executable, *launcher, "-m", "headstart", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=cwd,
        timeout=240,
        check=False,
    )


@pytest.mark.golden
def test_two_processes_make_the_run_of_one(photos: Path, weights: Path, tmp_path: Path) -> None:
    words = ["fit", str(photos), "--strategy", "last-stages:2", "--backbone", str(weights), "--runtime", "torch-fp32"]
    words += ["--scratch", "off", "--out"]
    one, two = (_command(size, *words, f"run-{size}", cwd=tmp_path) for size in (1, 2))
    assert one.returncode == 0, one.stderr[-3000:]
    assert two.returncode == 0, two.stderr[-3000:]
    assert two.stdout.replace("run-2", "run-1") == one.stdout and one.stdout.count("Report:") == 1
    assert two.stderr.count("stopped by epochs") == 2  # the rung and its fit on all rows, each said once
    reports = [json.loads((tmp_path / f"run-{size}" / "report.json").read_text()) for size in (1, 2)]
    curves = [report["training_curves"][0] for report in reports]
    assert len(curves[0]["train_loss"]) >= 10
    for name in ("train_loss", "validation_loss", "train_measure", "validation_measure"):
        np.testing.assert_allclose(curves[1][name], curves[0][name], atol=1e-5, rtol=0, err_msg=name)
    assert curves[0]["train_loss"][-1] != curves[0]["train_loss"][0]
    answers = [pd.read_csv(tmp_path / f"run-{size}" / "test_predictions.csv") for size in (1, 2)]
    np.testing.assert_allclose(answers[1]["p(across)"], answers[0]["p(across)"], atol=1e-4, rtol=0)
    assert {path.name for path in (tmp_path / "run-2").iterdir()} == {
        path.name for path in (tmp_path / "run-1").iterdir()
    }
    assert any("shared by 2 processes" in note for note in reports[1]["notes"])
    assert not any("processes" in note for note in reports[0]["notes"])


CUT = """
import sys
from headstart.core.progress import Progress
from headstart.workflow import FitConfig, fit_together, ladder

class Cut(Progress):
    def _draw(self, stage):
        if stage.name == "train" and stage.done > 60:
            raise ladder.BudgetSpent("train: the budget is spent.")

ladder.with_deadline = lambda progress, seconds: Cut(quiet=True)
config = FitConfig(strategy="last-stages:2", scratch="off", backbones=(sys.argv[2],), runtime="torch-fp32")
run = fit_together(sys.argv[1], out="run", config=config)
print("first" if run is not None else "other")
"""


@pytest.mark.golden
def test_a_training_that_the_first_process_leaves_leaves_nobody_waiting(
    photos: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "cut.py").write_text(CUT)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "cut.py", str(photos), str(weights)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(done.stdout.split()) == ["first", "other"]
    rungs = json.loads((tmp_path / "run" / "rungs.json").read_text())["rungs"]
    assert [rung["status"] for rung in rungs] == ["tried", "cut-off"] and rungs[0]["kept"]


@pytest.mark.golden
def test_an_error_of_the_first_process_ends_all_and_is_said_once(tmp_path: Path) -> None:
    finished = _command(2, "fit", "nowhere/", cwd=tmp_path)
    assert finished.returncode != 0
    assert len(re.findall(r"^headstart: .*nowhere", finished.stderr, flags=re.MULTILINE)) == 1
    assert "headstart/cli/main.py" not in finished.stderr  # no traceback of ours


def test_other_commands_refuse_to_be_started_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, said in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setattr(sys, "argv", ["headstart", "check", "photos"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert capsys.readouterr().err.count("only fit shares its work out") == said


def test_fit_in_python_refuses_to_be_done_by_each_process(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="fit_together"):
        headstart.fit(photos)


def test_a_helper_knows_only_rows_and_base_models_of_its_own_files(photos: Path, weights: Path) -> None:
    helper = Helper(photos, FitConfig(backbones=(str(weights),)))
    helper._rows(torch.tensor([], dtype=torch.int64))
    assert helper._train is not None
    places = helper._train.content()[1][2:0:-1]
    assert len(places) == 2 and helper._rows(torch.tensor(places)).content()[1] == places
    with pytest.raises(DataError, match="same files"):
        helper._rows(torch.tensor([NUM]))
    digest = headstart.open_backbone(weights).weights_digest
    assert helper._backbone(str(weights), digest).weights_digest == digest
    with pytest.raises(ConfigError, match="same files"):
        helper._backbone(str(weights), "other")
