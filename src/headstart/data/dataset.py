"""Rows with their labels: `Dataset`, what every other part of headstart works on.

Content is read lazily, labels are in memory. A subset shares content and digests with the set it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import DataError, ShapeError, UnreadableRow, did_you_mean
from headstart.core.tasks import Modality, Task
from headstart.data.findings import Finding
from headstart.data.rows import ArrayRows, Content, Rows

__all__ = ["Dataset", "UnlabelledDataset"]

Indices = Sequence[int] | np.ndarray[Any, Any]


class Dataset:
    """Rows of one modality, with or without labels. Made by `open_dataset`; row numbers below count from 0.

    Parameters
    ----------
    rows : Rows
        Where content comes from.
    ids : list of str
        What a person finds each row by: a relative path, or ``"row 17"`` (counting from 1, a header line not counted).
    task : Task, optional
        What the labels mean; None without labels.
    targets : array, optional
        int64 (n,) class indices, uint8 (n, k) indicators, or float64 (n,) numbers.
    groups, domains : array of str, shape (n,), optional
        Rows of one group (patient, camera, author) are never split; the domain names where a row comes from.
    given_split : array of str, shape (n,), optional
        ``"train"``, ``"val"``, ``"test"`` or ``""``, as the data came.
    quarantine : tuple of Finding
        Rows left out while opening, and why.
    notes : tuple of Finding
        What was decided or looked odd while opening, without loss of rows.
    root : str
        What was opened, for messages.
    positions : int array, optional
        Which of ``rows`` these are; all when left out.

    Examples
    --------
    >>> from headstart.data.rows import TextRows
    >>> rows = TextRows(["good", "bad", "fine"])
    >>> task = Task("classification", ("no", "yes"))
    >>> reviews = Dataset(rows, ids=["a", "b", "c"], task=task, targets=np.array([1, 0, 1]))
    >>> reviews.subset([2, 1]).ids, reviews.subset([2, 1]).targets.tolist(), reviews.subset([2]).read(0)
    (['c', 'b'], [1, 0], 'fine')
    """

    def __init__(
        self,
        rows: Rows,
        *,
        ids: list[str],
        task: Task | None = None,
        targets: np.ndarray[Any, Any] | None = None,
        groups: np.ndarray[Any, Any] | None = None,
        domains: np.ndarray[Any, Any] | None = None,
        given_split: np.ndarray[Any, Any] | None = None,
        quarantine: tuple[Finding, ...] = (),
        notes: tuple[Finding, ...] = (),
        root: str = "",
        positions: np.ndarray[Any, Any] | None = None,
    ) -> None:
        self._rows = rows
        self._positions = np.arange(len(rows)) if positions is None else np.asarray(positions, np.int64)
        self.ids, self.task, self.targets = ids, task, targets
        self.groups, self.domains, self.given_split = groups, domains, given_split
        self.quarantine, self.notes, self.root = quarantine, notes, root
        if (task is None) != (targets is None):
            raise DataError("Dataset: task and targets come together; give both or neither.")
        for name in ("ids", "targets", "groups", "domains", "given_split"):
            column = getattr(self, name)
            if column is not None and len(column) != len(self):
                raise ShapeError(
                    f"Dataset: {name} has {len(column)} entries for {len(self)} rows; give one for each row."
                )

    @property
    def modality(self) -> Modality:
        """``"image"``, ``"text"`` or ``"vector"``."""
        return self._rows.modality

    def __len__(self) -> int:
        return len(self._positions)

    def __repr__(self) -> str:
        labels: str = "no labels" if self.task is None else self.task.kind
        if self.task is not None and self.task.classes:
            labels += f" of {len(self.task.classes)} classes"
        return f"{type(self).__name__}({self.root or 'memory'}: {len(self):,} {self.modality} rows, {labels})"

    def read(self, i: int) -> Content:
        """Return row ``i``: the bytes of an image file, a text, or an array (pixels or a vector).

        Raises
        ------
        UnreadableRow
            If its file cannot be opened.
        """
        return self._rows.read(int(self._positions[i]))

    def path(self, i: int) -> Path | None:
        """Return the file of row ``i``, None where it has none."""
        return self._rows.path(int(self._positions[i]))

    def digest(self, i: int) -> str:
        """Return the digest of the content of row ``i``; raises UnreadableRow where its file cannot be read."""
        digest = self._rows.digests([int(self._positions[i])])[0]
        if not digest:
            raise UnreadableRow(f"{self.ids[i]}: cannot be read")
        return digest

    def digests(self, threads: int = 2) -> list[str]:
        """Return the digest of every row, ``""`` for one that cannot be read; files seen before are not read again."""
        return self._rows.digests(self._positions.tolist(), threads)

    def content(self) -> tuple[Rows, list[int]]:
        """Return where content comes from, and which of it these rows are; for passes over all rows."""
        return self._rows, self._positions.tolist()

    def subset(self, indices: Indices) -> Dataset:
        """Return the rows at ``indices``, in that order; a boolean mask over all rows works too."""
        chosen = np.asarray(indices)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise ShapeError(f"Dataset.subset: the mask has shape {chosen.shape} for {len(self)} rows.")
            chosen = np.flatnonzero(chosen)
        chosen = chosen.astype(np.int64)
        return self._with(chosen, type(self), self.task, self.targets)

    def unlabelled(self) -> UnlabelledDataset:
        """Return the same rows in a set that holds no labels at all."""
        unlabelled = self._with(np.arange(len(self)), UnlabelledDataset, None, None)
        assert isinstance(unlabelled, UnlabelledDataset)
        return unlabelled

    def relabelled(self, task: Task, targets: np.ndarray[Any, Any]) -> Dataset:
        """Return the same rows with other labels."""
        if len(targets) != len(self):
            raise ShapeError(
                f"Dataset: targets has {len(targets)} entries for {len(self)} rows; give one for each row."
            )
        return self._with(np.arange(len(self)), Dataset, task, targets)

    def with_quarantine(self, findings: Sequence[Finding]) -> Dataset:
        """Return the same rows with ``findings`` added to the list of what was left out."""
        copy = self._with(np.arange(len(self)), type(self), self.task, self.targets)
        copy.quarantine = self.quarantine + tuple(findings)
        return copy

    def matrix(self) -> np.ndarray[Any, Any]:
        """Return feature vectors as a float32 array of shape (n, d).

        Raises
        ------
        DataError
            If the rows are not vectors.
        """
        if self.modality != "vector":
            raise DataError(
                f"Dataset.matrix: only vectors make a matrix; {self.root or 'this set'} holds {self.modality} rows."
            )
        array = getattr(self._rows, "array")  # noqa: B009 - only ArrayRows holds vectors
        return np.ascontiguousarray(array[self._positions], dtype=np.float32)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Column names of vectors that came from a table; empty where there are none."""
        return tuple(getattr(self._rows, "names", ()))

    @property
    def content_column(self) -> str:
        """Column of texts or image paths that rows of a table came from; empty where there is none."""
        return str(getattr(self._rows, "column", ""))

    def select_features(self, names: Sequence[str]) -> Dataset:
        """Return the same rows with these columns of their table, in this order.

        Raises
        ------
        DataError
            If a column is not there.

        Examples
        --------
        >>> import pandas as pd
        >>> from headstart.data import open_dataset
        >>> rows = open_dataset(pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}), unlabelled=True)
        >>> rows.select_features(["b"]).matrix().tolist()
        [[3.0], [4.0]]
        """
        own = self.feature_names
        for name in names:
            if name not in own:
                raise DataError(f"Dataset: there is no feature column {name!r}.{did_you_mean(name, own)}")
        copy = self._with(np.arange(len(self)), type(self), self.task, self.targets)
        array: np.ndarray[Any, Any] = getattr(self._rows, "array")  # noqa: B009 - only ArrayRows holds vectors
        copy._rows = ArrayRows(array[:, [own.index(name) for name in names]], "vector", names)
        return copy

    def _with(
        self, chosen: np.ndarray[Any, Any], kind: type[Dataset], task: Task | None, targets: np.ndarray[Any, Any] | None
    ) -> Dataset:
        def take(column: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any] | None:
            return None if column is None else column[chosen]

        return kind(
            self._rows,
            ids=[self.ids[i] for i in chosen],
            task=task,
            targets=take(targets),
            groups=take(self.groups),
            domains=take(self.domains),
            given_split=take(self.given_split),
            quarantine=self.quarantine,
            notes=self.notes,
            root=self.root,
            positions=self._positions[chosen],
        )


class UnlabelledDataset(Dataset):
    """Rows whose labels a method must not see: neither the set nor anything it refers to holds them."""
