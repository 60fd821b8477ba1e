"""Label propagation against dense inverses of the papers' equations."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from headstart.alignment import LabelPropagation
from headstart.alignment.neighbour_graph import SeenRows, nearest
from headstart.core.errors import ConfigError
from two_domain_problems import clouds, turned_moons


def dense_affinity(rows: np.ndarray, num_neighbours: int) -> np.ndarray:
    """The graph, row by row."""
    size = len(rows)
    gaps = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(axis=2))
    order = [[j for j in np.argsort(gaps[i], kind="stable") if j != i][:num_neighbours] for i in range(size)]
    radius = [gaps[i, order[i][-1]] for i in range(size)]
    affinity = np.zeros((size, size))
    for i in range(size):
        for j in order[i]:
            affinity[i, j] = affinity[j, i] = np.exp(-(gaps[i, j] ** 2) / (radius[i] * radius[j]))
    return affinity


@pytest.fixture
def rows_of_three() -> tuple[np.ndarray, ...]:
    draws = np.random.default_rng(0)
    labels = np.arange(24) % 3
    return draws.normal(size=(24, 3)) + labels[:, None], labels, draws.normal(size=(18, 3)) + 1.0


def test_harmonic_is_the_dense_inverse(rows_of_three) -> None:  # type: ignore[no-untyped-def]
    source, labels, target = rows_of_three
    model = LabelPropagation(num_neighbours=4, alpha=0.9).fit(source, labels, target)
    w = dense_affinity(np.concatenate([source, target]), 4)
    np.testing.assert_allclose(model.affinity_.toarray(), w, rtol=1e-8)
    degrees, y = np.diag(w.sum(axis=1))[24:, 24:], np.eye(3)[labels]
    walk = np.linalg.inv(degrees) @ w[24:]  # a step ends in the source, in the target, or (1 in 10) in the class shares
    answers = np.linalg.inv(np.eye(18) - 0.9 * walk[:, 24:]) @ (0.9 * walk[:, :24] @ y + 0.1 * y.mean(axis=0))
    np.testing.assert_allclose(answers.sum(axis=1), 1.0)
    np.testing.assert_allclose(model.target_probabilities_, answers, atol=1e-9)
    np.testing.assert_allclose(model.predict_proba(target), answers, atol=1e-9)


def test_spreading_is_the_dense_inverse(rows_of_three) -> None:  # type: ignore[no-untyped-def]
    source, labels, target = rows_of_three
    model = LabelPropagation(num_neighbours=4, alpha=0.8, form="spreading").fit(source, labels, target)
    w = dense_affinity(np.concatenate([source, target]), 4)
    root = np.diag(w.sum(axis=1) ** -0.5)
    y = np.concatenate([np.eye(3)[labels], np.zeros((18, 3))])
    answers = 0.2 * np.linalg.inv(np.eye(42) - 0.8 * root @ w @ root) @ y
    answers /= answers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.target_probabilities_, answers[24:], atol=1e-9)


def test_an_unreached_cloud_follows_the_source_shares() -> None:
    source, target = np.array([[0.0], [0.1], [0.2], [9.0], [9.1]]), np.array([[100.0], [100.1], [100.2]])
    model = LabelPropagation(num_neighbours=1).fit(source, ["a", "a", "a", "b", "b"], target)
    np.testing.assert_allclose(model.predict_proba(target), [[0.6, 0.4]] * 3, atol=1e-9)


def test_a_row_not_seen_gets_its_neighbours_mean() -> None:
    source, target = np.array([[0.0], [8.0]]), np.array([[1.0], [7.0]])
    model = LabelPropagation(num_neighbours=2).fit(source, [0, 1], target)
    query = np.array([[1.5]])
    distances = np.array([0.5, 1.5])  # to the rows at 1 and 0
    radii = {0: 7.0, 1: 6.0}  # distance of the rows at 0 and 1 to their second neighbour
    weights = np.exp(-(distances**2) / (distances[1] * np.array([radii[1], radii[0]])))
    expected = (weights[0] * model.target_probabilities_[0] + weights[1] * np.array([1.0, 0.0])) / weights.sum()
    np.testing.assert_allclose(model.predict_proba(query)[0], expected, atol=1e-9)


def test_it_follows_turned_moons_and_loses_where_clouds_touch() -> None:
    source, labels = turned_moons(0)
    target, truth = turned_moons(1, degrees=30)
    alone = SVC(gamma=2, C=10).fit(source, labels).score(target, truth)
    assert alone < 0.95
    assert LabelPropagation().fit(source, labels, target).score(target, truth) > 0.98
    rows, sides = clouds(0, num_features=200)
    moved, sides_moved = clouds(1, num_features=200)
    alone = LogisticRegression(max_iter=1000).fit(rows, sides).score(moved, sides_moved)
    assert LabelPropagation().fit(rows, sides, moved).score(moved, sides_moved) < alone - 0.05


def test_scale_and_translation_change_nothing(rows_of_three) -> None:  # type: ignore[no-untyped-def]
    source, labels, target = rows_of_three
    plain = LabelPropagation(num_neighbours=4).fit(source, labels, target).target_probabilities_
    other = LabelPropagation(num_neighbours=4).fit(100 * source - 7, labels, 100 * target - 7).target_probabilities_
    np.testing.assert_allclose(other, plain, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.0}, "alpha must be a number above 0 and below 1"),
        ({"form": "zhu"}, "form must be one of harmonic, spreading"),
        ({"num_neighbours": 0}, "num_neighbours must be a whole number"),
    ],
)
def test_options_are_checked_in_words(options, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        LabelPropagation(**options).fit([[0.0], [1.0]], [0, 1])


def test_every_option_changes_something(rows_of_three) -> None:  # type: ignore[no-untyped-def]
    source, labels, target = rows_of_three
    changes = {"num_neighbours": 3, "alpha": 0.5, "form": "spreading"}
    assert set(changes) == set(LabelPropagation().get_params())
    usual = LabelPropagation().fit(source, labels, target).target_probabilities_
    for name, value in changes.items():
        assert not np.allclose(
            LabelPropagation(**{name: value}).fit(source, labels, target).target_probabilities_, usual
        )


def test_neighbours_of_duplicates_and_memory_of_rows() -> None:
    distances, places = nearest(np.array([[0.0], [0.0], [3.0]]), 5)
    assert distances.shape == (3, 2)
    assert places[0, 0] == 1 and places[1, 0] == 0
    seen = SeenRows(np.array([[0.0, 1.0]]), np.array([[0.25, 0.75]]))
    found, answers = seen.find(np.array([[-0.0, 1.0], [0.0, 1.0 + 1e-9]]))
    assert found.tolist() == [0] and answers.tolist() == [[0.25, 0.75]]
