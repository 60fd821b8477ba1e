"""Rows worth a look: the worst mistakes, labels to doubt, rows unlike the others; and the head, in a few words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import UnreadableRow
from headstart.core.tasks import Task
from headstart.data import Dataset, thumbnail
from headstart.evaluation import suspect_labels
from headstart.features import Features
from headstart.heads import Head
from headstart.model import Model, Predictions
from headstart.report import HeadSummary, NoveltySummary, RowExample

__all__ = ["head_summary", "held_out_scores", "mistakes", "novelty_summary", "row_example", "suspects"]

_MOST = 12


def mistakes(rows: Dataset, predictions: Predictions) -> list[RowExample]:
    """Return the test rows the model was most sure of and wrong about; the largest errors, for regression."""
    task, targets = predictions.task, rows.targets
    assert targets is not None
    if task.kind == "regression":
        errors_n = np.abs(predictions.scores - targets)
        order = np.argsort(-errors_n, kind="stable")[:_MOST]
        return [
            row_example(rows, i, f"{targets[i]:.4g}", f"{predictions.scores[i]:.4g}", float(errors_n[i])) for i in order
        ]
    wrong_n, sure_n = _wrong(task, targets, predictions.scores)
    surest = [i for i in np.argsort(-sure_n, kind="stable") if wrong_n[i]][:_MOST]
    return [
        row_example(rows, i, label_text(task, targets[i]), _text(predictions.labels[i]), float(sure_n[i]))
        for i in surest
    ]


def _wrong(task: Task, targets: Any, scores: Any) -> tuple[Any, Any]:
    """Return which rows are wrong, and how sure the model was of its answer (of its worst label, for several)."""
    if task.kind == "classification":
        return scores.argmax(1) != targets, scores.max(1)
    miss_nk = (scores >= 0.5) != targets.astype(bool)
    return miss_nk.any(1), np.where(miss_nk, np.maximum(scores, 1 - scores), 0).max(1)


def held_out_scores(head: Head, num_rows: int) -> NDArray[Any]:
    """Return what the head says of its own training rows, each left out, averaged over the views of a row."""
    held_out = head.validation_predictions
    assert held_out is not None
    if len(held_out) == num_rows:
        return held_out
    return np.asarray(held_out.reshape(num_rows, -1, *held_out.shape[1:]).mean(1))


def suspects(train: Dataset, features: Features, model: Model) -> list[RowExample]:
    """Return training rows whose label the model, which had not seen it, doubts most."""
    task = model.task
    if task.kind == "regression" or model.head.validation_predictions is None:
        return []
    rows = train.subset(features.kept)
    assert rows.targets is not None
    found = suspect_labels(rows.targets, held_out_scores(model.head, len(rows)), task.classes, max_rows=_MOST)
    return [
        row_example(rows, item.index, item.given, item.suggested, item.suggested_probability, "label to check")
        for item in found
    ]


def novelty_summary(rows: Dataset, predictions: Predictions, model: Model) -> NoveltySummary | None:
    """Return how many test rows are unlike the training rows, and the most unlike of them."""
    if model.novelty is None or len(rows) == 0:
        return None
    assert rows.targets is not None
    flagged = np.flatnonzero(predictions.unusual_n)
    order = flagged[np.argsort(-predictions.novelty_n[flagged], kind="stable")][:6]
    examples = [
        row_example(
            rows,
            i,
            label_text(model.task, rows.targets[i]),
            _text(predictions.labels[i]),
            None,
            f"{predictions.novelty_n[i]:.2f} times the threshold",
        )
        for i in order
    ]
    rule = f"farther from every training row than {100 * model.novelty.quantile:.0f} % of training rows are from each other"
    return NoveltySummary(len(flagged), len(rows), rule, examples)


def head_summary(head: Head) -> HeadSummary:
    """Return which head was chosen, why, and the penalties that were searched."""
    report = head.report
    path = report.get("path") or []
    contenders = {
        line["head"]: float(line.get("accuracy", line["loss"]))
        for line in report.get("competition", [])
        if "head" in line
    }
    return HeadSummary(
        head.kind,
        reason=str(report.get("why", "")),
        penalties=[float(step["penalty"]) for step in path],
        scores=[float(step["score"]) for step in path],
        score_name=str(report.get("criterion", "validation score")),
        chosen=report.get("penalty"),
        contenders=contenders,
    )


def label_text(task: Task, target: Any) -> str:
    """Return a target for people."""
    if task.kind == "classification":
        return task.classes[int(target)]
    if task.kind == "multilabel":
        return ", ".join(task.classes[i] for i in np.flatnonzero(target)) or "none"
    return f"{float(target):.4g}"


def _text(answer: Any) -> str:
    return (", ".join(answer) or "none") if isinstance(answer, tuple) else str(answer)


def row_example(
    rows: Dataset, i: Any, truth: str = "", predicted: str = "", confidence: float | None = None, note: str = ""
) -> RowExample:
    """Return a row to show: its picture or text where it has one, and what is said about it."""
    image, text = None, None
    content: Any = rows.read(int(i))
    if rows.modality == "image":
        try:
            image = thumbnail(content, 160)
        except UnreadableRow:
            note = (note + " (no picture: unreadable)").strip()
    elif rows.modality == "text":
        text = str(content)
    return RowExample(rows.ids[int(i)], truth, predicted, confidence, image, text, note)
