"""CyCADA: its steps on tiny images, and digits of one post office's scanner brought to another hand's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from headstart.catalog import resolve
from headstart.core.tasks import Task
from headstart.methods.image_translation import ImageTranslation, cycada
from headstart.training import Network, TrainingConfig, TrainingRows
from training_toys import TASK, ArrayRows

TEN = Task("classification", tuple("0123456789"))


def small(side: int, outputs: int, width: int, seed: int) -> Network:
    torch.manual_seed(seed)
    maps = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
    features = nn.Sequential(nn.Flatten(), nn.Linear(2 * width * (side // 4) ** 2, 4 * width), nn.ReLU())
    return Network({"maps": maps, "features": features}, {"main": nn.Linear(4 * width, outputs)})


def accuracy(network: Network, images: np.ndarray, labels: np.ndarray) -> float:
    with torch.no_grad():
        return float((network(torch.from_numpy(images)).logits.argmax(1).numpy() == labels).mean())


@pytest.mark.golden
@pytest.mark.parametrize("name", ["source-only", "dann"])
def test_its_steps_leave_a_classifier_generators_and_an_adapted_network(name: str) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(24) % 2
    source = (random.random((24, 1, 8, 8)) * 0.2 + labels[:, None, None, None]).astype(np.float32)
    target = (random.random((16, 1, 8, 8)) + 0.5).astype(np.float32)
    rows, others = TrainingRows(ArrayRows(source), labels), TrainingRows(ArrayRows(target), np.zeros(16, np.int64))
    config = TrainingConfig(max_epochs=3, batch_size=8, learning_rate=3e-3, precision="fp32")
    short = TrainingConfig(max_epochs=1, batch_size=8, betas=(0.5, 0.9), schedule="constant", precision="fp32")
    how = ImageTranslation(short, width=4, num_blocks=1)
    found, again = (
        cycada(
            lambda: small(8, 2, 4, 0), rows, others, TASK, config, recipe=resolve(name, "adaptation"), translation=how
        )
        for _ in range(2)
    )
    first, last = found.classifier.state_dict(), found.network.state_dict()
    assert any(not torch.equal(first[key], last[key]) for key in first)
    assert all(torch.equal(tensor, again.network.state_dict()[key]) for key, tensor in last.items())
    images = torch.from_numpy(source)
    assert not torch.equal(found.translator.to_target(images), images)


@pytest.mark.golden
def test_translated_digits_teach_more_of_the_target_than_digits_as_they_are(shared_data: Path) -> None:
    usps, mnist = (np.load(shared_data / "digits" / name) for name in ("usps.npz", "mnist_t10k.npz"))
    train = np.flatnonzero(usps["split"] == 0)[:2000]
    source, labels = usps["images"][train][:, None], usps["labels"][train].astype(np.int64)
    pixels = torch.from_numpy(mnist["images"].astype(np.float32))[:, None]
    smaller = nn.functional.interpolate(pixels, size=(16, 16), mode="bilinear", antialias=True, align_corners=False)
    source, others = (np.asarray(part, np.float32) / 127.5 - 1 for part in (source, smaller))
    config = TrainingConfig(learning_rate=2e-3, weight_decay=0.0, batch_size=64, max_epochs=8, precision="fp32")
    game = TrainingConfig(
        learning_rate=1e-3,
        betas=(0.5, 0.9),
        weight_decay=0.0,
        batch_size=32,
        max_epochs=10,
        schedule="constant",
        precision="fp32",
    )
    rows, target = TrainingRows(ArrayRows(source), labels), TrainingRows(ArrayRows(others[:2000]), None)
    how = ImageTranslation(game, cycle=5.0, width=8, num_blocks=1)
    found = cycada(lambda: small(16, 10, 16, 0), rows, target, TEN, config, translation=how)
    unseen, truth = others[5000:7000], mnist["labels"][5000:7000].astype(np.int64)
    plain, translated = accuracy(found.classifier, unseen, truth), accuracy(found.network, unseen, truth)
    assert translated > plain + 0.05  # measured: 0.36 and 0.47, by images alone; far from the 0.9 of target labels
