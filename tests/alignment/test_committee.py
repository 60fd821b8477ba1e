"""Committees: the mean of what their members say, fitted together or taken over fitted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from headstart.alignment import CORAL, KMM, AdaptedClassifier, Committee, MomentMatching, SourceFree
from headstart.core.errors import ConfigError


def domains(seed: int = 0) -> tuple[Any, Any, Any]:
    draws = np.random.default_rng(seed)
    labels = np.array(["ant", "bee", "cow"])[draws.integers(3, size=60)]
    centres = {"ant": [-2.0, 0.0], "bee": [2.0, 0.0], "cow": [0.0, 3.0]}
    source = np.array([centres[label] for label in labels]) + draws.normal(size=(60, 2))
    target = source[draws.permutation(60)[:40]] * [1.5, 0.5] + draws.normal(size=(40, 2)) * 0.3 + 1.0
    return source, labels, target


def members() -> list[Any]:
    return [AdaptedClassifier(), AdaptedClassifier(MomentMatching()), SourceFree()]


def test_the_mean_of_members_fitted_alone() -> None:
    source, labels, target = domains()
    committee = Committee(members()).fit(source, labels, target)
    alone = [member.fit(source, labels, target) for member in members()]
    tables = [member.predict_proba(target) for member in alone]
    expected = np.array([[sum(table[i, k] for table in tables) / 3 for k in range(3)] for i in range(40)])
    np.testing.assert_allclose(committee.predict_proba(target), expected, atol=1e-12)
    assert committee.classes_.tolist() == ["ant", "bee", "cow"]
    np.testing.assert_array_equal(committee.predict(target), committee.classes_[expected.argmax(axis=1)])


def test_members_that_are_fitted_already_are_taken_as_they_are() -> None:
    source, labels, target = domains()
    alone = [member.fit(source, labels, target) for member in members()]
    taken = Committee.of(alone)
    assert all(first is second for first, second in zip(taken.members_, alone, strict=True))
    np.testing.assert_array_equal(
        taken.predict_proba(target), Committee(members()).fit(source, labels, target).predict_proba(target)
    )
    again = clone(taken).fit(source, labels, target)  # its constructor holds the recipes
    np.testing.assert_array_equal(again.predict_proba(target), taken.predict_proba(target))


def test_both_forms_agree() -> None:
    source, labels, target = domains()
    mixed = np.concatenate([target, source])
    known = np.concatenate([np.full(40, "ant"), labels])  # never read for target rows
    domain = np.concatenate([np.full(40, -1), np.full(60, 1)])
    first = Committee(members()).fit(source, labels, target)
    second = Committee(members()).fit(mixed, known, sample_domain=domain)
    np.testing.assert_allclose(first.predict_proba(target), second.predict_proba(target), atol=1e-10)


def test_what_is_no_committee_is_refused() -> None:
    source, labels, target = domains()
    with pytest.raises(ConfigError, match="at least two classifiers; got 1"):
        Committee([SourceFree()]).fit(source, labels, target)
    for member in (CORAL(), KMM()):
        with pytest.raises(ConfigError, match=r"got \w+. Put an aligner into AdaptedClassifier"):
            Committee([SourceFree(), member]).fit(source, labels, target)
    one = SourceFree().fit(source, labels, target)
    other = SourceFree().fit(source, np.where(labels == "ant", "ape", labels), target)
    with pytest.raises(ConfigError, match="the same classes"):
        Committee.of([one, other])
