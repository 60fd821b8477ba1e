"""Moments and kernel means against literal twins in float64: DAN, JAN, DSAN, CORAL, HoMM, CMD."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core.errors import ConfigError, ShapeError
from headstart.objectives import (
    CMD,
    CORAL,
    DAN,
    DSAN,
    JAN,
    Batch,
    HoMM,
    central_moment_discrepancy,
    joint_mmd,
    local_mmd,
    moment_distance,
    moment_kernel_distance,
    ramp,
    sampled_moment_distance,
)
from headstart.objectives.dan import DAN_FACTORS
from headstart.objectives.dsan import DSAN_FACTORS

RANDOM = np.random.default_rng(4)
SOURCE, TARGET = RANDOM.normal(size=(6, 3)), RANDOM.normal(size=(5, 3)) + 0.7
SOURCE_LOGITS, TARGET_LOGITS = RANDOM.normal(size=(6, 2)), RANDOM.normal(size=(5, 2)) * 2
LABELS = np.array([0, 1, 1, 0, 0, 1])
S, T, SL, TL = (torch.from_numpy(array) for array in (SOURCE, TARGET, SOURCE_LOGITS, TARGET_LOGITS))


def batches(share: float = 1.0) -> tuple[Batch, Batch]:
    source = Batch(labels=torch.from_numpy(LABELS), features=S, logits=SL, share=share)
    return source, Batch(features=T, logits=TL, share=share)


def softmax(rows: np.ndarray) -> np.ndarray:
    return np.array([[math.exp(value) / sum(math.exp(other) for other in row) for value in row] for row in rows])


def median(rows: np.ndarray) -> float:
    squared = [float(((a - b) ** 2).sum()) for a, b in itertools.combinations(rows, 2)]
    return float(np.median(squared))


def kernel(a: np.ndarray, b: np.ndarray, scale: float, factors: tuple[float, ...]) -> float:
    return sum(math.exp(-((a - b) ** 2).sum() / (2 * factor * scale)) for factor in factors) / len(factors)


def twin_mmd(source: np.ndarray, target: np.ndarray, factors: tuple[float, ...]) -> float:
    """The unbiased estimate: no row is paired with itself."""
    scale = median(np.concatenate([source, target]))
    within = [
        np.mean([kernel(a, b, scale, factors) for a, b in itertools.permutations(rows, 2)]) for rows in (source, target)
    ]
    between = np.mean([kernel(a, b, scale, factors) for a in source for b in target])
    return float(within[0] + within[1] - 2 * between)


def numeric_gradient(function, array: np.ndarray) -> np.ndarray:
    """Central differences of a twin."""
    gradient = np.zeros_like(array)
    for place in np.ndindex(array.shape):
        values = []
        for step in (1e-5, -1e-5):
            moved = array.copy()
            moved[place] += step
            values.append(function(moved))
        gradient[place] = (values[0] - values[1]) / 2e-5
    return gradient


# DAN


def test_the_kernels_of_dan_are_the_papers() -> None:
    widths = [2 * factor for factor in DAN_FACTORS]  # of exp(-|x - y|^2 / g), as multiples of the median
    assert len(widths) == 33
    assert (widths[0], widths[-1]) == (pytest.approx(2.0**-8), pytest.approx(2.0**8))
    assert all(b / a == pytest.approx(2**0.5) for a, b in itertools.pairwise(widths))


def test_dan_is_the_sum_of_its_layers() -> None:
    expected = twin_mmd(SOURCE, TARGET, DAN_FACTORS) + twin_mmd(SOURCE_LOGITS, TARGET_LOGITS, DAN_FACTORS)
    assert DAN()(*batches()).item() == pytest.approx(expected, rel=1e-9)
    assert DAN(weight=3.0)(*batches()).item() == pytest.approx(3 * expected, rel=1e-9)
    answers = twin_mmd(softmax(SOURCE_LOGITS), softmax(TARGET_LOGITS), (0.5, 2.0))
    assert DAN(["probabilities"], [0.5, 2.0])(*batches()).item() == pytest.approx(answers, rel=1e-9)


def test_the_gradient_of_dan_is_that_of_its_twin_at_fixed_bandwidths() -> None:
    features = T.clone().requires_grad_()
    scale = median(np.concatenate([SOURCE, TARGET]))

    def at_fixed_width(target: np.ndarray) -> float:
        within = np.mean([kernel(a, b, scale, (0.5, 1.0)) for a, b in itertools.permutations(target, 2)])
        return float(within - 2 * np.mean([kernel(a, b, scale, (0.5, 1.0)) for a in SOURCE for b in target]))

    DAN(["features"], [0.5, 1.0])(Batch(features=S), Batch(features=features)).backward()
    assert np.allclose(features.grad.numpy(), numeric_gradient(at_fixed_width, TARGET), atol=1e-8)


@pytest.mark.golden
def test_the_linear_dan_draws_other_pairs_in_every_step_and_is_right_on_average() -> None:
    objective = DAN(["features"], [1.0], linear=True)
    values = []
    for _ in range(600):
        values.append(objective(*batches()).item())
        objective.after_step()
    assert len(set(values[:50])) > 10
    mean, error = np.mean(values), np.std(values) / len(values) ** 0.5
    assert abs(mean - twin_mmd(SOURCE, TARGET, (1.0,))) < 4 * error
    again = DAN(["features"], [1.0], linear=True)
    assert again(*batches()).item() == values[0]
    again.load_state_dict({"steps": torch.tensor(17)})
    assert again(*batches()).item() == values[17]


# JAN


def twin_joint(layers: list[tuple[np.ndarray, np.ndarray]], factors: tuple[float, ...], linear: bool) -> float:
    scales = [median(np.concatenate(pair)) for pair in layers]

    def product(first: int, i: int, second: int, j: int) -> float:
        return math.prod(
            kernel(pair[first][i], pair[second][j], scale, factors) for pair, scale in zip(layers, scales, strict=True)
        )

    n, m = len(layers[0][0]), len(layers[0][1])
    if not linear:
        within = sum(product(0, i, 0, j) for i in range(n) for j in range(n)) / n**2
        within += sum(product(1, i, 1, j) for i in range(m) for j in range(m)) / m**2
        return within - 2 * sum(product(0, i, 1, j) for i in range(n) for j in range(m)) / (n * m)
    total, pairs = 0.0, min(n, m) // 2
    for pair in range(pairs):
        i, j = 2 * pair, 2 * pair + 1
        total += product(0, i, 0, j) + product(1, i, 1, j) - product(0, i, 1, j) - product(1, i, 0, j)
    return total / pairs


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("factors", [(0.5,), (0.25, 1.0)])
def test_jan_is_its_formula_and_rises(linear: bool, factors: tuple[float, ...]) -> None:
    layers = [(SOURCE, TARGET), (softmax(SOURCE_LOGITS), softmax(TARGET_LOGITS))]
    expected = twin_joint(layers, factors, linear)
    for share in (0.0, 0.5, 1.0):
        value = JAN(factors=factors, linear=linear, weight=2.0)(*batches(share))
        assert value.item() == pytest.approx(2 * ramp(share) * expected, rel=1e-9)
    assert JAN(factors=factors, linear=linear, rise=0.0)(*batches(0.0)).item() == pytest.approx(expected, rel=1e-9)


def test_jan_sees_that_answers_belong_to_other_features_where_each_layer_agrees() -> None:
    features, answers = torch.tensor([[0.0], [1.0]] * 20), torch.tensor([[1.0], [0.0]] * 20)
    swapped = answers.flip(0)
    for layer in ((features, features), (answers, swapped)):
        assert joint_mmd([layer[0]], [layer[1]]).item() == pytest.approx(0.0, abs=1e-6)
    assert joint_mmd([features, answers], [features, swapped]).item() > 0.3


def test_jan_on_one_layer_is_the_biased_discrepancy_and_has_its_gradient() -> None:
    features = T.clone().requires_grad_()
    scale = median(np.concatenate([SOURCE, TARGET]))

    def at_fixed_width(target: np.ndarray) -> float:
        own = np.mean([kernel(a, b, scale, (0.5,)) for a in target for b in target])
        return float(own - 2 * np.mean([kernel(a, b, scale, (0.5,)) for a in SOURCE for b in target]))

    joint_mmd([S], [features]).backward()
    assert np.allclose(features.grad.numpy(), numeric_gradient(at_fixed_width, TARGET), atol=1e-8)


# DSAN


def twin_local(shares: np.ndarray, guesses: np.ndarray, factors: tuple[float, ...]) -> float:
    scale = median(np.concatenate([SOURCE, TARGET]))
    classes = [c for c in range(shares.shape[1]) if shares[:, c].sum() > 0 and c in guesses.argmax(1)]
    total = 0.0
    for c in classes:
        first, second = shares[:, c] / shares[:, c].sum(), guesses[:, c] / guesses[:, c].sum()
        for i, a in enumerate(SOURCE):
            total += sum(first[i] * first[j] * kernel(a, b, scale, factors) for j, b in enumerate(SOURCE))
            total -= 2 * sum(first[i] * second[j] * kernel(a, b, scale, factors) for j, b in enumerate(TARGET))
        for i, a in enumerate(TARGET):
            total += sum(second[i] * second[j] * kernel(a, b, scale, factors) for j, b in enumerate(TARGET))
    return total / max(1, len(classes))


def test_dsan_is_its_formula_and_rises() -> None:
    expected = twin_local(np.eye(2)[LABELS], softmax(TARGET_LOGITS), DSAN_FACTORS)
    assert len(set(TARGET_LOGITS.argmax(1))) == 2  # both classes are guessed
    for share in (0.0, 0.5, 1.0):
        assert DSAN(weight=2.5)(*batches(share)).item() == pytest.approx(2.5 * ramp(share) * expected, rel=1e-9)


def test_dsan_leaves_out_classes_of_one_side_and_takes_soft_labels() -> None:
    soft, guesses = RANDOM.dirichlet(np.ones(4), size=6), RANDOM.dirichlet(np.ones(4), size=5)
    soft[:, 3], guesses[:, 2] = 0.0, 0.0
    value = local_mmd(S, T, torch.from_numpy(soft), torch.from_numpy(guesses))
    assert value.item() == pytest.approx(twin_local(soft, guesses, DSAN_FACTORS), rel=1e-9)
    source, target = batches()
    source.labels = torch.from_numpy(soft[:, :2])
    expected = twin_local(soft[:, :2], softmax(TARGET_LOGITS), DSAN_FACTORS)
    assert DSAN(rise=0.0)(source, target).item() == pytest.approx(expected, rel=1e-9)


def test_no_gradient_flows_through_the_guesses_of_dsan() -> None:
    features, logits = T.clone().requires_grad_(), TL.clone().requires_grad_()
    source, _ = batches()
    DSAN()(source, Batch(features=features, logits=logits)).backward()
    assert logits.grad is None
    assert features.grad.abs().sum() > 0


def test_classes_that_swap_places_are_seen_by_dsan_alone() -> None:
    points = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    straight, crossed = torch.eye(2)[[0, 0, 1, 1]], torch.eye(2)[[1, 1, 0, 0]]
    assert local_mmd(points, points, straight, straight).item() == pytest.approx(0.0, abs=1e-6)
    assert local_mmd(points, points, straight, crossed).item() > 0.5
    assert DAN(["features"])(Batch(features=points), Batch(features=points)).item() < 1e-6


def test_dsan_refuses_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="same classes"):
        local_mmd(S, T, torch.ones(6, 2), torch.ones(5, 3))
    source, target = batches()
    source.labels = torch.ones(6)
    with pytest.raises(ShapeError, match="needs classes as labels"):
        DSAN()(source, target)


# CORAL


def test_coral_is_its_formula_on_either_layer() -> None:
    for layer, source, target in (("features", SOURCE, TARGET), ("logits", SOURCE_LOGITS, TARGET_LOGITS)):
        gap = np.cov(source.T) - np.cov(target.T)
        expected = (gap**2).sum() / (4 * source.shape[1] ** 2)
        assert CORAL(layer, weight=0.5)(*batches()).item() == pytest.approx(0.5 * expected, rel=1e-9)
    features = T.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: CORAL()(Batch(features=S), Batch(features=rows)), (features,))


# HoMM


def twin_moments(source: np.ndarray, target: np.ndarray, order: int, centred: bool) -> np.ndarray:
    """The difference of the two moment tensors, entry by entry."""
    if centred:
        source, target = source - source.mean(0), target - target.mean(0)
    entries = []
    for places in itertools.product(range(source.shape[1]), repeat=order):
        means = [np.mean([math.prod(row[place] for place in places) for row in rows]) for rows in (source, target)]
        entries.append(means[0] - means[1])
    return np.array(entries)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("centred", [True, False])
def test_homm_without_the_tensor_is_homm_with_it(order: int, centred: bool) -> None:
    expected = (twin_moments(SOURCE, TARGET, order, centred) ** 2).mean()
    value = moment_distance(S, T, order=order, centred=centred)
    assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-14)
    objective = HoMM(order=order, centred=centred, weight=2.0)
    assert objective(*batches()).item() == pytest.approx(2 * expected, rel=1e-9, abs=1e-14)


def test_homm_of_order_two_is_coral_but_for_constants() -> None:
    biased = [np.cov(rows.T, ddof=0) for rows in (SOURCE, TARGET)]
    assert moment_distance(S, T, order=2).item() == pytest.approx(((biased[0] - biased[1]) ** 2).mean(), rel=1e-9)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("centred", [True, False])
def test_homm_under_a_kernel_is_its_formula(order: int, centred: bool) -> None:
    source, target = (rows - centred * rows.mean(0) for rows in (SOURCE, TARGET))

    def tensor(row: np.ndarray) -> np.ndarray:
        entries = itertools.product(range(3), repeat=order)
        return np.array([math.prod(row[place] for place in places) for places in entries])

    def mean(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.mean([math.exp(-0.03 * ((tensor(a) - tensor(b)) ** 2).sum()) for a in first for b in second]))

    expected = mean(source, source) + mean(target, target) - 2 * mean(source, target)
    value = moment_kernel_distance(S, T, gamma=0.03, order=order, centred=centred)
    assert value.item() == pytest.approx(expected, rel=1e-9)
    assert HoMM(order=order, gamma=0.03, centred=centred)(*batches()).item() == pytest.approx(expected, rel=1e-9)


def test_drawn_moments_are_all_moments_on_average_and_others_in_every_step() -> None:
    many = sampled_moment_distance(S, T, num_moments=40_000, order=3)
    entries = twin_moments(SOURCE, TARGET, 3, True) ** 2
    assert abs(many.item() - entries.mean()) < 4 * entries.std() / 200
    objective = HoMM(num_moments=2)
    first = objective(*batches()).item()
    assert objective(*batches()).item() == first
    objective.after_step()
    assert objective(*batches()).item() != first


def test_homm_has_its_gradients() -> None:
    features = T.clone().requires_grad_()
    for value in (
        lambda rows: moment_distance(S, rows, order=3),
        lambda rows: moment_kernel_distance(S, rows, gamma=0.1, order=3),
        lambda rows: sampled_moment_distance(S, rows, num_moments=9, order=4),
    ):
        assert torch.autograd.gradcheck(value, (features,))


def test_float32_keeps_small_differences_of_large_moments() -> None:
    source = (SOURCE + 30.0).astype(np.float32)
    target = (SOURCE + 30.0 + 1e-3).astype(np.float32)
    expected = moment_distance(torch.from_numpy(source).double(), torch.from_numpy(target).double(), centred=False)
    value = moment_distance(torch.from_numpy(source), torch.from_numpy(target), centred=False)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)


def test_homm_refuses_bad_options() -> None:
    with pytest.raises(ConfigError, match="under a kernel all moments"):
        HoMM(num_moments=3, gamma=0.1)
    with pytest.raises(ConfigError, match="order is at least 1"):
        HoMM(order=0)


# CMD


def twin_cmd(source: np.ndarray, target: np.ndarray, orders: int, span: float) -> float:
    total = 0.0
    for order in range(1, orders + 1):
        squares = 0.0
        for feature in range(source.shape[1]):
            values = []
            for rows in (source[:, feature], target[:, feature]):
                mean = sum(rows) / len(rows)
                moment = mean if order == 1 else sum((value - mean) ** order for value in rows) / len(rows)
                values.append(moment)
            squares += (values[0] - values[1]) ** 2
        total += math.sqrt(squares) / span**order
    return total


@pytest.mark.parametrize("orders", [1, 2, 5])
@pytest.mark.parametrize("span", [None, 2.0])
def test_cmd_is_its_formula(orders: int, span: float | None) -> None:
    both = np.concatenate([SOURCE, TARGET])
    expected = twin_cmd(SOURCE, TARGET, orders, span or float(both.max() - both.min()))
    assert central_moment_discrepancy(S, T, num_moments=orders, span=span).item() == pytest.approx(expected, rel=1e-9)
    assert CMD(orders, span, weight=0.5)(*batches()).item() == pytest.approx(0.5 * expected, rel=1e-9)
    features = T.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: central_moment_discrepancy(S, rows, span=3.0), (features,))


def test_cmd_of_equal_rows_is_0_with_a_finite_gradient() -> None:
    rows = S.clone().requires_grad_()
    value = central_moment_discrepancy(S, rows)
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-12)
    assert torch.isfinite(rows.grad).all()
    assert central_moment_discrepancy(torch.ones(2, 3), torch.ones(4, 3)).item() == 0


def test_cmd_refuses_bad_options() -> None:
    with pytest.raises(ConfigError, match="num_moments is at least 1"):
        CMD(num_moments=0)
    with pytest.raises(ConfigError, match="span is above 0"):
        CMD(span=0.0)


# what the mathematics promises of all of them

ALL = [
    DAN(["features"]),
    JAN(["features", "probabilities"], rise=0.0),
    DSAN(rise=0.0),
    CORAL(),
    HoMM(order=3),
    HoMM(order=4),
    HoMM(gamma=1e-2),
    CMD(),
]


@pytest.mark.golden
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.floats(-3, 3), st.floats(0.2, 5))
def test_row_order_offsets_and_equal_domains(seed: int, offset: float, scale: float) -> None:
    random = np.random.default_rng(seed)
    rows, others = torch.from_numpy(random.normal(size=(7, 3))), torch.from_numpy(random.normal(size=(7, 3)) + 1)
    logits, labels = torch.from_numpy(random.normal(size=(7, 2))), torch.from_numpy(random.integers(2, size=7))
    order = torch.from_numpy(random.permutation(7))
    for objective in ALL:
        source = Batch(labels=labels, features=rows, logits=logits)
        value = objective(source, Batch(features=others, logits=logits))
        shuffled = objective(source, Batch(features=others[order], logits=logits[order]))
        assert torch.allclose(value, shuffled, rtol=1e-6, atol=1e-9)
        moved = Batch(labels=labels, features=rows + offset, logits=logits)
        assert torch.allclose(value, objective(moved, Batch(features=others + offset, logits=logits)), atol=1e-6)
        if not isinstance(objective, CORAL | HoMM):  # kernels at the median, and a span, know no unit
            scaled = Batch(labels=labels, features=rows * scale, logits=logits)
            assert torch.allclose(value, objective(scaled, Batch(features=others * scale, logits=logits)), atol=1e-6)
        if not isinstance(objective, DSAN):
            same = objective(source, Batch(features=rows[order], logits=logits[order]))
            assert same.item() < 1e-9  # the unbiased estimate lies below 0
        if not isinstance(objective, DAN):
            assert value.item() > -1e-12


@pytest.mark.parametrize("kind", [DAN, JAN])
def test_layers_and_kernels_are_checked(kind: type[DAN] | type[JAN]) -> None:
    for arguments in ({"layers": []}, {"factors": []}):
        with pytest.raises(ConfigError, match="needs a layer and a kernel"):
            kind(**arguments)
    with pytest.raises(ConfigError, match="a factor is above 0"):
        kind(factors=[0.0])
    with pytest.raises(ConfigError, match=r"'featurs'.*Did you mean 'features'"):
        kind(layers=["featurs"])
    with pytest.raises(ConfigError, match="needs a second stream"):
        kind()(batches()[0])
