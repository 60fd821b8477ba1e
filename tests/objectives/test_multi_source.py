"""Objectives over several sources and a target against literal twins: distance of moments, MDAN."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.core.errors import ConfigError, ShapeError
from headstart.objectives import M3SDA, MDAN, Batch, domain_moment_distance, smoothed_maximum

RANDOM = np.random.default_rng(7)
SOURCE, TARGET = RANDOM.normal(size=(9, 3)), RANDOM.normal(size=(5, 3)) + 0.5
DOMAINS = np.array([0, 2, 2, 0, 5, 5, 2, 5, 0])
S, T, E = torch.from_numpy(SOURCE), torch.from_numpy(TARGET), torch.from_numpy(DOMAINS)


def twin(source: np.ndarray, target: np.ndarray, num_moments: int) -> float:
    total = 0.0
    for power in range(1, num_moments + 1):
        means = [np.mean([row**power for row in source[domain == DOMAINS]], 0) for domain in (0, 2, 5)]
        middle = np.mean([row**power for row in target], 0)
        total += sum(math.sqrt(((mean - middle) ** 2).sum()) for mean in means) / 3
        total += sum(math.sqrt(((one - other) ** 2).sum()) for one, other in combinations(means, 2)) / 3
    return total


@pytest.mark.parametrize("num_moments", [1, 2, 4])
def test_the_distance_of_moments_is_its_formula(num_moments: int) -> None:
    source, target = S.clone().requires_grad_(), T.clone().requires_grad_()
    value = domain_moment_distance(source, E, target, num_moments)
    assert value.item() == pytest.approx(twin(SOURCE, TARGET, num_moments))
    value.backward()
    for given_, plain, place in ((source, SOURCE, (4, 1)), (target, TARGET, (2, 0))):
        step = np.zeros_like(plain)
        step[place] = 1e-6
        moved = (
            [twin(plain + sign * step, TARGET, num_moments) for sign in (1, -1)]
            if plain is SOURCE
            else [twin(SOURCE, plain + sign * step, num_moments) for sign in (1, -1)]
        )
        assert given_.grad[place].item() == pytest.approx((moved[0] - moved[1]) / 2e-6, rel=1e-6)
    assert torch.autograd.gradcheck(
        lambda s, t: domain_moment_distance(s, E, t, num_moments),
        (S.clone().requires_grad_(), T.clone().requires_grad_()),
    )


def test_domains_with_the_same_rows_are_not_apart_and_pull_at_nothing() -> None:
    rows = T.repeat(3, 1).requires_grad_()
    value = domain_moment_distance(rows, torch.arange(15) // 5, T)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert torch.isfinite(rows.grad).all()
    assert domain_moment_distance(S, torch.zeros(9), S) == 0


@given(st.permutations(range(9)))
def test_the_order_of_rows_and_the_numbers_of_domains_do_not_matter(order: list[int]) -> None:
    turned = domain_moment_distance(S[order], 9 - E[order], T)
    assert torch.allclose(turned, domain_moment_distance(S, E, T))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ShapeError, match="source has 3 features but target has 2"):
        domain_moment_distance(S, E, T[:, :2])
    with pytest.raises(ConfigError, match="num_moments is at least 1; got 0"):
        M3SDA(0)
    with pytest.raises(ConfigError, match="second stream"):
        M3SDA()(Batch(features=S, domains=E))
    with pytest.raises(ConfigError, match="gamma is above 0"):
        MDAN(gamma=0)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=5), st.floats(0.1, 20))
def test_the_smoothed_maximum_lies_just_above_the_maximum(losses: list[float], gamma: float) -> None:
    value = smoothed_maximum(torch.tensor(losses, dtype=torch.float64), gamma).item()
    assert max(losses) - 1e-9 <= value <= max(losses) + math.log(len(losses)) / gamma + 1e-9


def critic_twin(critic: Any, rows: np.ndarray) -> np.ndarray:
    for layer in critic.layers:
        if hasattr(layer, "weight"):
            rows = rows @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        else:
            rows = np.maximum(rows, 0)
    return rows[:, 0]


def test_mdan_is_its_formula_and_its_gradients_are_reversed(world: Any) -> None:
    term = MDAN(gamma=3.0, critic_weight=0.7, widths=(4,))
    term.prepare(world.setup())
    term.double()
    source, target = world.batch(), world.batch(target=True)
    logits, labels, domains = source.logits.detach().double(), world.labels, world.domains
    ours = source.features.detach().double().requires_grad_()
    theirs = target.features.detach().double().requires_grad_()
    value = term(Batch(labels=labels, logits=logits, features=ours, domains=domains), Batch(features=theirs))
    losses, apart = [], []
    for domain in (0, 1):
        mask = (domains == domain).numpy()
        said = [critic_twin(term.critics[domain], rows.detach().numpy()) for rows in (ours[mask], theirs)]
        apart.append((np.log1p(np.exp(-said[0])).mean() + np.log1p(np.exp(said[1])).mean()) / 2)
        chosen = torch.log_softmax(logits[mask], 1)[torch.arange(4), labels[mask]].numpy()
        losses.append(-chosen.mean())
    total = np.array(losses) + 0.7 * np.array(apart)
    assert value.item() == pytest.approx(math.log(sum(math.exp(3 * loss) for loss in total)) / 3)
    value.backward()
    weights = np.exp(3 * total) / np.exp(3 * total).sum()
    plain = torch.cat([ours.detach(), theirs.detach()]).requires_grad_()
    for domain in (0, 1):  # what a critic alone would send back, weighed and turned round
        mask = domains == domain
        first, second = term.critics[domain](plain[:8][mask]), term.critics[domain](plain[8:])
        loss = (torch.nn.functional.softplus(-first).mean() + torch.nn.functional.softplus(second).mean()) / 2
        (-0.7 * weights[domain] * loss).backward(inputs=[plain])
    assert torch.allclose(torch.cat([ours.grad, theirs.grad]), plain.grad)
    own = term.critics[0].layers[0].weight
    assert own.grad.abs().sum() > 0
    before = own.detach().clone()
    with torch.no_grad():  # a step down the gradient makes the critic better
        for parameter in term.critics.parameters():
            parameter.sub_(0.05 * parameter.grad)
    again = term(Batch(labels=labels, logits=logits, features=ours, domains=domains), Batch(features=theirs))
    assert again < value
    assert not torch.equal(before, own)
    with pytest.raises(ConfigError, match="has 2 critics, but a row comes from domain 2"):
        term(Batch(labels=labels, logits=logits, features=ours, domains=domains + 2), Batch(features=theirs))
