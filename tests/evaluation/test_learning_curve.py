"""Learning curves: rows held out are never trained on, draws are nested, more rows do help where they must."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from headstart.core.tasks import Task
from headstart.evaluation import learning_curve, learning_sizes

THREE = Task("classification", ("a", "b", "c"))


def rows(num_rows: int = 240) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    targets = random.integers(0, 3, num_rows)
    return random.normal(size=(num_rows, 20)) + 1.2 * np.eye(20)[targets], targets


def logistic(features_nd: np.ndarray, targets_n: np.ndarray) -> Any:
    model = LogisticRegression().fit(features_nd, targets_n)

    def scores(features_md: np.ndarray) -> np.ndarray:
        full = np.zeros((len(features_md), 3))
        full[:, model.classes_] = model.predict_proba(features_md)
        return full

    return scores


def test_more_rows_help() -> None:
    points = learning_curve(*rows(), THREE, logistic)
    assert [point.size for point in points] == learning_sizes(180, 8)
    assert points[-1].value > points[0].value + 0.1
    assert all(point.low <= point.value <= point.high for point in points)


def test_held_out_rows_stay_out_and_draws_are_nested() -> None:
    """The first feature is the row's number, so the solver can watch what it is given."""
    features, targets = rows(40)
    features[:, 0] = np.arange(40)
    seen: list[set[int]] = []

    def solve(features_nd: np.ndarray, targets_n: np.ndarray) -> Any:
        trained = {int(value) for value in features_nd[:, 0]}
        seen.append(trained)

        def scores(features_md: np.ndarray) -> np.ndarray:
            assert not trained & {int(value) for value in features_md[:, 0]}
            return np.full((len(features_md), 3), 1 / 3)

        return scores

    learning_curve(features, targets, THREE, solve, sizes=[6, 12, 30], num_folds=4)
    assert [len(one) for one in seen] == [6, 12, 30] * 4
    assert all(seen[i] < seen[i + 1] for i in range(len(seen) - 1) if i % 3 < 2)


def test_small_draws_hold_every_class() -> None:
    features, targets = rows(100)
    sizes = []

    def solve(features_nd: np.ndarray, targets_n: np.ndarray) -> Any:
        sizes.append(len(targets_n))
        assert len(np.unique(targets_n)) == 3
        return lambda features_md: np.full((len(features_md), 3), 1 / 3)

    learning_curve(features, targets, THREE, solve, sizes=[6])
    assert sizes == [6] * 4


def test_groups_stay_together() -> None:
    features, targets = rows(60)
    groups = np.arange(60) // 5
    features[:, 0] = groups

    def solve(features_nd: np.ndarray, targets_n: np.ndarray) -> Any:
        trained = set(features_nd[:, 0])

        def scores(features_md: np.ndarray) -> np.ndarray:
            assert not trained & set(features_md[:, 0])
            return np.full((len(features_md), 3), 1 / 3)

        return scores

    assert learning_curve(features, targets, THREE, solve, sizes=[12, 24], groups=groups)


def test_numbers_and_another_metric() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(100, 10))
    targets = features[:, 0] * 3 + 0.1 * random.normal(size=100)

    def ridge(features_nd: np.ndarray, targets_n: np.ndarray) -> Any:
        return Ridge(1e-3).fit(features_nd, targets_n).predict

    points = learning_curve(features, targets, Task("regression"), ridge, metric="r2")
    assert points[-1].value > 0.99
    default = learning_curve(features, targets, Task("regression"), ridge, sizes=[50])
    assert default[0].value == pytest.approx(0.1, abs=0.05)  # RMSE is the noise


def test_seed_decides_the_draws() -> None:
    first, same, other = (learning_curve(*rows(), THREE, logistic, sizes=[20], seed=seed) for seed in (0, 0, 1))
    assert first == same != other


def test_too_few_rows_give_no_curve() -> None:
    assert learning_curve(*rows(6), THREE, logistic) == []
