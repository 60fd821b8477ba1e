"""The training loop: it learns what a linear model cannot, keeps the best weights, and keeps to its budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from headstart.backbones import vector_backbone
from headstart.core.tasks import Task
from headstart.data import open_dataset
from headstart.training import InputRows, Network, TrainingConfig, TrainingRows, train

TASK = Task("classification", ("same", "different"))


def _xor(num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    points = np.random.default_rng(seed).uniform(-1, 1, (num_rows, 2)).astype(np.float32)
    return points, (points[:, 0] * points[:, 1] < 0).astype(np.int64)


def _rows(points: np.ndarray, targets: np.ndarray, first: int, last: int) -> TrainingRows:
    inputs = InputRows(open_dataset(points), vector_backbone(points.shape[1]))
    return TrainingRows(inputs, targets, np.arange(first, last))


def _network(outputs: int = 2) -> Network:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(2, 32), nn.ReLU())
    return Network({"features": body}, {"main": nn.Linear(32, outputs)})


@pytest.mark.golden
def test_it_learns_what_no_linear_model_can() -> None:
    points, targets = _xor(600, 0)
    config = TrainingConfig(cpu_seconds=20, learning_rate=1e-2, max_epochs=30)
    history = train(_network(), TASK, _rows(points, targets, 0, 500), _rows(points, targets, 500, 600), config)
    assert history.validation_measure[history.best] > 0.93  # majority and linear models stay near 0.5
    assert history.validation_loss[history.best] == min(history.validation_loss)
    assert len(history.train_loss) == len(history.validation_loss) == len(history.train_measure)
    assert history.stopped == "epochs" and history.epochs == pytest.approx(30)


def test_the_best_validated_weights_are_kept() -> None:
    points, targets = _xor(300, 1)
    validation = _rows(points, targets, 200, 300)
    network = _network()
    config = TrainingConfig(cpu_seconds=20, learning_rate=0.3, max_epochs=12)
    history = train(network, TASK, _rows(points, targets, 0, 200), validation, config)
    with torch.no_grad():
        loss = nn.functional.cross_entropy(
            network(torch.from_numpy(points[200:])).logits, torch.from_numpy(targets[200:])
        )
    assert not network.training
    assert float(loss) == pytest.approx(min(history.validation_loss), rel=1e-5)


@pytest.mark.parametrize("budget", ["cpu_seconds", "wall_seconds"])
def test_a_spent_budget_ends_the_run_after_the_step_that_spent_it(budget: str) -> None:
    points, targets = _xor(64, 0)
    config = replace(TrainingConfig(max_epochs=50), **{budget: 1e-6})
    history = train(_network(), TASK, _rows(points, targets, 0, 48), _rows(points, targets, 48, 64), config)
    assert (history.stopped, history.steps) == ("budget", 1)
    assert len(history.validation_loss) == 1


def test_patience_ends_a_run_that_no_longer_gets_better() -> None:
    points, _ = _xor(64, 0)
    noise = np.random.default_rng(0).integers(0, 2, 64)
    config = TrainingConfig(cpu_seconds=60, learning_rate=0.05, max_epochs=200, patience=3)
    history = train(_network(), TASK, _rows(points, noise, 0, 48), _rows(points, noise, 48, 64), config)
    assert history.stopped == "patience"
    assert len(history.validation_loss) - 1 - history.best == 3


def test_the_same_seed_gives_the_same_weights() -> None:
    points, targets = _xor(64, 0)
    results = []
    for _ in range(2):
        network = _network()
        config = TrainingConfig(cpu_seconds=1e9, max_epochs=3)
        train(network, TASK, _rows(points, targets, 0, 48), _rows(points, targets, 48, 64), config)
        results.append(torch.cat([p.flatten() for p in network.parameters()]))
    assert torch.equal(results[0], results[1])


@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_other_tasks_have_their_own_loss(kind: str) -> None:
    points, _ = _xor(400, 2)
    if kind == "regression":
        task, targets, outputs = Task("regression"), (points[:, 0] - 2 * points[:, 1]).astype(np.float64), 1
    else:
        task, outputs = Task("multilabel", ("right", "up")), 2
        targets = (points > 0).astype(np.uint8)
    config = TrainingConfig(cpu_seconds=20, learning_rate=1e-2, max_epochs=25)
    history = train(_network(outputs), task, _rows(points, targets, 0, 300), _rows(points, targets, 300, 400), config)
    assert history.validation_measure[history.best] > 0.95
