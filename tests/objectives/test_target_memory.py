"""Objectives that remember the target: SHOT, NRC, ATDOC and class-balanced self-training, each against a literal twin."""

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
from headstart.objectives import (
    ATDOC,
    NRC,
    SHOT,
    Batch,
    SelfTraining,
    Setup,
    balanced_thresholds,
    centre_labels,
    centre_vote,
    information_maximisation,
    neighbour_vote,
    neighbourhood_agreement,
    self_training_loss,
    sharpened,
    weighted_cross_entropy,
)
from headstart.objectives.target_memory import nearest_rows

RANDOM = np.random.default_rng(21)
FEATURES, LOGITS = RANDOM.normal(size=(9, 5)), RANDOM.normal(size=(9, 3)) * 2
ROWS = np.array([4, 0, 7])


def softmax(row: np.ndarray) -> np.ndarray:
    exponentials = [math.exp(value) for value in row]
    return np.array([value / sum(exponentials) for value in exponentials])


ANSWERS = np.array([softmax(row) for row in LOGITS])


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second) / math.sqrt(first @ first) / math.sqrt(second @ second)


def nearest(i: int, count: int, features: np.ndarray = FEATURES) -> list[int]:
    others = [j for j in range(len(features)) if j != i]
    return sorted(others, key=lambda j: -cosine(features[i], features[j]))[:count]


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def setup_of(features: np.ndarray, logits: np.ndarray) -> Setup:
    outputs = (features.astype(np.float32), logits.astype(np.float32))
    return Setup(nn.Linear(1, 1), None, num_target=len(features), target_outputs=lambda: outputs)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 3, 50])
def test_nearest_rows_are_those_of_largest_cosine_and_never_the_row_itself(count: int) -> None:
    features, rows = tensors(FEATURES, ROWS)
    found = nearest_rows(features[rows], features, rows, count)
    assert found.tolist() == [nearest(i, count) for i in ROWS]


# --- SHOT


def twin_labels(features: np.ndarray, answers: np.ndarray) -> list[int]:
    rows = np.array([np.append(row, 1.0) / math.sqrt(row @ row + 1) for row in features])
    shares, labels = answers, [int(row.argmax()) for row in answers]
    for _ in range(2):
        kinds = sorted(set(labels))
        centres = {c: sum(share[c] * row for share, row in zip(shares, rows, strict=True)) for c in kinds}
        labels = [max(kinds, key=lambda c: cosine(row, centres[c])) for row in rows]
        shares = np.eye(answers.shape[1])[labels]
    return labels


@pytest.mark.parametrize("seed", range(8))
def test_centre_labels_are_those_of_the_formula(seed: int) -> None:
    random = np.random.default_rng(seed)
    features = random.normal(size=(20, 3))
    answers = np.array(
        [softmax(row) for row in 3 * random.normal(size=(20, 4)) + [0, 0, 0, -9]]
    )  # the last never answered
    assert centre_labels(*tensors(features, answers)).tolist() == twin_labels(features, answers)
    assert 3 not in centre_labels(*tensors(features, answers)).tolist()


