"""Recipes of rungs: what follows from how much of the base model a strategy moves."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.data import open_dataset
from headstart.training.strategies import Strategy, read_strategy
from headstart.workflow.recipes import recipe_for

MOVED = {
    "nothing": {"head-only"},
    "part": {"last-stages", "gradual-unfreezing"},
    "few": {"lora", "dora", "loha", "lokr", "ia3", "norms"},
    "all": {"full", "layerwise-decay", "lp-ft"},
}


def test_every_strategy_says_how_much_it_moves() -> None:
    read_strategy("norms")  # loads those that are kept apart
    assert {name: kind.trains for name, kind in Strategy.kinds.items()} == {
        name: trains for trains, names in MOVED.items() for name in names
    }


@pytest.mark.parametrize("name", sorted(set().union(*MOVED.values())))
def test_the_pull_to_the_start_is_for_what_can_move_far(name: str) -> None:
    rows = open_dataset(np.random.default_rng(0).normal(size=(20, 3)), labels=np.arange(20) % 2)
    recipe = recipe_for(name, rows)
    assert bool(recipe.regularisers) == (name in MOVED["all"])
    assert (recipe.weight_decay == 0) == (name in MOVED["all"])
    assert (recipe.kind == "partial") == (name in MOVED["part"])
