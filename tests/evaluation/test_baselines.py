"""Baselines: shares by hand, and linear models that learn what is there and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.core.errors import ConfigError
from headstart.core.tasks import Task
from headstart.data import open_dataset
from headstart.evaluation import RawBaseline, majority_scores
from headstart.metrics import compute_metrics


def test_majority_by_hand() -> None:
    task = Task("classification", ("a", "b", "never"))
    scores = majority_scores(task, np.array([1, 1, 0]), 4)
    np.testing.assert_allclose(scores, np.tile([1 / 3, 2 / 3, 0], (4, 1)))
    assert compute_metrics(task, np.array([1, 1, 1, 0]), scores)["accuracy"] == 0.75


def test_majority_of_several_labels_and_of_numbers() -> None:
    task = Task("multilabel", ("x", "y"))
    assert majority_scores(task, np.array([[1, 0], [1, 1]], dtype=np.uint8), 1).tolist() == [[1.0, 0.5]]
    assert majority_scores(Task("regression"), np.array([1.0, 4.0]), 2).tolist() == [2.5, 2.5]


def texts(num_rows: int = 120) -> tuple[list[str], list[str]]:
    random = np.random.default_rng(0)
    filler = ["the", "film", "was", "and", "it", "very"]
    labels = [["good", "bad", "odd"][i % 3] for i in range(num_rows)]
    return [" ".join([*random.choice(filler, 4), label, *random.choice(filler, 3)]) for label in labels], labels


def test_words_are_learned() -> None:
    rows = open_dataset(texts()[0], labels=texts()[1])
    assert rows.task is not None
    assert rows.targets is not None
    baseline = RawBaseline().fit(rows.subset(np.arange(80)))
    held = rows.subset(np.arange(80, 120))
    scores = baseline.scores(held)
    assert scores.shape == (40, 3)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert compute_metrics(rows.task, rows.targets[80:], scores)["accuracy"] > 0.95
    assert "tf-idf" in baseline.trained
    assert baseline.cpu_seconds > 0


def test_a_class_missing_from_training_keeps_its_column() -> None:
    words, labels = texts(30)
    rows = open_dataset(words, labels=labels)
    assert rows.targets is not None
    known = RawBaseline().fit(rows.subset(np.flatnonzero(rows.targets != 1)))
    scores = known.scores(rows)
    assert scores.shape == (30, 3)
    assert (scores[:, 1] == 0).all()


def test_several_labels_of_texts() -> None:
    words, labels = texts()
    both = [[label, "odd"] if i % 2 else [label] for i, label in enumerate(labels)]
    words = [f"{word} flag" if i % 2 else word for i, word in enumerate(words)]
    rows = open_dataset(words, labels=both)
    assert rows.task is not None
    assert rows.task.kind == "multilabel"
    scores = RawBaseline().fit(rows).scores(rows)
    assert compute_metrics(rows.task, rows.targets, scores)["f1_macro"] > 0.95


def test_numbers_from_texts() -> None:
    random = np.random.default_rng(0)
    counts = random.integers(0, 2, (200, 4))
    words = [" ".join(word for word, here in zip("abcd", row, strict=True) if here) + " end" for row in counts]
    rows = open_dataset(words, labels=counts @ [1.5, -2.0, 3.25, 0.5] + 0.01 * random.normal(size=200))
    assert rows.task is not None
    assert rows.task.kind == "regression"
    scores = RawBaseline().fit(rows).scores(rows)
    assert scores.shape == (200,)
    assert compute_metrics(rows.task, rows.targets, scores)["r2"] > 0.8


def test_pixels_are_learned() -> None:
    """Bright and dark pictures of different sizes; the baseline sees the brightness."""
    random = np.random.default_rng(0)
    dark = random.integers(0, 100, (20, 12, 17, 3)).astype(np.uint8)
    pictures = np.concatenate([dark, dark + 150])
    rows = open_dataset(pictures, labels=["dark"] * 20 + ["bright"] * 20)
    assert rows.task is not None
    assert rows.targets is not None
    train = np.r_[0:10, 20:30]
    held = np.r_[10:20, 30:40]
    baseline = RawBaseline().fit(rows.subset(train))
    assert compute_metrics(rows.task, rows.targets[held], baseline.scores(rows.subset(held)))["accuracy"] == 1.0
    assert "32 x 32" in baseline.trained


def test_vectors_are_taken_as_they_are() -> None:
    features = np.array([[0.0], [1.0], [9.0], [10.0]] * 5)
    rows = open_dataset(features, labels=["low", "low", "high", "high"] * 5)
    assert rows.targets is not None
    assert (RawBaseline().fit(rows).scores(rows).argmax(axis=1) == rows.targets).all()


def test_unlabelled_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="labelled rows"):
        RawBaseline().fit(open_dataset(["a", "b"], unlabelled=True))
