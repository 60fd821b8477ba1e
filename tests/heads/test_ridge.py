"""Ridge and least squares against brute force: refit without each row, and look at what it predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core.errors import ConfigError
from headstart.core.tasks import Task
from headstart.heads import LinearRegressionHead, RidgeHead, TrainingRows, solve_head
from headstart.heads.ridge import _FoldRidge
from headstart.transferability.leave_one_out import LeaveOneOut

SINGLE, NUMBER = Task("classification", ("ant", "bee", "cat")), Task("regression")
SHAPES = [(12, 4), (12, 30), (9, 8), (12, 12)]  # tall, wide, and around the edge where a fit becomes perfect


def literal_ridge(x: np.ndarray, y: np.ndarray, weights: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Solve the normal equations with an unpenalised last column of ones."""
    ones = np.column_stack([x, np.ones(len(x))])
    penalties = np.diag([penalty] * x.shape[1] + [0.0])
    solution = np.linalg.lstsq(
        ones.T @ (weights[:, None] * ones) + penalties, ones.T @ (weights[:, None] * y), rcond=None
    )[0]
    return solution[:-1], solution[-1]


def literal_left_out(x: np.ndarray, y: np.ndarray, weights: np.ndarray, penalty: float) -> np.ndarray:
    predicted = np.empty_like(y)
    for row in range(len(x)):
        rest = np.arange(len(x)) != row
        weight, bias = literal_ridge(x[rest], y[rest], weights[rest], penalty)
        predicted[row] = x[row] @ weight + bias
    return predicted


