"""TrAdaBoost against literal rounds of the papers' figures, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import brentq
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from headstart.alignment import TrAdaBoost, TrAdaBoostR2
from headstart.alignment.tradaboost import weighted_median
from headstart.core.errors import ConfigError, DomainError


def half_wrong_source(seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return a source whose second half follows the opposite rule, and a target that follows the first half's."""
    draws = np.random.default_rng(seed)
    source, target = draws.normal(size=(80, 2)), draws.normal(size=(60, 2))
    labels = (source[:, 0] + 0.3 * source[:, 1] > 0).astype(int)
    source[40:, 1] += 4.0
    labels[40:] = 1 - (source[40:, 0] > 0)
    return source, labels, target, (target[:, 0] + 0.3 * target[:, 1] > 0).astype(int)


def test_two_classes_follow_the_papers_figure_round_by_round() -> None:
    source, labels, target, truth = half_wrong_source()
    source, labels = source[25:55], labels[25:55]
    few, few_labels = target[:20], truth[:20]
    num_rounds, num_source, num_few = 6, len(source), len(few)
    stump = DecisionTreeClassifier(max_depth=1, random_state=0)
    rows, every = np.concatenate([source, few]), np.concatenate([labels, few_labels])
    weights = np.ones(len(rows))
    beta = 1 / (1 + np.sqrt(2 * np.log(num_source) / num_rounds))
    betas, answers = [], []
    for _ in range(num_rounds):
        p = weights / weights.sum()
        trained = DecisionTreeClassifier(max_depth=1, random_state=0).fit(rows, every, sample_weight=p * len(rows))
        h = trained.predict(rows)
        error = np.sum(weights[num_source:] * np.abs(h - every)[num_source:]) / weights[num_source:].sum()
        error = min(max(error, 1 / (2 * num_few)), 0.5)
        betas.append(error / (1 - error))
        answers.append(trained.predict(target))
        for i in range(len(rows)):
            wrong = abs(h[i] - every[i])
            weights[i] *= beta**wrong if i < num_source else betas[-1] ** (-wrong)
    left = np.prod(
        [b ** (-h.astype(float)) for b, h in zip(betas[2:], answers[2:], strict=True)], axis=0
    )  # rounds 3 to 6
    right = np.prod([b**-0.5 for b in betas[2:]])
    model = TrAdaBoost(stump, num_rounds).fit(source, labels, target, target_labels=[*few_labels, *[-1] * 40])
    clear = np.abs(np.log(left / right)) > 1e-9
    assert clear.sum() > 50
    assert len(set(betas)) > 3
    np.testing.assert_array_equal(model.predict(target)[clear], (left >= right)[clear].astype(int))
    np.testing.assert_allclose(model.source_weights_, weights[:num_source] / weights.sum(), rtol=1e-10)
    np.testing.assert_allclose(model.target_weights_, weights[num_source:] / weights.sum(), rtol=1e-10)
    assert len(model.estimators_) == 4


def test_three_classes_vote_with_the_chance_of_three() -> None:
    draws = np.random.default_rng(3)
    rows = draws.normal(size=(60, 2))
    labels = draws.integers(0, 3, size=60)
    stump = DecisionTreeClassifier(max_depth=1, random_state=0)
    model = TrAdaBoost(stump, num_rounds=1).fit(rows, labels, rows[:12], target_labels=labels[:12])
    error = model.errors_[0]
    assert 0.5 < error < 2 / 3  # worse than one in two, better than chance
    np.testing.assert_allclose(model.votes_, [np.log((1 - error) / error) + np.log(2)])


def test_weight_leaves_the_half_of_the_source_that_is_wrong() -> None:
    source, labels, target, truth = half_wrong_source()
    given = [*truth[:20], *[-1] * 40]
    model = TrAdaBoost(num_rounds=20).fit(source, labels, target, target_labels=given)
    assert model.source_weights_[40:].sum() < 0.5 * model.source_weights_[:40].sum()
    alone = LogisticRegression().fit(source, labels).score(target[20:], truth[20:])
    assert alone < 0.75
    assert model.score(target[20:], truth[20:]) > 0.9


def test_wrong_target_labels_hurt() -> None:
    source, labels, target, truth = half_wrong_source()
    source, labels = source[:40], labels[:40]  # the half that is right
    given = np.full(60, -1)
    given[:20] = 1 - truth[:20]
    alone = LogisticRegression().fit(source, labels).score(target[20:], truth[20:])
    boosted = TrAdaBoost(num_rounds=20).fit(source, labels, target, target_labels=given).score(target[20:], truth[20:])
    assert alone >= 0.9
    assert boosted < alone - 0.2


