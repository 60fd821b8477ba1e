"""Several labelled sources and a target that lies beyond them: recipes on the loop, with the plain loss beside them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from headstart.catalog import resolve
from headstart.methods.adaptations import AdaptationRecipe
from headstart.objectives import Batch, CrossEntropy, Objective
from headstart.training import Network, TrainingConfig, TrainingRows, train
from training_toys import THREE, ArrayRows


def loss(head: str) -> Objective:
    return CrossEntropy(head=head)


def moved(
    num_rows: int, shift: tuple[float, float], scale: tuple[float, float], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return three classes on a circle that is shifted and stretched."""
    random = np.random.default_rng(seed)
    labels = np.arange(num_rows) % 3
    angles = 2 * np.pi * labels / 3
    places = np.stack([np.cos(angles), np.sin(angles)], 1) + 0.25 * random.normal(size=(num_rows, 2))
    return (places * scale + shift).astype(np.float32), labels.astype(np.int64)


def fit(recipe: AdaptationRecipe, seed: int, max_epochs: int = 60) -> float:
    sources = [moved(300, (0, 0), (1, 1), seed), moved(300, (0.5, 0.6), (1.2, 0.8), 10 + seed)]
    target, hidden = moved(300, (1.2, 1.2), (1, 1), 20 + seed)
    torch.manual_seed(seed)
    body = {
        "first": nn.Sequential(nn.Linear(2, 32), nn.ReLU()),
        "features": nn.Sequential(nn.Linear(32, 16), nn.ReLU()),
    }
    network = Network(body, {"main": nn.Linear(16, 3)})
    config = TrainingConfig(
        learning_rate=2e-3,
        weight_decay=0.0,
        batch_size=100,
        max_epochs=max_epochs,
        schedule="constant",
        precision="fp32",
        seed=seed,
        **recipe.settings,
    )
    values, labels = (np.concatenate([part[place] for part in sources]) for place in (0, 1))
    training = TrainingRows(ArrayRows(values), labels, None, np.repeat([0, 1], 300))
    unlabelled = TrainingRows(ArrayRows(target), None)
    train(network, THREE, training, None, config, unlabelled=unlabelled, phases=recipe.phases)
    with torch.no_grad():
        return float((network(torch.from_numpy(target)).logits.argmax(1).numpy() == hidden).mean())


@pytest.mark.parametrize("name", ["m3sda", "mdan"])
def test_every_recipe_balances_the_sources_and_runs(name: str) -> None:
    recipe = resolve(name, "adaptation")(loss)
    assert recipe.settings == {"balance": "domains"}
    assert 0 <= fit(recipe, 0, max_epochs=1) <= 1


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_matched_moments_reach_beyond_the_sources(seed: int) -> None:
    plain, matched = (fit(resolve(name, "adaptation")(loss), seed) for name in ("erm", "m3sda"))
    assert matched > plain + 0.03  # measured: 0.67 to 0.73, and 0.71 to 0.76


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_critics_of_each_source_lose_nothing(seed: int) -> None:
    """No more is true of them here: three clouds moved along leave a critic little to say that a class would not."""
    plain = fit(resolve("erm", "adaptation")(loss), seed)
    for name in ("mdan", "multi-domain-dann"):  # measured: 0.66 and 0.71, 0.67 and 0.75; erm 0.67 and 0.71
        assert fit(resolve(name, "adaptation")(loss), seed) > plain - 0.03


def test_the_weight_of_matched_moments_is_that_of_the_public_program() -> None:
    """Half of the mean over means and variances, and over all pairs of three sources and the target: written out beside ours."""
    random = np.random.default_rng(0)
    parts = [random.normal(size=(8, 4)) for _ in range(4)]
    parts = [part - part.mean(axis=0) for part in parts]  # centred, so that second powers and variances are the same
    seconds = [np.square(part).mean(axis=0) for part in parts]
    pairs = [np.linalg.norm(seconds[i] - seconds[j]) for i in range(4) for j in range(i)]
    term = resolve("m3sda", "adaptation")(loss).objectives[1]
    source = Batch(features=torch.from_numpy(np.concatenate(parts[:3])), domains=torch.arange(3).repeat_interleave(8))
    ours = float(term(source, Batch(features=torch.from_numpy(parts[3]))))
    assert ours == pytest.approx(0.5 * np.mean(pairs) / 2)
