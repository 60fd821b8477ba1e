"""Optimal transport against POT, linear programming, fixed-point equations and objectives written out; invariances."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from headstart.alignment import (
    ClassRegularisedTransport,
    EMDTransport,
    FeatureAligner,
    LaplaceTransport,
    PartialTransport,
    SinkhornTransport,
    UnbalancedTransport,
)
from headstart.alignment.transport_map import TransportMap
from headstart.alignment.transport_plans import exact_plan, sinkhorn_plan, squared_costs
from headstart.alignment.transport_regularised import neighbour_graph
from headstart.core.errors import ConfigError, MissingExtra

ot = pytest.importorskip("ot")

ALIGNERS = [
    EMDTransport(),
    SinkhornTransport(),
    UnbalancedTransport(),
    PartialTransport(),
    ClassRegularisedTransport(),
    ClassRegularisedTransport(penalty="group_lasso"),
    LaplaceTransport(),
]
LABELS = np.array(["a", "b", "c"])[np.arange(12) % 3]


def rows(seed: int, num_source: int = 12, num_target: int = 9, width: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.normal(size=(num_source, width)), random.normal(size=(num_target, width)) * 1.5 + 1.0


def uniform(length: int) -> np.ndarray:
    return np.full(length, 1.0 / length)


def mapped(aligner: FeatureAligner, source: np.ndarray, target: np.ndarray, labels: Any = LABELS) -> np.ndarray:
    return np.asarray(aligner.fit_transform(source, labels, target))


def test_costs_are_squared_distances_far_from_the_origin_too() -> None:
    source, target = rows(0)
    literal = np.array([[((x - z) ** 2).sum() for z in target] for x in source])
    np.testing.assert_allclose(squared_costs(source, target), literal, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(squared_costs(source + 1e6, target + 1e6), literal, rtol=1e-8, atol=1e-8)


def test_exact_plan_has_the_least_cost_a_linear_programme_finds() -> None:
    source, target = rows(1, 6, 4)
    costs = squared_costs(source, target)
    keep = np.vstack([np.kron(np.eye(6), np.ones(4)), np.kron(np.ones(6), np.eye(4))])
    best = optimize.linprog(costs.ravel(), A_eq=keep, b_eq=np.r_[uniform(6), uniform(4)]).fun
    fitted = EMDTransport().fit(source, None, target)
    assert (fitted.plan_ * costs).sum() == pytest.approx(best, rel=1e-9)
    np.testing.assert_allclose(
        fitted.transform(source, sample_domain=np.ones(6)), 6 * fitted.plan_ @ target, rtol=1e-12
    )


@pytest.mark.parametrize("regularisation", [1.0, 0.1, 0.01])
def test_entropic_plan_is_pots_and_meets_its_fixed_point(regularisation: float) -> None:
    source, target = rows(2)
    costs = squared_costs(source, target)
    costs /= costs.mean()
    a, b = np.random.default_rng(0).dirichlet(np.ones(12)), np.random.default_rng(1).dirichlet(np.ones(9))
    found = sinkhorn_plan(costs, a, b, regularisation, tolerance=1e-13, max_rounds=20_000)
    pots = ot.sinkhorn(a, b, costs, regularisation, method="sinkhorn_log", stopThr=1e-13, numItermax=20_000)
    np.testing.assert_allclose(found.plan_nm, pots, atol=1e-10)
    f, g = found.source_potential_n, found.target_potential_m
    np.testing.assert_allclose(
        found.plan_nm, np.outer(a, b) * np.exp((f[:, None] + g - costs) / regularisation), rtol=1e-9
    )
    np.testing.assert_allclose(np.exp(-f / regularisation), np.exp((g - costs) / regularisation) @ b, rtol=1e-8)
    np.testing.assert_allclose(
        np.exp(-g / regularisation), np.exp((f[:, None] - costs) / regularisation).T @ a, rtol=1e-8
    )


def test_entropic_plan_does_not_underflow_where_kernels_would() -> None:
    source, target = rows(3, 9, 9)
    costs = squared_costs(source, target) * 300.0
    assert np.exp(-costs).sum(axis=1).min() == 0.0
    found = sinkhorn_plan(costs, uniform(9), uniform(9), 1.0, tolerance=1e-9, max_rounds=20_000)
    np.testing.assert_allclose(found.plan_nm, exact_plan("test", costs, uniform(9), uniform(9)), atol=1e-6)


@pytest.mark.parametrize("marginal_weight", [0.05, 1.0, 20.0])
def test_unbalanced_plan_meets_its_conditions(marginal_weight: float) -> None:
    source, target = rows(4)
    costs = squared_costs(source, target)
    costs /= costs.mean()
    a, b, regularisation = uniform(12), uniform(9), 0.2
    plan = sinkhorn_plan(costs, a, b, regularisation, marginal_weight=marginal_weight, tolerance=1e-13).plan_nm
    slope = (
        costs
        + regularisation * np.log(plan / np.outer(a, b))
        + marginal_weight * np.log(plan.sum(axis=1) / a)[:, None]
        + marginal_weight * np.log(plan.sum(axis=0) / b)
    )
    np.testing.assert_allclose(slope, 0.0, atol=1e-7)  # the derivative of the objective, entry by entry


def test_partial_plan_is_pots() -> None:
    source, target = rows(5)
    costs = squared_costs(source, target)
    fitted = PartialTransport(mass=0.6).fit(source, None, target)
    pots = ot.partial.partial_wasserstein(uniform(12), uniform(9), costs, m=0.6, nb_dummies=20)
    assert (fitted.plan_ * costs).sum() == pytest.approx((pots * costs).sum(), rel=1e-9)
    assert fitted.plan_.sum() == pytest.approx(0.6)
    assert (fitted.source_mass_ <= 1 / 12 + 1e-12).all()
    np.testing.assert_allclose(mapped(PartialTransport(1.0), source, target), mapped(EMDTransport(), source, target))


@pytest.mark.parametrize("penalty", ["lpl1", "group_lasso"])
def test_class_penalty_is_the_written_objective_and_never_rises(penalty: str) -> None:
    source, target = rows(6)
    fitted = ClassRegularisedTransport(0.1, 0.5, penalty, max_rounds=30).fit(source, LABELS, target)
    costs, plan, value = squared_costs(source, target) / fitted.cost_scale_, fitted.plan_, 0.0
    for i in range(12):
        for j in range(9):
            value += plan[i, j] * (costs[i, j] + 0.1 * np.log(plan[i, j] * 12 * 9))
    for j in range(9):
        for label in "abc":
            part = plan[label == LABELS, j]
            value += 0.5 * (np.sqrt(part.sum() * 9 + 1e-3) / 9 if penalty == "lpl1" else np.sqrt((part**2).sum()))
    assert fitted.objective_[-1] == pytest.approx(value, rel=1e-6)
    assert len(fitted.objective_) > 2
    assert (np.diff(fitted.objective_) <= 1e-9).all()


def test_group_lasso_plan_meets_its_conditions_and_lies_no_higher_than_pots() -> None:
    source, target = rows(7)
    fitted = ClassRegularisedTransport(0.2, 0.3, "group_lasso", max_rounds=200).fit(source, LABELS, target)
    costs, plan = squared_costs(source, target) / fitted.cost_scale_, fitted.plan_
    norms = np.empty((12, 9))
    for label in "abc":
        norms[label == LABELS] = np.sqrt((plan[label == LABELS] ** 2).sum(axis=0))
    slope = costs + 0.2 * np.log(plan) + 0.3 * plan / norms
    slope -= slope.mean(axis=1, keepdims=True)  # at the optimum the derivative is a sum f_i + g_j
    slope -= slope.mean(axis=0)
    np.testing.assert_allclose(slope, 0.0, atol=2e-3)
    codes = np.arange(12) % 3
    pots = ot.da.sinkhorn_l1l2_gl(uniform(12), codes, uniform(9), costs, 0.2, 0.3, numItermax=500, stopInnerThr=1e-12)
    value = (pots * (costs + 0.2 * np.log(pots * 12 * 9))).sum()
    value += 0.3 * sum(np.sqrt((pots[codes == code] ** 2).sum(axis=0)).sum() for code in range(3))
    assert fitted.objective_[-1] <= value + 1e-9


def test_class_penalty_keeps_classes_apart() -> None:
    source, target = rows(8)
    shares = []
    for weight in (0.0, 2.0):
        plan = ClassRegularisedTransport(0.2, weight).fit(source, LABELS, target).plan_
        by_class = np.array([plan[label == LABELS].sum(axis=0) for label in "abc"]) * 9
        shares.append(by_class.max(axis=0).mean())
    plain = SinkhornTransport(0.2).fit(source, None, target).plan_
    np.testing.assert_allclose(ClassRegularisedTransport(0.2, 0.0).fit(source, LABELS, target).plan_, plain, atol=1e-6)
    assert shares[1] > shares[0] + 0.2


@pytest.mark.parametrize("of", ["displacement", "position"])
def test_laplace_objective_is_the_written_one_and_no_plan_nearby_is_lower(of: str) -> None:
    source, target = rows(9)
    fitted = LaplaceTransport(0.7, of, 0.3, 2, max_rounds=300).fit(source, None, target)
    unit = np.sqrt(fitted.cost_scale_)
    graphs = [neighbour_graph(part, 2).toarray() for part in (source, target)]

    def value(plan: np.ndarray) -> float:
        total = (plan * squared_costs(source, target)).sum() / fitted.cost_scale_
        forth, back = 12 * plan @ target, 9 * plan.T @ source
        for graph, own, image, share in ((graphs[0], source, forth, 0.7), (graphs[1], target, back, 0.3)):
            moved = (image - own if of == "displacement" else image) / unit
            for i in range(len(own)):
                for j in range(len(own)):
                    total += 0.7 * share * graph[i, j] * ((moved[i] - moved[j]) ** 2).sum()
        return float(total)

    assert fitted.objective_[-1] == pytest.approx(value(fitted.plan_), rel=1e-9)
    assert (np.diff(fitted.objective_) <= 0).all()
    random = np.random.default_rng(0)
    for _ in range(10):
        other = exact_plan("test", random.random((12, 9)), uniform(12), uniform(9))
        assert value(0.99 * fitted.plan_ + 0.01 * other) >= fitted.objective_[-1] - 1e-4


def test_identical_domains_stay_where_they_are() -> None:
    source, _ = rows(10)
    shuffled = source[np.random.default_rng(0).permutation(12)]
    for aligner in (EMDTransport(), LaplaceTransport(), PartialTransport(), SinkhornTransport(0.5, debias=True)):
        np.testing.assert_allclose(mapped(aligner, source, shuffled), source, atol=1e-9)
    moved = mapped(SinkhornTransport(0.5), source, shuffled)
    assert np.linalg.norm(moved - source) > 0.1
    np.testing.assert_allclose(moved.mean(axis=0), source.mean(axis=0), atol=1e-6)


@pytest.mark.golden
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-6, 1e6), st.floats(-1e3, 1e3))
def test_units_and_origin_change_nothing(seed: int, unit: float, origin: float) -> None:
    source, target = rows(seed)
    for aligner in ALIGNERS:
        plain = mapped(aligner, source, target)
        moved = mapped(aligner, unit * (source + origin), unit * (target + origin))
        np.testing.assert_allclose(moved / unit - origin, plain, atol=1e-5, err_msg=repr(aligner))


@pytest.mark.parametrize("aligner", ALIGNERS, ids=repr)
def test_order_of_rows_changes_nothing(aligner: FeatureAligner) -> None:
    source, target = rows(11)
    order, other = np.random.default_rng(0).permutation(12), np.random.default_rng(1).permutation(9)
    plain = mapped(aligner, source, target)
    np.testing.assert_allclose(mapped(aligner, source[order], target[other], LABELS[order]), plain[order], atol=1e-6)


def test_new_rows_move_like_their_nearest_row_of_the_fit() -> None:
    source, target = rows(12)
    fitted = SinkhornTransport().fit(source, None, target)
    images = fitted.transform(source, sample_domain=np.ones(12))
    new = np.random.default_rng(0).normal(size=(7, 3))
    expected = []
    for row in new:
        nearest = min(range(12), key=lambda place: ((row - source[place]) ** 2).sum())
        expected.append(row + images[nearest] - source[nearest])
    np.testing.assert_allclose(fitted.transform(new, sample_domain=np.ones(7)), expected, rtol=1e-12)
    np.testing.assert_array_equal(fitted.transform(new), new)


def test_equal_rows_share_an_image_and_rows_left_behind_move_like_their_nearest() -> None:
    source = np.array([[0.0], [0.0], [5.0]])
    plan = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    move = TransportMap(source, plan, np.array([[3.0], [6.0]]))
    np.testing.assert_allclose(
        move(source), [[5.0], [5.0], [10.0]]
    )  # (3 + 2 * 6) / 3 = 5; the third moves by 5 as well
    assert move(source.astype(np.float32)).dtype == np.float32


def test_overlapping_classes_are_told_apart_after_a_shift() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 40)
    source = random.normal(size=(80, 2)) * 0.5 + labels[:, None] * [4.0, 0.0]
    target = random.normal(size=(80, 2)) * 0.5 + labels[:, None] * [4.0, 0.0] + [0.0, 3.0]
    for aligner in ALIGNERS:
        images = mapped(aligner, source, target, labels)
        nearest = squared_costs(target, images).argmin(axis=1)
        assert (labels[nearest] == labels).mean() > 0.95, repr(aligner)


CHANGES: list[tuple[type, dict[str, Any], dict[str, Any]]] = [
    (SinkhornTransport, {}, {"regularisation": 0.5}),
    (SinkhornTransport, {}, {"debias": True}),
    (SinkhornTransport, {}, {"normalise": "max"}),
    (SinkhornTransport, {}, {"tolerance": 0.1}),
    (SinkhornTransport, {}, {"max_rounds": 1}),
    (UnbalancedTransport, {}, {"regularisation": 0.5}),
    (UnbalancedTransport, {}, {"marginal_weight": 0.1}),
    (UnbalancedTransport, {}, {"normalise": "median"}),
    (UnbalancedTransport, {}, {"max_rounds": 1}),
    (PartialTransport, {}, {"mass": 0.3}),
    (ClassRegularisedTransport, {}, {"regularisation": 0.5}),
    (ClassRegularisedTransport, {}, {"weight": 2.0}),
    (ClassRegularisedTransport, {}, {"penalty": "group_lasso"}),
    (ClassRegularisedTransport, {}, {"normalise": "none"}),
    (ClassRegularisedTransport, {}, {"max_rounds": 1}),
    (LaplaceTransport, {}, {"weight": 0.1}),
    (LaplaceTransport, {}, {"of": "position"}),
    (LaplaceTransport, {}, {"target_share": 1.0}),
    (LaplaceTransport, {}, {"num_neighbours": 1}),
    (LaplaceTransport, {}, {"max_rounds": 1}),
]


@pytest.mark.parametrize(("kind", "plain", "changed"), CHANGES, ids=str)
def test_no_parameter_is_dead(kind: Any, plain: dict[str, Any], changed: dict[str, Any]) -> None:
    source, target = rows(13)
    gap = mapped(kind(**plain), source, target) - mapped(kind(**plain, **changed), source, target)
    assert np.abs(gap).max() > 1e-6


@pytest.mark.parametrize(
    ("aligner", "message"),
    [
        (SinkhornTransport(regularisation=0.0), "SinkhornTransport: regularisation must be a number above 0"),
        (SinkhornTransport(normalise="mode"), "normalise must be one of mean, median, max, none; got 'mode'"),
        (SinkhornTransport(max_rounds=0), "max_rounds must be a whole number"),
        (UnbalancedTransport(marginal_weight=-1.0), "marginal_weight must be a number above 0"),
        (PartialTransport(mass=1.5), "mass must be a number above 0 and at most 1"),
        (ClassRegularisedTransport(penalty="l0"), "penalty must be one of lpl1, group_lasso"),
        (LaplaceTransport(of="speed"), "of must be one of displacement, position"),
        (LaplaceTransport(target_share=2.0), "target_share must be a number"),
    ],
)
def test_bad_options_are_refused(aligner: FeatureAligner, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mapped(aligner, *rows(0))


def test_without_pot_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = rows(0)
    monkeypatch.setitem(sys.modules, "ot", None)
    for aligner in (EMDTransport(), PartialTransport(), LaplaceTransport()):
        with pytest.raises(MissingExtra, match=r'pip install "headstart\[ot\]"'):
            mapped(aligner, source, target)
    assert np.isfinite(mapped(SinkhornTransport(), source, target)).all()  # written here, needs nothing
