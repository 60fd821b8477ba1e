"""JDOT: objectives written out and never rising; JCPOT: known proportions recovered, optimality of the stated problem."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import optimize, special

from headstart.alignment import JCPOT, JDOTClassifier, JDOTRegressor
from headstart.alignment.jdot import soft_logistic
from headstart.alignment.transport_plans import squared_costs
from headstart.core.errors import ConfigError, DomainError

pytest.importorskip("ot")


def rotated(seed: int, num_rows: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return two classes in the plane, and the same turned by half a right angle and moved."""
    random = np.random.default_rng(seed)
    labels, target_labels = np.arange(num_rows) % 2, np.arange(num_rows) % 2
    source = random.normal(size=(num_rows, 2)) * 0.7 + labels[:, None] * [3.0, 0.0]
    target = random.normal(size=(num_rows, 2)) * 0.7 + target_labels[:, None] * [3.0, 0.0]
    turn = np.array([[1.0, 1.0], [-1.0, 1.0]]) / np.sqrt(2)
    return source, labels, target @ turn + [0.5, 0.5], target_labels


def test_soft_logistic_is_the_minimum_of_the_written_loss() -> None:
    random = np.random.default_rng(0)
    rows, soft = random.normal(size=(8, 2)), random.dirichlet(np.ones(3), size=8) / 8

    def loss(flat: np.ndarray) -> float:
        weights = flat.reshape(3, 3)
        total = 0.05 * np.square(weights[:2]).sum()
        for i in range(8):
            scores = rows[i] @ weights[:2] + weights[2]
            for k in range(3):
                total -= soft[i, k] * (scores[k] - np.log(np.exp(scores).sum()))
        return float(total)

    found = soft_logistic(rows, soft, 0.1)
    best = optimize.minimize(loss, np.zeros(9), tol=1e-10)
    assert loss(found.ravel()) == pytest.approx(best.fun, abs=1e-8)
    np.testing.assert_allclose(found[:2], best.x.reshape(3, 3)[:2], atol=1e-4)


def test_classifier_objective_is_the_written_one_and_never_rises() -> None:
    source, labels, target, _ = rotated(0)
    fitted = JDOTClassifier(feature_weight=0.3, regularisation=0.01).fit(source, labels, target)
    assert len(fitted.objective_) > 2
    assert (np.diff(fitted.objective_) <= 1e-8).all()
    costs = np.array([[((x - z) ** 2).sum() for z in target] for x in source])
    said, value = fitted.predict_proba(target), 0.005 * np.square(fitted.coefficients_).sum()
    for i in range(60):
        for j in range(60):
            value += fitted.plan_[i, j] * (0.3 * costs[i, j] / costs.mean() - np.log(said[j, labels[i]]))
    assert fitted.objective_[-1] == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_regressor_objective_is_the_written_one_and_never_rises(kernel: str) -> None:
    source, _, target, _ = rotated(1, 30)
    values = np.sin(source[:, 0]) + source[:, 1]
    fitted = JDOTRegressor(0.3, 0.01, kernel, 0.8).fit(source, values, target)
    assert len(fitted.objective_) > 2
    assert (np.diff(fitted.objective_) <= 1e-10).all()
    scale = np.concatenate([source, target])
    scaled = (target - scale.mean(axis=0)) / np.sqrt(((scale - scale.mean(axis=0)) ** 2).sum(axis=1).mean())
    gram = np.exp(-squared_costs(scaled, scaled) / (2 * 0.8**2)) if kernel == "rbf" else scaled @ scaled.T
    middle = np.eye(30) - 1 / 30
    standard = (values - values.mean()) / values.std()
    sent = 30 * fitted.plan_.T @ standard
    dual = np.linalg.solve(middle @ gram @ middle + 0.3 * np.eye(30), sent - sent.mean())  # regularisation times m
    said = middle @ gram @ dual + sent.mean()
    np.testing.assert_allclose(fitted.predict(target), said * values.std() + values.mean(), atol=1e-8)
    costs = squared_costs(source, target)
    joint = 0.3 * costs / costs.mean() + (standard[:, None] - said) ** 2
    assert fitted.objective_[-1] == pytest.approx((fitted.plan_ * joint).sum() + 0.01 * dual @ gram @ dual, rel=1e-8)


