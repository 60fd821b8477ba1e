"""Networks adapted where labels are numbers: in their own unit, by recipes that compare features, refused by name otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.catalog import entries, read_recipe
from headstart.core.errors import ConfigError, HeadstartError
from headstart.core.tasks import Task
from headstart.methods import AdaptedNetworkRegressor
from headstart.methods.adaptations.carry_out import check_serves
from headstart.objectives import SquaredError

SERVE = {
    "source-only",
    "domain-distance",
    "dan",
    "deep-coral",
    "homm",
    "cmd",
    "afn",
    "dann",
    "multi-domain-dann",
    "domain-confusion",
    "adda",
    "wdgrl",
    "erm",
    "dg-coral",
    "groupdro",
    "irm",
    "vrex",
    "m3sda",
    "mdan",
    "mixstyle",
}


def shifted(num_rows: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return rows whose first column says a number and whose second says only which domain they are of."""
    random = np.random.default_rng(seed)
    source, target = random.normal(size=(2, num_rows, 2))
    values, truth = 100 + 10 * source[:, 0], 100 + 10 * target[:, 0]
    source[:, 1] = 0.3 * random.normal(size=num_rows) + source[:, 0]  # in the source, it says the number too
    target[:, 1] = 0.3 * random.normal(size=num_rows) + 3
    return source, values, target, truth


def test_recipes_that_read_classes_are_those_that_are_refused() -> None:
    found = set()
    for entry in entries("adaptation"):
        recipe = entry.load()(lambda head: SquaredError(head=head))
        check_serves(recipe, Task("classification", ("a", "b")), "x")
        try:
            check_serves(recipe, Task("regression"), entry.name)
        except ConfigError as error:
            assert str(error).startswith(f"{entry.name}: ") and "such as dann" in str(error)
        else:
            found.add(entry.name)
    assert found == SERVE


def test_a_network_answers_in_the_unit_of_the_numbers_and_so_does_its_head() -> None:
    source, values, target, _ = shifted(60)
    model = AdaptedNetworkRegressor(read_recipe("dann"), "dense8-relu", scaling="columns", num_steps=30)
    model.fit(source, values, target)
    said = model.predict(target)
    assert said.shape == (60,) and 50 < said.mean() < 150
    np.testing.assert_allclose(model.to_head(Task("regression")).predict(target), said, rtol=1e-5)
    assert model.hidden(target).shape == (60, 8) and model.unknown(target) is None
    again = AdaptedNetworkRegressor(read_recipe("dann"), "dense8-relu", scaling="columns", num_steps=30)
    np.testing.assert_array_equal(again.fit(source, values, target).predict(target), said)
    with pytest.raises(ConfigError, match="adapt: MCC reads probabilities of classes, and the labels are numbers"):
        AdaptedNetworkRegressor(read_recipe("mcc"), "dense8-relu", num_steps=2).fit(source, values, target)


@pytest.mark.golden
@pytest.mark.parametrize("name", sorted(SERVE - {"source-only", "mixstyle"}))
def test_every_recipe_that_serves_numbers_does_something_to_them(name: str) -> None:
    source, values, target, _ = shifted(120)
    every = np.concatenate([source, target]), np.concatenate([values, np.zeros(120)])
    where = np.concatenate([np.repeat([1, 2], [90, 30]), np.full(120, -1)])

    def said(recipe: str) -> np.ndarray:
        model = AdaptedNetworkRegressor(read_recipe(recipe), "dense16-relu", scaling="columns", num_steps=40)
        return np.asarray(model.fit(*every, sample_domain=where).predict(target))

    try:
        changed = said(name)
    except HeadstartError as error:
        pytest.fail(f"{name}: {error}")
    assert np.isfinite(changed).all() and np.abs(changed - said("source-only")).max() > 1e-3


@pytest.mark.golden
@pytest.mark.parametrize("seed", [0, 1])
def test_comparing_features_beats_the_source_alone(seed: int) -> None:
    source, values, target, truth = shifted(300, seed)
    errors = {}
    for name in ("source-only", "cmd"):
        model = AdaptedNetworkRegressor(read_recipe(name), "dense32-relu", scaling="columns", num_steps=400, seed=seed)
        said = model.fit(source, values, target).predict(target)
        errors[name] = float(np.sqrt(np.mean((said - truth) ** 2)))
    assert errors["cmd"] < 0.75 * errors["source-only"]  # measured: 3.4 against 6.7, and 7.4 against 11.5