def test_shot_is_information_and_labels_that_are_renewed() -> None:
    objective = SHOT(labels=0.5, diversity=0.7, num_refreshes=2, weight=2.0)
    objective.prepare(setup_of(FEATURES, LOGITS))
    labels = np.array(twin_labels(FEATURES, ANSWERS))
    logits, features = torch.randn(3, 3), 5 * torch.randn(3, 5)

    def step(share: float) -> float:
        value = objective(
            Batch(), Batch(rows=torch.from_numpy(ROWS), logits=logits, features=features, share=share)
        ).item()
        objective.after_step()
        return value

    def expected(labels: np.ndarray) -> float:
        chosen = [softmax(row)[label] for row, label in zip(logits.double().numpy(), labels[ROWS], strict=True)]
        plain = information_maximisation(logits.double(), diversity=0.7).item()
        return 2 * (plain - 0.5 * float(np.mean(np.log(chosen))))

    assert step(0.1) == pytest.approx(expected(labels), rel=1e-5)
    assert objective.labels_m.tolist() == labels.tolist()  # not yet
    memory, answers = FEATURES.copy(), ANSWERS.copy()
    memory[ROWS], answers[ROWS] = features.numpy(), torch.softmax(logits, 1).numpy()
    np.testing.assert_allclose(objective.features_md.numpy(), memory, rtol=1e-5)
    np.testing.assert_allclose(objective.probabilities_mk.numpy(), answers, rtol=1e-4)
    assert step(0.5) == pytest.approx(expected(labels), rel=1e-5)  # renewed after this step
    renewed = np.array(twin_labels(memory, answers))
    assert objective.labels_m.tolist() == renewed.tolist() != labels.tolist()
    assert step(0.9) == pytest.approx(expected(renewed), rel=1e-5)
    assert int(objective.refreshed) == 1


# --- NRC


def twin_agreement(answers: np.ndarray, near: int, expanded: int, distant: float) -> float:
    total = 0.0
    for i in ROWS:
        for k in nearest(i, near):
            total += (1.0 if i in nearest(k, expanded) else distant) * float(ANSWERS[k] @ answers[i])
            for l in nearest(k, expanded):  # noqa: E741 - the formula's letter
                total += distant * float(ANSWERS[l] @ answers[i]) * (l != i)
        total += float(ANSWERS[i] @ answers[i])
    return total / len(ROWS)


@pytest.mark.parametrize(("near", "expanded", "distant"), [(2, 3, 0.1), (4, 1, 0.5), (30, 30, 0.0)])
def test_agreement_is_that_of_the_formula(near: int, expanded: int, distant: float) -> None:
    options: dict[str, Any] = {"num_neighbours": near, "num_expanded": expanded, "distant": distant}
    logits, rows, features, answers = tensors(LOGITS[ROWS], ROWS, FEATURES, ANSWERS)
    value = neighbourhood_agreement(logits, rows, features, answers, **options)
    assert value.item() == pytest.approx(twin_agreement(ANSWERS, near, expanded, distant), rel=1e-9)
    assert torch.autograd.gradcheck(
        lambda z: neighbourhood_agreement(z, rows, features, answers, **options), (logits.requires_grad_(),)
    )


def test_nrc_is_agreement_and_diversity_over_a_memory_that_takes_the_step_first() -> None:
    objective = NRC(num_neighbours=2, num_expanded=3, diversity=0.5, weight=2.0)
    elsewhere = FEATURES.copy()
    elsewhere[ROWS] = 1.0
    objective.prepare(setup_of(elsewhere, np.zeros_like(LOGITS)))
    objective.answers_mk.copy_(torch.from_numpy(ANSWERS))
    logits, features, rows = tensors(LOGITS[ROWS], FEATURES[ROWS], ROWS)
    batch = Batch(rows=rows, logits=logits.float(), features=features.float())
    mean = ANSWERS[ROWS].mean(0)
    diversity = -float(sum(value * math.log(value) for value in mean))
    expected = -2 * (twin_agreement(ANSWERS, 2, 3, 0.1) + 0.5 * diversity)
    objective.eval()
    assert objective(Batch(), batch).item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(
        objective.features_md[ROWS], nn.functional.normalize(torch.ones(3, 5), dim=1)
    )  # nothing was noted
    objective.train()
    assert objective(Batch(), batch).item() == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(objective.features_md, nn.functional.normalize(torch.from_numpy(FEATURES).float(), dim=1))


def test_a_target_of_one_row_has_no_neighbours() -> None:
    one = np.ones((1, 2)), np.zeros((1, 3))
    batch = Batch(rows=torch.tensor([0]), logits=torch.zeros(1, 3), features=torch.ones(1, 2))
    for objective in (NRC(), SHOT(), ATDOC(form="centres"), SelfTraining()):
        objective.prepare(setup_of(*one))
        assert torch.isfinite(objective(Batch(), batch))
    objective = ATDOC()
    objective.prepare(setup_of(*one))
    assert objective(Batch(), batch).item() == 0.0


