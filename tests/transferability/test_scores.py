"""Every score against its formula written out row by row, by hand, and against what the mathematics promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core.errors import ConfigError, DataError, ShapeError
from headstart.transferability import h_score, leep, linear_probe_loo, logme, nce, transrate
from headstart.transferability.h_score import ledoit_wolf_shrinkage
from headstart.transferability.row_space import RowSpace

FEATURE_SCORES: list[Callable[..., float]] = [logme, h_score, transrate, linear_probe_loo]
SHAPES = [(30, 5), (20, 50), (24, 24)]


def rows(shape: tuple[int, int] = (30, 5), seed: int = 0, signal: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    classes = random.permutation(np.arange(shape[0]) % 3)
    return random.normal(size=shape) + signal * np.eye(3, shape[1])[classes] * 2, classes


def literal_logme(features: np.ndarray, columns: np.ndarray, tolerance: float = 1e-11) -> float:
    """Algorithm 1 of the paper, one column at a time, with matrices."""
    n, d = features.shape
    total = 0.0
    for y in columns.T:
        alpha = beta = 1.0
        for _ in range(5000):
            a = alpha * np.eye(d) + beta * features.T @ features
            m = beta * np.linalg.solve(a, features.T @ y)
            gamma = float(np.trace(beta * features.T @ features @ np.linalg.inv(a)))
            old, alpha, beta = alpha / beta, gamma / (m @ m), (n - gamma) / ((features @ m - y) @ (features @ m - y))
            if abs(alpha / beta - old) <= tolerance * old:
                break
        a = alpha * np.eye(d) + beta * features.T @ features
        m = beta * np.linalg.solve(a, features.T @ y)
        evidence = d / 2 * np.log(alpha) + n / 2 * np.log(beta) - n / 2 * np.log(2 * np.pi)
        evidence -= beta / 2 * ((features @ m - y) @ (features @ m - y)) + alpha / 2 * (m @ m)
        total += (evidence - np.linalg.slogdet(a)[1] / 2) / n
    return total / columns.shape[1]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logme_is_the_paper_s_algorithm(shape: tuple[int, int]) -> None:
    features, classes = rows(shape)
    features = features * np.geomspace(1, 0.01, shape[1])  # otherwise, when wide, alpha and beta mean the same
    converged: Any = {"tolerance": 1e-11, "max_steps": 5000}
    assert logme(features, classes, **converged) == pytest.approx(literal_logme(features, np.eye(3)[classes]), abs=1e-8)
    labels = np.eye(3)[classes][:, :2].astype(np.uint8)
    assert logme(features, labels, **converged) == pytest.approx(literal_logme(features, labels), abs=1e-8)
    values = features[:, 0] + np.random.default_rng(1).normal(size=len(features))
    assert logme(features, values, **converged) == pytest.approx(literal_logme(features, values[:, None]), abs=1e-8)


def test_logme_is_the_largest_evidence() -> None:
    """No other alpha and beta give more: the marginal likelihood, from the covariance of y itself."""
    features, _ = rows((15, 4))
    y = features[:, 0] + np.random.default_rng(1).normal(size=15)
    best = logme(features, y, tolerance=1e-12, max_steps=10_000)

    def evidence(alpha: float, beta: float) -> float:
        covariance = features @ features.T / alpha + np.eye(15) / beta
        return float(-(y @ np.linalg.solve(covariance, y) + np.linalg.slogdet(2 * np.pi * covariance)[1]) / 30)

    grid = np.geomspace(0.01, 100, 60)
    over_grid = max(evidence(alpha, beta) for alpha in grid for beta in grid)
    assert best >= over_grid
    assert best == pytest.approx(over_grid, abs=2e-3)


def test_logme_by_hand() -> None:
    """One feature, all ones; y = (1, 1, 1, 3): gamma, alpha and beta solve a quadratic. Evidence from the covariance."""
    y = np.array([1.0, 1.0, 1.0, 3.0])  # s^2 = 4; y'u = 3 so (u'y)^2 = 9; rest = 12 - 9 = 3
    # maximise over p = 1/alpha * 4 + 1/beta (variance along u) and q = 1/beta: p = 9, q = 3 / 3 = 1
    expected = -0.5 * (4 * np.log(2 * np.pi) + np.log(9) + 3 * np.log(1) + 1 + 3) / 4
    assert logme(np.ones((4, 1)), y, tolerance=1e-12, max_steps=10_000) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_h_score_is_the_formula(shape: tuple[int, int]) -> None:
    covariance: Any = pytest.importorskip("sklearn.covariance")
    features, classes = rows(shape)
    centred = features - features.mean(axis=0)
    spread = centred.T @ centred / len(centred)
    means = np.stack([centred[classes == label].mean(axis=0) for label in classes])
    between = means.T @ means / len(centred)
    expected = np.trace(np.linalg.pinv(spread, rcond=1e-10, hermitian=True) @ between)
    assert h_score(features, classes, shrinkage=False) == pytest.approx(expected, abs=1e-8)
    shrunk, amount = covariance.ledoit_wolf(centred, assume_centered=True)
    assert ledoit_wolf_shrinkage(centred) == pytest.approx(amount, abs=1e-12)
    regularised = np.trace(np.linalg.solve(shrunk, (1 - amount) * between))
    assert h_score(features, classes) == pytest.approx(regularised, abs=1e-9)


def test_h_score_without_shrinkage_is_blind_when_features_are_many() -> None:
    features, _ = rows((20, 50))
    for seed in range(3):
        noise = np.random.default_rng(seed).permutation(np.arange(20) % 3)
        assert h_score(features, noise, shrinkage=False) == pytest.approx(2.0)  # k - 1, whatever the labels
        assert h_score(features, noise) < 1.5


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("eps", [1e-4, 0.3])
def test_transrate_is_the_formula(shape: tuple[int, int], eps: float) -> None:
    features, classes = rows(shape)

    def rate(z: np.ndarray) -> float:
        return 0.5 * float(np.linalg.slogdet(np.eye(z.shape[1]) + z.T @ z / (len(z) * eps))[1])

    z = features - features.mean(axis=0)
    z = z / np.sqrt(np.trace(z @ z.T))
    uneven = np.where(classes == 2, 1, classes)
    for labels in (classes, uneven):
        expected = rate(z) - sum((labels == c).mean() * rate(z[labels == c]) for c in np.unique(labels))
        assert transrate(features, labels, eps) == pytest.approx(expected, abs=1e-9)


def test_leep_is_the_formula_and_by_hand() -> None:
    random = np.random.default_rng(0)
    theta, classes = random.dirichlet(np.ones(6), size=25), random.permutation(np.arange(25) % 3)
    joint = np.array([[theta[classes == y, z].sum() / 25 for z in range(6)] for y in range(3)])
    conditional = joint / joint.sum(axis=0)
    expected = np.mean([np.log(sum(conditional[classes[i], z] * theta[i, z] for z in range(6))) for i in range(25)])
    assert leep(theta, classes) == pytest.approx(expected, abs=1e-12)
    by_hand = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]])  # P(0|z=0) = 2/2.5, P(1|z=0) = 0.2, P(1|z=1) = 1
    assert leep(by_hand, np.array([0, 0, 1])) == pytest.approx((2 * np.log(0.8) + np.log(0.5 * 0.2 + 0.5)) / 3)


def test_nce_is_the_formula() -> None:
    metrics: Any = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    source, classes = random.integers(0, 5, size=40), random.permutation(np.arange(40) % 3)
    share = np.bincount(classes) / 40
    entropy = -(share * np.log(share)).sum()
    assert nce(source, classes) == pytest.approx(metrics.mutual_info_score(source, classes) - entropy, abs=1e-12)
    total = 0.0
    for z in range(5):
        for y in range(3):
            both, one = np.mean((source == z) & (classes == y)), np.mean(source == z)
            total += both * np.log(both / one) if both else 0.0
    assert nce(source, classes) == pytest.approx(total, abs=1e-12)
    assert nce(np.array(["a", "b"])[source % 2], classes) == nce(source % 2, classes)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_leep_of_certain_predictions_is_nce(seed: int) -> None:
    random = np.random.default_rng(seed)
    source, classes = random.integers(0, 4, size=30), random.permutation(np.arange(30) % 3)
    assert leep(np.eye(4)[source], classes) == pytest.approx(nce(source, classes), abs=1e-12)
    soft = random.dirichlet(np.ones(4), size=30)
    assert leep(soft, classes) <= 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_probe_is_ridge_refitted_without_each_row(shape: tuple[int, int]) -> None:
    features, classes = rows(shape)
    space = RowSpace.of(features)
    x, codes = space.rotated, 2 * np.eye(3)[classes] - 1
    best = (np.inf, 0.0)
    for penalty in np.logspace(-4, 4, 40):
        left_out = np.empty_like(codes)
        for row in range(len(x)):
            rest = np.arange(len(x)) != row
            mean_x, mean_y = x[rest].mean(axis=0), codes[rest].mean(axis=0)
            inside = x[rest] - mean_x
            weight = np.linalg.solve(
                inside.T @ inside + penalty * np.eye(x.shape[1]), inside.T @ (codes[rest] - mean_y)
            )
            left_out[row] = (x[row] - mean_x) @ weight + mean_y
        best = min(best, (float(((left_out - codes) ** 2).mean()), float(np.mean(left_out.argmax(axis=1) == classes))))
    assert linear_probe_loo(features, classes) == pytest.approx(max(best[1], np.bincount(classes).max() / len(classes)))


def test_linear_probe_reads_values_and_several_labels() -> None:
    features, classes = rows((60, 5))
    noise = np.random.default_rng(1).normal(size=60)
    assert linear_probe_loo(features, features[:, 0] + 0.1 * noise) > 0.9
    assert linear_probe_loo(features, noise) < 0.2
    assert linear_probe_loo(features, np.eye(3, dtype=int)[classes]) > 0.8


@pytest.mark.parametrize("width", [10, 59, 60, 500])
def test_random_labels_are_not_predictable(width: int) -> None:
    """The leave-one-out trap: without care for the constant direction this is near 1."""
    rates = []
    for seed in range(12):
        random = np.random.default_rng(seed)
        rates.append(linear_probe_loo(random.normal(size=(60, width)) + 3, random.permutation(np.arange(60) % 3)))
    assert 1 / 3 <= np.mean(rates) < 0.45


@pytest.mark.parametrize(
    ("score", "shape"),
    [(score, (300, 5)) for score in FEATURE_SCORES]
    # with fewer rows in a class than features, TransRate measures the number of rows
    + [(score, (60, 200)) for score in FEATURE_SCORES if score is not transrate],
)
def test_true_classes_score_higher_than_shuffled_ones(score: Callable[..., float], shape: tuple[int, int]) -> None:
    for seed in range(5):
        features, classes = rows(shape, seed)
        random = np.random.default_rng(seed)
        assert score(features, classes) > max(score(features, random.permutation(classes)) for _ in range(5))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
@pytest.mark.parametrize("score", FEATURE_SCORES, ids=lambda item: item.__name__)
def test_row_order_class_names_and_rotation_do_not_matter(score: Callable[..., float], seed: int) -> None:
    features, classes = rows((24, 6), seed)
    random = np.random.default_rng(seed)
    order = random.permutation(24)
    value = score(features, classes)
    assert score(features[order], classes[order]) == pytest.approx(value, abs=1e-7)
    assert score(features, np.array([7, 2, 40])[classes]) == pytest.approx(value, abs=1e-9)
    if score is not linear_probe_loo:  # it standardises each feature
        rotation = np.linalg.qr(random.normal(size=(6, 6)))[0]
        assert score(features @ rotation, classes) == pytest.approx(value, abs=1e-7)


@pytest.mark.parametrize("score", [h_score, transrate, linear_probe_loo], ids=lambda item: item.__name__)
def test_unit_and_offset_of_the_features_do_not_matter(score: Callable[..., float]) -> None:
    features, classes = rows()
    assert score(features * 1000 + 5, classes) == pytest.approx(score(features, classes), abs=1e-7)


@pytest.mark.parametrize("score", FEATURE_SCORES, ids=lambda item: item.__name__)
def test_single_precision_gives_the_same_value(score: Callable[..., float]) -> None:
    features, classes = rows((40, 100))
    single = features.astype(np.float32)
    assert score(single, classes) == pytest.approx(score(single.astype(np.float64), classes), abs=1e-5)


@pytest.mark.parametrize("score", FEATURE_SCORES, ids=lambda item: item.__name__)
def test_what_cannot_be_scored_is_refused(score: Callable[..., float]) -> None:
    features, classes = rows()
    broken = features.copy()
    broken[0, 0] = np.inf
    with pytest.raises(DataError, match=f"{score.__name__}: features must be finite"):
        score(broken, classes)
    with pytest.raises(ShapeError, match="30 rows but targets has 29"):
        score(features, classes[:-1])
    with pytest.raises(ShapeError, match="must be a matrix"):
        score(features[:, 0], classes)
    with pytest.raises(DataError, match="at least two classes"):
        score(features, np.zeros(30, dtype=int))
    if score in (h_score, transrate):
        with pytest.raises(ShapeError, match="one class for each row"):
            score(features, np.eye(3)[classes])
        with pytest.raises(DataError, match="same features"):
            score(np.ones((30, 4)), classes)
    else:
        assert np.isfinite(score(np.ones((30, 4)), classes))
        with pytest.raises(DataError, match="0 or 1 each"):
            score(features, features[:, :2])
        with pytest.raises(DataError, match="all targets are equal"):
            score(features, np.ones(30))


def test_other_bad_input_is_refused() -> None:
    features, classes = rows()
    with pytest.raises(ConfigError, match="eps is positive"):
        transrate(features, classes, eps=0)
    with pytest.raises(ConfigError, match="tolerance"):
        logme(features, classes, tolerance=0)
    with pytest.raises(DataError, match="softmax"):
        leep(features, classes)
    with pytest.raises(ShapeError, match="one source label"):
        nce(features, classes)
    with pytest.raises(ShapeError, match="source labels has 3 rows"):
        nce(np.arange(3), classes)
