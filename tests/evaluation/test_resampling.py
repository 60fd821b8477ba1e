"""Every weighted metric equals the metric on repeated rows; draws are what a bootstrap's draws are."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core.errors import DataError, ShapeError
from headstart.core.tasks import Task
from headstart.evaluation.resampling import bootstrap_weights, check_rows, weighted_metric
from headstart.metrics import METRICS, metrics_for

TASKS = [
    Task("classification", ("a", "b")),
    Task("classification", ("a", "b", "c", "never")),
    Task("multilabel", ("x", "y", "z")),
    Task("regression"),
]
CASES = [(task, metric.name) for task in TASKS for metric in metrics_for(task)]


def made_up(task: Task, num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    k = len(task.classes)
    if task.kind == "regression":
        targets = random.normal(size=num_rows)
        return targets, targets + random.normal(size=num_rows)
    if task.kind == "multilabel":
        return random.integers(0, 2, (num_rows, k)).astype(np.uint8), random.random((num_rows, k)).round(1)
    scores = random.random((num_rows, k)).round(1) + 0.05
    targets = random.integers(0, k - (k > 2), num_rows)
    return targets, scores / scores.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("task", "name"), CASES, ids=lambda value: getattr(value, "kind", value))
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), counts=st.lists(st.integers(0, 4), min_size=2, max_size=25))
def test_weights_are_repeated_rows(task: Task, name: str, seed: int, counts: list[int]) -> None:
    counts[0] += 1
    targets, scores = made_up(task, len(counts), seed)
    rows = np.repeat(np.arange(len(counts)), counts)
    expected = METRICS[name](task, targets[rows], scores[rows])
    weights = np.array([counts, counts], dtype=np.float32).T
    found = weighted_metric(name, task, targets, scores)(weights)
    np.testing.assert_allclose(found, [expected, expected], rtol=1e-9, atol=1e-9)


def test_a_new_metric_works_without_a_fast_form(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    odd = replace(METRICS["rmse"], name="median_error", function=lambda _, t, s: float(np.median(np.abs(t - s))))
    monkeypatch.setitem(METRICS, "median_error", odd)
    targets, scores = np.array([0.0, 0.0, 0.0]), np.array([1.0, 2.0, 9.0])
    weighted = weighted_metric("median_error", Task("regression"), targets, scores)
    assert weighted(np.array([[1, 0], [1, 0], [1, 3]], dtype=np.float32)).tolist() == [2.0, 9.0]


def test_every_metric_has_a_fast_form() -> None:
    """A metric that falls back to a thousand calls should be a decision, not an accident."""
    from headstart.evaluation import resampling

    fast = {*resampling._FROM_COUNTS, *resampling._ROW_VALUES, *resampling._SPECIAL}
    assert fast == set(METRICS)


def test_draws_have_the_right_totals_and_are_repeatable() -> None:
    first = np.concatenate(list(bootstrap_weights(7, 500, seed=3)), axis=1)
    again = np.concatenate(list(bootstrap_weights(7, 500, seed=3)), axis=1)
    other = np.concatenate(list(bootstrap_weights(7, 500, seed=4)), axis=1)
    assert first.shape == (7, 500)
    assert (first.sum(axis=0) == 7).all()
    assert (first == again).all()
    assert (first != other).any()
    # A count is binomial(7, 1/7): mean 1, variance 6/7; 3,500 of them.
    assert abs(first.var() - 6 / 7) < 0.06


def test_blocks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.evaluation.resampling._CELLS", 50)
    blocks = list(bootstrap_weights(10, 12, seed=0))
    assert [block.shape[1] for block in blocks] == [5, 5, 2]


def test_groups_are_drawn_whole() -> None:
    groups = np.array(["p", "p", "q", "q", "q"])
    weights = next(bootstrap_weights(5, 200, seed=0, groups=groups))
    assert (weights[0] == weights[1]).all()
    assert (weights[2] == weights[3]).all()
    assert set(weights[0] + weights[2]) == {2.0}


def test_bad_rows_are_refused() -> None:
    task = TASKS[0]
    with pytest.raises(DataError, match="at least one row"):
        check_rows("evaluate", task, np.zeros(0, dtype=int), np.zeros((0, 2)))
    with pytest.raises(ShapeError, match="3 rows but scores has 2"):
        check_rows("evaluate", task, np.zeros(3, dtype=int), np.zeros((2, 2)))


@pytest.mark.golden
def test_a_hundred_and_fifty_classes_are_quick() -> None:
    from headstart.evaluation import evaluate

    task = Task("classification", tuple(f"class {index}" for index in range(150)))
    random = np.random.default_rng(0)
    targets = random.integers(0, 150, 4500)
    scores = random.random((4500, 150))
    scores[np.arange(4500), targets] += 0.6
    started = time.process_time()
    evaluate(task, targets, scores / scores.sum(axis=1, keepdims=True))
    assert time.process_time() - started < 20
