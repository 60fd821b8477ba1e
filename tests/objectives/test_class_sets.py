"""Objectives for classes that differ between domains against literal twins: neighbourhoods, entropies, weights of classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from headstart.core.errors import ConfigError
from headstart.core.tasks import Task
from headstart.objectives import (
    Batch,
    ClassWeightedCrossEntropy,
    EntropySeparation,
    NeighbourhoodClustering,
    Setup,
    class_weighted_cross_entropy,
    class_weights_of,
    cross_entropy,
    entropy_separation,
    neighbourhood_entropy,
)

RANDOM = np.random.default_rng(8)
FEATURES, ROWS = RANDOM.normal(size=(3, 4)), np.array([5, 0, 2])
MEMORY = RANDOM.normal(size=(7, 4))
MEMORY /= np.linalg.norm(MEMORY, axis=1, keepdims=True)
CLASSES = RANDOM.normal(size=(2, 4)) * 3


def twin_entropy(values: list[float]) -> float:
    largest = max(values)
    exponentials = [math.exp(value - largest) for value in values]
    shares = [value / sum(exponentials) for value in exponentials]
    return -sum(share * math.log(share) for share in shares if share > 0)


def twin_neighbours(features: np.ndarray, temperature: float) -> float:
    memory, total = MEMORY.copy(), 0.0
    for row, place in zip(features, ROWS, strict=True):
        memory[place] = row / np.linalg.norm(row)
    classes = [row / np.linalg.norm(row) for row in CLASSES]
    for place in ROWS:
        others = [memory[j] for j in range(7) if j != place]
        total += twin_entropy([float(memory[place] @ other) / temperature for other in [*others, *classes]])
    return total / len(features)


def neighbours(features: torch.Tensor, temperature: float, classes: torch.Tensor | None = None) -> torch.Tensor:
    prototypes = torch.from_numpy(CLASSES) if classes is None else classes
    return neighbourhood_entropy(features, torch.from_numpy(ROWS), torch.from_numpy(MEMORY), prototypes, temperature)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_neighbourhoods_are_the_formula_and_its_gradient(temperature: float) -> None:
    inputs = torch.from_numpy(FEATURES).requires_grad_()
    value = neighbours(inputs, temperature)
    assert value.item() == pytest.approx(twin_neighbours(FEATURES, temperature))
    value.backward()
    for place in np.ndindex(FEATURES.shape):
        step = np.zeros_like(FEATURES)
        step[place] = 1e-6
        slope = (twin_neighbours(FEATURES + step, temperature) - twin_neighbours(FEATURES - step, temperature)) / 2e-6
        assert inputs.grad[place].item() == pytest.approx(slope, abs=1e-5)
    classes = torch.from_numpy(CLASSES).requires_grad_()
    assert torch.autograd.gradcheck(lambda f, c: neighbours(f, 1.0, c), (inputs, classes))


def test_neighbourhoods_do_not_see_lengths() -> None:
    longer = torch.from_numpy(FEATURES * np.array([[0.1], [3.0], [20.0]]))
    scaled = neighbours(longer, 0.2, torch.from_numpy(7 * CLASSES))
    assert torch.allclose(neighbours(torch.from_numpy(FEATURES), 0.2), scaled)


def test_clustering_remembers_rows_as_they_were_in_the_step(world: Any) -> None:
    term = NeighbourhoodClustering(weight=1.0)
    with pytest.raises(ConfigError, match="call prepare"):
        term(Batch(), world.batch(target=True))
    term.prepare(world.setup())
    features = torch.from_numpy(world.outputs(world.others)[0])
    assert torch.allclose(term.memory, nn.functional.normalize(features))
    batch = world.batch(target=True)
    part = Batch(features=batch.features[:2], rows=torch.tensor([4, 1]))
    value = term(Batch(), part)
    expected = neighbourhood_entropy(
        part.features, part.rows, nn.functional.normalize(features), world.network.heads["main"].weight
    )
    assert torch.allclose(value, expected)
    assert term(Batch(), part) == value  # nothing moves before the step is over
    term.after_step()
    assert torch.allclose(term.memory[[4, 1]], nn.functional.normalize(part.features))
    assert torch.allclose(term.memory[0], nn.functional.normalize(features)[0])
    value.backward()
    assert world.network.heads["main"].weight.grad.abs().sum() > 0
    assert not list(term.parameters())
    world.network.heads["main"] = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    with pytest.raises(ConfigError, match="must be one linear layer"):
        term.prepare(world.setup())


@given(st.lists(st.lists(st.floats(-8, 8), min_size=4, max_size=4), min_size=1, max_size=5), st.floats(0, 0.6))
def test_separation_is_its_formula(rows: list[list[float]], margin: float) -> None:
    distances = [abs(twin_entropy(row) - math.log(4) / 2) for row in rows]
    expected = -sum(distance for distance in distances if distance > margin) / len(rows)
    edge = any(abs(distance - margin) < 1e-9 for distance in distances)
    value = entropy_separation(torch.tensor(rows, dtype=torch.float64), margin).item()
    assert edge or value == pytest.approx(expected, abs=1e-9)


def test_separation_leaves_rows_near_the_middle_alone_and_drives_others_away() -> None:
    inputs = torch.tensor([[3.0, 0, 0, 0], [0.3, 0, 0, 0], [2.0, 0.0, 0.0, 0.0]], dtype=torch.float64).requires_grad_()
    entropy = -(inputs.softmax(1) * inputs.log_softmax(1)).sum(1)
    assert (entropy - math.log(4) / 2)[2].abs() > 0.1
    entropy_separation(inputs, margin=0.4).backward()
    assert inputs.grad[0, 0] == 0  # 0.12 nats away
    assert inputs.grad[1, 0] > 0  # towards even shares: against the gradient the first logit falls
    assert torch.autograd.gradcheck(lambda z: entropy_separation(z, 0.1), (inputs,))
    with pytest.raises(ConfigError, match="margin is at least 0"):
        EntropySeparation(margin=-1.0)


def test_weighed_cross_entropy_is_its_formula() -> None:
    logits, labels = RANDOM.normal(size=(6, 3)), RANDOM.integers(3, size=6)
    weights = [1.0, 0.25, 0.0]
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        total += weights[label] * (math.log(sum(math.exp(value) for value in row)) - row[label])
    inputs, given_ = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(labels)
    value = class_weighted_cross_entropy(inputs, given_, torch.tensor(weights))
    assert value.item() == pytest.approx(total / 6)
    assert torch.autograd.gradcheck(
        lambda z: class_weighted_cross_entropy(z, given_, torch.tensor(weights).double()), (inputs,)
    )
    assert torch.allclose(class_weighted_cross_entropy(inputs, given_, torch.ones(3)), cross_entropy(inputs, given_))


def test_classes_count_by_their_share_of_the_answers() -> None:
    term = ClassWeightedCrossEntropy(momentum=0.5)
    with pytest.raises(ConfigError, match="call prepare"):
        term(Batch(), Batch(logits=torch.zeros(1, 3)))
    with pytest.raises(ConfigError, match="this task is regression"):
        term.prepare(Setup(nn.Identity(), Task("regression")))
    term.prepare(Setup(nn.Identity(), Task("classification", ("a", "b", "c"))))
    source = Batch(labels=torch.tensor([0, 2]), logits=torch.zeros(2, 3))
    target = Batch(logits=torch.tensor([[100.0, 0, 0], [0, 100.0, 0]]))
    assert term(source, target).item() == pytest.approx(math.log(3))  # even at the start
    term.after_step()
    assert term.shares.tolist() == pytest.approx([5 / 12, 5 / 12, 1 / 6])
    assert class_weights_of(term.shares).tolist() == pytest.approx([1, 1, 0.4])
    assert term(source, target).item() == pytest.approx(math.log(3) * 1.4 / 2)
