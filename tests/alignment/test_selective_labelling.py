"""SPL against its rounds written out with whole matrices, and its parts by hand."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from sklearn.cluster import KMeans

from headstart.alignment import SPL
from headstart.alignment.selective_labelling import class_projection, surest_rows
from headstart.core.errors import ConfigError, DomainError


def domains(seed: int = 0, n: int = 30, m: int = 24, d: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    centres = 1.5 * draws.normal(size=(3, d))
    source = centres[labels] + draws.normal(size=(n, d))
    target = (centres[np.arange(m) % 3] + draws.normal(size=(m, d))) * np.linspace(0.6, 1.5, d) + 1.0
    return source, labels, target


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def literal_projection(rows: np.ndarray, codes: np.ndarray, ridge: float) -> np.ndarray:
    """Eigenvectors of (X L X' + e I)^-1 X D X', with the n x n graph of equal labels."""
    graph = (codes[:, None] == codes[None]).astype(float)
    degrees = np.diag(graph.sum(axis=1))
    below = rows.T @ (degrees - graph) @ rows + ridge * np.eye(rows.shape[1])
    values, vectors = linalg.eig(linalg.inv(below) @ rows.T @ degrees @ rows)
    found = vectors[:, np.argsort(-values.real)].real
    return found / np.linalg.norm(found, axis=0)


def literal_spl(source: Any, labels: Any, target: Any, components: int, rounds: int, ridge: float) -> np.ndarray:
    rows = np.concatenate([source, target])
    rows = rows - rows.mean(axis=0)
    rows = unit(rows @ linalg.svd(rows, full_matrices=False)[2][:components].T)
    n, guessed, taken = len(source), np.zeros(len(target), dtype=int), np.zeros(len(target), dtype=bool)
    for step in range(1, rounds + 1):
        known = np.concatenate([np.ones(n, dtype=bool), taken])
        projection = literal_projection(rows[known], np.concatenate([labels, guessed])[known], ridge)
        z = rows @ projection
        z = unit(z - z.mean(axis=0))
        prototypes = unit(np.stack([z[:n][labels == code].mean(axis=0) for code in range(3)]))
        clusters = KMeans(3, init=prototypes, n_init=1).fit(z[n:]).cluster_centers_
        best = min(
            permutations(range(3)),
            key=lambda order: sum(np.linalg.norm(prototypes[code] - clusters[order[code]]) for code in range(3)),
        )
        answers = []
        for centres in (prototypes, clusters[list(best)]):
            closeness = np.exp(-np.linalg.norm(z[n:, None] - centres[None], axis=2))
            answers.append(closeness / closeness.sum(axis=1, keepdims=True))
        both = np.maximum(*answers)
        guessed = both.argmax(axis=1)
        taken[:] = False
        for code in range(3):
            places = sorted(np.flatnonzero(guessed == code), key=lambda row: -both[row].max())
            taken[places[: (len(places) * step) // rounds]] = True
    return both / both.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("components", "ridge"), [(6, 1.0), (3, 0.2)])
def test_spl_is_its_rounds(components: int, ridge: float) -> None:
    source, labels, target = domains()
    names = np.array(["ant", "bee", "cat"])
    model = SPL(components, ridge, num_rounds=4).fit(source, names[labels], target)
    expected = literal_spl(source, labels, target, components, 4, ridge)
    np.testing.assert_allclose(model.predict_proba(target), expected, atol=1e-7)
    np.testing.assert_array_equal(model.predict(target), names[expected.argmax(axis=1)])
    np.testing.assert_array_equal(model.pseudo_labels_, names[expected.argmax(axis=1)])


def test_the_projection_is_that_of_the_graph_of_equal_labels() -> None:
    source, labels, _ = domains(1)
    found, expected = class_projection(source, labels, 0.5), literal_projection(source, labels, 0.5)
    np.testing.assert_allclose(np.abs((found * expected).sum(axis=0)), 1.0)
    assert (found[np.abs(found).argmax(axis=0), np.arange(6)] > 0).all()


def test_the_surest_share_of_every_class_is_taken() -> None:
    labels, sureness = np.array([0, 1, 0, 0, 1, 0, 2]), np.array([0.5, 0.9, 0.8, 0.6, 0.8, 0.7, 0.4])
    assert surest_rows(labels, sureness, 0.5).tolist() == [1, 2, 5]  # 2 of 4, 1 of 2, 0 of 1
    assert surest_rows(labels, sureness, 1.0).tolist() == list(range(7))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=6, deadline=None)
def test_origin_unit_and_row_order_do_not_matter(seed: int) -> None:
    source, labels, target = domains(seed)
    order = np.random.default_rng(seed).permutation(30)
    plain = SPL(num_rounds=2).fit(source, labels, target).predict_proba(target)
    moved = SPL(num_rounds=2).fit(3 * source[order] + 1, labels[order], 3 * target + 1).predict_proba(3 * target + 1)
    np.testing.assert_allclose(moved, plain, atol=1e-6)


def test_no_parameter_is_dead() -> None:
    source, labels, target = domains(2)
    others: dict[str, Any] = {"num_components": 3, "regularisation": 30.0, "num_rounds": 1}
    assert set(others) == set(SPL().get_params())
    plain = SPL().fit(source, labels, target).predict_proba(target)
    for name, value in others.items():
        changed = SPL(**{name: value}).fit(source, labels, target).predict_proba(target)
        assert np.abs(changed - plain).max() > 1e-6, name


def test_fewer_target_rows_than_classes_leave_the_prototypes() -> None:
    source, labels, target = domains(3)
    model = SPL().fit(source, labels, target[:2])
    np.testing.assert_array_equal(model.clusters_, model.prototypes_)


def test_bad_settings_and_flat_rows_are_refused() -> None:
    source, labels, target = domains()
    for name, value in (("num_components", 0), ("num_rounds", 1.5), ("regularisation", 0.0)):
        with pytest.raises(ConfigError, match=f"SPL: {name} must be"):
            SPL(**{name: value}).fit(source, labels, target)
    with pytest.raises(DomainError, match="every row of both domains is the same"):
        SPL().fit(np.ones((4, 2)), [0, 1, 0, 1], np.ones((3, 2)))
