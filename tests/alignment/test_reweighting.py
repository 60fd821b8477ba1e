"""Weights against quadratic programming, direct maximisation, brute-force leave-one-out and known ratios of Gaussians."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.alignment import (
    BBSE,
    KLIEP,
    KMM,
    ULSIF,
    DiscriminatorRatio,
    GaussianRatio,
    NearestNeighbourWeighting,
    Reweighter,
    RuLSIF,
)
from headstart.alignment.density_ratio import left_out_scores, mixture_shares
from headstart.alignment.kmm import kernel_mean_weights
from headstart.alignment.quadratic import project, solve_quadratic
from headstart.core.errors import ConfigError, DomainError

COVARIATE: list[Reweighter] = [
    KMM(),
    KLIEP(),
    ULSIF(),
    RuLSIF(),
    DiscriminatorRatio(),
    NearestNeighbourWeighting(),
    GaussianRatio(),
]


def shifted(seed: int, num_source: int = 60, num_target: int = 40, width: int = 2) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.normal(size=(num_source, width)), 0.7 * random.normal(size=(num_target, width)) + 0.5


def gaussian(rows: np.ndarray, centres: np.ndarray, width: float) -> np.ndarray:
    return np.array([[np.exp(-((x - c) ** 2).sum() / (2 * width**2)) for c in centres] for x in rows])


@pytest.mark.parametrize(
    ("upper", "low", "high"), [(np.inf, -np.inf, np.inf), (1.0, -np.inf, np.inf), (5.0, 9.0, 9.0), (0.4, 0.0, 1.5)]
)
def test_quadratic_meets_the_conditions_of_its_optimum(upper: float, low: float, high: float) -> None:
    random = np.random.default_rng(0)
    half = random.normal(size=(30, 30))
    K, c = half @ half.T / 30 + 0.01 * np.eye(30), random.normal(size=30) + 0.5
    x = solve_quadratic(K, c, upper=upper, low=low, high=high, tolerance=1e-14)
    assert (x >= 0).all()
    assert (x <= upper).all()
    assert low - 1e-9 <= x.sum() <= high + 1e-9
    slope, free = K @ x - c, (x > 1e-9) & (x < upper - 1e-9)
    at_high, at_low = x.sum() >= high - 1e-9, x.sum() <= low + 1e-9
    price = slope[free].mean() if at_high or at_low else 0.0
    assert price <= 1e-9 or at_low
    assert price >= -1e-9 or at_high
    np.testing.assert_allclose(slope[free], price, atol=1e-6)
    assert (slope[x <= 1e-9] >= price - 1e-6).all()
    assert (slope[x >= upper - 1e-9] <= price + 1e-6).all()
    found = optimize.minimize(
        lambda z: 0.5 * z @ K @ z - c @ z,
        np.full(30, 0.01),
        jac=lambda z: K @ z - c,
        bounds=[(0, None if np.isinf(upper) else upper)] * 30,
        constraints=[
            {"type": "ineq", "fun": lambda z: min(high, 1e6) - z.sum()},
            {"type": "ineq", "fun": lambda z: z.sum() - max(low, -1e6)},
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert 0.5 * x @ K @ x - c @ x <= found.fun + 1e-7


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 0.99))
def test_projection_is_the_nearest_point(seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    point = random.normal(size=8) * 3
    found = project(point, 2.0, share * 16.0)
    assert found.sum() == pytest.approx(share * 16.0)
    for _ in range(20):  # obtuse angle to every other feasible point
        other = random.dirichlet(np.ones(8)) * share * 16.0
        if other.max() <= 2.0:
            assert (point - found) @ (other - found) <= 1e-8


def test_kmm_solves_its_problem() -> None:
    source, target = shifted(0, 12, 8)
    weights, value = kernel_mean_weights(source, target, 0.8, 1.8, 0.1, ridge=0.01, tolerance=1e-14)
    K, k = gaussian(source, source, 0.8) + 0.01 * np.eye(12), 12 / 8 * gaussian(source, target, 0.8).sum(axis=1)
    best = optimize.minimize(
        lambda w: 0.5 * w @ K @ w - k @ w,
        np.ones(12),
        jac=lambda w: K @ w - k,
        bounds=[(0, 1.8)] * 12,
        constraints=[
            {"type": "ineq", "fun": lambda w: 12 * 1.1 - w.sum()},
            {"type": "ineq", "fun": lambda w: w.sum() - 12 * 0.9},
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert value == pytest.approx(best.fun, abs=1e-9)
    np.testing.assert_allclose(weights, best.x, atol=1e-3)
    assert value == pytest.approx(0.5 * weights @ K @ weights - k @ weights)


def test_kmm_stays_at_the_optimum_where_the_kernel_has_low_rank() -> None:
    source, target = shifted(1, 150, 100, 1)
    source = np.repeat(source[:75], 2, axis=0)
    weights, value = kernel_mean_weights(source, target, 1.0, 1000.0, 0.9)
    K, k = gaussian(source, source, 1.0), 1.5 * gaussian(source, target, 1.0).sum(axis=1)
    slope = K @ weights - k
    assert slope @ weights <= 1e-4 * abs(value)
    assert slope.min() >= -1e-3 * k.max()


def test_kliep_is_the_maximum_of_its_likelihood() -> None:
    source, target = shifted(2, 30, 12)
    fitted = KLIEP(bandwidths=[0.6], min_effective_rows=1).fit(source, None, target)
    both = np.concatenate([source, target])
    spread = np.sqrt(((both - both.mean(axis=0)) ** 2).sum(axis=1).mean())
    at_source, at_target = gaussian(source, target, 0.6 * spread), gaussian(target, target, 0.6 * spread)
    best = optimize.minimize(
        lambda a: -np.log(at_target @ a).mean(),
        np.full(12, 1 / at_source.mean(axis=0).sum()),
        bounds=[(0, None)] * 12,
        constraints=[{"type": "eq", "fun": lambda a: at_source.mean(axis=0) @ a - 1}],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    assert -np.log(at_target @ fitted.coefficients_).mean() == pytest.approx(best.fun, abs=1e-6)
    assert (at_source @ fitted.coefficients_).mean() == pytest.approx(1.0)
    np.testing.assert_allclose(fitted.weights_, at_source @ best.x, atol=5e-3)


def test_kliep_scores_are_held_out_log_ratios() -> None:
    source, target = shifted(3, 30, 12)
    fitted = KLIEP(bandwidths=[0.5, 1.0], num_folds=3, min_effective_rows=1).fit(source, None, target)
    both = np.concatenate([source, target])
    spread = np.sqrt(((both - both.mean(axis=0)) ** 2).sum(axis=1).mean())
    random = np.random.default_rng(0)
    parts, fold = random.permutation(np.arange(30) % 3), random.permutation(np.arange(12) % 3)
    for width, score in zip((0.5, 1.0), fitted.scores_, strict=True):
        scores = []
        for part in range(3):
            at_source = gaussian(source[parts != part], target, width * spread).mean(axis=0)
            shares = mixture_shares(gaussian(target[fold != part], target, width * spread) / at_source)
            held_out = gaussian(target[fold == part], target, width * spread) @ (shares / at_source)
            normal = gaussian(source[parts == part], target, width * spread) @ (shares / at_source)
            scores.append(np.log(held_out).mean() - np.log(normal.mean()))
        assert score == pytest.approx(np.mean(scores), abs=1e-6)
    assert fitted.bandwidth_ == (0.5, 1.0)[int(np.argmax(fitted.scores_))]


@pytest.mark.parametrize("relative", [0.0, 0.3])
def test_left_out_scores_are_those_of_refitting(relative: float) -> None:
    random = np.random.default_rng(0)
    at_source, at_target = random.random((9, 5)), random.random((7, 5))
    pairs = random.permutation(9)[:7], random.permutation(7)
    quick = left_out_scores(at_source, at_target, 0.2, relative, pairs)
    for score, i, j in zip(quick, *pairs, strict=True):
        less_source, less_target = np.delete(at_source, i, axis=0), np.delete(at_target, j, axis=0)
        inner = (1 - relative) * less_source.T @ less_source / 8 + relative * less_target.T @ less_target / 6
        coefficients = np.maximum(np.linalg.solve(inner + 0.2 * np.eye(5), less_target.mean(axis=0)), 0)
        w_source, w_target = at_source[i] @ coefficients, at_target[j] @ coefficients
        assert score == pytest.approx(relative / 2 * w_target**2 + (1 - relative) / 2 * w_source**2 - w_target)


@pytest.mark.parametrize(("kind", "relative"), [(ULSIF, 0.0), (RuLSIF, 0.1)])
def test_least_squares_weights_are_their_closed_form(kind: Any, relative: float) -> None:
    source, target = shifted(4, 30, 12)
    fitted = kind(bandwidths=[0.3, 0.9], penalties=[0.05, 0.5], min_effective_rows=1).fit(source, None, target)
    both = np.concatenate([source, target])
    spread = np.sqrt(((both - both.mean(axis=0)) ** 2).sum(axis=1).mean())
    at_source, at_target = (gaussian(rows, target, fitted.bandwidth_ * spread) for rows in (source, target))
    inner = (1 - relative) * at_source.T @ at_source / 30 + relative * at_target.T @ at_target / 12
    coefficients = np.maximum(np.linalg.inv(inner + fitted.penalty_ * np.eye(12)) @ at_target.mean(axis=0), 0)
    weights = at_source @ coefficients
    np.testing.assert_allclose(fitted.weights_, weights / weights.mean(), rtol=1e-8)
    place = np.unravel_index(fitted.scores_.argmin(), (2, 2))
    assert (fitted.bandwidth_, fitted.penalty_) == ((0.3, 0.9)[place[0]], (0.05, 0.5)[place[1]])


def test_discriminator_weights_are_odds_of_a_logistic_regression() -> None:
    source, target = shifted(5)
    rows = np.concatenate([source, target])
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    model = LogisticRegression(C=0.5, tol=1e-8).fit(rows, np.repeat([0, 1], [60, 40]))
    odds = np.exp(model.decision_function(rows[:60]))
    fitted = DiscriminatorRatio(regularisation=2.0).fit(source, None, target)
    np.testing.assert_allclose(fitted.weights_, odds / odds.mean(), rtol=1e-4)
    as_sparse = DiscriminatorRatio(2.0).fit(sparse.csr_matrix(source), None, sparse.csr_matrix(target))
    np.testing.assert_allclose(as_sparse.weights_, fitted.weights_, rtol=1e-4)


def test_neighbour_weights_count_cells() -> None:
    source, target = shifted(6)
    source[7] = source[3]
    counts = np.ones(60) * 0.5
    for row in target:
        gaps = ((source - row) ** 2).sum(axis=1)
        nearest = np.flatnonzero(gaps == gaps.min())
        counts[nearest] += 1 / len(nearest)
    fitted = NearestNeighbourWeighting(smoothing=0.5).fit(source, None, target)
    np.testing.assert_allclose(fitted.weights_, counts / counts.mean())


def test_gaussian_weights_are_the_ratio_of_densities() -> None:
    from scipy.stats import multivariate_normal as normal

    source, target = shifted(7)
    ratio = normal(target.mean(axis=0), np.cov(target.T)).pdf(source) / normal(
        source.mean(axis=0), np.cov(source.T)
    ).pdf(source)
    fitted = GaussianRatio(regularisation=0.0).fit(source, None, target)
    np.testing.assert_allclose(fitted.weights_, ratio / ratio.mean(), rtol=1e-8)


@pytest.mark.parametrize(
    ("aligner", "least"),
    [(KMM(), 0.9), (KLIEP(), 0.95), (ULSIF(), 0.93), (RuLSIF(), 0.95), (GaussianRatio(), 0.97)],
    ids=repr,
)
def test_a_known_ratio_is_recovered(aligner: Reweighter, least: float) -> None:
    source, target = shifted(8, 400, 400)
    truth = np.exp((source**2).sum(axis=1) / 2 - ((source - 0.5) ** 2).sum(axis=1) / (2 * 0.49))
    assert np.corrcoef(aligner.fit(source, None, target).weights_, truth)[0, 1] > least


def test_the_discriminator_recovers_the_ratio_of_shifted_gaussians() -> None:
    random = np.random.default_rng(9)  # equal covariances: the log ratio is linear
    source, target = random.normal(size=(1000, 2)), random.normal([0.8, 0.0], size=(1000, 2))
    weights = DiscriminatorRatio().fit(source, None, target).weights_
    assert np.corrcoef(np.log(weights), source[:, 0])[0, 1] > 0.98
    np.testing.assert_allclose(np.polyfit(source[:, 0], np.log(weights), 1)[0], 0.8, atol=0.12)


@pytest.mark.parametrize("aligner", COVARIATE, ids=repr)
def test_identical_domains_get_weights_near_one(aligner: Reweighter) -> None:
    source, _ = shifted(10)
    weights = aligner.fit(source, None, source[::-1].copy()).weights_
    np.testing.assert_allclose(weights, 1.0, atol=0.35 if isinstance(aligner, RuLSIF) else 0.2)
    assert weights.mean() == pytest.approx(1.0)


@pytest.mark.parametrize("aligner", COVARIATE, ids=repr)
def test_units_and_origin_change_nothing(aligner: Reweighter) -> None:
    source, target = shifted(11)
    plain = aligner.fit(source, None, target).weights_
    for unit, origin in ((1e-4, 0.0), (1e4, 30.0)):
        moved = aligner.fit(unit * (source + origin), None, unit * (target + origin)).weights_
        np.testing.assert_allclose(moved, plain, atol=1e-4)


@pytest.mark.parametrize(
    "aligner",
    [KMM(), KLIEP(bandwidths=[0.7]), RuLSIF(0.1, [0.7], [0.1]), ULSIF([0.7], [0.1]), *COVARIATE[4:]],
    ids=repr,
)
def test_order_of_rows_changes_nothing(aligner: Reweighter) -> None:
    source, target = shifted(12)
    order = np.random.default_rng(0).permutation(60)
    plain = aligner.fit(source, None, target).weights_
    np.testing.assert_allclose(aligner.fit(source[order], None, target[::-1].copy()).weights_, plain[order], atol=1e-4)


def imbalanced(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return source rows of three classes in equal parts, their labels, and a target with 10, 20 and 70 %."""
    random = np.random.default_rng(seed)
    places = np.array([[0.0, 0.0], [2.5, 0.0], [0.0, 2.5]])
    labels, others = np.repeat([0, 1, 2], 100), np.repeat([0, 1, 2], [30, 60, 210])
    draw = random.normal(size=(600, 2))
    return places[labels] + draw[:300], np.array(["a", "b", "c"])[labels], places[others] + draw[300:]


