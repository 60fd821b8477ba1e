"""CODA against literal loops: objective, slopes, penalties, constraints; its optimum against scikit-learn; and what it is for."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from headstart.alignment import CODA
from headstart.alignment.coda_objective import (
    LEAST_PENALTY,
    WIDTH,
    LinearScores,
    SplitObjective,
    class_columns,
    expandability_gap,
    feature_penalties,
    fit_sparse,
    largest_penalty,
    log_loss,
)
from headstart.core.errors import ConfigError
from two_domain_problems import clouds


def softmax_of(scores: LinearScores, row: np.ndarray) -> list[float]:
    """Probabilities of one row, written out."""
    if scores.columns_qk.shape[0] == 1:
        score = sum(w * x for w, x in zip(scores.weights_dq[:, 0], row, strict=True)) + scores.offsets_q[0]
        return [1 / (1 + np.exp(score)), 1 / (1 + np.exp(-score))]
    logits = [
        sum(scores.weights_dq[j, c] * row[j] for j in range(len(row))) + scores.offsets_q[c]
        for c in range(len(scores.offsets_q))
    ]
    return [float(np.exp(one) / sum(np.exp(other) for other in logits)) for one in logits]


def literal_value(problem: SplitObjective, first: LinearScores, second: LinearScores) -> float:
    """The augmented Lagrangian of the module's first lines, row by row."""
    costs = []
    for scores, penalty in zip((first, second), problem.penalties, strict=True):
        total = 0.0
        for row, truth in zip(problem.labelled, problem.truth_nk, strict=True):
            total -= np.log(softmax_of(scores, row)[int(truth.argmax())])
        total /= len(problem.labelled)
        for j, c in itertools.product(*map(range, penalty.shape)):
            total += penalty[j, c] * abs(scores.weights_dq[j, c])
        costs.append(total)
    h = 0.0
    for j in range(len(first.weights_dq)):
        h += sum(w**2 for w in first.weights_dq[j]) * sum(w**2 for w in second.weights_dq[j]) / problem.unit
    both = neither = alone = 0.0
    for row in problem.unlabelled:
        sure = [1 / (1 + np.exp(-(max(softmax_of(scores, row)) - problem.sure) / WIDTH)) for scores in (first, second)]
        both += sure[0] * sure[1]
        neither += (1 - sure[0]) * (1 - sure[1])
        alone += sure[0] * (1 - sure[1]) + (1 - sure[0]) * sure[1]
    g = (problem.expandability * min(both, neither) - alone) / len(problem.unlabelled)
    push = max(0.0, problem.gap_price + problem.weight * g)
    return float(
        np.log(np.exp(costs[0]) + np.exp(costs[1]))
        + problem.split_price * h
        + problem.weight / 2 * h**2
        + (push**2 - problem.gap_price**2) / (2 * problem.weight)
    )


def a_problem(seed: int, num_classes: int) -> tuple[SplitObjective, LinearScores, LinearScores]:
    draws = np.random.default_rng(seed)
    columns = class_columns(num_classes)
    shape = (4, len(columns))
    problem = SplitObjective(
        labelled=draws.normal(size=(9, 4)),
        truth_nk=np.eye(num_classes)[draws.integers(0, num_classes, 9)],
        unlabelled=draws.normal(size=(7, 4)),
        penalties=(draws.random(shape), draws.random(shape)),
        columns_qk=columns,
        sure=0.7,
        expandability=1.5,
        unit=2.5,
        split_price=0.3,
        gap_price=0.4,
        weight=1.7,
    )
    pair = [LinearScores(draws.normal(size=shape), draws.normal(size=shape[1]), columns) for _ in range(2)]
    return problem, pair[0], pair[1]


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_the_objective_is_the_one_written_down(num_classes: int, seed: int) -> None:
    problem, first, second = a_problem(seed, num_classes)
    assert problem(first, second)[0] == pytest.approx(literal_value(problem, first, second), rel=1e-12)
    h, g = problem.constraints(first, second)
    without = replace(problem, split_price=0.0, gap_price=0.0, weight=1e-9)
    steep = replace(problem, split_price=1.0, gap_price=0.0, weight=1e-9)
    assert literal_value(steep, first, second) - literal_value(without, first, second) == pytest.approx(h, rel=1e-6)
    priced = replace(problem, split_price=0.0, gap_price=5.0, weight=1e-9)
    assert literal_value(priced, first, second) - literal_value(without, first, second) == pytest.approx(
        5 * g, rel=1e-5
    )


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_slopes_are_those_of_the_value(num_classes: int, seed: int) -> None:
    problem, first, second = a_problem(seed, num_classes)
    _, by_weights, by_offsets, shares = problem(first, second)
    step = 1e-6
    for place, scores in enumerate((first, second)):
        for index in np.ndindex(scores.weights_dq.shape):
            ends = []
            for sign in (1, -1):
                weights = scores.weights_dq.copy()
                weights[index] += sign * step
                pair = [first, second]
                pair[place] = replace(scores, weights_dq=weights)
                ends.append(literal_value(problem, pair[0], pair[1]))
            ours = by_weights[place][index] + shares[place] * problem.penalties[place][index] * np.sign(
                scores.weights_dq[index]
            )
            assert ours == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-7)
        for index in range(len(scores.offsets_q)):
            ends = []
            for sign in (1, -1):
                offsets = scores.offsets_q.copy()
                offsets[index] += sign * step
                pair = [first, second]
                pair[place] = replace(scores, offsets_q=offsets)
                ends.append(literal_value(problem, pair[0], pair[1]))
            assert by_offsets[place][index] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-7)