def test_target_labels_may_come_in_any_kind_and_must_be_known() -> None:
    source, labels, target, truth = half_wrong_source()
    names = np.array(["no", "yes"])
    told = TrAdaBoost(num_rounds=3).fit(
        source, names[labels], target, target_labels=[*names[truth[:5]].tolist(), *[None] * 55]
    )
    numbered = TrAdaBoost(num_rounds=3).fit(
        source, labels, target, target_labels=[*truth[:5].astype(float), *[np.nan] * 55]
    )
    np.testing.assert_array_equal(told.predict_proba(target), numbered.predict_proba(target))
    mixed = np.array([*labels.tolist(), *truth[:5].tolist(), *[None] * 55], dtype=object)
    objects = TrAdaBoost(num_rounds=3).fit(
        np.concatenate([source, target]), mixed, sample_domain=np.repeat([1, -1], [80, 60])
    )
    np.testing.assert_array_equal(objects.predict_proba(target), numbered.predict_proba(target))
    assert objects.num_target_labels_ == 5
    with pytest.raises(DomainError, match="'maybe' is not"):
        TrAdaBoost().fit(source, names[labels], target, target_labels=["maybe", *[None] * 59])
    signs = TrAdaBoost(num_rounds=3).fit(source, 2 * labels - 1, target, target_labels=2 * truth - 1)
    assert signs.num_target_labels_ == 60  # -1 is a class here


def test_sparse_rows_are_taken_as_dense_ones() -> None:
    source, labels, target, truth = half_wrong_source()
    given = [*truth[:10], *[-1] * 50]
    dense = TrAdaBoost(num_rounds=5).fit(source, labels, target, target_labels=given).predict_proba(target)
    thin = TrAdaBoost(num_rounds=5).fit(
        sparse.csr_matrix(source), labels, sparse.csr_matrix(target), target_labels=given
    )
    np.testing.assert_allclose(thin.predict_proba(sparse.csr_matrix(target)), dense, atol=1e-9)


@pytest.mark.parametrize("bad", [0, 2.5, True])
def test_rounds_are_counted(bad: object) -> None:
    with pytest.raises(ConfigError, match="num_rounds must be a whole number of at least 1"):
        TrAdaBoost(num_rounds=bad).fit([[0.0], [1.0]], [0, 1])  # type: ignore[arg-type]


def adaboost_r2_prime(rows, values, weights, frozen, num_rounds, learner):  # type: ignore[no-untyped-def]
    """Drucker's rounds, literally, the first ``frozen`` weights left alone."""
    w = weights / weights.sum()
    out = []
    for t in range(num_rounds):
        used = w > 0
        h = learner().fit(rows[used], values[used], sample_weight=w[used] * len(w))
        gaps = np.abs(h.predict(rows) - values)
        losses = np.where(used, gaps / gaps[used].max(), 0.0)
        mean = sum(w[i] * losses[i] for i in range(len(w)))
        if mean >= 0.5:
            return out or [(h, 1.0)]
        out.append((h, np.log((1 - mean) / mean)))
        b = mean / (1 - mean)
        new = w.copy()
        for i in range(frozen, len(w)):
            new[i] = w[i] * b ** (1 - losses[i])
        new[frozen:] *= w[frozen:].sum() / new[frozen:].sum()
        w = new
        assert t < 50
    return out


def answer(members, rows):  # type: ignore[no-untyped-def]
    said = []
    for row in rows:
        pairs = sorted((float(h.predict(row[None])[0]), vote) for h, vote in members)
        total, reached = sum(vote for _, vote in pairs), 0.0
        for value, vote in pairs:
            reached += vote
            if reached >= 0.5 * total:
                said.append(value)
                break
    return np.array(said)


def test_r2_follows_both_stages_literally() -> None:
    draws = np.random.default_rng(0)
    source, target = draws.uniform(-2, 2, size=(30, 1)), draws.uniform(-2, 2, size=(8, 1))
    values, truth = np.sin(source[:, 0]) + 0.3 * draws.normal(size=30), np.sin(target[:, 0]) + 1.0
    values[:10] += 1.0
    learner = lambda: DecisionTreeRegressor(max_depth=2, random_state=0)  # noqa: E731
    rows, every = np.concatenate([source, target]), np.concatenate([values, truth])
    stages = [np.full(38, 1 / 38)]
    for t in (1, 2):
        w = stages[-1]
        gaps = np.abs(learner().fit(rows, every, sample_weight=w * 38).predict(rows) - every)
        e = gaps / gaps.max()
        goal = 8 / 38 + t / 3 * (1 - 8 / 38)

        def share(b: float, w: np.ndarray = w, e: np.ndarray = e) -> float:
            return float(w[30:].sum() / (w[30:].sum() + np.sum(w[:30] * b ** e[:30])))

        b = brentq(lambda b, goal=goal: share(b) - goal, 1e-12, 1.0, xtol=1e-15)
        new = np.concatenate([w[:30] * b ** e[:30], w[30:]])
        stages.append(new / new.sum())
        assert stages[-1][30:].sum() == pytest.approx(goal)
    stages.append(np.concatenate([np.zeros(30), np.full(8, 1 / 8)]))
    folds = np.empty(8, dtype=int)
    folds[np.argsort(truth)] = np.arange(8) % 4
    errors = []
    for w in stages:
        gaps = np.empty(8)
        for fold in range(4):
            held = np.concatenate([np.zeros(30, dtype=bool), folds == fold])
            members = adaboost_r2_prime(rows[~held], every[~held], w[~held], 30, 3, learner)
            gaps[folds == fold] = answer(members, rows[held]) - every[held]
        errors.append(np.mean(gaps**2))
    model = TrAdaBoostR2(learner(), num_stages=4, num_rounds=3, num_folds=4)
    model.fit(source, values, target, target_labels=truth)
    np.testing.assert_allclose(model.stage_errors_, errors, rtol=1e-6)
    best = stages[int(np.argmin(errors))]
    assert model.source_share_ == pytest.approx(best[:30].sum())
    queries = np.linspace(-2, 2, 23)[:, None]
    expected = answer(adaboost_r2_prime(rows, every, best, 30, 3, learner), queries)
    np.testing.assert_allclose(model.predict(queries), expected, rtol=1e-6)


