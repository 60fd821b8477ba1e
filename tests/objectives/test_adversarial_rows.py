"""Virtual adversarial directions against the curvature they follow, minimax entropy's reversal, and two heads that label."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from headstart.core.errors import ConfigError, ShapeError
from headstart.objectives import (
    MME,
    VAT,
    Batch,
    DeepCoTraining,
    Setup,
    adversarial_direction,
    exchanged_labels,
    kl_divergence,
    mean_entropy,
    shared_features,
    virtual_adversarial_loss,
)

RANDOM = np.random.default_rng(31)
WEIGHT, INPUTS = RANDOM.normal(size=(6, 3)), RANDOM.normal(size=(4, 6))
START = RANDOM.normal(size=(4, 6))


def softmax(row: np.ndarray) -> np.ndarray:
    exponentials = [math.exp(value) for value in row]
    return np.array([value / sum(exponentials) for value in exponentials])


def linear(hidden: tuple[Tensor, ...]) -> Tensor:
    return hidden[0] @ torch.from_numpy(WEIGHT).to(hidden[0].dtype)


def directions(xi: float, steps: int) -> np.ndarray:
    inputs, start = torch.from_numpy(INPUTS), torch.from_numpy(START)
    return adversarial_direction(linear((inputs,)), (inputs,), linear, start, xi=xi, num_steps=steps).numpy()


@pytest.mark.golden
def test_one_step_is_the_curvature_times_the_start_and_many_are_its_first_direction() -> None:
    for i, row in enumerate(INPUTS):
        p = softmax(row @ WEIGHT)
        curvature = WEIGHT @ (np.diag(p) - np.outer(p, p)) @ WEIGHT.T  # of the divergence, at no distance
        once = curvature @ START[i]
        np.testing.assert_allclose(directions(1e-5, 1)[i], once / np.linalg.norm(once), atol=1e-4)
        first = np.linalg.eigh(curvature)[1][:, -1]
        assert abs(first @ directions(1e-5, 200)[i]) == pytest.approx(1.0, abs=1e-6)


def test_the_loss_is_the_divergence_at_the_changed_rows() -> None:
    inputs, direction = torch.from_numpy(INPUTS), torch.from_numpy(directions(1e-4, 1))
    value = virtual_adversarial_loss(linear((inputs,)), (inputs,), linear, direction, epsilon=0.5)
    total = 0.0
    for row, change in zip(INPUTS, direction.numpy(), strict=True):
        p, q = softmax(row @ WEIGHT), softmax((row + 0.5 * change) @ WEIGHT)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert value.item() == pytest.approx(total / 4, rel=1e-9)
    random = torch.nn.functional.normalize(torch.from_numpy(START), dim=1)
    assert value > virtual_adversarial_loss(linear((inputs,)), (inputs,), linear, random, epsilon=0.5)


def test_epsilon_and_xi_are_shares_of_the_rows_length_and_masks_pass_through() -> None:
    seen = []

    def run(hidden: tuple[Tensor, ...]) -> Tensor:
        seen.append((hidden[0].detach().double().numpy(), hidden[1]))
        return linear(hidden)

    inputs, mask = torch.from_numpy(INPUTS).float(), torch.ones(4, dtype=torch.int64)
    batch = Batch(logits=linear((inputs,)), hidden=(inputs, mask), run=run)
    value = VAT(epsilon=0.25, xi=0.5, num_steps=2, weight=3.0)(Batch(), batch)
    length = math.sqrt(np.mean(np.sum(INPUTS**2, axis=1)))
    assert [mask is given for _, given in seen] == [True] * 3
    for (rows, _), share in zip(seen, (0.5, 0.5, 0.25), strict=True):
        np.testing.assert_allclose(np.linalg.norm(rows - INPUTS, axis=1), share * length, rtol=1e-5)
    changed = torch.from_numpy(seen[-1][0]).float()
    assert torch.allclose(value, 3 * kl_divergence(batch.logits, linear((changed,))), rtol=1e-4)


def test_statistics_of_normalisation_do_not_move_and_the_network_learns(world: Any) -> None:
    objective = VAT(rows="both")
    objective.prepare(world.setup())
    source, target = world.batch(), world.batch(target=True)
    before = {name: tensor.clone() for name, tensor in world.network.named_buffers()}
    objective(source, target).backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in world.network.named_buffers())
    assert all(layer.track_running_stats for layer in objective._normalisations)
    assert len(objective._normalisations) == 3
    assert world.network.segments[1][0].weight.grad.abs().sum() > 0
    assert world.network.segments[0][0].weight.grad is None


def test_token_numbers_have_no_direction() -> None:
    batch = Batch(logits=torch.zeros(1, 2), hidden=(torch.ones(1, 3, dtype=torch.int64),), run=linear)
    with pytest.raises(ConfigError, match="token numbers"):
        VAT()(Batch(), batch)
    for wrong in ({"epsilon": 0}, {"xi": 0}, {"num_steps": 0}, {"rows": "all"}):
        with pytest.raises(ConfigError):
            VAT(**wrong)  # type: ignore[arg-type]


def test_rows_without_gradient_get_no_direction_and_nothing_breaks() -> None:
    inputs = torch.zeros(2, 6)

    def constant(hidden: tuple[Tensor, ...]) -> Tensor:
        return 0 * hidden[0][:, :3]

    found = adversarial_direction(constant((inputs,)), (inputs,), constant, torch.ones(2, 6), xi=0.1)
    assert torch.equal(found, torch.zeros(2, 6))
    assert VAT()(Batch(), Batch(logits=constant((inputs,)), hidden=(inputs,), run=constant)).item() == 0


# --- minimax entropy


def network_of(*heads: nn.Module) -> nn.Module:
    network = nn.Module()
    network.heads = nn.ModuleDict(dict(zip(("main", "second"), heads, strict=False)))
    network.segments = nn.ModuleList()
    return network


def test_minimax_entropy_pulls_head_and_features_apart() -> None:
    torch.manual_seed(0)
    head = nn.Linear(5, 3).double()
    objective = MME(weight=0.7)
    objective.prepare(Setup(network_of(head), None))  # type: ignore[arg-type]
    features = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    value = objective(Batch(), Batch(features=features))
    plain_features = features.detach().clone().requires_grad_()
    entropy = mean_entropy(head(plain_features))
    assert value.item() == pytest.approx(-0.7 * entropy.item(), rel=1e-12)
    value.backward()
    mine = [parameter.grad.clone() for parameter in head.parameters()]
    head.zero_grad()
    entropy.backward()
    assert torch.allclose(features.grad, 0.7 * plain_features.grad)  # features make the entropy small
    for gradient, parameter in zip(mine, head.parameters(), strict=True):
        assert torch.allclose(gradient, -0.7 * parameter.grad)  # the head makes it large


def test_minimax_entropy_knows_its_head() -> None:
    with pytest.raises(ConfigError, match="needs a head 'other'; there is main"):
        MME(head="other").prepare(Setup(network_of(nn.Linear(1, 2)), None))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="call prepare"):
        MME()(Batch(), Batch(features=torch.ones(1, 1)))
    objective = MME()
    objective.prepare(Setup(network_of(nn.Linear(1, 2)), None))  # type: ignore[arg-type]
    assert list(objective.parameters()) == []
    with pytest.raises(ConfigError, match="second stream"):
        objective(Batch(features=torch.ones(1, 1)))


# --- two heads


def twin_exchange(first: np.ndarray, second: np.ndarray, threshold: float) -> float:
    total = 0.0
    for one, other in zip(first, second, strict=True):
        p, q = softmax(one), softmax(other)
        total -= math.log(q[p.argmax()]) if p.max() >= threshold else 0.0
        total -= math.log(p[q.argmax()]) if q.max() >= threshold else 0.0
    return total / len(first) / 2


def test_heads_label_for_each_other_as_the_formula_says() -> None:
    first, second = RANDOM.normal(size=(8, 3)) * 2, RANDOM.normal(size=(8, 3)) * 2
    pair = torch.from_numpy(first).requires_grad_(), torch.from_numpy(second).requires_grad_()
    value = exchanged_labels(*pair, threshold=0.7)
    assert value.item() == pytest.approx(twin_exchange(first, second, 0.7), rel=1e-9)
    assert 0 < twin_exchange(first, second, 0.7) < twin_exchange(first, second, 0.0)
    assert torch.autograd.gradcheck(lambda a, b: exchanged_labels(a, b, threshold=0.7), pair)
    assert torch.equal(value, exchanged_labels(pair[1], pair[0], threshold=0.7))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_shared_features_are_a_sum_over_features(seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = random.normal(size=(3, 5)), random.normal(size=(4, 5))
    expected = sum(sum(first[c, d] ** 2 for c in range(3)) * sum(second[c, d] ** 2 for c in range(4)) for d in range(5))
    assert shared_features(torch.from_numpy(first), torch.from_numpy(second)).item() == pytest.approx(expected)
    first[:, :2], second[:, 2:] = 0, 0
    assert shared_features(torch.from_numpy(first), torch.from_numpy(second)).item() == 0


def test_co_training_is_the_exchange_and_the_penalty_on_first_layers() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(5, 3), nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    objective = DeepCoTraining(threshold=0.4, difference=0.3, weight=2.0)
    objective.prepare(Setup(network_of(first, second), None))  # type: ignore[arg-type]
    assert list(objective.parameters()) == []
    logits = {"main": torch.randn(6, 3), "second": torch.randn(6, 3)}
    value = objective(Batch(), Batch(head_logits=logits))
    expected = exchanged_labels(*logits.values(), threshold=0.4) + 0.3 * shared_features(first.weight, second[1].weight)
    assert torch.allclose(value, 2 * expected)
    value.backward()
    assert first.weight.grad.abs().sum() > 0 and second[1].weight.grad.abs().sum() > 0


def test_heads_that_cannot_be_kept_apart_are_refused() -> None:
    for second in (nn.LayerNorm(5), nn.Identity()):
        with pytest.raises(ConfigError, match="begins with a linear layer"):
            DeepCoTraining().prepare(Setup(network_of(nn.Linear(5, 3), second), None))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="needs a head 'second'"):
        DeepCoTraining().prepare(Setup(network_of(nn.Linear(5, 3)), None))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="two different heads"):
        DeepCoTraining(second="main")
    for wrong in ({"threshold": 2}, {"difference": -1}):
        with pytest.raises(ConfigError):
            DeepCoTraining(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="call prepare"):
        DeepCoTraining()(Batch(), Batch())
    with pytest.raises(ShapeError, match="same features"):
        shared_features(torch.zeros(2, 3), torch.zeros(2, 4))
