"""Permutations, half samples and the table of measures: right sizes under the null, power beyond it, intervals that cover."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from headstart.core.errors import ConfigError, ShapeError
from headstart.distances import (
    MEASURES,
    Measurement,
    energy_distance,
    linear_cka,
    measure,
    measure_domains,
    mk_mmd,
    pair_matrix_test,
    permutation_test,
)
from headstart.distances.mmd import mean_kernel
from headstart.distances.pairs import squared_distances
from headstart.distances.permutation import (
    half_samples,
    interval_of_half_samples,
    pair_matrix_half_samples,
    pair_matrix_statistics,
    permutation_p_value,
)

DOMAIN_MEASURES = [name for name, entry in MEASURES.items() if entry.takes == "domains"]


def test_the_p_value_counts_the_observed_deal_and_ties() -> None:
    assert permutation_p_value(1.0, [0.0, 1.0, 1.0 - 1e-15, 2.0]) == pytest.approx(4 / 5)
    assert permutation_p_value(np.inf, [np.inf, 0.0, 0.0]) == 0.5
    assert permutation_p_value(1.0, [np.inf, 0.0, 0.0]) == 0.5


def test_permutations_draw_from_every_deal() -> None:
    """With 3 + 3 rows there are 20 deals; the p-value tends to the share of them as far apart."""
    rows = np.array([0.0, 1.0, 5.0, 6.0, 7.0, 9.0])
    every = [abs(rows[list(c)].mean() - np.delete(rows, list(c)).mean()) for c in itertools.combinations(range(6), 3)]
    exact = np.mean(np.array(every) >= every[0] - 1e-12)
    test = permutation_test(
        lambda a, b: float(abs(rows[a].mean() - rows[b].mean())), 3, 3, num_permutations=4000, seed=1
    )
    assert test.value == pytest.approx(every[0])
    assert test.p_value == pytest.approx(exact, abs=0.02)
    assert set(np.round(test.null_b, 9)) == set(np.round(every, 9))


@pytest.mark.parametrize("unbiased", [True, False])
def test_one_matrix_gives_what_recomputing_gives(unbiased: bool) -> None:
    random = np.random.default_rng(0)
    pooled = random.normal(size=(17, 3))
    kernel = mean_kernel(np, squared_distances(np, pooled, pooled), [4.0, 1.0])
    chosen = np.zeros((17, 5))
    for number in range(5):
        chosen[random.permutation(17)[:7], number] = 1
    values = pair_matrix_statistics(kernel, chosen, 1 - chosen, unbiased=unbiased)
    for number in range(5):
        mine = chosen[:, number] == 1
        twin = mk_mmd(pooled[mine], pooled[~mine], variances=[4.0, 1.0], unbiased=unbiased)
        assert values[number] == pytest.approx(twin, rel=1e-9)
    distances = -np.sqrt(squared_distances(np, pooled, pooled))
    test = pair_matrix_test(distances, 7, unbiased=False, num_permutations=3)
    assert test.value == pytest.approx(energy_distance(pooled[:7], pooled[7:]), rel=1e-9)


def test_matrix_and_index_permutations_are_the_same_deals() -> None:
    pooled = np.random.default_rng(0).normal(size=(20, 2))
    distances = -np.sqrt(squared_distances(np, pooled, pooled))
    by_matrix = pair_matrix_test(distances, 8, unbiased=False, num_permutations=30, seed=4)
    by_rows = permutation_test(
        lambda a, b: float(energy_distance(pooled[a], pooled[b])), 8, 12, num_permutations=30, seed=4
    )
    assert by_matrix.p_value == by_rows.p_value
    assert by_matrix.null_b == pytest.approx(by_rows.null_b, rel=1e-8)
    halves = half_samples(lambda a, b: float(energy_distance(pooled[a], pooled[b])), 8, 12, num_samples=5, seed=2)
    same = pair_matrix_half_samples(distances, 8, unbiased=False, num_samples=5, seed=2)
    assert same == pytest.approx(halves, rel=1e-8)


def test_half_samples_spread_as_the_statistic_does() -> None:
    """For a mean the spread is known: the root of 1/n + 1/m."""
    rows = np.random.default_rng(0).normal(size=500)
    gaps = half_samples(lambda a, b: float(rows[a].mean() - rows[b].mean()), 300, 200, num_samples=2000)
    own = np.sqrt(rows[:300].var() / 300 + rows[300:].var() / 200)
    assert gaps.std() == pytest.approx(own, rel=0.08)
    low, high = interval_of_half_samples(7.0, gaps, shrink=0.5)
    assert high - low == pytest.approx(2 * 1.96 * own / 2, rel=0.1) and low < 7.0 < high


def test_draws_and_matrices_that_cannot_be() -> None:
    with pytest.raises(ConfigError):
        permutation_test(lambda a, b: 0.0, 3, 0)
    with pytest.raises(ConfigError):
        half_samples(lambda a, b: 0.0, 3, 3, num_samples=0)
    with pytest.raises(ShapeError, match="every pair"):
        pair_matrix_test(np.zeros((3, 4)), 2)


@pytest.mark.parametrize("name", DOMAIN_MEASURES)
def test_every_measure_finds_a_clear_shift_and_repeats_itself(name: str) -> None:
    if MEASURES[name].needs:
        pytest.importorskip(MEASURES[name].needs)
    random = np.random.default_rng(0)
    source, target = random.normal(size=(40, 3)), 3 * random.normal(size=(30, 3)) + 1.5
    options = {"num_permutations": 24, "num_half_samples": 12}
    found = measure(name, source, target, **options)
    assert found == measure(name, source, target, **options)
    assert isinstance(found, Measurement) and found.name == name and found.unit and found.meaning
    assert found.p_value is not None and found.p_value <= 0.04
    assert found.low < found.value < found.high


@pytest.mark.parametrize("name", DOMAIN_MEASURES)
def test_seeds_and_rows_resampled_change_what_they_should(name: str) -> None:
    if MEASURES[name].needs:
        pytest.importorskip(MEASURES[name].needs)
    random = np.random.default_rng(0)
    source, target = random.normal(size=(40, 3)), random.normal(size=(40, 3)) + 0.5
    options = {"num_permutations": 5, "num_half_samples": 9}
    one = measure(name, source, target, **options)
    if name in ("proxy-a", "linear-mmd"):
        assert measure(name, source, target, seed=1, **options) != one
        return
    few = measure(name, source, target, resampled_rows=20, **options)
    assert few.value == one.value and (few.low, few.high) != (one.low, one.high) and "20 + 20 rows" in few.note
    assert measure(name, source, target, seed=1, **options).low != one.low


@pytest.mark.parametrize(
    "name", ["mk-mmd", "energy", "coral", "sliced-wasserstein", "frechet", "linear-mmd", "proxy-a"]
)
def test_p_values_of_equal_domains_are_rarely_small(name: str) -> None:
    small = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        source, target = random.normal(size=(40, 3)), random.normal(size=(30, 3))
        found = measure(name, source, target, num_permutations=39, num_half_samples=1, seed=seed)
        small.append((found.p_value or 0.0) <= 0.1)
    assert 0 < np.mean(small) <= 0.25  # about 0.1; 40 draws leave 0.05 to 0.2


@pytest.mark.golden
def test_intervals_cover_the_truth() -> None:
    """Energy distance of two normals one deviation apart, known from a large sample."""
    random = np.random.default_rng(99)
    truth = energy_distance(random.normal(size=(4000, 1)), random.normal(size=(4000, 1)) + 1)
    covered = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        found = measure("energy", random.normal(size=(150, 1)), random.normal(size=(150, 1)) + 1, num_permutations=1)
        covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) >= 0.8


@pytest.mark.golden
def test_a_value_from_more_rows_than_were_halved_has_a_narrower_interval() -> None:
    random = np.random.default_rng(0)
    source, target = random.normal(size=(2000, 2)), random.normal(size=(2000, 2)) + 1
    whole = measure("sliced-wasserstein", source, target, resampled_rows=2000, num_permutations=1)
    part = measure("sliced-wasserstein", source, target, resampled_rows=200, num_permutations=1)
    assert part.value == whole.value
    assert part.high - part.low == pytest.approx(whole.high - whole.low, rel=0.35)


def test_labels_and_representations_have_nulls_of_their_own() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    same = measure("label-js", labels, random.integers(0, 3, 150), num_permutations=99)
    other = measure("label-js", labels, random.choice(3, 150, p=[0.7, 0.2, 0.1]), num_permutations=99)
    assert other.p_value == 0.01 and same.p_value is not None and same.p_value > 0.05
    assert measure("label-kl", ["a", "b", "b"], ["a", "b", "c"], num_permutations=9).value == pytest.approx(
        np.log(1 / 3 / (1 / 3)) / 3 + 2 / 3 * np.log(2)
    )
    rows = random.normal(size=(60, 4))
    related = measure("linear-cka", rows, rows @ random.normal(size=(4, 5)), num_permutations=99)
    unrelated = measure("kernel-cka", rows, random.normal(size=(60, 5)), num_permutations=99)
    assert related.p_value == 0.01 and unrelated.p_value is not None and unrelated.p_value > 0.05
    assert related.value == pytest.approx(linear_cka(rows, rows @ np.eye(4)), rel=0.6)
    assert "40 of 60 rows" in measure("linear-cka", rows, rows, resampled_rows=40, num_permutations=1).note


@pytest.mark.golden
def test_all_measures_of_two_domains() -> None:
    random = np.random.default_rng(0)
    source, target = random.normal(size=(20, 2)), random.normal(size=(20, 2))
    names = [found.name for found in measure_domains(source, target, num_permutations=3)]
    assert {"mk-mmd", "coral", "proxy-a", "kl-neighbours"} <= set(names) <= set(DOMAIN_MEASURES)
    fewer = [found.name for found in measure_domains(source[:8], target, num_permutations=3)]
    assert set(names) - set(fewer) == {"kl-neighbours", "js-neighbours"}


def test_many_features_are_rotated_into_few_without_changing_a_null() -> None:
    random = np.random.default_rng(0)
    source, target = random.normal(size=(12, 40)), random.normal(size=(12, 40))
    by_hand = permutation_test(
        lambda a, b: float(energy_distance(np.concatenate([source, target])[a], np.concatenate([source, target])[b])),
        12, 12, num_permutations=20,
    )  # fmt: skip
    assert measure("energy", source, target, num_permutations=20).p_value == by_hand.p_value
