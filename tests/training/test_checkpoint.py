"""Checkpoints: the same bits and layouts back, damage found, full disks survived, other trainings refused, signals obeyed."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from headstart.core.errors import CheckpointError
from headstart.core.tasks import Task
from headstart.data import Dataset
from headstart.data.rows import TextRows
from headstart.training import checkpoint as module
from headstart.training import checkpoint_file as file_module
from headstart.training.checkpoint import Checkpoint, network_identity, rows_identity
from headstart.training.checkpoint_file import flatten_state, unflatten_state

IDENTITY = {"data": {"rows": "ab" * 32, "num_rows": 7}, "config": {"seed": 0, "cpu_seconds": math.inf}}


def tensors(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((2, 3), value), "step": torch.tensor(5, dtype=torch.int64)}


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    flat = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (left, right)]
    return left.dtype == right.dtype and left.shape == right.shape and torch.equal(*flat)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([float("nan"), -0.0, 1e-45, math.inf]),
        torch.tensor(3.5, dtype=torch.float64),
        torch.arange(6).reshape(2, 3).bfloat16(),
        torch.tensor([True, False]),
        torch.empty(0, 4),
        torch.tensor([1 << 62]),
        torch.zeros(3).to(torch.uint8),
        torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.rand(6, 5, 1, 1).to(memory_format=torch.channels_last),
        torch.rand(3, 4).T,
        torch.rand(8)[::2],
        torch.rand(1, 4).expand(3, 4),
        torch.rand(5, requires_grad=True),
    ],
)
def test_every_tensor_comes_back_bit_for_bit(tmp_path: Path, tensor: torch.Tensor) -> None:
    with Checkpoint(tmp_path) as checkpoint:
        assert checkpoint.save({"it": tensor}, {}, step=1)
        loaded = checkpoint.load()
    assert loaded is not None
    (back,) = loaded[0].values()
    assert same_bits(tensor.detach(), back)
    dense = tensor.stride() == back.stride()
    overlaps_or_gaps = tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size()
    assert dense or overlaps_or_gaps  # sqrt and division of other layouts may take other instructions


def test_shared_memory_and_json_come_back(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    state = {"best": math.inf, "losses": [0.1, 1e-320, 2**0.5], "names": {"é": None, "deep": [[1], []]}}
    with Checkpoint(tmp_path) as checkpoint:
        checkpoint.save({"all": base, "tied": base, "part": base[2:4]}, state, step=3)
        loaded = checkpoint.load()
    assert loaded is not None
    assert loaded[1] == state
    assert loaded[0]["part"].tolist() == [2, 3]
    loaded[0]["tied"][0] = 9
    assert loaded[0]["all"][0] == 0


def test_the_previous_one_stays_and_replaces_a_damaged_newest(tmp_path: Path) -> None:
    said: list[str] = []
    with Checkpoint(tmp_path, say=said.append) as checkpoint:
        assert checkpoint.load() is None
        for step in (1, 2, 3):
            checkpoint.save(tensors(step), {"step": step}, step=step)
        content = bytearray(checkpoint.newest.read_bytes())
        content[-3] ^= 1  # one bit of the last tensor
        checkpoint.newest.write_bytes(content)
        loaded = checkpoint.load()
        assert loaded is not None
        assert (loaded[1]["step"], float(loaded[0]["weight"][0, 0])) == (2, 2.0)
        (line,) = said
        assert "newest.safetensors is damaged" in line and "digest" in line and "the one before it is used" in line
        assert (tmp_path / "damaged-newest.safetensors").exists()
        checkpoint.save(tensors(4), {"step": 4}, step=4)  # the damaged one must not have pushed the good one out
        checkpoint.newest.write_bytes(b"")
        loaded = checkpoint.load()
    assert loaded is not None and loaded[1]["step"] == 2


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, 0.5, -1])
def test_truncated_files_are_found(tmp_path: Path, keep: float) -> None:
    said: list[str] = []
    with Checkpoint(tmp_path, say=said.append) as checkpoint:
        checkpoint.save(tensors(), {}, step=1)
        content = checkpoint.newest.read_bytes()
        checkpoint.newest.write_bytes(content[: int(keep * len(content)) if keep == 0.5 else int(keep)])
        assert checkpoint.load() is None
    assert "training begins anew" in said[0]


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    said: list[str] = []
    with Checkpoint(tmp_path, say=said.append, identity=IDENTITY) as checkpoint:
        checkpoint.save(tensors(), {"step": 1}, step=1)
        content = checkpoint.newest.read_bytes()
        for at in range(0, len(content), 7):
            damaged = bytearray(content)
            damaged[at] ^= 1 << at % 8
            checkpoint.newest.write_bytes(damaged)
            loaded = checkpoint.load()
            # flips that change nothing a reader sees (a space in the padding) may pass, with the same content
            assert loaded is None or (loaded[1] == {"step": 1} and same_bits(loaded[0]["weight"], tensors()["weight"]))
    assert len(said) > len(range(0, len(content), 7)) * 0.9


def test_a_file_of_another_kind_is_set_aside(tmp_path: Path) -> None:
    said: list[str] = []
    save_file(tensors(), tmp_path / "newest.safetensors")
    with Checkpoint(tmp_path, say=said.append) as checkpoint:
        assert checkpoint.load() is None
    assert "damaged" in said[0]


@pytest.mark.parametrize(
    ("now", "wanted"),
    [
        (
            {**IDENTITY, "data": {"rows": "cd" * 32, "num_rows": 8}},
            ["data.rows was abab", "is cdcd", "num_rows was 7, is 8"],
        ),
        ({**IDENTITY, "config": {"seed": 1, "cpu_seconds": math.inf}}, ["config.seed was 0, is 1"]),
        ({**IDENTITY, "backbone": {"name": "resnet18"}}, ["backbone was nothing", "resnet18"]),
        ({"config": IDENTITY["config"]}, ["data was", "is nothing"]),
    ],
)
def test_another_identity_is_refused_with_what_changed(tmp_path: Path, now: dict[str, Any], wanted: list[str]) -> None:
    with Checkpoint(tmp_path, identity=IDENTITY) as checkpoint:
        checkpoint.save(tensors(), {}, step=1)
    with Checkpoint(tmp_path, identity=now) as checkpoint, pytest.raises(CheckpointError) as caught:
        checkpoint.load()
    for part in [*wanted, str(tmp_path), "remove the folder"]:
        assert part in str(caught.value)
    with Checkpoint(tmp_path, identity=IDENTITY) as checkpoint:  # refusing harms nothing
        assert checkpoint.load() is not None


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Checkpoint(tmp_path) as checkpoint:
        checkpoint.save(tensors(), {}, step=1)
    monkeypatch.setattr(module.metadata, "version", lambda name: "9.9")
    with Checkpoint(tmp_path) as checkpoint, pytest.raises(CheckpointError, match=r'versions.torch was ".*", is "9.9"'):
        checkpoint.load()


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, Checkpoint(tmp_path) as checkpoint:
        patch.setattr(file_module, "_FORMAT", 2)
        checkpoint.save(tensors(), {}, step=1)
    with Checkpoint(tmp_path) as checkpoint, pytest.raises(CheckpointError, match="newer headstart"):
        checkpoint.load()


def test_a_full_disk_costs_a_checkpoint_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def full(packed: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Checkpoint(tmp_path, every_steps=1, say=said.append) as checkpoint:
        checkpoint.save(tensors(1), {"step": 1}, step=1)
        with monkeypatch.context() as patch:
            patch.setattr(file_module, "save_file", full)
            for step in (2, 3):
                checkpoint.after_step(step, lambda: (tensors(2), {}))  # does not raise
            assert len(said) == 1
            assert "step 2 not written" in said[0] and "No space left" in said[0] and "training goes on" in said[0]
        assert sorted(path.name for path in tmp_path.rglob("*")) == [".lock", "newest.safetensors"]
        loaded = checkpoint.load()
        assert loaded is not None and loaded[1]["step"] == 1
        assert checkpoint.save(tensors(4), {"step": 4}, step=4)
    assert said[1:] == ["checkpoint written again, of step 4"]


def test_a_write_that_the_system_refuses_is_survived(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    said: list[str] = []
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoint(tmp_path, say=said.append) as checkpoint:
        checkpoint.save(tensors(1), {"step": 1}, step=1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
        try:
            assert not checkpoint.save({"large": torch.zeros(1 << 16)}, {}, step=2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "not written" in said[0] and "File too large" in said[0]
        loaded = checkpoint.load()
    assert loaded is not None and loaded[1] == {"step": 1}


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    with Checkpoint(tmp_path) as checkpoint:
        checkpoint.save(tensors(), {}, step=1)
    (tmp_path / "writing").mkdir(exist_ok=True)
    (tmp_path / "writing" / ".tmpAb3").write_bytes(b"half")
    checkpoint.newest.replace(checkpoint.previous)  # killed between the two renames
    with Checkpoint(tmp_path) as again:
        assert again.load() is not None
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "previous.safetensors"]
        again.clear()
    assert not tmp_path.exists()


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOCK_SECONDS", 0.1)
    with Checkpoint(tmp_path), pytest.raises(CheckpointError, match="another process"), Checkpoint(tmp_path):
        pass
    with Checkpoint(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot be written"), Checkpoint(tmp_path / "file" / "folder"):
        pass


def test_when_it_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with Checkpoint(tmp_path, every_steps=3) as checkpoint:
        assert [checkpoint.due(step) for step in (1, 2, 3, 4)] == [False, False, True, True]
        checkpoint.save(tensors(), {}, step=4)
        assert [checkpoint.due(step) for step in (5, 7)] == [False, True]
    with Checkpoint(tmp_path, every_steps=3) as checkpoint:  # counts from the step it goes on from
        checkpoint.load()
        assert [checkpoint.due(step) for step in (6, 7)] == [False, True]
    with Checkpoint(tmp_path, every_seconds=60) as checkpoint:
        now[0] += 59
        assert not checkpoint.due(1)
        now[0] += 1
        assert checkpoint.due(1)

        def slow() -> float:
            now[0] += 5
            return now[0]

        with monkeypatch.context() as patch:
            patch.setattr(module.time, "monotonic", slow)
            checkpoint.save(tensors(), {}, step=1)  # takes 5 seconds, which are 5 % of 100
        now[0] += 99
        assert not checkpoint.due(2)
        now[0] += 1
        assert checkpoint.due(2)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_signals_save_after_the_step_and_stop(tmp_path: Path, number: int, error: type[BaseException]) -> None:
    said: list[str] = []
    before = signal.getsignal(number)
    with Checkpoint(tmp_path, say=said.append) as checkpoint:
        checkpoint.after_step(1, lambda: pytest.fail("nothing is due"))
        signal.raise_signal(number)
        with pytest.raises(error) as caught:
            checkpoint.after_step(2, lambda: (tensors(), {"step": 2}))
    assert number != signal.SIGTERM or caught.value.code == 143
    assert signal.getsignal(number) == before
    assert said == [f"training stopped after step 2: saved in {tmp_path}; run the same again to go on"]
    with Checkpoint(tmp_path) as checkpoint:
        loaded = checkpoint.load()
    assert loaded is not None and loaded[1] == {"step": 2}


def test_a_second_interrupt_breaks_off_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Checkpoint(tmp_path) as checkpoint:
        signal.raise_signal(signal.SIGINT)
        assert checkpoint.stopping
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert "Ctrl-C again" in capfd.readouterr().err
    assert not checkpoint.newest.exists()


def test_works_outside_the_main_thread(tmp_path: Path) -> None:
    results: list[bool] = []

    def work() -> None:
        with Checkpoint(tmp_path) as checkpoint:
            results.append(checkpoint.save(tensors(), {}, step=1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [True]


def test_nothing_is_pickled(tmp_path: Path) -> None:
    with Checkpoint(tmp_path, identity=IDENTITY) as checkpoint:
        checkpoint.save(tensors(), {"step": 1}, step=1)
    content = checkpoint.newest.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert json.loads(header["__metadata__"]["header"])["state"] == {"step": 1}
    source = "".join(Path(str(m.__file__)).read_text(encoding="utf-8") for m in (module, file_module))
    assert "torch.load" not in source and "import pickle" not in source


@pytest.mark.golden
def test_interrupted_from_the_terminal(tmp_path: Path) -> None:
    """A whole process gets Ctrl-C: it ends with 130 and the next one finds its state."""
    script = f"""
