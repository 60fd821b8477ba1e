"""Objectives over several source domains against literal twins: risks, IRM, VREx, GroupDRO, CORAL of pairs, MixStyle."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from headstart.core.errors import ConfigError, DataError, ShapeError
from headstart.core.tasks import Task
from headstart.objectives import (
    IRM,
    Batch,
    GroupDRO,
    MixStyle,
    Setup,
    VREx,
    binary_cross_entropy,
    domain_coral_distance,
    domain_risks,
    exponential_update,
    irm_penalty,
    mix_style,
    risk_variance,
    squared_error,
    with_mixstyle,
    without_mixstyle,
)
from headstart.objectives.domain_risks import begins

RANDOM = np.random.default_rng(5)
LOGITS, LABELS = RANDOM.normal(size=(9, 4)) * 2, RANDOM.integers(4, size=9)
DOMAINS = np.array([0, 2, 2, 0, 5, 5, 2, 5, 0])
Z, Y, E = torch.from_numpy(LOGITS), torch.from_numpy(LABELS), torch.from_numpy(DOMAINS)


def twin_softmax(row: np.ndarray) -> np.ndarray:
    exponentials = np.exp(row - row.max())
    return exponentials / exponentials.sum()


def twin_risks(logits: np.ndarray, scale: float = 1.0) -> list[float]:
    """Cross-entropy of each domain's rows, one by one."""
    risks = []
    for domain in sorted(set(DOMAINS.tolist())):
        rows = [i for i in range(9) if DOMAINS[i] == domain]
        risks.append(sum(-math.log(twin_softmax(scale * logits[i])[LABELS[i]]) for i in rows) / len(rows))
    return risks


def twin_irm(logits: np.ndarray) -> float:
    """The slope in closed form: sum over classes of (probability - label) times logit."""
    slopes = []
    for domain in sorted(set(DOMAINS.tolist())):
        rows = [i for i in range(9) if DOMAINS[i] == domain]
        slopes.append(
            sum(float((twin_softmax(logits[i]) - np.eye(4)[LABELS[i]]) @ logits[i]) for i in rows) / len(rows)
        )
    return sum(slope**2 for slope in slopes) / len(slopes)


def slope_of(function: Any, values: np.ndarray) -> np.ndarray:
    """Central differences."""
    result = np.empty_like(values)
    for place in np.ndindex(values.shape):
        up, down = values.copy(), values.copy()
        up[place] += 1e-5
        down[place] -= 1e-5
        result[place] = (function(up) - function(down)) / 2e-5
    return result


def test_risks_are_the_mean_loss_of_each_domain() -> None:
    assert domain_risks(Z, Y, E).tolist() == pytest.approx(twin_risks(LOGITS))
    with pytest.raises(ShapeError, match="domains has 3"):
        domain_risks(Z, Y, E[:3])


def test_irm_is_its_closed_form_and_so_is_its_gradient() -> None:
    inputs = Z.clone().requires_grad_()
    penalty = irm_penalty(inputs, Y, E)
    assert penalty.item() == pytest.approx(twin_irm(LOGITS))
    penalty.backward()
    np.testing.assert_allclose(inputs.grad.numpy(), slope_of(twin_irm, LOGITS), atol=1e-8)
    differences = [
        (up - down) / 2e-6 for up, down in zip(twin_risks(LOGITS, 1 + 1e-6), twin_risks(LOGITS, 1 - 1e-6), strict=True)
    ]
    assert penalty.item() == pytest.approx(np.mean(np.square(differences)), rel=1e-6)
    assert torch.autograd.gradcheck(lambda z: irm_penalty(z, Y, E), (Z.clone().requires_grad_(),))


def test_irm_of_other_tasks_has_their_slopes() -> None:
    indicators, numbers = (
        torch.from_numpy(RANDOM.integers(2, size=(9, 4))).double(),
        torch.from_numpy(RANDOM.normal(size=9)),
    )
    one = torch.zeros(9, dtype=torch.int64)
    binary = ((Z.sigmoid() - indicators) * Z).mean().square()
    squared = (2 * (Z[:, 0] - numbers) * Z[:, 0]).mean().square()
    assert torch.allclose(irm_penalty(Z, indicators, one, binary_cross_entropy), binary)
    assert torch.allclose(irm_penalty(Z[:, :1], numbers, one, squared_error), squared)
    for task, labels, logits in (
        (Task("multilabel", tuple("abcd")), indicators, Z),
        (Task("regression"), numbers, Z[:, :1]),
    ):
        term = IRM()
        term.prepare(Setup(nn.Identity(), task))
        expected = binary if task.kind == "multilabel" else squared
        assert torch.allclose(term(Batch(labels=labels, logits=logits, domains=one)), expected)


def test_irm_is_nothing_where_the_scale_is_already_best() -> None:
    logits = torch.tensor([[1.0, 0.0]] * 4, dtype=torch.float64) * math.log(
        3
    )  # probability 3/4, and right 3 times in 4
    assert irm_penalty(logits, torch.tensor([0, 0, 0, 1]), torch.zeros(4)).item() == pytest.approx(0, abs=1e-12)


