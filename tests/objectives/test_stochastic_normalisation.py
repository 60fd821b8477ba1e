"""Stochastic normalisation against a literal twin, and the plain layer in evaluation mode."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from headstart.core.errors import ConfigError
from headstart.core.tasks import Task
from headstart.objectives import (
    Setup,
    StochasticBatchNorm,
    StochasticNormalisation,
    with_stochastic_normalisation,
    without_stochastic_normalisation,
)

RANDOM = np.random.default_rng(4)
SHAPES = {
    nn.BatchNorm1d: (6, 5),
    nn.BatchNorm2d: (4, 5, 3, 2),
    nn.BatchNorm3d: (4, 5, 3, 2, 2),
    BatchNormAct2d: (4, 5, 3, 2),
}


def layer_of(kind: type[nn.Module]) -> Any:
    layer: Any = kind(5).double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(RANDOM.normal(size=5)))
        layer.bias.copy_(torch.from_numpy(RANDOM.normal(size=5)))
        layer.running_mean.copy_(torch.from_numpy(RANDOM.normal(size=5)))
        layer.running_var.copy_(torch.from_numpy(RANDOM.random(5) + 0.5))
    return layer


def twin(layer: Any, inputs: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Each channel by its own statistics, or by the moving ones as they were before."""
    output = np.empty_like(inputs)
    for channel in range(inputs.shape[1]):
        values = inputs[:, channel]
        mean, variance = layer.running_mean[channel].item(), layer.running_var[channel].item()
        if chosen[channel]:
            mean, variance = values.mean(), ((values - values.mean()) ** 2).mean()
        normal = (values - mean) / np.sqrt(variance + layer.eps)
        output[:, channel] = layer.weight[channel].item() * normal + layer.bias[channel].item()
    return output


@pytest.mark.parametrize("kind", SHAPES)
def test_it_is_its_formula_and_moves_the_statistics_as_the_plain_layer_does(kind: type[nn.Module]) -> None:
    layer = layer_of(kind)
    plain = copy.deepcopy(layer)
    inputs = RANDOM.normal(size=SHAPES[kind]) * 2 + 1
    torch.manual_seed(0)
    chosen = (torch.rand(5) < 0.5).numpy()
    assert 0 < chosen.sum() < 5
    expected = twin(layer, inputs, chosen)
    if kind is BatchNormAct2d:
        expected = np.maximum(expected, 0)  # its activation
    assert with_stochastic_normalisation(layer, 0.5) is layer
    torch.manual_seed(0)
    assert np.allclose(layer(torch.from_numpy(inputs)).detach().numpy(), expected)
    plain(torch.from_numpy(inputs))
    for name, tensor in plain.state_dict().items():
        assert torch.allclose(layer.state_dict()[name], tensor), name
    assert layer.num_batches_tracked == 1


@pytest.mark.parametrize("kind", SHAPES)
def test_evaluation_is_the_plain_layer_bit_for_bit_and_names_stay(kind: type[nn.Module]) -> None:
    layer = layer_of(kind)
    plain, inputs = copy.deepcopy(layer).eval(), torch.from_numpy(RANDOM.normal(size=SHAPES[kind]))
    parameter = layer.weight
    with_stochastic_normalisation(layer, 0.3).eval()
    assert torch.equal(layer(inputs), plain(inputs))
    assert isinstance(layer, kind)
    assert isinstance(layer, StochasticBatchNorm)
    assert layer.weight is parameter
    assert list(layer.state_dict()) == list(plain.state_dict())
    assert isinstance(copy.deepcopy(layer), StochasticBatchNorm)
    assert without_stochastic_normalisation(layer) is layer
    assert type(layer) is kind
    assert not hasattr(layer, "probability")


