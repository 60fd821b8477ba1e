"""Co-tuning: both ways to learn how classes relate, and the loss."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from headstart.core.errors import ConfigError, ShapeError
from headstart.core.tasks import Task
from headstart.objectives import Batch, CoTuning, cross_entropy, direct_relationship, reverse_relationship

RANDOM = np.random.default_rng(5)


def test_the_direct_way_is_the_mean_answer_of_each_class() -> None:
    probabilities, targets = RANDOM.dirichlet(np.ones(4), size=9), np.array([0, 1, 1, 3, 0, 1, 3, 3, 0])
    found = direct_relationship(probabilities, targets, 5)
    for number in range(5):
        rows = [row for row, target in zip(probabilities, targets, strict=True) if target == number] or list(
            probabilities
        )
        assert np.allclose(found[number], sum(rows) / len(rows))


def drawn(num_rows: int, relation: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose source class is drawn from p(y_s | y_t), with the base model rather sure of it."""
    random = np.random.default_rng(seed)
    targets = random.integers(len(relation), size=num_rows)
    source = np.array([random.choice(relation.shape[1], p=relation[target]) for target in targets])
    return softmax(
        4 * np.eye(relation.shape[1])[source] + random.normal(size=(num_rows, relation.shape[1])), axis=1
    ), targets


@pytest.mark.parametrize("relation", [np.array([[0.7, 0.3, 0, 0], [0, 0.2, 0.8, 0], [0, 0, 0, 1]]), np.eye(2)[[1, 0]]])
def test_the_reverse_way_finds_the_relation_that_made_the_rows(relation: np.ndarray) -> None:
    probabilities, targets = drawn(1500, relation)
    found = reverse_relationship(probabilities, targets, len(relation))
    assert np.allclose(found, relation, atol=0.12)
    assert np.array_equal(found, reverse_relationship(probabilities, targets, len(relation)))


def test_the_reverse_way_is_bayes_rule_with_the_mean_answer() -> None:
    """With answers that tell nothing, p(y_t | y_s) is even and what remains is p(y_s)."""
    probabilities = np.tile([0.5, 0.3, 0.2], (20, 1))
    found = reverse_relationship(probabilities, np.arange(20) % 2, 2)
    assert np.allclose(found, [[0.5, 0.3, 0.2]] * 2, atol=0.02)


@pytest.mark.golden
@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32 - 1))
@example(626)  # a class whose probability underflows under every source class
def test_relations_are_distributions_whatever_the_rows(seed: int) -> None:
    random = np.random.default_rng(seed)
    probabilities, targets = random.dirichlet(np.ones(4), size=7), random.integers(3, size=7)
    for found in (direct_relationship(probabilities, targets, 4), reverse_relationship(probabilities, targets, 4)):
        assert found.shape == (4, 4)
        assert (found >= 0).all()
        assert np.allclose(found.sum(1), 1)
        assert np.allclose(found[3], probabilities.mean(0))  # no row of this class
    order = random.permutation(7)
    assert np.allclose(
        direct_relationship(probabilities[order], targets[order], 4), direct_relationship(probabilities, targets, 4)
    )


def test_the_loss_is_its_formula(world: Any) -> None:
    objective = CoTuning(temperature=2.0, weight=0.5)
    setup = world.setup()
    objective.prepare(setup)
    answers = softmax(setup.base_logits().astype(np.float64) / 2.0, axis=1)
    relation = direct_relationship(answers, setup.targets, 3)
    assert np.allclose(objective.relation_ts.numpy(), relation, atol=1e-6)
    batch = world.batch()
    logits = batch.head_logits["source"].detach().double().numpy()
    total = 0.0
    for row, label in zip(logits, world.labels.tolist(), strict=True):
        normaliser = math.log(sum(math.exp(value) for value in row))
        total -= sum(relation[label][s] * (row[s] - normaliser) for s in range(4))
    assert objective(batch).item() == pytest.approx(0.5 * total / 8, rel=1e-5)
    soft = torch.tensor([[0.25, 0.75, 0.0]] * 8)
    mixed = replace(batch, labels=soft)
    expected = cross_entropy(batch.head_logits["source"], soft @ objective.relation_ts)
    assert torch.allclose(objective(mixed), 0.5 * expected)


def test_the_method_is_used_and_its_result_saved(world: Any) -> None:
    direct, reverse = CoTuning(), CoTuning("reverse")
    for objective in (direct, reverse):
        objective.prepare(world.setup())
    assert not torch.allclose(direct.relation_ts, reverse.relation_ts, atol=1e-3)
    setup = world.setup()
    twin = reverse_relationship(softmax(setup.base_logits().astype(np.float64), axis=1), setup.targets, 3)
    assert np.allclose(reverse.relation_ts.numpy(), twin, atol=1e-6)
    assert list(reverse.state_dict()) == ["relation_ts"]


def test_what_co_tuning_needs_is_said(world: Any) -> None:
    setup = world.setup()
    with pytest.raises(ConfigError, match="call prepare"):
        CoTuning()(world.batch())
    with pytest.raises(ConfigError, match="still has the head"):
        CoTuning().prepare(replace(setup, base_logits=None))
    with pytest.raises(ConfigError, match="classification task"):
        CoTuning().prepare(replace(setup, task=Task("regression")))
    with pytest.raises(ConfigError, match="method is one of direct, reverse"):
        CoTuning("bayes")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="temperature is above 0"):
        CoTuning(temperature=0)
    probabilities = np.full((3, 2), 0.5)
    for relation in (direct_relationship, reverse_relationship):
        with pytest.raises(ShapeError, match=r"class numbers in 0\.\.1"):
            relation(probabilities, np.array([0, 1, 2]), 2)
        with pytest.raises(ShapeError, match="3 rows but targets has 2"):
            relation(probabilities, np.array([0, 1]), 2)
    objective = CoTuning()
    objective.prepare(setup)
    with pytest.raises(ConfigError, match=r"head_logits\['source'\]"):
        objective(Batch(labels=world.labels, head_logits={"main": torch.zeros(8, 3)}))
