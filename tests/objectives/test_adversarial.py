"""Adversarial objectives against literal NumPy twins: values, gradients of critics, and gradients turned round at the features.

The gradient at the features is, by central differences of the twin, minus the strength times that of the critic's loss; at the
critic's parameters it is the gradient itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from headstart.core.errors import ConfigError, ShapeError
from headstart.core.tasks import Task
from headstart.objectives import (
    ADDA,
    CDAN,
    DANN,
    GVB,
    MDD,
    OSBP,
    PADA,
    WDGRL,
    Batch,
    CrossEntropy,
    DomainConfusion,
    MultiDomainDANN,
    Objective,
    Setup,
    certainty_weights,
    domain_loss,
    margin_disparity,
    multi_domain_loss,
    multilinear_map,
    randomised_map,
)
from headstart.objectives.critic import between
from headstart.objectives.schedules import ramp

TASK = Task("classification", ("a", "b", "c"))
RANDOM = np.random.default_rng(5)
SOURCE, TARGET = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=(3, 3)) + 0.5
LOGITS, OTHERS = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=(3, 3)) * 2
LABELS, DOMAINS = np.array([0, 2, 1, 0]), np.array([1, 0, 1, 1])
Array = np.ndarray


class Small(nn.Module):
    """A network of nothing but a head."""

    def __init__(self) -> None:
        super().__init__()
        self.segments, self.heads = nn.ModuleList(), nn.ModuleDict({"main": nn.Linear(3, 3)})
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.from_numpy(RANDOM.normal(size=parameter.shape)))


def made(objective: Objective, network: nn.Module | None = None, **options: int) -> Objective:
    """Return an objective in float64 after `prepare`, its parameters of a size at which rectifiers matter."""
    setup = Setup(network or Small().double(), TASK, width=3, **{"num_target": 3, **options})
    objective.prepare(setup)
    objective.double()
    random = np.random.default_rng(11)
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.copy_(torch.from_numpy(0.8 * random.normal(size=parameter.shape)))
    return objective


def batches(share: float = 0.5) -> tuple[Batch, Batch]:
    """Return both streams as leaves of the graph."""

    def leaf(values: Array) -> Tensor:
        return torch.tensor(values, requires_grad=True)

    source = Batch(
        labels=torch.from_numpy(LABELS), features=leaf(SOURCE), logits=leaf(LOGITS), base_features=leaf(SOURCE + 0.1),
        domains=torch.from_numpy(DOMAINS), share=share,
    )  # fmt: skip
    return source, Batch(features=leaf(TARGET), logits=leaf(OTHERS), share=share)


def weights(module: nn.Module) -> list[Array]:
    return [parameter.detach().numpy().copy() for parameter in module.parameters()]


def says(layers: list[Array], rows: Array) -> Array:
    """The critic, literally."""
    for place in range(0, len(layers), 2):
        rows = rows @ layers[place].T + layers[place + 1]
        if place < len(layers) - 2:
            rows = np.maximum(rows, 0)
    return rows


def log1pexp(value: float) -> float:
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))


def softmax(rows: Array) -> Array:
    return np.exp(rows) / np.exp(rows).sum(1, keepdims=True)


def told_apart(
    source: Array, target: Array, source_weights: Array | None = None, weights: Array | None = None
) -> float:
    ones = np.ones(len(source)) if source_weights is None else source_weights
    others = np.ones(len(target)) if weights is None else weights
    first = sum(w * log1pexp(-value) for w, value in zip(ones, source, strict=True)) / len(source)
    return (first + sum(w * log1pexp(value) for w, value in zip(others, target, strict=True)) / len(target)) / 2


def slope(function: Callable[[Array], float], at: Array) -> Array:
    """Central differences."""
    found = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[place] += 1e-6
        down[place] -= 1e-6
        found[place] = (function(up) - function(down)) / 2e-6
    return found


def near(tensor: Tensor | None, expected: Array) -> bool:
    found = np.zeros_like(expected) if tensor is None else tensor.numpy()
    return bool(np.allclose(found, expected, rtol=1e-5, atol=1e-8))


def check_critic(objective: Objective, loss: Callable[[list[Array]], float]) -> None:
    """The critic's gradient is that of its own loss, at full strength."""
    layers = weights(objective.critic)
    for place, parameter in enumerate(objective.critic.parameters()):
        moved = lambda value, place=place: loss([*layers[:place], value, *layers[place + 1 :]])  # noqa: E731
        assert near(parameter.grad, objective.weight * slope(moved, layers[place]))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_dann_is_its_twin_and_the_features_get_the_gradient_turned_round(share: float) -> None:
    objective = made(DANN(strength=0.7, widths=(5,), weight=2.0))
    source, target = batches(share)
    layers = weights(objective.critic)

    def loss(layers: list[Array], source: Array = SOURCE, target: Array = TARGET) -> float:
        return told_apart(says(layers, source)[:, 0], says(layers, target)[:, 0])

    value = objective(source, target)
    assert value.item() == pytest.approx(2 * loss(layers))
    value.backward()
    strength = {0.0: 0.0, 0.5: 0.7 * 0.98661430, 1.0: 0.7 * 0.99990920}[share]  # 2 / (1 + exp(-10 p)) - 1
    assert near(source.features.grad, -strength * 2 * slope(lambda rows: loss(layers, rows), SOURCE))
    assert near(target.features.grad, -strength * 2 * slope(lambda rows: loss(layers, target=rows), TARGET))
    check_critic(objective, loss)


