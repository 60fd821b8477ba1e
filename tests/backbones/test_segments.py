"""Natural blocks of networks, and chains of segments that are exactly the whole."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from headstart.backbones import Architecture, Backbone, open_backbone, vector_backbone
from headstart.backbones.blocks import find_blocks
from headstart.backbones.graph import NetworkGraph
from headstart.core.errors import BackboneError
from headstart.core.preprocessing import ImageTransform
from small_encoders import IMAGE_KINDS, TEXT_KINDS, inputs, make

VIT = ["norm_pre", "blocks.0", "blocks.1", "norm", "features"]
NETWORKS: dict[str, tuple[dict[str, Any], int, list[str]]] = {
    "resnet18": ({}, 64, ["maxpool", "layer1", "layer2", "layer3", "layer4", "features"]),
    "mobilenetv2_035": ({}, 64, ["bn1", *[f"blocks.{at}" for at in range(6)], "blocks", "bn2", "features"]),
    "tf_efficientnet_lite0": ({}, 64, ["bn1", *[f"blocks.{at}" for at in range(6)], "blocks", "bn2", "features"]),
    "convnext_atto": ({}, 64, ["stem", "stages.0", "stages.1", "stages.2", "features"]),
    "vit_tiny_patch16_224": ({"img_size": 64, "depth": 3}, 64, VIT),
    "swin_tiny_patch4_window7_224": (
        {"img_size": 56, "embed_dim": 24, "depths": (1, 2, 1), "num_heads": (2, 2, 2)},
        56,
        ["patch_embed", "layers.0", "layers.1", "norm", "features"],
    ),
    "regnetx_002": ({}, 64, ["stem", "s1", "s2", "s3", "final_conv", "features"]),
}
LARGE: dict[str, list[str]] = {
    "resnet50": NETWORKS["resnet18"][2],
    "vgg11": ["features.2", "features.5", "features.10", "features.15", "features.20", "features"],
    "vgg16": ["features.4", "features.9", "features.16", "features.23", "features.30", "features"],
    "mobilenetv2_100": NETWORKS["mobilenetv2_035"][2],
    "convnext_tiny": NETWORKS["convnext_atto"][2],
    "vit_tiny_patch16_224": ["norm_pre", *[f"blocks.{at}" for at in range(11)], "norm", "features"],
    "swin_tiny_patch4_window7_224": ["patch_embed", "layers.0", "layers.1", "layers.2", "norm", "features"],
    "densenet121": [
        "features.pool0",
        *[f"features.transition{at}" for at in (1, 2, 3)],
        "features.norm5",
        "features",
    ],
}


def image_backbone(name: str, size: int, **arguments: Any) -> Backbone:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0, **arguments)
    transform = ImageTransform(size, size, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3, "squash")
    with torch.no_grad():
        width = network.eval()(torch.zeros(1, 3, size, size)).shape[1]
    return Backbone(Architecture("timm", name, arguments), network, transform, name=name, width=int(width))


def chain(segments: Sequence[nn.Module], *rows: Tensor) -> Any:
    values: Any = rows
    for segment in segments:
        values = segment(*(values if isinstance(values, tuple) else (values,)))
    return values


def check_segments(backbone: Backbone, segments: Sequence[nn.Module], *rows: Tensor) -> None:
    """The chain is the whole; each parameter is in one segment, under the network's name for it."""
    with torch.no_grad():
        assert torch.equal(chain(segments, *rows), backbone.module(*rows))
    whole = dict(backbone.module.named_parameters())
    found = [item for segment in segments for item in segment.named_parameters()]
    assert sorted(name for name, _ in found) == sorted(whole)
    assert all(whole[name] is parameter for name, parameter in found)
    state = backbone.module.state_dict()
    assert all(name in state for segment in segments for name in segment.state_dict())


@pytest.mark.golden
@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_are_the_networks_own_units_and_chain_to_the_whole(name: str) -> None:
    arguments, size, expected = NETWORKS[name]
    backbone = image_backbone(name, size, **arguments)
    assert [block.name for block in backbone.blocks] == expected
    rows = torch.randn(3, 3, size, size)
    segments = backbone.segments(backbone.blocks[:-1])
    assert len(segments) == len(backbone.blocks)
    check_segments(backbone, segments, rows)
    hidden = rows
    for block, segment in zip(backbone.blocks, segments, strict=True):
        hidden = segment(hidden)
        assert tuple(hidden.shape[1:]) == block.shape


