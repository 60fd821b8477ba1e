"""A few labelled rows of the target's domain, opened and embedded like its other rows.

Shapes: l labelled target rows, d features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold, StratifiedKFold

from headstart.core.errors import DataError
from headstart.core.tasks import Task
from headstart.data import Dataset
from headstart.features import FeatureStore, extract_features
from headstart.workflow.domains import TwoDomains, open_like_target
from headstart.workflow.entrants import FOLDS

__all__ = ["FewRows", "class_numbers", "open_few", "refuse_shared"]

Array = NDArray[Any]

_LEAST_VALUES = 2 * FOLDS  # two a fold, as many as five of each of two classes


@dataclass(frozen=True)
class FewRows:
    """Labelled target rows.

    Parameters
    ----------
    rows : Dataset
        With class numbers of the source's classes, as candidates number them; with numbers where the source has numbers.
    labels_l : int64 or float64 array of shape (l,)
        These class numbers, or numbers.
    raw_ld, scaled_ld : float32 arrays
        Features as the base model gives them, and on the scale of the aligners.
    """

    rows: Dataset
    labels_l: Array
    raw_ld: Array
    scaled_ld: Array

    def __deepcopy__(self, memo: dict[int, Any]) -> FewRows:
        """Return itself: an estimator that is cloned goes on with the same rows."""
        return self

    def __len__(self) -> int:
        return len(self.labels_l)

    def subset(self, places: Array) -> FewRows:
        """Return some of them."""
        return FewRows(self.rows.subset(places), self.labels_l[places], self.raw_ld[places], self.scaled_ld[places])

    @property
    def has_classes(self) -> bool:
        """Whether their labels are classes rather than numbers."""
        return self.labels_l.dtype.kind != "f"

    def too_few(self, classes: Sequence[str] = ()) -> str:
        """Return why these rows cannot choose; empty where they can: five of every class, or ten with numbers.

        Parameters
        ----------
        classes : sequence of str
            Of the source; none where labels are numbers.
        """
        if not self.has_classes:
            if len(self) < _LEAST_VALUES:
                return f"{len(self)} labelled target rows, and {_LEAST_VALUES} could choose"
            return "" if self.labels_l.std() > 0 else "all labelled target rows have one number"
        counts = np.bincount(self.labels_l, minlength=len(classes))
        least = int(counts.argmin())
        if counts[least] >= FOLDS:
            return ""
        return (
            f"{counts[least]} labelled target rows of class {classes[least]!r}, and {FOLDS} of every class could choose"
        )

    def folds(self, seed: int) -> list[tuple[Array, Array]]:
        """Return places to learn from and places to answer, each row answered once."""
        kind = StratifiedKFold if self.has_classes else KFold
        split = kind(FOLDS, shuffle=True, random_state=seed)
        return [(learn, answer) for learn, answer in split.split(self.labels_l[:, None], self.labels_l)]


def open_few(
    few: Any,
    labels: Any,
    two: TwoDomains,
    classes: Sequence[str],
    columns: Mapping[str, Any],
    store: FeatureStore | bool | None,
) -> FewRows:
    """Open and embed labelled target rows.

    Parameters
    ----------
    few : path, DataFrame, array, list or Dataset
        The rows, with labels.
    labels : sequence, optional
        Labels for arrays and lists.
    two : TwoDomains
        What they belong to.
    classes : sequence of str
        Of the source, as candidates number them; none where labels are numbers.
    columns : mapping
        Columns of tables.
    store : FeatureStore or bool, optional
        Where features are kept.

    Raises
    ------
    DataError
        If a label is no class of the source, or rows stand among the target's, too, where labels are for the end.
    """
    task = two.source.task
    assert task is not None
    given = {**columns, "task": columns.get("task") or task.kind}
    rows = open_like_target("adapt", few, given, labels, two.source)
    assert rows.task is not None and rows.targets is not None
    if rows.task.kind != task.kind:
        raise DataError(
            f"adapt: the few labelled rows make a {rows.task.kind} task, the source's labels a {task.kind} task."
        )
    targets = class_numbers(rows, classes) if task.kind == "classification" else np.asarray(rows.targets, np.float64)
    features = extract_features(rows.unlabelled(), two.backbone, runtime=two.features[1].runtime.label, store=store)
    kept, targets = rows.subset(features.kept), targets[features.kept]
    if two.truth is not None:
        refuse_shared(kept, two.target)
    named = kept.relabelled(Task("classification", tuple(classes)) if classes else task, targets)
    return FewRows(named, targets, features.values_nd, two.scale(features.values_nd))


def refuse_shared(few: Dataset, target: Dataset) -> None:
    """Refuse labelled rows that stand among target rows whose labels are for the end."""
    if both := set(few.digests()) & set(target.digests()):
        raise DataError(
            f"adapt: {len(both)} of the few labelled rows are among the target rows too, whose labels are for the end alone; "
            "leave them out of one of the two."
        )


def class_numbers(rows: Dataset, classes: Sequence[str]) -> Array:
    """Return class numbers as candidates have them.

    Raises
    ------
    DataError
        If a row is of another class.
    """
    assert rows.task is not None and rows.targets is not None
    names = [rows.task.classes[int(code)] for code in rows.targets]
    places = {name: place for place, name in enumerate(classes)}
    if unknown := sorted(set(names) - set(places)):
        raise DataError(
            f"adapt: the few labelled rows name {unknown[0]!r}, a class the source does not have; its classes are "
            f"{', '.join(list(classes)[:8])}. Leave such rows out."
        )
    return np.array([places[name] for name in names], np.int64)
