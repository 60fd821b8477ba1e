"""One evaluation holds what its task allows, agrees with scikit-learn, and says what is missing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from headstart.core.errors import DataError, ShapeError
from headstart.core.tasks import Task
from headstart.evaluation import evaluate
from headstart.metrics import metrics_for

THREE = Task("classification", ("a", "b", "c"))


def some_scores(num_rows: int = 90) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    targets = random.integers(0, 3, num_rows)
    scores = random.random((num_rows, 3)) + 0.7 * np.eye(3)[targets]
    return targets, scores / scores.sum(axis=1, keepdims=True)


def test_classification_agrees_with_scikit_learn() -> None:
    targets, scores = some_scores()
    predictions = scores.argmax(axis=1)
    result = evaluate(THREE, targets, scores, num_resamples=50)
    assert list(result.metrics) == [metric.name for metric in metrics_for(THREE)]
    assert result.metrics["f1_macro"].value == pytest.approx(reference.f1_score(targets, predictions, average="macro"))
    assert result.confusion_kk is not None
    assert (result.confusion_kk == reference.confusion_matrix(targets, predictions)).all()
    precision, recall, f1, support = reference.precision_recall_fscore_support(targets, predictions)
    for index, row in enumerate(result.per_class):
        assert (row.name, row.support) == (THREE.classes[index], support[index])
        assert (row.precision, row.recall, row.f1) == pytest.approx((precision[index], recall[index], f1[index]))
        assert row.recall_low <= row.recall <= row.recall_high
        assert row.predicted == (predictions == index).sum()


def test_reliability_bins_hold_every_row() -> None:
    targets, scores = some_scores()
    result = evaluate(THREE, targets, scores, num_resamples=10, num_bins=5)
    assert len(result.reliability) == 5
    assert sum(one.count for one in result.reliability) == 90
    filled = [one for one in result.reliability if one.count]
    assert all(one.low <= one.confidence <= one.high for one in filled)
    mean_right = sum(one.count * one.accuracy for one in filled) / 90
    assert mean_right == pytest.approx(result.metrics["accuracy"].value)


def test_an_absent_class_is_said() -> None:
    targets, scores = some_scores()
    keep = targets != 2
    result = evaluate(THREE, targets[keep], scores[keep], num_resamples=20)
    assert any("'c'" in note for note in result.notes)
    absent = result.per_class[2]
    assert (absent.support, absent.recall_low, absent.recall_high) == (0, 0.0, 1.0)
    assert result.metrics["roc_auc"].finite


def test_class_indices_do_without_probabilities() -> None:
    targets, scores = some_scores()
    result = evaluate(THREE, targets, scores.argmax(axis=1), num_resamples=20)
    assert "log_loss" not in result.metrics
    assert result.reliability == ()
    assert result.metrics["accuracy"].value > 0.5


def test_several_labels_at_once() -> None:
    task = Task("multilabel", ("x", "y"))
    targets = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], dtype=np.uint8)
    scores = np.array([[0.9, 0.2], [0.8, 0.4], [0.1, 0.1], [0.2, 0.9]])
    result = evaluate(task, targets, scores, num_resamples=20)
    assert result.metrics["accuracy"].value == 0.75
    assert result.confusion_kk is None
    assert [(row.support, row.predicted, row.recall) for row in result.per_class] == [(2, 2, 1.0), (2, 1, 0.5)]
    assert sum(one.count for one in result.reliability) == 8


@pytest.mark.parametrize("column", [False, True])
def test_numbers(column: bool) -> None:
    targets = np.arange(20.0)
    scores = targets + 2
    result = evaluate(Task("regression"), targets, scores[:, None] if column else scores, num_resamples=20)
    assert result.metrics["rmse"].value == pytest.approx(2.0)
    assert list(result.metrics) == ["rmse", "mae", "r2"]
    assert result.per_class == ()
    assert result.to_dict()["metrics"]["mae"]["value"] == pytest.approx(2.0)


def test_nan_and_misfits_are_refused() -> None:
    targets, scores = some_scores()
    scores[3, 1] = np.nan
    with pytest.raises(DataError, match="NaN"):
        evaluate(THREE, targets, scores)
    with pytest.raises(ShapeError, match="evaluate"):
        evaluate(THREE, targets, scores[:-1])