@pytest.mark.parametrize("soft", [True, False])
def test_label_shift_weights_solve_the_confusion_system(soft: bool) -> None:
    source, labels, target = imbalanced()
    fitted = BBSE(soft=soft).fit(source, labels, target)
    np.testing.assert_allclose(fitted.class_weights_, [0.3, 0.6, 2.1], atol=0.25)
    np.testing.assert_allclose(fitted.target_proportions_, [0.1, 0.2, 0.7], atol=0.08)
    by_class = dict(zip(fitted.classes_, fitted.class_weights_, strict=True))
    expected = np.array([by_class[label] for label in labels])
    np.testing.assert_allclose(fitted.weights_, expected / expected.mean())
    assert BBSE(soft=soft).fit(source, labels, source).class_weights_ == pytest.approx([1, 1, 1], abs=0.1)


def test_label_shift_weights_invert_the_held_out_confusion_matrix() -> None:
    source, labels, target = imbalanced(1)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    model = make_pipeline(StandardScaler(with_mean=False), LogisticRegression(max_iter=1000))
    said = cross_val_predict(model, source, labels, cv=folds, method="predict_proba")
    confusion = said.T @ (labels[:, None] == ["a", "b", "c"]) / 300
    weights = np.linalg.inv(confusion) @ model.fit(source, labels).predict_proba(target).mean(axis=0)
    assert (weights > 0).all()
    np.testing.assert_allclose(BBSE().fit(source, labels, target).class_weights_, weights, rtol=1e-4)


