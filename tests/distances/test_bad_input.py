"""What no measure can compare is refused in words; what merely looks hard comes out right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from headstart.core.errors import ConfigError, DataError, DomainError, HeadstartError, ShapeError
from headstart.distances import (
    MEASURES,
    coral_distance,
    energy_distance,
    exact_wasserstein,
    gaussian_frechet_distance,
    inspect_gap,
    js_divergence,
    kernel_cka,
    kl_divergence,
    label_js_divergence,
    linear_cka,
    linear_discrepancy,
    linear_time_mmd,
    max_sliced_wasserstein,
    measure,
    mk_mmd,
    novelty_of_rows,
    proxy_a_distance,
    sinkhorn_divergence,
    sliced_wasserstein,
    wasserstein_1d,
)

DISTANCES: dict[str, Callable[..., Any]] = {
    "mk_mmd": mk_mmd,
    "linear_time_mmd": linear_time_mmd,
    "coral_distance": coral_distance,
    "energy_distance": energy_distance,
    "gaussian_frechet_distance": gaussian_frechet_distance,
    "linear_discrepancy": linear_discrepancy,
    "sliced_wasserstein": sliced_wasserstein,
    "max_sliced_wasserstein": max_sliced_wasserstein,
    "sinkhorn_divergence": sinkhorn_divergence,
    "exact_wasserstein": exact_wasserstein,
    "kl_divergence": kl_divergence,
    "js_divergence": js_divergence,
    "proxy_a_distance": proxy_a_distance,
}
ROWS = np.random.default_rng(0).normal(size=(24, 3))


@pytest.fixture(params=list(DISTANCES))
def distance(request: pytest.FixtureRequest) -> Callable[..., Any]:
    if request.param == "exact_wasserstein":
        pytest.importorskip("ot")
    return DISTANCES[request.param]


def test_different_widths_name_both(distance: Callable[..., Any]) -> None:
    with pytest.raises(ShapeError, match=r"source has 3 features but target has 2"):
        distance(ROWS, ROWS[:, :2])


def test_an_empty_domain_is_refused(distance: Callable[..., Any]) -> None:
    with pytest.raises(ShapeError, match=r"target needs at least"):
        distance(ROWS, ROWS[:0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_named(distance: Callable[..., Any], bad: float) -> None:
    broken = ROWS.copy()
    broken[7, 1] = broken[9, 2] = bad
    with pytest.raises(DomainError, match=r"target has NaN or infinity in 2 .* first is row 7"):
        distance(ROWS, broken)


def test_sparse_rows_are_refused_in_words(distance: Callable[..., Any]) -> None:
    with pytest.raises(DomainError, match="sparse"):
        distance(sparse.csr_matrix(ROWS), ROWS)


def test_text_and_mixed_libraries_are_refused(distance: Callable[..., Any]) -> None:
    with pytest.raises(DomainError, match="real numbers"):
        distance(np.array([["a", "b"]] * 6), np.array([["a", "b"]] * 6))
    with pytest.raises(DomainError, match="one domain is an array and the other a tensor"):
        distance(ROWS, torch.from_numpy(ROWS))


def test_constant_features_change_nothing_but_the_width(distance: Callable[..., Any]) -> None:
    target = ROWS * [1.0, 2.0, 1.0] + 0.5
    wide = [np.column_stack([rows, np.full(len(rows), 1e3)]) for rows in (ROWS, target)]
    value, widened = distance(ROWS, target), distance(*wide)
    if distance is coral_distance:
        widened *= 16 / 9
    if distance in (
        sliced_wasserstein,
        linear_discrepancy,
    ):  # other directions; a second moment that grew in both alike
        assert np.isfinite(widened)
    else:
        assert widened == pytest.approx(value, rel=1e-4 if distance is max_sliced_wasserstein else 1e-6)


def test_domains_without_any_spread(distance: Callable[..., Any]) -> None:
    same = np.full((12, 3), 7.0)
    if distance is proxy_a_distance:
        with pytest.raises(DomainError, match="different rows"):
            distance(same, same)
        return
    assert distance(same, same) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scales_of_a_hundred_million_apart(distance: Callable[..., Any], dtype: type) -> None:
    scale = np.array([1e8, 1.0, 1e-8])
    source, target = (ROWS * scale).astype(dtype), ((ROWS + np.array([1.0, 0.0, 0.0])) * scale).astype(dtype)
    value = distance(source, target)
    assert np.isfinite(value)
    reference = distance(source.astype(np.float64), target.astype(np.float64))
    slack = 1e-2 if distance in (max_sliced_wasserstein, coral_distance) else 2e-3
    if distance is not coral_distance:  # a shift of the mean: the covariances agree, what remains is rounding
        assert value == pytest.approx(reference, rel=slack, abs=1e-4)


def test_duplicated_rows_in_float32_are_no_distance_apart(distance: Callable[..., Any]) -> None:
    rows = np.repeat((ROWS * 100 + 5000).astype(np.float32), 3, axis=0)
    shuffled = rows[np.random.default_rng(0).permutation(len(rows))]
    if distance in (kl_divergence, js_divergence, proxy_a_distance, linear_discrepancy):
        assert np.isfinite(distance(rows, shuffled))
    elif distance in (mk_mmd, linear_time_mmd):
        assert abs(distance(rows, shuffled)) < 0.5
    elif distance is coral_distance:
        assert distance(rows, shuffled) < 1e-4 * np.square(np.cov(rows.T)).sum() / 36
    else:
        assert distance(rows, shuffled) < 1e-2


def test_whole_numbers_and_lists_are_taken() -> None:
    assert coral_distance([[0, 0], [2, 0]], [[0, 0], [0, 0]]) == 0.25
    assert energy_distance(np.array([[True], [False]]), np.array([[True], [False]])) == 0.0


@pytest.mark.parametrize("call", [
    lambda: mk_mmd(ROWS, ROWS, factors=[0.0]),
    lambda: mk_mmd(ROWS, ROWS, variances=[]),
    lambda: mk_mmd(ROWS, ROWS, block_rows=0),
    lambda: energy_distance(ROWS, ROWS, block_rows=0),
    lambda: exact_wasserstein(ROWS, ROWS, order=3),
    lambda: sliced_wasserstein(ROWS, ROWS, num_directions=0),
    lambda: max_sliced_wasserstein(ROWS, ROWS, num_steps=0),
    lambda: wasserstein_1d(ROWS, ROWS),
    lambda: sinkhorn_divergence(ROWS, ROWS, epsilon=0.0),
    lambda: kl_divergence(ROWS, ROWS, estimator="gausian"),
    lambda: kl_divergence(ROWS, ROWS, num_neighbours=0),
    lambda: kernel_cka(ROWS, ROWS, factor=-1.0),
    lambda: proxy_a_distance(ROWS, ROWS, num_folds=1),
    lambda: novelty_of_rows(ROWS, ROWS, metric="euclid"),
    lambda: novelty_of_rows(ROWS[:3], ROWS),
    lambda: measure("mmd", ROWS, ROWS),
    lambda: measure("energy", ROWS, ROWS, num_permutations=0),
])  # fmt: skip
def test_options_that_break_their_rule(call: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError):
        call()


def test_an_unknown_measure_is_answered_with_the_near_name() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'coral'"):
        measure("corall", ROWS, ROWS)
    with pytest.raises(ConfigError, match="Did you mean 'gaussian'"):
        js_divergence(ROWS, ROWS, estimator="gausian")


def test_a_representation_without_spread_cannot_align() -> None:
    for cka in (linear_cka, kernel_cka):
        with pytest.raises(DomainError, match="same for all"):
            cka(ROWS, np.ones((24, 2)))
        with pytest.raises(ShapeError, match="24 rows"):
            cka(ROWS, ROWS[:5])


def test_too_many_pairs_for_the_exact_distance() -> None:
    rows = np.zeros((8000, 1))
    with pytest.raises(DomainError, match="sliced_wasserstein"):
        exact_wasserstein(rows, rows)


def test_singular_covariances_need_a_regularisation() -> None:
    with pytest.raises(DomainError, match="regularisation"):
        kl_divergence(ROWS[:3], ROWS[:3] + 1, regularisation=0.0)
    assert np.isfinite(kl_divergence(ROWS[:3], ROWS[:3] + 1))


def test_labels_must_be_there_and_of_one_type() -> None:
    with pytest.raises(DataError, match="missing"):
        label_js_divergence([0.0, np.nan], [0.0, 1.0])
    with pytest.raises(DataError, match="one type"):
        label_js_divergence([0, 1], ["0", "1"])
    with pytest.raises(DataError, match="no labels"):
        label_js_divergence([], [1])


@pytest.mark.parametrize("name", [name for name, entry in MEASURES.items() if entry.takes == "domains"])
def test_every_measure_takes_few_rows_and_equal_domains(name: str) -> None:
    if MEASURES[name].needs:
        pytest.importorskip(MEASURES[name].needs)
    random = np.random.default_rng(1)
    found = measure(
        name, random.normal(size=(13, 5)), random.normal(size=(12, 5)), num_permutations=9, num_half_samples=9
    )
    assert np.isfinite(found.value) and 0 < (found.p_value or 1) <= 1
    with pytest.raises(HeadstartError):
        measure(name, ROWS[:2], ROWS[:2])


def test_labels_that_do_not_fit_the_rows() -> None:
    with pytest.raises(DomainError, match="24 rows but 3 labels"):
        inspect_gap(ROWS, ROWS, source_labels_n=[0, 1, 1])
