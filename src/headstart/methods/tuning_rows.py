"""The rows of a fine-tuning: to learn from and to validate on, divided by group and class, unreadable ones left out."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.core.errors import DataError, UnreadableRow
from headstart.core.preprocessing import ImageTransform
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.data import Dataset, decode_image, split_dataset
from headstart.features import Features, FeatureStore, extract_features
from headstart.training.rows import absent_classes

__all__ = ["TuningRows", "check_rows", "readable_rows"]

_FEWEST_TO_SPLIT = 10


def check_rows(
    rows: Dataset, backbone: Backbone, validation_rows: Dataset | None = None, *, who: str = "FineTuning"
) -> None:
    """Refuse rows without labels, of another modality or task, or too few."""
    for part in (rows, validation_rows):
        if part is not None and (part.task is None or part.targets is None):
            raise DataError(f"{who}: needs labelled rows; these have no labels.")
        if part is not None and part.modality != backbone.modality:
            raise DataError(
                f"{who}: {backbone.name} reads {backbone.modality} rows but the data set holds {part.modality} rows; "
                f"choose a base model for {part.modality}."
            )
    if validation_rows is not None and validation_rows.task != rows.task:
        raise DataError(f"{who}: training and validation rows have different tasks; open them as one data set.")
    if len(rows) < 2:
        raise DataError(f"{who}: needs at least two labelled rows; got {len(rows)}.")


class TuningRows:
    """Rows to learn from and rows to validate on.

    Parameters
    ----------
    rows : Dataset
        Labelled training rows.
    validation_rows : Dataset, optional
        Labelled rows to validate on.
    who : str
        The method, for messages.

    Attributes
    ----------
    learning, judging : Dataset
        ``judging`` is None where nothing is validated.
    kept : int64 array, or None
        Which rows ``judging`` are: of ``validation_rows``, or of the training rows they were set aside from.
    divided : bool
        Whether training rows were set aside.
    learning_features, judging_features : Features, or None
        Frozen ones, where they were asked for.
    notes : list of str
        What was left out or is missing.
    """

    def __init__(self, rows: Dataset, validation_rows: Dataset | None, who: str = "FineTuning") -> None:
        self.learning, self.judging, self.who = rows, validation_rows, who
        self.kept = None if validation_rows is None else np.arange(len(validation_rows))
        self.divided = False
        self.learning_features: Features | None = None
        self.judging_features: Features | None = None
        self.notes: list[str] = []

    def divide(self, share: float, groups: NDArray[Any] | None, seed: int) -> None:
        """Set a share of the training rows aside; too few rows stay together."""
        rows = self.learning
        if share <= 0 or len(rows) < _FEWEST_TO_SPLIT:
            return
        alone = copy.copy(rows)
        alone.given_split = None  # these are the training rows, whatever part they came from
        split = split_dataset(alone, test=0.0, validation=share, seed=seed, duplicate_group=groups)
        if len(split.validation) and len(split.train) > 1:
            self.learning, self.judging = rows.subset(split.train), rows.subset(split.validation)
            self.kept, self.divided = split.validation, True

    def set_aside(self, places: NDArray[np.int64]) -> None:
        """Set these training rows aside, in this order."""
        chosen = np.asarray(places, np.int64)
        others = np.setdiff1d(np.arange(len(self.learning)), chosen)
        if len(chosen) and len(others) > 1:
            rows = self.learning
            self.learning, self.judging = rows.subset(others), rows.subset(chosen)
            self.kept, self.divided = chosen, True

    def read(
        self, backbone: Backbone, features: bool, store: FeatureStore | bool | None, progress: Progress | None
    ) -> None:
        """Leave out what cannot be read; get frozen features if asked for."""
        count = len(self.learning)
        self.learning, self.learning_features, kept = readable_rows(self.learning, backbone, features, store, progress)
        self._say_lost(count, len(kept))
        if self.judging is not None and self.kept is not None:
            self.judging, self.judging_features, kept = readable_rows(self.judging, backbone, features, store, progress)
            self._say_lost(len(self.kept), len(kept))
            self.kept = self.kept[kept]
        assert self.learning.task is not None and self.learning.targets is not None
        self.notes += _absent(self.learning.task, self.learning.targets)

    def _say_lost(self, count: int, left: int) -> None:
        if left < 2:
            raise DataError(f"{self.who}: only {left} of {count} rows can be read; at least two are needed.")
        if left < count:
            self.notes.append(f"{count - left} rows cannot be read and are left out")


def readable_rows(
    rows: Dataset, backbone: Backbone, features: bool, store: FeatureStore | bool | None, progress: Progress | None
) -> tuple[Dataset, Features | None, NDArray[np.int64]]:
    """Return the rows that can be read, their frozen features if asked for, and which they are.

    Parameters
    ----------
    rows : Dataset
        Labels are not looked at.
    backbone : Backbone
        Whose preprocessing reads them.
    features : bool
        Whether frozen features are wanted; rows that are features have them in any case.
    store, progress
        As for `extract_features`.
    """
    found = None
    if features or backbone.modality == "vector":
        found = extract_features(rows, backbone, store=store, progress=progress)
        kept = found.kept
    else:
        kept = np.array([i for i in range(len(rows)) if _can_be_read(rows, backbone, i)], np.int64)
    return rows if len(kept) == len(rows) else rows.subset(kept), found, kept


def _can_be_read(rows: Dataset, backbone: Backbone, i: int) -> bool:
    try:
        content: Any = rows.read(i)
        if isinstance(backbone.transform, ImageTransform):
            decode_image(content, backbone.transform)
    except UnreadableRow:
        return False
    return True


def _absent(task: Task, targets: NDArray[Any]) -> list[str]:
    if task.kind == "regression":
        return []
    counts = targets.sum(0) if targets.ndim == 2 else np.bincount(targets, minlength=len(task.classes))
    return absent_classes(task, counts)