def test_several_domains_are_their_twin_and_two_are_dann() -> None:
    objective = made(MultiDomainDANN(strength=0.7, widths=(5,)), num_domains=2)
    source, target = batches()
    layers, domains = weights(objective.critic), [*DOMAINS, 2, 2, 2]

    def loss(layers: list[Array], source: Array = SOURCE, target: Array = TARGET) -> float:
        said = softmax(says(layers, np.concatenate([source, target])))
        total = 0.0
        for domain in range(3):
            own = [-math.log(row[domain]) for row, number in zip(said, domains, strict=True) if number == domain]
            total += sum(own) / len(own) / 3
        return total

    value = objective(source, target)
    assert value.item() == pytest.approx(loss(layers))
    value.backward()
    strength = 0.7 * ramp(0.5)
    assert near(source.features.grad, -strength * slope(lambda rows: loss(layers, rows), SOURCE))
    assert near(target.features.grad, -strength * slope(lambda rows: loss(layers, target=rows), TARGET))
    check_critic(objective, loss)
    said = torch.from_numpy(RANDOM.normal(size=(7, 2)))
    two = multi_domain_loss(said, torch.tensor([0, 0, 0, 0, 1, 1, 1]))
    assert torch.allclose(two, domain_loss(said[:4, 0] - said[:4, 1], said[4:, 0] - said[4:, 1]))


def test_several_domains_without_a_target_and_one_alone() -> None:
    objective = made(MultiDomainDANN(widths=(5,)), num_domains=2, num_target=0)
    source, _ = batches()
    said = torch.from_numpy(says(weights(objective.critic), SOURCE))
    assert objective(source).item() == pytest.approx(multi_domain_loss(said, source.domains).item())
    with pytest.raises(ConfigError, match="two domains at least"):
        made(MultiDomainDANN(), num_domains=1, num_target=0)
    with pytest.raises(ShapeError, match="knows 2 domains, but a row comes from number 5"):
        multi_domain_loss(torch.zeros(1, 2), torch.tensor([5]))
    absent = multi_domain_loss(torch.zeros(2, 3), torch.tensor([0, 0]))  # a batch without rows of two of the domains
    assert absent.item() == pytest.approx(math.log(3))


def test_domain_confusion_teaches_the_critic_and_pulls_the_features_to_one_half() -> None:
    objective = made(DomainConfusion(strength=0.7, widths=(5,), weight=2.0))
    source, target = batches()
    layers = weights(objective.critic)

    def loss(layers: list[Array]) -> float:
        return told_apart(says(layers, SOURCE)[:, 0], says(layers, TARGET)[:, 0])

    def confusion(source: Array, target: Array) -> float:
        total = 0.0
        for rows in (source, target):
            said = softmax(
                np.concatenate([says(layers, rows), np.zeros((len(rows), 1))], 1)
            )  # a softmax over two domains
            total += -np.log(said).mean(1).mean() / 2
        return total

    value = objective(source, target)
    assert value.item() == pytest.approx(2 * loss(layers))
    value.backward()
    assert near(source.features.grad, 1.4 * slope(lambda rows: confusion(rows, TARGET), SOURCE))
    assert near(target.features.grad, 1.4 * slope(lambda rows: confusion(SOURCE, rows), TARGET))
    check_critic(objective, loss)


