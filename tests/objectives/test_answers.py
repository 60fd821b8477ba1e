"""Losses between two networks' answers or features: distillation, LwF, consistency, mapping, discrepancy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core.errors import ConfigError, ShapeError
from headstart.objectives import (
    Batch,
    ClassifierDiscrepancy,
    Consistency,
    Distillation,
    FeatureMapping,
    LwF,
    OutputMapping,
    classifier_discrepancy,
    consistency_loss,
    cross_entropy,
    distillation_loss,
    feature_mapping_loss,
    kl_divergence,
    lwf_loss,
)

RANDOM = np.random.default_rng(1)
FIRST, SECOND = RANDOM.normal(size=(6, 4)) * 2, RANDOM.normal(size=(6, 4)) * 2
A, B = torch.from_numpy(FIRST), torch.from_numpy(SECOND)


def twin_softmax(row: np.ndarray, temperature: float = 1.0) -> list[float]:
    exponentials = [math.exp(value / temperature) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def twin_kl(first: np.ndarray, second: np.ndarray, temperature: float = 1.0) -> float:
    total = 0.0
    for one, other in zip(first, second, strict=True):
        p, q = twin_softmax(one, temperature), twin_softmax(other, temperature)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(first)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_kl_and_distillation_are_their_formulas_in_either_direction(temperature: float) -> None:
    assert kl_divergence(A, B, temperature=temperature).item() == pytest.approx(twin_kl(FIRST, SECOND, temperature))
    forward = distillation_loss(A, B, temperature=temperature)
    reverse = distillation_loss(A, B, temperature=temperature, direction="reverse")
    assert forward.item() == pytest.approx(temperature**2 * twin_kl(SECOND, FIRST, temperature))
    assert reverse.item() == pytest.approx(temperature**2 * twin_kl(FIRST, SECOND, temperature))


def test_the_squared_temperature_keeps_the_size_of_the_gradient() -> None:
    sizes = []
    for temperature in (20.0, 200.0):
        student = A.clone().requires_grad_()
        distillation_loss(student, B, temperature=temperature).backward()
        sizes.append(student.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)  # Hinton 2015, section 2.1: equal in the limit


def test_lwf_is_its_formula_with_probabilities_to_the_power_of_one_over_t() -> None:
    total = 0.0
    for one, other in zip(FIRST, SECOND, strict=True):
        kept = [p ** (1 / 2) for p in twin_softmax(other)]
        new = [p ** (1 / 2) for p in twin_softmax(one)]
        total -= sum(k / sum(kept) * math.log(n / sum(new)) for k, n in zip(kept, new, strict=True))
    assert lwf_loss(A, B, temperature=2.0).item() == pytest.approx(total / len(FIRST))


def test_lwf_is_distillation_without_the_squared_temperature_and_with_the_entropy_of_the_base_model() -> None:
    entropy = -(torch.softmax(B / 2, 1) * torch.log_softmax(B / 2, 1)).sum(1).mean()
    assert torch.allclose(lwf_loss(A, B), distillation_loss(A, B, temperature=2.0) / 4 + entropy)
    assert torch.allclose(lwf_loss(A, B, temperature=1.0), cross_entropy(A, torch.softmax(B, 1)))


def test_consistency_is_its_formulas_without_dividing_by_the_number_of_classes() -> None:
    squared = np.mean(
        [
            sum((a - b) ** 2 for a, b in zip(twin_softmax(one), twin_softmax(other), strict=True))
            for one, other in zip(FIRST, SECOND, strict=True)
        ]
    )
    assert consistency_loss(A, B).item() == pytest.approx(squared)
    mean_over_classes = torch.nn.functional.mse_loss(torch.softmax(A, 1), torch.softmax(B, 1))  # the authors' code
    assert mean_over_classes.item() == pytest.approx(squared / 4)
    assert consistency_loss(A, B, form="kl").item() == pytest.approx(twin_kl(FIRST, SECOND))


def test_mapping_and_discrepancy_are_their_formulas() -> None:
    assert feature_mapping_loss(A, B).item() == pytest.approx(
        sum(
            sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) for one, other in zip(FIRST, SECOND, strict=True)
        )
        / 6
    )
    gaps = [
        abs(a - b)
        for one, other in zip(FIRST, SECOND, strict=True)
        for a, b in zip(twin_softmax(one), twin_softmax(other), strict=True)
    ]
    assert classifier_discrepancy(A, B).item() == pytest.approx(sum(gaps) / 4 / 6)


PAIRS: list[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = [
    kl_divergence,
    lambda a, b: distillation_loss(a, b, temperature=3.0),
    lambda a, b: distillation_loss(a, b, temperature=3.0, direction="reverse"),
    lwf_loss,
    consistency_loss,
    lambda a, b: consistency_loss(a, b, form="kl"),
    feature_mapping_loss,
    classifier_discrepancy,
]


@pytest.mark.parametrize("loss", PAIRS)
def test_gradients_widening_and_bad_shapes(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    assert torch.autograd.gradcheck(lambda a: loss(a, B), (A.clone().requires_grad_(),))
    assert loss(A, B).dtype == torch.float64
    half = loss(A.half(), B.half())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(loss(A, B).item(), rel=2e-2)
    for bad in (B[:3], B[:, :3], B[0]):
        with pytest.raises(ShapeError, match=r"shapes must agree|must be a matrix"):
            loss(A, bad)


@pytest.mark.parametrize("loss", [PAIRS[1], PAIRS[2], PAIRS[3], PAIRS[4], PAIRS[5]])
def test_no_gradient_flows_to_the_teacher(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    teacher = B.clone().requires_grad_()
    loss(A.clone().requires_grad_(), teacher).backward()
    assert teacher.grad is None


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_divergences_are_zero_on_themselves_and_else_not_negative(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = torch.from_numpy(random.normal(size=(3, 4))), torch.from_numpy(random.normal(size=(3, 4)))
    order = torch.from_numpy(random.permutation(3))
    for number, loss in enumerate(PAIRS):
        if loss is not lwf_loss:
            assert loss(a, a).item() == pytest.approx(0.0, abs=1e-12), number
        assert loss(a, b).item() > 0
        assert torch.allclose(loss(a[order], b[order]), loss(a, b))
    assert torch.allclose(classifier_discrepancy(a, b), classifier_discrepancy(b, a))
    assert classifier_discrepancy(1e3 * a, 1e3 * b).item() <= 2 / 4 + 1e-12
    assert lwf_loss(a, b) >= lwf_loss(b, b)  # cross-entropy is least on itself


def both(field: str, first: torch.Tensor, second: torch.Tensor) -> tuple[Batch, Batch]:
    keys = {"head": "head_logits", "main": "logits", "features": "features"}
    given = {"head": "base_logits", "main": "teacher_logits", "features": "base_features"}[field]

    def batch(a: torch.Tensor, b: torch.Tensor) -> Batch:
        value = {"source": a} if field == "head" else a
        return Batch(**{keys[field]: value, given: b})

    return batch(first[:2], second[:2]), batch(first[2:], second[2:])


@pytest.mark.parametrize(
    ("make", "field", "pure"),
    [
        (lambda rows: Distillation(3.0, "reverse", rows=rows, weight=0.5), "head", PAIRS[2]),
        (lambda rows: OutputMapping(rows=rows, weight=0.5), "head", consistency_loss),
        (lambda rows: Consistency("kl", rows=rows, weight=0.5), "main", PAIRS[5]),
        (lambda rows: FeatureMapping(rows=rows, weight=0.5), "features", feature_mapping_loss),
    ],
)
def test_an_objective_is_its_function_on_the_rows_it_names(make: object, field: str, pure: object) -> None:
    source, target = both(field, A, B)
    parts = {"source": slice(0, 2), "target": slice(2, 6), "both": slice(0, 6)}
    for rows, part in parts.items():
        assert torch.allclose(make(rows)(source, target), 0.5 * pure(A[part], B[part]))  # type: ignore[operator]
    with pytest.raises(ConfigError, match="rows is one of source, target, both"):
        make("all")  # type: ignore[operator]


def test_lwf_and_discrepancy_as_objectives() -> None:
    batch = Batch(head_logits={"source": A}, base_logits=B)
    assert torch.equal(LwF(weight=3.0)(batch), 3.0 * lwf_loss(A, B))
    heads = Batch(logits=A, head_logits={"main": A, "second": B})
    assert torch.equal(ClassifierDiscrepancy(weight=-1.0)(Batch(), heads), -classifier_discrepancy(A, B))
    with pytest.raises(ConfigError, match="second stream"):
        ClassifierDiscrepancy()(heads)
    with pytest.raises(ConfigError, match="two different heads"):
        ClassifierDiscrepancy("main", "main")


def test_a_learned_mapping_joins_two_widths() -> None:
    objective = FeatureMapping(width=4, base_width=3, seed=1)
    base = torch.from_numpy(RANDOM.normal(size=(6, 3))).float()
    batch = Batch(features=A.float(), base_features=base)
    twin = np.mean(
        np.sum((FIRST @ objective.mapping.weight.detach().double().numpy().T - base.double().numpy()) ** 2, axis=1)
    )
    assert objective(batch).item() == pytest.approx(twin, rel=1e-5)
    optimiser = torch.optim.LBFGS(objective.parameters(), max_iter=50)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = objective(batch)
        loss.backward()
        return loss

    optimiser.step(closure)
    best = np.linalg.lstsq(FIRST, base.double().numpy(), rcond=None)[0]
    assert objective(batch).item() == pytest.approx(
        np.mean(np.sum((FIRST @ best - base.double().numpy()) ** 2, axis=1)), rel=1e-3
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert objective(batch).dtype == torch.float32
    with pytest.raises(ConfigError, match="both width and base_width"):
        FeatureMapping(width=4)
