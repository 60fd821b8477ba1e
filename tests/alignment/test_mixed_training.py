"""Balanced weighting, fusion and feature augmentation: both domains' rows in one training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from headstart.alignment import (
    AdaptedClassifier,
    AugmentedClassifier,
    AugmentedRegressor,
    BalancedWeighting,
    BalancedWeightingRegressor,
    FeatureAugmentation,
    Fusion,
    FusionRegressor,
)
from headstart.alignment.balanced_weighting import balanced_weights
from headstart.core.errors import ConfigError
from two_domain_problems import clouds, few_labels

DRAWS = np.random.default_rng(0)
SOURCE, TARGET = DRAWS.normal(size=(30, 3)), DRAWS.normal(size=(12, 3))
VALUES = SOURCE @ [1.0, 2.0, 0.0] + 1.0
TARGET_VALUES = TARGET @ [1.0, -2.0, 0.0] - 3.0


@pytest.mark.golden
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.0, 1.0))
def test_weights_have_mean_one_and_the_target_its_share(num_source: int, num_target: int, gamma: float) -> None:
    weights = balanced_weights(num_source, num_target, gamma)
    assert weights.mean() == pytest.approx(1.0)
    assert weights[num_source:].sum() == pytest.approx(gamma * (num_source + num_target))
    assert np.ptp(weights[:num_source]) == 0


def test_balanced_ridge_is_the_mixed_normal_equations() -> None:
    gamma, alpha = 0.3, 0.7
    model = BalancedWeightingRegressor(Ridge(alpha=alpha), gamma).fit(
        SOURCE, VALUES, TARGET, target_labels=TARGET_VALUES
    )
    rows = np.column_stack([np.concatenate([SOURCE, TARGET]), np.ones(42)])
    weights = np.concatenate([np.full(30, (1 - gamma) / 30), np.full(12, gamma / 12)]) * 42
    penalty = alpha * np.diag([1.0, 1.0, 1.0, 0.0])
    solution = np.linalg.solve(
        rows.T @ (weights[:, None] * rows) + penalty, rows.T @ (weights * np.concatenate([VALUES, TARGET_VALUES]))
    )
    np.testing.assert_allclose(model.predict(TARGET), TARGET @ solution[:3] + solution[3], rtol=1e-9)


def test_the_ends_of_gamma_are_one_domain_alone() -> None:
    ends = {0.0: Ridge().fit(SOURCE, VALUES), 1.0: Ridge(alpha=12 / 42).fit(TARGET, TARGET_VALUES)}
    for gamma, alone in ends.items():
        model = BalancedWeightingRegressor(
            Ridge(alpha=42 / 30 if gamma == 0 else 1.0), gamma
        ).fit(SOURCE, VALUES, TARGET, target_labels=TARGET_VALUES)  # fmt: skip
        np.testing.assert_allclose(model.predict(TARGET), alone.predict(TARGET), rtol=1e-9)
    pooled = BalancedWeightingRegressor(gamma=12 / 42).fit(SOURCE, VALUES, TARGET, target_labels=TARGET_VALUES)
    both = Ridge().fit(np.concatenate([SOURCE, TARGET]), np.concatenate([VALUES, TARGET_VALUES]))
    np.testing.assert_allclose(pooled.predict(TARGET), both.predict(TARGET), rtol=1e-9)


def test_a_class_without_target_rows_gets_no_probability_from_the_target_alone() -> None:
    labels = np.repeat(["a", "b", "c"], 10)
    model = BalancedWeighting(gamma=1.0).fit(SOURCE, labels, TARGET, target_labels=["a", "c"] * 6)
    assert model.predict_proba(TARGET)[:, 1].max() == 0
    one = BalancedWeighting(gamma=1.0).fit(SOURCE, labels, TARGET, target_labels=["b"] * 12)
    assert set(one.predict(TARGET)) == {"b"}


def test_without_target_labels_every_method_is_its_estimator_on_the_source() -> None:
    rows, labels = clouds(0)
    target, _ = clouds(1, shift=1.0)
    alone = LogisticRegression(max_iter=1000).fit(rows, labels).predict_proba(target)
    for method in (BalancedWeighting(), Fusion()):
        np.testing.assert_allclose(method.fit(rows, labels, target).predict_proba(target), alone, atol=1e-12)


def moved(shift: float = 2.0):  # type: ignore[no-untyped-def]
    rows, labels = clouds(0)
    target, truth = clouds(1, shift=shift)
    return rows, labels, target, truth, few_labels(truth, 8)


@pytest.mark.parametrize(
    "method", [BalancedWeighting(gamma=0.8), Fusion(), AugmentedClassifier(own_scale=3.0)], ids=repr
)
def test_a_few_labels_mend_a_moved_target(method) -> None:  # type: ignore[no-untyped-def]
    rows, labels, target, truth, known = moved()
    rest = np.array([label is None for label in known])
    alone = LogisticRegression(max_iter=1000).fit(rows, labels).score(target[rest], truth[rest])
    mended = method.fit(rows, labels, target, target_labels=known).score(target[rest], truth[rest])
    assert alone < 0.75
    assert mended > alone + 0.15


def test_two_target_rows_alone_hurt_where_the_source_was_right() -> None:
    rows, labels = clouds(0, num_features=20)
    target, truth = clouds(1, num_features=20)
    alone = LogisticRegression(max_iter=1000).fit(rows, labels).score(target, truth)
    two = BalancedWeighting(gamma=1.0).fit(rows, labels, target, target_labels=few_labels(truth, 1))
    assert alone > 0.9
    assert two.score(target, truth) < alone - 0.1


def test_fusion_keeps_a_good_source_and_leaves_a_bad_one() -> None:
    rows, labels, target, truth, _ = moved(shift=0.0)
    known = few_labels(truth, 10)
    good = Fusion().fit(rows, labels, target, target_labels=known)
    opposite = Fusion().fit(rows, np.where(labels == "up", "down", "up"), target, target_labels=known)
    assert good.weight_ >= 0.5
    assert opposite.weight_ == 0.0
    assert {0.0, 1.0, 160 / 180} <= set(good.candidates_.tolist())
    assert good.losses_.min() == good.losses_[good.candidates_.tolist().index(good.weight_)]


def test_fusion_losses_are_those_of_literal_folds() -> None:
    known = np.concatenate([TARGET_VALUES[:9], [np.nan] * 3])
    model = FusionRegressor(candidates=(0.4,), num_folds=3).fit(SOURCE, VALUES, TARGET, target_labels=known)
    assert model.candidates_.tolist() == [1.0, 30 / 39, 0.4, 0.0]
    folds = np.empty(9, dtype=int)
    folds[np.argsort(known[:9])] = np.arange(9) % 3
    expected = []
    for weight in model.candidates_:
        gaps = []
        for fold in range(3):
            kept = folds != fold
            rows, values = np.concatenate([SOURCE, TARGET[:9][kept]]), np.concatenate([VALUES, known[:9][kept]])
            weights = np.concatenate([np.full(30, weight / 30), np.full(6, (1 - weight) / 6)]) * 36
            used = weights > 0
            trained = Ridge().fit(rows[used], values[used], sample_weight=weights[used])
            gaps += [*(trained.predict(TARGET[:9][~kept]) - known[:9][~kept])]
        expected.append(np.mean(np.square(gaps)))
    np.testing.assert_allclose(model.losses_, expected, rtol=1e-9)
    fixed = FusionRegressor(weight=model.weight_).fit(SOURCE, VALUES, TARGET, target_labels=known)
    np.testing.assert_allclose(fixed.predict(TARGET), model.predict(TARGET), rtol=1e-12)


@given(st.integers(0, 10_000), st.floats(0.0, 4.0))
@settings(max_examples=20)
def test_augmentation_doubles_inner_products_within_a_domain(seed: int, scale: float) -> None:
    draws = np.random.default_rng(seed)
    source, target = draws.normal(size=(4, 3)), draws.normal(size=(5, 3))
    aligner = FeatureAugmentation(scale).fit(source, None, target)
    inner = aligner.transform(np.concatenate([source, target]), sample_domain=np.repeat([1, -1], [4, 5]))
    plain = np.concatenate([source, target]) @ np.concatenate([source, target]).T
    factor = np.full((9, 9), 1.0)
    factor[:4, :4] = factor[4:, 4:] = 1 + scale**2  # 2 in the paper
    np.testing.assert_allclose(inner @ inner.T, factor * plain, atol=1e-9)


def test_augmentation_keeps_sparse_rows_sparse_and_the_dtype() -> None:
    source, target = SOURCE.astype(np.float32) * (SOURCE > 0), TARGET.astype(np.float32)
    thin = FeatureAugmentation(2.0).fit_transform(sparse.csr_matrix(source), None, sparse.csr_matrix(target))
    assert sparse.issparse(thin) and thin.dtype == np.float32
    assert thin.nnz == 2 * np.count_nonzero(source)
    np.testing.assert_array_equal(thin.toarray(), FeatureAugmentation(2.0).fit_transform(source, None, target))


def test_augmented_regression_is_ridge_with_a_shared_and_two_own_weights() -> None:
    rows = np.zeros((42, 9))
    rows[:30, :3], rows[:30, 3:6] = SOURCE, 2 * SOURCE
    rows[30:, :3], rows[30:, 6:] = TARGET, 2 * TARGET
    literal = Ridge().fit(rows, np.concatenate([VALUES, TARGET_VALUES]))
    model = AugmentedRegressor(own_scale=2.0).fit(SOURCE, VALUES, TARGET, target_labels=TARGET_VALUES)
    np.testing.assert_allclose(model.predict(TARGET), literal.predict(rows[30:]), rtol=1e-9)


def test_augmentation_separates_a_feature_that_changes_its_sign() -> None:
    draws = np.random.default_rng(0)
    rows, target = draws.normal(size=(200, 2)), draws.normal(size=(200, 2))
    labels, truth = (rows.sum(axis=1) > 0).astype(int), (target @ [1.0, -1.0] > 0).astype(int)
    known = np.where(np.arange(200) < 30, truth, -1)
    model = AugmentedClassifier().fit(rows, labels, target, target_labels=known)
    alone = AdaptedClassifier(FeatureAugmentation()).fit(rows, labels, target)
    assert model.score(target[30:], truth[30:]) > alone.score(target[30:], truth[30:]) + 0.3
    shared = model.estimator_.coef_[0, :2]
    assert shared[0] > 2 * abs(shared[1])


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (BalancedWeighting(gamma=1.5), "gamma must be a number at least 0 and at most 1"),
        (BalancedWeighting(KNeighborsClassifier(1)), "KNeighborsClassifier does not"),
        (Fusion(weight="learn"), 'weight must be "auto" or a number'),
        (Fusion(weight=-0.1), "weight must be a number at least 0"),
        (Fusion(candidates=(2.0,)), "each of candidates must be"),
        (Fusion(num_folds=1), "num_folds must be a whole number of at least 2"),
        (AugmentedClassifier(own_scale=-1.0), "own_scale must be a number at least 0"),
    ],
    ids=repr,
)
def test_options_are_checked_in_words(method, message: str) -> None:  # type: ignore[no-untyped-def]
    rows, labels, target, _, known = moved()
    with pytest.raises(ConfigError, match=f"{type(method).__name__}: .*{message}"):
        method.fit(rows, labels, target, target_labels=known)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        (BalancedWeighting(), {"estimator": GaussianNB(), "gamma": 0.9}),
        (Fusion(), {"estimator": GaussianNB(), "weight": 0.3, "candidates": (0.02, 0.04, 0.3, 0.6), "num_folds": 2}),
        (AugmentedClassifier(), {"estimator": GaussianNB(), "own_scale": 3.0}),
    ],
    ids=repr,
)
def test_every_option_changes_something(method, changes) -> None:  # type: ignore[no-untyped-def]
    rows, labels, target, _, known = moved()
    assert set(changes) == set(method.get_params(deep=False))

    def outcome(fitted) -> list[float]:  # type: ignore[no-untyped-def]
        return [*fitted.predict_proba(target).ravel(), *getattr(fitted, "losses_", [])]

    usual = outcome(method.fit(rows, labels, target, target_labels=known))
    for name, value in changes.items():
        other = type(method)(**{name: value}).fit(rows, labels, target, target_labels=known)
        assert outcome(other) != usual, name
