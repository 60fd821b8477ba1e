"""Bi-tuning: the contrastive loss against a literal twin, queues, the slow projection, and resuming."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from headstart.core.errors import ConfigError, ShapeError
from headstart.objectives import Batch, BiTuning, Setup, contrastive_loss

RANDOM = np.random.default_rng(6)
QUERIES, OWN, KEYS = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=(4, 3)), RANDOM.normal(size=(7, 3))
LABELS, KEY_LABELS = np.array([0, 1, 2, 1]), np.array([1, 0, 1, 1, 0, 3, 3])


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / math.sqrt(sum(value**2 for value in vector))


def twin(
    queries: np.ndarray,
    own: np.ndarray,
    keys: np.ndarray,
    labels: np.ndarray,
    key_labels: np.ndarray,
    temperature: float,
) -> float:
    total = 0.0
    for i in range(len(queries)):
        everyone = [unit(own[i])] + [unit(key) for key in keys]
        positive = [True] + [label == labels[i] for label in key_labels]
        exponentials = [math.exp(float(unit(queries[i]) @ key) / temperature) for key in everyone]
        logs = [math.log(value / sum(exponentials)) for value, mine in zip(exponentials, positive, strict=True) if mine]
        total -= sum(logs) / len(logs)
    return total / len(queries)


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_the_loss_is_its_formula(temperature: float) -> None:
    arguments = tensors(QUERIES, OWN, KEYS, LABELS, KEY_LABELS)
    value = contrastive_loss(*arguments, temperature=temperature)
    assert value.item() == pytest.approx(twin(QUERIES, OWN, KEYS, LABELS, KEY_LABELS, temperature), rel=1e-9)
    alone = contrastive_loss(*arguments[:2], torch.zeros(0, 3), arguments[3], torch.zeros(0, dtype=torch.int64))
    assert alone.item() == pytest.approx(0.0, abs=1e-12)


def test_the_gradient_reaches_queries_and_keys() -> None:
    queries, own, keys, labels, key_labels = tensors(QUERIES, OWN, KEYS, LABELS, KEY_LABELS)
    assert torch.autograd.gradcheck(
        lambda q, o, k: contrastive_loss(q, o, k, labels, key_labels, temperature=0.5),
        tuple(each.requires_grad_() for each in (queries, own, keys)),
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_lengths_rotations_and_the_order_of_keys_do_not_matter(seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    rotation, order = torch.from_numpy(np.linalg.qr(random.normal(size=(3, 3)))[0]), random.permutation(7)
    queries, own, keys, labels, key_labels = tensors(QUERIES, OWN, KEYS, LABELS, KEY_LABELS)
    value = contrastive_loss(queries, own, keys, labels, key_labels)
    other = contrastive_loss(
        scale * queries @ rotation, own @ rotation, keys[order] @ rotation * scale, labels, key_labels[order]
    )
    assert torch.allclose(value, other)
    assert value.item() >= 0


def twin_objective(
    objective: BiTuning, batch: Batch, keys: list[tuple[int, np.ndarray, np.ndarray]], linear: nn.Linear
) -> float:
    """Both losses, from the queues as a plain list of (label, features, projection)."""

    def array(tensor: torch.Tensor) -> np.ndarray:
        return tensor.detach().double().numpy()

    features, slow = array(batch.features), array(batch.teacher_features)
    ones = np.ones((len(features), 1))
    rows = np.concatenate([array(linear.weight), array(linear.bias)[:, None]], axis=1)
    labels = batch.labels.numpy()
    key_labels = np.array([key[0] for key in keys], dtype=int)
    hidden = np.array([key[1] for key in keys]).reshape(len(keys), features.shape[1] + 1)
    projected = np.array([key[2] for key in keys]).reshape(len(keys), objective.width)
    t = objective.temperature
    cce = twin(rows[labels], np.concatenate([features, ones], axis=1), hidden, labels, key_labels, t)
    queries = features @ array(objective.projection.weight).T
    return cce + twin(queries, slow @ array(objective.slow_ed).T, projected, labels, key_labels, t)


def test_the_objective_is_both_losses_over_its_queues(world: Any) -> None:
    objective = BiTuning(temperature=0.5, num_keys=2, width=4, momentum=0.75, weight=0.5)
    objective.prepare(world.setup())
    batch, linear = world.batch(), world.network.heads["main"]
    assert objective(batch).item() == pytest.approx(0.5 * twin_objective(objective, batch, [], linear), abs=1e-5)
    projections = (batch.teacher_features @ objective.slow_ed.T).double().numpy()
    hidden = np.concatenate([batch.teacher_features.double().numpy(), np.ones((8, 1))], axis=1)
    with torch.no_grad():
        objective.projection.weight.add_(1.0)
    slow = objective.slow_ed.clone()
    objective.after_step()
    assert torch.allclose(objective.slow_ed, 0.75 * slow + 0.25 * objective.projection.weight)
    assert objective.lengths_k.tolist() == [2, 2, 2]
    labels = world.labels.tolist()  # 0 1 2 0 1 2 1 0: the last two rows of each class stay
    newest = {label: [row for row in range(8) if labels[row] == label][-2:] for label in range(3)}
    keys = [(label, hidden[row], projections[row]) for label, rows in newest.items() for row in rows]
    assert objective(batch).item() == pytest.approx(0.5 * twin_objective(objective, batch, keys, linear), rel=1e-4)


def test_the_classifier_and_the_projection_learn_and_keys_do_not(world: Any) -> None:
    objective = BiTuning(width=4)
    objective.prepare(world.setup())
    objective(world.batch())
    objective.after_step()
    batch = world.batch()
    batch.teacher_features.requires_grad_()
    objective(batch).backward()
    assert (
        world.network.heads["main"].weight.grad.abs().sum() > 0
    )  # published code cuts this gradient; the formula has it
    assert objective.projection.weight.grad.abs().sum() > 0
    assert world.network.segments[1][0].weight.grad.abs().sum() > 0
    assert batch.teacher_features.grad is None
    assert [name for name, _ in objective.named_parameters()] == ["projection.weight"]


def test_looking_does_not_fill_queues_and_several_batches_of_a_step_do(world: Any) -> None:
    objective = BiTuning(num_keys=20)
    objective.prepare(world.setup())
    objective.eval()(world.batch())
    objective.after_step()
    assert objective.lengths_k.tolist() == [0, 0, 0]
    objective.train()
    objective(world.batch())
    objective(world.batch())
    objective.after_step()
    objective.after_step()
    assert objective.lengths_k.tolist() == [6, 6, 4]
    assert objective.next_k.tolist() == [6, 6, 4]


def test_a_killed_run_goes_on_with_its_queues(world: Any, make_world: Any) -> None:
    objective = BiTuning(num_keys=3)
    objective.prepare(world.setup())
    objective(world.batch())
    objective.after_step()
    state = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    expected = objective(world.batch()).item()
    other = make_world()
    resumed = BiTuning(num_keys=3)
    resumed.prepare(other.setup())
    other.batch()
    resumed.load_state_dict(state)
    assert resumed(other.batch()).item() == expected


@pytest.mark.parametrize(
    ("head", "accepted"),
    [
        (nn.Linear(5, 3), True),
        (nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(5, 3, bias=False)), True),
        (nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3)), False),
        (nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 3)), False),
        (nn.Identity(), False),
    ],
)
def test_the_head_must_be_linear(world: Any, head: nn.Module, accepted: bool) -> None:
    world.network.heads["main"] = head
    objective = BiTuning()
    if accepted:
        objective.prepare(world.setup())
        assert torch.isfinite(objective(world.batch()))
    else:
        with pytest.raises(ConfigError, match="one linear layer"):
            objective.prepare(world.setup())


def test_bad_input_is_refused(world: Any) -> None:
    queries, own, keys, labels, key_labels = tensors(QUERIES, OWN, KEYS, LABELS, KEY_LABELS)
    with pytest.raises(ShapeError, match="one width"):
        contrastive_loss(queries, own[:, :2], keys, labels, key_labels)
    with pytest.raises(ShapeError, match="one width"):
        contrastive_loss(queries, own, keys[:, :2], labels, key_labels)
    with pytest.raises(ShapeError, match="7 rows but key labels has 6"):
        contrastive_loss(queries, own, keys, labels, key_labels[:6])
    with pytest.raises(ConfigError, match="call prepare"):
        BiTuning()(world.batch())
    with pytest.raises(ConfigError, match="needs a head 'other'"):
        BiTuning(head="other").prepare(world.setup())
    for wrong in ({"temperature": 0}, {"num_keys": 0}, {"width": 0}, {"momentum": 2}):
        with pytest.raises(ConfigError):
            BiTuning(**wrong)  # type: ignore[arg-type]
    objective = BiTuning()
    objective.prepare(Setup(world.network, world.task))
    with pytest.raises(ShapeError, match="class numbers"):
        objective(Batch(labels=torch.zeros(8, 3), features=torch.zeros(8, 5), teacher_features=torch.zeros(8, 5)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert objective(world.batch()).dtype == torch.float32
