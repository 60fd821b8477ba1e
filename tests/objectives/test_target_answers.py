"""What target rows' answers say of themselves: entropy, class confusion, nuclear norm, information, density, and sure labels."""

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
    BNM,
    MCC,
    Batch,
    Entropy,
    FixMatch,
    FlexMatch,
    InfoMax,
    MeanTeacher,
    NeighbourhoodDensity,
    Setup,
    batch_nuclear_norm,
    class_confusion,
    confident_loss,
    curriculum_thresholds,
    entropy_of_mean,
    gaussian_ramp,
    information_maximisation,
    mean_entropy,
    neighbourhood_density,
    row_entropies,
    teacher_loss,
)

RANDOM = np.random.default_rng(11)
LOGITS, CHANGED = RANDOM.normal(size=(7, 4)) * 2, RANDOM.normal(size=(7, 4))


def softmax(row: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    exponentials = [math.exp(value / temperature) for value in row]
    return np.array([value / sum(exponentials) for value in exponentials])


def entropy(row: np.ndarray) -> float:
    return -sum(value * math.log(value) for value in row)


def twin_confusion(logits: np.ndarray, temperature: float) -> float:
    rows = [softmax(row, temperature) for row in logits]
    sure = [1 + math.exp(-entropy(row)) for row in rows]
    k = logits.shape[1]
    confusion = np.zeros((k, k))
    for row, weight in zip(rows, sure, strict=True):
        for c in range(k):
            for other in range(k):
                confusion[c, other] += len(rows) * weight / sum(sure) * row[c] * row[other]
    return sum(confusion[c, o] / confusion[c].sum() for c in range(k) for o in range(k) if o != c) / k


def twin_nuclear(logits: np.ndarray) -> float:
    rows = np.array([softmax(row) for row in logits])
    return float(sum(math.sqrt(max(value, 0.0)) for value in np.linalg.eigvalsh(rows.T @ rows)) / len(rows))


def twin_fast(logits: np.ndarray) -> float:
    rows = np.array([softmax(row) for row in logits])
    lengths = sorted((math.sqrt(sum(rows[:, c] ** 2)) for c in range(rows.shape[1])), reverse=True)
    return sum(lengths[: min(rows.shape)]) / len(rows)


def twin_information(logits: np.ndarray, diversity: float) -> float:
    rows = np.array([softmax(row) for row in logits])
    return float(np.mean([entropy(row) for row in rows]) - diversity * entropy(rows.mean(0)))


def twin_density(logits: np.ndarray, temperature: float) -> float:
    rows = [softmax(row) for row in logits]
    total = 0.0
    for i, row in enumerate(rows):
        near = [
            math.exp(float(row @ other) / math.sqrt(row @ row) / math.sqrt(other @ other) / temperature)
            for j, other in enumerate(rows)
            if j != i
        ]
        total += entropy(np.array(near) / sum(near))
    return total / len(rows)


def twin_confident(logits: np.ndarray, changed: np.ndarray, thresholds: list[float]) -> float:
    total = 0.0
    for row, other in zip(logits, changed, strict=True):
        answer = softmax(row)
        label = int(answer.argmax())
        if answer[label] >= thresholds[label]:
            total -= math.log(softmax(other)[label])
    return total / len(logits)


def twin_teacher(logits: np.ndarray, teacher: np.ndarray, threshold: float) -> float:
    total = 0.0
    for row, other in zip(logits, teacher, strict=True):
        if max(softmax(other)) >= threshold:
            total += float(np.mean((softmax(row) - softmax(other)) ** 2))
    return total / len(logits)


FORMULAS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[np.ndarray], float]]] = {
    "entropy": (
        lambda z: mean_entropy(z, temperature=1.5),
        lambda z: float(np.mean([entropy(softmax(row, 1.5)) for row in z])),
    ),
    "confusion": (class_confusion, lambda z: twin_confusion(z, 2.5)),
    "confusion at 1": (lambda z: class_confusion(z, temperature=1.0), lambda z: twin_confusion(z, 1.0)),
    "nuclear": (batch_nuclear_norm, twin_nuclear),
    "fast": (lambda z: batch_nuclear_norm(z, fast=True), twin_fast),
    "fast, few rows": (lambda z: batch_nuclear_norm(z[:3], fast=True), lambda z: twin_fast(z[:3])),
    "information": (information_maximisation, lambda z: twin_information(z, 1.0)),
    "half as diverse": (lambda z: information_maximisation(z, diversity=0.5), lambda z: twin_information(z, 0.5)),
    "density": (lambda z: neighbourhood_density(z, temperature=0.3), lambda z: twin_density(z, 0.3)),
    "confident": (
        lambda z: confident_loss(torch.from_numpy(LOGITS), z, 0.6),
        lambda z: twin_confident(LOGITS, z, [0.6] * 4),
    ),
    "confident, by class": (
        lambda z: confident_loss(torch.from_numpy(LOGITS), z, torch.tensor([0.2, 0.9, 0.6, 0.5])),
        lambda z: twin_confident(LOGITS, z, [0.2, 0.9, 0.6, 0.5]),
    ),
    "teacher": (
        lambda z: teacher_loss(z, torch.from_numpy(CHANGED), threshold=0.5),
        lambda z: twin_teacher(z, CHANGED, 0.5),
    ),
}


