"""What the mathematics promises: order of rows, translation, rotation, scale, symmetry, zero on itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from headstart.distances import (
    coral_distance,
    energy_distance,
    gaussian_frechet_distance,
    js_divergence,
    kl_divergence,
    linear_cka,
    linear_discrepancy,
    mk_mmd,
    sinkhorn_divergence,
    sliced_wasserstein,
)

# degree: what the value is multiplied by, as a power, when features are multiplied
DISTANCES: dict[str, tuple[Callable[..., Any], int]] = {
    "mk_mmd": (lambda a, b: mk_mmd(a, b, unbiased=False), 0),
    "coral": (coral_distance, 4),
    "energy": (energy_distance, 1),
    "frechet": (gaussian_frechet_distance, 1),
    "discrepancy": (linear_discrepancy, 2),
    "sliced": (lambda a, b: sliced_wasserstein(a, b, num_directions=16), 1),
    "sinkhorn": (lambda a, b: sinkhorn_divergence(a, b, epsilon=0.5, tolerance=1e-9), 2),
    "kl": (kl_divergence, 0),
    "js": (js_divergence, 0),
}


def domains(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    num_source, num_target, width = random.integers(4, 12), random.integers(4, 12), random.integers(1, 5)
    return random.normal(size=(num_source, width)), random.normal(size=(num_target, width)) * 1.5 + 0.3


@pytest.mark.parametrize("name", list(DISTANCES))
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_order_symmetry_scale_and_zero(name: str, seed: int) -> None:
    distance, degree = DISTANCES[name]
    source, target = domains(seed)
    value = distance(source, target)
    random = np.random.default_rng(seed + 1)
    close = {"rel": 1e-6, "abs": 1e-9}
    assert distance(random.permutation(source), random.permutation(target)) == pytest.approx(value, **close)
    assert distance(3 * source, 3 * target) == pytest.approx(3.0**degree * value, **close)
    if name != "kl":
        assert distance(target, source) == pytest.approx(value, **close)
    assert distance(source, random.permutation(source)) == pytest.approx(0.0, abs=1e-7)
    assert value > -1e-9


@pytest.mark.parametrize("name", [name for name in DISTANCES if name != "discrepancy"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), offset=st.floats(-1e4, 1e4))
def test_a_common_offset_changes_nothing(name: str, seed: int, offset: float) -> None:
    distance, _ = DISTANCES[name]
    source, target = domains(seed)
    assert distance(source + offset, target + offset) == pytest.approx(distance(source, target), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", [name for name in DISTANCES if name not in ("sliced", "kl", "js")])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_common_rotation_changes_nothing(name: str, seed: int) -> None:
    distance, _ = DISTANCES[name]
    source, target = domains(seed)
    width = source.shape[1]
    turn = ortho_group.rvs(width, random_state=seed) if width > 1 else np.array([[-1.0]])
    assert distance(source @ turn, target @ turn) == pytest.approx(distance(source, target), rel=1e-6, abs=1e-9)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_cka_is_symmetric_bounded_and_blind_to_rotation_and_scale(seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = random.normal(size=(9, 3)), random.normal(size=(9, 5))
    value = linear_cka(first, second)
    assert 0 <= value <= 1
    assert linear_cka(second, first) == pytest.approx(value)
    turned = 5 * second @ ortho_group.rvs(5, random_state=seed) + 2
    assert linear_cka(first, turned) == pytest.approx(value)
