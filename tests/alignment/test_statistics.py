"""Aligners of first and second moments against their formulas written out, POT, and what the mathematics promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from headstart.alignment import CORAL, LinearOT, MomentMatching, MongeAlignment
from headstart.alignment.gaussians import mean_and_covariance, move_rows, ridge_power, symmetric_power
from headstart.alignment.monge_alignment import gaussian_barycentre
from headstart.core.errors import ConfigError, DomainError

ALIGNERS: list[Callable[..., Any]] = [CORAL, LinearOT, MomentMatching, MongeAlignment]
WITHOUT_RIDGE = [CORAL(0.0), LinearOT(0.0), MongeAlignment(0.0)]


def domains(seed: int = 0, n: int = 40, m: int = 30, d: int = 4) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    source = draws.normal(size=(n, d)) @ draws.normal(size=(d, d)) + draws.normal(size=d)
    return source, draws.normal(size=(m, d)) @ draws.normal(size=(d, d)) - 2 * draws.normal(size=d)


def covariance(rows: np.ndarray, ridge: float = 0.0) -> np.ndarray:
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for row in rows - rows.mean(axis=0):
        total += np.outer(row, row)
    total /= len(rows) - 1
    return total + ridge * np.trace(total) / len(total) * np.eye(len(total))


def both(aligner: Any, source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    fitted = aligner.fit(source, None, target)
    return fitted.transform(source, sample_domain=np.ones(len(source))), fitted.transform(target)


def root(matrix: np.ndarray) -> np.ndarray:
    return np.real(linalg.sqrtm(matrix))


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_coral_is_its_formula(ridge: float) -> None:
    source, target = domains()
    whiten = linalg.inv(root(covariance(source, ridge)))
    expected = (source - source.mean(0)) @ whiten @ root(covariance(target, ridge)) + target.mean(0)
    moved, kept = both(CORAL(ridge), source, target)
    np.testing.assert_allclose(moved, expected, atol=1e-8)
    np.testing.assert_array_equal(kept, target)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_linear_ot_is_its_formula(ridge: float) -> None:
    source, target = domains(1)
    half = root(covariance(source, ridge))
    inverse = linalg.inv(half)
    map_dd = inverse @ root(half @ covariance(target, ridge) @ half) @ inverse
    moved, kept = both(LinearOT(ridge), source, target)
    np.testing.assert_allclose(moved, (source - source.mean(0)) @ map_dd + target.mean(0), atol=1e-8)
    np.testing.assert_array_equal(kept, target)


def test_linear_ot_is_pot_s_map() -> None:
    ot = pytest.importorskip("ot")
    source, target = domains(2)
    aligner = LinearOT(0.0).fit(source, None, target)
    map_dd, shift = ot.gaussian.bures_wasserstein_mapping(
        source.mean(0), target.mean(0), covariance(source), covariance(target)
    )
    new = np.random.default_rng(3).normal(size=(7, 4))
    np.testing.assert_allclose(
        aligner.transform(new, sample_domain=np.ones(7)), new @ map_dd + shift, rtol=1e-6, atol=1e-6
    )


def test_linear_ot_moves_rows_less_than_coral() -> None:
    source, target = domains(4)
    costs = [np.square(both(kind(0.0), source, target)[0] - source).sum() for kind in (LinearOT, CORAL)]
    assert costs[0] < costs[1]


def test_moments_are_matched_one_feature_at_a_time() -> None:
    source, target = domains(5)
    source[:, 2] = 7.0  # no spread to match
    moved, kept = both(MomentMatching(), source, target)
    for feature in (0, 1, 3):
        gain = target[:, feature].std(ddof=1) / source[:, feature].std(ddof=1)
        expected = (source[:, feature] - source[:, feature].mean()) * gain + target[:, feature].mean()
        np.testing.assert_allclose(moved[:, feature], expected)
    np.testing.assert_allclose(moved[:, 2], target[:, 2].mean())
    np.testing.assert_array_equal(kept, target)


def test_two_gaussians_meet_halfway_on_their_geodesic() -> None:
    source, target = domains(6)
    one, other = covariance(source), covariance(target)
    for share in (0.0, 0.3, 0.5, 1.0):
        centre = gaussian_barycentre(np.stack([one, other]), [1 - share, share])
        half = root(centre)
        fixed = (1 - share) * root(half @ one @ half) + share * root(half @ other @ half)
        np.testing.assert_allclose(fixed, centre, rtol=1e-7, atol=1e-9)
    # a domain that weighs nothing changes nothing: three domains are solved step by step
    thrice = gaussian_barycentre(np.stack([one, other, np.eye(4)]), [0.7, 0.3, 0.0], tolerance=1e-12)
    np.testing.assert_allclose(thrice, gaussian_barycentre(np.stack([one, other]), [0.7, 0.3]), rtol=1e-7)


def test_barycentre_of_many_satisfies_its_equation_and_is_pot_s() -> None:
    ot = pytest.importorskip("ot")
    covariances = np.stack([covariance(domains(seed)[0]) for seed in range(4)])
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    centre = gaussian_barycentre(covariances, weights, tolerance=1e-12)
    half = root(centre)
    fixed = sum(w * root(half @ c @ half) for w, c in zip(weights, covariances, strict=True))
    np.testing.assert_allclose(fixed, centre, rtol=1e-7, atol=1e-9)
    answer = ot.gaussian.bures_wasserstein_barycenter(np.zeros((4, 4)), covariances, weights, num_iter=200, eps=1e-12)
    np.testing.assert_allclose(centre, answer[1], rtol=1e-6, atol=1e-8)


def test_commuting_covariances_meet_at_the_mean_deviation() -> None:
    spreads = np.array([[1.0, 4.0], [9.0, 4.0], [25.0, 1.0]])
    centre = gaussian_barycentre(np.stack([np.diag(row) for row in spreads]))
    np.testing.assert_allclose(centre, np.diag(np.sqrt(spreads).mean(axis=0) ** 2), atol=1e-12)


def test_every_domain_gets_the_barycentre_s_moments() -> None:
    parts = [domains(seed)[0] for seed in range(3)]
    rows, numbers = np.concatenate(parts), np.repeat([5, 2, -1], 40)
    order = np.random.default_rng(0).permutation(120)
    moved = MongeAlignment(0.0).fit_transform(rows[order], sample_domain=numbers[order])
    means = [moved[numbers[order] == number].mean(axis=0) for number in (5, 2, -1)]
    spreads = [covariance(moved[numbers[order] == number]) for number in (5, 2, -1)]
    for mean, spread in zip(means, spreads, strict=True):
        np.testing.assert_allclose(mean, np.mean([part.mean(axis=0) for part in parts], axis=0), atol=1e-9)
        np.testing.assert_allclose(
            spread, gaussian_barycentre(np.stack([covariance(part) for part in parts])), rtol=1e-6
        )


def test_monge_alignment_with_all_weight_on_the_target_is_linear_ot() -> None:
    source, target = domains(7)
    moved, kept = both(MongeAlignment(0.01, target_weight=1.0), source, target)
    np.testing.assert_allclose(moved, both(LinearOT(0.01), source, target)[0], atol=1e-7)
    np.testing.assert_allclose(kept, target, atol=1e-7)


def test_monge_alignment_refuses_a_source_domain_it_never_saw() -> None:
    source, target = domains()
    aligner = MongeAlignment().fit(source, None, target)
    with pytest.raises(DomainError, match="no map for source domain 2"):
        aligner.transform(source, sample_domain=np.full(40, 2))
    with pytest.raises(DomainError, match="every source domain; domain 2 of 2 has 1"):
        MongeAlignment().fit(np.concatenate([source, target]), sample_domain=np.repeat([1, 2, -1], [39, 1, 30]))


@pytest.mark.parametrize("aligner", WITHOUT_RIDGE, ids=repr)
def test_moments_agree_afterwards(aligner: Any) -> None:
    source, target = both(aligner, *domains(8))
    np.testing.assert_allclose(source.mean(0), target.mean(0), atol=1e-9)
    np.testing.assert_allclose(covariance(source), covariance(target), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ALIGNERS)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 1.0, 50.0]))
@settings(max_examples=8, deadline=None)
def test_origin_unit_and_row_order_do_not_matter(kind: Any, seed: int, scale: float) -> None:
    source, target = domains(seed)
    moved, kept = both(kind(), source, target)
    shift = np.arange(4.0)
    for one, other in zip(both(kind(), scale * source + shift, scale * target + shift), (moved, kept), strict=True):
        np.testing.assert_allclose(one, scale * other + shift, rtol=1e-6, atol=1e-6 * scale * np.abs(kept).max())
    order = np.random.default_rng(seed).permutation(len(source))
    np.testing.assert_allclose(both(kind(), source[order], target)[0], moved[order], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", [CORAL, LinearOT, MongeAlignment])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=8, deadline=None)
def test_turning_the_axes_turns_the_answer(kind: Any, seed: int) -> None:
    source, target = domains(seed)
    turn = linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))[0]
    turned = both(kind(), source @ turn, target @ turn)
    for one, other in zip(turned, both(kind(), source, target), strict=True):
        np.testing.assert_allclose(one, other @ turn, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ALIGNERS)
@given(seed=st.integers(0, 10_000), rows=st.sampled_from([3, 40]))
@settings(max_examples=8, deadline=None)
def test_identical_domains_stay(kind: Any, seed: int, rows: int) -> None:
    source = domains(seed, n=rows)[0]
    for moved in both(kind(), source, source.copy()):
        np.testing.assert_allclose(moved, source, rtol=1e-6, atol=1e-6 * np.abs(source).max())


@pytest.mark.parametrize("aligner", WITHOUT_RIDGE, ids=repr)
def test_fewer_rows_than_features_without_ridge_stay_in_the_span(aligner: Any) -> None:
    moved, kept = both(aligner, *domains(9, n=5, m=6, d=12))
    assert np.isfinite(moved).all() and np.isfinite(kept).all()
    assert np.linalg.matrix_rank(moved - moved.mean(0), tol=1e-6) == 4


@pytest.mark.parametrize("power", [0.5, -0.5])
def test_wide_rows_need_only_the_products_between_rows(power: float) -> None:
    rows = domains(11, n=6, d=15)[0]
    rows[5] = rows[4]
    mean, powered = ridge_power(rows, power, 0.01)
    np.testing.assert_allclose(mean, rows.mean(axis=0))
    np.testing.assert_allclose(powered, symmetric_power(covariance(rows, 0.01), power), rtol=1e-8, atol=1e-9)
    np.testing.assert_array_equal(ridge_power(np.ones((3, 5)), power, 0.01)[1], np.zeros((5, 5)))


def test_rows_are_read_in_blocks() -> None:
    rows = np.random.default_rng(0).normal(size=(20_000, 3)) * [1.0, 10.0, 0.1] + 100
    mean, spread = mean_and_covariance(rows)
    np.testing.assert_allclose(mean, rows.mean(axis=0))
    np.testing.assert_allclose(spread, np.cov(rows.T), rtol=1e-10)
    map_dr = np.random.default_rng(1).normal(size=(3, 2))
    np.testing.assert_allclose(move_rows(rows, mean, map_dr, np.ones(2)), (rows - mean) @ map_dr + 1.0)


def test_a_power_leaves_flat_directions_out() -> None:
    basis = linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    flat = basis @ np.diag([4.0, 1.0, 0.0]) @ basis.T
    np.testing.assert_allclose(symmetric_power(flat, -0.5), basis @ np.diag([0.5, 1.0, 0.0]) @ basis.T, atol=1e-9)
    np.testing.assert_allclose(symmetric_power(flat, -1.0), linalg.pinvh(flat), atol=1e-9)


PARAMETERS: list[tuple[Any, dict[str, Any]]] = [
    (CORAL, {"regularisation": 0.5, "match_mean": False}),
    (LinearOT, {"regularisation": 0.5, "match_mean": False}),
    (MomentMatching, {"match_mean": False, "match_variance": False}),
    (MongeAlignment, {"regularisation": 0.5, "target_weight": 0.9}),
]


@pytest.mark.parametrize(("kind", "others"), PARAMETERS)
def test_no_parameter_is_dead(kind: Any, others: dict[str, Any]) -> None:
    assert set(others) == set(kind().get_params())
    source, target = domains(10)
    plain = both(kind(), source, target)[0]
    for name, value in others.items():
        assert np.abs(both(kind(**{name: value}), source, target)[0] - plain).max() > 1e-3, name


@pytest.mark.parametrize("kind", [CORAL, LinearOT, MongeAlignment])
@pytest.mark.parametrize("bad", [-1.0, float("nan")])
def test_a_negative_ridge_is_refused(kind: Any, bad: float) -> None:
    with pytest.raises(ConfigError, match="regularisation must be at least 0"):
        kind(bad).fit(*domains()[:1], None, domains()[1])


def test_a_weight_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ConfigError, match="target_weight must be between 0 and 1; got 2"):
        MongeAlignment(target_weight=2.0).fit(domains()[0], None, domains()[1])