def numeric_gradient(twin: Callable[[np.ndarray], float], logits: np.ndarray, step: float = 1e-5) -> np.ndarray:
    gradient = np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        up, down = logits.copy(), logits.copy()
        up[place] += step
        down[place] -= step
        gradient[place] = (twin(up) - twin(down)) / (2 * step)
    return gradient


@pytest.mark.parametrize("name", FORMULAS)
def test_value_and_gradient_are_those_of_the_formula(name: str) -> None:
    ours, twin = FORMULAS[name]
    given_logits = CHANGED if name.startswith("confident") else LOGITS
    logits = torch.from_numpy(given_logits).requires_grad_()
    value = ours(logits)
    assert value.item() == pytest.approx(twin(given_logits), rel=1e-9)
    value.backward()
    if not name.startswith("confusion"):  # whose weights of sure rows carry no gradient
        np.testing.assert_allclose(logits.grad.numpy(), numeric_gradient(twin, given_logits), atol=1e-8)


def test_confusion_learns_from_everything_but_the_weights_of_sure_rows() -> None:
    rows = [softmax(row, 2.5) for row in LOGITS]
    sure = np.array([1 + math.exp(-entropy(row)) for row in rows])
    weights = len(rows) * sure / sure.sum()

    def with_fixed_weights(logits: np.ndarray) -> float:
        rows = np.array([softmax(row, 2.5) for row in logits])
        confusion = rows.T @ np.diag(weights) @ rows
        shares = confusion / confusion.sum(1, keepdims=True)
        return float((shares.sum() - np.trace(shares)) / len(shares))

    logits = torch.from_numpy(LOGITS).requires_grad_()
    class_confusion(logits).backward()
    np.testing.assert_allclose(logits.grad.numpy(), numeric_gradient(with_fixed_weights, LOGITS), atol=1e-8)


@pytest.mark.parametrize("name", [name for name in FORMULAS if not name.startswith("confusion")])
def test_gradcheck(name: str) -> None:
    ours, _ = FORMULAS[name]
    logits = torch.from_numpy(CHANGED if name.startswith("confident") else LOGITS).requires_grad_()
    assert torch.autograd.gradcheck(ours, (logits,))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(2, 6), st.floats(0.01, 30))