def test_penalties_are_one_less_the_product_of_two_correlations() -> None:
    draws = np.random.default_rng(0)
    rows, others = draws.normal(size=(30, 4)), draws.normal(size=(20, 4))
    rows[:, 3] = 2.0
    truth, guessed = np.eye(3)[draws.integers(0, 3, 30)], draws.dirichlet(np.ones(3), 20)
    found = feature_penalties(rows, truth, others, guessed, class_columns(3))
    for j, c in itertools.product(range(4), range(3)):
        known = np.corrcoef(rows[:, j], truth[:, c])[0, 1] if j < 3 else 0.0
        product = known * np.corrcoef(others[:, j], guessed[:, c])[0, 1]
        assert found[j, c] == pytest.approx(max(1 - product, LEAST_PENALTY))
    two = feature_penalties(rows, truth[:, :2], others, guessed[:, :2], class_columns(2))
    signs = truth[:, 1] - truth[:, 0], guessed[:, 1] - guessed[:, 0]
    literal = [
        1 - np.corrcoef(rows[:, j], signs[0])[0, 1] * np.corrcoef(others[:, j], signs[1])[0, 1] for j in range(3)
    ]
    np.testing.assert_allclose(two[:3, 0], literal)
    thin = feature_penalties(sparse.csr_matrix(rows), truth, sparse.csr_matrix(others), guessed, class_columns(3))
    np.testing.assert_allclose(thin, found)


def test_expandability_counts_rows_that_one_alone_is_sure_of() -> None:
    """Far from the threshold c is 0 or 1: two rows both are sure of, one neither, three one alone."""
    sure, unsure = [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]
    first = np.array([sure, sure, unsure, sure, sure, unsure])
    second = np.array([sure, sure, unsure, unsure, unsure, sure])
    gap, _, _ = expandability_gap(first, second, 0.7, 2.0)
    assert gap == pytest.approx((2.0 * 1 - 3) / 6, abs=0.02)


@pytest.mark.parametrize("strength", [0.3, 0.05])
def test_the_sparse_classifier_is_scikit_learns_on_stretched_columns(strength: float) -> None:
    """l1 weights D_j on w_j are a plain l1 on columns x_j / D_j."""
    draws = np.random.default_rng(0)
    rows = draws.normal(size=(80, 6))
    codes = (rows[:, 0] - rows[:, 1] + draws.normal(size=80) > 0).astype(int)
    costs = strength * (0.5 + draws.random(6))
    found = fit_sparse(
        rows,
        np.eye(2)[codes],
        costs[:, None] * largest_penalty(rows, np.eye(2)[codes], class_columns(2)),
        class_columns(2),
    )
    scaled = rows / (costs * largest_penalty(rows, np.eye(2)[codes], class_columns(2)))
    theirs = LogisticRegression(C=1 / 80, l1_ratio=1.0, solver="saga", tol=1e-10, max_iter=100_000).fit(scaled, codes)
    stretched = theirs.coef_[0] / (rows[0] / scaled[0])
    np.testing.assert_allclose(found.weights_dq[:, 0], stretched, atol=2e-4)
    assert ((found.weights_dq[:, 0] == 0) == (np.abs(stretched) < 1e-6)).all()


