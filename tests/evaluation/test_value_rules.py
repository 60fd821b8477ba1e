"""Rules for candidates that predict numbers: their formulas in float64, and what must not change them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from headstart.core.errors import DataError, ShapeError
from headstart.evaluation import selection
from headstart.evaluation.selecting.values import ValueRule
from headstart.evaluation.selection import (
    SourceError,
    ValueCircularValidation,
    ValueDeepEmbeddedValidation,
    ValueEvidence,
    ValueImportanceWeighted,
)

RULES: tuple[type[ValueRule], ...] = tuple(
    rule
    for rule in (getattr(selection, name) for name in selection.__all__)
    if isinstance(rule, type) and issubclass(rule, ValueRule) and rule is not ValueRule
)
each = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)


def evidence(seed: int = 0) -> ValueEvidence:
    """A straight line with noise, judged by a line near it."""
    random = np.random.default_rng(seed)
    source, target = random.normal(size=(24, 3)), random.normal(size=(30, 3)) + 0.4
    slope = np.array([1.0, -2.0, 0.5])
    return ValueEvidence(
        target_values_m=target @ (slope + 0.2),
        source_values_v=source @ (slope + 0.2),
        source_labels_v=source @ slope + 0.3 * random.normal(size=24),
        source_rows_vd=source,
        target_rows_md=target,
        source_features_vr=2 * source,
        target_features_mr=2 * target + 0.1,
        refit=lambda rows, values, others: Ridge(alpha=0.1).fit(rows, values),
    )


def errors(given: ValueEvidence) -> np.ndarray:
    labels = given.source_labels_v
    mean = sum(labels.tolist()) / len(labels)
    variance = sum((value - mean) ** 2 for value in labels.tolist()) / len(labels)
    return np.array([(a - b) ** 2 / variance for a, b in zip(given.source_values_v, labels, strict=True)])


def twin(rule: type[ValueRule], given: ValueEvidence, weights: np.ndarray) -> float:
    """Each rule's formula written out."""
    if rule is SourceError:
        return 1 - float(np.mean(errors(given)))
    if rule is ValueImportanceWeighted:
        return -float(sum(w * e for w, e in zip(weights, errors(given), strict=True)) / len(weights))
    if rule is ValueDeepEmbeddedValidation:
        loss = weights * errors(given)
        covariance = np.mean((loss - loss.mean()) * (weights - weights.mean()))
        eta = -covariance / np.mean((weights - weights.mean()) ** 2)
        return -float(loss.mean() + eta * weights.mean() - eta)
    assert rule is ValueCircularValidation
    model = Ridge(alpha=0.1).fit(given.target_rows_md, given.target_values_m)
    returned = replace(given, source_values_v=model.predict(given.source_rows_vd))
    return 1 - float(np.mean(errors(returned)))


@each
def test_the_formula(rule: type[ValueRule]) -> None:
    weights = np.random.default_rng(1).uniform(0.2, 2.0, 24)
    given = replace(evidence(), input_weights_v=weights, feature_weights_v=weights)
    assert rule().score(given) == pytest.approx(twin(rule, given, weights), rel=1e-9)


@each
def test_the_order_of_rows_changes_no_score(rule: type[ValueRule]) -> None:
    random, given = np.random.default_rng(2), evidence()
    source, target = random.permutation(24), random.permutation(30)
    moved = replace(
        given,
        **{name: getattr(given, name)[source] for name in given.available if name.startswith("source_")},
        **{name: getattr(given, name)[target] for name in given.available if name.startswith("target_")},
    )
    assert rule().score(moved) == pytest.approx(rule().score(given), rel=1e-6)


@each
def test_the_unit_of_the_numbers_changes_no_score(rule: type[ValueRule]) -> None:
    given = evidence()
    scaled = replace(
        given,
        **{name: 1000 * getattr(given, name) + 7 for name in ("target_values_m", "source_values_v", "source_labels_v")},
    )
    assert rule().score(scaled) == pytest.approx(rule().score(given), rel=1e-6)


@each
def test_what_a_rule_lacks_is_named(rule: type[ValueRule]) -> None:
    instance, bare = rule(), ValueEvidence(target_values_m=[0.0, 1.0])
    score = instance.scores({"bare": bare})["bare"]
    assert not score.is_judged and any(field in score.reason for field in instance.needs[-1] | instance.needs[0])


@each
def test_it_says_what_it_is(rule: type[ValueRule]) -> None:
    facts = rule.facts
    assert all((facts.title, facts.source, facts.unit, facts.bounds, facts.fails_when))
    known = {item.name for item in fields(ValueEvidence)}
    assert rule().needs and all(need <= known for need in rule().needs)
    assert rule().for_values() is not None and "Examples" in (rule.__doc__ or "")


@pytest.mark.parametrize("rule", [ValueImportanceWeighted, ValueDeepEmbeddedValidation])
def test_the_seed_draws_the_folds_of_the_domain_classifier(rule: Callable[..., Any]) -> None:
    assert rule(random_state=0).score(evidence()) != rule(random_state=3).score(evidence())


def test_what_is_no_evidence_is_refused() -> None:
    with pytest.raises(TypeError, match="target_labels_m"):
        ValueEvidence(target_values_m=[0.0], target_labels_m=[0.0])  # type: ignore[call-arg]
    with pytest.raises(ShapeError, match="one number a row"):
        ValueEvidence(target_values_m=[[0.0]])
    with pytest.raises(DataError, match="NaN or infinity"):
        ValueEvidence(target_values_m=[float("nan")])
    with pytest.raises(DataError, match="same number of target rows"):
        SourceError().scores(
            {"a": evidence(), "b": ValueEvidence(target_values_m=[0.0], source_values_v=[0.0], source_labels_v=[0.0])}
        )
    level = replace(evidence(), source_labels_v=np.ones(24))
    assert not SourceError().judge(level).is_judged
