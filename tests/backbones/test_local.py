"""Weights in files and folders, in timm's and torchvision's formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from headstart.backbones import open_backbone
from headstart.backbones.timm_models import image_transform, parse_architecture
from headstart.backbones.torchvision_models import take_head
from headstart.core.errors import BackboneError

NAME = "test_efficientnet"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(3)
    made: nn.Module = timm.create_model(NAME, num_classes=7).eval()
    return made


def save(path: Path, tensors: dict[str, Tensor], sidecar: dict[str, Any] | None = None, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    if sidecar is not None:
        name = "config.json" if path.name == "model.safetensors" else f"{path.stem}.json"
        path.with_name(name).write_text(json.dumps(sidecar), encoding="utf-8")
    return path


def reference(network: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Features and logits by timm's own two-step forward."""
    with torch.no_grad():
        features = network.forward_head(network.forward_features(rows), pre_logits=True)  # type: ignore[operator]
        return features, network(rows)


CONFIG = {
    "architecture": NAME,
    "num_classes": 7,
    "pretrained_cfg": {
        "input_size": [3, 96, 96],
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "crop_pct": 0.75,
        "interpolation": "bilinear",
        "crop_mode": "squash",
        "license": "MIT",
    },
}


def test_a_folder_in_timms_format_opens_with_its_own_preprocessing(network: nn.Module, tmp_path: Path) -> None:
    save(tmp_path / "net" / "model.safetensors", network.state_dict(), CONFIG)
    backbone = open_backbone(tmp_path / "net")
    rows = torch.randn(2, 3, 96, 96)
    features, logits = reference(network, rows)
    with torch.no_grad():
        assert torch.equal(backbone.module(rows), features)
        assert backbone.source_head is not None
        assert torch.allclose(backbone.source_head(backbone.module(rows)), logits, atol=1e-6)
    transform = backbone.transform.to_dict()
    assert (transform["height"], transform["mean"], transform["std"]) == (96, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert (transform["crop_fraction"], transform["interpolation"], transform["fit"]) == (0.75, "bilinear", "squash")
    assert backbone.info.licence == "MIT"
    assert backbone.width == features.shape[1]


@pytest.mark.parametrize("where", ["sidecar", "header"])
def test_a_file_says_its_architecture_beside_it_or_in_its_header(
    network: nn.Module, tmp_path: Path, where: str
) -> None:
    said = f"timm.create_model('{NAME}', num_classes=7)"
    if where == "sidecar":
        path = save(tmp_path / "a.safetensors", network.state_dict(), {"arch": said})
    else:
        path = save(tmp_path / "a.safetensors", network.state_dict(), None, arch=said)
    assert open_backbone(str(path)).architecture.to_dict() == {"source": "timm", "name": NAME, "arguments": {}}


def test_arguments_of_the_architecture_are_kept(tmp_path: Path) -> None:
    tensors = timm.create_model(NAME, num_classes=0, pad_type="same").state_dict()
    path = save(tmp_path / "a.safetensors", tensors, {"arch": f"timm.create_model('{NAME}', pad_type='same')"})
    backbone = open_backbone(path)
    assert backbone.architecture.arguments == {"pad_type": "same"}
    assert backbone.source_head is None
    other = open_backbone(save(tmp_path / "b.safetensors", tensors, {"arch": NAME}))
    assert other.weights_digest != backbone.weights_digest  # same tensors, another function


def test_a_partial_match_is_an_error_that_lists_what_was_missing(network: nn.Module, tmp_path: Path) -> None:
    tensors = dict(network.state_dict())
    tensors.pop("conv_stem.weight")
    tensors["blocks.99.weight"] = torch.zeros(1)
    path = save(tmp_path / "a.safetensors", tensors, {"architecture": NAME})
    with pytest.raises(BackboneError, match=r"1 tensor missing \(conv_stem.weight\); 1 tensor left over \(blocks.99"):
        open_backbone(path)


def test_weights_of_another_network_are_refused(network: nn.Module, tmp_path: Path) -> None:
    path = save(tmp_path / "a.safetensors", network.state_dict(), {"architecture": "resnet18"})
    with pytest.raises(BackboneError, match="do not fit the network"):
        open_backbone(path)


def test_a_file_that_names_no_network_is_refused_with_what_to_write(network: nn.Module, tmp_path: Path) -> None:
    path = save(tmp_path / "a.safetensors", network.state_dict())
    with pytest.raises(BackboneError, match=r'write \{"architecture": "resnet50"\}'):
        open_backbone(path)


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".pkl", ".h5"])
def test_formats_that_can_run_code_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"\x80\x04.")
    with pytest.raises(BackboneError, match="can run code when read"):
        open_backbone(path)


