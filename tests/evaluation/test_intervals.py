"""Intervals: against a literal bootstrap, a known coverage, and values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from headstart.core.errors import ConfigError
from headstart.core.tasks import Task
from headstart.evaluation import Interval, bootstrap_interval, bootstrap_intervals, wilson_interval
from headstart.metrics import METRICS

TWO = Task("classification", ("a", "b"))


def test_agrees_with_a_literal_bootstrap() -> None:
    random = np.random.default_rng(0)
    targets, predictions = random.integers(0, 2, 80), random.integers(0, 2, 80)
    twin = []
    for _ in range(4000):
        rows = random.integers(0, 80, 80)
        twin.append(METRICS["f1_macro"](TWO, targets[rows], predictions[rows]))
    interval = bootstrap_interval("macro_f1", TWO, targets, predictions, num_resamples=4000)
    assert interval.value == METRICS["f1_macro"](TWO, targets, predictions)
    np.testing.assert_allclose([interval.low, interval.high], np.quantile(twin, [0.025, 0.975]), atol=0.015)


def test_accuracy_is_near_wilson() -> None:
    right = np.arange(200) < 150
    interval = bootstrap_interval("accuracy", TWO, np.zeros(200, dtype=int), (~right).astype(int))
    wilson = wilson_interval(150, 200)
    np.testing.assert_allclose([interval.low, interval.high], [wilson.low, wilson.high], atol=0.015)


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (3, 7), (10, 10), (500, 1000)])
def test_wilson_agrees_with_scipy(successes: int, trials: int) -> None:
    twin = binomtest(successes, trials).proportion_ci(0.9, method="wilson")
    ours = wilson_interval(successes, trials, 0.9)
    np.testing.assert_allclose([ours.low, ours.high], [twin.low, twin.high], atol=1e-12)


def test_wilson_without_trials_knows_nothing() -> None:
    interval = wilson_interval(0, 0)
    assert math.isnan(interval.value)
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_coverage_is_about_what_it_says() -> None:
    random = np.random.default_rng(1)
    held = 0
    for trial in range(300):
        predictions = (random.random(100) < 0.2).astype(int)
        interval = bootstrap_interval(
            "accuracy", TWO, np.zeros(100, dtype=int), predictions, num_resamples=300, seed=trial
        )
        held += interval.low <= 0.8 <= interval.high
    assert 0.89 <= held / 300 <= 0.98


def test_all_right_is_not_certainty() -> None:
    truth = np.array([0, 1] * 10)
    intervals = bootstrap_intervals(TWO, truth, truth, ["accuracy", "f1_macro"])
    assert intervals["accuracy"].high == 1.0
    assert 0.8 < intervals["accuracy"].low < 0.9
    assert intervals["f1_macro"].low == intervals["accuracy"].low


def test_groups_widen_the_interval() -> None:
    groups = np.repeat(np.arange(20), 10)
    wrong = (groups < 6).astype(int)
    truth = np.zeros(200, dtype=int)
    plain = bootstrap_interval("accuracy", TWO, truth, wrong)
    grouped = bootstrap_interval("accuracy", TWO, truth, wrong, groups=groups)
    assert grouped.width > 2.5 * plain.width


def test_any_statistic_of_rows() -> None:
    values = np.arange(100.0)
    interval = bootstrap_interval(lambda rows: float(np.median(values[rows])), Task("regression"), values, values)
    assert interval.value == 49.5
    assert 35 < interval.low < 49.5 < interval.high < 65


def test_confidence_and_seed_matter() -> None:
    targets, scores = np.arange(50.0), np.arange(50.0)[::-1].copy()
    task = Task("regression")
    wide = bootstrap_interval("rmse", task, targets, scores, confidence=0.99)
    narrow = bootstrap_interval("rmse", task, targets, scores, confidence=0.5)
    assert wide.width > 2 * narrow.width
    assert bootstrap_interval("rmse", task, targets, scores, seed=1) != bootstrap_interval(
        "rmse", task, targets, scores
    )
    assert bootstrap_interval("rmse", task, targets, scores, seed=1) == bootstrap_interval(
        "rmse", task, targets, scores, seed=1
    )


def test_undefined_stays_undefined_and_never_raises() -> None:
    interval = bootstrap_interval("roc_auc", TWO, np.zeros(5, dtype=int), np.full((5, 2), 0.5))
    assert not interval.finite
    assert bootstrap_interval("r2", Task("regression"), np.ones(4), np.ones(4)).finite is False


def test_an_interval_holds_its_value() -> None:
    """The calibration error of resamples is larger than that of the rows; the interval still holds the figure."""
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1, 1], 60)
    targets = (random.random(60) < probabilities[:, 1]).astype(int)
    interval = bootstrap_interval("calibration_error", TWO, targets, probabilities)
    assert interval.low <= interval.value <= interval.high


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="confidence lies in"):
        bootstrap_interval("accuracy", TWO, np.zeros(3, dtype=int), np.zeros(3, dtype=int), confidence=1.5)
    with pytest.raises(ConfigError, match="accuracy"):
        bootstrap_interval("acuracy", TWO, np.zeros(3, dtype=int), np.zeros(3, dtype=int))


def test_to_dict() -> None:
    assert Interval(1.0, 0.5, 1.5).to_dict() == {"value": 1.0, "low": 0.5, "high": 1.5}
