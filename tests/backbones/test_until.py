"""Networks that end at a stage: exact features, saved and rebuilt, extracted by every engine; weights that end early."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision import models

from headstart.backbones import Backbone, build_backbone, open_backbone, vector_backbone
from headstart.backbones.weights import build_unset, fill
from headstart.core.errors import BackboneError
from headstart.data import open_dataset
from headstart.features import extract_features
from headstart.methods import FeatureExtraction
from headstart.model import load_model
from small_encoders import IMAGE_KINDS, TEXT_KINDS, inputs, make

pytestmark = pytest.mark.golden


def rebuilt(backbone: Backbone, folder: Path | None = None) -> Backbone:
    return build_backbone(json.loads(json.dumps(backbone.spec())), backbone.state_dict(), folder)


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    torch.manual_seed(1)
    network = timm.create_model("test_resnet", num_classes=5, zero_init_last=False)
    return open_backbone(network, input_size=64)


@pytest.mark.parametrize("stage", ["maxpool", "layer2", "layer4"])
def test_features_are_the_activations_flattened_or_averaged(resnet: Backbone, stage: str) -> None:
    rows = torch.randn(2, 3, 64, 64)
    shape = resnet.stage(stage).shape
    flat, mean = resnet.until(stage), resnet.until(stage, "mean")
    with torch.no_grad():
        hidden = resnet.cut(stage)[0](rows).numpy()
        assert np.array_equal(flat.module(rows).numpy(), hidden.reshape(2, -1))
        assert np.allclose(mean.module(rows).numpy(), hidden.astype(np.float64).mean((2, 3)), atol=1e-5)
    assert (flat.width, mean.width) == (np.prod(shape), shape[0])
    assert len({resnet.weights_digest, flat.weights_digest, mean.weights_digest}) == 3
    assert flat.source_head is None
    assert f"until {stage} (flattened)" in flat.name


def test_only_the_weights_used_are_saved_and_they_rebuild_it(resnet: Backbone) -> None:
    short = resnet.until("layer2")
    kept = set(short.state_dict())
    assert kept == {name for name in resnet.state_dict() if not name.startswith(("layer3", "layer4"))}
    again = rebuilt(short)
    rows = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again.module(rows), short.module(rows))
    assert again.weights_digest == short.weights_digest
    assert again.width == short.width
    with pytest.raises(BackboneError, match="1 tensor missing"):
        build_backbone(short.spec(), dict(list(short.state_dict().items())[1:]))


def test_a_shortened_network_has_stages_blocks_copies_and_random_twins(resnet: Backbone) -> None:
    short = resnet.until("layer3", "mean")
    assert [block.name for block in short.blocks] == ["maxpool", "layer1", "layer2", "layer3", "features"]
    assert [block.name for block in rebuilt(short).blocks] == [block.name for block in short.blocks]
    assert [block.name for block in short.copy().blocks] == [block.name for block in short.blocks]
    again = short.until("layer1")
    assert again.architecture == resnet.until("layer1").architecture
    assert again.weights_digest == resnet.until("layer1").weights_digest
    assert again.name == resnet.until("layer1").name
    rows = torch.randn(2, 3, 64, 64)
    fresh = short.with_random_weights(3)
    assert fresh.state_dict().keys() == short.state_dict().keys()
    with torch.no_grad():
        assert fresh.module(rows).shape == (2, short.width)
        assert not torch.equal(fresh.module(rows), short.module(rows))
        assert torch.equal(short.copy().module(rows), short.module(rows))
    assert short.info.parameters < resnet.info.parameters
    assert short.info.multiply_adds < resnet.info.multiply_adds


def test_what_cannot_be_shortened_is_refused(resnet: Backbone) -> None:
    assert resnet.until("features", "mean") is resnet
    with pytest.raises(BackboneError, match="give vector rows"):
        resnet.until("input")
    with pytest.raises(BackboneError, match="pool is one of flatten, mean; got 'max'"):
        resnet.until("layer1", "max")  # type: ignore[arg-type]
    with pytest.raises(BackboneError, match="has no stage 'layer7'"):
        resnet.until("layer7")
    with pytest.raises(BackboneError, match="no stage"):
        vector_backbone(3).until("middle")


@pytest.mark.parametrize(
    ("name", "arguments", "size", "stage", "dimensions"),
    [
        ("vit_tiny_patch16_224", {"img_size": 32, "depth": 2}, 32, "blocks.0", 1),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 56, "embed_dim": 24, "depths": (1, 1), "num_heads": (2, 2)},
            56,
            "layers.0",
            (1, 2),
        ),
    ],
)
def test_places_are_tokens_or_come_before_the_channels(
    name: str, arguments: dict[str, Any], size: int, stage: str, dimensions: Any, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    backbone = open_backbone(timm.create_model(name, num_classes=0, **arguments))
    short = backbone.until(stage, "mean")
    rows = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = backbone.cut(stage)[0](rows).double().mean(dimensions)
        assert torch.allclose(short.module(rows).double(), expected, atol=1e-5)
        again = rebuilt(short)
        assert torch.equal(again.module(rows), short.module(rows))
    assert again.state_dict().keys() == short.state_dict().keys() <= backbone.state_dict().keys()


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
@pytest.mark.parametrize("pool", ["flatten", "mean"])
def test_every_engine_extracts_the_activations_and_a_model_keeps_them(
    resnet: Backbone, tmp_path: Path, runtime: str, pool: Any
) -> None:
    random = np.random.default_rng(0)
    for place in range(12):
        image = tmp_path / "photos" / ("bright" if place % 2 else "dark") / f"{place}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 100 + 155 * (place % 2), (64, 64, 3), dtype=np.uint8)).save(image)
    data = open_dataset(tmp_path / "photos")
    assert data.targets is not None
    assert data.task is not None
    short = resnet.until("layer3", pool)
    features = extract_features(data, short, store=False, runtime=runtime)
    inside = extract_features(data, resnet, store=False, runtime=runtime, stage="layer3").values_nd
    expected = inside.reshape(12, -1) if pool == "flatten" else inside.mean((2, 3))
    assert features.values_nd.shape == (12, short.width)
    assert np.linalg.norm(features.values_nd - expected) <= 0.02 * np.linalg.norm(
        expected
    )  # int8 is not among the runtimes
    model = FeatureExtraction(head="ridge", memo=False).fit(short, features, data.targets, data.task)
    loaded = load_model(model.save(tmp_path / "model"))
    assert loaded.backbone.architecture == short.architecture
    assert loaded.backbone.weights_digest == short.weights_digest
    kept = load_file(tmp_path / "model" / "model.safetensors")
    assert not any(name.startswith("backbone.layer4") for name in kept)
    scores = [item.predict(tmp_path / "photos", store=False, runtime=runtime).scores for item in (model, loaded)]
    assert np.array_equal(*scores)


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_texts_end_at_the_mean_over_real_tokens(kind: str, tmp_path: Path) -> None:
    make(tmp_path / "net", kind, TEXT_KINDS[kind])
    backbone = open_backbone(tmp_path / "net")
    rows = inputs(backbone)
    stage = backbone.stages[3]
    short = backbone.until(stage, "mean")
    with torch.no_grad():
        hidden, mask = backbone.cut(stage)[0](*rows)
        features = short.module(*rows)
    for row in range(len(features)):
        expected = hidden[row, : int(mask[row].sum())].double().mean(0)
        assert torch.allclose(features[row].double(), expected, atol=1e-5)
    assert len(short.state_dict()) < len(backbone.state_dict())
    short.save_tokenizer(tmp_path)
    again = rebuilt(short, tmp_path)
    with torch.no_grad():
        assert torch.equal(again.module(*rows), features)
    assert again.weights_digest == short.weights_digest != backbone.weights_digest
    assert [item.name for item in short.stages[:-1]] == [item.name for item in backbone.stages[: stage.index + 1]]
    with pytest.raises(BackboneError, match="texts differ in length"):
        backbone.until(stage)


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_image_encoders_of_transformers_end_at_a_layer(kind: str, tmp_path: Path) -> None:
    make(tmp_path, kind, IMAGE_KINDS[kind], size={"height": 32, "width": 32})
    backbone = open_backbone(tmp_path)
    rows = inputs(backbone)
    stage = backbone.stages[2]
    flat = open_backbone(tmp_path, until=stage.name)
    with torch.no_grad():
        hidden = backbone.cut(stage)[0](*rows)
        assert torch.equal(flat.module(*rows), hidden.flatten(1))
        assert torch.equal(rebuilt(flat).module(*rows), flat.module(*rows))
        mean = backbone.until(stage, "mean").module(*rows)
    assert torch.allclose(mean, hidden.mean((2, 3)) if hidden.ndim == 4 else hidden.mean(1), atol=1e-6)


def weights_folder(folder: Path, keep: tuple[str, ...], name: str = "test_resnet", side: int = 64) -> dict[str, Tensor]:
    """Save a part of a network as the hub lays it out, and return it."""
    torch.manual_seed(0)
    network = build_unset(lambda: timm.create_model(name, num_classes=0))
    state = {key: torch.randn(item.shape).abs() for key, item in network.state_dict().items() if key.startswith(keep)}
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "model.safetensors")
    config = {"architecture": name, "pretrained_cfg": {"input_size": [3, side, side]}}
    (folder / "config.json").write_text(json.dumps(config))
    return state


def test_weights_that_end_early_open_until_there_and_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    state = weights_folder(folder, ("conv1", "bn1", "layer1", "layer2"))
    with pytest.raises(BackboneError, match=r"missing \(layer3"):
        open_backbone(folder)
    backbone = open_backbone(folder, until="layer2")
    assert backbone.width == 48 * 8 * 8
    assert backbone.state_dict().keys() == {name for name in state if "num_batches" not in name}
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.state_dict().items())
    assert open_backbone(folder, until="layer1", pool="mean", input_size=32).width == 32
    with pytest.raises(BackboneError, match=r"missing \(layer3"):
        open_backbone(folder, until="layer3")
    with pytest.raises(BackboneError, match=r"has no stage 'layer9'; it has conv1"):
        open_backbone(folder, until="layer9")


def test_a_tensor_missing_before_the_stage_or_unknown_is_still_an_error(tmp_path: Path) -> None:
    state = weights_folder(tmp_path, ("conv1", "bn1", "layer1"))
    save_file({**state, "strange": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(BackboneError, match=r"1 tensor left over \(strange\)"):
        open_backbone(tmp_path, until="layer1")
    state.pop("layer1.0.conv1.weight")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(BackboneError, match=r"1 tensor missing \(layer1.0.conv1.weight\)"):
        open_backbone(tmp_path, until="layer1")


def test_a_head_in_the_file_is_ignored_with_the_rest_behind_the_stage(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = timm.create_model("test_resnet", num_classes=7).state_dict()
    weights_folder(tmp_path, ("conv1",))
    save_file(state, tmp_path / "model.safetensors")
    whole, short = open_backbone(tmp_path), open_backbone(tmp_path, until="layer3", pool="mean")
    assert short.weights_digest == whole.until("layer3", "mean").weights_digest


@pytest.mark.golden
def test_vgg_opens_without_its_dense_layers(tmp_path: Path) -> None:
    state = weights_folder(tmp_path, ("features.",), "vgg11")
    with pytest.raises(BackboneError, match=r"4 tensors missing \(pre_logits"):
        open_backbone(tmp_path)
    backbone = open_backbone(tmp_path, until="features.20")
    assert backbone.width == 512 * 2 * 2
    reference = timm.create_model("vgg11", num_classes=0).features.eval()
    reference.load_state_dict({name.removeprefix("features."): item for name, item in state.items()})
    rows = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone.module(rows), reference(rows).flatten(1))


def test_torchvision_weights_may_end_early_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = models.squeezenet1_1()
    state = {name: item for name, item in network.state_dict().items() if name.startswith(("features.0", "features.3"))}
    file = tmp_path / "net.safetensors"
    save_file(state, file)
    file.with_suffix(".json").write_text('{"architecture": "torchvision.models.squeezenet1_1"}')
    with pytest.raises(BackboneError, match="missing"):
        open_backbone(file)
    backbone = open_backbone(file, until="features.3", pool="mean")
    assert backbone.width == 128
    assert len(backbone.state_dict()) == len(state)


@pytest.mark.parametrize("until", [None, "layer2"])
def test_a_backbone_given_is_shortened_by_the_same_words(resnet: Backbone, until: str | None) -> None:
    short = open_backbone(resnet, until=until, pool="mean")
    assert short.weights_digest == (resnet if until is None else resnet.until(until, "mean")).weights_digest
    assert open_backbone(short, until="layer1").width == resnet.until("layer1").width


class Drawn(nn.Module):
    """Keeps a random tensor that is not saved."""

    def __init__(self, derived: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        noise = torch.empty(3).normal_()
        self.register_buffer("noise", noise * 2 if derived else noise, persistent=False)


@pytest.mark.parametrize("derived", [True, False])
def test_a_network_that_draws_more_than_its_weights_is_built_in_full(derived: bool) -> None:
    torch.manual_seed(5)
    built: list[nn.Module] = []

    def build() -> nn.Module:
        built.append(Drawn(derived))
        return built[-1]

    network = build_unset(build)
    assert len(built) == 2
    assert network.get_buffer("noise").abs().max() < 20
    assert network.get_buffer("noise").std() > 0


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "swin_tiny_patch4_window7_224"])
def test_a_network_left_unset_and_filled_is_the_one_built_in_full(name: str) -> None:
    arguments = {"embed_dim": 24, "depths": (1, 1), "num_heads": (2, 2)} if name.startswith("swin") else {}
    torch.manual_seed(0)
    full = timm.create_model(name, num_classes=0, **arguments).eval()
    drawn = torch.get_rng_state()
    built: list[int] = []

    def build() -> nn.Module:
        built.append(1)
        return timm.create_model(name, num_classes=0, **arguments)

    unset = build_unset(build).eval()
    assert built == [1]
    assert torch.equal(torch.get_rng_state(), drawn)  # nothing was drawn
    fill(unset, full.state_dict(), "test")
    rows = torch.randn(1, *full.pretrained_cfg["input_size"])
    with torch.no_grad():
        assert torch.equal(unset(rows), full(rows))
