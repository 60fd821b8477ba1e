"""Neither the order of rows nor the names of classes changes what the methods that learn from labels or answers say."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.alignment import (
    CODA,
    DASVM,
    LAME,
    AugmentedClassifier,
    BalancedWeighting,
    CoTraining,
    DemocraticCoLearning,
    Fusion,
    GradualCoTraining,
    LabelPropagation,
    Prototypes,
    SelfTraining,
    SourceFree,
    SourcePriorLogistic,
    TrAdaBoost,
)
from two_domain_problems import clouds, few_labels

UNLABELLED = [
    CODA(num_rounds=4),
    CoTraining(),
    DASVM(),
    GradualCoTraining(),
    LAME(),
    LabelPropagation(),
    LabelPropagation(form="spreading"),
    Prototypes(),
    SelfTraining(calibrate=False),
    SourceFree(),
]
# Folds are dealt in the order of the rows of a class, so these keep one order of the source or of the labelled target rows.
FOLDED = [DemocraticCoLearning(), SelfTraining()]
FEW = [
    AugmentedClassifier(),
    BalancedWeighting(),
    Fusion(weight=0.4),
    SourcePriorLogistic(alpha=1.0),
    TrAdaBoost(num_rounds=5),
]


def said(method, source, labels, target, known, queries):  # type: ignore[no-untyped-def]
    options = {"target_labels": known} if method.uses_target_labels else {}
    return method.fit(source, labels, target, **options).predict_proba(queries)


@pytest.mark.parametrize("method", [*UNLABELLED, *FEW], ids=repr)
def test_order_of_rows(method) -> None:  # type: ignore[no-untyped-def]
    source, labels = clouds(0)
    target, truth = clouds(1, shift=1.0)
    queries = clouds(2, shift=1.0)[0]
    known = few_labels(truth, 6)
    draws = np.random.default_rng(0)
    one, other = draws.permutation(len(source)), draws.permutation(len(target))
    plain = said(method, source, labels, target, known, queries)
    mixed = said(method, source[one], labels[one], target[other], known[other], queries)
    np.testing.assert_allclose(mixed, plain, atol=2e-3)


@pytest.mark.parametrize("method", [*UNLABELLED, *FOLDED, *FEW], ids=repr)
def test_names_of_classes(method) -> None:  # type: ignore[no-untyped-def]
    source, labels = clouds(0)
    target, truth = clouds(1, shift=1.0)
    known = few_labels(truth, 6)
    renamed = {"down": "z", "up": "b", None: None}
    plain = said(method, source, labels, target, known, target)
    other = said(
        method,
        source,
        np.array([renamed[label] for label in labels]),
        target,
        np.array([renamed[label] for label in known], dtype=object),
        target,
    )
    np.testing.assert_allclose(other[:, ::-1], plain, atol=2e-3)
