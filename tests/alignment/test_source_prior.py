"""The source prior against its closed form, brute-force leave-one-out, and a general-purpose optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV

from headstart.alignment import SourcePriorLogistic, SourcePriorRidge
from headstart.alignment.source_prior import linear_weights
from headstart.core.errors import ConfigError
from two_domain_problems import clouds, few_labels


def leaning_weights(num_labelled: int, seed: int = 0):  # type: ignore[no-untyped-def]
    """Return 300 source and 300 target rows of 20 features whose true weights differ a little."""
    draws = np.random.default_rng(seed)
    weights = draws.normal(size=20)
    moved = weights + 0.3 * draws.normal(size=20)
    source, target = draws.normal(size=(300, 20)), draws.normal(size=(300, 20))
    values, truth = source @ weights, target @ moved + 1.0
    known = np.where(np.arange(300) < num_labelled, truth + 0.3 * draws.normal(size=300), np.nan)
    return source, values, target, truth, known


@pytest.mark.parametrize("num_labelled", [1, 7, 60])  # fewer rows than features, and more
@pytest.mark.parametrize("as_rows", [np.asarray, sparse.csr_matrix])
def test_ridge_is_its_normal_equations_around_the_source(num_labelled: int, as_rows) -> None:  # type: ignore[no-untyped-def]
    source, values, target, _, known = leaning_weights(num_labelled)
    alpha = 3.0
    model = SourcePriorRidge(alpha=alpha, source_alpha=2.0).fit(
        as_rows(source), values, as_rows(target), target_labels=known
    )
    start = Ridge(alpha=2.0).fit(source, values)
    rows = np.column_stack([target[:num_labelled], np.ones(num_labelled)])
    gaps = known[:num_labelled] - start.predict(target[:num_labelled])
    step = np.linalg.solve(rows.T @ rows + alpha * np.eye(21), rows.T @ gaps)
    np.testing.assert_allclose(model.coef_, start.coef_ + step[:20], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.intercept_, start.intercept_ + step[20], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.predict(as_rows(target)), target @ model.coef_ + model.intercept_, rtol=1e-10)


def test_ridge_takes_the_strength_with_the_least_error_of_rows_left_out() -> None:
    source, values, target, _, known = leaning_weights(12)
    model = SourcePriorRidge().fit(source, values, target, target_labels=known)
    start = Ridge().fit(source, values)
    rows, gaps = np.column_stack([target[:12], np.ones(12)]), known[:12] - start.predict(target[:12])
    grid = np.logspace(4, -4, 33) * np.sum(rows**2) / 12  # rank 12
    errors = []
    for alpha in grid:
        left = 0.0
        for i in range(12):
            kept = np.arange(12) != i
            step = np.linalg.solve(rows[kept].T @ rows[kept] + alpha * np.eye(21), rows[kept].T @ gaps[kept])
            left += (gaps[i] - rows[i] @ step) ** 2
        errors.append(left / 12)
    assert min(errors) < np.mean(gaps**2)
    assert model.alpha_ == pytest.approx(grid[int(np.argmin(errors))])


def test_ridge_beats_the_source_and_the_target_alone() -> None:
    source, values, target, truth, known = leaning_weights(12)
    error = {}
    models = {
        "prior": SourcePriorRidge().fit(source, values, target, target_labels=known),
        "source": Ridge().fit(source, values),
        "target": RidgeCV(np.logspace(-3, 3, 13)).fit(target[:12], known[:12]),
    }
    for name, model in models.items():
        error[name] = np.mean((model.predict(target[12:]) - truth[12:]) ** 2)
    assert error["prior"] < 0.8 * error["source"]
    assert error["prior"] < 0.3 * error["target"]


def test_a_weak_prior_hurts_where_target_values_are_noise() -> None:
    source, values, target, _, _ = leaning_weights(12)
    truth = target @ Ridge().fit(source, values).coef_
    noise = np.where(np.arange(300) < 12, 20 * np.random.default_rng(0).normal(size=300), np.nan)
    kept, loose = (
        SourcePriorRidge(alpha=alpha).fit(source, values, target, target_labels=noise) for alpha in ("auto", 0.01)
    )
    errors = [np.mean((model.predict(target[12:]) - truth[12:]) ** 2) for model in (kept, loose)]
    assert errors[1] > 100 * max(errors[0], 0.01)


def test_one_target_value_leaves_the_source_as_it_is() -> None:
    source, values, target, _, known = leaning_weights(1)
    model = SourcePriorRidge().fit(source, values, target, target_labels=known)
    assert model.alpha_ == np.inf
    np.testing.assert_array_equal(model.coef_, model.source_coef_)


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("as_rows", [np.asarray, sparse.csr_matrix])
def test_logistic_is_the_minimum_of_its_penalised_loss(num_classes: int, as_rows) -> None:  # type: ignore[no-untyped-def]
    draws = np.random.default_rng(1)
    source, target = draws.normal(size=(60, 4)), draws.normal(size=(9, 4))
    labels, truth = np.arange(60) % num_classes, np.arange(9) % num_classes
    source += labels[:, None]
    alpha = 0.5
    model = SourcePriorLogistic(alpha=alpha).fit(as_rows(source), labels, as_rows(target), target_labels=truth)
    start_coef, start_intercept = linear_weights(LogisticRegression(max_iter=1000).fit(source, labels))
    start = np.column_stack([start_coef, start_intercept])

    def loss(flat: np.ndarray) -> float:
        weights = flat.reshape(num_classes, 5)
        logits = np.column_stack([target, np.ones(9)]) @ weights.T
        return -log_softmax(logits, axis=1)[np.arange(9), truth].sum() + alpha / 2 * np.sum((weights - start) ** 2)

    best = minimize(loss, start.ravel(), method="BFGS", options={"gtol": 1e-7}).x.reshape(num_classes, 5)
    np.testing.assert_allclose(np.column_stack([model.coef_, model.intercept_]), best, atol=2e-4)


def test_two_opposite_rows_say_what_one_row_says() -> None:
    rows, labels = clouds(0)
    model = LogisticRegression().fit(rows, labels)
    coef, intercept = linear_weights(model)
    logits = rows @ coef.T + intercept
    np.testing.assert_allclose(np.exp(log_softmax(logits, axis=1)), model.predict_proba(rows), atol=1e-12)


def test_logistic_is_the_source_where_the_prior_is_strong_or_there_are_no_labels() -> None:
    rows, labels = clouds(0)
    target, truth = clouds(1, shift=2.0)
    source = LogisticRegression(max_iter=1000).fit(rows, labels).predict_proba(target)
    none = SourcePriorLogistic().fit(rows, labels, target)
    strong = SourcePriorLogistic(alpha=1e9).fit(rows, labels, target, target_labels=few_labels(truth, 5))
    np.testing.assert_allclose(none.predict_proba(target), source, atol=1e-9)
    np.testing.assert_allclose(strong.predict_proba(target), source, atol=1e-6)
    assert none.alpha_ == np.inf


def test_logistic_chooses_by_literal_folds_and_mends_a_moved_target() -> None:
    rows, labels = clouds(0)
    target, truth = clouds(1, shift=2.0)
    known = few_labels(truth, 4)
    model = SourcePriorLogistic(num_folds=2).fit(rows, labels, target, target_labels=known)
    places = np.flatnonzero([label is not None for label in known])
    codes = (truth[places] == "up").astype(int)
    folds = np.empty(8, dtype=int)
    folds[np.argsort(codes, kind="stable")] = np.arange(8) % 2
    place = int(np.flatnonzero(model.alphas_ == model.alpha_)[0]) if np.isfinite(model.alpha_) else 1
    losses = np.empty(8)
    for fold in range(2):
        only = np.full(len(target), None, dtype=object)
        only[places[folds != fold]] = truth[places[folds != fold]]
        part = SourcePriorLogistic(alpha=model.alphas_[place]).fit(rows, labels, target, target_labels=only)
        held = places[folds == fold]
        losses[folds == fold] = -np.log(part.predict_proba(target[held]))[np.arange(4), codes[folds == fold]]
    assert model.losses_[place] == pytest.approx(losses.mean(), rel=1e-4)
    alone = LogisticRegression(max_iter=1000).fit(rows, labels).score(target, truth)
    assert model.score(target, truth) > alone + 0.15


@pytest.mark.parametrize("kind", [SourcePriorRidge, SourcePriorLogistic])
@pytest.mark.parametrize("bad", ["best", 0.0, -1.0, float("nan")])
def test_strength_is_checked(kind, bad) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=f"{kind.__name__}: alpha must be"):
        kind(alpha=bad).fit([[0.0], [1.0]], [0, 1], [[0.0]], target_labels=[1])


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        (SourcePriorRidge(), {"alpha": 0.3, "source_alpha": 50.0}),
        (SourcePriorLogistic(), {"alpha": 0.3, "source_C": 0.01, "num_folds": 2}),
    ],
    ids=repr,
)
def test_every_option_changes_something(method, changes) -> None:  # type: ignore[no-untyped-def]
    rows, labels = clouds(0)
    target, truth = clouds(1, shift=2.0)
    if isinstance(method, SourcePriorRidge):
        labels, truth = rows[:, 0] + rows[:, 1], target[:, 0] - target[:, 1]
        known = np.where(np.arange(160) < 9, truth, np.nan)
    else:
        known = few_labels(truth, 4)
    assert set(changes) == set(method.get_params(deep=False))

    def outcome(fitted) -> list[float]:  # type: ignore[no-untyped-def]
        return [*fitted.coef_.ravel(), *getattr(fitted, "losses_", [])]

    usual = outcome(method.fit(rows, labels, target, target_labels=known))
    for name, value in changes.items():
        other = type(method)(**{name: value}).fit(rows, labels, target, target_labels=known)
        assert outcome(other) != usual, name


def test_minus_one_is_a_value_and_none_is_not() -> None:
    rows, values = np.arange(5.0)[:, None], np.array([0, -1, -2, -3, -4])
    ints = SourcePriorRidge(alpha=1.0).fit(rows, values, rows, target_labels=values)
    assert ints.num_target_labels_ == 5
    both = np.array([*values.tolist(), -1, None, np.nan], dtype=object)
    mixed = SourcePriorRidge(alpha=1.0).fit(
        np.concatenate([rows, rows[:3]]), both, sample_domain=[1, 1, 1, 1, 1, -1, -1, -1]
    )
    assert mixed.num_target_labels_ == 1
    apart = SourcePriorRidge(alpha=1.0).fit(rows, values, rows[:3], target_labels=[-1.0, np.nan, np.nan])
    assert mixed.intercept_ == apart.intercept_ != ints.intercept_