def test_joint_transport_beats_the_source_alone_on_turned_classes() -> None:
    source, labels, target, target_labels = rotated(0, 120)
    alone = soft_logistic(source, np.eye(2)[labels] / 120, 1e-3)
    before = ((target @ alone[:2] + alone[2]).argmax(axis=1) == target_labels).mean()
    assert JDOTClassifier().fit(source, labels, target).score(target, target_labels) > before + 0.02


@pytest.mark.parametrize("kind", [JDOTClassifier, JDOTRegressor, JCPOT])
def test_units_origin_and_order_change_nothing(kind: Any) -> None:
    source, labels, target, _ = rotated(3, 30)
    values = labels if kind is not JDOTRegressor else source[:, 0] * 2.0
    order = np.random.default_rng(0).permutation(30)

    def said(fitted: Any, rows: np.ndarray) -> np.ndarray:
        return np.asarray(fitted.predict(rows) if kind is JDOTRegressor else fitted.predict_proba(rows))

    plain = said(kind().fit(source, values, target), target)
    moved = said(kind().fit(1e3 * source + 50.0, values, 1e3 * target + 50.0), 1e3 * target + 50.0)
    np.testing.assert_allclose(moved, plain, atol=1e-4)
    mixed = said(kind().fit(source[order], values[order], target[order[::-1]]), target)
    np.testing.assert_allclose(mixed, plain, atol=1e-4)


def test_regression_labels_may_have_any_unit() -> None:
    source, _, target, _ = rotated(4, 30)
    values = source[:, 0]
    plain = JDOTRegressor().fit(source, values, target).predict(target)
    np.testing.assert_allclose(
        JDOTRegressor().fit(source, 1e4 * values - 7, target).predict(target), 1e4 * plain - 7, rtol=1e-5
    )