def test_adda_compares_with_the_network_at_rest_and_inverts_the_labels() -> None:
    objective = made(ADDA(strength=0.7, widths=(5,), weight=2.0))
    source, target = batches()
    layers = weights(objective.critic)

    def loss(layers: list[Array]) -> float:
        return told_apart(says(layers, SOURCE + 0.1)[:, 0], says(layers, TARGET)[:, 0])

    def fooled(target: Array) -> float:
        return sum(log1pexp(-value) for value in says(layers, target)[:, 0]) / 3

    value = objective(source, target)
    assert value.item() == pytest.approx(2 * loss(layers))
    value.backward()
    assert source.features.grad is None and source.base_features.grad is None
    assert near(target.features.grad, 1.4 * slope(fooled, TARGET))
    check_critic(objective, loss)
    alone = objective(Batch(), batches()[1])
    assert alone.item() == pytest.approx(1.4 * fooled(TARGET))


def test_wdgrl_is_its_twin_at_the_points_it_draws() -> None:
    objective = made(WDGRL(strength=0.7, penalty=3.0, widths=(5,), weight=2.0))
    source, target = batches()
    layers = weights(objective.critic)
    torch.manual_seed(4)
    points = np.concatenate([SOURCE, TARGET, between(source.features, target.features).numpy()])

    def gap(layers: list[Array], source: Array = SOURCE, target: Array = TARGET) -> float:
        return says(layers, source).mean() - says(layers, target).mean()

    def loss(layers: list[Array]) -> float:
        w, b, v, _ = layers
        slopes = [(v[0] * (w @ point + b > 0)) @ w for point in points]
        return -gap(layers) + 3 * float(np.mean([(np.linalg.norm(slope) - 1) ** 2 for slope in slopes]))

    torch.manual_seed(4)
    value = objective(source, target)
    assert value.item() == pytest.approx(2 * loss(layers))
    value.backward()
    assert near(source.features.grad, 1.4 * slope(lambda rows: gap(layers, rows), SOURCE))
    assert near(target.features.grad, 1.4 * slope(lambda rows: gap(layers, target=rows), TARGET))
    check_critic(objective, loss)


@pytest.mark.parametrize("penalty", [10.0, 30.0])
def test_a_trained_critic_measures_the_earth_movers_distance_and_a_little_more(penalty: float) -> None:
    objective = WDGRL(penalty=penalty, widths=(), strength=0.0)
    objective.prepare(Setup(nn.Module(), TASK, width=2))
    source = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    moved = source + torch.tensor([3.0, 4.0])  # every row by 5
    optimiser = torch.optim.SGD(objective.parameters(), 0.25 / penalty)
    for _ in range(250):
        optimiser.zero_grad()
        objective(Batch(features=moved), Batch(features=source)).backward()
        optimiser.step()
    with torch.no_grad():
        distance = (objective.critic(moved).mean() - objective.critic(source).mean()).item()
    assert distance == pytest.approx(5 * (1 + 5 / (2 * penalty)), rel=1e-3)  # max over s of 5 s - penalty (s - 1)^2


def test_the_maps_are_their_formulas() -> None:
    probabilities = softmax(LOGITS)
    outer = multilinear_map(torch.from_numpy(SOURCE), torch.from_numpy(probabilities)).numpy()
    for row in range(4):
        assert np.allclose(outer[row], np.outer(SOURCE[row], probabilities[row]).ravel())
    first, second = RANDOM.normal(size=(3, 6)), RANDOM.normal(size=(3, 6))
    tensors = [torch.from_numpy(item) for item in (SOURCE, probabilities, first, second)]
    for row in range(4):
        expected = [(SOURCE[row] @ first[:, e]) * (probabilities[row] @ second[:, e]) / math.sqrt(6) for e in range(6)]
        assert np.allclose(randomised_map(*tensors)[row].numpy(), expected)


