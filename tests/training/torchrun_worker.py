"""What torchrun starts in tests: ``torchrun_worker.py WHAT FOLDER``; without torchrun, the same in one process.

Every piece of work writes what it found as JSON into the folder, the first process alone unless it says otherwise.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from headstart.core.errors import CheckpointError, TrainingError
from headstart.core.tasks import Task
from headstart.training.checkpoint import Checkpoint
from headstart.training.config import TrainingConfig
from headstart.training.distributed import World
from headstart.training.loop import train
from headstart.training.network import Network
from headstart.training.rows import TrainingRows

ROWS, BATCH, STEPS = 40, 7, 12  # seven rows for two processes: unequal parts


def network() -> nn.Module:
    torch.manual_seed(3)
    convolutions = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*convolutions, nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


def plain_training(world: World) -> dict[str, Any]:
    """Train by hand, with everything a loop needs from `World`."""
    torch.manual_seed(4)
    inputs, labels = torch.randn(ROWS, 1, 6, 6), torch.randint(3, (ROWS,))
    model = network()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for step in range(STEPS):
        batch = np.random.default_rng(step).permutation(ROWS)[:BATCH]
        mine = world.shard(batch)
        optimiser.zero_grad()
        with world.global_statistics():
            loss = nn.functional.cross_entropy(model(inputs[mine]), labels[mine]) * world.share(len(batch))
        loss.backward()
        losses += world.sum_gradients(model.parameters(), [float(loss.detach())])
        optimiser.step()
    model.eval()
    outputs = world.gather(model(inputs[world.shard(np.arange(ROWS))]), ROWS)
    world.check_same(model.state_dict())
    state = {name: value.tolist() for name, value in model.state_dict().items()}
    return {
        "losses": losses,
        "outputs": outputs.tolist(),
        "state": state,
        "sums": world.sums([world.share(BATCH), 1.0]),
    }


def handed_out(world: World, folder: Path) -> dict[str, Any]:
    """What one process reads, all have; errors too."""
    source = {
        "half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        "layout": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "empty": torch.empty(0, 2),
        "number": torch.tensor(7),
    }
    checkpoint = Checkpoint(folder / "state", identity={"data": "a"}, world=world)
    with checkpoint:
        assert checkpoint.load() is None
        assert checkpoint.save(source, {"é": [1, None]}, step=3) == world.first
        loaded = checkpoint.load()
    assert loaded is not None
    world.check_same(loaded[0])
    other = Checkpoint(folder / "state", identity={"data": "b"}, world=world)
    message = ""
    with other:
        try:
            other.load()
        except CheckpointError as error:
            message = str(error)
    drifted = ""
    try:
        world.check_same({"weight": torch.tensor([float(world.rank)])})
    except TrainingError as error:
        drifted = str(error)
    own, nobodys = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    if world.rank == 1:
        own.grad = torch.tensor([1.0, 2.0])
    world.sum_gradients([own, nobodys])
    return {
        "state": loaded[1],
        "layout": loaded[0]["layout"].is_contiguous(memory_format=torch.channels_last),
        "half": str(loaded[0]["half"].tolist()),
        "refused": message,
        "drifted": drifted,
        "gradient": own.grad.tolist() if own.grad is not None else None,
        "nobodys": nobodys.grad is None,
    }


def stopped(world: World, folder: Path) -> dict[str, Any]:
    """One process is asked to stop; all stop after the same step, and what is kept is of that step."""
    parameter = nn.Parameter(torch.ones(1))
    result: dict[str, Any] = {}
    with Checkpoint(folder / "state", world=world) as checkpoint:
        try:
            for step in range(1, 100):
                if step == 5 and world.rank == 1:
                    signal.raise_signal(signal.SIGTERM)
                parameter.grad = torch.ones(1)
                world.sum_gradients([parameter])
                checkpoint.after_step(step, lambda step=step: ({}, {"step": step}))
        except (KeyboardInterrupt, SystemExit) as error:
            result = {"step": step, "error": type(error).__name__}
        loaded = checkpoint.load()
        assert loaded is not None
        result["kept"] = loaded[1]["step"]
    return result


def dies(world: World) -> dict[str, Any]:
    """The second process is killed; the first must not wait for it for ever."""
    parameter = nn.Parameter(torch.ones(4))
    for step in range(100):
        if step == 3 and world.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        parameter.grad = torch.ones(4)
        try:
            world.sum_gradients([parameter])
        except TrainingError as error:
            return {"step": step, "error": str(error)}
    return {}


class Images:
    """Made-up images whose draws change them, so that a row with another row's draw would be seen."""

    num_views = 1

    def __init__(self, num_rows: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.labels = random.integers(0, 3, num_rows)
        images = random.normal(size=(num_rows, 1, 6, 6)) + self.labels[:, None, None, None]
        self.images = images.astype(np.float32)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Any, draws: Any = None) -> tuple[torch.Tensor, ...]:
        images = torch.from_numpy(self.images[indices])
        if draws is not None:
            images = images * torch.from_numpy(1 + 0.1 * (draws % 7).astype(np.float32)).view(-1, 1, 1, 1)
        return (images,)

    def close(self) -> None:
        """Nothing is open."""


class FatalImages(Images):
    """They kill the process that fetches rows for the twelfth time."""

    fetched = 0

    def batch(self, indices: Any, draws: Any = None) -> tuple[torch.Tensor, ...]:
        self.fetched += 1
        if self.fetched == 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batch(indices, draws)


def loop_training(world: World, folder: Path, rows: Images) -> dict[str, Any]:
    """The loop itself, with what is computed over whole batches: mixing, class weights, pieces, averages, patience."""
    model = network()
    whole = Network({"body": model[:4], "features": model[4:7]}, {"main": model[7]})
    checks = Images(21, 1)
    config = TrainingConfig(
        batch_size=9,
        max_epochs=4,
        optimiser="sgd",
        learning_rate=0.05,
        mixup=0.3,
        cutmix=0.5,
        accumulate=1,
        balance="loss",
        label_smoothing=0.1,
        ema=0.8,
        clip=0.5,
        precision="fp32",
    )
    with Checkpoint(folder / f"loop-{world.size}", every_steps=3) as checkpoint:
        history = train(
            whole,
            Task("classification", ("a", "b", "c")),
            TrainingRows(rows, rows.labels),
            TrainingRows(checks, checks.labels),
            config,
            checkpoint=checkpoint,
        )
    state = {name: value.tolist() for name, value in whole.state_dict().items()}
    return {"history": history.to_dict(), "state": state}


def main() -> None:
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what in {
        "dies",
        "loop-killed",
    }:  # torchrun ends the others with SIGTERM, maybe before they saw the death themselves
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with World.joined(timeout_seconds=60) as world:
        if what == "plain":
            result = plain_training(world)
        elif what == "handed-out":
            result = handed_out(world, folder)
        elif what == "loop":
            result = loop_training(world, folder, Images(50, 0))
        elif what == "loop-killed":
            result = loop_training(world, folder, FatalImages(50, 0) if world.rank == 1 else Images(50, 0))
        elif what == "stopped":
            result = stopped(world, folder)
        else:
            result = dies(world)
        (folder / f"{what}-{world.size}-{world.rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
