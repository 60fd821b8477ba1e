"""Every distance against a literal float64 twin, a second library where it is right, and its value on tensors."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from scipy.spatial.distance import cdist

from headstart.distances import (
    coral_distance,
    energy_distance,
    exact_wasserstein,
    gaussian_frechet_distance,
    js_divergence,
    kernel_cka,
    kl_divergence,
    label_js_divergence,
    label_kl_divergence,
    linear_cka,
    linear_discrepancy,
    linear_discrepancy_direction,
    linear_time_mmd,
    linear_time_mmd_error,
    max_sliced_direction,
    max_sliced_wasserstein,
    mk_mmd,
    sinkhorn_divergence,
    sliced_wasserstein,
    wasserstein_1d,
)
from headstart.distances.mmd import FACTORS

RANDOM = np.random.default_rng(0)
SOURCE = RANDOM.normal(size=(30, 4))
TARGET = RANDOM.normal(size=(41, 4)) @ np.diag([1.0, 2.0, 1.0, 0.5]) + 0.4


def kernel_twin(x: np.ndarray, y: np.ndarray, variances: list[float]) -> float:
    gap = ((x - y) ** 2).sum()
    return float(np.mean([np.exp(-gap / (2 * variance)) for variance in variances]))


def median_twin(source: np.ndarray, target: np.ndarray) -> float:
    pooled = np.concatenate([source, target])
    return float(np.median([((a - b) ** 2).sum() for a, b in itertools.combinations(pooled, 2)]))


def mmd_twin(source: np.ndarray, target: np.ndarray, variances: list[float], unbiased: bool) -> float:
    def within(rows: np.ndarray) -> float:
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j or not unbiased]
        return float(np.mean([kernel_twin(rows[i], rows[j], variances) for i, j in pairs]))

    between = np.mean([kernel_twin(x, y, variances) for x in source for y in target])
    return within(source) + within(target) - 2 * float(between)


@pytest.mark.parametrize("unbiased", [True, False])
def test_mk_mmd_is_its_definition_with_the_median_of_all_pairs(unbiased: bool) -> None:
    variances = [factor * median_twin(SOURCE, TARGET) for factor in FACTORS]
    twin = mmd_twin(SOURCE, TARGET, variances, unbiased)
    assert mk_mmd(SOURCE, TARGET, unbiased=unbiased) == pytest.approx(twin, rel=1e-10)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("block_rows", [1, 7, 30, 5000])
def test_blocks_do_not_change_the_value(unbiased: bool, block_rows: int) -> None:
    options: dict[str, Any] = {"variances": [0.3, 2.0, 5.0], "unbiased": unbiased}
    whole = mmd_twin(SOURCE, TARGET, options["variances"], unbiased)
    assert mk_mmd(SOURCE, TARGET, block_rows=block_rows, **options) == pytest.approx(whole, rel=1e-10)
    assert energy_distance(SOURCE, TARGET, block_rows=block_rows) == pytest.approx(
        energy_twin(SOURCE, TARGET), rel=1e-10
    )


def test_factors_and_variances_speak_of_the_same_kernels() -> None:
    median = median_twin(SOURCE, TARGET)
    assert mk_mmd(SOURCE, TARGET, factors=[0.7]) == pytest.approx(mk_mmd(SOURCE, TARGET, variances=[0.7 * median]))
    assert mk_mmd(SOURCE, TARGET, factors=[0.7]) != pytest.approx(mk_mmd(SOURCE, TARGET, factors=[1.4]), rel=1e-3)


def test_float32_keeps_the_digits_of_a_small_mmd() -> None:
    random = np.random.default_rng(3)
    source, target = (
        random.normal(size=(128, 256)).astype(np.float32),
        random.normal(size=(128, 256)).astype(np.float32),
    )
    exact = mk_mmd(source.astype(np.float64), target.astype(np.float64), variances=[100.0, 200.0])
    assert mk_mmd(source, target, variances=[100.0, 200.0]) == pytest.approx(exact, abs=2e-8)


def test_linear_time_mmd_is_a_mean_over_disjoint_pairs() -> None:
    # one pair: h is symmetric in the two rows, so that the drawn order does not matter
    source, target, variances = SOURCE[:2], TARGET[:2], [1.0, 3.0]
    twin = (
        kernel_twin(source[0], source[1], variances)
        + kernel_twin(target[0], target[1], variances)
        - kernel_twin(source[0], target[1], variances)
        - kernel_twin(source[1], target[0], variances)
    )
    other = twin + sum(
        kernel_twin(source[i], target[1 - i], variances) - kernel_twin(source[i], target[i], variances)
        for i in range(2)
    )
    value = linear_time_mmd(source, target, variances=variances)
    assert min(abs(value - twin), abs(value - other)) < 1e-12


@pytest.mark.golden
def test_linear_time_mmd_estimates_what_mk_mmd_does_and_knows_its_error() -> None:
    random = np.random.default_rng(1)
    source, target = random.normal(size=(1500, 3)), random.normal(size=(1500, 3)) + 0.5
    quadratic = mk_mmd(source, target, variances=[1.0, 4.0])
    found = [linear_time_mmd_error(source, target, variances=[1.0, 4.0], seed=seed) for seed in range(30)]
    values, errors = np.array(found).T
    assert abs(values.mean() - quadratic) < 4 * values.std() / 30**0.5
    assert values.std() == pytest.approx(errors.mean(), rel=0.4)
    assert linear_time_mmd(source, target, variances=[1.0, 4.0], seed=3) == pytest.approx(values[3])


def test_linear_time_mmd_is_not_fooled_by_sorted_rows() -> None:
    rows = np.random.default_rng(2).normal(size=(2000, 1))
    source, target = np.sort(rows[:1000], axis=0), np.sort(rows[1000:], axis=0)
    value, error = linear_time_mmd_error(source, target)
    assert abs(value) < 3.5 * error


def energy_twin(source: np.ndarray, target: np.ndarray) -> float:
    return float(2 * cdist(source, target).mean() - cdist(source, source).mean() - cdist(target, target).mean())


def test_energy_distance_in_one_dimension_is_twice_the_squared_cramer_distance() -> None:
    twin = stats.energy_distance(SOURCE[:, 0], TARGET[:, 0]) ** 2  # scipy returns the root
    assert energy_distance(SOURCE[:, :1], TARGET[:, :1]) == pytest.approx(twin, rel=1e-10)


def test_coral_distance_is_the_gap_of_covariances() -> None:
    twin = np.square(np.cov(SOURCE.T) - np.cov(TARGET.T)).sum() / (4 * 4**2)
    assert coral_distance(SOURCE, TARGET) == pytest.approx(twin, rel=1e-12)


def test_many_blocks_of_rows_give_the_same_covariance() -> None:
    random = np.random.default_rng(0)
    source = (random.normal(size=(20_000, 3)) + 1e4).astype(np.float32)
    target = (2 * random.normal(size=(17_000, 3)) + 1e4).astype(np.float32)
    twin = np.square(np.cov(source.T.astype(np.float64)) - np.cov(target.T.astype(np.float64))).sum() / 36
    assert coral_distance(source, target) == pytest.approx(twin, rel=1e-3)


def test_gaussian_frechet_distance_is_its_formula() -> None:
    C, D = np.cov(SOURCE.T), np.cov(TARGET.T)
    half = linalg.sqrtm(C)
    cross = linalg.sqrtm(half @ D @ half).real
    twin = np.square(SOURCE.mean(0) - TARGET.mean(0)).sum() + np.trace(C + D - 2 * cross)
    assert gaussian_frechet_distance(SOURCE, TARGET) ** 2 == pytest.approx(twin, rel=1e-9)


def test_gaussian_frechet_distance_with_fewer_rows_than_features() -> None:
    random = np.random.default_rng(0)
    source, target = random.normal(size=(5, 12)), random.normal(size=(9, 12)) + 1
    C, D = np.cov(source.T), np.cov(target.T)
    values, vectors = np.linalg.eigh(C)
    half = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(half @ D @ half).clip(0)).sum()
    twin = np.square(source.mean(0) - target.mean(0)).sum() + np.trace(C + D) - 2 * cross
    assert gaussian_frechet_distance(source, target) ** 2 == pytest.approx(twin, rel=1e-6)
    assert gaussian_frechet_distance(source, source) == 0.0


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("sizes", [(30, 41), (7, 7), (1, 5), (12, 8)])
def test_wasserstein_1d_is_the_integral_over_quantiles(order: int, sizes: tuple[int, int]) -> None:
    source, target = np.sort(SOURCE[: sizes[0], 0]), np.sort(TARGET[: sizes[1], 0])
    level = (np.arange(sizes[0] * sizes[1]) + 0.5) / (sizes[0] * sizes[1])
    gap = source[(level * sizes[0]).astype(int)] - target[(level * sizes[1]).astype(int)]
    twin = np.mean(np.abs(gap) ** order) ** (1 / order)
    assert wasserstein_1d(SOURCE[: sizes[0], 0], TARGET[: sizes[1], 0], order=order) == pytest.approx(twin, rel=1e-12)
    if order == 1:
        assert twin == pytest.approx(stats.wasserstein_distance(source, target), rel=1e-9)


@pytest.mark.golden
@pytest.mark.parametrize("order", [1, 2])
def test_sliced_wasserstein_averages_one_dimensional_distances(order: int) -> None:
    random = np.random.default_rng(5)
    directions = random.normal(size=(4000, 4))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    powers = [wasserstein_1d(SOURCE @ u, TARGET @ u, order=order) ** order for u in directions]
    value = sliced_wasserstein(SOURCE, TARGET, order=order, num_directions=4000)
    assert value == pytest.approx(np.mean(powers) ** (1 / order), rel=0.03)


def test_max_sliced_wasserstein_is_above_every_direction() -> None:
    directions = np.random.default_rng(0).normal(size=(500, 4))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for order in (1, 2):
        best = max(wasserstein_1d(SOURCE @ u, TARGET @ u, order=order) for u in directions)
        found = max_sliced_wasserstein(SOURCE, TARGET, order=order)
        assert found >= best - 1e-9
        u = max_sliced_direction(SOURCE, TARGET, order=order)
        assert wasserstein_1d(SOURCE @ u, TARGET @ u, order=order) == pytest.approx(found, rel=1e-9)
    assert found >= max_sliced_wasserstein(SOURCE, TARGET, num_starts=1, num_steps=1)


@pytest.mark.parametrize("order", [1, 2])
def test_exact_wasserstein_is_the_best_of_all_matchings(order: int) -> None:
    pytest.importorskip("ot")
    source, target = SOURCE[:5], TARGET[:5]
    costs = cdist(source, target) ** order
    twin = min(costs[np.arange(5), list(match)].mean() for match in itertools.permutations(range(5)))
    assert exact_wasserstein(source, target, order=order) == pytest.approx(twin ** (1 / order), rel=1e-10)
    one = exact_wasserstein(SOURCE[:, :1], TARGET[:, :1], order=order)
    assert one == pytest.approx(wasserstein_1d(SOURCE[:, 0], TARGET[:, 0], order=order), rel=1e-9)


def sinkhorn_twin(costs: np.ndarray, epsilon: float) -> float:
    kernel = np.exp(-costs / epsilon)
    a, b = np.full(len(costs), 1 / len(costs)), np.full(costs.shape[1], 1 / costs.shape[1])
    v = np.ones(len(b))
    for _ in range(20_000):
        u = a / (kernel @ v)
        v = b / (kernel.T @ u)
    plan = u[:, None] * kernel * v
    return float((plan * costs).sum() + epsilon * (plan * np.log(plan / np.outer(a, b))).sum())


@pytest.mark.golden
@pytest.mark.parametrize("order", [1, 2])
def test_sinkhorn_divergence_is_debiased_entropic_transport(order: int) -> None:
    costs = {key: cdist(*pair) ** order for key, pair in
             {"st": (SOURCE, TARGET), "ss": (SOURCE, SOURCE), "tt": (TARGET, TARGET)}.items()}  # fmt: skip
    for options, epsilon in (({"epsilon": 0.1}, 0.1 * costs["st"].mean()), ({"epsilon": 0.8, "normalise": False}, 0.8)):
        twin = sinkhorn_twin(costs["st"], epsilon) - sum(sinkhorn_twin(costs[key], epsilon) for key in ("ss", "tt")) / 2
        assert sinkhorn_divergence(SOURCE, TARGET, order=order, **options) == pytest.approx(twin, rel=1e-5)


def test_sinkhorn_divergence_lies_between_its_limits() -> None:
    pytest.importorskip("ot")
    small = sinkhorn_divergence(SOURCE, TARGET, epsilon=5e-3, max_steps=3000)
    assert small == pytest.approx(exact_wasserstein(SOURCE, TARGET) ** 2, rel=0.02)
    large = sinkhorn_divergence(SOURCE, TARGET, epsilon=1e4)
    assert large == pytest.approx(np.square(SOURCE.mean(0) - TARGET.mean(0)).sum(), rel=1e-2)
    assert sinkhorn_divergence(SOURCE, TARGET, max_steps=1) != pytest.approx(
        sinkhorn_divergence(SOURCE, TARGET), rel=1e-4
    )


def test_label_divergences_by_hand() -> None:
    source, target = ["a", "a", "b", "c"], ["a", "b", "b", "c"]
    assert label_kl_divergence(source, target) == pytest.approx(0.5 * np.log(2) - 0.25 * np.log(2))
    m = np.array([0.375, 0.375, 0.25])
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.5, 0.25])
    assert label_js_divergence(source, target) == pytest.approx(stats.entropy(p, m) / 2 + stats.entropy(q, m) / 2)
    assert label_kl_divergence([0, 1], [0, 0]) == np.inf
    assert label_kl_divergence([0, 0], [0, 1]) == pytest.approx(np.log(2))


def test_gaussian_kl_is_its_closed_form_and_invariant_to_linear_maps() -> None:
    C, D, gap = np.cov(SOURCE.T), np.cov(TARGET.T), TARGET.mean(0) - SOURCE.mean(0)
    inverse = np.linalg.inv(D)
    twin = (np.trace(inverse @ C) + gap @ inverse @ gap - 4 + np.log(np.linalg.det(D) / np.linalg.det(C))) / 2
    assert kl_divergence(SOURCE, TARGET, regularisation=0.0) == pytest.approx(twin, rel=1e-9)
    mixed = RANDOM.normal(size=(4, 4))
    assert kl_divergence(SOURCE @ mixed, TARGET @ mixed, regularisation=0.0) == pytest.approx(twin, rel=1e-6)
    assert kl_divergence(SOURCE, TARGET, regularisation=0.5) < 0.8 * twin


def test_density_divergences_estimate_the_truth_of_gaussians() -> None:
    random = np.random.default_rng(0)
    source, target = random.normal(size=(3000, 2)), random.normal(size=(2500, 2)) * [1.0, 2.0] + [1.0, 0.0]
    truth = (1 + 0.25 + 1 - 2 + np.log(4)) / 2
    grid = random.normal(size=(400_000, 2))
    p, q = stats.multivariate_normal([0, 0], np.eye(2)), stats.multivariate_normal([1, 0], np.diag([1, 4]))
    other = q.rvs(400_000, random_state=0)
    js = sum(
        np.log(2 * own.pdf(rows) / (p.pdf(rows) + q.pdf(rows))).mean() / 2 for own, rows in ((p, grid), (q, other))
    )
    for estimator in ("gaussian", "neighbours"):
        assert kl_divergence(source, target, estimator=estimator) == pytest.approx(truth, rel=0.08)
        assert js_divergence(source, target, estimator=estimator, num_neighbours=50) == pytest.approx(js, rel=0.08)
    few = js_divergence(source, target, estimator="neighbours", num_neighbours=2)
    assert few < 0.8 * js  # as documented: the noise of few neighbours pulls it down
    one = kl_divergence(source, target, estimator="neighbours", num_neighbours=1)
    assert one == pytest.approx(truth, rel=0.2)
    assert one != kl_divergence(source, target, estimator="neighbours")


def test_gaussian_js_is_what_rows_say_of_their_domain_and_never_below_zero() -> None:
    for seed, scale in ((7282, 1.0), (0, 1.0), (1, 1e-3)):  # by the rows' own log(2 p / (p + q)) the first was -0.0002
        random = np.random.default_rng(seed)
        num_source, num_target, width = random.integers(4, 12), random.integers(4, 12), random.integers(1, 5)
        source = scale * random.normal(size=(num_source, width))
        target = scale * (random.normal(size=(num_target, width)) * 1.5 + 0.3)
        densities = []
        for rows in (source, target):
            covariance = np.cov(rows, rowvar=False).reshape(width, width)
            densities.append(stats.multivariate_normal(rows.mean(0), covariance, allow_singular=True))
        twin = 0.0
        for rows in (source, target):
            for row in rows:
                p, q = (float(density.pdf(row)) for density in densities)
                twin += sum(w * np.log(2 * w) for w in (p / (p + q), q / (p + q))) / len(rows) / 2
        value = js_divergence(source, target, regularisation=0.0)
        assert value == pytest.approx(twin, rel=1e-6)
        assert 0 < value < np.log(2)


def test_neighbour_kl_is_the_published_estimator() -> None:
    pooled = np.concatenate(
        [SOURCE - (SOURCE.mean(0) + TARGET.mean(0)) / 2, TARGET - (SOURCE.mean(0) + TARGET.mean(0)) / 2]
    )
    deviation = np.sqrt((np.square(pooled[:30]).mean(0) + np.square(pooled[30:]).mean(0)) / 2)
    source, target = pooled[:30] / deviation, pooled[30:] / deviation
    total = 0.0
    for i, row in enumerate(source):
        rho = np.sort(np.linalg.norm(np.delete(source, i, axis=0) - row, axis=1))[2]
        nu = np.sort(np.linalg.norm(target - row, axis=1))[2]
        total += 4 * np.log(nu / rho) + np.log(41 / 29)
    assert kl_divergence(SOURCE, TARGET, estimator="neighbours", num_neighbours=3) == pytest.approx(
        total / 30, rel=1e-9
    )


def test_cka_is_its_definition() -> None:
    first, second = SOURCE, np.tanh(SOURCE @ RANDOM.normal(size=(4, 6)))
    H = np.eye(30) - 1 / 30

    def hsic(K: np.ndarray, L: np.ndarray) -> float:
        return float(np.trace(K @ H @ L @ H))

    def cka(K: np.ndarray, L: np.ndarray) -> float:
        return hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))

    assert linear_cka(first, second) == pytest.approx(cka(first @ first.T, second @ second.T), rel=1e-10)
    kernels = []
    for rows in (first, second):
        squared = cdist(rows, rows) ** 2
        kernels.append(np.exp(-squared / (2 * 0.5 * np.median(squared[np.triu_indices(30, 1)]))))
    assert kernel_cka(first, second, factor=0.5) == pytest.approx(cka(*kernels), rel=1e-9)


def test_debiased_cka_is_zero_on_average_where_the_biased_one_is_near_one() -> None:
    random = np.random.default_rng(0)
    pairs = [(random.normal(size=(20, 300)), random.normal(size=(20, 300))) for _ in range(20)]
    assert np.mean([linear_cka(*pair) for pair in pairs]) > 0.8
    assert abs(np.mean([linear_cka(*pair, debiased=True) for pair in pairs])) < 0.02
    assert abs(np.mean([kernel_cka(*pair, debiased=True) for pair in pairs])) < 0.02
    assert linear_cka(SOURCE, 2 * SOURCE + 1, debiased=True) == pytest.approx(1.0)


def test_unbiased_hsic_is_the_mean_over_quadruples() -> None:
    """Song et al.: the unbiased estimate is a mean over four different rows; here over all of them."""
    first, second = SOURCE[:6], SOURCE[:6] ** 2
    K, L = first @ first.T, second @ second.T

    def hsic(K: np.ndarray, L: np.ndarray) -> float:
        terms = [
            K[i, j] * L[i, j] + K[i, j] * L[q, r] - 2 * K[i, j] * L[i, q]
            for i, j, q, r in itertools.permutations(range(6), 4)
        ]
        return float(np.mean(terms))

    # scaling inside does not change the ratio; centring does not change the unbiased estimate
    assert linear_cka(first, second, debiased=True) == pytest.approx(
        hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L)), rel=1e-8
    )


def test_linear_discrepancy_is_the_largest_eigenvalue_and_no_direction_exceeds_it() -> None:
    gap = SOURCE.T @ SOURCE / 30 - TARGET.T @ TARGET / 41
    value = linear_discrepancy(SOURCE, TARGET)
    assert value == pytest.approx(np.abs(np.linalg.eigvalsh(gap)).max(), rel=1e-12)
    u = linear_discrepancy_direction(SOURCE, TARGET)
    assert abs(u @ gap @ u) == pytest.approx(value, rel=1e-10)
    others = RANDOM.normal(size=(4, 200))
    others /= np.linalg.norm(others, axis=0)
    assert np.abs(np.einsum("dr,de,er->r", others, gap, others)).max() <= value


DIFFERENTIABLE = {
    "mk_mmd": lambda a, b: mk_mmd(a, b, variances=[1.0, 2.0]),
    "mk_mmd_blocks": lambda a, b: mk_mmd(a, b, variances=[1.0, 2.0], block_rows=3),
    "linear_time_mmd": lambda a, b: linear_time_mmd(a, b, variances=[3.0]),
    "coral": coral_distance,
    "energy": energy_distance,
    "frechet": gaussian_frechet_distance,
    "sliced": lambda a, b: sliced_wasserstein(a, b, num_directions=8),
    "wasserstein_1d": lambda a, b: wasserstein_1d(a[:, 0], b[:, 0], order=2),
    "sinkhorn": lambda a, b: sinkhorn_divergence(a, b, epsilon=2.0, normalise=False, tolerance=1e-9, max_steps=2000),
    "discrepancy": linear_discrepancy,
    "linear_cka": lambda a, b: linear_cka(a, b[:7]),
    "kernel_cka": lambda a, b: kernel_cka(a, b[:7], factor=10.0, debiased=True),
}


@pytest.mark.parametrize("name", [name for name in DIFFERENTIABLE if name != "kernel_cka"])
def test_tensors_give_the_same_value_and_its_gradient(name: str) -> None:
    function = DIFFERENTIABLE[name]
    arrays = SOURCE[:7, :3], TARGET[:9, :3]
    tensors = [torch.tensor(rows, requires_grad=True) for rows in arrays]
    value = function(*tensors)
    assert isinstance(value, torch.Tensor) and value.shape == () and value.dtype == torch.float64
    assert value.item() == pytest.approx(function(*arrays), rel=1e-9)
    assert isinstance(function(*arrays), float)
    assert torch.autograd.gradcheck(function, tensors, rtol=1e-4, atol=1e-6)


def test_exact_wasserstein_passes_gradients_at_the_best_plan() -> None:
    pytest.importorskip("ot")
    tensors = [torch.tensor(rows, requires_grad=True) for rows in (SOURCE[:5], TARGET[:6])]
    assert torch.autograd.gradcheck(exact_wasserstein, tensors)


@pytest.mark.parametrize("name", list(DIFFERENTIABLE))
def test_equal_domains_have_finite_gradients(name: str) -> None:
    rows = torch.tensor(SOURCE[:7, :3], requires_grad=True)
    value = DIFFERENTIABLE[name](rows, rows.detach().clone())
    value.backward()
    assert torch.isfinite(rows.grad).all()


@pytest.mark.parametrize("name", list(DIFFERENTIABLE))
def test_half_precision_is_computed_in_float32(name: str) -> None:
    halves = [torch.tensor(rows).to(torch.bfloat16) for rows in (SOURCE[:7, :3], TARGET[:9, :3])]
    value = DIFFERENTIABLE[name](*halves)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(DIFFERENTIABLE[name](*[half.double().numpy() for half in halves]), rel=2e-3)