# --- ATDOC


def twin_sharpened(answers: np.ndarray, temperature: float) -> np.ndarray:
    powers = answers ** (1 / temperature)
    columns = [powers[:, c] / sum(powers[:, c]) * len(answers) / answers.shape[1] for c in range(answers.shape[1])]
    return np.stack(columns, 1)


def test_atdoc_by_neighbours_is_its_formula_step_after_step() -> None:
    objective = ATDOC(num_neighbours=2, temperature=0.5, weight=3.0)
    objective.prepare(setup_of(FEATURES, LOGITS))
    features, answers = FEATURES.copy(), twin_sharpened(ANSWERS, 0.5)
    random = np.random.default_rng(0)
    for share in (0.0, 0.5, 1.0):
        logits, moved = random.normal(size=(3, 3)), random.normal(size=(3, 5))
        total = weights = 0.0
        for place, i in enumerate(ROWS):
            others = [j for j in range(9) if j != i]
            near = sorted(others, key=lambda j: -cosine(moved[place], features[j]))[:2]
            vote = sum(answers[j] for j in near) / 2
            label = int(vote.argmax())
            total -= vote[label] * math.log(softmax(logits[place])[label])
            weights += vote[label]
        rows, z, f = tensors(ROWS, logits, moved)
        value = objective(Batch(), Batch(rows=rows, logits=z, features=f, share=share))
        assert value.item() == pytest.approx(3 * share * total / weights, rel=1e-4, abs=1e-9)
        objective.after_step()
        features[ROWS] = moved
        answers[ROWS] = twin_sharpened(np.array([softmax(row) for row in logits]), 0.5)
    np.testing.assert_allclose(objective.answers_mk.numpy(), answers, rtol=1e-4)


def test_atdoc_by_centres_is_its_formula_step_after_step() -> None:
    objective = ATDOC(form="centres", momentum=0.25)
    objective.prepare(setup_of(FEATURES, LOGITS))
    answered = LOGITS.argmax(1)
    centres = np.stack([FEATURES[answered == c].mean(0) if c in answered else np.zeros(5) for c in range(3)])
    random = np.random.default_rng(1)
    for _ in range(3):
        logits, moved = random.normal(size=(3, 3)), random.normal(size=(3, 5))
        labels = [max(range(3), key=lambda c: cosine(row, centres[c])) for row in moved]
        expected = -np.mean([math.log(softmax(row)[label]) for row, label in zip(logits, labels, strict=True)])
        rows, z, f = tensors(ROWS, logits, moved)
        value = objective(Batch(), Batch(rows=rows, logits=z, features=f))
        assert value.item() == pytest.approx(expected, rel=1e-5)
        objective.after_step()
        for c in set(logits.argmax(1).tolist()):
            centres[c] = 0.75 * centres[c] + 0.25 * moved[logits.argmax(1) == c].mean(0)
    np.testing.assert_allclose(objective.centres_kd.numpy(), centres, rtol=1e-4, atol=1e-6)


def test_rows_and_pieces_of_atdoc() -> None:
    assert centre_vote(torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0], [0.0, 0.0]])).tolist() == [0]
    labels, weights = neighbour_vote(*tensors(FEATURES[ROWS], ROWS, FEATURES, ANSWERS), num_neighbours=3)
    mean = np.stack([ANSWERS[nearest(i, 3)].mean(0) for i in ROWS])
    assert labels.tolist() == mean.argmax(1).tolist()
    np.testing.assert_allclose(weights.numpy(), mean.max(1))
    logits = torch.from_numpy(LOGITS[:3]).requires_grad_()
    even = weighted_cross_entropy(logits, labels, torch.ones(3))
    assert torch.allclose(even, nn.functional.cross_entropy(logits, labels))
    assert weighted_cross_entropy(logits, labels, torch.zeros(3)).item() == 0.0
    assert torch.autograd.gradcheck(lambda z: weighted_cross_entropy(z, labels, weights), (logits,))
    np.testing.assert_allclose(sharpened(torch.from_numpy(LOGITS), temperature=0.5).sum(0).numpy(), [3.0] * 3)


