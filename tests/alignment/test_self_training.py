"""Self-training and the co-training family against literal rounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC

from headstart.alignment import CoTraining, DemocraticCoLearning, GradualCoTraining, SelfTraining
from headstart.alignment.co_training import name_rows
from headstart.alignment.democratic import accuracy_interval
from headstart.alignment.gradual_co_training import class_correlations, split_views
from headstart.alignment.self_training import fit_temperature, surest_rows
from headstart.core.errors import ConfigError
from two_domain_problems import clouds, turned_moons


def logistic() -> LogisticRegression:
    return LogisticRegression(max_iter=1000)


def test_self_training_follows_literal_rounds() -> None:
    source, labels = clouds(0)
    target, _ = clouds(1, shift=1.0)
    model = SelfTraining(confidence=0.6, share=0.8, num_rounds=3, calibrate=False).fit(source, labels, target)
    trained = logistic().fit(source, labels)
    for number in (1, 2, 3):
        p = trained.predict_proba(target)
        entered = []
        for k in range(2):
            mine = [i for i in range(len(target)) if p[i].argmax() == k]
            mine.sort(key=lambda i, p=p, k=k: -p[i, k])
            entered += [i for i in mine[: max(1, round(0.8 * number / 3 * len(mine)))] if p[i, k] >= 0.6]
        assert model.num_added_[number - 1] == len(entered)
        rows = np.concatenate([source, target[sorted(entered)]])
        trained = logistic().fit(rows, np.concatenate([labels, trained.predict(target)[sorted(entered)]]))
    np.testing.assert_allclose(model.predict_proba(target), trained.predict_proba(target), atol=1e-6)


def test_calibration_takes_the_temperature_of_rows_held_out() -> None:
    source, labels = clouds(0, num_features=30)
    target, _ = clouds(1, num_features=30)
    sharp = LogisticRegression(C=1e4, max_iter=5000)
    model = SelfTraining(sharp, num_rounds=1).fit(source, labels, target)
    assert model.temperature_ > 1.5
    assert SelfTraining(sharp, num_rounds=1, calibrate=False).fit(source, labels, target).temperature_ == 1.0


@given(st.floats(0.2, 5.0), st.integers(0, 1000))
@settings(max_examples=15)
def test_a_known_temperature_is_found(temperature: float, seed: int) -> None:
    draws = np.random.default_rng(seed)
    logits = draws.normal(size=(4000, 3))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (draws.random((4000, 1)) > true.cumsum(axis=1)).sum(axis=1)
    said = np.exp(logits * temperature)
    assert fit_temperature(said / said.sum(axis=1, keepdims=True), labels) == pytest.approx(temperature, rel=0.2)


def test_at_least_one_row_of_each_predicted_class_is_considered() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]])
    assert surest_rows(p, share=0.01).tolist() == [0, 2]
    assert surest_rows(p, share=1.0, confidence=0.7).tolist() == [0, 1]


@pytest.mark.golden
def test_self_training_follows_turned_moons_and_feeds_a_wrong_start() -> None:
    source, labels = turned_moons(0)
    options = {"confidence": 0.0, "calibrate": False, "num_rounds": 10}
    kernel = CalibratedClassifierCV(SVC(gamma=2, C=10), ensemble=False)
    scores = {}
    for degrees in (30, 90):
        target, truth = turned_moons(1, degrees)
        scores[degrees] = (
            kernel.fit(source, labels).score(target, truth),
            SelfTraining(kernel, **options).fit(source, labels, target).score(target, truth),
        )
    assert scores[30][1] > scores[30][0] + 0.05
    assert scores[90][0] < 0.5  # a quarter turn: the source is mostly wrong, and so is what it teaches
    assert scores[90][1] < 0.5


def test_co_training_follows_literal_rounds() -> None:
    source, labels = clouds(0)
    target, _ = clouds(1, shift=0.5)
    views = ([0, 1], [0, 2, 3])
    model = CoTraining(views=views, num_rounds=2).fit(source, labels, target)
    codes = (labels == "up").astype(int)
    number = [int(np.ceil(np.mean(codes == k) * 160 / 4)) for k in (0, 1)]
    given_codes = np.full(160, -1)
    for _ in range(3):
        known = given_codes >= 0
        rows, every = np.concatenate([source, target[known]]), np.concatenate([codes, given_codes[known]])
        both = [logistic().fit(rows[:, view], every) for view in views]
        if _ == 2:
            break
        waiting = [i for i in range(160) if given_codes[i] < 0]
        said: list[dict[int, int]] = []
        for trained, view in zip(both, views, strict=True):
            p = trained.predict_proba(target[:, view])
            names: dict[int, int] = {}
            for k in (0, 1):
                mine = sorted((i for i in waiting if p[i].argmax() == k), key=lambda i, p=p, k=k: -p[i, k])
                names.update(dict.fromkeys(mine[: number[k]], k))
            said.append(names)
        for i in waiting:
            answers = {names[i] for names in said if i in names}
            if len(answers) == 1:
                given_codes[i] = answers.pop()
    np.testing.assert_array_equal(model.target_codes_, given_codes)
    first, second = (one.predict_proba(target[:, view]) for one, view in zip(both, views, strict=True))
    product = first * second
    np.testing.assert_allclose(model.predict_proba(target), product / product.sum(axis=1, keepdims=True), atol=1e-6)


def two_views(seed: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Two independent groups of five features, either of which tells the class; only the first is moved."""
    draws = np.random.default_rng(seed)
    up = draws.random(200) < 0.5
    rows = draws.normal(size=(200, 10))
    rows[:, 0] += 4.0 * up + shift
    rows[:, 5] += 4.0 * up
    return rows, up.astype(int)


