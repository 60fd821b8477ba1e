"""A tiny real data set and tiny real networks, so that every path runs in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from headstart.backbones import Architecture, Backbone
from headstart.backbones.tokens import Tokenizer
from headstart.core.preprocessing import ImageTransform, TextTransform
from headstart.features import FeatureStore

SIZE = 16


class TinyNetwork(nn.Module):
    """Two convolutions with normalisation, one of which is also used elsewhere, and a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.normal = nn.BatchNorm2d(12)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.normal(self.second(self.first(pixels))).relu().mean((2, 3))


class TinyTextNetwork(nn.Module):
    """Mean of token vectors over real tokens, then a layer."""

    def __init__(self, words: int = 50) -> None:
        super().__init__()
        self.vectors = nn.Embedding(words, 6)
        self.out = nn.Linear(6, 5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        weight = attention_mask.unsqueeze(-1).to(self.vectors.weight.dtype)
        return self.out((self.vectors(input_ids) * weight).sum(1) / weight.sum(1).clamp(min=1))


def build_backbone(seed: int = 0) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TinyNetwork()
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.running_mean, -0.5, 0.5)
                nn.init.uniform_(part.running_var, 0.5, 2)
                nn.init.uniform_(part.weight, 0.5, 2)
                nn.init.uniform_(part.bias, 0, 1)
    transform = ImageTransform(SIZE, SIZE)
    return Backbone(Architecture("timm", f"tiny-{seed}"), network.eval(), transform, name="tiny", width=12)


def write_images(folder: Path, count: int, seed: int = 0) -> Path:
    random = np.random.default_rng(seed)
    for at in range(count):
        place = folder / ("odd" if at % 2 else "even")
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{at:04d}.png")
    return folder


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, with no engine left over from another test."""
    from headstart.features import engine

    engine._idle.clear()
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "store")


@pytest.fixture
def backbone() -> Backbone:
    return build_backbone()


@pytest.fixture
def make_backbone() -> Callable[..., Backbone]:
    return build_backbone


@pytest.fixture
def make_images() -> Callable[..., Path]:
    return write_images


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos", 24)


@pytest.fixture
def text_backbone() -> Backbone:
    pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, **{f"w{at}": at for at in range(1, 50)}}
    content = json.dumps(
        {
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": {"type": "Whitespace"},
            "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"},
        }
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = TinyTextNetwork().eval()
    tokenizer = Tokenizer(content)
    transform = TextTransform(64, tokenizer_digest=tokenizer.digest)
    return Backbone(
        Architecture("transformers", "tiny"), network, transform, name="tiny-text", width=5, tokenizer=tokenizer
    )


@pytest.fixture
def forbid_network(monkeypatch: pytest.MonkeyPatch) -> Callable[[Backbone], Backbone]:
    """Return a function that makes a copy of a backbone whose network may not be touched."""

    def without(backbone: Backbone) -> Backbone:
        class Guarded(Backbone):
            def __init__(self) -> None:
                self.__dict__.update({key: item for key, item in backbone.__dict__.items() if key != "module"})
                self.__dict__["weights_digest"] = backbone.weights_digest

            @property
            def module(self) -> nn.Module:  # type: ignore[override]
                raise AssertionError("the network was asked for")

        return Guarded()

    return without