def test_bounds_and_the_order_of_rows_and_classes(seed: int, rows: int, classes: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    logits = torch.from_numpy(scale * random.normal(size=(rows, classes)))
    other = logits[random.permutation(rows)][:, random.permutation(classes)]
    bounds = {
        mean_entropy: (0, math.log(classes)),
        class_confusion: (0, 1 - 1 / classes),
        batch_nuclear_norm: (0, math.sqrt(min(rows, classes) / rows)),
        information_maximisation: (-math.log(classes), 0),
        entropy_of_mean: (0, math.log(classes)),
        neighbourhood_density: (0, math.log(rows - 1)),
    }
    for function, (least, most) in bounds.items():
        value = function(logits)
        assert least - 1e-9 <= value <= most + 1e-9, function
        assert torch.allclose(value, function(other), atol=1e-9), function
    fast = batch_nuclear_norm(logits, fast=True)
    assert torch.allclose(fast, batch_nuclear_norm(other, fast=True))
    certain = 1e3 * torch.nn.functional.one_hot(logits.argmax(1), classes).double()
    assert torch.allclose(batch_nuclear_norm(certain), batch_nuclear_norm(certain, fast=True))
    assert torch.allclose(class_confusion(certain), torch.zeros((), dtype=torch.float64), atol=1e-9)


def test_extreme_answers_stay_finite_and_so_do_their_gradients() -> None:
    for logits in (torch.tensor([[500.0, 0.0, -500.0]] * 3), torch.full((3, 3), 1e4), torch.zeros(3, 3)):
        logits.requires_grad_()
        for objective in (MCC(), BNM(), BNM(fast=True), InfoMax(), Entropy(), NeighbourhoodDensity()):
            logits.grad = None
            value = objective(Batch(), Batch(logits=logits))
            value.backward()
            assert torch.isfinite(value) and torch.isfinite(logits.grad).all(), objective


def test_what_each_term_asks_for() -> None:
    torn = torch.tensor([[4.0, 4.0, -9.0], [4.0, 4.0, -9.0], [-9.0, -9.0, 4.0]], requires_grad=True)
    class_confusion(
        torn
    ).backward()  # the torn rows decide for one class; both first classes are one to the other alike
    assert torn.grad[2].abs().max() < 1e-2 * 1
    sure = torch.tensor([[9.0, 0.0]] * 4)
    assert mean_entropy(sure) < 0.01  # one class for all satisfies the entropy
    assert information_maximisation(sure) > -0.01  # but not the information
    mixed = torch.tensor([[9.0, 0.0]] * 2 + [[0.0, 9.0]] * 2)
    assert information_maximisation(mixed) < -0.68
    assert batch_nuclear_norm(mixed) > 1.3 * batch_nuclear_norm(sure)


def test_the_answers_of_another_head_and_of_both_streams() -> None:
    first, second = torch.from_numpy(LOGITS), torch.from_numpy(CHANGED)
    source, target = Batch(logits=second), Batch(logits=first, head_logits={"main": first, "other": second})
    for objective in (Entropy, MCC, BNM, InfoMax, NeighbourhoodDensity):
        other = objective(head="other", weight=2.0)(source, target)
        assert torch.equal(other, 2 * objective()(source, Batch(logits=second)))
        with pytest.raises(ConfigError, match="needs a second stream"):
            objective()(source)
    assert torch.allclose(
        Entropy(rows="both")(source, target), torch.cat([row_entropies(second), row_entropies(first)]).mean()
    )
    assert torch.equal(Entropy(rows="source")(source), mean_entropy(second))


def test_no_gradient_flows_to_labels() -> None:
    logits, changed = (torch.from_numpy(values).requires_grad_() for values in (LOGITS, CHANGED))
    target = Batch(logits=logits, strong_logits=changed)
    FixMatch(threshold=0.3)(Batch(), target).backward()
    assert logits.grad is None and changed.grad.abs().sum() > 0
    teacher = torch.from_numpy(CHANGED).requires_grad_()
    MeanTeacher(threshold=0.1)(Batch(), Batch(logits=logits, teacher_logits=teacher)).backward()
    assert teacher.grad is None and logits.grad.abs().sum() > 0


def test_curriculum_thresholds_by_hand() -> None:
    answers = torch.tensor([0, 0, 0, 0, 1, 1, 2, -1, -1, -1, -1, -1])  # 4, 2, 1 and 0 rows; 5 never sure
    expected = [0.8 / 1.2 * 0.9, 0.4 / 1.6 * 0.9, 0.2 / 1.8 * 0.9, 0.0]
    assert curriculum_thresholds(answers, 4, threshold=0.9).tolist() == pytest.approx(expected)
    without = [0.9, 0.5 / 1.5 * 0.9, 0.25 / 1.75 * 0.9, 0.0]
    assert curriculum_thresholds(answers, 4, threshold=0.9, warm_up=False).tolist() == pytest.approx(without)
    nothing = torch.full((5,), -1)
    assert curriculum_thresholds(nothing, 2).tolist() == [0.0, 0.0]
    assert curriculum_thresholds(nothing, 2, warm_up=False).tolist() == [0.0, 0.0]


def test_flexmatch_remembers_sure_answers_only() -> None:
    objective = FlexMatch(threshold=0.8)
    objective.prepare(Setup(torch.nn.Linear(1, 1), task=None, num_target=5))  # type: ignore[arg-type]
    logits = torch.tensor([[5.0, 0.0], [0.1, 0.0], [0.0, 5.0]])
    target = Batch(rows=torch.tensor([4, 0, 2]), logits=logits, strong_logits=torch.zeros(3, 2))
    assert objective(Batch(), target).item() == pytest.approx(math.log(2))  # every threshold is 0 at first
    assert objective.answers_m.tolist() == [-1] * 5
    objective.after_step()
    assert objective.answers_m.tolist() == [-1, -1, 1, -1, 0]
    objective.eval()
    thresholds = curriculum_thresholds(objective.answers_m, 2, threshold=0.8)
    assert thresholds.tolist() == pytest.approx([0.8 * (1 / 3) / (5 / 3)] * 2)
    objective(Batch(), target)
    objective.after_step()
    assert objective.answers_m.tolist() == [-1, -1, 1, -1, 0]
    with pytest.raises(ConfigError, match="second stream"):
        FlexMatch().prepare(Setup(torch.nn.Linear(1, 1), task=None))  # type: ignore[arg-type]


def test_the_ramp_at_its_beginning_half_and_end() -> None:
    assert gaussian_ramp(0.0, 1.0) == pytest.approx(math.exp(-5))
    assert gaussian_ramp(0.5, 1.0) == pytest.approx(math.exp(-1.25))
    assert gaussian_ramp(1.0, 1.0) == gaussian_ramp(0.0, 0.0) == gaussian_ramp(0.7, 0.4) == 1.0
    batch = Batch(logits=torch.zeros(1, 2), teacher_logits=torch.tensor([[200.0, 0.0]]), share=0.25)
    assert MeanTeacher(ramp=0.5, weight=3.0)(Batch(), batch).item() == pytest.approx(3 * 0.25 * math.exp(-1.25))


def test_bad_input_is_refused() -> None:
    for function in (mean_entropy, class_confusion, batch_nuclear_norm, entropy_of_mean, neighbourhood_density):
        with pytest.raises(ShapeError, match="must be a matrix"):
            function(torch.zeros(3))
    with pytest.raises(ShapeError, match="at least 2 rows"):
        neighbourhood_density(torch.zeros(1, 3))
    for wrong in (
        lambda: Entropy(temperature=0),
        lambda: Entropy(rows="all"),  # type: ignore[arg-type]
        lambda: MCC(temperature=-1),
        lambda: InfoMax(diversity=-1),
        lambda: FixMatch(threshold=1.5),
        lambda: FlexMatch(threshold=-0.1),
        lambda: MeanTeacher(threshold=2),
        lambda: MeanTeacher(ramp=2),
        lambda: MeanTeacher(rows="all"),  # type: ignore[arg-type]
        lambda: NeighbourhoodDensity(temperature=0),
    ):
        with pytest.raises(ConfigError):
            wrong()