def test_r2_without_target_values_is_adaboost_r2_on_the_source() -> None:
    draws = np.random.default_rng(1)
    rows = draws.normal(size=(40, 2))
    values = rows[:, 0] ** 2 + 0.2 * draws.normal(size=40)
    learner = lambda: DecisionTreeRegressor(max_depth=2, random_state=0)  # noqa: E731
    model = TrAdaBoostR2(learner(), num_rounds=5).fit(rows, values, rows[:9])
    np.testing.assert_allclose(
        model.predict(rows), answer(adaboost_r2_prime(rows, values, np.ones(40), 0, 5, learner), rows)
    )


def test_r2_beats_the_source_where_half_of_it_is_off() -> None:
    draws = np.random.default_rng(0)
    source, target = draws.uniform(-3, 3, size=(120, 1)), draws.uniform(-3, 3, size=(80, 1))
    values, truth = np.sin(source[:, 0]), np.sin(target[:, 0])
    values[:60] += 2.0
    given = np.where(np.arange(80) < 20, truth, np.nan)
    options = {"num_stages": 5, "num_rounds": 5}
    model = TrAdaBoostR2(**options).fit(source, values, target, target_labels=given)
    alone = TrAdaBoostR2(**options).fit(source, values, target)
    errors = [np.mean((one.predict(target[20:]) - truth[20:]) ** 2) for one in (model, alone)]
    assert errors[0] < 0.2 * errors[1]


def test_r2_an_exact_learner_answers_alone() -> None:
    rows = np.arange(6.0)[:, None]
    model = TrAdaBoostR2(DecisionTreeRegressor(random_state=0), num_stages=2).fit(
        rows, rows[:, 0], rows, target_labels=rows[:, 0]
    )
    np.testing.assert_array_equal(model.predict(rows), rows[:, 0])
    assert len(model.estimators_) == 1


def test_weighted_median_by_hand() -> None:
    members = [LinearRegression().fit([[0.0], [1.0]], [c, c]) for c in (3.0, 1.0, 2.0)]
    rows = np.zeros((1, 1))
    assert weighted_median(members, np.array([1.0, 1.0, 1.0]), rows) == pytest.approx([2.0])
    assert weighted_median(members, np.array([5.0, 1.0, 1.0]), rows) == pytest.approx([3.0])


def test_r2_refuses_infinite_target_values() -> None:
    with pytest.raises(DomainError, match="infinity"):
        TrAdaBoostR2().fit([[0.0], [1.0]], [0.0, 1.0], [[0.0]], target_labels=[np.inf])


def test_weights_and_medians_agree_with_the_adapt_package() -> None:
    """Recorded from adapt 0.4.4, its functions `_get_beta` (search to 1e-3) and `_get_median_predict`, on these rows."""
    rows = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [1.5], [3.5]])
    values = np.array([0.0, 1.0, 9.0, 3.0, -4.0, 5.0, 1.4, 3.6])
    recorded = {
        1: [0.1072, 0.1453, 0.0167, 0.1791, 0.0169, 0.0974, 0.2187, 0.2187],
        2: [0.0474, 0.106, 0.0003, 0.1841, 0.0004, 0.0368, 0.3125, 0.3125],
    }
    for stage, theirs in recorded.items():
        ours = TrAdaBoostR2(Ridge(1.0))._lean(rows, values, np.full(8, 1 / 8), 6, stage / 4)
        np.testing.assert_allclose(ours, theirs, atol=2e-4)

    class Says:
        def __init__(self, answers: list[float]) -> None:
            self.answers = np.array(answers)

        def predict(self, rows: np.ndarray) -> np.ndarray:
            return self.answers

    said = [
        [0.13, -0.13, 0.64, 0.1, -0.54],
        [0.36, 1.3, 0.95, -0.7, -1.27],
        [-0.62, 0.04, -2.33, -0.22, -1.25],
        [-0.73, -0.54, -0.32, 0.41, 1.04],
    ]
    median = weighted_median([Says(one) for one in said], np.array([0.7, 0.9, 0.5, 0.4]), np.zeros((5, 1)))
    np.testing.assert_array_equal(median, [0.13, 0.04, 0.64, -0.22, -1.25])
