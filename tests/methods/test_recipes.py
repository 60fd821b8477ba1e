"""What every recipe of the catalog keeps to, on a small network through the one loop; a new entry inherits it.

It runs; the same seed gives the same weights, another seed others; it is a recipe of its own each time; target labels are not
there; it goes on from a state as if it had not been stopped; one it cannot serve is refused in words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from headstart.catalog import Entry, entries, resolve
from headstart.core.errors import ConfigError
from headstart.core.tasks import Task
from headstart.methods.adaptations import AdaptationRecipe
from headstart.methods.adaptations.carry_out import Adapting, adapt_network, loss_of, make_recipe
from headstart.methods.adaptations.heads import heads_of
from headstart.training import Network, Run, TrainingConfig, TrainingRows
from training_toys import ArrayRows

TASK = Task("classification", ("a", "b", "c"))
RECIPES = entries("adaptation")
each = pytest.mark.parametrize("entry", RECIPES, ids=lambda entry: entry.name)
PICTURES = {"mixstyle"}  # mixes statistics of feature maps


def rows(num_rows: int, shift: float, seed: int, channels: bool) -> np.ndarray:
    values = np.random.default_rng(seed).normal(shift, 1, (num_rows, 4)).astype(np.float32)
    return values.reshape(num_rows, 1, 2, 2) if channels else values


def job(entry: Entry, seed: int = 0, steps: int = 3) -> Adapting:
    """Return a small adaptation of two labelled domains to a third."""
    channels = entry.name in PICTURES
    config = TrainingConfig(
        batch_size=12, max_epochs=steps, precision="fp32", restore_best=False, seed=seed, threads=1, learning_rate=1e-2
    )
    labels = np.arange(24, dtype=np.int64) % 3
    source = TrainingRows(ArrayRows(rows(24, 0.0, 0, channels)), labels, domains=np.arange(24) // 12)
    target = TrainingRows(ArrayRows(rows(12, 0.5, 1, channels)), None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if channels:
            first: torch.nn.Module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 2, padding=1), torch.nn.ReLU())
            last: torch.nn.Module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 6), torch.nn.Tanh())
        else:
            first = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh())
            last = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.Tanh())
        recipe = make_recipe(entry.load(), TASK, config, source)
        network = Network({"first": first, "features": last}, heads_of(recipe, torch.nn.Linear(6, 3), seed))
    return Adapting(network, TASK, source, target, recipe, config, loss_of(TASK, config, source))


def trained(entry: Entry, seed: int = 0) -> dict[str, torch.Tensor]:
    work = job(entry, seed)
    adapt_network(work)
    return {name: tensor.clone() for name, tensor in work.network.state_dict().items()}


@pytest.mark.golden
@each
def test_it_trains_the_same_network_every_time_and_another_by_another_seed(entry: Entry) -> None:
    first, again, other = trained(entry), trained(entry), trained(entry, seed=1)
    assert all(torch.isfinite(tensor).all() for tensor in first.values())
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in first.items())
    start = job(entry).network.state_dict()
    assert any(not torch.equal(tensor, start[name]) for name, tensor in first.items() if name in start)


@each
def test_objectives_are_its_own_each_time(entry: Entry) -> None:
    first, second = job(entry).recipe, job(entry).recipe
    assert isinstance(first, AdaptationRecipe)
    assert not set(map(id, first.objectives)) & set(map(id, second.objectives))


@each
def test_a_stopped_run_goes_on_as_if_it_had_not_been(entry: Entry) -> None:
    def run() -> Run:
        work = job(entry, steps=6)
        alone = not work.recipe.needs_source
        labelled = TrainingRows(work.target.inputs, None) if alone else work.source
        config = work.config if not work.recipe.settings else _with(work.config, dict(work.recipe.settings))
        return Run(work.network, TASK, labelled, None, config, unlabelled=work.target, phases=work.recipe.phases)

    whole, stopped, resumed = run(), run(), run()
    with whole.random_numbers():
        for _ in range(5):
            whole.step()
    with stopped.random_numbers():
        for _ in range(2):
            stopped.step()
    with resumed.random_numbers():
        resumed.restore(*stopped.state())
        for _ in range(3):
            resumed.step()
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name


def _with(config: TrainingConfig, settings: dict[str, Any]) -> TrainingConfig:
    return TrainingConfig.from_dict(config.to_dict() | settings)


def test_target_rows_are_shown_without_labels() -> None:
    from dataclasses import replace

    seen: list[object] = []
    work = job(next(entry for entry in RECIPES if entry.name == "source-only"))

    from headstart.objectives import Batch, Objective
    from headstart.training import Phase

    class Sees(Objective):
        weight = 1.0

        def forward(self, source: Batch, target: Batch | None = None) -> torch.Tensor:
            assert target is not None
            seen.append(target.labels)
            return torch.zeros(())

    labelled = TrainingRows(work.target.inputs, np.zeros(12, np.int64))
    recipe = replace(work.recipe, phases=(Phase((*work.recipe.objectives, Sees())),))
    adapt_network(replace(work, target=labelled, recipe=recipe))
    assert seen and all(item is None for item in seen)


def test_a_recipe_whose_heads_are_not_there_is_refused() -> None:
    from dataclasses import replace

    work = job(next(entry for entry in RECIPES if entry.name == "mcd"))
    alone = Network({"features": torch.nn.Linear(4, 6)}, {"main": torch.nn.Linear(6, 3)})
    with pytest.raises(ConfigError, match="the network lacks"):
        adapt_network(replace(work, network=alone))
    assert resolve("mcd", "adaptation")
