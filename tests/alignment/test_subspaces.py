"""Subspace alignment and the geodesic flow kernel against their formulas, an integral, and what the mathematics promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from sklearn.decomposition import PCA

from headstart.alignment import GFK, SubspaceAlignment
from headstart.alignment.gfk import geodesic_factor, subspace_disagreement
from headstart.alignment.principal_axes import principal_axes
from headstart.core.errors import ConfigError, DomainError


def domains(seed: int = 0, n: int = 40, m: int = 30, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    spread = np.geomspace(4.0, 0.2, d)
    source = draws.normal(size=(n, d)) * spread @ linalg.qr(draws.normal(size=(d, d)))[0]
    target = draws.normal(size=(m, d)) * spread @ linalg.qr(draws.normal(size=(d, d)))[0] + 1.0
    return source, target


def basis(d: int, r: int, seed: int) -> np.ndarray:
    return linalg.qr(np.random.default_rng(seed).normal(size=(d, r)), mode="economic")[0]


def both(aligner: Any, source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    fitted = aligner.fit(source, None, target)
    return fitted.transform(source, sample_domain=np.ones(len(source))), fitted.transform(target)


@pytest.mark.parametrize("shape", [(40, 8), (6, 8), (20, 24)], ids=["covariance", "decomposition", "products"])
def test_principal_axes_are_scikit_learn_s_with_fixed_signs(shape: tuple[int, int]) -> None:
    rows = domains(n=shape[0], d=shape[1])[0] + 5.0
    mean, axes, variances = principal_axes(rows, 4)
    pca = PCA(4, svd_solver="full").fit(rows)
    np.testing.assert_allclose(mean, pca.mean_)
    np.testing.assert_allclose(variances, pca.explained_variance_)
    np.testing.assert_allclose(np.abs((axes.T * pca.components_).sum(axis=1)), 1.0)
    assert (axes[np.abs(axes).argmax(axis=0), np.arange(4)] > 0).all()


def test_principal_axes_leave_flat_directions_out() -> None:
    rows = np.column_stack([domains()[0][:, :2], np.full(40, 1e6)])
    assert principal_axes(rows)[1].shape == (3, 2)
    assert principal_axes(np.full((5, 3), 0.1))[1].shape == (3, 0)


def test_subspace_alignment_is_its_formula() -> None:
    source, target = domains()
    moved, kept = both(SubspaceAlignment(3), source, target)
    from_source = linalg.svd(source - source.mean(0))[2][:3].T
    from_target = linalg.svd(target - target.mean(0))[2][:3].T
    expected = (source - source.mean(0)) @ from_source @ from_source.T @ from_target
    signs = np.sign((kept * ((target - target.mean(0)) @ from_target)).sum(axis=0))
    np.testing.assert_allclose(kept, (target - target.mean(0)) @ from_target * signs, atol=1e-9)
    np.testing.assert_allclose(moved, expected * signs, atol=1e-9)


def test_without_matched_means_both_are_centred_on_all_rows() -> None:
    source, target = domains()
    apart, together = both(SubspaceAlignment(3), source, target), both(SubspaceAlignment(3, False), source, target)
    middle = np.concatenate([source, target]).mean(axis=0)
    aligner = SubspaceAlignment(3).fit(source, None, target)
    np.testing.assert_allclose(
        together[0] - apart[0], np.tile((source.mean(0) - middle) @ aligner.source_map_, (40, 1))
    )
    np.testing.assert_allclose(
        together[1] - apart[1], np.tile((target.mean(0) - middle) @ aligner.target_map_, (30, 1))
    )


def geodesic(one: np.ndarray, other: np.ndarray, at: float) -> np.ndarray:
    """Phi(t) as the paper writes it: with an orthogonal complement of the source's basis."""
    complement = linalg.null_space(one.T)
    left, cosines, right = linalg.svd(one.T @ other)
    angles = np.arccos(np.clip(cosines, -1, 1))
    scaled = complement.T @ other @ right.T  # = -U2 diag(sin(angles))
    away = -scaled / np.where(np.sin(angles) > 1e-12, np.sin(angles), 1.0)
    return one @ left * np.cos(at * angles) - complement @ away * np.sin(at * angles)


@pytest.mark.parametrize(("d", "r"), [(8, 3), (6, 3), (5, 1), (5, 4)])
def test_the_kernel_is_the_integral_along_the_geodesic(d: int, r: int) -> None:
    one, other = basis(d, r, 0), basis(d, r, 1)
    points, weights = np.polynomial.legendre.leggauss(40)
    integral = np.zeros((d, d))
    for point, weight in zip(points, weights, strict=True):
        phi = geodesic(one, other, (point + 1) / 2)
        integral += weight / 2 * phi @ phi.T
    factor = geodesic_factor(one, other)
    np.testing.assert_allclose(factor @ factor.T, integral, atol=1e-7)


def test_the_kernel_between_lines_by_hand() -> None:
    """An angle of 90 degrees: the integral of (cos, sin)(cos, sin)' over a quarter circle."""
    factor = geodesic_factor(np.array([[1.0], [0.0]]), np.array([[0.0], [1.0]]))
    np.testing.assert_allclose(factor @ factor.T, [[0.5, 1 / np.pi], [1 / np.pi, 0.5]], atol=1e-12)


def test_subspaces_with_nothing_between_them_give_their_projection() -> None:
    one = basis(6, 3, 0)
    turned = one @ linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    factor = geodesic_factor(one, turned)
    np.testing.assert_allclose(factor @ factor.T, one @ one.T, atol=1e-7)