def test_random_products_keep_inner_products_on_average() -> None:
    objective = made(CDAN(max_products=1, num_random=40000, widths=()))
    random = torch.Generator().manual_seed(0)
    maps = [torch.randn(3, 40000, generator=random, dtype=torch.float64) for _ in range(2)]
    assert objective.features_de.shape == (3, 40000) and abs(objective.features_de.var().item() - 1) < 0.02
    features, probabilities = torch.from_numpy(SOURCE), torch.from_numpy(softmax(LOGITS))
    exact = multilinear_map(features, probabilities)
    drawn = randomised_map(features, probabilities, *maps)
    assert torch.allclose(drawn @ drawn.T, exact @ exact.T, atol=0.15)


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("max_products", [4096, 8])
def test_cdan_is_its_twin_and_turns_the_gradient_at_the_features_alone(entropy: bool, max_products: int) -> None:
    objective = made(CDAN(entropy, max_products, num_random=6, strength=0.7, widths=(5,)))
    source, target = batches()
    layers, answers = weights(objective.critic), (softmax(LOGITS), softmax(OTHERS))
    counts = []
    for rows in answers:
        raw = [1 + math.exp(sum(p * math.log(p) for p in row)) for row in rows]
        counts.append(np.array(raw) / np.mean(raw) if entropy else np.ones(len(rows)))

    def products(features: Array, probabilities: Array) -> Array:
        if max_products == 4096:
            return np.stack([np.outer(f, g).ravel() for f, g in zip(features, probabilities, strict=True)])
        maps = objective.features_de.numpy(), objective.outputs_ke.numpy()
        return (features @ maps[0]) * (probabilities @ maps[1]) / math.sqrt(6)

    def loss(layers: list[Array], source: Array = SOURCE, target: Array = TARGET) -> float:
        said = says(layers, products(source, answers[0])), says(layers, products(target, answers[1]))
        return told_apart(said[0][:, 0], said[1][:, 0], *counts)

    value = objective(source, target)
    assert value.item() == pytest.approx(loss(layers))
    value.backward()
    strength = 0.7 * ramp(0.5)
    assert near(source.features.grad, -strength * slope(lambda rows: loss(layers, rows), SOURCE))
    assert near(target.features.grad, -strength * slope(lambda rows: loss(layers, target=rows), TARGET))
    assert source.logits.grad is None and target.logits.grad is None
    check_critic(objective, loss)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 2))
def test_weights_by_certainty_have_mean_one_and_order_rows_by_entropy(seed: int, least: float) -> None:
    logits = 3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    counted = certainty_weights(logits, least=least)
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    assert counted.mean().item() == pytest.approx(1)
    assert torch.equal(counted.argsort(), (-entropy).argsort())
    sure = certainty_weights(torch.tensor([[1e4, 0.0], [0.0, 0.0]]))  # and no not-a-number from 0 log 0
    assert torch.isfinite(sure).all()


def test_mdd_is_its_twin_and_turns_the_gradient() -> None:
    objective = made(MDD(margin=3.0, strength=0.7, widths=(5,)))
    source, target = batches()
    layers = weights(objective.critic)

    def loss(layers: list[Array], source: Array = SOURCE, target: Array = TARGET) -> float:
        first, second = softmax(says(layers, source)), softmax(says(layers, target))
        agree = sum(-math.log(row[LOGITS[place].argmax()]) for place, row in enumerate(first)) / 4
        contradict = sum(-math.log(1 - row[OTHERS[place].argmax()]) for place, row in enumerate(second)) / 3
        return 3 * agree + contradict

    value = objective(source, target)
    assert value.item() == pytest.approx(loss(layers))
    value.backward()
    strength = 0.7 * ramp(0.5)
    assert near(source.features.grad, -strength * slope(lambda rows: loss(layers, rows), SOURCE))
    assert near(target.features.grad, -strength * slope(lambda rows: loss(layers, target=rows), TARGET))
    assert source.logits.grad is None and target.logits.grad is None
    check_critic(objective, loss)