@pytest.mark.golden
@pytest.mark.parametrize("name", LARGE)
def test_blocks_of_common_networks(name: str) -> None:
    backbone = image_backbone(name, 224)
    assert [block.name for block in backbone.blocks] == LARGE[name]
    check_segments(backbone, backbone.segments(backbone.blocks[:-1]), torch.randn(2, 3, 224, 224))


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_text_encoders_fall_into_embeddings_and_layers(kind: str, tmp_path: Path) -> None:
    make(tmp_path, kind, TEXT_KINDS[kind])
    backbone = open_backbone(tmp_path)
    blocks = [block.name for block in backbone.blocks]
    assert blocks[0] == "embeddings"
    closes = kind in {"gpt2", "llama", "modernbert"}  # a normalisation follows the last layer and belongs to it
    assert len(blocks) == (4 if closes else 5), blocks
    rows = inputs(backbone)
    segments = backbone.segments(blocks[:-1])
    check_segments(backbone, segments, *rows)
    hidden, mask = segments[0](*rows)
    assert hidden.shape == (3, rows[0].shape[1], 16)
    assert torch.equal(mask, rows[1])
    check_segments(backbone, backbone.segments([blocks[2]]), *rows)


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_image_encoders_of_transformers_fall_into_embeddings_and_layers(kind: str, tmp_path: Path) -> None:
    make(tmp_path, kind, IMAGE_KINDS[kind], size={"height": 32, "width": 32})
    backbone = open_backbone(tmp_path)
    assert len(backbone.blocks) >= 4
    check_segments(backbone, backbone.segments(backbone.blocks[:-1]), *inputs(backbone))


def test_rows_and_networks_without_a_cut_are_one_block() -> None:
    backbone = vector_backbone(3)
    assert [block.name for block in backbone.blocks] == ["features"]
    assert backbone.segments(()) == [backbone.module]
    rows = torch.randn(2, 3)
    assert torch.equal(chain(backbone.segments(["input", "features"]), rows), rows)


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    return image_backbone("test_resnet", 64)


@pytest.mark.golden
def test_stages_out_of_order_are_refused(resnet: Backbone) -> None:
    with pytest.raises(BackboneError, match=r"in the network's order, each once; got layer2, layer1\."):
        resnet.segments(["layer2", "layer1"])
    with pytest.raises(BackboneError, match="each once"):
        resnet.segments(["layer2", "layer2"])
    with pytest.raises(BackboneError, match="has no stage 'layer9'"):
        resnet.segments(["layer9"])


@pytest.mark.golden
def test_training_a_segment_trains_the_network_and_nothing_else() -> None:
    backbone = image_backbone("test_resnet", 64, zero_init_last=False)
    before = {name: tensor.clone() for name, tensor in backbone.module.state_dict().items()}
    segments = backbone.segments(["layer2", "layer3"])
    optimiser = torch.optim.SGD(segments[1].parameters(), lr=0.1)
    segments[1].train()
    chain(segments, torch.randn(2, 3, 64, 64)).square().sum().backward()
    optimiser.step()
    changed = {name for name, tensor in backbone.module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("layer3")}, changed  # weights and moving averages


@pytest.mark.golden
def test_only_a_segment_in_training_mode_drops_and_normalises_by_batch() -> None:
    backbone = image_backbone("test_resnet", 64, drop_path_rate=0.5, zero_init_last=False)
    segments = backbone.segments(["layer1", "layer3"])
    rows = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        hidden = segments[0](rows)
        segments[1].train()
        assert torch.equal(segments[0](rows), hidden)
        assert not torch.equal(segments[1](hidden), segments[1](hidden))  # paths are dropped at random
        segments[1].eval()
        assert torch.equal(chain(segments, rows), backbone.module(rows))


