"""The from-scratch baseline: it learns, repeats, leaves the given backbone alone, and a broken run is no crash."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from headstart.backbones import Backbone, vector_backbone
from headstart.backbones.architecture import Architecture
from headstart.core.errors import DataError
from headstart.core.preprocessing import ImageTransform
from headstart.data import Dataset, open_dataset
from headstart.methods import FromScratch


def vectors(num_rows: int = 120, kind: str = "classification") -> Dataset:
    random = np.random.default_rng(0)
    values = random.normal(size=(num_rows, 4)).astype(np.float32)
    labels = (values[:, 0] > 0).astype(int) if kind == "classification" else 100 + 5 * values[:, 0]
    return open_dataset(values, labels=[str(label) for label in labels] if kind == "classification" else labels)


def pictures(monkeypatch: pytest.MonkeyPatch) -> tuple[Dataset, Backbone]:
    """Return bright and dark pictures, and a small network for them that can be built with any weights."""

    def build(_: Architecture) -> nn.Module:
        body = (nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(*body).eval()

    monkeypatch.setattr("headstart.backbones.backbone.build_network", build)
    architecture = Architecture("timm", "toy", {})
    backbone = Backbone(architecture, build(architecture), ImageTransform(96, 96), name="toy", width=4)
    random = np.random.default_rng(0)
    labels = np.arange(48) % 2
    pixels = (random.integers(0, 120, (48, 40, 40, 3)) + 120 * labels[:, None, None, None]).astype(np.uint8)
    return open_dataset(pixels, labels=[str(label) for label in labels]), backbone


@pytest.mark.golden
def test_pictures_are_learned_at_their_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    data, backbone = pictures(monkeypatch)
    before = {name: tensor.clone() for name, tensor in backbone.module.state_dict().items()}
    models = [FromScratch(cpu_seconds=1e9, seed=3).fit(data, backbone) for _ in range(2)]
    model = models[0]
    assert model.backbone.transform.height == 64 and backbone.transform.height == 96
    assert model.history.validation_measure[model.history.best] > 0.9 and model.history.batch_size == 8
    scores = model.predict(data, runtime="torch-fp32")
    assert (scores.argmax(1) == data.targets).mean() > 0.9 and scores.sum(1) == pytest.approx(np.ones(48))
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.module.state_dict().items())
    assert torch.equal(models[0].head.weight, models[1].head.weight)


def test_a_budget_is_kept_and_a_broken_run_is_a_poor_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    data, backbone = pictures(monkeypatch)
    for short in (FromScratch(cpu_seconds=1e-6), FromScratch(wall_seconds=1e-6)):
        history = short.fit(data, backbone).history
        assert (history.stopped, history.steps) == ("budget", 1)

    def spoiled(tensor: torch.Tensor, *arguments: float, **options: float) -> torch.Tensor:
        return nn.init.constant_(tensor, float("nan"))

    monkeypatch.setattr(nn.init, "normal_", spoiled)
    broken = FromScratch(cpu_seconds=5).fit(data, backbone)
    assert broken.history.stopped == "error" and any("is nan at step 1" in note for note in broken.history.notes)


def test_rows_without_labels_are_refused() -> None:
    with pytest.raises(DataError, match="needs labelled rows"):
        FromScratch().fit(vectors().unlabelled(), vector_backbone(4))