# --- self-training


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_thresholds_are_reached_by_the_share_of_each_class(seed: int, portion: float) -> None:
    random = np.random.default_rng(seed)
    answers = np.array([softmax(row) for row in random.normal(size=(30, 4))])
    thresholds = balanced_thresholds(torch.from_numpy(answers), portion)
    for c in range(4):
        mine = sorted((row.max() for row in answers if row.argmax() == c), reverse=True)
        if not mine:
            assert thresholds[c] == 1
            continue
        reached = max(1, math.ceil(portion * len(mine)))
        assert sum(value >= thresholds[c].item() for value in mine) == reached
    thresholds = thresholds * (1 - 1e-9)  # so that rounding decides nothing
    sure = self_training_loss(torch.from_numpy(np.log(answers)), thresholds)
    expected = 0.0
    for row in answers:
        against = [row[c] / thresholds[c].item() for c in range(4)]
        if max(against) >= 1:
            expected -= math.log(row[int(np.argmax(against))])
    assert sure.item() == pytest.approx(expected / 30)


def test_self_training_takes_more_rows_as_it_goes_on() -> None:
    objective = SelfTraining(start=0.0, end=1.0)
    objective.prepare(setup_of(FEATURES, LOGITS))
    logits = torch.from_numpy(1.0001 * LOGITS).requires_grad_()  # a little surer, so that rounding decides nothing
    taken = []
    for share in (0.0, 0.5, 1.0):
        logits.grad = None
        objective.eval()(Batch(), Batch(rows=torch.arange(9), logits=logits, share=share)).backward()
        taken.append(int((logits.grad.abs().sum(1) > 0).sum()))
    kinds = len(set(LOGITS.argmax(1).tolist()))
    assert taken[0] == kinds < taken[1] < taken[2] == 9
    objective.train()
    objective(Batch(), Batch(rows=torch.tensor([8]), logits=torch.tensor([[9.0, 0.0, 0.0]])))
    assert torch.allclose(objective.answers_mk[8], torch.from_numpy(ANSWERS[8]).float())
    objective.after_step()
    assert torch.allclose(objective.answers_mk[8], torch.softmax(torch.tensor([9.0, 0.0, 0.0]), 0))


def test_bad_input_is_refused() -> None:
    for objective in (SHOT(), NRC(), ATDOC(), SelfTraining()):
        with pytest.raises(ConfigError, match=f"{type(objective).__name__}: needs a second stream"):
            objective.prepare(Setup(nn.Linear(1, 1), None))  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="needs a second stream"):
            objective(Batch())
    for wrong in (
        lambda: SHOT(labels=-1),
        lambda: SHOT(diversity=-1),
        lambda: SHOT(num_refreshes=0),
        lambda: NRC(num_neighbours=0),
        lambda: NRC(num_expanded=0),
        lambda: NRC(distant=2),
        lambda: NRC(diversity=-1),
        lambda: ATDOC(form="both"),  # type: ignore[arg-type]
        lambda: ATDOC(num_neighbours=0),
        lambda: ATDOC(temperature=0),
        lambda: ATDOC(momentum=0),
        lambda: SelfTraining(start=2),
        lambda: SelfTraining(end=-1),
    ):
        with pytest.raises(ConfigError):
            wrong()
    with pytest.raises(ShapeError, match="rows but probabilities has"):
        centre_labels(torch.zeros(2, 3), torch.zeros(3, 3))
    with pytest.raises(ShapeError, match="must be a matrix"):
        balanced_thresholds(torch.zeros(3), 0.5)
