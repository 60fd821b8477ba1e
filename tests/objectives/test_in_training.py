"""Objectives in the training loop: each trains, goes on bit for bit after a stop, and does what it is for."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headstart.catalog import Entry, entries
from headstart.core.tasks import Task
from headstart.objectives import (
    BSS,
    DELTA,
    L2SP,
    CrossEntropy,
    LwF,
    Objective,
    batch_spectral_shrinkage,
    feature_map_distance,
    kl_divergence,
    supervised_objective,
)
from headstart.training import Network, Phase, TrainingConfig, TrainingRows, train
from headstart.training.loop import Run

CLASSES = ("a", "b", "c")
KINDS = {"binary-cross-entropy": "multilabel", "squared-error": "regression"}
CONFIG = TrainingConfig(max_epochs=2, batch_size=8, learning_rate=1e-2, weight_decay=0.0, precision="fp32", threads=1)


class Pictures:
    """Small pictures; every look but the plain one adds noise from the row's own number."""

    num_views = 1

    def __init__(self, num_rows: int, seed: int) -> None:
        self.pixels = np.random.default_rng(seed).normal(size=(num_rows, 1, 4, 4)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, indices: np.ndarray, draws: np.ndarray | None = None) -> tuple[torch.Tensor, ...]:
        rows = self.pixels[indices]
        if draws is not None:
            noise = np.stack([np.random.default_rng(int(draw)).normal(size=rows.shape[1:]) for draw in draws])
            rows = rows + (0.1 * noise).astype(np.float32)
        return (torch.from_numpy(rows),)

    def close(self) -> None:
        pass


def labelled(kind: str) -> TrainingRows:
    inputs = Pictures(24, 0)
    means = inputs.pixels.mean((1, 2, 3))
    classes = np.digitize(means, np.quantile(means, [1 / 3, 2 / 3]))
    targets: Any = {
        "classification": classes.astype(np.int64),
        "multilabel": np.eye(3)[classes].astype(np.int64),
        "regression": means.astype(np.float64),
    }[kind]
    return TrainingRows(inputs, targets)


def task_of(kind: str) -> Task:
    return Task(kind, () if kind == "regression" else CLASSES)  # type: ignore[arg-type]


def make_network(world: Any, kind: str = "classification") -> tuple[Network, nn.Linear]:
    """Return the world's network as the loop takes it, and the base model's own head."""
    small = copy.deepcopy(world.base).train()
    with torch.no_grad():
        for _ in range(50):  # moving statistics as a trained base model has them
            small(torch.from_numpy(Pictures(24, 0).pixels))
    torch.manual_seed(0)
    outputs = task_of(kind).num_outputs
    heads = {
        "main": nn.Linear(5, outputs),
        "second": nn.Linear(5, outputs),
        "source": copy.deepcopy(small.heads["source"]),
    }
    network = Network(dict(zip(small.names, small.segments, strict=True)), heads, num_frozen=1)
    return network, copy.deepcopy(small.heads["source"])


def make_run(entry: Entry, world: Any) -> Run:
    kind = KINDS.get(entry.name, "classification")
    task = task_of(kind)
    network, source_head = make_network(world, kind)
    objective: Objective = entry.load()()
    objectives = (objective,) if entry.name in {*KINDS, "cross-entropy"} else (supervised_objective(task), objective)
    return Run(
        network,
        task,
        labelled(kind),
        None,
        CONFIG,
        unlabelled=TrainingRows(Pictures(16, 1), np.arange(16) % 3 if entry.name == "multi-task" else None),
        phases=[Phase(objectives)],
        source_head=source_head,
    )


def tensors(run: Run) -> Iterator[tuple[str, torch.Tensor]]:
    yield from run.network.state_dict().items()
    for number, objective in enumerate(run.objectives):
        yield from ((f"{number}.{name}", tensor) for name, tensor in objective.state_dict().items())


@pytest.mark.golden
@pytest.mark.parametrize("entry", entries("objective"), ids=lambda entry: entry.name)
def test_it_trains_and_goes_on_bit_for_bit_after_a_stop(entry: Entry, make_world: Any) -> None:
    whole, stopped, resumed = (make_run(entry, make_world()) for _ in range(3))
    with whole.random_numbers():
        while whole.ended() is None:
            whole.step()
    with stopped.random_numbers():
        for _ in range(2):
            stopped.step()
        state = stopped.state()
    with resumed.random_numbers():
        resumed.restore(*state)
        while resumed.ended() is None:
            resumed.step()
    assert whole.done == 6
    first = dict(tensors(whole))
    assert all(torch.isfinite(tensor).all() for tensor in first.values())
    assert all(torch.equal(first[name], tensor) for name, tensor in tensors(resumed))
    whole.finish()


def fitted(world: Any, *objectives: Objective, **options: Any) -> tuple[Network, Network]:
    """Return a network that was trained with some objectives beside the cross-entropy, and as it was before."""
    network, source_head = make_network(world)
    before = copy.deepcopy(network).eval()
    config = TrainingConfig(**{**CONFIG.__dict__, "max_epochs": 30, **options})
    train(
        network,
        task_of("classification"),
        labelled("classification"),
        None,
        config,
        phases=[Phase((CrossEntropy(), *objectives))],
        source_head=source_head,
    )
    return network, before


@pytest.mark.golden
def test_each_regulariser_lessens_what_it_is_against(make_world: Any) -> None:
    pixels = torch.from_numpy(labelled("classification").inputs.pixels)

    def moved(network: Network, before: Network) -> float:
        pairs = zip(network.segments.parameters(), before.segments.parameters(), strict=True)
        return float(sum((one - other).square().sum() for one, other in pairs))

    def strayed(network: Network, before: Network) -> float:
        one, other = network(pixels, activations=True), before(pixels, activations=True)
        return sum(
            float(feature_map_distance(one.activations[n], other.activations[n])) for n in ("middle", "features")
        )

    def forgot(network: Network, before: Network) -> float:
        return float(kl_divergence(before(pixels).head_logits["source"], network(pixels).head_logits["source"]))

    def spread(network: Network, before: Network) -> float:
        return float(batch_spectral_shrinkage(network(pixels).features))

    cases = [
        (L2SP(alpha=1.0), moved),
        (DELTA(alpha=1.0), strayed),
        (LwF(weight=10.0), forgot),
        (BSS(weight=0.1), spread),
    ]
    plain = fitted(make_world())
    for objective, measure in cases:
        held = fitted(make_world(), objective)
        with torch.no_grad():
            assert measure(*held) < 0.5 * measure(*plain), type(objective).__name__