def random_rows(shape: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.normal(size=shape), random.normal(size=(shape[0], 2)), random.uniform(0.2, 3.0, size=shape[0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("penalty", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("plain", [True, False])
def test_leave_one_out_equals_refitting(shape: tuple[int, int], penalty: float, plain: bool) -> None:
    x, y, weights = random_rows(shape)
    weights = np.ones(len(x)) if plain else weights
    exact = LeaveOneOut(x, y, weights)
    np.testing.assert_allclose(
        exact.predictions(penalty), literal_left_out(x, y, weights, penalty), rtol=1e-9, atol=1e-9
    )
    weight, bias = exact.solution(penalty)
    expected_weight, expected_bias = literal_ridge(x, y, weights, penalty)
    np.testing.assert_allclose(weight.T, expected_weight, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(bias, expected_bias, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_without_a_penalty_it_is_least_squares_of_smallest_length(shape: tuple[int, int]) -> None:
    x, y, _ = random_rows(shape)
    expected = np.empty_like(y)
    for row in range(len(x)):
        rest = np.arange(len(x)) != row
        mean_x, mean_y = x[rest].mean(axis=0), y[rest].mean(axis=0)
        expected[row] = (x[row] - mean_x) @ np.linalg.pinv(x[rest] - mean_x) @ (y[rest] - mean_y) + mean_y
    if shape != (9, 8):  # there one row more or less makes the fit perfect, and the left-out residual is 0 / 0
        np.testing.assert_allclose(LeaveOneOut(x, y, np.ones(len(x))).predictions(0.0), expected, rtol=1e-7, atol=1e-7)


def test_equal_rows_do_not_disturb_it() -> None:
    x, y, _ = random_rows((6, 20))
    x, y = np.vstack([x, x]), np.vstack([y, y + 0.1])
    weights = np.ones(12)
    np.testing.assert_allclose(
        LeaveOneOut(x, y, weights).predictions(0.01), literal_left_out(x, y, weights, 0.01), rtol=1e-7, atol=1e-7
    )


def test_folds_equal_refitting() -> None:
    x, _, weights = random_rows((30, 50))
    targets = np.random.default_rng(1).integers(0, 3, size=30)
    rows = TrainingRows.of(x, targets, SINGLE, sample_weight=weights)
    predicted = _FoldRidge(rows).predictions(0.3)
    for fold in range(5):
        train, held = rows.folds != fold, rows.folds == fold
        weight, bias = literal_ridge(rows.space.rotated[train], rows.codes[train], rows.weights[train], 0.3)
        np.testing.assert_allclose(predicted[held], rows.space.rotated[held] @ weight + bias, atol=1e-9)


@pytest.mark.parametrize("shape", [(60, 10), (60, 59), (60, 60), (60, 500)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_labels_are_not_predictable(shape: tuple[int, int], dtype: type) -> None:
    """The leave-one-out trap: without care for the constant direction, this reports (nearly) perfect accuracy."""
    rates, losses = [], []
    for seed in range(12):
        random = np.random.default_rng(seed)
        features, targets = random.normal(size=shape).astype(dtype), random.permutation(np.repeat([0, 1, 2], 20))
        head = RidgeHead().fit(features + 5, targets, SINGLE)
        assert head.validation_predictions is not None
        rates.append(np.mean(head.validation_predictions.argmax(axis=1) == targets))
        losses.append(head.report["nested_score"])
    assert 0.22 < np.mean(rates) < 0.45  # chance is 1/3
    assert np.mean(losses) > 0.95 * np.log(3)  # the surprise of a blind guess


@pytest.mark.golden
def test_random_labels_are_not_predictable_by_the_default_head() -> None:
    rates = []
    for seed in range(8):
        random = np.random.default_rng(seed)
        features, targets = random.normal(size=(60, 200)), random.permutation(np.repeat([0, 1], 30))
        head = solve_head(features, targets, Task("classification", ("a", "b")), seed=seed)
        assert head.validation_predictions is not None
        rates.append(np.mean(head.validation_predictions.argmax(axis=1) == targets))
    assert 0.3 < np.mean(rates) < 0.6


def test_the_trap_would_be_seen() -> None:
    """The wrong way (labels centred, the constant direction's eigenvalue left at zero and divided by) does see a miracle."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(60, 500)), random.permutation(np.repeat([-1.0, 1.0], 30))
    gram = (x - x.mean(axis=0)) @ (x - x.mean(axis=0)).T
    inverse = np.linalg.inv(gram + 1e-9 * np.eye(60))
    centred = y - y.mean() + 1e-12
    naive = centred - (inverse @ centred) / np.diag(inverse)
    right = LeaveOneOut(x, y[:, None], np.ones(60)).predictions(1e-9)[:, 0]
    assert np.mean(np.sign(naive) == y) > 0.9
    assert np.mean(np.sign(right) == y) < 0.7


def test_agrees_with_scikit_learn() -> None:
    linear: Any = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(0)
    features, numbers = random.normal(size=(40, 6)) * 3 + 1, random.normal(size=40)
    head = RidgeHead(penalty=2.5).fit(features, numbers, NUMBER)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    other = linear.Ridge(alpha=2.5).fit(standard / np.sqrt(6), numbers)  # rows of mean squared length 1
    np.testing.assert_allclose(head.predict(features), other.predict(standard / np.sqrt(6)), atol=1e-10)
    plain = LinearRegressionHead().fit(features, numbers, NUMBER)
    np.testing.assert_allclose(plain.weight[0], linear.LinearRegression().fit(features, numbers).coef_, atol=1e-10)


def test_value_worked_out_by_hand() -> None:
    """Rows -1, 0, 1 have variance 2/3, so z = x sqrt(3/2) and sum z^2 = 3; slope = sum z y / (3 + penalty)."""
    head = RidgeHead(penalty=3.0).fit(np.array([[-1.0], [0.0], [1.0]]), np.array([0.0, 1.0, 5.0]), NUMBER)
    slope = np.sqrt(1.5) * 5 / 6
    np.testing.assert_allclose(head.weight, [[slope * np.sqrt(1.5)]])
    np.testing.assert_allclose(head.bias, [2.0])


def test_groups_are_held_out_together() -> None:
    """Copies of a row give its label away; leaving out single rows does not notice, leaving out groups does."""
    random = np.random.default_rng(0)
    features, targets = random.normal(size=(20, 50)), random.permutation(np.repeat([0, 1], 10))
    copies, labels, groups = np.repeat(features, 3, axis=0), np.repeat(targets, 3), np.repeat(np.arange(20), 3)
    task = Task("classification", ("a", "b"))
    kind, honest = RidgeHead().fit(copies, labels, task), RidgeHead().fit(copies, labels, task, groups=groups)
    assert kind.report["score"] < 0.1
    assert honest.report["score"] > 0.5
    assert honest.report["held_out"] == "5 folds of groups"


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), wide=st.booleans())
def test_units_and_offsets_of_features_do_not_matter(seed: int, wide: bool) -> None:
    random = np.random.default_rng(seed)
    features, numbers = random.normal(size=(15, 25 if wide else 4)), random.normal(size=15)
    scale, offset = 10 ** random.uniform(-3, 3, size=features.shape[1]), random.normal(size=features.shape[1])
    first = RidgeHead().fit(features, numbers, NUMBER)
    second = RidgeHead().fit(features * scale + offset, numbers, NUMBER)
    np.testing.assert_allclose(first.predict(features), second.predict(features * scale + offset), atol=1e-6)


def test_sample_weights_stand_for_repeated_rows() -> None:
    random = np.random.default_rng(0)
    features, numbers, counts = random.normal(size=(10, 3)), random.normal(size=10), random.integers(1, 4, size=10)
    weighted = LinearRegressionHead().fit(features, numbers, NUMBER, sample_weight=counts)
    repeated = LinearRegressionHead().fit(np.repeat(features, counts, axis=0), np.repeat(numbers, counts), NUMBER)
    np.testing.assert_allclose(weighted.weight, repeated.weight, atol=1e-10)


def test_wrong_configuration_is_refused() -> None:
    with pytest.raises(ConfigError, match="penalty is positive; got -1"):
        RidgeHead(penalty=-1)
    with pytest.raises(ConfigError, match="fits numbers"):
        LinearRegressionHead().fit(np.zeros((3, 2)), np.array([0, 1, 2]), SINGLE)
