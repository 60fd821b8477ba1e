"""Recipes of moment matching: what they are made of, and that they follow a shift which source rows alone do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headstart.backbones import vector_backbone
from headstart.catalog import resolve
from headstart.core.tasks import Task
from headstart.data import open_dataset
from headstart.methods.adaptations.recipe import AdaptationRecipe, source_only
from headstart.objectives import CrossEntropy, Objective
from headstart.training import InputRows, Network, TrainingConfig, TrainingRows, train

TASK = Task("classification", ("a", "b", "c"))
MEANS = np.array([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
# the papers' weights and schedules: what stands behind a name, in order, with what differs from the objective's defaults
MADE_OF: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "domain-distance": [("DomainDistance", {"distance": "sliced-wasserstein", "weight": 1.0, "rise": 0.0})],
    "dan": [("DAN", {"weight": 1.0, "layers": ["features", "logits"]})],
    "jan": [("JAN", {"weight": 1.0, "rise": 10.0, "layers": ["features", "probabilities"]})],
    "dsan": [("DSAN", {"weight": 0.5, "rise": 10.0})],
    "deep-coral": [("CORAL", {"weight": 1.0, "layer": "logits"})],
    "homm": [("HoMM", {"weight": 1e4, "order": 3, "num_moments": 0})],
    "cmd": [("CMD", {"weight": 0.3, "num_moments": 5})],
    "deep-jdot": [("DeepJDOT", {"feature_cost": 0.001, "label_cost": 0.0001})],
    "afn": [("AFN", {"weight": 0.05, "form": "stepwise", "step": 1.0})],
}


def loss(head: str) -> Objective:
    return CrossEntropy(head=head)


@pytest.mark.parametrize("name", MADE_OF)
def test_a_sum_of_terms_is_what_its_paper_says(name: str) -> None:
    recipe = resolve(name, "adaptation")(loss)
    assert recipe.heads == ("main",) and len(recipe.phases) == 1
    first, *terms = recipe.objectives
    assert first.config() == CrossEntropy().config()
    assert [type(term).__name__ for term in terms] == [kind for kind, _ in MADE_OF[name]]
    for term, (_, options) in zip(terms, MADE_OF[name], strict=True):
        assert {key: term.config()[key] for key in options} == options


@pytest.mark.parametrize(
    ("name", "options", "given"),
    [
        ("domain-distance", {"distance": "energy", "layer": "logits", "rise": 3.0, "weight": 2.0}, None),
        ("dan", {"weight": 2.0, "linear": True}, None),
        ("jan", {"weight": 2.0, "linear": True}, None),
        ("dsan", {"weight": 2.0}, None),
        ("deep-coral", {"weight": 2.0, "layer": "features"}, None),
        ("homm", {"order": 4, "num_moments": 30}, {"order": 4, "num_moments": 30, "weight": 1e7}),
        ("homm", {"weight": 2.0}, None),
        ("cmd", {"weight": 2.0, "num_moments": 3}, None),
        ("deep-jdot", {"feature_cost": 1.0, "label_cost": 2.0}, None),
        ("afn", {"form": "hard", "step": 2.0, "radius": 3.0, "weight": 4.0}, None),
    ],
)
def test_options_reach_the_objective(name: str, options: dict[str, Any], given: dict[str, Any] | None) -> None:
    term = resolve(name, "adaptation")(loss, **options).objectives[1]
    expected = given or options
    assert {key: term.config()[key] for key in expected} == expected


def test_swd_takes_turns() -> None:
    recipe = resolve("swd", "adaptation")(loss, num_directions=7, repeats=3)
    learn, disagree, agree = recipe.phases
    assert recipe.heads == ("main", "second")
    assert [phase.trains for phase in recipe.phases] == [learn.trains, ("heads",), ("segments",)]
    assert (learn.streams, agree.streams, agree.repeats) == (("source",), ("target",), 3)
    assert [getattr(item, "head", None) for item in learn.objectives] == ["main", "second"]
    assert disagree.objectives[:2] == learn.objectives
    assert [disagree.objectives[2].weight, agree.objectives[0].weight] == [-1.0, 1.0]
    assert disagree.objectives[2].config()["num_directions"] == 7


def domains(seed: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Three classes seen by a sharp pair of numbers, which the target turns, stretches and moves, and by three blurred ones."""
    random = np.random.default_rng(seed)
    turn = np.array([[np.cos(0.9), -np.sin(0.9)], [np.sin(0.9), np.cos(0.9)]])

    def draw(shifted: bool) -> tuple[np.ndarray, np.ndarray]:
        labels = random.integers(3, size=300)
        sharp = MEANS[labels] + 0.5 * random.normal(size=(300, 2))
        blurred = 0.5 * MEANS[labels] @ np.array([[1, 0, 0.5], [0, 1, 0.5]]) + 0.5 * random.normal(size=(300, 3))
        sharp = 1.5 * sharp @ turn + [1.0, -0.5] if shifted else sharp
        return np.concatenate([sharp, blurred], axis=1).astype(np.float32), labels.astype(np.int64)

    return draw(False), draw(True)


def rows(points: np.ndarray, labels: np.ndarray | None) -> TrainingRows:
    return TrainingRows(InputRows(open_dataset(points, unlabelled=True), vector_backbone(points.shape[1])), labels)


def target_accuracy(make: Callable[..., AdaptationRecipe], seed: int, **options: Any) -> float:
    (points, labels), (others, hidden) = domains(seed)
    recipe = make(loss, **options)
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
    network = Network({"features": body}, {head: nn.Linear(16, 3) for head in recipe.heads})
    config = TrainingConfig(
        learning_rate=3e-3, weight_decay=1e-3, batch_size=100, max_epochs=60, precision="fp32", seed=seed
    )
    train(
        network,
        TASK,
        rows(points, labels),
        None,
        config,
        unlabelled=rows(others, None),
        phases=list(recipe.phases),
    )
    with torch.no_grad():
        logits = network(torch.from_numpy(others)).head_logits
    return float((sum(logits[head] for head in recipe.heads).argmax(1).numpy() == hidden).mean())


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_moment_matching_follows_a_shift(seed: int) -> None:
    alone = target_accuracy(source_only, seed)
    assert 0.6 < alone < 0.85  # measured: 0.75 and 0.80
    least = {
        "dan": 0.1,
        "swd": 0.0,
        "jan": 0.12,
        "dsan": 0.1,
        "homm": 0.12,
        "domain-distance": 0.12,
        "deep-coral": 0.05,
        "cmd": 0.05,
        "deep-jdot": 0.03,
        "afn": 0.03,
    }
    # measured: jan 0.96 and 0.96, homm 0.94 and 0.96, domain-distance 0.94 and 0.97, deep-coral 0.87 and 0.87, cmd 0.84 and
    # 0.89, deep-jdot 0.84 and 0.85, afn 0.82 and 0.87, dan 0.97 and 0.97; swd 0.77 and 0.81, which is hardly a gain
    gains = {name: target_accuracy(resolve(name, "adaptation"), seed) - alone for name in least}
    assert all(gains[name] > least[name] for name in least), gains