def wide_rows(num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forty rows of 300 features, and penalties at which a few dozen are used."""
    draws = np.random.default_rng(0)
    rows, truth = draws.normal(size=(40, 300)), np.eye(num_classes)[np.arange(40) % num_classes]
    columns = class_columns(num_classes)
    return rows, truth, largest_penalty(rows, truth, columns) * draws.uniform(0.1, 0.2, size=(300, len(columns)))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_no_feature_of_wide_rows_wants_to_join_or_leave(num_classes: int) -> None:
    """The conditions of the optimum, for every feature: a weight's slope is its cost, and no unused one's is more."""
    rows, truth, costs = wide_rows(num_classes)
    found = fit_sparse(rows, truth, costs, class_columns(num_classes))
    _, slopes, by_offsets = log_loss(found, rows, truth)
    used = found.weights_dq != 0
    assert 10 < used.any(axis=1).sum() < 150
    np.testing.assert_allclose(slopes[used], -np.sign(found.weights_dq[used]) * costs[used], atol=1e-4 * costs.max())
    assert (np.abs(slopes) <= costs + 1e-4 * costs.max()).all()
    np.testing.assert_allclose(by_offsets, 0, atol=1e-4 * costs.max())


@pytest.mark.parametrize("num_classes", [2, 3])
def test_rounds_on_wide_rows_end_where_the_slopes_of_all_features_say_so(num_classes: int) -> None:
    rows, truth, costs = wide_rows(num_classes)
    draws, columns = np.random.default_rng(1), class_columns(num_classes)
    problem = SplitObjective(
        labelled=rows, truth_nk=truth, unlabelled=draws.normal(size=(30, 300)), penalties=(costs, costs[::-1]),
        columns_qk=columns, sure=0.7, expandability=1.5, unit=2.0, split_price=0.3, gap_price=0.2, weight=1.5,
    )  # fmt: skip
    start = [
        LinearScores(0.1 * draws.normal(size=costs.shape) * (draws.random(costs.shape) < 0.05), np.zeros(k), columns)
        for k in (len(columns), len(columns))
    ]
    pair = (start[0], start[1])
    for _ in range(12):
        pair = problem.minimise(*pair, 100)
    value, slopes, by_offsets, shares = problem(*pair)
    assert value < problem(*start)[0] - 0.1
    for scores, slope, by_offset, share, penalty in zip(
        pair, slopes, by_offsets, shares, problem.penalties, strict=True
    ):
        used, cost = scores.weights_dq != 0, share * penalty
        assert 3 < used.any(axis=1).sum() < 150
        np.testing.assert_allclose(slope[used], -np.sign(scores.weights_dq[used]) * cost[used], atol=1e-3 * cost.max())
        assert (np.abs(slope) <= cost + 1e-3 * cost.max()).all()
        np.testing.assert_allclose(by_offset, 0, atol=1e-3 * cost.max())


def test_above_the_largest_penalty_nothing_is_used() -> None:
    draws = np.random.default_rng(0)
    rows, truth, columns = draws.normal(size=(50, 5)), np.eye(3)[draws.integers(0, 3, 50)], class_columns(3)
    top = largest_penalty(rows, truth, columns)
    assert not fit_sparse(rows, truth, np.full((5, 3), 1.001 * top), columns).weights_dq.any()
    assert fit_sparse(rows, truth, np.full((5, 3), 0.98 * top), columns).weights_dq.any()
    blank = LinearScores(np.zeros((5, 3)), np.log(truth.mean(axis=0)), columns)
    assert np.abs(log_loss(blank, rows, truth)[1]).max() == pytest.approx(top)


def flipped(seed: int, sign: float) -> tuple[np.ndarray, np.ndarray]:
    """Ten features: six tell the class alike everywhere, four change their sign between the domains."""
    draws = np.random.default_rng(seed)
    up = draws.random(240) < 0.5
    rows = draws.normal(size=(240, 10))
    rows[:, :6] += 1.0 * up[:, None]
    rows[:, 6:] += sign * 1.2 * (up[:, None] - 0.5)
    return rows, np.where(up, "up", "down")


@pytest.mark.golden
def test_features_that_turn_round_are_left_and_views_share_none() -> None:
    source, labels = flipped(0, 1.0)
    target, truth = flipped(1, -0.4)
    model = CODA().fit(source, labels, target)
    plain = LogisticRegression().fit(source, labels)
    alone = plain.score(target, truth)
    assert model.score(target, truth) > alone + 0.03
    assert not set(model.views_[0]) & set(model.views_[1])
    ours, theirs = np.abs(model.coef_[:, 0]), np.abs(plain.coef_[0])
    assert ours[:6].mean() / ours[6:].mean() > 1.2 * theirs[:6].mean() / theirs[6:].mean()
    named = model.target_codes_ >= 0
    assert (model.classes_[model.target_codes_[named]] == truth[named]).mean() > alone
    assert max(h for h, _ in model.constraints_[3:]) < 0.01
    assert all(g <= 1e-3 for _, g in model.constraints_)


@pytest.mark.golden
def test_where_the_source_hardly_beats_chance_wrong_features_are_believed() -> None:
    """The known failure: the first answers name the features that agree, and most of those answers are wrong."""
    source, labels = flipped(4, 1.0)
    target, truth = flipped(5, -0.8)
    assert LogisticRegression().fit(source, labels).score(target, truth) < 0.6
    assert CODA(penalty=0.3).fit(source, labels, target).score(target, truth) < 0.5


def test_sparse_rows_say_the_same() -> None:
    draws = np.random.default_rng(0)
    labels = draws.integers(0, 2, 150)
    rates = np.where(labels[:, None] == 1, [2.0, 0.3, 1.0, 1.0], [0.3, 2.0, 1.0, 1.0])
    source, target = draws.poisson(rates).astype(float), draws.poisson(rates + 0.2).astype(float)
    dense = CODA(num_rounds=3).fit(source, labels, target)
    thin = CODA(num_rounds=3).fit(sparse.csr_matrix(source), labels, sparse.csr_matrix(target))
    assert (dense.predict(target) == thin.predict(sparse.csr_matrix(target))).mean() > 0.97
    assert thin.score(sparse.csr_matrix(target), labels) > 0.8


@pytest.mark.golden
@given(st.floats(-50, 50), st.floats(1e-3, 1e3), st.integers(0, 20))
@settings(max_examples=8, deadline=None)
def test_neither_origin_nor_unit_matters(offset: float, unit: float, seed: int) -> None:
    source, labels = clouds(seed, num_rows=60)
    target, _ = clouds(seed + 1, shift=0.5, num_rows=60)
    usual = CODA(num_rounds=3).fit(source, labels, target).predict_proba(target)
    moved = CODA(num_rounds=3).fit(source * unit + offset, labels, target * unit + offset)
    np.testing.assert_allclose(moved.predict_proba(target * unit + offset), usual, atol=1e-3)


@pytest.mark.golden
def test_three_classes_and_every_option() -> None:
    draws = np.random.default_rng(0)
    labels, truth = draws.integers(0, 3, 150), draws.integers(0, 3, 150)
    centres = 2.5 * draws.normal(size=(3, 6))
    source, target = centres[labels] + draws.normal(size=(150, 6)), centres[truth] + 0.7 + draws.normal(size=(150, 6))
    model = CODA(num_rounds=5).fit(source, labels, target)
    assert model.score(target, truth) > 0.85 and model.coef_.shape == (6, 3)
    usual = model.predict_proba(target)
    changes = {"penalty": 0.5, "decay": 1.5, "sure": 0.95, "expandability": 8.0, "num_rounds": 2}
    assert set(changes) == set(model.get_params())
    for name, value in changes.items():
        other = CODA(**{"num_rounds": 5, name: value}).fit(source, labels, target)
        assert not np.allclose(other.predict_proba(target), usual, atol=1e-6), name


def test_bad_options_are_refused() -> None:
    source, labels = clouds(0)
    for options, words in [
        ({"penalty": 0.0}, "penalty must be a number above 0"),
        ({"decay": 0.9}, "decay must be a number at least 1"),
        ({"sure": 1.0}, "sure must be a number above 0 and below 1"),
        ({"expandability": -1.0}, "expandability must be"),
        ({"num_rounds": 0}, "num_rounds must be a whole number"),
    ]:
        with pytest.raises(ConfigError, match=words):
            CODA(**options).fit(source, labels, source)
