"""Adaptive feature norm and batch spectral penalisation against literal twins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from headstart.core.errors import ConfigError
from headstart.objectives import (
    AFN,
    BSP,
    BSS,
    Batch,
    batch_spectral_penalty,
    hard_feature_norm,
    stepwise_feature_norm,
)

RANDOM = np.random.default_rng(8)
SOURCE, TARGET = RANDOM.normal(size=(6, 4)), RANDOM.normal(size=(5, 4)) * 3
S, T = torch.from_numpy(SOURCE), torch.from_numpy(TARGET)
BATCHES = Batch(features=S), Batch(features=T)


def lengths(rows: np.ndarray) -> list[float]:
    return [math.sqrt(sum(value**2 for value in row)) for row in rows]


def test_hard_afn_is_its_formula() -> None:
    expected = sum((sum(lengths(rows)) / len(rows) - 7.0) ** 2 for rows in (SOURCE, TARGET))
    assert AFN("hard", radius=7.0)(*BATCHES).item() == pytest.approx(0.05 * expected, rel=1e-12)
    features = T.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: hard_feature_norm(rows, radius=7.0), (features,))


def test_stepwise_afn_has_the_papers_gradient_and_no_value_of_its_own() -> None:
    source, target = S.clone().requires_grad_(), T.clone().requires_grad_()
    value = AFN(step=0.3, weight=2.0)(Batch(features=source), Batch(features=target))
    assert value.item() == pytest.approx(2 * 2 * 0.3**2)
    value.backward()
    for rows in (source, target):
        array = rows.detach().numpy()
        expected = -2 * 2 * 0.3 * array / (len(array) * np.array(lengths(array))[:, None])
        assert np.allclose(rows.grad.numpy(), expected, rtol=1e-12)


def test_a_step_along_the_gradient_makes_every_row_longer_by_the_same_amount() -> None:
    rows = T.clone().requires_grad_()
    stepwise_feature_norm(rows).backward()
    longer = torch.linalg.vector_norm(T - 0.1 * rows.grad, dim=1) - torch.linalg.vector_norm(T, dim=1)
    assert torch.allclose(longer, torch.full((5,), 0.1 * 2 / 5, dtype=torch.float64))


def test_features_of_length_0_have_a_finite_gradient() -> None:
    rows = torch.zeros(3, 2, requires_grad=True)
    (stepwise_feature_norm(rows) + hard_feature_norm(rows)).backward()
    assert torch.isfinite(rows.grad).all()


@pytest.mark.parametrize("num_values", [1, 2, 9])
def test_bsp_is_its_formula(num_values: int) -> None:
    expected = 0.0
    for rows in (SOURCE, TARGET):
        squares = sorted(np.linalg.eigvalsh(rows.T @ rows), reverse=True)  # squared singular values
        expected += sum(squares[:num_values])
    assert BSP(num_values)(*BATCHES).item() == pytest.approx(1e-4 * expected, rel=1e-9)
    features = T.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: batch_spectral_penalty(rows, num_values=num_values), (features,))


def test_bsp_and_bss_share_the_spectrum() -> None:
    whole = batch_spectral_penalty(T, num_values=4)
    assert whole.item() == pytest.approx((TARGET**2).sum())
    smallest = BSS(num_values=3, weight=1.0)(Batch(features=T))
    assert (batch_spectral_penalty(T) + smallest).item() == pytest.approx(whole.item())


def test_bad_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="form is one of stepwise, hard"):
        AFN("soft")  # type: ignore[arg-type]
    for arguments in ({"step": 0.0}, {"radius": -1.0}):
        with pytest.raises(ConfigError, match="is above 0"):
            AFN(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="num_values is at least 1"):
        BSP(0)
