"""Supervised losses against literal NumPy twins in float64, torch, hand values and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from headstart.core.errors import ConfigError, ShapeError
from headstart.core.tasks import Task
from headstart.objectives import (
    Batch,
    BinaryCrossEntropy,
    CrossEntropy,
    SquaredError,
    balanced_class_weights,
    binary_cross_entropy,
    cross_entropy,
    squared_error,
    supervised_objective,
)

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(5, 3)) * 3
CLASSES = np.array([0, 2, 1, 1, 0])
SOFT = RANDOM.dirichlet(np.ones(3), size=5)
INDICATORS = (RANDOM.random((5, 3)) < 0.5).astype(float)


def twin_cross_entropy(logits: np.ndarray, soft: np.ndarray, smoothing: float, weights: list[float]) -> float:
    total = 0.0
    num_classes = logits.shape[1]
    for row, label in zip(logits, soft, strict=True):
        exponentials = [math.exp(value) for value in row]
        for c in range(num_classes):
            q = (1 - smoothing) * label[c] + smoothing / num_classes
            total += weights[c] * q * -math.log(exponentials[c] / sum(exponentials))
    return total / len(logits)


def twin_binary(logits: np.ndarray, labels: np.ndarray, smoothing: float, weights: list[float]) -> float:
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        for c, value in enumerate(row):
            p = 1 / (1 + math.exp(-value))
            q = (1 - smoothing) * label[c] + smoothing / 2
            total += weights[c] * (-q * math.log(p) - (1 - q) * math.log(1 - p))
    return total / labels.size


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0]])
def test_cross_entropy_is_its_formula(smoothing: float, weights: list[float] | None) -> None:
    logits = torch.from_numpy(LOGITS)
    for labels, soft in ((torch.from_numpy(CLASSES), np.eye(3)[CLASSES]), (torch.from_numpy(SOFT), SOFT)):
        value = cross_entropy(logits, labels, label_smoothing=smoothing, class_weights=weights)
        assert value.item() == pytest.approx(
            twin_cross_entropy(LOGITS, soft, smoothing, weights or [1.0] * 3), rel=1e-12
        )


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0]])
def test_binary_cross_entropy_is_its_formula(smoothing: float, weights: list[float] | None) -> None:
    value = binary_cross_entropy(
        torch.from_numpy(LOGITS), torch.from_numpy(INDICATORS), label_smoothing=smoothing, class_weights=weights
    )
    assert value.item() == pytest.approx(twin_binary(LOGITS, INDICATORS, smoothing, weights or [1.0] * 3), rel=1e-12)


def test_squared_error_is_its_formula() -> None:
    truth = RANDOM.normal(size=(5, 3))
    value = squared_error(torch.from_numpy(LOGITS), torch.from_numpy(truth))
    assert value.item() == pytest.approx(np.mean((LOGITS - truth) ** 2), rel=1e-12)
    column = squared_error(torch.from_numpy(LOGITS[:, :1]), torch.from_numpy(truth[:, 0]))
    assert column.item() == pytest.approx(np.mean((LOGITS[:, 0] - truth[:, 0]) ** 2), rel=1e-12)


def test_without_options_it_is_torch() -> None:
    logits, labels = torch.from_numpy(LOGITS), torch.from_numpy(CLASSES)
    assert torch.equal(cross_entropy(logits, labels), functional.cross_entropy(logits, labels))


def test_weighted_losses_of_parts_average_to_that_of_the_whole_as_torch_does_not_for_class_numbers() -> None:
    logits, labels, weights = torch.from_numpy(LOGITS[:4]), torch.from_numpy(CLASSES[:4]), [1.0, 5.0, 0.1]
    whole = cross_entropy(logits, labels, class_weights=weights)
    halves = [cross_entropy(logits[i : i + 2], labels[i : i + 2], class_weights=weights) for i in (0, 2)]
    assert (sum(halves) / 2).item() == pytest.approx(whole.item(), rel=1e-12)
    tensor = torch.tensor(weights, dtype=torch.float64)
    theirs = [functional.cross_entropy(logits[i : i + 2], labels[i : i + 2], tensor) for i in (0, 2)]
    assert abs((sum(theirs) / 2 - functional.cross_entropy(logits, labels, tensor)).item()) > 1e-2


def test_gradients() -> None:
    logits = torch.from_numpy(LOGITS).requires_grad_()
    weights = [0.5, 2.0, 1.0]
    assert torch.autograd.gradcheck(
        lambda z: cross_entropy(z, torch.from_numpy(CLASSES), label_smoothing=0.1, class_weights=weights), (logits,)
    )
    assert torch.autograd.gradcheck(lambda z: binary_cross_entropy(z, torch.from_numpy(INDICATORS)), (logits,))
    assert torch.autograd.gradcheck(lambda z: squared_error(z, torch.from_numpy(INDICATORS)), (logits,))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(-50, 50))
def test_cross_entropy_does_not_see_a_constant_nor_the_order_of_rows(seed: int, constant: float) -> None:
    random = np.random.default_rng(seed)
    logits, labels = torch.from_numpy(random.normal(size=(4, 3))), torch.from_numpy(random.integers(3, size=4))
    order = torch.from_numpy(random.permutation(4))
    value = cross_entropy(logits, labels)
    assert torch.allclose(cross_entropy(logits + constant, labels), value, atol=1e-9)
    assert torch.allclose(cross_entropy(logits[order], labels[order]), value)


def test_half_precision_is_computed_in_float32() -> None:
    logits, labels = torch.tensor([[1000.0, 0.0]], dtype=torch.float16), torch.tensor([1])
    assert cross_entropy(logits, labels).dtype == torch.float32
    assert cross_entropy(logits, labels).item() == 1000.0
    numbers = torch.full((1, 1), 300.0, dtype=torch.float16)
    assert squared_error(numbers, torch.zeros(1)).item() == 90000.0  # beyond what float16 holds
    assert binary_cross_entropy(logits, torch.tensor([[1.0, 1.0]])).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cross_entropy(torch.zeros(2), torch.tensor([0, 1])), "must be a matrix"),
        (lambda: cross_entropy(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)), "at least 1 rows"),
        (lambda: cross_entropy(torch.zeros(2, 2), torch.tensor([0])), "2 rows but labels has 1"),
        (lambda: cross_entropy(torch.zeros(2, 2), torch.tensor([0, 2])), r"0\.\.1; got 0 to 2"),
        (lambda: cross_entropy(torch.zeros(2, 2), torch.tensor([0, -1])), r"0\.\.1; got -1 to 0"),
        (lambda: cross_entropy(torch.zeros(2, 2), torch.zeros(2)), "class numbers"),
        (lambda: cross_entropy(torch.zeros(2, 2), torch.zeros(2, 3)), "3 classes but logits 2"),
        (lambda: cross_entropy(torch.zeros(1, 2), torch.tensor([0]), class_weights=[1.0]), "one class weight for each"),
        (lambda: binary_cross_entropy(torch.zeros(2, 2), torch.zeros(2, 3)), "indicators of shape"),
        (lambda: squared_error(torch.zeros(2, 2), torch.zeros(2)), "one number for each output"),
    ],
)
def test_bad_shapes_are_refused(call: object, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        call()  # type: ignore[operator]


def test_bad_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="label_smoothing lies between 0 and 1"):
        CrossEntropy(label_smoothing=1.5)
    with pytest.raises(ConfigError, match="at least 0; got -1"):
        BinaryCrossEntropy(class_weights=[1, -1])
    with pytest.raises(ConfigError, match="no classes to smooth"):
        supervised_objective(Task("regression"), label_smoothing=0.1)


def test_the_task_chooses_the_loss() -> None:
    classes = ("a", "b")
    chosen = supervised_objective(
        Task("classification", classes), label_smoothing=0.1, class_weights=[1, 2], head="h", weight=3
    )
    assert isinstance(chosen, CrossEntropy)
    assert chosen.config() == {"label_smoothing": 0.1, "class_weights": [1.0, 2.0], "head": "h", "weight": 3}
    assert isinstance(supervised_objective(Task("multilabel", classes)), BinaryCrossEntropy)
    assert isinstance(supervised_objective(Task("regression")), SquaredError)
    batch = Batch(labels=torch.tensor([[1.0, 0.0]]), logits=torch.zeros(1, 2))
    assert supervised_objective(Task("multilabel", classes), weight=2.0)(batch).item() == pytest.approx(2 * math.log(2))


def test_balanced_weights_give_every_class_the_same_say() -> None:
    targets = np.array([0] * 6 + [1] * 2 + [3])
    weights = balanced_class_weights(targets, 4)
    assert weights == (0.5, 1.5, 1.0, 3.0)
    assert np.mean([weights[target] for target in targets]) == pytest.approx(1.0)
    assert balanced_class_weights(np.array([[1, 0], [1, 1]]), 2) == (0.75, 1.5)