def test_a_folder_without_weights_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(BackboneError, match=r"it holds notes\.txt"):
        open_backbone(tmp_path)


def test_a_damaged_config_is_refused(network: nn.Module, tmp_path: Path) -> None:
    path = save(tmp_path / "net" / "model.safetensors", network.state_dict(), CONFIG)
    for content in ("{", "[1]"):
        path.with_name("config.json").write_text(content)
        with pytest.raises(BackboneError, match=r"config\.json (cannot be read as JSON|must hold a JSON object)"):
            open_backbone(tmp_path / "net")


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('touch hacked')",
        "timm.create_model(open('x').read())",
        "timm.create_model('resnet18', **{'a': 1})",
        "timm.models.efficientnet._gen_other('x')",
        "os.path",
        "resnet18; import os",
        "",
    ],
)
def test_an_architecture_is_read_and_never_run(
    expression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackboneError, match="not understood"):
        parse_architecture(expression)
    assert not list(tmp_path.iterdir())


def test_the_family_without_public_names_is_on_the_allow_list() -> None:
    said = "timm.models.efficientnet._gen_mobilenet_v1('mobilenetv1_100', channel_multiplier=0.25, pad_type='same')"
    parsed = parse_architecture(said)
    assert parsed.arguments == {"family": "_gen_mobilenet_v1", "channel_multiplier": 0.25, "pad_type": "same"}


def test_another_input_size_moves_the_position_table_too(tmp_path: Path) -> None:
    tensors = timm.create_model("test_vit", num_classes=0).state_dict()
    path = save(tmp_path / "a.safetensors", tensors, {"architecture": "test_vit"})
    plain, sized = open_backbone(path), open_backbone(path, input_size=96)
    assert sized.transform.to_dict()["height"] == 96
    with torch.no_grad():
        assert sized.module(torch.randn(1, 3, 96, 96)).shape == (1, plain.width)
    assert sized.architecture.arguments["img_size"] == [96, 96]
    assert sized.weights_digest != plain.weights_digest


def test_a_network_for_other_channels_is_refused() -> None:
    with pytest.raises(BackboneError, match="3 channels"):
        image_transform({"input_size": (1, 28, 28)})


@pytest.mark.parametrize(("name", "head"), [("resnet18", True), ("squeezenet1_1", False), ("mobilenet_v3_small", True)])
def test_torchvisions_networks_lose_their_head(name: str, head: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = models.get_model(name, weights=None, num_classes=5).eval()
    path = save(tmp_path / "a.safetensors", network.state_dict(), {"arch": f"torchvision.models.{name}"})
    backbone = open_backbone(path)
    rows = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        features, logits = backbone.module(rows), network(rows)
    assert features.shape == (2, backbone.width)
    assert (backbone.source_head is not None) is head
    if backbone.source_head is not None:
        assert torch.allclose(backbone.source_head(features), logits, atol=1e-5)
    else:
        assert torch.allclose(features, network.features(rows).mean((2, 3)), atol=1e-5)
    assert backbone.transform.to_dict()["crop_fraction"] == pytest.approx(0.875)


@pytest.mark.parametrize(
    "name",
    [
        "resnet10t",
        "mobilenetv4_conv_small",
        "deit_tiny_distilled_patch16_224",
        "ghostnet_050",
        "repvit_m0_9",
        "test_nfnet",
    ],
)
def test_heads_of_every_make_come_off(name: str, tmp_path: Path) -> None:
    network = timm.create_model(name, num_classes=3).eval()
    backbone = open_backbone(save(tmp_path / "a.safetensors", network.state_dict(), {"architecture": name}))
    rows = backbone.example_input(1)[0]
    with torch.no_grad():
        features = backbone.module(rows)
        assert features.shape == (1, backbone.width)
        if backbone.source_head is not None:
            assert torch.allclose(backbone.source_head(features), network(rows), atol=1e-4)


def test_a_network_without_a_head_to_take_is_refused() -> None:
    with pytest.raises(BackboneError, match="no classifier"):
        take_head(nn.Sequential(nn.ReLU()), "x")


def test_a_network_built_by_timm_is_opened_as_a_copy(network: nn.Module) -> None:
    backbone = open_backbone(network)
    rows = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone.module(rows), reference(network, rows)[0])
    assert backbone.module is not network
    assert backbone.source_head is not None
    with pytest.raises(BackboneError, match="rebuild its network"):
        open_backbone(nn.Linear(1, 1))
