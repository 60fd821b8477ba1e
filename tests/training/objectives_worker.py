"""What torchrun starts in tests of objectives: ``objectives_worker.py FOLDER NAME...``.

A small network learns by each objective in turn. Every process writes losses, weights and what the objectives remember.
The test that calls it runs `learn` itself for the one process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from headstart.catalog import read_recipe
from headstart.core.tasks import Task
from headstart.objectives import CrossEntropy
from headstart.training import Network, TrainingConfig, TrainingRows, train
from headstart.training.distributed import World

STEPS, BATCH = 12, 9  # nine rows for two processes: unequal parts


class Points:
    """Points of three classes, without views of their own."""

    num_views = 1

    def __init__(self, num_rows: int, seed: int, shift: float = 0.0) -> None:
        random = np.random.default_rng(seed)
        self.labels = random.integers(0, 3, num_rows)
        centres = np.array([[2.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]])
        self.values = (centres[self.labels] + random.normal(size=(num_rows, 2)) + shift).astype(np.float32)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Any, draws: Any = None) -> tuple[torch.Tensor, ...]:
        return (torch.from_numpy(self.values[indices]),)

    def close(self) -> None:
        """Nothing is open."""


def learn(name: str) -> dict[str, Any]:
    """Train by the recipe of a name; three source domains, the last of which has few rows."""
    source, target = Points(40, 0), Points(30, 1, shift=1.0)
    domains = np.where(np.arange(40) < 18, 0, np.where(np.arange(40) < 36, 1, 2))
    torch.manual_seed(2)
    body = {"features": nn.Sequential(nn.Linear(2, 8), nn.Tanh())}
    recipe = read_recipe(name)(lambda head: CrossEntropy(head=head))
    network = Network(body, {head: nn.Linear(8, 3) for head in recipe.heads})
    if name == "flexmatch":  # sure of some rows from the start
        with torch.no_grad():
            network.heads["main"].weight.mul_(6)
    steps_an_epoch = -(-len(source) // BATCH)
    config = TrainingConfig(
        batch_size=BATCH,
        max_epochs=-(-STEPS // steps_an_epoch),
        optimiser="sgd",
        learning_rate=0.01,
        precision="fp32",
        ema=recipe.settings.get("ema", 0.0),
    )
    history = train(
        network,
        Task("classification", ("a", "b", "c")),
        TrainingRows(source, source.labels, None, domains),
        None,
        config,
        unlabelled=TrainingRows(target, None),
        phases=recipe.phases,
    )
    memory = {
        f"{type(term).__name__}.{key}": value.double().tolist()
        for term in recipe.objectives
        for key, value in term.state_dict().items()
    }
    weights = {key: value.tolist() for key, value in network.state_dict().items()}
    return {"losses": history.train_loss, "weights": weights, "memory": memory}


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    with World.joined(timeout_seconds=60) as world:
        found = {name: learn(name) for name in names}
        (folder / f"{world.size}-{world.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
