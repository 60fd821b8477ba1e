"""Critics: the reversal, the loss of two domains, the penalty on the slope, spectral norms, each against NumPy or by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from headstart.core.errors import ConfigError, ShapeError
from headstart.objectives import DANN, Critic, domain_loss, gradient_penalty, reverse_gradient
from headstart.objectives.critic import between, frozen

RANDOM = np.random.default_rng(3)
SOURCE, TARGET = RANDOM.normal(size=5) * 3, RANDOM.normal(size=4) * 3
S, T = torch.from_numpy(SOURCE), torch.from_numpy(TARGET)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 3.0])
def test_the_reversal_leaves_values_and_turns_the_gradient_of_whatever_follows(strength: float) -> None:
    features = torch.from_numpy(RANDOM.normal(size=(3, 2))).requires_grad_()
    assert torch.equal(reverse_gradient(features, strength), features)
    (plain,) = torch.autograd.grad(features.pow(3).sin().sum(), features)
    (turned,) = torch.autograd.grad(reverse_gradient(features, strength).pow(3).sin().sum(), features)
    assert torch.equal(turned, -strength * plain)


def test_the_reversal_by_minus_one_is_the_identity_and_passes_gradcheck() -> None:
    features = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: reverse_gradient(x, -1.0).sin(), (features,))
    assert torch.autograd.gradgradcheck(lambda x: reverse_gradient(x, -1.0).sin(), (features,))
    assert torch.autograd.gradcheck(lambda x: reverse_gradient(reverse_gradient(x, 0.5), 2.0).sin(), (features,))


def test_the_domain_loss_is_its_formula_with_and_without_weights() -> None:
    weights = RANDOM.random(5)
    expected = sum(w * math.log(1 + math.exp(-x)) for w, x in zip(weights, SOURCE, strict=True)) / 5
    expected = (expected + sum(math.log(1 + math.exp(x)) for x in TARGET) / 4) / 2
    assert domain_loss(S, T, torch.from_numpy(weights)).item() == pytest.approx(expected)
    assert domain_loss(S[:, None], T[:, None]).item() == pytest.approx(
        (np.log1p(np.exp(-SOURCE)).mean() + np.log1p(np.exp(TARGET)).mean()) / 2
    )
    assert domain_loss(torch.full((2,), 1e4), torch.full((2,), -1e4)).item() == 0
    assert domain_loss(torch.full((2,), -1e4), torch.full((2,), 1e4)).item() == 1e4  # no infinity where it is all wrong
    leaves = (S.clone().requires_grad_(), T.clone().requires_grad_())
    assert torch.autograd.gradcheck(domain_loss, leaves)


def test_the_domain_loss_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"one number a row; got \(5, 2\)"):
        domain_loss(torch.zeros(5, 2), T)
    with pytest.raises(ShapeError, match="weights"):
        domain_loss(S, T, torch.ones(4))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 6))
def test_the_order_and_the_number_of_rows_do_not_matter(seed: int, source: int, target: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(source, generator=generator), torch.randn(target, generator=generator)
    expected = domain_loss(first, second)
    assert torch.allclose(domain_loss(first[torch.randperm(source)], second.repeat(3)), expected, atol=1e-6)
    assert torch.allclose(
        domain_loss(-second, -first), expected, atol=1e-6
    )  # which domain is the first is a matter of sign


def test_first_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(0)
    first = Critic(3, 2, (4, 5), seed=7)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), after)  # and the caller's random numbers are left alone
    torch.manual_seed(99)
    again, other = Critic(3, 2, (4, 5), seed=7), Critic(3, 2, (4, 5), seed=8)
    rows = torch.randn(6, 3)
    assert torch.equal(first(rows), again(rows)) and not torch.equal(first(rows), other(rows))
    assert [tuple(item.shape) for item in first.parameters() if item.ndim == 2] == [(4, 3), (5, 4), (2, 5)]


def test_a_critic_is_a_chain_of_layers_and_rectifiers() -> None:
    critic = Critic(3, 1, (4,)).double()
    rows = RANDOM.normal(size=(6, 3))
    (w, b, v, c) = (item.detach().numpy() for item in critic.parameters())
    assert np.allclose(critic(torch.from_numpy(rows)).detach().numpy(), np.maximum(rows @ w.T + b, 0) @ v.T + c)
    assert isinstance(Critic(3, 1, ()).layers, nn.Sequential) and len(Critic(3, 1, ()).layers) == 1


def test_dropout_works_in_training_alone() -> None:
    critic, rows = Critic(3, 1, (64,), dropout=0.5), torch.randn(6, 3)
    assert not torch.equal(critic(rows), critic(rows))
    critic.eval()
    assert torch.equal(critic(rows), critic(rows))


def test_a_spectral_critic_has_a_slope_of_at_most_one() -> None:
    critic = Critic(4, 1, (16, 16), spectral=True, seed=1)
    with torch.no_grad():
        for name, parameter in critic.named_parameters():
            if name.endswith("original"):
                parameter.mul_(50)
    for _ in range(30):
        critic(torch.zeros(1, 4))  # each look brings the estimate of the largest singular value nearer
    for layer in critic.layers:
        if isinstance(layer, nn.Linear):
            assert np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False)[0] == pytest.approx(1, abs=1e-2)
    first, second = torch.randn(200, 4), torch.randn(200, 4)
    slopes = (critic(first) - critic(second)).abs()[:, 0] / (first - second).norm(dim=1)
    assert slopes.max() <= 1.03


@pytest.mark.parametrize("spectral", [False, True])
def test_a_frozen_critic_says_the_same_and_learns_nothing(spectral: bool) -> None:
    critic = Critic(3, 1, (4,), spectral=spectral).eval()
    rows = torch.randn(5, 3, requires_grad=True)
    (expected,) = torch.autograd.grad(critic(rows).sum(), rows)
    said = frozen(critic, rows)
    assert torch.equal(said, critic(rows))
    said.sum().backward()
    assert torch.allclose(rows.grad, expected) and all(item.grad is None for item in critic.parameters())


def penalty(slopes: list[np.ndarray]) -> float:
    return sum((math.sqrt(sum(value**2 for value in slope)) - 1) ** 2 for slope in slopes) / len(slopes)


def test_the_penalty_is_the_mean_squared_distance_of_the_slopes_from_one() -> None:
    critic = Critic(3, 1, (6,)).double()
    points = RANDOM.normal(size=(5, 3))
    (w, b, v, _) = (item.detach().numpy() for item in critic.parameters())
    slopes = [(v[0] * (w @ point + b > 0)) @ w for point in points]
    value = gradient_penalty(critic, torch.from_numpy(points))
    assert value.item() == pytest.approx(penalty(slopes))
    value.backward()
    step = 1e-6
    for place in [(0, 0), (3, 2)]:
        moved = []
        for sign in (1, -1):
            w_moved = w.copy()
            w_moved[place] += sign * step
            moved.append(penalty([(v[0] * (w_moved @ point + b > 0)) @ w_moved for point in points]))
        gradient = next(iter(critic.parameters())).grad[place].item()
        assert gradient == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=1e-4)


def test_the_penalty_is_zero_at_slope_one_one_at_none_and_has_finite_gradients_there() -> None:
    flat, steep = Critic(3, 1, ()), Critic(3, 1, ())
    for critic, first in ((flat, 0.0), (steep, 1.0)):
        nn.init.zeros_(critic.layers[0].weight)
        with torch.no_grad():
            critic.layers[0].weight[0, 0] = first
    assert gradient_penalty(steep, torch.ones(2, 3)).item() == pytest.approx(0, abs=1e-12)
    value = gradient_penalty(flat, torch.ones(2, 3))
    value.backward()
    assert value.item() == pytest.approx(1) and torch.isfinite(flat.layers[0].weight.grad).all()


def test_points_between_lie_on_the_lines_from_row_to_row() -> None:
    source, target = torch.randn(5, 3, requires_grad=True), torch.randn(2, 3)
    torch.manual_seed(0)
    points = between(source, target)
    torch.manual_seed(0)
    assert torch.equal(between(source, target), points) and not points.requires_grad
    for place in range(5):
        line, ahead = source[place] - target[place % 2], points[place] - target[place % 2]
        share = (ahead @ line / (line @ line)).item()
        assert 0 <= share <= 1 and torch.allclose(ahead, share * line, atol=1e-6)
    with pytest.raises(ShapeError, match="features"):
        between(source, torch.zeros(2, 4))


def test_options_of_critics_are_checked() -> None:
    for options, rule in (({"strength": -1.0}, "strength is at least 0"), ({"widths": (3, 0)}, "widths is above 0"),
                          ({"dropout": 1.0}, r"dropout lies in \[0, 1\)")):  # fmt: skip
        with pytest.raises(ConfigError, match=rule):
            DANN(**options)


def test_a_tensor_of_any_shape_is_reversed() -> None:
    images = torch.randn(2, 3, 4, 4, requires_grad=True)
    reversed_: Tensor = reverse_gradient(images)
    reversed_.sum().backward()
    assert torch.equal(images.grad, -torch.ones_like(images))
