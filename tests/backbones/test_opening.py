"""What a user types, what is refused, and saved backbones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models

from headstart.backbones import Backbone, build_backbone, open_backbone, vector_backbone
from headstart.backbones.cost import count_multiply_adds
from headstart.core.errors import BackboneError, OfflineError

NAME = "test_resnet"


def weights_file(path: Path, name: str = NAME, num_classes: int = 5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    save_file(timm.create_model(name, num_classes=num_classes).state_dict(), path)
    path.with_suffix(".json").write_text(json.dumps({"architecture": name}))
    return path


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    return open_backbone(weights_file(tmp_path / "net.safetensors"), input_size=64)


@pytest.mark.parametrize("name", ["timm:resnet18", "resnet18.a1_in1k", "torchvision:resnet18", "transformers:org/net"])
def test_weights_that_only_a_hub_has_are_refused_with_the_folder_to_put_them_in(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(tmp_path / "mine"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(OfflineError, match="set to work offline; put ") as refusal:
        open_backbone(name)
    library = name.partition(":")[0] if ":" in name else "timm"
    assert str(tmp_path / "mine" / library) in str(refusal.value)


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18", "transformers:org/net"])
def test_a_hub_out_of_reach_gives_the_same_advice(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_OFFLINE", "0")
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(tmp_path / "mine"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    asked: list[bool] = []

    def download(*_: Any, local_files_only: bool = False, **__: Any) -> str:
        asked.append(local_files_only)
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", download)
    with pytest.raises(OfflineError, match=r"(reached|fetched) \(OSError\); put "):
        open_backbone(name)
    assert asked == ([False] if name.startswith("torchvision") else [True, False])


def test_what_a_user_put_into_the_weights_folder_is_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(tmp_path))
    weights_file(tmp_path / "timm" / f"{NAME}.r160_in1k.safetensors").with_suffix(".json").unlink()
    for name in (f"timm:{NAME}", f"{NAME}.r160_in1k"):
        found = open_backbone(name)
        assert found.name == f"timm:{name.removeprefix('timm:')}"
        assert found.transform.to_dict()["height"] == 160
    (tmp_path / "torchvision").mkdir()
    save_file(models.squeezenet1_1().state_dict(), tmp_path / "torchvision" / "squeezenet1_1.safetensors")
    assert open_backbone("torchvision:squeezenet1_1").width == 512


def test_what_the_hub_library_kept_is_used_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(tmp_path / "mine"))
    weights_file(tmp_path / "kept" / "model.safetensors")
    (tmp_path / "kept" / "model.json").rename(tmp_path / "kept" / "config.json")

    def kept(repository: str, *, local_files_only: bool, **_: Any) -> str:
        assert local_files_only
        assert repository == f"timm/{NAME}.r160_in1k"
        return str(tmp_path / "kept")

    monkeypatch.setattr("huggingface_hub.snapshot_download", kept)
    assert open_backbone(f"timm:{NAME}").origin == f"timm's timm/{NAME}.r160_in1k"


@pytest.mark.parametrize(
    "name", ["timm:../../etc", "transformers:/etc", "transformers:a/b/c", "timm:", "torchvision:a/.."]
)
def test_a_name_cannot_climb_out_of_the_weights_folder(name: str) -> None:
    with pytest.raises(BackboneError, match=r"a name in|no network|holds"):
        open_backbone(name)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("efficientnet-lite-0", "efficientnet-lite0"), ("resnet19", "resnet18"), ("timm:resnt50", "resnet50")],
)
def test_a_wrong_name_is_refused_with_the_nearest(name: str, suggestion: str) -> None:
    with pytest.raises(BackboneError, match="Did you mean") as refusal:
        open_backbone(name)
    assert suggestion[:6] in str(refusal.value)


def test_a_folder_that_happens_to_have_a_networks_name_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(tmp_path / "mine"))
    (tmp_path / "resnet18").mkdir()
    with pytest.raises(OfflineError):
        open_backbone("resnet18")


def test_a_saved_backbone_is_rebuilt_bit_for_bit(backbone: Backbone) -> None:
    spec = json.loads(json.dumps(backbone.spec()))
    again = build_backbone(spec, backbone.state_dict())
    rows = backbone.example_input(2)[0]
    with torch.no_grad():
        assert torch.equal(again.module(rows), backbone.module(rows))
    assert again.weights_digest == backbone.weights_digest
    assert again.transform == backbone.transform
    assert again.spec() == spec
    assert not again.module.training


def test_a_saved_backbone_with_a_tensor_missing_is_refused(backbone: Backbone) -> None:
    weights = backbone.state_dict()
    weights.pop("layer4.0.conv1.weight")
    with pytest.raises(BackboneError, match=r"build_backbone: .*1 tensor missing \(layer4\.0\.conv1\.weight\)"):
        build_backbone(backbone.spec(), weights)
    with pytest.raises(BackboneError, match="source is one of"):
        build_backbone({**backbone.spec(), "architecture": {"source": "pickle", "name": "x"}}, weights)


def test_random_weights_are_fresh_seeded_and_leave_the_global_stream_alone(backbone: Backbone) -> None:
    rows = backbone.example_input(1)[0]
    torch.manual_seed(7)
    first = backbone.with_random_weights(0)
    drawn = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(1))
    same, other = backbone.with_random_weights(0), backbone.with_random_weights(1)
    with torch.no_grad():
        features = [item.module(rows) for item in (backbone, first, same, other)]
    assert torch.equal(features[1], features[2])
    assert not torch.equal(features[0], features[1])
    assert not torch.equal(features[1], features[3])
    assert len({backbone.weights_digest, first.weights_digest, other.weights_digest}) == 3
    assert first.source_head is None
    assert "seed 0" in first.origin


def test_the_facts_are_those_counted_by_hand(backbone: Backbone) -> None:
    info = backbone.info
    assert info.parameters == sum(parameter.numel() for parameter in backbone.module.parameters())
    assert info.size_bytes == sum(tensor.numel() * 4 for tensor in backbone.state_dict().values())
    assert (info.name, info.modality, info.source) == (backbone.name, "image", "timm")
    assert json.dumps(info.to_dict())
    assert info.multiply_adds > 1e6


@pytest.mark.golden
def test_stages_run_from_input_to_features(backbone: Backbone) -> None:
    stages = backbone.stages
    assert (stages[0].name, stages[0].fraction, stages[0].shape) == ("input", 0.0, (3, 64, 64))
    assert (stages[-1].name, stages[-1].fraction, stages[-1].shape) == ("features", 1.0, (backbone.width,))
    assert [stage.index for stage in stages] == list(range(len(stages)))
    fractions = [stage.fraction for stage in stages]
    assert fractions == sorted(fractions)
    work = count_multiply_adds(backbone.cut("layer2")[0], backbone.example_input(1))
    assert backbone.stage("layer2").fraction == pytest.approx(work / backbone.info.multiply_adds)


@pytest.mark.golden
@pytest.mark.parametrize("stage", [0, 5, "layer2", -2, "features", "input"])
def test_the_two_halves_give_what_the_whole_gives(backbone: Backbone, stage: int | str) -> None:
    prefix, suffix = backbone.cut(stage)
    rows = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(suffix(prefix(rows)), backbone.module(rows))
        assert tuple(prefix(rows).shape[1:]) == backbone.stage(stage).shape
        assert torch.equal(backbone.cut(backbone.stage(stage))[0](rows), prefix(rows))


@pytest.mark.parametrize("stage", ["layer9", 999, -999])
def test_a_stage_that_is_not_there_is_refused(backbone: Backbone, stage: int | str) -> None:
    with pytest.raises(BackboneError, match="has no stage"):
        backbone.cut(stage)


def test_the_vector_backbone_is_the_identity() -> None:
    backbone = vector_backbone(4)
    rows = torch.randn(2, 4)
    assert torch.equal(backbone.module(rows), rows)
    assert [stage.name for stage in backbone.stages] == ["input", "features"]
    assert backbone.info.multiply_adds == backbone.info.parameters == 0
    assert build_backbone(backbone.spec(), backbone.state_dict()).weights_digest == backbone.weights_digest
    assert vector_backbone(5).weights_digest != backbone.weights_digest
    with pytest.raises(BackboneError, match="not text"):
        backbone.tokenize(["a"])
    with pytest.raises(BackboneError, match="features already"):
        backbone.cut("middle")


def test_a_backbone_opens_as_itself(backbone: Backbone) -> None:
    assert open_backbone(backbone) is backbone
