"""Penalties on weights and maps: L2-SP, DELTA, BSS."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from headstart.core.errors import ConfigError, ShapeError
from headstart.objectives import (
    BSS,
    DELTA,
    L2SP,
    Batch,
    batch_spectral_shrinkage,
    channel_increases,
    channel_weights,
    cross_entropy,
    feature_map_distance,
    l2_sp_penalty,
    probe_channels,
    squared_error,
)

RANDOM = np.random.default_rng(3)


# --- L2-SP


def test_l2_sp_is_its_formula() -> None:
    shapes = [(2, 3), (4,)]
    weights, starts = [RANDOM.normal(size=s) for s in shapes], [RANDOM.normal(size=s) for s in shapes]
    new = [RANDOM.normal(size=(3,))]
    moved = sum(
        (w - s) ** 2 for a, b in zip(weights, starts, strict=True) for w, s in zip(a.ravel(), b.ravel(), strict=True)
    )
    twin = 0.3 / 2 * moved + 0.7 / 2 * sum(v**2 for v in new[0])
    tensors = [[torch.from_numpy(array) for array in arrays] for arrays in (weights, starts, new)]
    assert l2_sp_penalty(*tensors, alpha=0.3, beta=0.7).item() == pytest.approx(twin, rel=1e-12)
    leaf = tensors[0][0].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: l2_sp_penalty([w], tensors[1][:1], [w]), (leaf,))
    assert l2_sp_penalty(tensors[1], tensors[1], []).item() == 0.0
    with pytest.raises(ShapeError, match="one shape"):
        l2_sp_penalty(tensors[0], tensors[1][::-1], [])
    assert l2_sp_penalty([torch.tensor([300.0]).half()], [torch.zeros(1).half()], [], alpha=2.0).item() == 90000.0


def test_l2_sp_watches_what_trains_and_pulls_new_heads_to_zero(world: Any) -> None:
    objective = L2SP(alpha=0.3, beta=0.7)
    objective.prepare(world.setup())
    network = world.network
    heads = sum(p.detach().double().square().sum() for n in ("main", "second") for p in network.heads[n].parameters())
    assert objective(Batch()).item() == pytest.approx(0.35 * heads.item(), rel=1e-6)  # at the start nothing has moved
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    heads = sum(p.detach().double().square().sum() for n in ("main", "second") for p in network.heads[n].parameters())
    shared = [*network.segments[1:].parameters(), *network.heads["source"].parameters()]  # the stem is frozen
    count = sum(parameter.numel() for parameter in shared)
    value = objective(Batch())
    assert value.item() == pytest.approx(0.15 * count + 0.35 * heads.item(), rel=1e-5)
    value.backward()
    assert torch.allclose(network.segments[1][0].weight.grad, torch.full_like(network.segments[1][0].weight, 0.3))
    assert network.segments[0][0].weight.grad is None


def test_l2_sp_keeps_starting_weights_as_buffers_and_owns_no_parameter(world: Any, make_world: Any) -> None:
    objective = L2SP()
    objective.prepare(world.setup())
    assert not list(objective.parameters())
    state = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    with torch.no_grad():
        world.network.segments[1][0].weight += 1
    value = objective(Batch()).item()
    assert all(torch.equal(state[name], tensor) for name, tensor in objective.state_dict().items())  # copies, not views
    resumed = L2SP()  # a killed run: prepared on moved weights, then given back its buffers
    resumed.prepare(world.setup())
    assert resumed(Batch()).item() != pytest.approx(value)
    resumed.load_state_dict(state)
    assert resumed(Batch()).item() == value
    resumed.prepare(make_world().setup())
    assert len(resumed.state_dict()) == len(state)


def test_l2_sp_lets_what_rests_cost_nothing_and_says_when_it_was_not_prepared(world: Any) -> None:
    objective = L2SP(beta=0.0)
    objective.prepare(world.setup())
    with torch.no_grad():
        world.network.segments[1][0].weight += 1
    assert objective(Batch()).item() > 0
    world.network.segments[1].requires_grad_(False)
    assert objective(Batch()).item() == 0.0
    with pytest.raises(ConfigError, match="call prepare"):
        L2SP()(Batch())
    with pytest.raises(ConfigError, match="alpha is at least 0"):
        L2SP(alpha=-1.0)


# --- DELTA


def twin_delta(maps: np.ndarray, base: np.ndarray, weights: np.ndarray) -> float:
    total = 0.0
    for row in range(len(maps)):
        for channel in range(maps.shape[1]):
            total += weights[channel] * ((maps[row, channel] - base[row, channel]) ** 2).sum()
    return total / len(maps)


def test_map_distance_is_its_formula_for_pictures_tokens_and_vectors() -> None:
    maps, base, weights = RANDOM.normal(size=(3, 4, 2, 5)), RANDOM.normal(size=(3, 4, 2, 5)), RANDOM.random(4)
    a, b, w = torch.from_numpy(maps), torch.from_numpy(base), torch.from_numpy(weights)
    twin = twin_delta(maps, base, weights)
    assert feature_map_distance(a, b, w).item() == pytest.approx(twin, rel=1e-12)
    tokens = a.flatten(2).transpose(1, 2), b.flatten(2).transpose(1, 2)
    assert feature_map_distance(*tokens, w).item() == pytest.approx(twin, rel=1e-12)
    flat = a[..., 0, 0], b[..., 0, 0]
    assert feature_map_distance(*flat, w).item() == pytest.approx(
        twin_delta(maps[..., :1, :1], base[..., :1, :1], weights)
    )
    uniform = feature_map_distance(a, b)
    assert uniform.item() == pytest.approx(twin_delta(maps, base, np.full(4, 0.25)))
    assert torch.autograd.gradcheck(lambda m: feature_map_distance(m, b, w), (a.clone().requires_grad_(),))
    assert feature_map_distance(a.half(), b.half(), w.half()).dtype == torch.float32
    given = b.clone().requires_grad_()
    assert not feature_map_distance(a, given).requires_grad  # the base model is not trained


def test_map_distance_is_the_papers_and_not_the_published_codes() -> None:
    maps, base = torch.from_numpy(RANDOM.normal(size=(3, 4, 2, 5))), torch.from_numpy(RANDOM.normal(size=(3, 4, 2, 5)))
    weights = torch.softmax(torch.from_numpy(RANDOM.normal(size=4)), 0)
    channels, pixels, rows = 4, 10, 3
    distance = torch.norm((maps - base).flatten(2), 2, 2)
    theirs = 0.5 * torch.sum(channels * weights * distance**2 / pixels)  # lixingjian/DELTA, train.py
    assert torch.allclose(theirs, feature_map_distance(maps, base, weights) * rows * channels / pixels / 2)


def test_increases_are_those_of_literally_removed_channels() -> None:
    maps, labels = torch.from_numpy(RANDOM.normal(size=(5, 6, 2, 2))), torch.tensor([0, 1, 2, 1, 0])
    suffix = nn.Sequential(nn.Conv2d(6, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(4, 3)).double().eval()
    found = channel_increases(suffix, maps, labels)
    for channel in range(6):
        without = maps.clone()
        without[:, channel] = 0
        increase = cross_entropy(suffix(without), labels) - cross_entropy(suffix(maps), labels)
        assert found[channel].item() == pytest.approx(increase.item(), abs=1e-12)
    assert not found.requires_grad
    many = torch.from_numpy(RANDOM.normal(size=(5, 120)))  # more than fits into one pass
    linear = nn.Linear(120, 1).double()
    found = channel_increases(linear, many, torch.zeros(5), loss=squared_error)
    alone = many.clone()
    alone[:, 117] = 0
    assert found[117].item() == pytest.approx((linear(alone).square().mean() - linear(many).square().mean()).item())


def test_channel_weights_are_the_softmax_of_the_increases() -> None:
    increases = torch.tensor([0.0, math.log(3.0), -5.0], dtype=torch.float64)
    below = 1 + 3 + math.exp(-5)
    assert np.allclose(channel_weights(increases), [1 / below, 3 / below, math.exp(-5) / below])
    array = increases.numpy()
    code = torch.softmax(
        torch.from_numpy((array - np.mean(array)) / np.std(array)) / 5, 0
    )  # as published with the paper
    assert torch.allclose(channel_weights(increases, temperature=5.0, standardise=True), code)
    assert torch.allclose(channel_weights(torch.ones(4), standardise=True), torch.full((4,), 0.25))
    with pytest.raises(ShapeError, match="must be a vector"):
        channel_weights(torch.zeros(2, 2))


def test_the_probe_finds_the_channel_that_matters_and_leaves_the_network_alone(world: Any) -> None:
    network = world.network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    weights = probe_channels(network, [world.inputs], world.labels)
    assert list(weights) == ["middle", "features"]
    assert [len(values) for values in weights.values()] == [4, 5]
    assert all(sum(values) == pytest.approx(1.0) for values in weights.values())
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    network.eval()
    middle = network.segments[1](network.segments[0](world.inputs))
    rest = nn.Sequential(network.segments[2], network.heads["main"])
    assert np.allclose(weights["middle"], channel_weights(channel_increases(rest, middle, world.labels)), atol=1e-6)
    with torch.no_grad():
        network.heads["main"].weight.zero_()
        network.heads["main"].weight[:, 3] = torch.tensor([5.0, -5.0, 0.0])
    only = probe_channels(network, [world.inputs], world.labels)["features"]
    assert all(abs(value - only[0]) < 1e-6 for number, value in enumerate(only) if number != 3)
    assert abs(only[3] - only[0]) > 1e-3


def test_the_probe_carries_a_mask_along() -> None:
    class Layer(nn.Module):
        def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return hidden * 2, mask

    class Pool(nn.Module):
        def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    network = nn.Module()
    network.segments, network.names = nn.ModuleList([Layer(), Pool()]), ("layer", "features")
    network.heads = nn.ModuleDict({"main": nn.Linear(3, 2)})
    hidden, mask = torch.randn(4, 6, 3), (torch.arange(6)[None] < torch.tensor([[2], [6], [3], [1]])).float()
    weights = probe_channels(network, [hidden, mask], torch.tensor([0, 1, 0, 1]))
    assert np.allclose(weights["layer"], weights["features"], atol=1e-6)  # pooling keeps channels apart


def test_delta_adds_segments_that_train_and_new_heads(world: Any) -> None:
    batch, network = world.batch(), world.network
    uniform = DELTA(alpha=0.3, beta=0.0)
    distances = {
        name: feature_map_distance(batch.activations[name], batch.base_activations[name]).item()
        for name in network.names
    }
    assert uniform(batch).item() == pytest.approx(0.3 * sum(distances.values()), rel=1e-5)  # every map of the batch
    uniform.prepare(world.setup())
    assert uniform(batch).item() == pytest.approx(0.3 * (distances["middle"] + distances["features"]), rel=1e-5)
    weights = {"middle": [0.0, 0.0, 1.0, 0.0]}
    chosen = DELTA(alpha=0.3, beta=0.5, channel_weights=weights)
    chosen.prepare(world.setup())
    one = (
        (batch.activations["middle"] - batch.base_activations["middle"])[:, 2].square().flatten(1).sum(1).mean().item()
    )
    heads = sum(p.square().sum().item() for name in ("main", "second") for p in network.heads[name].parameters())
    assert chosen(batch).item() == pytest.approx(0.3 * (one + distances["features"]) + 0.5 * heads, rel=1e-5)
    assert chosen.config()["channel_weights"] == {"middle": [0.0, 0.0, 1.0, 0.0]}
    assert not list(chosen.parameters())


def test_delta_refuses_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="must both be"):
        feature_map_distance(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ShapeError, match="one weight for each of 3 channels"):
        feature_map_distance(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2))
    with pytest.raises(ConfigError, match="activations of a segment that trains"):
        DELTA()(Batch())
    with pytest.raises(ConfigError, match=r"needs base_activations\['a'\]"):
        DELTA()(Batch(activations={"a": torch.zeros(1, 2)}))
    with pytest.raises(ConfigError, match="beta is at least 0"):
        DELTA(beta=-0.1)


# --- BSS


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (4, 4)])
@pytest.mark.parametrize("num_values", [1, 3])
def test_bss_is_its_formula_by_way_of_the_eigenvalues(shape: tuple[int, int], num_values: int) -> None:
    features = RANDOM.normal(size=shape)
    small = features.T @ features if shape[0] > shape[1] else features @ features.T
    twin = np.sort(np.linalg.eigvalsh(small))[:num_values].sum()
    value = batch_spectral_shrinkage(torch.from_numpy(features), num_values=num_values)
    assert value.item() == pytest.approx(twin, rel=1e-9)
    leaf = torch.from_numpy(features).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: batch_spectral_shrinkage(f, num_values=num_values), (leaf,))


def test_bss_has_a_finite_gradient_where_singular_values_are_equal_or_zero() -> None:
    for features in (torch.eye(4), torch.zeros(3, 5), torch.ones(4, 6)):
        leaf = features.clone().requires_grad_()
        batch_spectral_shrinkage(leaf, num_values=2).backward()
        assert torch.isfinite(leaf.grad).all()
    leaf = (2 * torch.eye(3)).requires_grad_()
    value = batch_spectral_shrinkage(leaf, num_values=3)
    value.backward()
    assert torch.allclose(leaf.grad, 2 * leaf.detach(), atol=1e-6)  # all of them: the squared Frobenius norm
    assert value.item() == pytest.approx(12.0)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_bss_does_not_see_rotations_nor_the_order_of_rows(seed: int) -> None:
    random = np.random.default_rng(seed)
    features = random.normal(size=(5, 7))
    rotation = np.linalg.qr(random.normal(size=(7, 7)))[0]
    value = batch_spectral_shrinkage(torch.from_numpy(features), num_values=2).item()
    turned = torch.from_numpy((features @ rotation)[random.permutation(5)])
    assert batch_spectral_shrinkage(turned, num_values=2).item() == pytest.approx(value, rel=1e-8)
    assert batch_spectral_shrinkage(torch.from_numpy(3 * features), num_values=2).item() == pytest.approx(9 * value)


def test_bss_widens_takes_what_there_is_and_refuses() -> None:
    half = torch.randn(4, 3).half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert batch_spectral_shrinkage(half).dtype == torch.float32
    assert batch_spectral_shrinkage(torch.eye(2), num_values=9).item() == pytest.approx(2.0)
    with pytest.raises(ShapeError, match="must be a matrix"):
        batch_spectral_shrinkage(torch.zeros(2, 3, 4))
    with pytest.raises(ConfigError, match="num_values is at least 1"):
        BSS(num_values=0)
    assert BSS(2, weight=0.5)(Batch(features=torch.eye(3))).item() == pytest.approx(1.0)