def test_a_classifier_that_tells_nothing_is_refused() -> None:
    source, labels, target = imbalanced()
    with pytest.raises(DomainError, match=r"BBSE: .*"):
        BBSE().fit(source, np.random.default_rng(0).permutation(labels), target)


@pytest.mark.parametrize(
    "aligner",
    [KMM(), KLIEP(), ULSIF(), RuLSIF(), GaussianRatio(), DiscriminatorRatio(1e-6), NearestNeighbourWeighting(0.0)],
    ids=repr,
)
def test_far_domains_are_refused_or_weigh_few_rows_honestly(aligner: Reweighter) -> None:
    random = np.random.default_rng(0)
    source, target = random.normal(size=(60, 2)), random.normal(size=(40, 2)) * 0.1 + 30.0
    with pytest.raises(DomainError, match=type(aligner).__name__):
        aligner.set_params(min_effective_rows=50).fit(source, None, target)


CHANGES: list[tuple[type, dict[str, Any]]] = [
    (KMM, {"bandwidth": 0.3}),
    (KMM, {"upper": 1.2}),
    (KMM, {"slack": 0.0}),
    (KMM, {"ridge": 0.1}),
    (KLIEP, {"bandwidths": [0.2]}),
    (KLIEP, {"num_centres": 5}),
    (KLIEP, {"num_folds": 2}),
    (KLIEP, {"random_state": 4}),
    (ULSIF, {"bandwidths": [0.2]}),
    (ULSIF, {"penalties": [5.0]}),
    (ULSIF, {"num_centres": 5}),
    (ULSIF, {"random_state": 1}),
    (RuLSIF, {"relative": 0.5}),
    (RuLSIF, {"bandwidths": [0.2]}),
    (RuLSIF, {"penalties": [5.0]}),
    (RuLSIF, {"num_centres": 5}),
    (RuLSIF, {"random_state": 1}),
    (DiscriminatorRatio, {"regularisation": 50.0}),
    (NearestNeighbourWeighting, {"smoothing": 0.2}),
    (GaussianRatio, {"regularisation": 1.0}),
    (BBSE, {"estimator": LogisticRegression(C=0.01)}),
    (BBSE, {"soft": False}),
    (BBSE, {"num_folds": 2}),
    (BBSE, {"random_state": 1}),
]