def test_vrex_is_the_variance_of_risks_and_its_gradient() -> None:
    inputs = Z.clone().requires_grad_()
    value = risk_variance(domain_risks(inputs, Y, E))
    assert value.item() == pytest.approx(np.var(twin_risks(LOGITS)))
    value.backward()
    expected = slope_of(lambda logits: float(np.var(twin_risks(logits))), LOGITS)
    np.testing.assert_allclose(inputs.grad.numpy(), expected, atol=1e-8)
    assert torch.autograd.gradcheck(lambda z: risk_variance(domain_risks(z, Y, E)), (Z.clone().requires_grad_(),))
    assert risk_variance(torch.ones(3)) == 0 == risk_variance(torch.ones(1))


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=6), st.floats(-50, 50))
def test_the_variance_of_risks_does_not_know_their_level_or_order(risks: list[float], level: float) -> None:
    given_e = torch.tensor(risks, dtype=torch.float64)
    assert torch.allclose(risk_variance(given_e), risk_variance(given_e.flip(0) + level), atol=1e-9)


@pytest.mark.parametrize("kind", [IRM, VREx])
def test_a_penalty_begins_when_it_is_told(kind: Any) -> None:
    assert [begins(share, 0.5) for share in (0.0, 0.5, 1.0)] == [0.0, 1.0, 1.0]
    term, batch = kind(start=0.5), Batch(labels=Y, logits=Z, domains=E)
    values = []
    for share in (0.0, 0.5, 1.0):
        batch.share = share
        values.append(term(batch).item())
    assert values[0] == 0
    assert values[1] == values[2] > 0
    with pytest.raises(ConfigError, match=r"start is the share .* got 1.0"):
        kind(start=1.0)


def test_group_dro_is_its_algorithm() -> None:
    term = GroupDRO(step=0.7)
    term.prepare(Setup(nn.Identity(), Task("classification", tuple("abcd")), num_domains=6))
    weights = np.full(6, 1 / 6)
    for scale in (1.0, 0.5, 2.0):
        inputs = (scale * Z).requires_grad_()
        value = term(Batch(labels=Y, logits=inputs, domains=E))
        term.after_step()
        risks = np.zeros(6)
        risks[[0, 2, 5]] = twin_risks(LOGITS, scale)
        weights = weights * np.exp(0.7 * risks)
        weights /= weights.sum()
        assert value.item() == pytest.approx(float(weights @ risks), rel=1e-6)
        np.testing.assert_allclose(term.domain_weights.numpy(), weights, rtol=1e-5)
        value.backward()
        if scale == 1.0:  # weights are no part of the gradient
            again = Z.clone().requires_grad_()
            held = torch.from_numpy(weights[[0, 2, 5]]) @ domain_risks(again, Y, E)
            held.backward()
            assert torch.allclose(inputs.grad, again.grad, rtol=1e-5)
    kept = term.domain_weights.clone()
    for part in (slice(0, 4), slice(4, 9)):  # in pieces: domain 5 has rows in the second alone
        term(Batch(labels=Y[part], logits=Z[part], domains=E[part]))
    term.after_step()
    first, second = (domain_risks(Z[part], Y[part], E[part]).tolist() for part in (slice(0, 4), slice(4, 9)))
    means = np.array([(first[0] + second[0]) / 2, 0, (first[1] + second[1]) / 2, 0, 0, second[2]])
    expected = kept.numpy() * np.exp(0.7 * means)
    np.testing.assert_allclose(term.domain_weights.numpy(), expected / expected.sum(), rtol=1e-5)
    with pytest.raises(DataError, match="domain 7, but there were 6"):
        term(Batch(labels=Y, logits=Z, domains=E + 2))


def test_group_dro_leans_to_the_worst_domain_and_survives_large_risks() -> None:
    weights_e = torch.full((2,), 0.5)
    for _ in range(30):
        weights_e = exponential_update(weights_e, torch.tensor([1.0, 2.0]), 0.5)
    assert weights_e[1] > 0.999
    assert exponential_update(torch.full((2,), 0.5), torch.tensor([1e4, 0.0]), 1.0).tolist() == [1.0, 0.0]


def twin_coral(features: np.ndarray) -> float:
    covariances = [np.cov(features[domain == DOMAINS].T, ddof=1) for domain in sorted(set(DOMAINS.tolist()))]
    pairs = [(0, 1), (0, 2), (1, 2)]
    return sum(float(((covariances[i] - covariances[j]) ** 2).sum()) / (4 * 16) for i, j in pairs) / 3


def test_coral_of_domains_is_the_mean_over_pairs() -> None:
    inputs = Z.clone().requires_grad_()
    value = domain_coral_distance(inputs, E)
    assert value.item() == pytest.approx(twin_coral(LOGITS))
    value.backward()
    np.testing.assert_allclose(inputs.grad.numpy(), slope_of(twin_coral, LOGITS), atol=1e-7)
    assert torch.autograd.gradcheck(lambda z: domain_coral_distance(z, E), (Z.clone().requires_grad_(),))


