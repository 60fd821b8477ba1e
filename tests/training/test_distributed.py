"""Data-parallel training: shares and shards in one process, everything else in processes that torchrun starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed, nn

from headstart.core.errors import ConfigError, TrainingError
from headstart.training import distributed as module
from headstart.training.distributed import World

WORKER = Path(__file__).with_name("torchrun_worker.py")


@pytest.mark.parametrize(("size", "num_rows"), [(1, 5), (2, 2), (2, 7), (3, 10), (4, 5)])
def test_shards_are_the_whole_batch_and_shares_are_one(size: int, num_rows: int) -> None:
    rows = np.random.default_rng(0).permutation(num_rows)
    worlds = [World(rank, size) for rank in range(size)]
    shards = [world.shard(rows) for world in worlds]
    assert np.concatenate(shards).tolist() == rows.tolist()
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert [world.share(num_rows) for world in worlds] == [len(shard) / num_rows for shard in shards]
    assert sum(world.share(num_rows) for world in worlds) == pytest.approx(1)


def test_fewer_rows_than_processes_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 rows for 3 processes"):
        World(0, 3).shard(np.array([0, 1]))


def test_alone_everything_is_free() -> None:
    world = World()
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = gradient = torch.tensor([1.0, 2.0])
    assert world.sum_gradients([parameter], [0.5]) == [0.5]
    assert parameter.grad is gradient
    assert world.seed_part == () and World(1, 2).seed_part == (1,)
    with world.global_statistics():
        layer = nn.BatchNorm1d(2)
        assert torch.equal(layer(torch.eye(2)), nn.BatchNorm1d(2)(torch.eye(2)))
    whole = torch.eye(2)
    assert world.gather(whole, 2) is whole
    assert world.hand_out(lambda: None) is None
    world.stop_requested = True
    world.sum_gradients([])
    assert world.stopping


def test_the_others_being_gone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(tensor: torch.Tensor) -> None:
        raise RuntimeError("Connection closed by peer [127.0.0.1]:4711\nmore")

    monkeypatch.setattr(distributed, "all_reduce", gone)
    with pytest.raises(TrainingError) as caught:
        World(0, 2).sums([1.0])
    assert "another of the 2 processes has ended" in str(caught.value)
    assert "Connection closed by peer [127.0.0.1]:4711)" in str(caught.value) and "last checkpoint" in str(caught.value)


def test_batch_statistics_of_one_process_are_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nobody else's rows to add, the global formula must be the ordinary one: values, gradients, running statistics."""
    monkeypatch.setattr(distributed, "all_reduce", lambda tensor: None)
    torch.manual_seed(0)
    ours, theirs = (nn.BatchNorm2d(3, momentum=0.2).double() for _ in range(2))
    inputs = (5 + torch.randn(4, 3, 5, 5, dtype=torch.float64)).requires_grad_()
    twin = inputs.detach().clone().requires_grad_()
    with module._GlobalBatchNorm(World(0, 1)):
        first = ours(inputs)
        frozen = ours.eval()(inputs)
    ours.train()
    second = theirs(twin)
    torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(frozen, ours.eval()(inputs))
    (first * torch.arange(25.0).view(5, 5)).sum().backward()
    (second * torch.arange(25.0).view(5, 5)).sum().backward()
    torch.testing.assert_close(inputs.grad, twin.grad, rtol=1e-9, atol=1e-12)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-12, atol=1e-12)


def start(what: str, folder: Path, size: int, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the worker, under torchrun if there is more than one process."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"] if size > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, *launcher, str(WORKER), what, str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
        check=False,
    )
    assert not check or finished.returncode == 0, finished.stderr[-3000:]
    return finished


def found(what: str, folder: Path, size: int, rank: int = 0) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"{what}-{size}-{rank}.json").read_text())
    return content


@pytest.mark.golden
def test_two_processes_train_like_one(tmp_path: Path) -> None:
    """Unequal shards, batch normalisation, momentum: losses, weights and running statistics within 1e-5."""
    for size in (1, 2):
        start("plain", tmp_path, size)
    one, two = found("plain", tmp_path, 1), found("plain", tmp_path, 2)
    np.testing.assert_allclose(two["losses"], one["losses"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(two["outputs"], one["outputs"], atol=1e-5, rtol=0)
    for name, value in one["state"].items():
        np.testing.assert_allclose(two["state"][name], value, atol=1e-5, rtol=1e-5)
    assert two["sums"] == pytest.approx([1.0, 2.0])
    assert two == found("plain", tmp_path, 2, 1)  # both processes, the same bits
    assert one["losses"][-1] != one["losses"][0]


@pytest.mark.golden
def test_what_the_first_process_reads_all_have(tmp_path: Path) -> None:
    start("handed-out", tmp_path, 2)
    for rank in (0, 1):
        result = found("handed-out", tmp_path, 2, rank)
        assert result["state"] == {"é": [1, None]} and result["layout"] and result["half"] == "[1.5, nan]"
        assert "data was" in result["refused"]
        assert "no longer hold the same weights" in result["drifted"]
        assert result["gradient"] == [1.0, 2.0] and result["nobodys"]


@pytest.mark.golden
def test_all_stop_after_the_same_step(tmp_path: Path) -> None:
    start("stopped", tmp_path, 2)
    first, second = (found("stopped", tmp_path, 2, rank) for rank in (0, 1))
    assert first == {"step": 5, "error": "KeyboardInterrupt", "kept": 5}
    assert second == {"step": 5, "error": "SystemExit", "kept": 5}


@pytest.mark.golden
def test_a_process_that_dies_ends_the_others(tmp_path: Path) -> None:
    finished = start("dies", tmp_path, 2, check=False)
    assert finished.returncode != 0
    result = found("dies", tmp_path, 2)
    assert result["step"] == 3 and "another of the 2 processes has ended" in result["error"]


@pytest.mark.golden
def test_the_loop_in_two_processes_is_the_loop_in_one_even_after_a_death(tmp_path: Path) -> None:
    """All losses and measures of the history, and the weights kept, within 1e-5; one checkpoint, by the first process."""
    start("loop", tmp_path, 1)
    killed = start(
        "loop-killed", tmp_path, 2, check=False
    )  # one process dies; started again, all go on from the checkpoint
    assert killed.returncode != 0 and "another of the 2 processes has ended" in killed.stderr
    assert (tmp_path / "loop-2" / "newest.safetensors").exists()
    start("loop", tmp_path, 2)
    one, two = found("loop", tmp_path, 1), found("loop", tmp_path, 2)
    ours, theirs = one["history"], two["history"]
    for name in ("train_loss", "validation_loss", "train_measure", "validation_measure", "rates", "check_epochs"):
        assert len(ours[name]) == 4
        np.testing.assert_allclose(theirs[name], ours[name], atol=1e-5, rtol=0, err_msg=name)
    assert {name: theirs[name] for name in ("steps", "best", "stopped", "kept", "batch_size")} == {
        name: ours[name] for name in ("steps", "best", "stopped", "kept", "batch_size")
    }
    for name, value in one["state"].items():
        np.testing.assert_allclose(two["state"][name], value, atol=1e-5, rtol=1e-5, err_msg=name)
    assert two["state"] == found("loop", tmp_path, 2, 1)["state"]
    assert ours["validation_loss"][-1] < 0.9 * ours["validation_loss"][0]
