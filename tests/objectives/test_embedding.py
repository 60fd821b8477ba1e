"""The embedding loss and its Gaussian neighbourhood."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from headstart.core.errors import ConfigError, ShapeError
from headstart.objectives import Batch, Embedding, embedding_loss, gaussian_affinity

RANDOM = np.random.default_rng(2)
LABELS, OUTPUTS, AFFINITY = RANDOM.dirichlet(np.ones(3), size=4), RANDOM.normal(size=(5, 3)), RANDOM.random((4, 5))
SOURCE, TARGET = RANDOM.normal(size=(4, 2)), RANDOM.normal(size=(5, 2))


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def twin(form: str, labels: np.ndarray, outputs: np.ndarray, affinity: np.ndarray) -> float:
    total = 0.0
    for i in range(len(labels)):
        for j in range(len(outputs)):
            if form == "squared":
                cost = sum((labels[i, c] - outputs[j, c]) ** 2 for c in range(labels.shape[1]))
            else:
                normaliser = math.log(sum(math.exp(value) for value in outputs[j]))
                cost = sum(-labels[i, c] * (outputs[j, c] - normaliser) for c in range(labels.shape[1]))
            total += affinity[i, j] * cost
    return total / len(labels)


def twin_affinity(source: np.ndarray, target: np.ndarray, bandwidth: float) -> np.ndarray:
    squared = np.array([[sum((a - b) ** 2) for b in target] for a in source])
    kernel = np.exp(-squared / (2 * bandwidth**2 * squared.mean()))
    return kernel / kernel.sum(1, keepdims=True)


@pytest.mark.parametrize("form", ["squared", "cross-entropy"])
def test_it_is_its_formula(form: str) -> None:
    value = embedding_loss(*tensors(LABELS, OUTPUTS, AFFINITY), form=form)
    assert value.item() == pytest.approx(twin(form, LABELS, OUTPUTS, AFFINITY), rel=1e-12)
    labels, outputs, affinity = tensors(LABELS, OUTPUTS, AFFINITY)
    assert torch.autograd.gradcheck(
        lambda o: embedding_loss(labels, o, affinity, form=form), (outputs.requires_grad_(),)
    )


@pytest.mark.parametrize("bandwidth", [0.3, 2.0])
def test_affinity_is_its_formula_and_knows_no_scale_nor_place(bandwidth: float) -> None:
    value = gaussian_affinity(*tensors(SOURCE, TARGET), bandwidth=bandwidth)
    assert np.allclose(value.numpy(), twin_affinity(SOURCE, TARGET, bandwidth))
    moved = gaussian_affinity(*tensors(7 * SOURCE + 3, 7 * TARGET + 3), bandwidth=bandwidth)
    assert torch.allclose(moved, value)
    assert torch.allclose(value.sum(1), torch.ones(4, dtype=torch.float64))
    assert torch.allclose(gaussian_affinity(torch.ones(2, 3), torch.ones(4, 3)), torch.full((2, 4), 0.25))


def test_the_objective_spreads_labels_to_the_target_rows() -> None:
    features, more, logits = tensors(SOURCE, TARGET, OUTPUTS)
    classes = torch.tensor([0, 2, 1, 0])
    source, target = Batch(labels=classes, features=features), Batch(features=more, logits=logits)
    affinity = twin_affinity(SOURCE, TARGET, 0.5)
    hot = np.eye(3)[classes.numpy()]
    assert Embedding(weight=2.0)(source, target).item() == pytest.approx(
        2 * twin("cross-entropy", hot, OUTPUTS, affinity)
    )
    softmax = np.exp(OUTPUTS) / np.exp(OUTPUTS).sum(1, keepdims=True)
    assert Embedding("squared")(source, target).item() == pytest.approx(twin("squared", hot, softmax, affinity))
    soft = Batch(labels=torch.from_numpy(LABELS), features=features)
    assert Embedding()(soft, target).item() == pytest.approx(twin("cross-entropy", LABELS, OUTPUTS, affinity))
    numbers = Batch(labels=torch.from_numpy(LABELS[:, 0]), features=features)
    outputs = Batch(features=more, logits=logits[:, :1])
    assert Embedding("squared")(numbers, outputs).item() == pytest.approx(
        twin("squared", LABELS[:, :1], OUTPUTS[:, :1], affinity)
    )


def test_without_target_rows_the_batch_is_its_own_neighbourhood_and_nearness_gets_no_gradient() -> None:
    features = torch.from_numpy(SOURCE).requires_grad_()
    logits = torch.from_numpy(OUTPUTS[:4]).requires_grad_()
    batch = Batch(labels=torch.tensor([0, 2, 1, 0]), features=features, logits=logits)
    value = Embedding()(batch)
    hot = np.eye(3)[[0, 2, 1, 0]]
    assert value.item() == pytest.approx(twin("cross-entropy", hot, OUTPUTS[:4], twin_affinity(SOURCE, SOURCE, 0.5)))
    value.backward()
    assert features.grad is None
    assert logits.grad.abs().sum() > 0


def test_half_precision_and_bad_input() -> None:
    labels, outputs, affinity = tensors(LABELS, OUTPUTS, AFFINITY)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (
            embedding_loss(labels.half(), outputs.half(), affinity.half(), form="cross-entropy").dtype == torch.float32
        )
    assert gaussian_affinity(torch.ones(2, 3).half(), torch.ones(2, 3).half()).dtype == torch.float32
    for wrong in ((labels[:3], outputs, affinity), (labels, outputs[:, :2], affinity), (labels, outputs[:4], affinity)):
        with pytest.raises(ShapeError, match="must fit"):
            embedding_loss(*wrong)
    with pytest.raises(ShapeError, match="3 features but target has 2"):
        gaussian_affinity(torch.ones(2, 3), torch.ones(2, 2))
    with pytest.raises(ConfigError, match="form is one of"):
        Embedding("l1")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="bandwidth is above 0"):
        Embedding(bandwidth=0.0)