def test_the_margin_disparity_is_finite_where_probabilities_are_not_told_from_one() -> None:
    sure = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    value = margin_disparity(sure, sure, sure, sure, margin=1.0)  # -log(1 - p) = 200 - log 2
    value.backward()
    assert value.item() == pytest.approx(200 - math.log(2)) and torch.isfinite(sure.grad).all()
    with pytest.raises(ConfigError, match="two classes"):
        margin_disparity(*[torch.zeros(1, 1)] * 4)
    with pytest.raises(ShapeError, match="shapes must agree"):
        margin_disparity(sure, torch.zeros(1, 2), sure, sure)


def test_mdd_passes_gradcheck_at_the_second_classifier() -> None:
    seconds = [torch.from_numpy(RANDOM.normal(size=(3, 3))).requires_grad_() for _ in range(2)]
    fixed = torch.from_numpy(OTHERS)
    assert torch.autograd.gradcheck(lambda a, b: margin_disparity(fixed, a, fixed, b), seconds)


def test_gvb_is_its_twin_with_bridges_and_turns_the_gradient_at_the_logits() -> None:
    objective = made(GVB(features_bridge=0.3, critic_bridge=0.4, strength=0.7, widths=(5,)))
    source, target = batches()
    layers, bridge = weights(objective.critic), objective.bridge.weight.detach().numpy().copy()

    def counted(crossed: Array) -> Array:
        raw = np.array([math.exp(sum(p * math.log(p) for p in row)) for row in softmax(crossed)])
        return raw / raw.mean()

    counts = counted(LOGITS - SOURCE @ bridge.T), counted(OTHERS - TARGET @ bridge.T)

    def loss(layers: list[Array], source: Array = SOURCE, logits: Array = LOGITS, bridge: Array = bridge) -> float:
        said = [says(layers, softmax(z - f @ bridge.T)) for z, f in ((logits, source), (OTHERS, TARGET))]
        told = told_apart(said[0][:, 0] - said[0][:, 1], said[1][:, 0] - said[1][:, 1], *counts)
        return told + 0.4 * np.abs(np.concatenate(said)[:, 1]).mean()

    def size(source: Array = SOURCE, bridge: Array = bridge) -> float:
        return 0.3 * np.abs(np.concatenate([source, TARGET]) @ bridge.T).mean()

    value = objective(source, target)
    assert value.item() == pytest.approx(loss(layers) + size())
    value.backward()
    strength = 0.7 * ramp(0.5)
    assert near(source.logits.grad, -strength * slope(lambda rows: loss(layers, logits=rows), LOGITS))
    at_features = -strength * slope(lambda rows: loss(layers, rows), SOURCE) + slope(size, SOURCE)
    assert near(source.features.grad, at_features)
    at_bridge = -strength * slope(lambda b: loss(layers, bridge=b), bridge) + slope(lambda b: size(bridge=b), bridge)
    assert near(objective.bridge.weight.grad, at_bridge)
    check_critic(objective, loss)


def test_pada_is_its_twin_and_with_the_cross_entropy_the_papers_sum() -> None:
    objective = made(PADA(strength=0.7, widths=(5,)))
    objective.shares_k.copy_(torch.tensor([0.1, 0.4, 0.5]))
    source, target = batches()
    layers, gamma = weights(objective.critic), np.array([0.2, 0.8, 1.0])

    def loss(layers: list[Array], source: Array = SOURCE, target: Array = TARGET) -> float:
        return told_apart(says(layers, source)[:, 0], says(layers, target)[:, 0], gamma[LABELS])

    def classified(logits: Array) -> float:
        rows = zip(softmax(logits), LABELS, strict=True)
        return sum(gamma[label] * -math.log(row[label]) for row, label in rows) / 4

    value = objective(source, target) + CrossEntropy()(source)
    assert value.item() == pytest.approx(loss(layers) + classified(LOGITS))
    value.backward()
    strength = 0.7 * ramp(0.5)
    assert near(source.features.grad, -strength * slope(lambda rows: loss(layers, rows), SOURCE))
    assert near(target.features.grad, -strength * slope(lambda rows: loss(layers, target=rows), TARGET))
    assert near(source.logits.grad, slope(classified, LOGITS)) and target.logits.grad is None
    check_critic(objective, loss)


