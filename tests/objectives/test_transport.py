"""Deep JDOT and the sliced Wasserstein discrepancy against literal twins."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from headstart.core.errors import ConfigError, ShapeError
from headstart.core.seeds import derive_seed
from headstart.distances.wasserstein import optimal_plan, sphere_directions
from headstart.objectives import SWD, Batch, DeepJDOT, joint_transport_costs, sliced_discrepancy
from headstart.objectives.deep_jdot import least_cost_plan

RANDOM = np.random.default_rng(7)
SOURCE, TARGET, LOGITS = RANDOM.normal(size=(5, 3)), RANDOM.normal(size=(5, 3)), RANDOM.normal(size=(5, 2))
OTHER = RANDOM.normal(size=(5, 2))
LABELS = np.array([0, 1, 1, 0, 1])
S, T, L = (torch.from_numpy(array) for array in (SOURCE, TARGET, LOGITS))


def twin_costs(shares: np.ndarray, feature_cost: float, label_cost: float) -> np.ndarray:
    costs = np.zeros((len(SOURCE), len(TARGET)))
    for i, j in np.ndindex(costs.shape):
        normaliser = math.log(sum(math.exp(value) for value in LOGITS[j]))
        surprise = -sum(share * (value - normaliser) for share, value in zip(shares[i], LOGITS[j], strict=True))
        costs[i, j] = feature_cost * ((SOURCE[i] - TARGET[j]) ** 2).sum() + label_cost * surprise
    return costs


def batches() -> tuple[Batch, Batch]:
    return Batch(labels=torch.from_numpy(LABELS), features=S), Batch(features=T, logits=L)


@pytest.mark.parametrize(("feature_cost", "label_cost"), [(0.001, 0.0001), (1.0, 2.0), (0.0, 1.0), (1.0, 0.0)])
def test_deep_jdot_is_the_least_cost_over_all_assignments(feature_cost: float, label_cost: float) -> None:
    costs = twin_costs(np.eye(2)[LABELS], feature_cost, label_cost)
    value = joint_transport_costs(S, T, torch.eye(2)[LABELS], L, feature_cost=feature_cost, label_cost=label_cost)
    assert np.allclose(value.numpy(), costs, rtol=1e-9)
    best = min(sum(costs[i, j] for i, j in enumerate(order)) / 5 for order in itertools.permutations(range(5)))
    objective = DeepJDOT(feature_cost, label_cost, weight=3.0)
    assert objective(*batches()).item() == pytest.approx(3 * best, rel=1e-9)


def test_soft_labels_cost_by_their_shares() -> None:
    soft = RANDOM.dirichlet(np.ones(2), size=5)
    value = joint_transport_costs(S, T, torch.from_numpy(soft), L, feature_cost=0.5, label_cost=0.7)
    assert np.allclose(value.numpy(), twin_costs(soft, 0.5, 0.7))


def test_the_plan_is_held_constant_and_the_gradient_is_that_of_the_least_cost() -> None:
    features, logits = T.clone().requires_grad_(), L.clone().requires_grad_()
    source, _ = batches()

    def value(rows: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        return DeepJDOT(1.0, 2.0)(source, Batch(features=rows, logits=outputs))

    assert torch.autograd.gradcheck(value, (features, logits))


def test_plans_of_unequal_batches_are_exact_and_have_equal_weights() -> None:
    pytest.importorskip("ot")
    costs = RANDOM.random((4, 6))
    plan = least_cost_plan(costs)
    assert np.allclose(plan.sum(1), 1 / 4)
    assert np.allclose(plan.sum(0), 1 / 6)
    square = RANDOM.random((6, 6))
    assert (least_cost_plan(square) * square).sum() == pytest.approx((optimal_plan("test", square) * square).sum())
    source, _ = batches()
    fewer = DeepJDOT(1.0, 0.0)(source, Batch(features=T[:3], logits=L[:3])).item()
    distances = ((SOURCE[:, None] - TARGET[None, :3]) ** 2).sum(2)
    assert fewer == pytest.approx((optimal_plan("test", distances) * distances).sum())


def test_deep_jdot_refuses_bad_input() -> None:
    with pytest.raises(ConfigError, match="one of them above"):
        DeepJDOT(0.0, 0.0)
    with pytest.raises(ShapeError, match="same classes"):
        joint_transport_costs(S, T, torch.ones(5, 3), L)
    source, target = batches()
    source.labels = torch.ones(5)
    with pytest.raises(ShapeError, match="needs classes as labels"):
        DeepJDOT()(source, target)


# sliced Wasserstein discrepancy


def softmax(rows: np.ndarray) -> np.ndarray:
    return np.exp(rows) / np.exp(rows).sum(1, keepdims=True)


def twin_sliced(first: np.ndarray, second: np.ndarray, directions: np.ndarray) -> float:
    total = 0.0
    for direction in directions.T:
        one = sorted(float(row @ direction) for row in softmax(first))
        other = sorted(float(row @ direction) for row in softmax(second))
        total += sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / len(one)
    return total / directions.shape[1]


def test_the_sliced_discrepancy_is_its_formula() -> None:
    directions = sphere_directions("test", 2, 9, seed=3)
    value = sliced_discrepancy(L, torch.from_numpy(OTHER), num_directions=9, seed=3)
    assert value.item() == pytest.approx(twin_sliced(LOGITS, OTHER, directions), rel=1e-9)
    logits = L.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: sliced_discrepancy(rows, torch.from_numpy(OTHER)), (logits,))


def test_it_compares_clouds_of_answers_on_target_rows_in_new_directions_each_step() -> None:
    target = Batch(logits=L, head_logits={"main": L, "second": torch.from_numpy(OTHER)})
    objective = SWD(num_directions=9, weight=-1.0)
    for step in range(2):
        directions = sphere_directions("test", 2, 9, seed=derive_seed(0, "step", step))
        assert objective(Batch(), target).item() == pytest.approx(-twin_sliced(LOGITS, OTHER, directions), rel=1e-9)
        objective.after_step()
    swapped = Batch(head_logits={"main": L, "second": L.flip(0)})
    assert SWD()(Batch(), swapped).item() == pytest.approx(0.0, abs=1e-15)


def test_heads_that_agree_have_a_finite_gradient() -> None:
    logits = L.clone().requires_grad_()
    sliced_discrepancy(logits, L).backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_swd_refuses_bad_input() -> None:
    with pytest.raises(ConfigError, match="two different heads"):
        SWD("main", "main")
    with pytest.raises(ConfigError, match="num_directions is at least 1"):
        SWD(num_directions=0)
    with pytest.raises(ConfigError, match="needs a second stream"):
        SWD()(Batch(logits=L))
