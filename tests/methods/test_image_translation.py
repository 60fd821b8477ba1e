"""Image translation on the loop: losses against literal twins, who trains in which phase, and rows seen through a generator."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from headstart.core.errors import ConfigError, ShapeError
from headstart.methods.image_translation import Generator, ImageTranslation, PatchCritic, TranslatedRows, Translator
from headstart.methods.image_translation.networks import Generators
from headstart.methods.image_translation.terms import (
    CycleTranslation,
    PatchCritics,
    least_squares_critic,
    least_squares_fooling,
)
from headstart.objectives import Batch, Setup
from headstart.training import Network, TrainingConfig, TrainingRows
from training_toys import TASK, ArrayRows

SHORT = TrainingConfig(
    learning_rate=1e-3,
    betas=(0.5, 0.9),
    weight_decay=0.0,
    batch_size=8,
    max_epochs=2,
    schedule="constant",
    precision="fp32",
)


def images(num_rows: int, level: float, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random((num_rows, 1, 8, 8)) + level).astype(np.float32)


def moved(part: nn.Module) -> nn.Module:
    """Return the part with weights unlike those it begins with."""
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return part


def scene() -> SimpleNamespace:
    """Return generators, critics, a classifier, and batches of both domains as the loop makes them."""
    there, back = moved(Generator(1, 4, 1, seed=0)), moved(Generator(1, 4, 1, seed=1))
    network = Network({"generators": Generators(there, back)}, {"main": nn.Flatten()})
    critics = PatchCritics(width=4)
    torch.manual_seed(0)
    classifier = Network({"features": nn.Flatten()}, {"main": nn.Linear(64, 2)})
    x, y = torch.from_numpy(images(3, 0.0, 0)), torch.from_numpy(images(5, 1.0, 1))
    source, target = Batch(hidden=(x,)), Batch(hidden=(y,))
    return SimpleNamespace(**locals())


def test_a_generator_is_its_layers_on_gathered_pixels() -> None:
    generator = moved(Generator(1, 4, 1, seed=0)).double()
    image = np.random.default_rng(4).random((1, 8, 12))

    def convolve(maps: np.ndarray, layer: nn.Module) -> np.ndarray:
        weight, bias = (tensor.detach().numpy() for tensor in (layer.weight, layer.bias))
        padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)))
        height, width = maps.shape[1:]
        windows = np.stack([padded[:, r : r + height, c : c + width] for r in range(3) for c in range(3)], axis=1)
        return np.einsum("oik,ikhw->ohw", weight.reshape(*weight.shape[:2], 9), windows) + bias[:, None, None]

    def normed(maps: np.ndarray) -> np.ndarray:
        centred = maps - maps.mean((1, 2), keepdims=True)
        return centred / np.sqrt(maps.var((1, 2), keepdims=True) + 1e-5)

    gathered = np.stack([image[0, row::2, column::2] for row in (0, 1) for column in (0, 1)])
    maps = np.maximum(normed(convolve(gathered, generator.enter)), 0)
    block = generator.blocks[0]
    maps = maps + normed(convolve(np.maximum(normed(convolve(maps, block.first)), 0), block.second))
    change = convolve(maps, generator.leave)
    expected = image.copy()
    for place, (row, column) in enumerate((row, column) for row in (0, 1) for column in (0, 1)):
        expected[0, row::2, column::2] += change[place]
    np.testing.assert_allclose(generator(torch.from_numpy(image[None])).detach().numpy()[0], expected, atol=1e-10)


def test_least_squares_are_their_formulas() -> None:
    random = np.random.default_rng(0)
    real, made = random.normal(size=(2, 1, 3, 3)), random.normal(size=(4, 1, 3, 3))
    expected = (sum((v - 1) ** 2 for v in real.ravel()) / real.size + sum(v**2 for v in made.ravel()) / made.size) / 2
    assert least_squares_critic(torch.from_numpy(real), torch.from_numpy(made)).item() == pytest.approx(expected)
    fooled = sum((v - 1) ** 2 for v in made.ravel()) / made.size
    assert least_squares_fooling(torch.from_numpy(made)).item() == pytest.approx(fooled)
    for function, count in ((least_squares_critic, 2), (least_squares_fooling, 1)):
        inputs = [torch.from_numpy(value).requires_grad_() for value in (real, made)[:count]]
        assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.golden
def test_the_generators_loss_is_the_sum_of_its_terms() -> None:
    s = scene()
    there, back, x, y = s.there, s.back, s.x, s.y
    setup = Setup(s.network, TASK)
    mean = lambda tensor: float(tensor.detach().double().mean())  # noqa: E731
    fool = mean((s.critics.target(there(x)) - 1) ** 2) + mean((s.critics.source(back(y)) - 1) ** 2)
    cycle = mean((back(there(x)) - x).abs()) + mean((there(back(y)) - y).abs())
    identity = mean((back(x) - x).abs()) + mean((there(y) - y).abs())
    kept = 0.0
    for real, made in ((x, there(x)), (y, back(y))):
        logs = s.classifier(made).logits.log_softmax(1)
        answers = s.classifier(real).logits.argmax(1)
        kept -= sum(float(logs[i, answers[i]].detach()) for i in range(len(real))) / len(real)
    for weights in ((10.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.0, 3.0), (1.0, 2.0, 3.0)):
        term = CycleTranslation(s.critics, s.classifier, *weights, weight=0.5)
        term.prepare(setup)
        expected = fool + weights[0] * cycle + weights[1] * identity + weights[2] * kept
        assert term(s.source, s.target).item() == pytest.approx(0.5 * expected, rel=1e-5)
        assert not list(term.parameters())
        assert term.config() == {"cycle": weights[0], "identity": weights[1], "semantic": weights[2], "weight": 0.5}


def test_the_critics_loss_reaches_critics_alone_and_better_critics_lower_it() -> None:
    s = scene()
    s.critics.prepare(Setup(s.network, TASK))
    value = s.critics(s.source, s.target)
    said = [critic(part).detach() for critic, part in ((s.critics.target, s.y), (s.critics.target, s.there(s.x)))]
    said += [critic(part).detach() for critic, part in ((s.critics.source, s.x), (s.critics.source, s.back(s.y)))]
    expected = sum(float((real - 1).square().mean() + made.square().mean()) / 2 for real, made in (said[:2], said[2:]))
    assert value.item() == pytest.approx(expected, rel=1e-5)
    value.backward()
    assert all(parameter.grad is None for parameter in s.network.parameters())
    with torch.no_grad():
        for parameter in s.critics.parameters():
            parameter.sub_(0.01 * parameter.grad)
    assert s.critics(s.source, s.target) < value


@pytest.mark.golden
def test_critics_learn_to_judge_and_generators_to_follow(tmp_path: Path) -> None:
    source = TrainingRows(ArrayRows(images(24, 0.0, 0)), np.arange(24) % 2)
    target = TrainingRows(ArrayRows(images(16, 1.0, 1)), None)
    how = ImageTranslation(SHORT, width=4, num_blocks=1)
    first, again = how.fit(source, target, TASK), how.fit(source, target, TASK)
    assert set(first.history.losses) == {"translate.CycleTranslation", "criticise.PatchCritics"}
    rows = torch.from_numpy(source.inputs.values)
    assert torch.equal(first.to_target(rows), again.to_target(rows))
    assert not torch.equal(first.to_target(rows), rows)
    fresh = Translator(Generator(1, 4, 1).eval(), Generator(1, 4, 1).eval())
    assert torch.allclose(
        fresh.load(first.save(tmp_path / "translator.safetensors")).to_target(rows), first.to_target(rows), atol=1e-5
    )
    translated = TranslatedRows(source.inputs, first.to_target)
    assert len(translated) == 24
    assert torch.allclose(translated.batch(np.array([3, 1]))[0], first.to_target(rows[[3, 1]]), atol=1e-6)
    assert not translated.batch(np.array([0]))[0].requires_grad


@pytest.mark.golden
def test_a_level_of_light_is_translated_and_comes_back() -> None:
    source = TrainingRows(ArrayRows(images(64, 0.0, 0)), None)
    target = TrainingRows(ArrayRows(images(64, 1.0, 1)), None)
    config = TrainingConfig(**{**SHORT.__dict__, "max_epochs": 25, "learning_rate": 3e-3})
    found = ImageTranslation(config, width=4, num_blocks=1).fit(source, target, TASK)
    rows = torch.from_numpy(images(64, 0.0, 2))
    with torch.no_grad():
        made = found.to_target(rows)
        back = found.to_source(made)
    assert rows.mean().item() == pytest.approx(0.5, abs=0.02)
    assert made.mean().item() == pytest.approx(1.5, abs=0.25)
    assert (back - rows).abs().mean() < 0.3


def test_what_cannot_be_is_refused() -> None:
    source = TrainingRows(ArrayRows(images(4, 0.0, 0)), None)
    with pytest.raises(ShapeError, match="multiples of 4"):
        ImageTranslation().fit(source, TrainingRows(ArrayRows(np.zeros((4, 1, 6, 6), np.float32)), None), TASK)
    with pytest.raises(ConfigError, match="cycle is at least 0"):
        CycleTranslation(PatchCritics(), cycle=-1.0)
    with pytest.raises(ConfigError, match="needs a classifier"):
        CycleTranslation(PatchCritics(), semantic=1.0)
    with pytest.raises(ConfigError, match=r"call eval\(\) first"):
        TranslatedRows(source.inputs, Generator(1))
    assert math.isfinite(float(PatchCritic(1)(torch.zeros(1, 1, 8, 8)).detach().sum()))
