"""LAME: its step, fixed point and descent, literally."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from headstart.alignment import LAME, lame_probabilities, neighbour_affinity
from headstart.alignment.lame import lame_objective
from headstart.core.errors import ConfigError, ShapeError
from two_domain_problems import clouds


def batch(seed: int = 0, size: int = 15, num_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    return draws.dirichlet(np.ones(num_classes), size=size), draws.normal(size=(size, 2))


def literal_step(assigned: np.ndarray, given_mk: np.ndarray, affinity: np.ndarray, weight: float) -> np.ndarray:
    new = np.zeros_like(assigned)
    for i in range(len(assigned)):
        for k in range(assigned.shape[1]):
            pull = sum(affinity[i, j] * assigned[j, k] for j in range(len(assigned)))
            new[i, k] = given_mk[i, k] * np.exp(weight * pull)
        new[i] /= new[i].sum()
    return new


def test_with_a_positive_semi_definite_affinity_the_steps_are_the_papers() -> None:
    probabilities, rows = batch()
    affinity = np.exp(-((rows[:, None] - rows[None]) ** 2).sum(axis=2))  # Gaussian: no step is damped
    expected = probabilities.copy()
    for _ in range(3):
        expected = literal_step(expected, probabilities, affinity, 0.7)
    np.testing.assert_allclose(lame_probabilities(probabilities, affinity, 0.7, max_steps=3), expected, atol=1e-12)


@given(st.integers(0, 10_000), st.floats(0.0, 20.0), st.integers(1, 4))
@settings(max_examples=30)
def test_the_objective_never_rises_and_ends_at_a_fixed_point(seed: int, weight: float, num_neighbours: int) -> None:
    probabilities, rows = batch(seed)
    affinity = neighbour_affinity(rows, num_neighbours)
    objectives: list[float] = []
    corrected = lame_probabilities(probabilities, affinity, weight, max_steps=5000, objectives=objectives)
    assert (np.diff(objectives) <= 0).all()
    np.testing.assert_allclose(corrected.sum(axis=1), 1.0)
    literal = np.sum(corrected * np.log(np.maximum(corrected, 1e-300) / probabilities))
    for i in range(len(rows)):
        for j in range(len(rows)):
            literal -= weight / 2 * affinity[i, j] * corrected[i] @ corrected[j]
    assert objectives[-1] == pytest.approx(literal, abs=1e-9)
    assert lame_objective(corrected, np.log(probabilities), affinity, weight) == pytest.approx(literal, abs=1e-9)
    moved = literal_step(corrected, probabilities, affinity.toarray(), weight)
    np.testing.assert_allclose(moved, corrected, atol=5e-3)


def test_a_pair_that_would_swap_for_ever_settles() -> None:
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9]])
    pair = np.array([[0.0, 1.0], [1.0, 0.0]])
    swapped = literal_step(probabilities, np.full((2, 2), 0.5), pair, 8.0)
    assert swapped[0, 1] > 0.9 and swapped[1, 0] > 0.9  # the plain step only exchanges the answers
    corrected = lame_probabilities([[0.51, 0.49], [0.48, 0.52]], pair, 8.0, max_steps=500)
    assert corrected.argmax(axis=1).tolist() in ([0, 0], [1, 1])


def test_without_weight_or_neighbours_nothing_changes() -> None:
    probabilities, rows = batch()
    np.testing.assert_allclose(lame_probabilities(probabilities, neighbour_affinity(rows), 0.0), probabilities)
    np.testing.assert_allclose(lame_probabilities(probabilities, np.zeros((15, 15))), probabilities)


def test_affinity_is_the_mean_of_both_directions() -> None:
    _, rows = batch(3)
    literal = np.zeros((15, 15))
    for i in range(15):
        gaps = np.linalg.norm(rows - rows[i], axis=1)
        gaps[i] = np.inf
        literal[i, np.argsort(gaps)[:4]] = 1
    np.testing.assert_array_equal(neighbour_affinity(rows, 4).toarray(), (literal + literal.T) / 2)


def test_fitted_target_rows_get_the_batch_answer_in_any_order() -> None:
    source, labels = clouds(0)
    target, _ = clouds(1, shift=1.0)
    model = LAME().fit(source, labels, target)
    given_mk = LogisticRegression(max_iter=1000).fit(source, labels).predict_proba(target)
    np.testing.assert_allclose(model.target_probabilities_, lame_probabilities(given_mk, neighbour_affinity(target)))
    order = np.random.default_rng(0).permutation(len(target))[:50]
    np.testing.assert_allclose(model.predict_proba(target[order]), model.target_probabilities_[order])
    query = target[:3] + 1e-6  # not seen, but next to rows that were
    near = model.predict_proba(query)
    gaps = np.linalg.norm(target[None] - query[:, None], axis=2)
    pull = np.stack([model.target_probabilities_[np.argsort(row)[:5]].sum(axis=0) for row in gaps])
    expected = model.estimator_.predict_proba(query) * np.exp(pull)
    np.testing.assert_allclose(near, expected / expected.sum(axis=1, keepdims=True))


def test_it_helps_where_answers_are_noisy_and_hurts_where_a_cloud_is_mostly_wrong() -> None:
    source, labels = clouds(0, num_rows=20)
    target, truth = clouds(1)
    noisy = RandomForestClassifier(n_estimators=5, max_depth=2, random_state=0)
    alone = noisy.fit(source, labels).score(target, truth)
    assert LAME(noisy).fit(source, labels, target).score(target, truth) > alone + 0.02
    source, labels = clouds(0)
    target, truth = clouds(1, shift=2.2)
    alone = LogisticRegression(max_iter=1000).fit(source, labels).score(target, truth)
    assert LAME().fit(source, labels, target).score(target, truth) < alone - 0.04


def test_shapes_and_options_are_checked_in_words() -> None:
    with pytest.raises(ShapeError, match="must be a matrix"):
        lame_probabilities([0.5, 0.5], np.eye(2))
    with pytest.raises(ShapeError, match="probabilities has 1 rows but affinity has 2"):
        lame_probabilities([[0.5, 0.5]], np.eye(2))
    for options in ({"weight": -1.0}, {"num_neighbours": 0}):
        with pytest.raises(ConfigError, match="LAME: "):
            LAME(**options).fit([[0.0], [1.0]], [0, 1])


def test_every_option_changes_something() -> None:
    source, labels = clouds(0)
    target, _ = clouds(1, shift=1.0)
    changes = {"estimator": LogisticRegression(C=0.01), "num_neighbours": 2, "weight": 0.3}
    assert set(changes) == set(LAME().get_params(deep=False))
    usual = LAME().fit(source, labels, target).target_probabilities_
    for name, value in changes.items():
        assert not np.allclose(LAME(**{name: value}).fit(source, labels, target).target_probabilities_, usual), name
