"""The design, proven: three kinds of method on the same loop, each nothing but objectives, phases and a configuration.

Plain fine-tuning, two classifiers that disagree (Saito et al., CVPR 2018, arXiv:1712.02560), and a mean teacher (Tarvainen &
Valpola, NeurIPS 2017, arXiv:1703.01780), each against what it has to beat.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons
from torch import Tensor, nn

from headstart.backbones import vector_backbone
from headstart.core.tasks import Task
from headstart.data import open_dataset
from headstart.objectives import Batch, CrossEntropy, Objective
from headstart.training import InputRows, Network, Phase, TrainingConfig, TrainingRows, train

TASK = Task("classification", ("inner", "outer"))


class TargetDiscrepancy(Objective):
    """Mean distance between the two heads' probabilities on the target rows."""

    needs = frozenset({"logits"})

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        assert target is not None
        first, second = (target.head_logits[name].softmax(1) for name in ("main", "second"))
        return self.weight * (first - second).abs().mean()


class SquaredConsistency(Objective):
    """Mean squared distance from the teacher's probabilities on the rows without labels."""

    needs = frozenset({"logits", "teacher_logits"})

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        assert target is not None
        ours, theirs = self.take(target, "logits"), self.take(target, "teacher_logits")
        return self.weight * (ours.softmax(1) - theirs.softmax(1)).square().sum(1).mean()


class NoisyRows:
    """Vectors; every look at one but the plain look adds noise drawn from the row's own number."""

    num_views = 1

    def __init__(self, points: np.ndarray, noise: float) -> None:
        self.points, self.noise = points.astype(np.float32), noise

    def __len__(self) -> int:
        return len(self.points)

    def batch(self, indices: np.ndarray, draws: np.ndarray | None = None) -> tuple[Tensor, ...]:
        rows = self.points[indices]
        if draws is not None:
            noise = np.stack([np.random.default_rng(int(draw)).normal(size=rows.shape[1]) for draw in draws])
            rows = rows + (self.noise * noise).astype(np.float32)
        return (torch.from_numpy(rows),)

    def close(self) -> None:
        pass


def moons(num_rows: int, degrees: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    points, labels = make_moons(num_rows, noise=0.08, random_state=seed)
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return ((points - [0.5, 0.25]) @ turn.T).astype(np.float32), labels.astype(np.int64)


def rows(points: np.ndarray, labels: np.ndarray | None, indices: np.ndarray | None = None) -> TrainingRows:
    inputs = InputRows(open_dataset(points, unlabelled=True), vector_backbone(points.shape[1]))
    return TrainingRows(inputs, labels, indices)


def make_network(heads: tuple[str, ...] = ("main",), seed: int = 0) -> Network:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())

    def head() -> nn.Module:
        return nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))

    return Network({"features": body}, {name: head() for name in heads})


def accuracy(network: Network, points: np.ndarray, labels: np.ndarray, heads: tuple[str, ...] = ("main",)) -> float:
    with torch.no_grad():
        logits: Mapping[str, Tensor] = network(torch.from_numpy(points)).head_logits
    return float((sum(logits[name] for name in heads).argmax(1).numpy() == labels).mean())


def test_plain_fine_tuning_is_one_phase() -> None:
    points, labels = moons(300, 0, 0)
    config = TrainingConfig(learning_rate=1e-2, weight_decay=0.0, max_epochs=15, precision="fp32")
    results = []
    for phases in (None, [Phase((CrossEntropy(),))]):
        network = make_network()
        train(
            network,
            TASK,
            rows(points, labels, np.arange(200)),
            rows(points, labels, np.arange(200, 300)),
            config,
            phases=phases,
        )
        results.append(network.state_dict())
        assert accuracy(network, points[200:], labels[200:]) > 0.97
    assert all(torch.equal(tensor, results[1][name]) for name, tensor in results[0].items())


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_two_classifiers_that_disagree_follow_a_rotation(seed: int) -> None:
    points, labels = moons(400, 0, seed)
    turned, hidden = moons(400, 30, 100 + seed)
    both = ("main", "second")
    config = TrainingConfig(
        learning_rate=1e-3,
        weight_decay=0.0,
        batch_size=200,
        max_epochs=200,
        schedule="constant",
        precision="fp32",
        seed=seed,
    )
    errors = (CrossEntropy(head="main"), CrossEntropy(head="second"))

    def fit(phases: list[Phase]) -> float:
        network = make_network(both, seed)
        train(network, TASK, rows(points, labels), None, config, unlabelled=rows(turned, None), phases=phases)
        return accuracy(network, turned, hidden, both)

    source_only = fit([Phase(errors, streams=("source",))])
    adapted = fit(
        [
            Phase(errors, name="learn", streams=("source",)),
            Phase((*errors, TargetDiscrepancy(weight=-1.0)), trains=("heads",), name="disagree"),
            Phase((TargetDiscrepancy(),), trains=("segments",), repeats=3, name="agree", streams=("target",)),
        ]
    )
    assert source_only < 0.85 and adapted > 0.95  # measured: 0.80 and 1.00


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_a_mean_teacher_learns_from_rows_without_labels(seed: int) -> None:
    points, labels = moons(500, 0, seed)
    random = np.random.default_rng(seed)
    few = np.concatenate([random.choice(np.flatnonzero(labels == value), 3, replace=False) for value in (0, 1)])
    inputs = NoisyRows(points, 0.1)
    labelled, others = TrainingRows(inputs, labels, few), TrainingRows(inputs, None)
    config = TrainingConfig(
        learning_rate=3e-3,
        weight_decay=0.0,
        batch_size=100,
        max_epochs=100,
        schedule="constant",
        ema=0.95,
        precision="fp32",
        seed=seed,
    )

    def fit(phases: list[Phase]) -> float:
        network = make_network(seed=seed)
        history = train(network, TASK, labelled, None, config, unlabelled=others, phases=phases)
        assert history.kept == "average"
        return accuracy(network, points, labels)

    alone = fit([Phase((CrossEntropy(),), streams=("source",))])  # the same average, without a teacher's lesson
    taught = fit([Phase((CrossEntropy(), SquaredConsistency(weight=5.0)))])
    assert taught > alone + 0.08  # measured: 0.86 to 0.97, and 0.85 to 1.00
