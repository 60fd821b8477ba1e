"""VGG-16 with its ImageNet convolutions: Flatten, then a head on 7 x 7 places."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torchvision import models

from headstart.backbones import open_backbone
from headstart.core.errors import BackboneError
from headstart.data import open_dataset
from headstart.features import extract_features
from headstart.methods import FeatureExtraction
from vgg_weights import read_arrays, vgg16_folder


def test_a_pickle_of_anything_but_arrays_is_refused() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    plain = pickle.dumps({"a": array}, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert np.array_equal(read_arrays(plain)["a"], array)
    with pytest.raises(pickle.UnpicklingError, match="may not name"):
        read_arrays(pickle.dumps(print))


@pytest.fixture(scope="module")
def folder() -> Path:
    return vgg16_folder()


@pytest.mark.golden
def test_its_convolutions_are_torchvisions(folder: Path) -> None:
    with pytest.raises(BackboneError, match=r"missing \(pre_logits.fc1.bias"):
        open_backbone(folder)
    backbone = open_backbone(folder, until="features.30")
    assert (backbone.width, backbone.licence) == (7 * 7 * 512, "bsd-3-clause")
    assert [block.name for block in backbone.blocks][:2] == ["features.4", "features.9"]
    with torch.device("meta"):
        reference = models.vgg16().features.eval()
    tensors = load_file(folder / "model.safetensors")
    reference.load_state_dict({name.removeprefix("features."): item for name, item in tensors.items()}, assign=True)
    rows = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(backbone.module(rows), reference(rows).flatten(1))


@pytest.mark.golden
def test_its_knowledge_tells_ants_from_bees(folder: Path, shared_data: Path, tmp_path: Path) -> None:
    """Flatten and a solved head on 60 pictures at half the size, then 60 others: 0.87 right, 0.67 with random weights."""
    for kind in ("ants", "bees"):
        photos = sorted((shared_data / "hymenoptera" / "train" / kind).glob("*.jpg"))[:60]
        for place, photo in enumerate(photos):
            target = tmp_path / ("train" if place % 2 else "test") / kind / photo.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photo, target)
    train, test = (open_dataset(tmp_path / part) for part in ("train", "test"))
    accuracy = {}
    known = open_backbone(folder, until="features.30", input_size=112)
    for backbone in (known, known.with_random_weights(0)):
        features = extract_features(train, backbone, store=False)
        assert features.values_nd.shape == (60, 3 * 3 * 512)
        model = FeatureExtraction(head="ridge", memo=False).fit(backbone, features, train.targets, train.task)
        right = model.predict(test, store=False).scores.argmax(1) == test.targets
        accuracy[backbone is known] = right.mean()
    assert accuracy[True] >= 0.8
    assert accuracy[False] <= 0.75