def test_pada_learns_which_classes_the_target_shows() -> None:
    objective = made(PADA(momentum=0.9, widths=()))
    source, target = batches()
    mean = softmax(OTHERS).mean(0)
    shares = np.full(3, 1 / 3)
    for _ in range(3):
        objective(source, target)
        objective.after_step()
        shares = 0.9 * shares + 0.1 * mean
    assert np.allclose(objective.shares_k.numpy(), shares)
    assert np.allclose(objective.class_weights().numpy(), shares / shares.max())
    objective.eval()
    objective(source, target)
    objective.after_step()
    assert np.allclose(objective.shares_k.numpy(), shares)  # rows that are only looked at teach nothing
    soft = Batch(
        labels=torch.nn.functional.one_hot(source.labels, 3).double(), features=source.features, logits=source.logits
    )
    assert torch.equal(objective(soft, target), objective(source, target))


def test_osbp_is_its_twin_and_turns_the_gradient_at_target_features_alone() -> None:
    network = Small().double()
    objective = made(OSBP(boundary=0.3, strength=0.7), network)
    source, target = batches()
    head, unknown = weights(network.heads["main"]), weights(objective.unknown)
    source.logits = network.heads["main"](source.features)

    def known(source: Array, head: list[Array] = head, unknown: list[Array] = unknown) -> float:
        whole = softmax(np.concatenate([says(head, source), says(unknown, source)], 1))
        return sum(-math.log(1 - row[3]) for row in whole) / 4

    def against(target: Array, head: list[Array] = head, unknown: list[Array] = unknown) -> float:
        whole = softmax(np.concatenate([says(head, target), says(unknown, target)], 1))
        return sum(-0.3 * math.log(row[3]) - 0.7 * math.log(1 - row[3]) for row in whole) / 3

    value = objective(source, target)
    assert value.item() == pytest.approx(known(SOURCE) + against(TARGET))
    value.backward()
    assert near(source.features.grad, slope(known, SOURCE))
    assert near(target.features.grad, -0.7 * slope(against, TARGET))
    for place, parameter in enumerate(network.heads["main"].parameters()):
        moved = lambda value, place=place: [*head[:place], value, *head[place + 1 :]]  # noqa: E731
        both = lambda value, moved=moved: known(SOURCE, moved(value)) + against(TARGET, moved(value))  # noqa: E731
        assert near(parameter.grad, slope(both, head[place]))
    for place, parameter in enumerate(objective.unknown.parameters()):
        moved = lambda value, place=place: [*unknown[:place], value, *unknown[place + 1 :]]  # noqa: E731
        both = lambda value, moved=moved: known(SOURCE, head, moved(value)) + against(TARGET, head, moved(value))  # noqa: E731
        assert near(parameter.grad, slope(both, unknown[place]))


def test_the_cross_entropy_and_osbp_are_that_of_one_class_more() -> None:
    network = Small().double()
    objective = made(OSBP(strength=0.0), network)
    source, target = batches()
    source.logits = network.heads["main"](source.features)
    whole = torch.cat([source.logits, objective.unknown_logits(source.features)[:, None]], 1)
    there = torch.cat([network.heads["main"](target.features), objective.unknown_logits(target.features)[:, None]], 1)
    last = there.softmax(1)[:, 3]
    expected = nn.functional.cross_entropy(whole, source.labels) - (last.log() + (1 - last).log()).mean() / 2
    assert (objective(source, target) + CrossEntropy()(source)).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("kind", [DANN, MultiDomainDANN, DomainConfusion, ADDA, CDAN, MDD, GVB, WDGRL, PADA, OSBP])
def test_before_prepare_and_without_a_target_they_say_what_is_missing(kind: type[Objective]) -> None:
    source, target = batches()
    with pytest.raises(ConfigError, match="call prepare"):
        kind()(source, target)
    if kind is not MultiDomainDANN:
        with pytest.raises(ConfigError, match="second stream"):
            made(kind())(source)


@pytest.mark.parametrize("kind", [CDAN, MDD, GVB, PADA, OSBP])
def test_what_needs_classes_refuses_numbers(kind: type[Objective]) -> None:
    with pytest.raises(ConfigError, match="one class for each row; this task is regression"):
        kind().prepare(Setup(Small(), Task("regression"), width=3))


def test_critics_with_spectral_norms_keep_their_state() -> None:
    first, second = (made(DANN(widths=(5,), spectral=True)) for _ in range(2))
    source, target = batches()
    first(source, target)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(source, target), first(source, target))
