"""Paired tests: exact values by hand, scikit-free twins, and the right share of false alarms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core.errors import ShapeError
from headstart.core.tasks import Task
from headstart.evaluation import paired_test
from headstart.metrics import METRICS

TWO = Task("classification", ("a", "b"))
NUMBERS = Task("regression")


def test_mcnemar_by_hand() -> None:
    # a alone right in 6 rows, b alone in 1: p = 2 * (C(7,0) + C(7,1)) / 2^7 = 16 / 128
    truth = np.zeros(20, dtype=int)
    a, b = np.zeros(20, dtype=int), np.zeros(20, dtype=int)
    b[:6] = 1
    a[6] = 1
    test = paired_test(TWO, truth, a, b, "accuracy")
    assert test.test == "exact McNemar"
    assert test.p_value == pytest.approx(0.125)
    assert test.difference == pytest.approx(0.25)
    assert test.low < 0.25 < test.high


def test_permutation_agrees_with_all_swaps() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(size=9)
    a, b = truth + 0.4 * random.normal(size=9), truth + random.normal(size=9)
    observed = METRICS["rmse"](NUMBERS, truth, a) - METRICS["rmse"](NUMBERS, truth, b)
    extreme = 0
    for swaps in itertools.product([False, True], repeat=9):
        first, second = np.where(swaps, b, a), np.where(swaps, a, b)
        gap = METRICS["rmse"](NUMBERS, truth, first) - METRICS["rmse"](NUMBERS, truth, second)
        extreme += abs(gap) >= abs(observed) - 1e-12
    test = paired_test(NUMBERS, truth, a, b, "rmse", num_resamples=20_000)
    assert test.test == "paired permutation"
    assert test.p_value == pytest.approx(extreme / 2**9, abs=0.015)


def test_positive_favours_a_also_for_losses() -> None:
    truth = np.arange(30.0)
    test = paired_test(NUMBERS, truth, truth + 0.1, truth + 5.0, "mae")
    assert (test.difference, test.low, test.high) == pytest.approx((4.9, 4.9, 4.9))
    assert test.p_value < 0.001


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), metric=st.sampled_from(["accuracy", "f1_macro", "log_loss", "roc_auc"]))
def test_exchanging_the_models_changes_the_sign_alone(seed: int, metric: str) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, 30)
    truth[:2] = [0, 1]
    a, b = random.dirichlet([1, 1], 30), random.dirichlet([1, 1], 30)
    forth = paired_test(TWO, truth, a, b, metric, num_resamples=200)
    back = paired_test(TWO, truth, b, a, metric, num_resamples=200)
    assert forth.difference == pytest.approx(-back.difference)
    assert forth.p_value == pytest.approx(back.p_value, abs=1e-12)
    assert forth.low == pytest.approx(-back.high, abs=1e-6)


def test_a_model_does_not_differ_from_itself() -> None:
    truth = np.array([0, 1, 1, 0])
    scores = np.array([[0.6, 0.4], [0.3, 0.7], [0.8, 0.2], [0.9, 0.1]])
    for metric in ("accuracy", "f1_macro", "log_loss"):
        test = paired_test(TWO, truth, scores, scores, metric, num_resamples=100)
        assert (test.difference, test.low, test.high, test.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_false_alarms_are_as_rare_as_promised() -> None:
    random = np.random.default_rng(2)
    alarms = 0
    for trial in range(200):
        truth = random.normal(size=40)
        a, b = truth + random.normal(size=40), truth + random.normal(size=40)
        alarms += paired_test(NUMBERS, truth, a, b, "rmse", num_resamples=199, seed=trial).p_value < 0.05
    assert alarms <= 20  # 5 % of 200 is 10; more than 20 has a chance below 0.2 %


def test_groups_are_swapped_together() -> None:
    """Ten copies of eight independent rows are no stronger evidence than the eight."""
    truth = np.zeros(80, dtype=int)
    wrong = np.ones(80, dtype=int)
    plain = paired_test(TWO, truth, truth, wrong, "accuracy")
    grouped = paired_test(TWO, truth, truth, wrong, "accuracy", groups=np.repeat(np.arange(8), 10))
    assert plain.p_value < 1e-10
    assert grouped.p_value == pytest.approx(2 / 2**8, abs=0.008)
    assert grouped.test == "paired permutation"


def test_several_labels_at_once() -> None:
    task = Task("multilabel", ("x", "y"))
    truth = np.tile([[1, 0], [0, 1]], (20, 1)).astype(np.uint8)
    good, bad = truth * 0.8 + 0.1, np.full((40, 2), 0.4)
    test = paired_test(task, truth, good, bad, "f1_macro")
    assert test.difference == pytest.approx(1.0)
    assert test.p_value < 0.001


def test_an_undefined_metric_claims_nothing() -> None:
    truth = np.zeros(6, dtype=int)
    test = paired_test(TWO, truth, np.full((6, 2), 0.5), np.full((6, 2), 0.4), "roc_auc")
    assert (test.difference, test.p_value) == (0.0, 1.0)


def test_rows_must_match() -> None:
    with pytest.raises(ShapeError, match="paired_test"):
        paired_test(TWO, np.zeros(4, dtype=int), np.zeros(4, dtype=int), np.zeros(3, dtype=int), "accuracy")