class FunctionalDropout(nn.Module):
    """Drops by a function that asks for the mode, with and without a look before the call."""

    def __init__(self, looks: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.looks = looks

    def forward(self, rows: Tensor) -> Tensor:
        hidden: Tensor = self.linear(rows)
        if self.looks:
            return nn.functional.dropout(hidden, 0.5) if self.training else hidden
        return nn.functional.dropout(hidden, 0.5, self.training)


@pytest.mark.parametrize("looks", [True, False])
def test_a_dropout_called_as_a_function_still_drops_in_training(looks: bool) -> None:
    network = nn.Sequential(nn.Linear(8, 8), FunctionalDropout(looks), nn.Linear(8, 8)).eval()
    graph = NetworkGraph(network, (8,))
    assert graph.trainable
    first, second, third = graph.segments([graph.points[0], next(p for p in graph.points if p.name == "1")])
    rows = torch.ones(4, 8)
    assert torch.equal(chain([first, second, third], rows), network(rows))
    second.train()
    assert (second(rows) == 0).any()
    assert not network[0].training
    assert network[1].training


class DropsOnTop(nn.Module):
    """Drops by a function in its own forward pass, where no part can be left whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 4, 3)

    def forward(self, rows: Tensor) -> Tensor:
        hidden = nn.functional.dropout(self.first(rows).relu(), 0.5, self.training)
        features: Tensor = self.last(hidden).mean((2, 3))
        return features


def test_a_network_whose_pieces_would_not_train_like_it_is_one_block() -> None:
    transform = ImageTransform(16, 16, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3, "squash")
    backbone = Backbone(Architecture("timm", "none"), DropsOnTop(), transform, name="drops", width=4)
    assert len(backbone.stages) > 3  # it can still be cut for inference
    assert [block.name for block in backbone.blocks] == ["features"]


def test_tracing_leaves_modes_as_they_were() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2)).eval()
    network[1].train()
    NetworkGraph(network, (4,))
    assert [part.training for part in network] == [False, True, False]


class Tied(nn.Module):
    """Uses one convolution at its beginning and in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.pools = nn.ModuleList([nn.MaxPool2d(2) for _ in range(3)])
        self.middle = nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, rows: Tensor) -> Tensor:
        hidden = self.pools[0](self.first(rows))
        hidden = self.pools[1](self.middle(hidden))
        hidden = self.pools[2](self.first(hidden))
        features: Tensor = self.last(hidden).mean((2, 3))
        return features


def test_no_block_ends_between_two_uses_of_a_parameter() -> None:
    assert [point.name for point in find_blocks(NetworkGraph(Tied().eval(), (3, 32, 32)))] == ["pools.2", "last"]


@pytest.mark.golden
def test_a_copy_is_independent_and_counts_afresh(resnet: Backbone) -> None:
    assert resnet.weights_digest
    assert len(resnet.stages) > 2
    twin = resnet.copy()
    assert not {"weights_digest", "stages", "_cuts"} & twin.__dict__.keys()
    assert twin.weights_digest == resnet.weights_digest
    segments = twin.segments(["layer2"])
    with torch.no_grad():
        for parameter in segments[1].parameters():
            parameter.add_(1)
    twin.refresh()
    assert twin.weights_digest != resnet.weights_digest
    rows = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(twin.module(rows), resnet.module(rows))
        assert torch.equal(chain(resnet.segments(["layer2"]), rows), resnet.module(rows))


def test_a_copy_keeps_a_source_head_of_its_own() -> None:
    backbone = open_backbone(timm.create_model("test_resnet", num_classes=5), input_size=64)
    head = backbone.copy().source_head
    assert head is not None
    assert backbone.source_head is not None
    assert head is not backbone.source_head
    assert torch.equal(head.weight, backbone.source_head.weight)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_segments_can_be_copied_as_a_whole(kind: str, tmp_path: Path, resnet: Backbone) -> None:
    backbone = resnet
    if kind == "text":
        make(tmp_path, "mpnet", TEXT_KINDS["mpnet"])
        backbone = open_backbone(tmp_path)
    rows = inputs(backbone) if kind == "text" else (torch.randn(2, 3, 64, 64),)
    stages = [backbone.stages[2], backbone.stages[-2]]
    twins = copy.deepcopy(nn.ModuleList(backbone.segments(stages)))
    assert len({id(item) for item in twins.parameters()} & {id(item) for item in backbone.module.parameters()}) == 0
    with torch.no_grad():
        expected = backbone.module(*rows)
        assert torch.equal(chain(list(twins), *rows), expected)
        for parameter in twins.parameters():
            parameter.mul_(1.5)
        assert not torch.equal(chain(list(twins), *rows), expected)
        assert torch.equal(backbone.module(*rows), expected)


def test_text_segments_drop_alone_in_training(tmp_path: Path) -> None:
    make(tmp_path, "bert", {**TEXT_KINDS["bert"], "hidden_dropout_prob": 0.5})
    backbone = open_backbone(tmp_path)
    first, middle, last = backbone.segments([backbone.stages[2], backbone.stages[3]])
    rows = inputs(backbone)
    with torch.no_grad():
        middle.train()
        halfway = first(*rows)
        assert torch.equal(first(*rows)[0], halfway[0])
        torch.manual_seed(0)
        assert not torch.equal(middle(*halfway)[0], middle(*halfway)[0])
        middle.eval()
        assert torch.equal(chain([first, middle, last], *rows), backbone.module(*rows))