def test_coral_needs_two_domains_of_two_rows() -> None:
    inputs = Z.clone().requires_grad_()
    nothing = domain_coral_distance(inputs, torch.zeros(9))
    nothing.backward()
    assert nothing == 0
    assert inputs.grad.abs().max() == 0
    assert domain_coral_distance(Z, torch.arange(9)) == 0
    twice = torch.cat([Z, Z + 3])
    assert domain_coral_distance(twice, torch.arange(18) // 9).item() == pytest.approx(0, abs=1e-12)


def twin_mix(maps: np.ndarray, partners: list[int], shares: list[float]) -> np.ndarray:
    output = np.empty_like(maps)
    for row, (partner, share) in enumerate(zip(partners, shares, strict=True)):
        for channel in range(maps.shape[1]):
            mine, theirs = maps[row, channel], maps[partner, channel]
            spreads = [math.sqrt(((part - part.mean()) ** 2).mean() + 1e-6) for part in (mine, theirs)]
            spread = share * spreads[0] + (1 - share) * spreads[1]
            output[row, channel] = (
                spread * (mine - mine.mean()) / spreads[0] + share * mine.mean() + (1 - share) * theirs.mean()
            )
    return output


def test_mixed_maps_are_the_formula_and_tokens_are_maps_turned() -> None:
    maps, partners, shares = RANDOM.normal(size=(3, 2, 4, 5)) * 2 + 1, [2, 0, 1], [0.3, 1.0, 0.0]
    expected = twin_mix(maps, partners, shares)
    chosen, kept = torch.tensor(partners), torch.tensor(shares, dtype=torch.float64)
    np.testing.assert_allclose(mix_style(torch.from_numpy(maps), chosen, kept).numpy(), expected)
    tokens = torch.from_numpy(maps).flatten(2).mT
    np.testing.assert_allclose(mix_style(tokens, chosen, kept).mT.reshape(3, 2, 4, 5).numpy(), expected)
    np.testing.assert_allclose(expected[1], maps[1])  # a share of 1 leaves the row alone
    means = [expected[2].mean((1, 2)), maps[1].mean((1, 2))]  # a share of 0 takes the partner's style
    np.testing.assert_allclose(means[0], means[1])
    with pytest.raises(ShapeError, match="Mix after an earlier segment"):
        mix_style(torch.zeros(3, 2), chosen, kept)


def test_no_gradient_flows_through_the_statistics() -> None:
    maps = torch.from_numpy(RANDOM.normal(size=(2, 1, 2, 2))).requires_grad_()
    partners, kept = torch.tensor([1, 0]), torch.tensor([0.25, 0.5], dtype=torch.float64)
    weights = torch.from_numpy(RANDOM.normal(size=(2, 1, 2, 2)))
    (weights * mix_style(maps, partners, kept)).sum().backward()
    spread = (maps.detach().var((2, 3), correction=0, keepdim=True) + 1e-6).sqrt()
    share = kept.view(2, 1, 1, 1)
    expected = weights * (share * spread + (1 - share) * spread[partners]) / spread
    assert torch.allclose(maps.grad, expected)


def test_mixstyle_acts_in_training_alone_and_can_be_taken_out() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    names, images = list(network.state_dict()), torch.randn(6, 1, 5, 5)
    plain = network(images)
    with_mixstyle(with_mixstyle(network, 1.0), 1.0)
    assert len(network._forward_hooks) == 1
    assert list(network.state_dict()) == names
    assert not torch.equal(network(images), plain)
    assert torch.equal(network.eval()(images), plain)
    assert torch.equal(copy.deepcopy(network)(images), plain)
    assert torch.equal(without_mixstyle(network).train()(images), plain)
    half = with_mixstyle(nn.Identity(), 0.25)
    changed = sum(not torch.equal(half(images), images) for _ in range(400))
    assert 60 < changed < 140  # 100, with a standard deviation of 9


def test_mixstyle_goes_after_the_first_segments_that_train(world: Any) -> None:
    def hooked(term: MixStyle) -> list[str]:
        without_mixstyle(world.network)
        term.prepare(world.setup())
        pairs = zip(world.network.names, world.network.segments, strict=True)
        return [name for name, segment in pairs if segment._forward_hooks]

    assert hooked(MixStyle()) == ["middle"]
    world.network.num_frozen = 0
    assert hooked(MixStyle()) == ["stem", "middle"]
    assert hooked(MixStyle(segments=["middle"])) == ["middle"]
    with pytest.raises(ConfigError, match=r"no segment 'midle' trains.*Did you mean 'middle'"):
        hooked(MixStyle(segments=["midle"]))
    world.network.num_frozen = 2
    with pytest.raises(ConfigError, match="let an earlier stage train"):
        hooked(MixStyle())
    with pytest.raises(ConfigError, match="alpha is above 0"):
        MixStyle(alpha=0)
