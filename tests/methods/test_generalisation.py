"""Recipes for unseen domains, on rows whose colour misleads: what each paper claims, with the plain loss beside it.

The label is what a shape says, wrong in a share of the rows; a colour says the same more often in training and seldom afterwards,
as in the coloured digits of Arjovsky et al. (arXiv:1907.02893), section 5.2. The best that a rule without colour can do is known.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from headstart.catalog import resolve
from headstart.core.tasks import Task
from headstart.distances import coral_distance
from headstart.methods.adaptations import AdaptationRecipe, source_only
from headstart.methods.adaptations.generalisation import erm, groupdro, irm, mixstyle, vrex
from headstart.objectives import CrossEntropy, Objective
from headstart.training import Network, TrainingConfig, TrainingRows, train
from training_toys import TASK, ArrayRows

NAMES = ("erm", "dg-coral", "groupdro", "irm", "vrex", "mixstyle")
Rows = tuple[np.ndarray, np.ndarray]


def loss(head: str) -> Objective:
    return CrossEntropy(head=head)


def coloured(num_rows: int, agree: float, wrong: float, seed: int) -> Rows:
    """Return rows of six numbers that show the shape and one that shows the colour, and their labels."""
    random = np.random.default_rng(seed)
    shape = random.integers(2, size=num_rows)
    labels = np.where(random.random(num_rows) < wrong, 1 - shape, shape)
    colour = np.where(random.random(num_rows) < agree, labels, 1 - labels)
    centres = np.random.default_rng(0).normal(size=(2, 6))
    shown = centres[shape] + 0.3 * random.normal(size=(num_rows, 6))
    tint = (2 * colour - 1)[:, None] + 0.1 * random.normal(size=(num_rows, 1))
    return np.concatenate([shown, tint], 1).astype(np.float32), labels.astype(np.int64)


def fit(recipe: AdaptationRecipe, domains: list[Rows], seed: int, max_epochs: int, batch_size: int) -> Network:
    torch.manual_seed(seed)
    body = {
        "first": nn.Sequential(nn.Linear(7, 32), nn.ReLU()),
        "features": nn.Sequential(nn.Linear(32, 32), nn.ReLU()),
    }
    network = Network(body, {"main": nn.Linear(32, 2)})
    rows = np.concatenate([rows for rows, _ in domains])
    labels = np.concatenate([labels for _, labels in domains])
    numbers = np.repeat(np.arange(len(domains)), [len(labels) for _, labels in domains])
    config = TrainingConfig(
        learning_rate=3e-3,
        weight_decay=0.0,
        batch_size=batch_size,
        max_epochs=max_epochs,
        schedule="constant",
        precision="fp32",
        seed=seed,
        **recipe.settings,
    )
    training = TrainingRows(ArrayRows(rows), labels, None, numbers)
    train(network, TASK, training, None, config, phases=recipe.phases)
    return network


def accuracy(network: Network, rows: Rows) -> float:
    with torch.no_grad():
        return float((network(torch.from_numpy(rows[0])).logits.argmax(1).numpy() == rows[1]).mean())


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_balances_domains_and_runs_without_a_target(name: str) -> None:
    recipe = resolve(name, "adaptation")(loss)
    assert recipe.needs_source
    assert recipe.settings == {"balance": "domains"}
    random = np.random.default_rng(0)
    images, labels = random.normal(size=(30, 1, 6, 6)).astype(np.float32), np.arange(30) % 2
    torch.manual_seed(0)
    segments = {
        "first": nn.Conv2d(1, 3, 3),
        "features": nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    }
    network = Network(segments, {"main": nn.Linear(3, 2)})
    before = network.segments[0].weight.detach().clone()
    config = TrainingConfig(max_epochs=2, batch_size=10, precision="fp32", **recipe.settings)
    training = TrainingRows(ArrayRows(images), labels, None, np.arange(30) % 3)
    history = train(network, Task("classification", ("no", "yes")), training, None, config, phases=recipe.phases)
    assert history.steps == 6
    assert not torch.equal(network.segments[0].weight, before)
    assert mixstyle(loss).objectives[1].config() == {"segments": None, "probability": 0.5, "alpha": 0.1}


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_a_colour_that_agrees_unequally_is_not_learned(seed: int) -> None:
    domains = [coloured(1000, 0.9, 0.25, 10 + seed), coloured(1000, 0.8, 0.25, 20 + seed)]
    unseen = coloured(2000, 0.1, 0.25, 30 + seed)
    recipes = [erm(loss), irm(loss), vrex(loss, weight=1000.0, start=0.3)]
    plain, invariant, level = (accuracy(fit(recipe, domains, seed, 150, 1000), unseen) for recipe in recipes)
    assert plain < 0.25  # measured: 0.11 and 0.17; the colour is believed
    assert invariant > plain + 0.35  # measured: 0.60 and 0.67, of 0.75 that shape alone allows
    assert level > plain + 0.3  # measured: 0.49 and 0.71


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_the_worst_group_is_not_given_up(seed: int) -> None:
    domains = [coloured(950, 1.0, 0.1, 10 + seed), coloured(50, 0.0, 0.1, 20 + seed)]
    unseen = [coloured(2000, agree, 0.1, 30 + seed) for agree in (1.0, 0.0)]
    unbalanced = replace(groupdro(loss, step=0.1), settings={})  # so that nothing but the weights can help
    recipes = [source_only(loss), unbalanced, groupdro(loss)]
    plain, weighed, both = (
        min(accuracy(network, rows) for rows in unseen)
        for network in (fit(recipe, domains, seed, 40, 100) for recipe in recipes)
    )
    assert plain < 0.2  # measured: 0.07 and 0.12
    assert weighed > plain + 0.5  # measured: 0.89 and 0.88
    assert both > plain + 0.5  # measured: 0.84 and 0.76


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_covariances_of_the_sources_become_alike_and_cost_nothing(seed: int) -> None:
    """One source is shown larger than the other. Colours that mislead it cannot find: covariances do not tell them apart."""
    rows, labels = coloured(1000, 0.5, 0.1, 20 + seed)
    domains = [coloured(1000, 0.5, 0.1, 10 + seed), (2 * rows, labels)]
    networks = [fit(resolve(name, "adaptation")(loss), domains, seed, 60, 1000) for name in ("erm", "dg-coral")]
    apart = []
    for network in networks:
        with torch.no_grad():
            features = [network(torch.from_numpy(rows)).features for rows, _ in domains]
        spread = torch.cat(features).var(0).mean()
        apart.append(float(coral_distance(*features) / spread.square()))
    assert apart[1] < 0.7 * apart[0], apart  # measured, seed 0: 0.023 of 0.113
    seen = [np.mean([accuracy(network, rows) for rows in domains]) for network in networks]
    assert seen[1] > seen[0] - 0.03


def styled(num_rows: int, contrast: float, light: float, seed: int) -> Rows:
    """Return noisy maps striped across or down, in a contrast and a light of their domain, and which they are."""
    random = np.random.default_rng(seed)
    labels = random.integers(2, size=num_rows)
    stripes = np.sin(1.5 * np.arange(10))
    maps = np.where(labels[:, None, None] == 1, stripes, stripes[:, None]) + 0.5 * random.normal(
        size=(num_rows, 10, 10)
    )
    contrasts = contrast * np.exp(0.2 * random.normal(size=num_rows))
    lights = light + 0.2 * random.normal(size=num_rows)
    shown = maps * contrasts[:, None, None] + lights[:, None, None]
    return shown[:, None].astype(np.float32), labels.astype(np.int64)


@pytest.mark.golden
def test_mixed_styles_save_the_worst_run_in_a_style_nobody_saw() -> None:
    found: dict[str, list[float]] = {"erm": [], "mixstyle": []}
    for name, seed in ((name, seed) for name in found for seed in (0, 1)):
        domains = [styled(300, 1.0, 0.0, 10 + seed), styled(300, 2.0, 1.0, 20 + seed)]
        torch.manual_seed(seed)
        last = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        body = {"first": nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU()), "features": last}
        network, recipe = Network(body, {"main": nn.Linear(8, 2)}), resolve(name, "adaptation")(loss)
        config = TrainingConfig(
            learning_rate=3e-3,
            weight_decay=0.0,
            batch_size=100,
            max_epochs=60,
            schedule="constant",
            precision="fp32",
            seed=seed,
            **recipe.settings,
        )
        rows, labels = (np.concatenate([part[place] for part in domains]) for place in (0, 1))
        training = TrainingRows(ArrayRows(rows), labels, None, np.repeat([0, 1], 300))
        train(network, TASK, training, None, config, phases=recipe.phases)
        found[name].append(accuracy(network, styled(600, 0.25, -1.5, 30 + seed)))
    assert min(found["mixstyle"]) > min(found["erm"]) + 0.15  # measured: 0.85 and 0.95, and 0.51 and 1.00