def test_co_training_mends_a_moved_view_by_the_other_and_hurts_where_shares_change() -> None:
    source, labels = two_views(0, 0.0)
    target, truth = two_views(1, 3.5)
    alone = logistic().fit(source, labels).score(target, truth)
    views = (list(range(5)), list(range(5, 10)))
    assert CoTraining(views=views).fit(source, labels, target).score(target, truth) > alone + 0.05
    source, sides = clouds(0)
    target, truth_sides = clouds(1, share=0.08)  # the source's shares are half and half
    alone = logistic().fit(source, sides).score(target, truth_sides)
    assert CoTraining().fit(source, sides, target).score(target, truth_sides) < alone - 0.05
    assert GradualCoTraining().fit(source, sides, target).score(target, truth_sides) < alone - 0.03


def test_names_are_given_only_by_preference() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2]])
    assert name_rows(p, np.array([1, 5])) == {0: 0}


def test_views_are_checked() -> None:
    source, labels = clouds(0)
    for views in (([0],), ([0], [9]), ([], [1]), ([0.5], [1])):
        with pytest.raises(ConfigError, match="CoTraining: views must be two lists of column numbers from 0 to 4"):
            CoTraining(views=views).fit(source, labels, source)  # type: ignore[arg-type]
    two = CoTraining(second=GaussianNB()).fit(source, labels, source)
    assert [view.tolist() for view in two.views_] == [[0, 1, 2, 3, 4]] * 2
    assert [view.tolist() for view in CoTraining().fit(source, labels, source).views_] == [[0, 2, 4], [1, 3]]


def test_an_estimator_without_probabilities_is_refused_in_words() -> None:
    source, labels = clouds(0)
    with pytest.raises(ConfigError, match=r"SelfTraining: estimator must give probabilities .* LinearSVC"):
        SelfTraining(LinearSVC()).fit(source, labels, source)


def test_democratic_co_learning_follows_the_papers_figure() -> None:
    source, labels = clouds(0)
    target, _ = clouds(1, shift=0.7)
    codes = (labels == "up").astype(int)
    kinds = [logistic, GaussianNB, lambda: KNeighborsClassifier(3)]
    model = DemocraticCoLearning(num_folds=4).fit(source, labels, target)
    folds = np.empty(160, dtype=int)
    folds[np.argsort(codes, kind="stable")] = np.arange(160) % 4
    intervals = []
    for kind in kinds:
        right = sum(
            int(
                (
                    kind().fit(source[folds != f], codes[folds != f]).predict(source[folds == f]) == codes[folds == f]
                ).sum()
            )
            for f in range(4)
        )
        intervals.append(accuracy_interval(right, 160))
    w = [(low + high) / 2 for low, high in intervals]
    mean_low = np.mean([low for low, _ in intervals])
    taken: list[list[tuple[int, int]]] = [[], [], []]
    e = [0.0] * 3

    def fit(i: int):  # type: ignore[no-untyped-def]
        rows = np.concatenate([source, target[[r for r, _ in taken[i]]].reshape(-1, 5)])
        return kinds[i]().fit(rows, np.concatenate([codes, np.array([c for _, c in taken[i]], dtype=int)]))

    for _ in range(10):
        said = [fit(i).predict(target) for i in range(3)]
        offers: list[list[tuple[int, int]]] = [[], [], []]
        for r in range(len(target)):
            numbers = [sum(said[i][r] == c for i in range(3)) for c in (0, 1)]
            weights = [sum(w[i] for i in range(3) if said[i][r] == c) for c in (0, 1)]
            c = int(np.argmax(numbers))
            if weights[c] > weights[1 - c]:
                for i in range(3):
                    if said[i][r] != c:
                        offers[i].append((r, c))
        changed = False
        for i in range(3):
            size, new = 160 + len(taken[i]), (1 - mean_low) * len(offers[i])
            q = size * (1 - 2 * e[i] / size) ** 2
            both = size + len(offers[i])
            if both * (1 - 2 * (e[i] + new) / both) ** 2 > q:
                taken[i] += offers[i]
                e[i] += new
                changed = True
        if not changed:
            break
    assert sum(map(len, taken)) > 0
    assert model.num_taken_ == [len(part) for part in taken]
    said = [fit(i).predict(target) for i in range(3)]
    scores = np.zeros((160, 2))
    for r in range(160):
        for c in (0, 1):
            group = [w[i] for i in range(3) if said[i][r] == c]
            if group:
                scores[r, c] = (len(group) + 0.5) / (len(group) + 1) * np.mean(group)
    np.testing.assert_allclose(model.predict_proba(target), scores / scores.sum(axis=1, keepdims=True), atol=1e-9)


