"""The mathematics that every method is made of, term by term: values against literal twins, and all of it as one joint loss."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headstart.core.errors import ConfigError
from headstart.objectives import (
    Batch,
    Consistency,
    CrossEntropy,
    Distillation,
    DomainDistance,
    Embedding,
    FeatureMapping,
    MultiTask,
    OutputMapping,
    Setup,
    SquaredError,
    joint_loss,
)

RANDOM = np.random.default_rng(9)
LOGITS, BASE, TEACHER = (RANDOM.normal(size=(5, 3)) for _ in range(3))
FEATURES, BASE_FEATURES = RANDOM.normal(size=(5, 4)), RANDOM.normal(size=(5, 4))
LABELS = np.array([0, 2, 1, 1, 0])


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)


def softmax(row: np.ndarray) -> np.ndarray:
    return np.array([math.exp(value) for value in row]) / sum(math.exp(value) for value in row)


def kl(first: np.ndarray, second: np.ndarray) -> float:
    rows = [(softmax(p), softmax(q)) for p, q in zip(first, second, strict=True)]
    return float(np.mean([sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) for p, q in rows]))


def batch(**fields: Any) -> Batch:
    return Batch(
        labels=tensor(LABELS),
        features=tensor(FEATURES),
        logits=tensor(LOGITS),
        head_logits={"main": tensor(LOGITS), "source": tensor(LOGITS)},
        base_logits=tensor(BASE),
        base_features=tensor(BASE_FEATURES),
        teacher_logits=tensor(TEACHER),
        **fields,
    )


@pytest.mark.parametrize("rows", ["source", "target"])
@pytest.mark.parametrize("head", ["source", "main"])
def test_the_transfer_loss_in_either_direction_is_distillation_at_temperature_1(rows: Any, head: str) -> None:
    alpha = 0.7
    forward = Distillation(temperature=1.0, head=head, rows=rows, weight=alpha)
    reverse = Distillation(temperature=1.0, direction="reverse", head=head, rows=rows, weight=alpha)
    assert forward(batch(), batch()).item() == pytest.approx(alpha * kl(BASE, LOGITS), rel=1e-12)  # KL(q_source || p)
    assert reverse(batch(), batch()).item() == pytest.approx(alpha * kl(LOGITS, BASE), rel=1e-12)


def test_consistency_is_the_divergence_from_the_averaged_network_or_from_the_base_model() -> None:
    assert Consistency("kl", rows="target")(batch(), batch()).item() == pytest.approx(kl(LOGITS, TEACHER), rel=1e-12)
    frozen = Distillation(temperature=1.0, direction="reverse")
    assert frozen(batch()).item() == pytest.approx(kl(LOGITS, BASE), rel=1e-12)


def test_feature_mapping_on_features_through_a_learned_map_and_on_softmax_outputs() -> None:
    squared = np.mean([((f - g) ** 2).sum() for f, g in zip(FEATURES, BASE_FEATURES, strict=True)])
    assert FeatureMapping()(batch()).item() == pytest.approx(squared, rel=1e-12)
    narrow = batch()
    narrow.base_features = tensor(BASE_FEATURES[:, :2])
    mapped = FeatureMapping(width=4, base_width=2).double()
    weight = mapped.mapping.weight.detach().numpy()
    gaps = [((weight @ f - g[:2]) ** 2).sum() for f, g in zip(FEATURES, BASE_FEATURES, strict=True)]
    assert mapped(narrow).item() == pytest.approx(np.mean(gaps), rel=1e-9)
    outputs = [((softmax(p) - softmax(q)) ** 2).sum() for p, q in zip(LOGITS, BASE, strict=True)]
    assert OutputMapping()(batch()).item() == pytest.approx(np.mean(outputs), rel=1e-12)


def test_the_joint_loss_is_the_weighted_sum_of_any_number_of_terms() -> None:
    terms = [
        CrossEntropy(),
        Distillation(temperature=1.0, weight=0.3),
        Embedding(weight=0.2),
        FeatureMapping(weight=0.5),
        Consistency("kl", rows="target", weight=0.4),
        DomainDistance("coral", weight=2.0),
    ]
    target = batch()
    target.features = tensor(2 * FEATURES)
    gap = 3 * np.cov(FEATURES.T)  # covariances of the rows and of twice the rows
    expected = (
        np.mean([-math.log(softmax(row)[label]) for row, label in zip(LOGITS, LABELS, strict=True)])
        + 0.3 * kl(BASE, LOGITS)
        + Embedding(weight=0.2)(batch(), target).item()
        + 0.5 * np.mean(((FEATURES - BASE_FEATURES) ** 2).sum(1))
        + 0.4 * kl(LOGITS, TEACHER)
        + 2.0 * (gap**2).sum() / (4 * 4**2)
    )
    assert joint_loss(terms, batch(), target).item() == pytest.approx(expected, rel=1e-9)


# two tasks


def two_tasks() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Module()
    network.segments = nn.ModuleList([nn.Linear(2, 3), nn.Linear(3, 3)])
    network.heads = nn.ModuleDict({"source": nn.Linear(3, 2), "main": nn.Linear(3, 3), "other": nn.Linear(3, 1)})
    return network.double()


def streams(network: nn.Module) -> tuple[Batch, Batch]:
    random = np.random.default_rng(3)

    def run(inputs: np.ndarray, labels: np.ndarray) -> Batch:
        features = network.segments[1](network.segments[0](tensor(inputs)))
        logits = {name: head(features) for name, head in network.heads.items()}
        return Batch(labels=tensor(labels), logits=logits["main"], head_logits=logits)

    return (
        run(random.normal(size=(4, 2)), np.array([0, 1, 1, 0])),
        run(random.normal(size=(6, 2)), np.array([2, 0, 1, 1, 0, 2])),
    )


def twin_two_tasks(network: nn.Module, start: nn.Module, balance: float, alpha: float, beta: float) -> float:
    source, target = streams(network)
    losses = []
    for logits, labels in ((source.head_logits["source"], source.labels), (target.logits, target.labels)):
        rows = zip(logits.detach().numpy(), labels.numpy(), strict=True)
        losses.append(np.mean([-math.log(softmax(row)[label]) for row, label in rows]))
    moved = sum(
        ((now - then) ** 2).sum().item()
        for now, then in zip(network.segments.parameters(), start.segments.parameters(), strict=True)
    )
    heads = [*network.heads["source"].parameters(), *network.heads["main"].parameters()]
    grown = sum((parameter**2).sum().item() for parameter in heads)
    return 2 * (1 - balance) * losses[0] + 2 * balance * losses[1] + alpha / 2 * moved + beta / 2 * grown


@pytest.mark.parametrize(("balance", "alpha", "beta"), [(0.5, 0.1, 0.01), (0.2, 0.0, 1.0), (1.0, 2.0, 0.0)])
def test_multi_task_is_its_four_parts_each_on_its_own_rows(balance: float, alpha: float, beta: float) -> None:
    network = two_tasks()
    start = copy.deepcopy(network)
    objective = MultiTask(balance=balance, alpha=alpha, beta=beta, weight=3.0)
    objective.prepare(Setup(network, task=None))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3)
    value = objective(*streams(network))
    assert value.item() == pytest.approx(3 * twin_two_tasks(network, start, balance, alpha, beta), rel=1e-9)
    value.backward()
    assert all(parameter.grad is None for parameter in network.heads["other"].parameters())
    for head, share in (("source", 1 - balance), ("main", balance)):
        moved = any(parameter.grad.abs().sum() > 0 for parameter in network.heads[head].parameters())
        assert moved == (share > 0 or beta > 0)


def test_a_task_of_numbers_beside_one_of_classes() -> None:
    network = two_tasks()
    objective = MultiTask(target_head="other", target_loss="squared-error", alpha=0.0, beta=0.0)
    objective.prepare(Setup(network, task=None))  # type: ignore[arg-type]
    source, target = streams(network)
    target.labels = torch.linspace(0, 1, 6, dtype=torch.float64)
    apart = CrossEntropy(head="source")(source) + SquaredError(head="other")(target)
    assert objective(source, target).item() == pytest.approx(apart.item())


def test_multi_task_refuses_what_it_cannot_do() -> None:
    network = two_tasks()
    source, target = streams(network)
    with pytest.raises(ConfigError, match="call prepare"):
        MultiTask()(source, target)
    with pytest.raises(ConfigError, match=r"no head 'sourse'.*Did you mean 'source'"):
        MultiTask("sourse").prepare(Setup(network, task=None))  # type: ignore[arg-type]
    objective = MultiTask()
    objective.prepare(Setup(network, task=None))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="needs a second stream"):
        objective(source)
    target.labels = None
    with pytest.raises(ConfigError, match="needs labels of the batch"):
        objective(source, target)
    with pytest.raises(ConfigError, match="a head for each task"):
        MultiTask("main", "main")
    with pytest.raises(ConfigError, match="balance lies between 0 and 1"):
        MultiTask(balance=1.5)
    with pytest.raises(ConfigError, match="source_loss is one of"):
        MultiTask(source_loss="hinge")  # type: ignore[arg-type]