def shifted_proportions(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return three classes in the plane from two sources and a target, each with its own proportions."""
    random = np.random.default_rng(seed)
    places = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    labels = np.concatenate([np.repeat([0, 1, 2], counts) for counts in ([60, 30, 30], [20, 60, 20], [15, 30, 105])])
    return places[labels] + random.normal(size=(370, 2)), labels, np.repeat([3, 1, -2], [120, 100, 150]), labels[220:]


def test_known_proportions_are_recovered() -> None:
    rows, labels, domains, target_labels = shifted_proportions(0)
    names = np.array(["ant", "bee", "cow"])
    fitted = JCPOT(regularisation=0.02).fit(rows, names[labels], sample_domain=domains)
    np.testing.assert_allclose(fitted.proportions_, [0.1, 0.2, 0.7], atol=0.02)
    assert fitted.score(rows[domains < 0], names[target_labels]) > 0.97


@pytest.mark.golden
def test_proportions_are_the_minimum_of_the_stated_problem() -> None:
    rows, labels, domains, _ = shifted_proportions(1)
    keep = np.random.default_rng(0).permutation(370)[:40]
    rows, labels, domains = rows[keep], labels[keep], domains[keep]
    fitted = JCPOT(regularisation=0.2, max_rounds=5000).fit(rows, labels, sample_domain=domains)
    target = rows[domains < 0]
    regularisation = fitted.cost_unit_

    def value(free: np.ndarray) -> float:
        share, total = special.softmax(np.r_[free, 0.0]), 0.0
        for number in (1, 3):
            codes = labels[domains == number]
            mass = (share / np.bincount(codes))[codes]
            costs = squared_costs(rows[domains == number], target) / regularisation
            g = np.zeros(len(target))
            for _ in range(150):
                f = np.log(mass) - special.logsumexp(g - costs, axis=1)
                g = -np.log(len(target)) - special.logsumexp(f[:, None] - costs, axis=0)
            total += 0.5 * (mass @ f + g.mean() - np.exp(f[:, None] + g - costs).sum())
        return float(total)

    best = optimize.minimize(value, np.zeros(2), method="BFGS")
    np.testing.assert_allclose(fitted.proportions_, special.softmax(np.r_[best.x, 0.0]), atol=1e-4)


def test_labels_of_target_rows_are_those_the_plans_carry() -> None:
    rows, labels, domains, _ = shifted_proportions(2)
    fitted = JCPOT().fit(rows, labels, sample_domain=domains)
    target, carried = rows[domains < 0], np.zeros((150, 3))
    for place, number in enumerate((1, 3)):
        costs = squared_costs(rows[domains == number], target) / fitted.cost_unit_
        kernel = np.exp(fitted.source_potentials_[place][:, None] - costs)
        plan = kernel / kernel.sum(axis=0) / 150
        np.testing.assert_allclose(
            np.bincount(labels[domains == number], plan.sum(axis=1)), fitted.proportions_, atol=1e-5
        )
        for label in range(3):
            carried[:, label] += 75 * plan[labels[domains == number] == label].sum(axis=0)
    np.testing.assert_allclose(fitted.predict_proba(target), carried, atol=1e-10)


def test_a_source_without_a_class_is_refused() -> None:
    rows, labels, domains, _ = shifted_proportions(3)
    lacking = (domains == 3) & (labels == 1)
    with pytest.raises(DomainError, match="source 2 has no row of 1"):
        JCPOT().fit(rows[~lacking], labels[~lacking], sample_domain=domains[~lacking])


CHANGES: list[tuple[type, dict[str, Any]]] = [
    (JDOTClassifier, {"feature_weight": 30.0}),
    (JDOTClassifier, {"regularisation": 1.0}),
    (JDOTClassifier, {"max_rounds": 1}),
    (JDOTRegressor, {"feature_weight": 30.0}),
    (JDOTRegressor, {"regularisation": 1.0}),
    (JDOTRegressor, {"kernel": "linear"}),
    (JDOTRegressor, {"bandwidth": 0.2}),
    (JDOTRegressor, {"max_rounds": 1}),
    (JCPOT, {"regularisation": 0.5}),
    (JCPOT, {"normalise": "max"}),
    (JCPOT, {"max_rounds": 1}),
]


@pytest.mark.parametrize(("kind", "changed"), CHANGES, ids=str)
def test_no_parameter_is_dead(kind: Any, changed: dict[str, Any]) -> None:
    source, labels, target, _ = rotated(7, 40)
    labels[:8] = 1 - labels[:8]
    values: Any = np.sin(2 * source[:, 0]) if kind is JDOTRegressor else labels
    said = [
        fitted.predict if kind is JDOTRegressor else fitted.predict_proba
        for fitted in (kind().fit(source, values, target), kind(**changed).fit(source, values, target))
    ]
    assert np.abs(said[0](target) - said[1](target)).max() > 1e-6


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (JDOTClassifier(regularisation=0.0), "JDOTClassifier: regularisation must be a number above 0"),
        (JDOTClassifier(feature_weight=-1.0), "feature_weight must be a number at least 0"),
        (JDOTRegressor(kernel="cubic"), "kernel must be one of rbf, linear"),
        (JDOTRegressor(bandwidth=0.0), "bandwidth must be a number above 0"),
        (JCPOT(max_rounds=0), "max_rounds must be a whole number of at least 1"),
        (JCPOT(normalise="mode"), "normalise must be one of"),
    ],
)
def test_bad_options_are_refused(estimator: Any, message: str) -> None:
    source, labels, target, _ = rotated(0, 10)
    with pytest.raises(ConfigError, match=message):
        estimator.fit(source, labels, target)
