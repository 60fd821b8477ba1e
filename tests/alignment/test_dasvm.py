"""DASVM against a literal walk, on turned moons, and where it loses its way."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import SVC

from headstart.alignment import DASVM
from headstart.core.errors import ConfigError
from two_domain_problems import clouds, turned_moons


def literal_walk(
    source: np.ndarray, signs: list[int], target: np.ndarray, rho: int, beta: float, limit: int
) -> tuple[SVC, list[dict[str, set[int]]]]:
    """The walk row by row, c = 0.3 and A = 3: the last machine, and which rows entered, went out and left in each round."""
    staying, entered, given, diary = set(range(len(source))), {}, {}, []

    def train() -> SVC:
        kept, inside = sorted(staying), sorted(entered)
        ages = [(len(diary) - entered[i]) / 3 for i in inside]
        weights = [1.0] * len(kept) + [0.3 + 0.7 * min(1.0, age) ** 2 for age in ages]
        rows, marks = [*source[kept], *target[inside]], [signs[i] for i in kept] + [given[i] for i in inside]
        return SVC(gamma=1.0).fit(np.array(rows), marks, sample_weight=weights)

    machine = train()
    while len(diary) < limit:
        f, g = machine.decision_function(target), machine.decision_function(source)
        outside = [i for i in range(len(target)) if i not in entered]
        up = sorted((i for i in outside if 0 <= f[i] < 1), key=lambda i: 1 - f[i])[:rho]
        low = sorted((i for i in outside if -1 < f[i] < 0), key=lambda i: 1 + f[i])[:rho]
        turned = {i for i in entered if (f[i] >= 0) != (given[i] == 1)}
        counts = (len(up), len(low)) if up or low else (rho, rho)
        far = [sum((source[i] - target.mean(axis=0)) ** 2) for i in range(len(source))]
        gone = set(sorted((i for i in staying if g[i] >= 0), key=lambda i: (-round(g[i], 4), -far[i]))[: counts[0]])
        gone |= set(sorted((i for i in staying if g[i] < 0), key=lambda i: (round(g[i], 4), -far[i]))[: counts[1]])
        diary.append({"in": {*up, *low}, "out": turned, "left": gone})
        if not gone and len(up + low) <= np.ceil(beta * len(target)) and len(turned) <= np.ceil(beta * len(target)):
            break
        for i in turned:
            del entered[i], given[i]
        for i in up + low:
            entered[i], given[i] = len(diary), 1 if i in up else -1
        staying -= gone
        machine = train()
    return machine, diary


@pytest.mark.parametrize(("degrees", "beta", "limit"), [(30, 0.03, 100), (30, 0.5, 100), (45, 0.03, 6), (10, 0.0, 100)])
def test_it_follows_a_literal_walk(degrees: int, beta: float, limit: int) -> None:
    source, labels = turned_moons(0, num_rows=60)
    target, _ = turned_moons(1, degrees=degrees, num_rows=60)
    options = {"share": 0.1, "max_rounds": limit, "first_weight": 0.3, "growth_rounds": 3, "settled": beta}
    model = DASVM(SVC(gamma=1.0), **options).fit(source, labels, target)
    machine, diary = literal_walk(source, np.where(labels == "out", 1, -1).tolist(), target, 6, beta, limit)
    assert model.num_rounds_ == [len(diary)]
    left = set().union(*(day["left"] for day in diary))
    assert model.is_target_only_ == [left == set(range(60))]
    values = machine.decision_function(target)
    np.testing.assert_allclose(model.decision_function(target), values, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(target)[:, 1], 1 / (1 + np.exp(-2 * values)), atol=1e-6)


def test_a_walk_goes_through_all_that_the_rule_names() -> None:
    """The twin above sees rows go out again, rounds in which none enters and rho leave, and an end without source rows."""
    source, labels = turned_moons(0, num_rows=60)
    target, _ = turned_moons(1, degrees=10, num_rows=60)
    _, diary = literal_walk(source, np.where(labels == "out", 1, -1).tolist(), target, 6, 0.03, 100)
    assert 3 < len(diary) < 100
    assert any(day["out"] for day in diary)
    assert any(day["left"] and not day["in"] for day in diary)
    assert not diary[-1]["left"] and set().union(*(day["left"] for day in diary)) == set(range(60))


def test_it_follows_turned_moons_and_is_lost_where_they_turn_too_far() -> None:
    source, labels = turned_moons(0)
    kernel = SVC(gamma=2, C=10)
    target, truth = turned_moons(1, degrees=30)
    alone = kernel.fit(source, labels).score(target, truth)
    assert alone < 0.92
    assert DASVM(kernel).fit(source, labels, target).score(target, truth) > alone + 0.04
    target, truth = turned_moons(1, degrees=60)  # the source is right for a third of the rows
    alone = kernel.fit(source, labels).score(target, truth)
    assert DASVM(kernel).fit(source, labels, target).score(target, truth) < alone - 0.05


def test_more_classes_are_one_machine_each() -> None:
    draws = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    codes = np.arange(60) % 3
    source, target = (draws.normal(size=(60, 2)) * 0.5 + centres[codes] for _ in range(2))
    model = DASVM().fit(source, np.array(["a", "b", "c"])[codes], target + 0.5)
    assert len(model.estimators_) == 3
    assert model.decision_function(target).shape == (60, 3)
    assert model.score(target + 0.5, np.array(["a", "b", "c"])[codes]) == 1.0


def test_a_class_that_the_target_does_not_show_keeps_a_source_row() -> None:
    source, labels = clouds(0)
    target = source[labels == "up"] + [30.0, 0, 0, 0, 0]
    model = DASVM(SVC(kernel="linear")).fit(source, labels, target)
    assert model.is_target_only_ == [False]
    assert set(model.predict(target)) == {"up"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, "share must be a number above 0"),
        ({"first_weight": 2.0}, "first_weight must be"),
        ({"max_rounds": 0}, "max_rounds must be"),
        ({"growth_rounds": 0}, "growth_rounds must be"),
        ({"settled": 1.5}, "settled must be"),
        ({"estimator": GaussianNB()}, "GaussianNB has none"),
    ],
)
def test_options_are_checked_in_words(options, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=f"DASVM: .*{message}"):
        DASVM(**options).fit([[0.0], [1.0]], [0, 1])


def test_every_option_changes_something() -> None:
    source, labels = turned_moons(0)
    target, _ = turned_moons(1, degrees=40)
    kernel = SVC(gamma=2, C=10)
    changes = {
        "estimator": SVC(),
        "share": 0.02,
        "max_rounds": 2,
        "first_weight": 1.0,
        "growth_rounds": 20,
        "settled": 0.0,
    }
    assert set(changes) == set(DASVM().get_params(deep=False))
    usual = DASVM(kernel).fit(source, labels, target).decision_function(target)
    for name, value in changes.items():
        other = DASVM(**{"estimator": kernel, name: value}).fit(source, labels, target).decision_function(target)
        assert not np.allclose(other, usual), name
