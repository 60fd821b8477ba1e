"""DASVM against a literal walk, on turned moons, and where it loses its way."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import SVC

from headstart.alignment import DASVM
from headstart.core.errors import ConfigError
from two_domain_problems import clouds, turned_moons


def test_it_follows_a_literal_walk() -> None:
    source, labels = turned_moons(0, num_rows=60)
    target, _ = turned_moons(1, degrees=30, num_rows=60)
    options = {"share": 0.1, "max_rounds": 7, "first_weight": 0.3, "growth_rounds": 3}
    model = DASVM(SVC(gamma=1.0), **options).fit(source, labels, target)
    signs = np.where(labels == "out", 1, -1)
    staying, entered, given = set(range(60)), {}, {}

    def train(rows: list[np.ndarray], marks: list[int], weights: list[float]) -> SVC:
        return SVC(gamma=1.0).fit(np.array(rows), marks, sample_weight=weights)

    machine = train([*source], [*signs], [1.0] * 60)
    for number in range(1, 8):
        f, f_source = machine.decision_function(target), machine.decision_function(source)
        for i in list(entered):
            if (f[i] >= 0) != (given[i] == 1):
                del entered[i], given[i]
        up = sorted((i for i in range(60) if i not in entered and 0 <= f[i] < 1), key=lambda i: -f[i])[:6]
        low = sorted((i for i in range(60) if i not in entered and -1 < f[i] < 0), key=lambda i: f[i])[:6]
        if not up + low:
            break
        for i in up + low:
            entered[i], given[i] = number, 1 if i in up else -1
        staying -= set(sorted((i for i in staying if f_source[i] >= 0), key=lambda i: -f_source[i])[: len(up)])
        staying -= set(sorted((i for i in staying if f_source[i] < 0), key=lambda i: f_source[i])[: len(low)])
        inside = sorted(entered)
        weights = [0.3 + 0.7 * min(1, (number - entered[i]) / 3) ** 2 for i in inside]
        machine = train(
            [*source[sorted(staying)], *target[inside]],
            [*signs[sorted(staying)], *(given[i] for i in inside)],
            [*[1.0] * len(staying), *weights],
        )
    answers = np.where(machine.decision_function(target) >= 0, 1, -1)
    last = train([*target], [*answers], [1.0] * 60)
    assert model.num_rounds_ == [number]
    assert number > 3
    np.testing.assert_allclose(model.decision_function(target), last.decision_function(target), atol=1e-6)
    sigmoid = 1 / (1 + np.exp(-2 * last.decision_function(target)))
    np.testing.assert_allclose(model.predict_proba(target)[:, 1], sigmoid, atol=1e-6)


def test_it_follows_turned_moons_and_is_lost_where_they_turn_too_far() -> None:
    source, labels = turned_moons(0)
    kernel = SVC(gamma=2, C=10)
    target, truth = turned_moons(1, degrees=30)
    alone = kernel.fit(source, labels).score(target, truth)
    assert alone < 0.92
    assert DASVM(kernel).fit(source, labels, target).score(target, truth) > alone + 0.05
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


def test_a_target_of_one_class_keeps_the_machine_with_source_rows() -> None:
    source, labels = clouds(0)
    target = source[labels == "up"] + [3.0, 0, 0, 0, 0]
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
    changes = {"estimator": SVC(), "share": 0.02, "max_rounds": 2, "first_weight": 1.0, "growth_rounds": 20}
    assert set(changes) == set(DASVM().get_params(deep=False))
    usual = DASVM(kernel).fit(source, labels, target).decision_function(target)
    for name, value in changes.items():
        other = DASVM(**{"estimator": kernel, name: value}).fit(source, labels, target).decision_function(target)
        assert not np.allclose(other, usual), name