import sys, time
from pathlib import Path
import torch
from headstart.training.checkpoint import Checkpoint, network_identity, rows_identity
from headstart.training.checkpoint_file import flatten_state, unflatten_state
with Checkpoint(Path({str(tmp_path)!r})) as checkpoint:
    print("ready", flush=True)
    for step in range(1, 10_000):
        time.sleep(0.01)
        checkpoint.after_step(step, lambda: ({{"weight": torch.ones(1)}}, {{"step": step}}))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in {130, -signal.SIGINT}
    assert "run the same again to go on" in errors
    with Checkpoint(tmp_path) as checkpoint:
        loaded = checkpoint.load()
    assert loaded is not None and loaded[1]["step"] >= 1


def test_state_of_an_optimiser_survives_flattening() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.ones(4, 3)).sum().backward()
    optimiser.step()
    nested = {
        "optimiser": optimiser.state_dict(),
        "pair": (1, [np.float64(0.1), None]),
        "order": np.arange(3),
        "": {"$": "not ours", True: math.nan},
    }
    tensors_by_name, rest = flatten_state(nested)
    back = unflatten_state(tensors_by_name, json.loads(json.dumps(rest)))
    assert back["pair"] == (1, [0.1, None]) and back["order"].tolist() == [0, 1, 2]
    assert back[""]["$"] == "not ours" and math.isnan(back[""][True])
    assert back["optimiser"]["param_groups"] == optimiser.state_dict()["param_groups"]
    for number, wanted in optimiser.state_dict()["state"].items():
        for key, tensor in wanted.items():
            assert torch.equal(back["optimiser"]["state"][number][key], tensor)
    with pytest.raises(TypeError, match="a/0 is of type set"):
        flatten_state({"a": [set()]})


def test_identities_change_with_what_they_name() -> None:
    task = Task("classification", ("no", "yes"))
    make = lambda texts, targets: Dataset(TextRows(texts), ids=list("ab"), task=task, targets=np.array(targets))  # noqa: E731
    base = rows_identity(make(["x", "y"], [0, 1]))
    assert base == rows_identity(make(["x", "y"], [0, 1]))
    changed = [rows_identity(make(["x", "z"], [0, 1])), rows_identity(make(["x", "y"], [1, 1]))]
    assert [{key for key in base if base[key] != other[key]} for other in changed] == [{"rows"}, {"labels"}]
    assert rows_identity(make(["y", "x"], [0, 1]))["rows"] != base["rows"]
    network = torch.nn.BatchNorm1d(2)
    before = network_identity(network)
    network.running_mean.add_(1)  # type: ignore[union-attr]
    assert network_identity(network)["weights"] != before["weights"]
    assert network_identity(torch.nn.BatchNorm1d(3))["parts"] != before["parts"]