def test_the_gradient_is_that_of_the_value_although_the_statistics_move() -> None:
    layer = with_stochastic_normalisation(layer_of(nn.BatchNorm1d), 0.5)

    def value(inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return torch.func.functional_call(copy.deepcopy(layer), {"weight": weight}, (inputs,))

    inputs = torch.from_numpy(RANDOM.normal(size=(6, 5)) * 9).requires_grad_()
    assert torch.autograd.gradcheck(value, (inputs, layer.weight.detach().clone().requires_grad_()))


def test_two_streams_may_pass_before_the_gradient_is_taken() -> None:
    layer = with_stochastic_normalisation(layer_of(nn.BatchNorm1d), 0.0)
    first, second = (torch.from_numpy(RANDOM.normal(size=(6, 5))).requires_grad_() for _ in range(2))
    variance = layer.running_var.clone()
    one = layer(first).sum()
    later = layer.running_var.clone()
    (one + layer(second).sum()).backward()
    assert torch.allclose(first.grad[0], layer.weight / (variance + layer.eps).sqrt())
    assert torch.allclose(second.grad[0], layer.weight / (later + layer.eps).sqrt())


def test_the_probability_counts() -> None:
    inputs = torch.from_numpy(RANDOM.normal(size=(8, 5)) + 3)
    never, always = (with_stochastic_normalisation(layer_of(nn.BatchNorm1d), p) for p in (0.0, 1.0))
    plain = without_stochastic_normalisation(copy.deepcopy(always)).train()
    assert torch.allclose(always(inputs), plain(inputs))
    expected = copy.deepcopy(never).eval()(inputs)
    assert torch.allclose(never(inputs), expected)
    assert with_stochastic_normalisation(never, 0.7).probability == 0.7  # said again, it is set anew
    wide = with_stochastic_normalisation(nn.BatchNorm1d(4000, affine=False), 0.2)
    torch.manual_seed(1)
    output = wide(torch.ones(2, 4000) + torch.tensor([[1.0], [-1.0]]))  # own mean 1, moving mean 0
    by_batch = (output.sum(0).abs() < 1e-4).float().mean().item()
    assert by_batch == pytest.approx(0.2, abs=4 * (0.2 * 0.8 / 4000) ** 0.5)


def test_a_cumulative_average_stays_one() -> None:
    layer, plain = nn.BatchNorm1d(2, momentum=None), nn.BatchNorm1d(2, momentum=None)
    with_stochastic_normalisation(layer)
    for _ in range(3):
        inputs = torch.randn(4, 2)
        layer(inputs)
        plain(inputs)
    assert torch.allclose(layer.running_mean, plain.running_mean)
    assert torch.allclose(layer.running_var, plain.running_var)


def test_a_changed_network_can_still_be_traced() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).eval()
    inputs = torch.randn(2, 1, 3, 3)
    expected = network(inputs)
    traced = torch.fx.symbolic_trace(with_stochastic_normalisation(network))
    assert torch.equal(traced(inputs), expected)
    assert [node.op for node in traced.graph.nodes].count("call_module") == 2


def test_only_layers_that_train_and_track_are_changed() -> None:
    network = nn.Sequential(
        nn.BatchNorm1d(2),
        nn.BatchNorm1d(2),
        nn.BatchNorm1d(2, track_running_stats=False),
        nn.LayerNorm(2),
        nn.InstanceNorm1d(2),
    )
    network[0].requires_grad_(False)
    with_stochastic_normalisation(network)
    assert [isinstance(layer, StochasticBatchNorm) for layer in network] == [False, True, False, False, False]


def test_as_an_objective_it_changes_what_trains_and_adds_nothing(world: Any) -> None:
    objective = StochasticNormalisation(0.25)
    objective.prepare(world.setup())
    kinds = [module for module in world.network.modules() if isinstance(module, StochasticBatchNorm)]
    assert [layer.probability for layer in kinds] == [0.25, 0.25]
    assert not isinstance(world.network.segments[0][1], StochasticBatchNorm)
    assert objective(world.batch()).item() == 0.0
    plain = nn.Module()
    plain.segments, plain.heads = nn.ModuleList([nn.Linear(2, 2)]), nn.ModuleDict()
    with pytest.raises(ConfigError, match="has no batch normalisation"):
        objective.prepare(Setup(plain, Task("regression")))
    for bad in (-0.1, 1.1):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            StochasticNormalisation(bad)
        with pytest.raises(ConfigError, match="between 0 and 1"):
            with_stochastic_normalisation(nn.BatchNorm1d(1), bad)
