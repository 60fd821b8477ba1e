"""A model at work: check rows before, predict new ones, evaluate on labelled ones it has never seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import DataError
from headstart.core.files import write_json
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.data import DataCheck, Dataset, check_dataset, open_dataset
from headstart.evaluation import Evaluation, OpenSetResult, evaluate_open_set
from headstart.evaluation import evaluate as evaluate_scores
from headstart.features import FeatureStore
from headstart.model import Model, Predictions, load_model
from headstart.model.predictions import likeliest_classes

__all__ = ["Assessment", "check", "evaluate", "predict"]


def check(source: Any, *, out: str | Path | None = None, progress: Progress | None = None, **columns: Any) -> DataCheck:
    """Say what is wrong with some rows.

    Parameters
    ----------
    source : path, DataFrame, array, list or Dataset
        The rows, labelled or not.
    out : path, optional
        JSON file for everything found.
    progress : Progress, optional
        Where the lines go.
    **columns
        Arguments of `open_dataset`: ``text``, ``image``, ``label``, ``group``, ``split``, ``task``.
    """
    dataset = open_dataset(source, **columns)
    found = check_dataset(dataset, progress=progress)
    if out is not None:
        write_json(Path(out), found.to_dict())
    return found


def predict(
    model: Model | str | Path,
    source: Any,
    *,
    text: str | None = None,
    image: str | None = None,
    out: str | Path | None = None,
    runtime: str = "auto",
    store: FeatureStore | bool | None = None,
    progress: Progress | None = None,
) -> Predictions:
    """Return answers for rows, and write them as CSV where ``out`` is given; `Model.predict` does the work."""
    model = model if isinstance(model, Model) else load_model(model)
    predictions = model.predict(source, text=text, image=image, runtime=runtime, store=store, progress=progress)
    if out is not None:
        predictions.to_csv(out)
    return predictions


@dataclass(frozen=True)
class Assessment:
    """How a model does on labelled rows; printing it prints every metric with its interval."""

    evaluation: Evaluation
    predictions: Predictions
    rows: int
    unusual: int
    unreadable: int
    notes: tuple[str, ...] = ()
    open_set: OpenSetResult | None = None  # of a model that may answer "unknown", on rows some of which are

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value."""
        return {
            **self.evaluation.to_dict(),
            "unusual": self.unusual,
            "unreadable": self.unreadable,
            "notes": [*self.evaluation.notes, *self.notes],
            **({} if self.open_set is None else {"open_set": self.open_set.to_dict()}),
        }

    def __str__(self) -> str:
        from headstart.workflow.tables import evaluation_table

        return evaluation_table(self)


def evaluate(
    model: Model | str | Path,
    source: Any,
    *,
    text: str | None = None,
    image: str | None = None,
    label: str | None = None,
    group: str | None = None,
    labels: Any = None,
    out: str | Path | None = None,
    runtime: str = "auto",
    store: FeatureStore | bool | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Assessment:
    """Measure a trained model on labelled rows.

    Rows of classes the model does not know are set apart and said. A model that may answer "unknown" is measured on them, too:
    how often it says so there, and how often it does not where it knows the class. The other metrics are those of known rows,
    by the likeliest class.

    Parameters
    ----------
    model : Model or path
        The model, its folder, or a run's folder.
    source, text, image, label, group, labels
        Labelled rows, as for `open_dataset`. Where the rows come with a test part, only that part is used.
    out : path, optional
        JSON file for the result.
    runtime, store, progress
        As for `Model.predict`.
    seed : int
        Of the bootstrap.

    Raises
    ------
    DataError
        If there are no labels, or none of the model's classes occurs.
    """
    model = model if isinstance(model, Model) else load_model(model)
    rows, outside, notes = _labelled_rows(
        model, source, {"text": text, "image": image, "label": label, "group": group}, labels
    )

    def answered(part: Dataset) -> tuple[Dataset, Predictions]:
        features = model.features(part.unlabelled(), runtime=runtime, store=store, progress=progress)
        kept = part.subset(features.kept)
        return kept, model.predict_features(features, kept.ids)

    kept, predictions = answered(rows)
    if len(kept) == 0:
        raise DataError(f"evaluate: no row of {rows.root} can be read.")
    assert kept.targets is not None
    result = None
    if outside is not None and predictions.unknown_n is not None:
        result = _open_set(model.task, kept.targets, predictions, answered(outside)[1], seed)
    assessment = Assessment(
        evaluate_scores(model.task, kept.targets, predictions.scores, groups=kept.groups, seed=seed),
        predictions,
        len(kept),
        int(predictions.unusual_n.sum()),
        len(rows) - len(kept),
        tuple(notes),
        result,
    )
    if out is not None:
        write_json(Path(out), assessment.to_dict())
    return assessment


def _open_set(task: Task, targets: Any, known: Predictions, others: Predictions, seed: int) -> OpenSetResult | None:
    """Return how a model that may answer "unknown" does on rows of its classes and on others; None where no other can be read."""
    if not len(others):
        return None
    num_classes = len(task.classes)
    truth = np.concatenate([np.asarray(targets, np.int64), np.full(len(others), num_classes)])
    answers = [likeliest_classes(part.scores, np.asarray(part.unknown_n)) for part in (known, others)]
    return evaluate_open_set(truth, np.concatenate(answers), num_classes, seed=seed)


def _labelled_rows(
    model: Model, source: Any, columns: dict[str, Any], labels: Any
) -> tuple[Dataset, Dataset | None, list[str]]:
    """Open rows with labels in the model's class order; rows of classes it does not know are set apart, returned, and said."""
    given = {name: value for name, value in columns.items() if value is not None}
    if labels is not None:
        given["labels"] = labels
    rows = open_dataset(source, task=model.task.kind, **given, **model.columns_of(source))
    if rows.task is None or rows.targets is None:
        raise DataError("evaluate: the rows have no labels; give class folders, or name the column with --label.")
    notes: list[str] = []
    if rows.given_split is not None and (rows.given_split == "test").any():
        rows = rows.subset(rows.given_split == "test")
        notes.append("only the test part of the rows was used")
    assert rows.task is not None and rows.targets is not None
    if model.task.kind == "regression" or rows.task.classes == model.task.classes:
        return rows.relabelled(model.task, rows.targets), None, notes
    place = {name: i for i, name in enumerate(model.task.classes)}
    unknown = [name for name in rows.task.classes if name not in place]
    if len(unknown) == len(rows.task.classes):
        raise DataError(
            f"evaluate: none of the classes of the rows ({', '.join(unknown[:5])}) is one the model knows "
            f"({', '.join(model.task.classes[:5])}); give rows labelled like the training rows."
        )
    if unknown:
        notes.append(f"rows of classes the model does not know were set apart: {', '.join(unknown)}")
    if model.task.kind == "multilabel":
        targets = np.zeros((len(rows), len(model.task.classes)), np.uint8)
        for i, name in enumerate(rows.task.classes):
            if name in place:
                targets[:, place[name]] = rows.targets[:, i]
        return rows.relabelled(model.task, targets), None, notes
    mapped_k = np.array([place.get(name, -1) for name in rows.task.classes])
    targets = mapped_k[rows.targets]
    known = rows.subset(targets >= 0)
    outside = rows.subset(targets < 0) if (targets < 0).any() else None
    return known.relabelled(model.task, targets[targets >= 0].astype(np.int64)), outside, notes
