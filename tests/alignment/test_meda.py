"""MEDA against its linear system solved literally, and its parts against theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from headstart.alignment import GFK, MEDA
from headstart.alignment.meda import domain_gap, nearest_probabilities, neighbour_laplacian
from headstart.core.errors import ConfigError


def domains(
    seed: int = 0, n: int = 30, m: int = 24, d: int = 6
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    labels, hidden = np.arange(n) % 3, np.arange(m) % 3
    centres = 1.3 * draws.normal(size=(3, d))
    source = centres[labels] + draws.normal(size=(n, d))
    target = (centres[hidden] + draws.normal(size=(m, d))) * np.linspace(0.6, 1.5, d) + 1.0
    return source, labels, target, hidden


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def literal_laplacian(rows: np.ndarray, count: int) -> np.ndarray:
    size = len(rows)
    weights = np.zeros((size, size))
    for row in range(size):
        nearest = [other for other in np.argsort(((rows - rows[row]) ** 2).sum(axis=1), kind="stable") if other != row]
        for other in nearest[:count]:
            weights[row, other] = weights[other, row] = max(rows[row] @ rows[other], 0.0)
    degrees = weights.sum(axis=1)
    return np.eye(size) - weights / np.sqrt(np.outer(degrees, degrees))


def literal_meda(source: Any, labels: Any, target: Any, balance: float, rounds: int) -> np.ndarray:
    n, m = len(source), len(target)
    manifold = GFK(4).fit(source, None, target)
    rows = unit(np.concatenate([manifold.transform(source, sample_domain=np.ones(n)), manifold.transform(target)]))
    width = np.sqrt(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean())
    kernel = np.exp(-((rows[:, None] - rows[None]) ** 2).sum(axis=2) / (2 * width**2))
    guessed = KNeighborsClassifier(1).fit(rows[:n], labels).predict(rows[n:])
    answers = np.concatenate([np.eye(3)[labels], np.zeros((m, 3))])
    labelled = np.diag(np.repeat([1.0, 0.0], [n, m]))
    for _ in range(rounds):
        e = np.repeat([1 / n, -1 / m], [n, m])
        mmd = (1 - balance) * np.outer(e, e)
        for code in range(3):
            if (guessed == code).any():
                e = np.concatenate(
                    [(labels == code) / (labels == code).sum(), (guessed == code) / -(guessed == code).sum()]
                )
                mmd += balance * np.outer(e, e)
        mmd /= np.linalg.norm(mmd)
        system = (labelled + 10.0 * mmd + 1.0 * literal_laplacian(rows, 5)) @ kernel + 0.1 * np.eye(n + m)
        scores = kernel @ linalg.solve(system, labelled @ answers)
        guessed = scores[n:].argmax(axis=1)
    return scores[n:]


@pytest.mark.parametrize("balance", [0.0, 0.4, 1.0])
def test_meda_is_its_linear_system(balance: float) -> None:
    source, labels, target, _ = domains()
    names = np.array(["ant", "bee", "cat"])
    model = MEDA(4, num_neighbours=5, balance=balance, num_rounds=3).fit(source, names[labels], target)
    scores = literal_meda(source, labels, target, balance, 3)
    np.testing.assert_allclose(model.predict_proba(target), nearest_probabilities(scores), atol=1e-7)
    np.testing.assert_array_equal(model.predict(target), names[scores.argmax(axis=1)])
    np.testing.assert_array_equal(model.pseudo_labels_, names[scores.argmax(axis=1)])


def test_the_balance_is_the_share_of_the_classes_in_the_gaps() -> None:
    source, labels, target, _ = domains(1)
    model = MEDA(4, num_rounds=1).fit(source, labels, target)
    rows = model.fitted_rows_
    guessed = KNeighborsClassifier(1).fit(rows[:30], labels).predict(rows[30:])
    whole = domain_gap(rows[:30], rows[30:])
    classes = sum(domain_gap(rows[:30][labels == code], rows[30:][guessed == code]) for code in range(3))
    assert classes > 0
    assert model.balance_ == pytest.approx(classes / (whole + classes))


def test_the_gap_is_that_of_refitting_without_each_row() -> None:
    draws = np.random.default_rng(0)
    source, target = draws.normal(size=(12, 2)), draws.normal(size=(8, 2)) + 1.0
    rows, signs = np.concatenate([source, target]), np.repeat([1.0, -1.0], [12, 8])
    weights = np.repeat([0.5 / 12, 0.5 / 8], [12, 8])
    design = np.column_stack([rows - rows.mean(axis=0), np.ones(20)])
    penalty = 1e-3 * np.trace(design.T @ (design * weights[:, None])) / 3
    wrong = []
    for left_out in range(20):
        kept = np.arange(20) != left_out
        gram = design[kept].T @ (design[kept] * weights[kept, None]) + penalty * np.eye(3)
        answer = design[left_out] @ linalg.solve(gram, design[kept].T @ (weights[kept] * signs[kept]))
        wrong.append(answer * signs[left_out] <= 0)
    error = (np.mean(wrong[:12]) + np.mean(wrong[12:])) / 2
    assert 0 < error < 0.5
    assert domain_gap(source, target) == pytest.approx(2 * (1 - 2 * error))


def test_the_graph_is_that_of_the_nearest_by_cosine() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(15, 3)))
    np.testing.assert_allclose(neighbour_laplacian(rows, 4).toarray(), literal_laplacian(rows, 4), atol=1e-12)


@given(st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=5))
def test_probabilities_are_the_nearest_to_the_scores(scores: list[list[float]]) -> None:
    near = nearest_probabilities(np.array(scores))
    assert (near >= 0).all()
    np.testing.assert_allclose(near.sum(axis=1), 1.0)
    # optimal: what is above 0 was moved by one amount, what is 0 by less
    for row, given_row in zip(near, np.array(scores), strict=True):
        amount = (given_row - row)[row > 0]
        np.testing.assert_allclose(amount, amount[0], atol=1e-9)
        assert (given_row[row == 0] <= amount[0] + 1e-9).all()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=5, deadline=None)
def test_origin_unit_and_row_order_do_not_matter(seed: int) -> None:
    source, labels, target, _ = domains(seed)
    order = np.random.default_rng(seed).permutation(30)
    plain = MEDA(3, num_rounds=2).fit(source, labels, target).predict_proba(target)
    moved = (
        MEDA(3, num_rounds=2).fit(3 * source[order] + 1, labels[order], 3 * target + 1).predict_proba(3 * target + 1)
    )
    np.testing.assert_allclose(moved, plain, atol=1e-5)


def test_no_parameter_is_dead() -> None:
    source, labels, target, _ = domains(5, n=60, m=60)
    labels = np.random.default_rng(0).permutation(labels)  # labels that mean nothing take rounds to settle
    others: dict[str, Any] = {
        "num_components": None,
        "shrinkage": 1.0,
        "mmd_weight": 0.0,
        "laplacian_weight": 0.0,
        "num_neighbours": 3,
        "bandwidth": 0.3,
        "balance": 0.0,
        "num_rounds": 1,
        "estimator": LogisticRegression(C=1e-4),
    }
    base: dict[str, Any] = {"num_components": 4, "num_rounds": 4}
    assert set(others) == set(MEDA().get_params())
    plain = MEDA(**base).fit(source, labels, target).predict_proba(target)
    for name, value in others.items():
        changed = MEDA(**{**base, name: value}).fit(source, labels, target).predict_proba(target)
        assert np.abs(changed - plain).max() > 1e-6, name


BAD = {"shrinkage": 0.0, "bandwidth": 0.0, "num_neighbours": 0, "num_rounds": 0, "mmd_weight": -1.0, "balance": 1.1}


@pytest.mark.parametrize(("name", "value"), [*BAD.items(), ("laplacian_weight", -1.0)])
def test_bad_settings_are_refused(name: str, value: float) -> None:
    source, labels, target, _ = domains()
    with pytest.raises(ConfigError, match=f"MEDA: {name} must be"):
        MEDA(**{name: value}).fit(source, labels, target)