def test_democratic_co_learning_outvotes_a_weak_learner() -> None:
    source, labels = clouds(0, num_rows=60)
    target, truth = clouds(1, shift=0.4)
    weak = KNeighborsClassifier(1)
    alone = weak.fit(source, labels).score(target, truth)
    model = DemocraticCoLearning([weak, logistic(), GaussianNB()]).fit(source, labels, target)
    assert model.num_taken_[0] > 0
    assert model.score(target, truth) > alone + 0.02
    with pytest.raises(ConfigError, match="at least two learners; got 1"):
        DemocraticCoLearning([weak]).fit(source, labels, target)


def flipped(seed: int, sign: float) -> tuple[np.ndarray, np.ndarray]:
    """Eight features: four tell the class alike everywhere, four change their sign between the domains."""
    draws = np.random.default_rng(seed)
    up = draws.random(200) < 0.5
    rows = draws.normal(size=(200, 8))
    rows[:, :4] += 1.0 * up[:, None]
    rows[:, 4:] += sign * 1.0 * (up[:, None] - 0.5)
    return rows, up.astype(int)


def test_gradual_co_training_begins_with_features_that_mean_the_same() -> None:
    source, labels = flipped(0, 1.0)
    target, truth = flipped(1, -0.8)
    model = GradualCoTraining(last_share=0.5).fit(source, labels, target)
    assert len(model.features_) == 4
    alone = logistic().fit(source, labels).score(target, truth)
    assert GradualCoTraining().fit(source, labels, target).score(target, truth) > alone + 0.1


def test_correlations_and_views_are_literal() -> None:
    draws = np.random.default_rng(0)
    rows, p = draws.normal(size=(30, 4)), draws.dirichlet(np.ones(3), size=30)
    literal = np.array([[np.corrcoef(rows[:, j], p[:, k])[0, 1] for k in range(3)] for j in range(4)])
    np.testing.assert_allclose(class_correlations(rows, p), literal)
    assert [view.tolist() for view in split_views(np.arange(8.0), 1.0)] == [[0, 3, 4, 7], [1, 2, 5, 6]]
    assert [view.tolist() for view in split_views(np.array([1.0]), 1.0)] == [[0], [0]]


TABLE = [
    (
        SelfTraining(),
        {"estimator": GaussianNB(), "confidence": 0.95, "share": 0.3, "num_rounds": 1, "calibrate": False},
    ),
    (
        CoTraining(),
        {"estimator": GaussianNB(), "second": GaussianNB(), "views": ([0], [1, 2]), "num_rounds": 2},
    ),
    (
        DemocraticCoLearning(),
        {"estimators": [GaussianNB(), KNeighborsClassifier(25)], "num_folds": 2, "max_rounds": 1},
    ),
    (GradualCoTraining(), {"estimator": GaussianNB(), "num_rounds": 2, "first_share": 0.9, "last_share": 0.5}),
]


@pytest.mark.parametrize(("method", "changes"), TABLE, ids=[type(method).__name__ for method, _ in TABLE])
def test_every_option_changes_something(method, changes) -> None:  # type: ignore[no-untyped-def]
    source, labels = clouds(0)
    target, _ = clouds(1, shift=1.0 if isinstance(method, SelfTraining) else 0.7)
    assert set(changes) == set(method.get_params(deep=False))

    def outcome(fitted) -> list[float]:  # type: ignore[no-untyped-def]
        said = [*fitted.predict_proba(target).ravel()]
        return [*said, *getattr(fitted, "num_taken_", []), *getattr(fitted, "learner_weights_", [])]

    usual = outcome(method.fit(source, labels, target))
    for name, value in changes.items():
        other = outcome(type(method)(**{name: value}).fit(source, labels, target))
        assert len(other) != len(usual) or not np.allclose(other, usual), name
