"""Logistic regression against scikit-learn, against the conditions of a minimum, and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.core.errors import ConfigError
from headstart.core.tasks import Task
from headstart.heads import LogisticHead, RidgeHead
from headstart.heads.lbfgs import minimise
from headstart.heads.logistic import solve_logistic

SINGLE = Task("classification", ("ant", "bee", "cat"))
MULTI = Task("multilabel", ("red", "round", "rare"))


def rows(num_rows: int = 60, width: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(num_rows, width))
    classes = (x[:, :3] + random.normal(size=(num_rows, 3))).argmax(axis=1)
    labels = (x[:, :3] + random.normal(size=(num_rows, 3)) > [0, 0.5, 1.5]).astype(np.uint8)
    return x, classes, labels


def literal_objective(
    x: np.ndarray, y: np.ndarray, sample_weights: np.ndarray, penalty: float, exclusive: bool, flat: np.ndarray
) -> float:
    """The formula of the module, one row at a time."""
    weight, bias = flat[: -y.shape[1]].reshape(y.shape[1], -1), flat[-y.shape[1] :]
    total = 0.5 * penalty * float((weight**2).sum())
    for row, truth, share in zip(x, y, sample_weights, strict=True):
        scores = weight @ row + bias
        if exclusive:
            total -= share * float(np.log(np.exp(scores) / np.exp(scores).sum())[truth.argmax()])
        else:
            p = 1 / (1 + np.exp(-scores))
            total -= share * float((truth * np.log(p) + (1 - truth) * np.log(1 - p)).sum())
    return total


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("penalty", [0.05, 5.0])
@pytest.mark.parametrize("width", [8, 100])
def test_the_solution_is_the_minimum_of_the_formula(exclusive: bool, penalty: float, width: int) -> None:
    x, classes, labels = rows(40, width)
    y = np.eye(3)[classes] if exclusive else labels.astype(float)
    weights = np.random.default_rng(1).uniform(0.5, 2.0, size=40)
    weight, bias = solve_logistic(x, y, weights, penalty, exclusive, tolerance=1e-13)
    best = np.concatenate([weight.ravel(), bias])
    random = np.random.default_rng(2)
    for _ in range(20):
        direction = random.normal(size=best.shape)
        direction *= 1e-4 / np.linalg.norm(direction)
        ahead = literal_objective(x, y, weights, penalty, exclusive, best + direction)
        behind = literal_objective(x, y, weights, penalty, exclusive, best - direction)
        assert abs(ahead - behind) / 2e-4 < 1e-3  # no slope
        assert ahead + behind >= 2 * literal_objective(x, y, weights, penalty, exclusive, best) - 1e-9  # a minimum


def test_agrees_with_scikit_learn() -> None:
    linear: Any = pytest.importorskip("sklearn.linear_model")
    x, classes, labels = rows()
    weight, bias = solve_logistic(x, np.eye(3)[classes], np.ones(60), 0.5, True, tolerance=1e-14)
    other = linear.LogisticRegression(C=2.0, tol=1e-10, max_iter=10_000).fit(x, classes)
    np.testing.assert_allclose(weight, other.coef_, atol=1e-5)
    np.testing.assert_allclose(bias - bias.mean(), other.intercept_ - other.intercept_.mean(), atol=1e-5)
    weight, bias = solve_logistic(x, labels.astype(float), np.ones(60), 0.5, False, tolerance=1e-14)
    for label in range(3):
        other = linear.LogisticRegression(C=2.0, tol=1e-10, max_iter=10_000).fit(x, labels[:, label])
        np.testing.assert_allclose(weight[label], other.coef_[0], atol=1e-5)
        np.testing.assert_allclose(bias[label], other.intercept_[0], atol=1e-5)


@pytest.mark.parametrize("width", [5, 200])
def test_the_rotation_changes_nothing(width: int) -> None:
    """Solved on standardised features as they are, and on the rotated row space: the same predictions."""
    x, classes, _ = rows(50, width)
    head = LogisticHead(penalty=0.2, tolerance=1e-13).fit(x * 7 + 3, classes, SINGLE)
    standard = (x - x.mean(axis=0)) / x.std(axis=0) / np.sqrt(width)
    weight, bias = solve_logistic(standard, np.eye(3)[classes], np.ones(50), 0.2, True, tolerance=1e-14)
    expected, got = standard @ weight.T + bias, head.decision(x * 7 + 3)
    centred = [scores - scores.mean(axis=1, keepdims=True) for scores in (expected, got)]
    np.testing.assert_allclose(centred[1], centred[0], atol=1e-4)


def test_a_start_saves_work_and_leads_to_the_same_end() -> None:
    x, classes, _ = rows(200, 30)
    cold = LogisticHead(penalty=0.01, tolerance=1e-12).fit(x, classes, SINGLE)
    warm = LogisticHead(penalty=0.01, tolerance=1e-12).fit(x, classes, SINGLE, start=cold)
    np.testing.assert_allclose(warm.predict_proba(x), cold.predict_proba(x), atol=1e-4)
    barely = LogisticHead(penalty=0.01, tolerance=1e3).fit(x, classes, SINGLE, start=cold)  # takes no step at all
    gap = barely.decision(x) - cold.decision(x) / cold.temperature
    np.testing.assert_allclose(gap - gap.mean(axis=1, keepdims=True), 0, atol=1e-6)
    with pytest.raises(ConfigError, match="same features and classes"):
        LogisticHead().fit(x[:, :5], classes, SINGLE, start=cold)


def test_a_class_without_rows_stays_finite_and_is_never_predicted() -> None:
    x, classes, labels = rows()
    task = Task("classification", ("ant", "bee", "cat", "dodo"))
    head = LogisticHead().fit(x, classes, task)
    assert np.isfinite(head.weight).all() and np.isfinite(head.bias).all()
    assert head.predict_proba(x)[:, 3].max() < 0.1 and 3 not in head.predict(x)
    constant = np.column_stack([labels, np.ones(60), np.zeros(60)]).astype(np.uint8)
    many = LogisticHead(penalty=1.0).fit(x, constant, Task("multilabel", ("a", "b", "c", "always", "never")))
    assert np.isfinite(many.bias).all()
    assert many.predict(x)[:, 3].all() and not many.predict(x)[:, 4].any()


def test_balanced_classes_count_alike() -> None:
    random = np.random.default_rng(0)
    classes = np.repeat([0, 1], [190, 10])
    x = random.normal(size=(200, 3)) + classes[:, None] * 1.0
    task = Task("classification", ("common", "rare"))
    for head in (LogisticHead, RidgeHead):
        plain, balanced = head().fit(x, classes, task), head(class_weight="balanced").fit(x, classes, task)
        assert (balanced.predict(x)[classes == 1] == 1).mean() > (plain.predict(x)[classes == 1] == 1).mean() + 0.2
    repeated = LogisticHead(penalty=1.0, tolerance=1e-13).fit(
        x, classes, task, sample_weight=np.where(classes, 10, 10 / 19)
    )
    balanced = LogisticHead(penalty=1.0, tolerance=1e-13, class_weight="balanced").fit(x, classes, task)
    np.testing.assert_allclose(balanced.weight, repeated.weight, atol=1e-5)


def test_the_penalty_follows_the_noise() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(150, 20))
    clean = (x[:, 0] > 0).astype(int)
    noisy = np.where(random.random(150) < 0.4, 1 - clean, clean)
    task = Task("classification", ("a", "b"))
    assert (
        LogisticHead().fit(x, clean, task).report["penalty"] < LogisticHead().fit(x, noisy, task).report["penalty"] / 5
    )


def test_minimise_finds_a_minimum_by_hand_and_keeps_single_precision() -> None:
    curvature = np.array([1.0, 10.0, 100.0], dtype=np.float32)

    def bowl(x: np.ndarray) -> tuple[float, np.ndarray]:
        return float(0.5 * (curvature * (x - 1)) @ (x - 1)) + 1.0, curvature * (x - 1)

    found = minimise(bowl, np.zeros(3, dtype=np.float32), 1e-7)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 1.0, atol=1e-3)


def test_wrong_configuration_is_refused() -> None:
    x, classes, labels = rows()
    with pytest.raises(ConfigError, match="penalty is positive"):
        LogisticHead(penalty=0.0)
    with pytest.raises(ConfigError, match="tolerance is positive"):
        LogisticHead(tolerance=0.0)
    with pytest.raises(ConfigError, match="fits labels, not numbers"):
        LogisticHead().fit(x, x[:, 0], Task("regression"))
    with pytest.raises(ConfigError, match="one class for each row"):
        LogisticHead(class_weight="balanced").fit(x, labels, MULTI)
    with pytest.raises(ConfigError, match="'balanced'; got 'equal'"):
        LogisticHead(class_weight="equal").fit(x, classes, SINGLE)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="num_folds"):
        LogisticHead(num_folds=1).fit(x, classes, SINGLE)