def test_the_kernel_is_the_same_in_either_direction_and_turns_with_the_axes() -> None:
    one, other, turn = basis(8, 3, 0), basis(8, 3, 1), basis(8, 8, 2)
    forth, back, turned = (
        factor @ factor.T
        for factor in (
            geodesic_factor(one, other),
            geodesic_factor(other, one),
            geodesic_factor(turn @ one, turn @ other),
        )
    )
    np.testing.assert_allclose(back, forth, atol=1e-10)
    np.testing.assert_allclose(turned, turn @ forth @ turn.T, atol=1e-10)


def test_transformed_rows_have_the_kernel_s_inner_products() -> None:
    source, target = domains()
    aligner = GFK(3).fit(source, None, target)
    from_source = linalg.svd(source - source.mean(0))[2][:3].T
    from_target = linalg.svd(target - target.mean(0))[2][:3].T
    kernel = geodesic_factor(from_source, from_target) @ geodesic_factor(from_source, from_target).T
    moved, kept = both(aligner, source, target)
    expected = (source - source.mean(0)) @ kernel @ (target - target.mean(0)).T
    np.testing.assert_allclose(moved @ kept.T, expected, atol=1e-8)
    assert moved.shape == (40, 6)


def test_disagreement_is_the_mean_sine_of_the_last_angles() -> None:
    source, target, joint = (basis(10, 4, seed) for seed in range(3))
    expected = []
    for count in range(1, 5):
        alpha = linalg.subspace_angles(source[:, :count], joint[:, :count]).max()
        beta = linalg.subspace_angles(target[:, :count], joint[:, :count]).max()
        expected.append((np.sin(alpha) + np.sin(beta)) / 2)
    np.testing.assert_allclose(subspace_disagreement(source, target, joint), expected, atol=1e-7)


def test_the_dimension_is_chosen_where_disagreement_is_reached() -> None:
    source, target = domains(d=12)
    aligner = GFK(disagreement=0.6).fit(source, None, target)
    joint = np.concatenate([source - source.mean(0), target - target.mean(0)])
    axes = [linalg.svd(rows - rows.mean(0))[2][:6].T for rows in (source, target, joint)]
    measures = subspace_disagreement(*axes)
    assert len(measures) == 6
    first = int(np.argmax(measures >= 0.6)) + 1
    assert measures[first - 1] >= 0.6
    assert aligner.num_components_ == first
    np.testing.assert_allclose(aligner.disagreement_, measures[:first], atol=1e-7)
    assert GFK(disagreement=1.0).fit(source, None, target).num_components_ == 6  # never reached: half the features


@pytest.mark.parametrize("kind", [SubspaceAlignment, GFK])
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 1.0, 50.0]))
@settings(max_examples=8, deadline=None)
def test_origin_unit_and_row_order_do_not_matter(kind: Any, seed: int, scale: float) -> None:
    source, target = domains(seed)
    moved, kept = both(kind(3), source, target)
    again = both(kind(3), scale * source + 3.0, scale * target + 3.0)
    # axes keep their signs but for ties, inner products always
    np.testing.assert_allclose(again[0] @ again[1].T, scale**2 * moved @ kept.T, rtol=1e-6, atol=1e-6 * scale**2)
    order = np.random.default_rng(seed).permutation(len(source))
    np.testing.assert_allclose(both(kind(3), source[order], target)[0] @ kept.T, moved[order] @ kept.T, atol=1e-6)


@pytest.mark.parametrize("kind", [SubspaceAlignment, GFK])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=8, deadline=None)
def test_identical_domains_keep_the_distances_of_their_subspace(kind: Any, seed: int) -> None:
    source = domains(seed)[0]
    moved, kept = both(kind(3), source, source.copy())
    np.testing.assert_allclose(moved, kept, atol=1e-6)
    projected = PCA(3).fit_transform(source)
    np.testing.assert_allclose(moved @ moved.T, projected @ projected.T, atol=1e-6)


PARAMETERS: list[tuple[Any, dict[str, Any]]] = [
    (SubspaceAlignment, {"num_components": 2, "match_mean": False}),
    (GFK, {"num_components": 1, "disagreement": 0.3, "match_mean": False}),
]


@pytest.mark.parametrize(("kind", "others"), PARAMETERS)
def test_no_parameter_is_dead(kind: Any, others: dict[str, Any]) -> None:
    assert set(others) == set(kind().get_params())
    plain = both(kind(), *domains(d=12))
    for name, value in others.items():
        changed = both(kind(**{name: value}), *domains(d=12))
        assert np.abs(changed[0] @ changed[1].T - plain[0] @ plain[1].T).max() > 1e-3, name


@pytest.mark.parametrize("kind", [SubspaceAlignment, GFK])
def test_bad_settings_and_flat_domains_are_refused(kind: Any) -> None:
    source, target = domains()
    for bad in (0, 2.5, True):
        with pytest.raises(ConfigError, match="num_components must be a whole number of at least 1"):
            kind(bad).fit(source, None, target)
    with pytest.raises(DomainError, match="rows of a domain are all the same"):
        kind(2).fit(source, None, np.ones((5, 8)))
    with pytest.raises(ConfigError, match="disagreement must be above 0"):
        GFK(disagreement=0.0).fit(source, None, target)


def test_more_components_than_directions_give_what_there_is() -> None:
    assert both(SubspaceAlignment(30), *domains(n=5, m=30))[0].shape == (5, 4)
    assert both(GFK(30), *domains(n=5, m=30))[0].shape == (5, 8)
