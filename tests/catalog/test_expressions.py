"""Joint losses in words: what is written is what is minimised, and what cannot be read is said where it stands."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.catalog import read_objectives, read_recipe
from headstart.core.errors import ConfigError
from headstart.objectives import ClassifierDiscrepancy, CrossEntropy, Distillation, Objective


def loss(head: str) -> Objective:
    return CrossEntropy(head=head)


def test_a_sum_is_one_phase_of_weighted_terms() -> None:
    recipe = read_objectives("2*ce + 0.5 * distillation(temperature=3, direction=reverse) + 1e-2*bss")(loss)
    (phase,) = recipe.phases
    ce, distillation, bss = phase.objectives
    assert isinstance(ce, CrossEntropy) and ce.weight == 2
    assert isinstance(distillation, Distillation)
    assert (distillation.temperature, distillation.direction) == (3, "reverse")
    assert distillation.weight == 0.5 * Distillation().weight
    assert bss.config()["weight"] == pytest.approx(0.01 * type(bss)().config()["weight"])


def test_the_task_is_learned_even_when_it_is_not_written() -> None:
    written, left_out = (read_objectives(text)(loss).phases[0].objectives for text in ("ce + bss", "bss"))
    assert [type(item) for item in written] == [type(item) for item in left_out]


def test_every_training_gets_objectives_of_its_own() -> None:
    recipe = read_objectives("ce + classifier-discrepancy")
    first, second = recipe(loss), recipe(loss)
    assert first.heads == ("main", "second")
    assert not set(map(id, first.objectives)) & set(map(id, second.objectives))
    assert isinstance(first.objectives[-1], ClassifierDiscrepancy)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_any_positive_number_is_a_weight(first: float, second: float) -> None:
    read = read_objectives(f"{first!r}*ce + {second!r}*bss")
    assert read.task_weight == first and read.terms[0].factor == second


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is missing one"),
        ("ce + ", "is missing one"),
        ("ce ++ bss", "is missing one"),
        ("ce + bsss", "Did you mean 'bss'"),
        ("ce + x*bss", "what stands before \\* is a number; got 'x'"),
        ("ce + inf*bss", "a finite number"),
        ("ce + bss(num_valus=2)", "Did you mean 'num_values'"),
        ("ce + bss(2)", "options are name=value"),
        ("ce + ce", "2 times"),
        ("ce(head=main)", "takes no options"),
        ("ce + 2*stochastic-normalisation", "takes no weight"),
        ("ce + bss(num_values=2", "cannot read"),
        ("ce + distillation(temperature=-1)", "temperature"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_objectives(text)


def test_a_name_is_a_recipe_or_an_objective() -> None:
    only: Any = read_recipe("source-only")
    assert len(only(loss).objectives) == 1
    assert read_recipe("bss").text == "ce + bss"
    with pytest.raises(ConfigError, match="Did you mean 'source-only'"):
        read_recipe("sourceonly")