@pytest.mark.parametrize(("kind", "changed"), CHANGES, ids=str)
def test_no_parameter_is_dead(kind: Any, changed: dict[str, Any]) -> None:
    source, target = shifted(13, 60, 40)
    labels = (source[:, 0] > 0).astype(int)
    if kind in (KLIEP, ULSIF, RuLSIF) and ("random_state" in changed or "num_folds" in changed):
        plain, other = kind().fit(source, labels, target).scores_, kind(**changed).fit(source, labels, target).scores_
    else:
        plain, other = kind().fit(source, labels, target).weights_, kind(**changed).fit(source, labels, target).weights_
    assert np.abs(np.asarray(plain) - np.asarray(other)).max() > 1e-6
    with pytest.raises(DomainError, match=r"min_effective_rows=59\.99"):
        kind(min_effective_rows=59.99).fit(source, labels, target)


@pytest.mark.parametrize(
    ("aligner", "message"),
    [
        (KMM(bandwidth=0.0), "KMM: bandwidth must be a number above 0"),
        (KMM(slack=2.0), "KMM: slack must be a number"),
        (KMM(upper=0.5, slack=0.1), "KMM: upper must be at least 1 - slack = 0.9; got 0.5"),
        (KLIEP(bandwidths=[]), "KLIEP: bandwidths needs at least one value"),
        (KLIEP(num_folds=1), "num_folds must be a whole number of at least 2"),
        (ULSIF(penalties=[0.0]), "ULSIF: penalties must be a number above 0"),
        (RuLSIF(relative=1.0), "RuLSIF: relative must be a number at least 0 and below 1"),
        (DiscriminatorRatio(regularisation=-1.0), "regularisation must be a number above 0"),
        (NearestNeighbourWeighting(smoothing=-1.0), "smoothing must be a number at least 0"),
        (GaussianRatio(regularisation=-1.0), "regularisation must be a number at least 0"),
        (BBSE(max_condition=0.5), "max_condition must be a number at least 1"),
        (BBSE(num_folds=1), "num_folds must be a whole number of at least 2"),
    ],
)
def test_bad_options_are_refused(aligner: Reweighter, message: str) -> None:
    source, target = shifted(0)
    with pytest.raises(ConfigError, match=message):
        aligner.fit(source, np.arange(60) % 2, target)


def test_what_bbse_and_gaussians_cannot_do_is_said() -> None:
    source, target = shifted(0)
    with pytest.raises(DomainError, match="'b' has 1"):
        BBSE().fit(source, ["a"] * 59 + ["b"], target)
    with pytest.raises(DomainError, match="one class, 'a'"):
        BBSE().fit(source, ["a"] * 60, target)
    with pytest.raises(DomainError, match="covariance has no inverse"):
        GaussianRatio(regularisation=0.0).fit(
            np.column_stack([source, source[:, 0]]), None, np.column_stack([target, target])[:, :3]
        )
