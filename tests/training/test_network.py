"""The network in segments: the same function as the whole, what is frozen rests, copies share what never changes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from headstart.backbones import Backbone, vector_backbone
from headstart.core.errors import ConfigError
from headstart.training import Network, ParameterGroup, Plan, whole_plan
from training_toys import bodied, normed


def test_a_backbone_without_cuts_is_one_segment() -> None:
    backbone: Backbone = vector_backbone(3)
    network = Network.of(backbone, {"main": nn.Linear(3, 2)}, stages=())
    assert network.names == ("features",) and network.segments[0] is backbone.module
    assert network(torch.ones(1, 3)).features.tolist() == [[1.0, 1.0, 1.0]]


def test_output_is_that_of_the_chain() -> None:
    network = bodied(("main", "second"))
    values = torch.randn(5, 2)
    first = network.segments[0](values)
    features = network.segments[1](first)
    output = network(values, activations=True)
    assert torch.equal(output.features, features) and torch.equal(output.logits, network.heads["main"](features))
    assert torch.equal(output.head_logits["second"], network.heads["second"](features))
    assert list(output.activations) == ["first", "features"] and torch.equal(output.activations["first"], first)
    assert network(values).activations == {}


def test_the_first_head_answers_where_none_is_called_main() -> None:
    network = bodied(("pets", "cars"))
    output = network(torch.randn(2, 2))
    assert network.main == "pets" and output.logits is output.head_logits["pets"]


def test_segments_may_hand_on_several_tensors() -> None:
    class Both(nn.Module):
        def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return hidden + 1, mask

    class Pool(nn.Module):
        def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return (hidden * mask).sum(1, keepdim=True)

    network = Network({"layer": Both(), "features": Pool()}, {"main": nn.Identity()})
    output = network(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]]), activations=True)
    assert output.logits.tolist() == [[2.0]] and output.activations["layer"].tolist() == [[2.0, 3.0]]


def test_activations_that_were_kept_enter_where_they_belong() -> None:
    network = normed(frozen=1).eval()
    values = torch.randn(4, 2)
    whole = network(values)
    later = Network(
        dict(zip(network.names, network.segments, strict=True)), dict(network.heads), num_frozen=1, start=1
    ).eval()
    assert torch.equal(later(network.segments[0](values)).logits, whole.logits)


def test_what_rests_is_neither_in_training_mode_nor_in_the_graph() -> None:
    network = normed(frozen=1)
    network.freeze(1, [name for name, _ in network.named_parameters() if name.startswith("segments.1.1")])
    network.train()
    first, second, third = network.segments
    assert not any(module.training for module in first.modules())
    assert second[0].training and second[3].training and not second[1].training and third[1].training
    output = network(torch.randn(4, 2))
    output.logits.sum().backward()
    assert all(item.grad is None for item in first.parameters())
    assert second[0].weight.grad is not None and second[1].weight.grad is None
    network.freeze(3)
    network.train()
    assert network.num_resting == 3 and not network(torch.randn(4, 2)).features.requires_grad
    network.freeze(0)
    assert all(item.requires_grad for item in network.parameters()) and network.num_resting == 0


def test_statistics_without_parameters_follow_their_segment() -> None:
    def part() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False))

    network = Network({"a": part(), "b": part(), "features": part()}, {"main": nn.Linear(2, 2)})
    network.freeze(0, ["segments.1.0.weight", "segments.1.0.bias"])
    network.train()
    assert [segment[1].training for segment in network.segments] == [True, False, True]


def test_the_digest_sees_parameters_and_buffers_that_must_not_change() -> None:
    network = normed(frozen=1)
    network.freeze(1, ["segments.1.0.weight"])
    digest = network.frozen_digest()
    with torch.no_grad():
        network.segments[2][0].weight.add_(1)
        network.segments[1][1].running_mean.add_(1)
    assert network.frozen_digest() == digest
    for tensor in (
        network.segments[0][0].bias,
        network.segments[0][1].running_var,
        network.segments[0][1].num_batches_tracked,
        network.segments[1][0].weight,
    ):
        before = tensor.detach().clone()
        with torch.no_grad():
            tensor.add_(1)
            assert network.frozen_digest() != digest
            tensor.copy_(before)
        assert network.frozen_digest() == digest


def test_the_digest_does_not_see_the_layout() -> None:
    network = Network({"features": nn.Conv2d(3, 4, 3)}, {"main": nn.Linear(4, 2)}, num_frozen=1)
    digest = network.frozen_digest()
    assert network.to(memory_format=torch.channels_last).frozen_digest() == digest


def test_a_twin_is_a_copy_that_shares_what_never_changes() -> None:
    network = normed(frozen=1)
    whole_plan(network).carry_out(network)
    twin = network.twin()
    values = torch.randn(4, 2)
    assert torch.equal(twin(values).logits, copy.deepcopy(network).eval()(values).logits)
    assert twin.segments[0][0].weight is network.segments[0][0].weight
    with torch.no_grad():
        network.heads["main"].weight.add_(1)
    assert not torch.equal(twin.heads["main"].weight, network.heads["main"].weight)
    assert not any(item.requires_grad for item in twin.parameters())


def test_a_plan_is_carried_out_or_refused() -> None:
    network = bodied()
    plan = Plan((ParameterGroup(("segments.1.0.weight",)), ParameterGroup(("heads.main.bias",), 2.0)), 1, "a test")
    assert list(plan.carry_out(network)) == ["segments.1.0.weight", "heads.main.bias"]
    trains = [name for name, item in network.named_parameters() if item.requires_grad]
    assert trains == ["segments.1.0.weight", "heads.main.bias"]
    assert plan.to_dict()["groups"][1] == {"parameters": 1, "rate": 2.0, "begins": 0.0}
    for wrong, match in (
        (Plan((ParameterGroup(("other",)),)), "no parameter 'other'"),
        (Plan((ParameterGroup(("segments.0.0.bias",)),), 1), "lies in one of the 1 frozen"),
        (Plan((), 3), "0 to 2 leading segments"),
    ):
        with pytest.raises(ConfigError, match=match):
            wrong.carry_out(network)
    with pytest.raises(ConfigError, match="is in two"):
        Plan((ParameterGroup(("a", "b")), ParameterGroup(("b",))))
    for rate, begins in ((0.0, 0.0), (1.0, 1.0), (1.0, -0.1), (float("nan"), 0.0)):
        with pytest.raises(ConfigError, match="rate is positive and begins"):
            ParameterGroup(("a",), rate, begins)


def test_a_tensor_shared_with_a_frozen_segment_is_frozen() -> None:
    layer = nn.Linear(2, 2)
    network = Network({"a": layer, "features": nn.Sequential(layer, nn.Linear(2, 2))}, {"main": nn.Linear(2, 2)})
    network.freeze(1)
    assert not layer.weight.requires_grad and network.segments[1][1].weight.requires_grad
    assert "segments.1.0.weight" in network.frozen_names
