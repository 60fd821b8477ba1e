"""TCA, JDA, BDA and TJM against the papers' generalised eigenproblems, written out with whole matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from headstart.alignment import BDA, JDA, TCA, TJM, mmd_projection
from headstart.alignment.mmd_projection import mean_contrasts
from headstart.core.errors import ConfigError, DomainError

KINDS: list[Any] = [TCA, JDA, BDA, TJM]


def domains(seed: int = 0, n: int = 24, m: int = 18, d: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source, its labels, target: three classes, of other proportions in the target, which is moved and stretched."""
    draws = np.random.default_rng(seed)
    labels, hidden = np.arange(n) % 3, np.minimum(np.arange(m) % 4, 2)
    centres = 3 * draws.normal(size=(3, d))
    source = centres[labels] + draws.normal(size=(n, d))
    target = (centres[hidden] + draws.normal(size=(m, d))) * np.linspace(0.7, 1.4, d) + 1.0
    return source, labels, target


def both(aligner: Any, source: np.ndarray, labels: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    fitted = aligner.fit(source, labels, target)
    return fitted.transform(source, sample_domain=np.ones(len(source))), fitted.transform(target)


def scaled(source: np.ndarray, target: np.ndarray, unit: bool) -> np.ndarray:
    rows = np.concatenate([source, target])
    rows = rows - rows.mean(axis=0)
    if unit:
        return rows / np.sqrt((rows**2).sum(axis=1))[:, None]
    return rows / np.sqrt((rows**2).sum(axis=1).mean())


def kernel_of(rows: np.ndarray, kernel: str, bandwidth: float) -> np.ndarray:
    """The matrix in front of A: features as columns of X' for "primal", kernel values otherwise."""
    if kernel == "primal":
        return rows
    if kernel == "linear":
        return rows @ rows.T
    width = bandwidth * np.sqrt(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean())
    return np.array([[np.exp(-((a - b) ** 2).sum() / (2 * width**2)) for b in rows] for a in rows])


def paper_m0(n: int, m: int) -> np.ndarray:
    matrix = np.full((n + m, n + m), -1 / (n * m))
    matrix[:n, :n], matrix[n:, n:] = 1 / n**2, 1 / m**2
    return matrix


def paper_mc(codes: np.ndarray, guessed: np.ndarray, code: int, weighted: bool = False) -> np.ndarray:
    n, of_source, of_target = len(codes), codes == code, guessed == code
    ns, nt = of_source.sum(), of_target.sum()
    ps, pt = (ns / n, nt / len(guessed)) if weighted else (1.0, 1.0)
    matrix = np.zeros((n + len(guessed), n + len(guessed)))
    matrix[:n, :n] = ps * np.outer(of_source, of_source) / ns**2
    matrix[n:, n:] = pt * np.outer(of_target, of_target) / nt**2
    cross = -np.sqrt(ps * pt) * np.outer(of_source, of_target) / (ns * nt)
    matrix[:n, n:], matrix[n:, :n] = cross, cross.T
    return matrix


def literal(
    k: np.ndarray, m: np.ndarray, penalty: np.ndarray, count: int, whiten: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return A and projected rows: eigenvectors of the matrix that is not symmetric, (K'MK + D)^-1 K'HK."""
    centring = np.eye(len(k)) - 1 / len(k)
    values, vectors = linalg.eig(linalg.inv(k.T @ m @ k + np.diag(penalty)) @ k.T @ centring @ k)
    chosen = np.argsort(-values.real)[:count]
    a = vectors[:, chosen].real
    a /= np.sqrt(np.diag(a.T @ k.T @ centring @ k @ a) / len(k)) if whiten else np.linalg.norm(a, axis=0)
    return a, k @ a


def agree_but_for_signs(projected: tuple[np.ndarray, np.ndarray], expected: np.ndarray, atol: float = 1e-6) -> None:
    stacked = np.concatenate(projected)
    signs = np.sign((stacked * expected).sum(axis=0))
    np.testing.assert_allclose(stacked, expected * signs, atol=atol * np.abs(expected).max())


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("kernel", ["primal", "linear", "rbf"])
def test_tca_solves_the_paper_s_eigenproblem(kernel: str, normalise: bool, whiten: bool) -> None:
    source, labels, target = domains()
    aligner = TCA(3, 0.3, kernel, 0.8, normalise, whiten)
    k = kernel_of(scaled(source, target, normalise), kernel, 0.8)
    mu = 0.3 * (1 / 24 + 1 / 18)
    _, expected = literal(k, paper_m0(24, 18), np.full(k.shape[1], mu), 3, whiten)
    agree_but_for_signs(both(aligner, source, labels, target), unit(expected) if normalise else expected)


@pytest.mark.parametrize("kernel", ["primal", "rbf"])
def test_components_of_tca_have_variance_1_where_asked(kernel: str) -> None:
    source, labels, target = domains()
    projected = np.concatenate(both(TCA(3, kernel=kernel, normalise_rows=False, whiten=True), source, labels, target))
    np.testing.assert_allclose(np.cov(projected.T, ddof=0), np.eye(3), atol=1e-8)


def literal_jda(
    source: Any, labels: Any, target: Any, aligner: Any, marginal: float, each: float, weighted: bool
) -> Any:
    rows = scaled(source, target, True)
    k, n, m = kernel_of(rows, aligner.kernel, aligner.bandwidth), len(source), len(target)
    mmd = paper_m0(n, m)
    for step in range(aligner.num_rounds + 1):
        _, projected = literal(
            k,
            mmd / np.linalg.norm(mmd),
            np.full(k.shape[1], aligner.regularisation),
            aligner.num_components,
            aligner.whiten,
        )
        projected = unit(projected)
        guessed = KNeighborsClassifier(1).fit(projected[:n], labels).predict(projected[n:])
        if step < aligner.num_rounds:
            mmd = marginal * paper_m0(n, m)
            for code in np.unique(guessed):
                mmd += each * paper_mc(labels, guessed, code, weighted)
    return projected, guessed


@pytest.mark.parametrize("kernel", ["primal", "linear", "rbf"])
def test_jda_is_the_paper_s_rounds(kernel: str) -> None:
    source, labels, target = domains(3)
    aligner = JDA(2, 0.2, kernel, num_rounds=3)
    projected, guessed = literal_jda(source, labels, target, aligner, 1.0, 1.0, False)
    agree_but_for_signs(both(aligner, source, labels, target), projected)
    np.testing.assert_array_equal(aligner.pseudo_labels_, guessed)


@pytest.mark.parametrize("weighted", [False, True])
def test_bda_is_the_paper_s_rounds(weighted: bool) -> None:
    source, labels, target = domains(4)
    aligner = BDA(2, 0.2, num_rounds=3, balance=0.8, weighted=weighted)
    projected, guessed = literal_jda(source, labels, target, aligner, 0.2, 0.8, weighted)
    agree_but_for_signs(both(aligner, source, labels, target), projected)
    np.testing.assert_array_equal(aligner.pseudo_labels_, guessed)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_tjm_is_the_paper_s_rounds(kernel: str, whiten: bool) -> None:
    source, labels, target = domains(5)
    aligner = TJM(2, 0.5, kernel, whiten=whiten, num_rounds=3)
    k = kernel_of(scaled(source, target, True), kernel, 1.0)
    m0, g = paper_m0(24, 18), np.ones(42)
    m0 = m0 / np.linalg.norm(m0)
    for _ in range(3):
        a, expected = literal(k, m0, 0.5 * g, 2, whiten)
        lengths = np.linalg.norm(a[:24] / (np.sqrt(42) if whiten else 1.0), axis=1)
        g[:24] = 1 / (2 * lengths)
    agree_but_for_signs(both(aligner, source, labels, target), unit(expected), 1e-5)
    np.testing.assert_allclose(aligner.source_relevance_, lengths / lengths.mean(), rtol=1e-4)


def test_tjm_gives_up_a_source_row_that_is_far_from_the_target() -> None:
    draws = np.random.default_rng(0)
    source, target = draws.normal(size=(30, 4)), draws.normal(size=(30, 4))
    source[0] = [0.0, 0.0, 0.0, 30.0]
    aligner = TJM(3, kernel="rbf", normalise_rows=False, bandwidth=0.5).fit(source, None, target)
    assert aligner.source_relevance_[0] < np.median(aligner.source_relevance_)


def test_contrasts_are_the_papers_matrices() -> None:
    _, codes, _ = domains()
    guessed = np.array([0, 0, 1] * 6)  # class 2 is missing: it has no column
    for weighted in (False, True):
        columns = mean_contrasts(24, 18, codes, guessed, 0.3, 0.7, weighted)
        expected = 0.3 * paper_m0(24, 18) + 0.7 * sum(paper_mc(codes, guessed, code, weighted) for code in (0, 1))
        np.testing.assert_allclose(columns @ columns.T, expected / np.linalg.norm(expected), atol=1e-12)


@pytest.mark.parametrize("kernel", ["primal", "rbf"])
def test_lanczos_and_the_dense_solver_say_the_same(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, labels, target = domains(6, n=60, m=50, d=40)
    dense = both(TCA(4, kernel=kernel), source, labels, target)
    monkeypatch.setattr(mmd_projection, "_DENSE", 8)
    for one, other in zip(both(TCA(4, kernel=kernel), source, labels, target), dense, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


@pytest.mark.parametrize("kernel", ["primal", "linear", "rbf"])
def test_more_features_than_rows(kernel: str) -> None:
    source, labels, target = domains(7, n=9, m=8, d=30)
    k = kernel_of(scaled(source, target, False), kernel, 1.0)
    aligner = TCA(3, 0.3, kernel, normalise_rows=False)
    _, expected = literal(k, paper_m0(9, 8), np.full(k.shape[1], 0.3 * (1 / 9 + 1 / 8)), 3, False)
    agree_but_for_signs(both(aligner, source, labels, target), expected)
    assert both(TCA(40, kernel=kernel), source, labels, target)[0].shape[1] <= 17


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_new_rows_are_mapped_as_the_fitted_ones(kind: Any, kernel: str) -> None:
    source, labels, target = domains(8)
    aligner = kind(2, kernel=kernel).fit(source, labels, target)
    whole = aligner.transform(target)
    np.testing.assert_allclose(np.concatenate([aligner.transform(target[row : row + 1]) for row in range(18)]), whole)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 50.0]), kernel=st.sampled_from(["linear", "rbf"]))
@settings(max_examples=6, deadline=None)
def test_origin_unit_and_row_order_do_not_matter(kind: Any, seed: int, scale: float, kernel: str) -> None:
    source, labels, target = domains(seed)
    moved, kept = both(
        kind(2, kernel=kernel, num_rounds=2) if kind is not TCA else TCA(2, kernel=kernel), source, labels, target
    )
    order = np.random.default_rng(seed).permutation(len(source))
    again = both(
        kind(2, kernel=kernel, num_rounds=2) if kind is not TCA else TCA(2, kernel=kernel),
        scale * source[order] + 2.0,
        labels[order],
        scale * target + 2.0,
    )
    np.testing.assert_allclose(again[0] @ again[1].T, moved[order] @ kept.T, atol=1e-4)


def test_tca_takes_away_what_only_tells_the_domains_apart() -> None:
    draws = np.random.default_rng(0)
    source, target = draws.normal(size=(50, 3)), draws.normal(size=(50, 3))
    source[:, 0] += 10
    moved, kept = both(TCA(2, 1e-4, normalise_rows=False), source, np.zeros(50), target)
    assert np.abs(moved.mean(0) - kept.mean(0)).max() < 0.01 * moved.std()


PARAMETERS: list[tuple[Any, dict[str, Any]]] = [
    (TCA, {}),
    (JDA, {"num_rounds": 1, "estimator": LogisticRegression()}),
    (BDA, {"num_rounds": 1, "estimator": LogisticRegression(), "balance": 1.0, "weighted": True}),
    (TJM, {"num_rounds": 1}),
]
SHARED = {"num_components": 1, "regularisation": 0.01, "kernel": "linear", "normalise_rows": False, "whiten": True}


@pytest.mark.parametrize(("kind", "others"), PARAMETERS)
def test_no_parameter_is_dead(kind: Any, others: dict[str, Any]) -> None:
    source, labels, target = domains(12, d=8)
    target = target @ linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]
    assert set(others) | set(SHARED) | {"bandwidth"} == set(kind().get_params())
    base: dict[str, Any] = {"num_components": 3, "kernel": "rbf"}
    plain = both(kind(**base), source, labels, target)
    for name, value in {**SHARED, **others, "bandwidth": 0.3}.items():
        changed = both(kind(**{**base, name: value}), source, labels, target)
        assert np.abs(changed[0] @ changed[1].T - plain[0] @ plain[1].T).max() > 1e-6, name


@pytest.mark.parametrize("kind", KINDS)
def test_bad_settings_are_refused(kind: Any) -> None:
    source, labels, target = domains()
    bad = [
        ("num_components", 0),
        ("num_components", 1.5),
        ("regularisation", 0.0),
        ("bandwidth", -1.0),
        ("kernel", "poly"),
    ]
    for name, value in [*bad, *([("num_rounds", 0)] if kind is not TCA else [])]:
        with pytest.raises(ConfigError, match=f"{kind.__name__}: {name} must be"):
            kind(**{name: value}).fit(source, labels, target)
    with pytest.raises(DomainError, match="every row of both domains is the same"):
        kind().fit(np.full((4, 3), 0.1), [0, 1, 0, 1], np.full((4, 3), 0.1))
    with pytest.raises(ConfigError, match="balance must be between 0 and 1"):
        BDA(balance=1.5).fit(source, labels, target)


def test_tjm_has_no_primal_form() -> None:
    source, labels, target = domains()
    with pytest.raises(ConfigError, match="kernel must be one of linear, rbf; got 'primal'"):
        TJM(kernel="primal").fit(source, labels, target)
