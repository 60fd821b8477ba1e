"""Confident learning: a literal twin, and planted wrong labels that must be found."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from headstart.core.errors import ShapeError
from headstart.evaluation import suspect_labels


def twin(targets: np.ndarray, probabilities: np.ndarray) -> set[tuple[int, int]]:
    """The paper's definition, row by row."""
    num_classes = probabilities.shape[1]
    thresholds = [
        np.mean([p[j] for p, y in zip(probabilities, targets, strict=True) if y == j])
        if (targets == j).any()
        else np.inf
        for j in range(num_classes)
    ]
    found = set()
    for index, (given, row) in enumerate(zip(targets, probabilities, strict=True)):
        confident = [j for j in range(num_classes) if row[j] >= thresholds[j]]
        if confident:
            best = max(confident, key=lambda j: row[j])
            if best != given and best == int(np.argmax(row)):
                found.add((index, best))
    return found


def test_agrees_with_the_definition() -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 4, 300)
    probabilities = random.dirichlet([0.5] * 4, 300)
    names = ["0", "1", "2", "3"]
    found = suspect_labels(targets, probabilities, names)
    assert {(one.index, int(one.suggested)) for one in found} == twin(targets, probabilities)
    assert all(int(one.given) == targets[one.index] for one in found)
    margins = [one.margin for one in found]
    assert margins == sorted(margins, reverse=True)
    assert min(margins) > 0


def test_planted_wrong_labels_are_found() -> None:
    features, truth = make_blobs(400, centers=4, cluster_std=1.5, n_features=8, random_state=0)
    targets = truth.copy()
    wrong = np.random.default_rng(0).choice(400, 20, replace=False)
    targets[wrong] = (targets[wrong] + 1) % 4
    probabilities = cross_val_predict(
        LogisticRegression(C=0.1, max_iter=1000), features, targets, method="predict_proba"
    )
    found = suspect_labels(targets, probabilities, list("abcd"), max_rows=20)
    hits = {one.index for one in found} & set(wrong)
    assert len(hits) >= 18
    assert all("abcd".index(one.suggested) == truth[one.index] for one in found if one.index in hits)


def test_clean_labels_raise_nothing() -> None:
    targets = np.array([0, 1] * 20)
    probabilities = np.where(np.eye(2)[targets] > 0, 0.9, 0.1)
    assert suspect_labels(targets, probabilities, ["a", "b"]) == []


def test_rows_without_an_answer_are_passed_over() -> None:
    targets = np.array([0, 0, 1, 1, 0])
    probabilities = np.array([[0.9, 0.1], [np.nan, np.nan], [0.1, 0.9], [0.2, 0.8], [0.05, 0.95]])
    assert [one.index for one in suspect_labels(targets, probabilities, ["a", "b"])] == [4]


def test_several_labels_at_once() -> None:
    targets = np.tile([[1, 0]], (10, 1)).astype(np.uint8)
    targets[5:] = [0, 1]
    probabilities = np.where(targets > 0, 0.9, 0.1)
    targets[0, 1] = 1  # says b, which the model does not see
    found = suspect_labels(targets, probabilities, ["a", "b"])
    assert [(one.index, one.given, one.suggested) for one in found] == [(0, "b", "not b")]
    assert found[0].margin == pytest.approx(0.8)


def test_misfit_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"shape \(3, 2\)"):
        suspect_labels(np.zeros(3, dtype=int), np.zeros((3, 3)), ["a", "b"])
