"""Cuts of image networks: suffix(prefix(x)) is exactly module(x), at every stage, for any network."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vgg import VGG
from torch import Tensor, nn

from headstart.backbones.graph import NetworkGraph
from headstart.core.errors import BackboneError

SMALL: dict[str, tuple[dict[str, Any], int]] = {
    "resnet18": ({}, 64),
    "test_resnet": ({}, 64),
    "mobilenetv2_035": ({}, 64),
    "mobilenetv3_small_050": ({}, 64),
    "tf_efficientnet_lite0": ({}, 64),
    "test_efficientnet": ({}, 64),
    "convnext_atto": ({}, 64),
    "regnetx_002": ({}, 64),
    "vit_tiny_patch16_224": ({"img_size": 64, "depth": 3}, 64),
    "deit_tiny_distilled_patch16_224": ({"img_size": 64, "depth": 2}, 64),
    "swin_tiny_patch4_window7_224": (
        {"img_size": 56, "embed_dim": 24, "depths": (1, 2, 1), "num_heads": (2, 2, 2)},
        56,
    ),
}
LARGE = ["resnet50", "vgg16", "mobilenetv2_100", "convnext_tiny", "vit_small_patch16_224", "densenet121"]
LARGE += ["swin_tiny_patch4_window7_224", "regnety_004", "efficientformer_l1", "eva02_tiny_patch14_224"]


def check_every_cut(network: nn.Module, row_shape: tuple[int, ...], least: int, every: int = 1) -> NetworkGraph:
    """Cut everywhere and compare exactly, for numbers of rows the discovery has not seen."""
    network.eval()
    graph = NetworkGraph(network, row_shape)
    assert len(graph.points) >= least
    work = [point.multiply_adds for point in graph.points]
    assert work == sorted(work)
    assert work[-1] <= graph.multiply_adds
    own = {id(parameter) for parameter in network.parameters()}
    for place, point in enumerate(graph.points[::every]):
        rows = torch.randn(1 + 3 * (place % 2), *row_shape)
        prefix, suffix = graph.cut(point)
        with torch.no_grad():
            halfway = prefix(rows)
            before = halfway.clone()
            assert torch.equal(suffix(halfway), network(rows)), point.name
        assert torch.equal(halfway, before), f"the suffix wrote into its input at {point.name}"
        assert tuple(halfway.shape[1:]) == point.shape
        parts = [{id(parameter) for parameter in half.parameters()} for half in (prefix, suffix)]
        assert parts[0] | parts[1] == own, point.name
    return graph


@pytest.mark.golden
@pytest.mark.parametrize("name", SMALL)
def test_every_cut_of_small_networks_is_exact(name: str) -> None:
    arguments, size = SMALL[name]
    torch.manual_seed(0)
    graph = check_every_cut(timm.create_model(name, num_classes=0, **arguments), (3, size, size), 10, every=5)
    names = [point.name for point in graph.points]
    assert len(set(names)) == len(names)


def test_every_cut_of_a_small_vgg_is_exact() -> None:
    torch.manual_seed(0)
    cfg = [8, "M", 12, "M", 16, 16, "M"]
    network = VGG(cfg, num_classes=0, mlp_ratio=0.01)  # type: ignore[arg-type, no-untyped-call]
    graph = check_every_cut(network, (3, 32, 32), 8)
    assert "features.2" in {point.name for point in graph.points}


@pytest.mark.golden
@pytest.mark.parametrize("name", LARGE)
def test_every_cut_of_common_networks_is_exact(name: str) -> None:
    network = timm.create_model(name, num_classes=0)
    check_every_cut(network, network.pretrained_cfg["input_size"], 19, every=6)


@pytest.mark.golden
def test_the_stages_of_a_resnet_carry_its_block_names_and_shapes() -> None:
    graph = NetworkGraph(timm.create_model("resnet18", num_classes=0).eval(), (3, 64, 64))
    shapes = {point.name: point.shape for point in graph.points}
    assert shapes["layer1"] == (64, 16, 16)
    assert shapes["layer4"] == (512, 2, 2)
    assert "bn1" not in shapes  # the activation after it writes into it


class Block(nn.Module):
    """A residual block on vectors, whose activation works in place."""

    def __init__(self, width: int, residual: bool, inplace: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.act = nn.ReLU(inplace=inplace)
        self.residual = residual

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = self.act(self.linear(rows))
        return out + rows if self.residual else out


@pytest.mark.golden
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=6), st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_any_chain_of_blocks_can_be_cut(blocks: list[tuple[bool, bool]], width: int) -> None:
    network = nn.Sequential(*[Block(width, *block) for block in blocks], nn.Linear(width, 2))
    graph = check_every_cut(network, (width,), len(blocks))
    assert {str(index) for index in range(len(blocks))} <= {point.name for point in graph.points}


class ClassToken(nn.Module):
    """Adds a token after its first layer and needs the number of rows and places for it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 6)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.mix = nn.Linear(6, 6)

    def forward(self, rows: Tensor, mask: Tensor | None = None) -> Tensor:
        num_rows, places = rows.shape[0], rows.shape[1]
        hidden = self.embed(rows)
        hidden = torch.cat([self.token.expand(num_rows, -1, -1), hidden], 1)
        if mask is not None:
            hidden = hidden * mask
        return (self.mix(hidden).reshape(num_rows, (places + 1) * 6) * num_rows).sum(1, keepdim=True)


def test_numbers_that_cross_a_cut_are_recomputed_from_the_rows() -> None:
    graph = check_every_cut(ClassToken(), (3, 4), 3)
    assert graph.points[0].shape == (3, 6)


def test_dropout_after_a_cut_still_drops_in_training() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8)).eval()
    graph = NetworkGraph(network, (8,))
    _, suffix = graph.cut(graph.points[0])
    rows = torch.ones(1, 8)
    assert torch.equal(suffix(rows), suffix(rows))
    suffix.train()
    torch.manual_seed(0)
    assert not torch.equal(suffix(rows), suffix(rows))


def test_training_a_suffix_trains_the_network() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1)).eval()
    graph = NetworkGraph(network, (2,))
    prefix, suffix = graph.cut(graph.points[-1])
    rows = torch.randn(4, 2)
    suffix(prefix(rows).detach()).sum().backward()
    assert network[2].weight.grad is not None
    assert network[0].weight.grad is None


def test_multiply_adds_are_those_counted_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 25, 7)).eval()
    graph = NetworkGraph(network, (3, 5, 5))
    assert [point.multiply_adds for point in graph.points][-1] == 4 * 3 * 9 * 25
    assert graph.multiply_adds == 4 * 3 * 9 * 25 + 700


class Branches(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return rows if rows.sum() > 0 else -rows


def test_a_network_that_cannot_be_traced_is_refused() -> None:
    with pytest.raises(BackboneError, match="cannot be traced"):
        NetworkGraph(Branches(), (2,))
