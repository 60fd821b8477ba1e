"""What the loop watches: measures against scikit-learn, means by name, and losses that cannot be believed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, r2_score

from headstart.core.tasks import Task
from headstart.training.losses import Broken, LossWatch, Measure, chance_loss, spread, target_tensor, validation_loss
from training_toys import THREE

MANY = Task("multilabel", ("x", "y"))
ROWS = np.arange(4)


def watch(**options: object) -> LossWatch:
    return LossWatch(
        ["train.A", "train.B", "other.A"], [2, 1], options.pop("chance", 0.7), options.pop("every_step", True)
    )


def add(losses: LossWatch, step: int, values: list[float], norm: float | None = None) -> None:
    losses.add(
        step, ROWS + step, [torch.tensor(value) for value in values], None if norm is None else torch.tensor(norm)
    )


def test_measures_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(30, 3)), random.integers(0, 3, 30)
    measure = Measure(THREE)
    for first in range(0, 30, 7):
        measure.add(torch.from_numpy(logits[first : first + 7]), torch.from_numpy(labels[first : first + 7]))
    assert measure.value == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    soft = Measure(THREE)
    soft.add(torch.from_numpy(logits), torch.from_numpy(np.eye(3)[labels] * 0.6 + 0.1))
    assert soft.value == measure.value
    measure.reset()
    assert math.isnan(measure.value)
    numbers, guesses = random.normal(size=20), random.normal(size=20)
    regression = Measure(Task("regression"), spread(Task("regression"), numbers))
    for part in (slice(0, 9), slice(9, 20)):
        regression.add(torch.from_numpy(guesses[part])[:, None], torch.from_numpy(numbers[part]))
    assert regression.value == pytest.approx(r2_score(numbers, guesses))
    indicators = random.integers(0, 2, (10, 2))
    several = Measure(MANY)
    several.add(torch.from_numpy(logits[:10, :2]), torch.from_numpy(indicators))
    assert several.value == pytest.approx(np.mean((logits[:10, :2] > 0) == indicators))


def test_the_validation_loss_is_the_plain_one() -> None:
    random = np.random.default_rng(1)
    logits, labels = random.normal(size=(20, 3)), random.integers(0, 3, 20)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = target_tensor(THREE, labels)
    assert targets is not None
    assert validation_loss(THREE, torch.from_numpy(logits), targets) == pytest.approx(log_loss(labels, probabilities))
    assert target_tensor(MANY, np.eye(2, dtype=np.uint8)).dtype == torch.float32 and target_tensor(THREE, None) is None


def test_guessing_costs() -> None:
    assert chance_loss(THREE, None) == pytest.approx(math.log(3))
    assert chance_loss(MANY, None) == pytest.approx(math.log(2))
    assert chance_loss(Task("regression"), np.array([0.0, 2.0])) == 1.0


def test_means_are_by_name_and_begin_anew() -> None:
    losses = watch()
    add(losses, 0, [1.0, 2.0, 5.0])
    add(losses, 1, [3.0, 2.0, 6.0])
    assert losses.means() == [2.0, 2.0, 5.5]
    add(losses, 2, [1.0, 1.0, 1.0])
    assert losses.means() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("values", "norm", "what"), [
    ([1.0, math.nan, 0.0], None, "the loss train.B is nan"),
    ([1.0, 1.0, -math.inf], 1.0, "the loss other.A is -inf"),
    ([1.0, 1.0, 1.0], math.inf, "the gradient is inf"),
])  # fmt: skip
def test_what_is_not_finite_is_named(values: list[float], norm: float | None, what: str) -> None:
    losses = watch()
    add(losses, 0, [1.0, 1.0, 1.0], 1.0)
    with pytest.raises(Broken, match=what) as caught:
        add(losses, 1, values, norm)
    assert caught.value.step == 1 and caught.value.positions.tolist() == [1, 2, 3, 4]


def test_losses_that_wait_are_named_by_their_own_step() -> None:
    losses = watch(every_step=False)
    for step in range(10):
        add(losses, step, [1.0, 1.0, math.nan if step == 4 else 1.0])
    with pytest.raises(Broken) as caught:
        losses.collect()
    assert caught.value.step == 4
    losses = watch(every_step=False)
    with pytest.raises(Broken) as caught:
        for step in range(40):
            add(losses, step, [1.0, 1.0, math.nan if step == 20 else 1.0])
    assert caught.value.step == 20 and step == 31


def test_an_explosion_is_one_of_the_mean_not_of_one_step() -> None:
    losses = watch()
    for step in range(20):
        add(losses, step, [1.0, 0.5, 0.0])
    add(losses, 20, [100.0, 0.0, 0.0])  # one step of 67 times the loss: the mean rises to 11.3 of 15
    with pytest.raises(Broken, match=r"exploded from 1\.5 to 40, most of all train\.A"):
        for step in range(21, 50):
            add(losses, step, [40.0, 0.0, 0.0])


def test_every_phase_is_watched_by_itself() -> None:
    losses = watch(chance=0.01)
    for step in range(60):
        add(losses, step, [1.0, 0.5, 6.9 * (step > 0)])  # from nothing to less than ten times log 2: no explosion
    with pytest.raises(Broken, match=r"exploded from 0 to -?20, most of all other\.A"):
        for step in range(60, 100):
            add(losses, step, [1.0, 0.5, -20.0])  # a loss may run away downwards, too
    losses = watch()
    add(losses, 0, [1.0, 0.5, 3.0])
    with pytest.raises(Broken, match=r"exploded from 3 to 100, most of all other\.A"):
        for step in range(1, 50):
            add(losses, step, [1.0, 0.5, 100.0])


def test_a_small_start_may_rise_to_what_guessing_costs() -> None:
    losses = watch(chance=1.0)
    add(losses, 0, [0.001, 0.0, 0.0])
    for step in range(1, 60):
        add(losses, step, [5.0, 0.0, 0.0])
    with pytest.raises(Broken, match="exploded"):
        for step in range(60, 100):
            add(losses, step, [11.0, 0.0, 0.0])


def test_the_watch_goes_on_where_it_was() -> None:
    first, second = watch(), watch()
    for step in range(5):
        add(first, step, [1.0 + step, 0.3, 0.1])
    second.restore(json.loads(json.dumps(first.state())))
    for losses in (first, second):
        add(losses, 5, [2.0, 0.1, 0.1])
    assert first.means() == second.means() and first.recent == second.recent
