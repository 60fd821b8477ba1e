"""Soft neighbourhood density against a literal twin, by hand, in blocks, and of tensors with their gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from headstart.core.errors import ConfigError, DomainError, ShapeError
from headstart.distances import soft_neighbourhood_density


def probabilities(num_rows: int, seed: int) -> np.ndarray:
    values = np.exp(np.random.default_rng(seed).normal(size=(num_rows, 4)))
    return values / values.sum(axis=1, keepdims=True)


def twin(rows: np.ndarray, temperature: float) -> float:
    total = 0.0
    for i, row in enumerate(rows):
        others = [j for j in range(len(rows)) if j != i]
        cosines = np.array([row @ rows[j] / np.linalg.norm(row) / np.linalg.norm(rows[j]) for j in others])
        q = np.exp(cosines / temperature) / np.exp(cosines / temperature).sum()
        total += -float((q * np.log(q)).sum())
    return total / len(rows)


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_it_is_its_formula_for_arrays_and_tensors(temperature: float) -> None:
    rows = probabilities(17, 1)
    expected = twin(rows, temperature)
    assert soft_neighbourhood_density(rows, temperature) == pytest.approx(expected, rel=1e-12)
    tensor = torch.from_numpy(rows).requires_grad_()
    value = soft_neighbourhood_density(tensor, temperature)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    value.backward()
    step = np.zeros_like(rows)
    step[3, 2] = 1e-6
    slope = (twin(rows + step, temperature) - twin(rows - step, temperature)) / 2e-6
    assert tensor.grad is not None
    assert tensor.grad[3, 2].item() == pytest.approx(slope, rel=1e-5)
    assert torch.autograd.gradcheck(lambda given: soft_neighbourhood_density(given, temperature), (tensor,))


def test_by_hand() -> None:
    """Two rows alike and one across: the pair sees (1, 0), the odd row sees two rows alike."""
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    q = 1 / (1 + math.exp(-1))
    pair = -(q * math.log(q) + (1 - q) * math.log(1 - q))
    assert soft_neighbourhood_density(rows, 1.0) == pytest.approx((2 * pair + math.log(2)) / 3)


@pytest.mark.parametrize("block_numbers", [23 * 5, 1])
def test_in_blocks_it_is_the_same(block_numbers: int) -> None:
    rows = probabilities(23, 2)
    whole = soft_neighbourhood_density(rows)
    assert soft_neighbourhood_density(rows, block_numbers=block_numbers) == pytest.approx(whole, rel=1e-14)


def test_rows_that_are_far_apart_or_nothing_have_finite_values_and_slopes() -> None:
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 1e-3]], dtype=torch.float64, requires_grad=True)
    value = soft_neighbourhood_density(rows, 1e-3)
    value.backward()
    assert rows.grad is not None
    assert math.isfinite(value.item()) and torch.isfinite(rows.grad).all()
    assert soft_neighbourhood_density(rows.detach().half(), 0.05).dtype == torch.float32


def test_bad_input_is_refused() -> None:
    with pytest.raises(ShapeError, match="at least 2 rows"):
        soft_neighbourhood_density([[1.0, 0.0]])
    with pytest.raises(DomainError, match="rows must hold real numbers"):
        soft_neighbourhood_density(np.array([["a"], ["b"]]))
    for name in ("temperature", "block_numbers"):
        with pytest.raises(ConfigError, match=f"{name} is above 0; got 0"):
            soft_neighbourhood_density(np.eye(2), **{name: 0})
