"""Encoders of transformers, opened from folders in the hub's format with small random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from headstart.backbones import Backbone, build_backbone, open_backbone
from headstart.core.errors import BackboneError
from headstart.core.preprocessing import ImageTransform, TextTransform
from small_encoders import IMAGE_KINDS, TEXT, TEXT_KINDS, TEXTS, VISION, inputs, make, save_tokenizer


def check_cuts(backbone: Backbone, least: int) -> None:
    rows = inputs(backbone)
    assert len(backbone.stages) >= least + 2
    with torch.no_grad():
        whole = backbone.module(*rows)
        for stage in backbone.stages:
            prefix, suffix = backbone.cut(stage)
            halfway = prefix(*rows)
            assert torch.equal(suffix(*halfway) if isinstance(halfway, tuple) else suffix(halfway), whole), stage


def check_saved(backbone: Backbone, folder: Path) -> None:
    if backbone.modality == "text":
        backbone.save_tokenizer(folder)
    again = build_backbone(json.loads(json.dumps(backbone.spec())), backbone.state_dict(), folder)
    rows = inputs(backbone)
    with torch.no_grad():
        assert torch.equal(again.module(*rows), backbone.module(*rows))
    assert again.weights_digest == backbone.weights_digest
    assert again.transform == backbone.transform


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_text_encoders_pool_the_mean_of_their_real_tokens(kind: str, tmp_path: Path) -> None:
    model = make(tmp_path / "net", kind, TEXT_KINDS[kind])
    backbone = open_backbone(tmp_path / "net")
    input_ids, mask = backbone.collate(backbone.tokenize(TEXTS))
    with torch.no_grad():
        hidden = model(input_ids=input_ids, attention_mask=mask).last_hidden_state.double().numpy()
        features = backbone.module(input_ids, mask).numpy()
    expected = [row[: int(length)].mean(0) for row, length in zip(hidden, mask.sum(1), strict=True)]
    assert np.allclose(features, expected, atol=1e-5)
    assert backbone.width == features.shape[1] == 16
    check_cuts(backbone, 4)
    check_saved(backbone, tmp_path / "saved")


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_image_encoders_open_with_their_own_pooling(kind: str, tmp_path: Path) -> None:
    model = make(tmp_path / "net", kind, IMAGE_KINDS[kind], size={"height": 32, "width": 32})
    backbone = open_backbone(tmp_path / "net")
    rows = inputs(backbone)[0]
    with torch.no_grad():
        output = model(pixel_values=rows)
        features = backbone.module(rows)
    # the poolers of vit and deit are dense layers of their pretraining task; what transfers is the class token
    own = kind not in {"vit", "deit"}
    expected = output.pooler_output.flatten(1) if own else output.last_hidden_state[:, 0]
    assert torch.equal(features, expected)
    check_cuts(backbone, 4)
    check_saved(backbone, tmp_path)


@pytest.mark.golden
def test_a_network_with_two_towers_gives_the_one_asked_for(tmp_path: Path) -> None:
    config = {"text_config": TEXT, "vision_config": VISION, "projection_dim": 8}
    make(tmp_path, "clip", config, size={"shortest_edge": 32}, crop_size=32)
    save_tokenizer(tmp_path)
    image, text = open_backbone(tmp_path), open_backbone(f"transformers:{tmp_path}#text")
    assert (image.modality, text.modality) == ("image", "text")
    assert not any("text_model" in name for name in image.state_dict())
    check_cuts(image, 4)
    check_cuts(text, 4)
    check_saved(text, tmp_path / "saved")


def test_a_task_head_in_the_file_is_left_out_and_a_missing_pooler_is_not_missed(tmp_path: Path) -> None:
    make(tmp_path, "bert", TEXT, auto="AutoModelForMaskedLM")
    backbone = open_backbone(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert any(name.startswith("cls.") for name in stored)
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, stored[name.replace("encoder.", "bert.", 1)])


def test_a_missing_tensor_is_an_error_that_names_it(tmp_path: Path) -> None:
    make(tmp_path, "bert", TEXT)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors.pop("encoder.layer.1.output.dense.weight")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"1 tensor missing .*encoder\.layer\.1\.output\.dense\.weight"):
        open_backbone(tmp_path)


def test_a_tensor_of_another_shape_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, "bert", TEXT)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["embeddings.word_embeddings.weight"] = torch.zeros(41, 16)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(BackboneError):
        open_backbone(tmp_path)


def test_folders_without_safe_weights_or_tokenizer_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "bert", TEXT)
    path = tmp_path / "model.safetensors"
    for file in tmp_path.glob("token*"):
        file.unlink()
    with pytest.raises(BackboneError, match="holds no tokenizer"):
        open_backbone(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BackboneError, match=r"damaged|cannot open"):
        open_backbone(tmp_path)
    path.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="can run code when read"):
        open_backbone(tmp_path)


def test_a_tokenizer_of_another_network_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "bert", {**TEXT, "vocab_size": 39})
    with pytest.raises(BackboneError, match="has 40 tokens, the network 39"):
        open_backbone(tmp_path)


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "bert", TEXT)
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "no-such-kind", "auto_map": {"AutoModel": "evil.X"}})
    )
    with pytest.raises(BackboneError, match="cannot build 'no-such-kind'"):
        open_backbone(tmp_path)


@pytest.mark.parametrize(
    ("said", "pooling"),
    [({"pooling_mode_cls_token": True}, "first"), ({"pooling_mode_lasttoken": True}, "last"), ({}, "mean")],
)
def test_pooling_follows_a_sentence_model(said: dict[str, bool], pooling: str, tmp_path: Path) -> None:
    model = make(tmp_path, "bert", TEXT)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(said))
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 9}')
    backbone = open_backbone(tmp_path)
    transform = backbone.transform
    assert isinstance(transform, TextTransform)
    assert (transform.pooling, transform.max_tokens) == (pooling, 9)
    input_ids, mask = backbone.collate(backbone.tokenize(TEXTS))
    with torch.no_grad():
        hidden = model(input_ids=input_ids, attention_mask=mask).last_hidden_state
        features = backbone.module(input_ids, mask)
    place = {"first": 0, "last": int(mask[1].sum()) - 1}.get(pooling)
    expected = hidden[1, place] if place is not None else hidden[1, : int(mask[1].sum())].mean(0)
    assert torch.allclose(features[1], expected, atol=1e-6)


def test_the_longest_text_is_the_least_that_anyone_says(tmp_path: Path) -> None:
    make(tmp_path, "roberta", {**TEXT, "max_position_embeddings": 20, "pad_token_id": 1})
    backbone = open_backbone(tmp_path)
    assert backbone.transform.to_dict()["max_tokens"] == 18  # positions start after the padding number
    long = backbone.collate(backbone.tokenize(["w1 " * 99]))
    assert long[0].shape == (1, 18)
    assert torch.isfinite(backbone.module(*long)).all()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            {"size": {"height": 32, "width": 32}, "resample": 3, "image_mean": [0.1] * 3, "image_std": [0.2] * 3},
            ImageTransform(32, 32, 1.0, "bicubic", (0.1,) * 3, (0.2,) * 3, "squash"),
        ),
        (
            {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "resample": 2},
            ImageTransform(32, 32, 0.8, "bilinear", (0.5,) * 3, (0.5,) * 3, "crop"),
        ),
        (
            {"size": {"shortest_edge": 32}, "crop_pct": 0.875, "resample": 1, "do_normalize": False},
            ImageTransform(32, 32, 0.875, "lanczos", (0.0,) * 3, (1.0,) * 3, "crop"),
        ),
        (
            {"size": 32, "rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
            ImageTransform(32, 32, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3, "squash"),
        ),
    ],
)
def test_preprocessing_is_read_from_the_folder(said: dict[str, Any], expected: ImageTransform, tmp_path: Path) -> None:
    make(tmp_path, "vit", VISION, **said)
    assert open_backbone(tmp_path).transform == expected


def test_random_weights_keep_the_tokenizer(tmp_path: Path) -> None:
    make(tmp_path, "bert", TEXT)
    backbone = open_backbone(tmp_path)
    fresh = backbone.with_random_weights(1)
    assert fresh.tokenize(TEXTS) == backbone.tokenize(TEXTS)
    rows = inputs(backbone)
    with torch.no_grad():
        assert not torch.equal(fresh.module(*rows), backbone.module(*rows))


def test_a_saved_text_model_refuses_another_tokenizer(tmp_path: Path) -> None:
    make(tmp_path, "bert", TEXT)
    backbone = open_backbone(tmp_path)
    backbone.save_tokenizer(tmp_path / "saved")
    file = tmp_path / "saved" / "tokenizer.json"
    file.write_text(file.read_text().replace("w7", "w99"))
    with pytest.raises(BackboneError, match="not the one"):
        build_backbone(backbone.spec(), backbone.state_dict(), tmp_path / "saved")
    with pytest.raises(BackboneError, match="give the folder of its tokenizer"):
        build_backbone(backbone.spec(), backbone.state_dict())
