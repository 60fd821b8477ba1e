"""Recipes of what target rows say of themselves, on the loop: turned digits, each beside training on source rows alone."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from scipy.ndimage import rotate
from sklearn.datasets import load_digits
from torch import nn

from headstart.backbones import vector_backbone
from headstart.catalog import entries, resolve
from headstart.core.tasks import Task
from headstart.data import open_dataset
from headstart.methods.adaptations import AdaptationRecipe, joint
from headstart.objectives import CrossEntropy, Entropy
from headstart.training import InputRows, Network, TrainingConfig, TrainingRows, train

TASK = Task("classification", tuple("0123456789"))
DEGREES = 22
JOINT = ("entropy", "mcc", "bnm", "infomax", "vat", "fixmatch", "flexmatch", "self-training", "co-training", "atdoc")
SOURCE_FREE = ("shot", "nrc")


def recipe_of(name: str) -> AdaptationRecipe:
    if name == "statistics":  # target rows are seen by the layers' running statistics, and teach nothing else
        return joint(lambda head: CrossEntropy(head=head), [Entropy(weight=0.0)])
    recipe: AdaptationRecipe = resolve(name, "adaptation")(lambda head: CrossEntropy(head=head))
    return recipe


def digits(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return digits as they are with their classes, and others, turned, with theirs."""
    values, labels = load_digits(return_X_y=True)
    images = values.reshape(-1, 8, 8).astype(np.float32) / 16
    order = np.random.default_rng(seed).permutation(len(images))
    source, target = order[:800], order[800:1600]
    turned = np.stack([rotate(image, DEGREES, reshape=False, order=1) for image in images[target]])
    return images[source].reshape(800, 64), labels[source], turned.reshape(800, 64), labels[target]


def rows(values: np.ndarray, labels: np.ndarray | None = None, domains: np.ndarray | None = None) -> TrainingRows:
    inputs = InputRows(open_dataset(values, unlabelled=True), vector_backbone(64))
    return TrainingRows(inputs, labels, domains=domains)


def make_network(heads: tuple[str, ...], seed: int) -> Network:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in ((64, 128), (128, 64)):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return Network({"features": nn.Sequential(*layers)}, {head: nn.Linear(64, 10) for head in heads})


def learn(network: Network, recipe: AdaptationRecipe, source: TrainingRows, target: np.ndarray, seed: int) -> None:
    settings = {"learning_rate": 1e-3, "weight_decay": 0.0, "batch_size": 64, "max_epochs": 20, "threads": 1}
    config = TrainingConfig(
        **{**settings, **recipe.settings}, schedule="constant", precision="fp32", restore_best=False, seed=seed
    )
    train(network, TASK, source, None, config, unlabelled=rows(target), phases=recipe.phases)


def accuracy(network: Network, values: np.ndarray, labels: np.ndarray) -> float:
    with torch.no_grad():
        return float((network(torch.from_numpy(values)).logits.argmax(1).numpy() == labels).mean())


@cache
def adapted(name: str, seed: int, after_source: bool = False) -> float:
    """Return the accuracy on the turned digits after a recipe, from a random start or from the source-only network."""
    source, labels, target, hidden = digits(seed)
    recipe = recipe_of(name)
    network = make_network(recipe.heads, seed)
    if after_source:
        learn(network, recipe_of("source-only"), rows(source, labels), target, seed)
    learn(network, recipe, rows(source, labels), target, seed)
    return accuracy(network, target, hidden)


def test_every_recipe_is_here_and_says_what_it_needs() -> None:
    names = {
        entry.name
        for entry in entries("adaptation")
        if entry.target.startswith("headstart.methods.adaptations.target_structure:")
    }
    assert names == {*JOINT, *SOURCE_FREE, "mean-teacher", "mme"}
    for name in names:
        recipe = recipe_of(name)
        assert recipe.needs_source == (name not in SOURCE_FREE)
        assert recipe.heads == (("main", "second") if name == "co-training" else ("main",))
    for name in SOURCE_FREE:
        (phase,) = recipe_of(name).phases
        assert phase.streams == ("target",) and phase.trains == ("segments",)
    assert recipe_of("mean-teacher").settings == {"ema": 0.99}
    assert recipe_of("mme").settings == {"balance": "domains"}


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("name", "margin"),
    [
        ("mcc", 0.15),
        ("atdoc", 0.18),
        ("fixmatch", 0.06),
        ("self-training", 0.07),
        ("co-training", 0.04),
        ("entropy", 0.1),
        ("bnm", 0.14),
        ("infomax", 0.14),
        ("vat", 0.03),
        ("mean-teacher", -0.03),
    ],
)
def test_turned_digits_are_read_better_than_by_the_source_alone(name: str, margin: float, seed: int) -> None:
    """Beyond what running statistics of both domains bring by themselves. Of a mean teacher it is true that it loses nothing."""
    # measured, seeds 0 and 1: source-only 0.50 0.58, statistics of both 0.64 0.68; mcc 0.87 0.87; atdoc 0.91 0.90;
    # fixmatch 0.74 0.78; self-training 0.80 0.79; co-training 0.75 0.75; entropy 0.84 0.83; bnm 0.87 0.87; infomax 0.88 0.88;
    # vat 0.75 0.74; mean-teacher 0.65 0.68
    alone = adapted("statistics", seed)
    assert alone > adapted("source-only", seed) + 0.05
    assert adapted(name, seed) > alone + margin


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "margin"), [("shot", 0.15), ("nrc", 0.15), ("flexmatch", 0.15)])
def test_a_network_that_knows_the_source_goes_on(name: str, margin: float, seed: int) -> None:
    # measured: source-only as above; shot 0.88 0.88; nrc 0.88 0.88; flexmatch 0.93 0.90 (0.35 0.69 from a random start)
    assert adapted(name, seed, after_source=True) > adapted("source-only", seed) + margin


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_the_head_of_a_source_free_network_stays(seed: int) -> None:
    source, labels, target, _ = digits(seed)
    network = make_network(("main",), seed)
    before = {name: tensor.clone() for name, tensor in network.heads.state_dict().items()}
    learn(network, recipe_of("shot"), rows(source, labels), target, seed)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.heads.state_dict().items())


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_minimax_entropy_makes_more_of_three_labels_a_class(seed: int) -> None:
    source, labels, target, hidden = digits(seed)
    few = np.concatenate([np.flatnonzero(hidden == number)[:3] for number in range(10)])
    others = np.setdiff1d(np.arange(len(hidden)), few)
    domains = np.concatenate([np.zeros(len(source), np.int64), np.ones(len(few), np.int64)])
    both = rows(np.concatenate([source, target[few]]), np.concatenate([labels, hidden[few]]), domains)
    found = {}
    for name in ("source-only", "mme"):
        recipe = recipe_of(name)
        fair = AdaptationRecipe(recipe.phases, recipe.heads, settings={"balance": "domains"})
        network = make_network(recipe.heads, seed)
        learn(network, fair, both, target[others], seed)
        found[name] = accuracy(network, target[others], hidden[others])
    assert found["mme"] > found["source-only"] + 0.02  # measured: 0.86 to 0.90, and 0.82 to 0.87
