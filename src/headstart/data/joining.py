"""Several sets of rows as one, which remembers where each row came from (`Dataset.domains`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import DataError
from headstart.core.tasks import Modality, Task
from headstart.data.dataset import Dataset
from headstart.data.rows import ArrayRows, Content, Rows

__all__ = ["join_datasets"]


class _JoinedRows:
    """Content of several sets, one after the other."""

    def __init__(self, parts: Sequence[Dataset]) -> None:
        self.modality: Modality = parts[0].modality
        self.column = parts[0].content_column
        self._parts = parts
        self._where = [(part, place) for part in range(len(parts)) for place in range(len(parts[part]))]

    def __len__(self) -> int:
        return len(self._where)

    def read(self, position: int) -> Content:
        part, place = self._where[position]
        return self._parts[part].read(place)

    def path(self, position: int) -> Path | None:
        part, place = self._where[position]
        return self._parts[part].path(place)

    def digests(self, positions: Sequence[int], threads: int = 2) -> list[str]:
        found: dict[int, str] = {}
        for number, part in enumerate(self._parts):
            own = [position for position in positions if self._where[position][0] == number]
            places = [self._where[position][1] for position in own]
            found |= dict(zip(own, part.subset(places).digests(threads), strict=True))
        return [found[position] for position in positions]


def join_datasets(parts: Sequence[Dataset], names: Sequence[str]) -> Dataset:
    """Return the rows of several sets, each of a domain of its own; classes are those of all of them.

    Parameters
    ----------
    parts : sequence of Dataset
        Of one modality; all labelled for the same kind of task, or none.
    names : sequence of str
        Of the domains, all different; they stand before the rows' own names.

    Raises
    ------
    DataError
        If modalities, kinds of labels or columns differ.

    Examples
    --------
    >>> from headstart.data import open_dataset
    >>> parts = [open_dataset(["a", "b"], labels=["ant", "bee"]), open_dataset(["c", "d"], labels=["bee", "cat"])]
    >>> both = join_datasets(parts, ["first", "second"])
    >>> both.task.classes, both.targets.tolist(), both.domains.tolist()
    (('ant', 'bee', 'cat'), [0, 1, 1, 2], ['first', 'first', 'second', 'second'])
    """
    first = parts[0]
    for name, part in zip(names, parts, strict=True):
        if part.modality != first.modality:
            raise DataError(
                f"join_datasets: {names[0]} holds {first.modality} rows but {name} {part.modality} rows; one base model "
                "must read all of them."
            )
        kinds = [None if one.task is None else one.task.kind for one in (first, part)]
        if kinds[0] != kinds[1] or kinds[0] == "multilabel":
            raise DataError(
                f"join_datasets: the labels of {names[0]} make a {kinds[0]} task, those of {name} a {kinds[1]} task; give all of "
                "them one class, or one number, a row."
            )
    task, targets = _labels(parts)
    counts = [len(part) for part in parts]
    return Dataset(
        _content(parts, names),
        ids=[f"{name}/{own}" for name, part in zip(names, parts, strict=True) for own in part.ids],
        task=task,
        targets=targets,
        groups=_groups(parts, names),
        domains=np.repeat(np.asarray(names, dtype=np.str_), counts),
        given_split=_splits(parts),
        quarantine=tuple(chain.from_iterable(part.quarantine for part in parts)),
        notes=tuple(chain.from_iterable(part.notes for part in parts)),
        root=" + ".join(part.root or name for name, part in zip(names, parts, strict=True)),
    )


def _labels(parts: Sequence[Dataset]) -> tuple[Task | None, np.ndarray[Any, Any] | None]:
    """Return the task of all and the targets, class numbers renumbered."""
    tasks = [part.task for part in parts if part.task is not None]
    if not tasks:
        return None, None
    if tasks[0].kind == "regression":
        return tasks[0], np.concatenate([np.asarray(part.targets) for part in parts])
    classes = tuple(dict.fromkeys(name for task in tasks for name in task.classes))
    places = [np.array([classes.index(name) for name in task.classes], np.int64) for task in tasks]
    targets = [place[np.asarray(part.targets)] for place, part in zip(places, parts, strict=True)]
    return Task("classification", classes), np.concatenate(targets)


def _content(parts: Sequence[Dataset], names: Sequence[str]) -> Rows:
    first = parts[0]
    if first.modality != "vector":
        return _JoinedRows(parts)
    columns = first.feature_names
    matrices = []
    for name, part in zip(names, parts, strict=True):
        given = part.select_features(columns) if columns and part.feature_names else part
        matrices.append(given.matrix())
        if matrices[-1].shape[1] != matrices[0].shape[1]:
            raise DataError(
                f"join_datasets: {names[0]} has {matrices[0].shape[1]} feature columns but {name} has {matrices[-1].shape[1]}; "
                "give all of them the same columns."
            )
    return ArrayRows(np.concatenate(matrices), "vector", columns)


def _groups(parts: Sequence[Dataset], names: Sequence[str]) -> np.ndarray[Any, Any] | None:
    """Return groups that do not reach from one set into another; a row without one is a group of its own."""
    if all(part.groups is None for part in parts):
        return None
    every = [
        f"{name}/{group}"
        for name, part in zip(names, parts, strict=True)
        for group in (part.ids if part.groups is None else part.groups)
    ]
    return np.asarray(every, dtype=np.str_)


def _splits(parts: Sequence[Dataset]) -> np.ndarray[Any, Any] | None:
    if all(part.given_split is None for part in parts):
        return None
    columns = [np.full(len(part), "", dtype="<U5") if part.given_split is None else part.given_split for part in parts]
    return np.concatenate(columns)
