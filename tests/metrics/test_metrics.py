"""Every metric against its formula written out, against scikit-learn, and by hand."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart import metrics
from headstart.core.errors import ConfigError, DataError, ShapeError
from headstart.core.tasks import Task
from headstart.metrics import METRICS, compute_metrics, find_metric, metric_notes, metrics_for

sk: Any = pytest.importorskip("sklearn.metrics")
CLASSES = ("ant", "bee", "cat", "dog")
SINGLE, MULTI, NUMBER = Task("classification", CLASSES), Task("multilabel", CLASSES), Task("regression")


def rows(kind: str, num_rows: int = 60, seed: int = 0, absent: bool = False) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    if kind == "regression":
        return random.normal(size=num_rows), random.normal(size=num_rows)
    scores = np.round(random.dirichlet(np.ones(4), size=num_rows), 2) + 1e-9
    if kind == "classification":
        targets = random.integers(0, 3 if absent else 4, size=num_rows)
        return targets, scores / scores.sum(axis=1, keepdims=True)
    return (random.random((num_rows, 4)) < 0.4).astype(np.uint8), np.round(
        0.01 + 0.98 * random.random((num_rows, 4)), 2
    )


def sklearn_value(name: str, task: Task, targets: np.ndarray, scores: np.ndarray) -> float:
    if task.kind == "regression":
        functions = {"rmse": sk.root_mean_squared_error, "mae": sk.mean_absolute_error, "r2": sk.r2_score}
        return float(functions[name](targets, scores))
    predictions = scores.argmax(axis=1) if task.kind == "classification" else (scores > 0.5).astype(int)
    if name == "accuracy":
        return float(sk.accuracy_score(targets, predictions))
    if name == "balanced_accuracy":
        return float(sk.balanced_accuracy_score(targets, predictions))
    if name == "hamming_loss":
        return float(sk.hamming_loss(targets, predictions))
    if name == "roc_auc":
        columns = np.eye(4)[targets] if task.kind == "classification" else targets
        used = [j for j in range(4) if 0 < columns[:, j].sum() < len(columns)]
        return float(np.mean([sk.roc_auc_score(columns[:, j], scores[:, j]) for j in used]))
    if name == "log_loss":
        if task.kind == "classification":
            return float(sk.log_loss(targets, scores, labels=range(4)))
        return float(np.mean([sk.log_loss(targets[:, j], scores[:, j], labels=[0, 1]) for j in range(4)]))
    measure, average = name.rsplit("_", 1)
    return float(getattr(sk, f"{measure}_score")(targets, predictions, average=average, zero_division=0))


@pytest.mark.parametrize("task", [SINGLE, MULTI, NUMBER], ids=lambda task: task.kind)
@pytest.mark.parametrize("absent", [False, True])
def test_agrees_with_scikit_learn(task: Task, absent: bool) -> None:
    for seed in range(5):
        targets, scores = rows(task.kind, seed=seed, absent=absent)
        for name, value in compute_metrics(task, targets, scores).items():
            if name != "calibration_error":
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    assert value == pytest.approx(sklearn_value(name, task, targets, scores), abs=1e-12), name


def literal_calibration_error(targets: np.ndarray, scores: np.ndarray, num_bins: int) -> float:
    if targets.ndim == 1:
        pairs = [(max(row), float(int(np.argmax(row)) == target)) for row, target in zip(scores, targets, strict=True)]
    else:
        pairs = [
            (float(p), float(t))
            for row, want in zip(scores, targets, strict=True)
            for p, t in zip(row, want, strict=True)
        ]
    total = 0.0
    for index in range(num_bins):
        low, high = index / num_bins, (index + 1) / num_bins
        inside = [pair for pair in pairs if low < pair[0] <= high or (index == 0 and pair[0] == 0)]
        if inside:
            confidence, right = np.mean([p for p, _ in inside]), np.mean([r for _, r in inside])
            total += len(inside) / len(pairs) * abs(float(right) - float(confidence))
    return total


@pytest.mark.parametrize("task", [SINGLE, MULTI], ids=lambda task: task.kind)
@pytest.mark.parametrize("num_bins", [1, 4, 15])
def test_calibration_error_is_the_formula(task: Task, num_bins: int) -> None:
    targets, scores = rows(task.kind, seed=3)
    scores = scores + 1e-6 * np.random.default_rng(0).random(scores.shape)  # away from the bins' edges
    value = metrics.calibration_error(targets, scores, num_bins)
    assert value == pytest.approx(literal_calibration_error(targets, scores, num_bins), abs=1e-12)


def test_values_worked_out_by_hand() -> None:
    targets = np.array([0, 0, 0, 1, 1, 2])
    scores = np.array(
        [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.9, 0.0], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]]
    )
    values = compute_metrics(Task("classification", ("a", "b", "c")), targets, scores)
    assert values["accuracy"] == pytest.approx(4 / 6)
    assert values["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert values["precision_macro"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert values["f1_weighted"] == pytest.approx((3 * 2 / 3 + 2 * 1 / 2 + 1) / 6)
    assert values["log_loss"] == pytest.approx(-math.log(0.8 * 0.6 * 0.2 * 0.9 * 0.3 * 0.6) / 6)
    assert values["roc_auc"] == pytest.approx((7.5 / 9 + 6.5 / 8 + 5 / 5) / 3)


def test_counts_of_many_confusion_matrices_at_once() -> None:
    confusions = np.random.default_rng(0).integers(0, 5, size=(7, 4, 4))
    for metric in metrics_for(SINGLE):
        if metric.from_confusion is not None:
            pairs = [np.argwhere(np.ones((4, 4))).repeat(confusion.ravel(), axis=0) for confusion in confusions]
            one_by_one = [metric(SINGLE, pair[:, 0], pair[:, 1]) for pair in pairs]
            np.testing.assert_allclose(metric.from_confusion(confusions), one_by_one)


def test_absent_class_is_handled_and_stated() -> None:
    targets, scores = rows("classification", absent=True)
    assert np.isnan(metrics.class_roc_auc(targets, scores)[3])
    assert math.isfinite(compute_metrics(SINGLE, targets, scores)["roc_auc"])
    assert "'dog'" in metric_notes(SINGLE, targets)[0]
    assert metric_notes(SINGLE, rows("classification")[0]) == []
    assert "Every row has 'ant'" in metric_notes(MULTI, np.array([[1, 0, 1, 1], [1, 1, 0, 0]]))[0]
    assert "R2" in metric_notes(NUMBER, np.ones(3))[0]


@pytest.mark.parametrize("task", [SINGLE, MULTI, NUMBER], ids=lambda task: task.kind)
def test_no_rows_give_nan_and_no_warning(task: Task) -> None:
    targets, scores = rows(task.kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = compute_metrics(task, targets[:0], scores[:0])
    assert values and all(math.isnan(value) for value in values.values())
    assert metric_notes(task, targets[:0]) == ["No rows: every metric is undefined."]


@pytest.mark.parametrize("task", [SINGLE, MULTI, NUMBER], ids=lambda task: task.kind)
def test_perfect_predictions_get_the_best_value(task: Task) -> None:
    targets, _ = rows(task.kind)
    perfect = np.eye(4)[targets] if task.kind == "classification" else targets.astype(float)
    for name, value in compute_metrics(task, targets, perfect).items():
        assert value == pytest.approx(1.0 if METRICS[name].higher_is_better else 0.0, abs=1e-12), name


def test_predictions_do_where_probabilities_are_not_needed() -> None:
    targets, scores = rows("classification")
    from_classes = compute_metrics(SINGLE, targets, scores.argmax(axis=1))
    from_probabilities = compute_metrics(SINGLE, targets, scores)
    assert set(from_probabilities) - set(from_classes) == {"roc_auc", "log_loss", "calibration_error"}
    assert all(from_probabilities[name] == value for name, value in from_classes.items())
    with pytest.raises(ConfigError, match="log_loss: needs probabilities"):
        METRICS["log_loss"](SINGLE, targets, scores.argmax(axis=1))


def test_names_and_aliases() -> None:
    assert find_metric("macro_f1") is METRICS["f1_macro"]
    assert find_metric(" Weighted Recall ") is METRICS["recall_weighted"]
    with pytest.raises(ConfigError, match="Did you mean 'accuracy'"):
        find_metric("acuracy")
    with pytest.raises(ConfigError, match="rmse: not defined for classification"):
        METRICS["rmse"](SINGLE, np.array([0]), np.array([0]))
    assert METRICS["log_loss"].better(0.1, 0.2) and METRICS["accuracy"].better(0.2, 0.1)
    assert not METRICS["accuracy"].better(float("nan"), 0.1)


def test_bad_input_is_refused_with_a_reason() -> None:
    targets, scores = rows("classification")
    with pytest.raises(ShapeError, match="60 rows but scores has 59"):
        compute_metrics(SINGLE, targets, scores[:-1])
    broken = scores.copy()
    broken[3, 1] = np.nan
    for name in ("accuracy", "log_loss", "roc_auc"):
        with pytest.raises(DataError, match="NaN"):
            METRICS[name](SINGLE, targets, broken)
    with pytest.raises(DataError, match=r"0\.\.3"):
        compute_metrics(SINGLE, targets + 2, scores)
    with pytest.raises(ShapeError, match="class numbers"):
        metrics.to_predictions(targets, scores[:, 0])
    with pytest.raises(ShapeError, match="several labels"):
        metrics.to_predictions(rows("multilabel")[0], scores[:, :2])
    with pytest.raises(ConfigError, match="num_bins"):
        metrics.calibration_error(targets, scores, 0)
    with pytest.raises(ShapeError, match="one number"):
        metrics.r2(np.zeros(3), np.zeros((3, 2)))
    with pytest.raises(DataError, match="finite"):
        metrics.root_mean_squared_error(np.zeros(2), np.array([0.0, np.inf]))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["classification", "multilabel", "regression"]))
def test_row_order_does_not_matter_and_values_stay_in_range(seed: int, kind: str) -> None:
    task = {"classification": SINGLE, "multilabel": MULTI, "regression": NUMBER}[kind]
    targets, scores = rows(kind, num_rows=20, seed=seed)
    order = np.random.default_rng(seed).permutation(20)
    values, shuffled = compute_metrics(task, targets, scores), compute_metrics(task, targets[order], scores[order])
    for name, value in values.items():
        assert shuffled[name] == pytest.approx(value, nan_ok=True)
        if name not in {"log_loss", "rmse", "mae", "r2"}:
            assert 0 <= value <= 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_auc_sees_only_the_order(seed: int) -> None:
    targets, scores = rows("multilabel", num_rows=15, seed=seed)
    distorted = np.exp(3 * scores)
    np.testing.assert_allclose(metrics.class_roc_auc(targets, scores), metrics.class_roc_auc(targets, distorted))
    np.testing.assert_allclose(metrics.class_roc_auc(targets, scores), 1 - metrics.class_roc_auc(1 - targets, scores))
