"""What is known before any weights load: rows, classes, what is wrong with them, and how they will be split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError
from headstart.core.progress import Progress
from headstart.data import DataCheck, Dataset, Finding, check_dataset, open_dataset, split_dataset
from headstart.data.splits import joined_units
from headstart.evaluation import SealedTest
from headstart.workflow.config import FitConfig

__all__ = ["Prepared", "open_labelled", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """Rows ready to learn from.

    ``train_groups`` are numbers of units that folds must not split: duplicates and the user's groups together.
    ``test_rows`` are the test rows without their labels; the labels are in ``test``, sealed.
    """

    train: Dataset
    train_groups: np.ndarray[Any, Any] | None
    test_rows: Dataset
    test: SealedTest[Dataset]
    check: DataCheck
    quarantine: tuple[Finding, ...]
    lines: tuple[str, ...]

    def without(self, kept: NDArray[np.int64], failures: Sequence[Finding]) -> Prepared:
        """Return the same with the training rows that are kept: the others turned out to be unreadable after the check."""
        groups = self.train_groups
        return replace(
            self,
            train=self.train.subset(kept),
            train_groups=None if groups is None else groups[kept],
            quarantine=(*self.quarantine, *failures),
        )


def open_labelled(who: str, source: Any, **columns: Any) -> Dataset:
    """Open rows that must have labels; ``who`` is named where they have none."""
    dataset = open_dataset(source, **columns)
    if dataset.task is None:
        raise DataError(
            f"{who}: {dataset.root or 'the data'} has no labels; give a folder of class folders, or name the column "
            "with --label."
        )
    return dataset


def prepare(source: Any, config: FitConfig, progress: Progress, **labels: Any) -> Prepared:
    """Open, check, clean and split the rows, and print the preflight.

    Raises
    ------
    DataError
        If nothing can be learned: no labels, one class, too few rows.
    """
    dataset = open_labelled("fit", source, **config.columns, **labels)
    check = check_dataset(dataset, progress=progress)
    clean = check.clean(dataset)
    duplicates, chained = _duplicate_units(check)
    _refuse_hopeless(clean)
    split = split_dataset(clean, test=config.test, seed=config.seed, duplicate_group=duplicates)
    train_rows, test_rows = np.sort(np.concatenate([split.train, split.validation])), split.test
    if len(test_rows) == 0:
        raise DataError("fit: no row is left for the test; give more rows, or a larger --test share.")
    train, test = clean.subset(train_rows), clean.subset(test_rows)
    _refuse_hopeless(train)
    lines = (
        *check.summary_lines(),
        *chained,
        *split.notes,
        f"split: {len(train):,} rows to learn from, {len(test):,} sealed for the test",
    )
    for line in lines:
        progress.say(line)
    return Prepared(
        train,
        _units(train, duplicates[train_rows]),
        test.unlabelled(),
        SealedTest(test),
        check,
        clean.quarantine,
        lines,
    )


def _duplicate_units(check: DataCheck) -> tuple[np.ndarray[Any, Any], list[str]]:
    """Return for each readable row the number of its duplicates' unit, and what must be said about it.

    Near-duplicates chain: a is like b, b like c. Where a chain takes in a fifth of the rows (texts from one template, frames of
    one film) it is the nature of the data, and keeping it on one side would leave nothing to test; then only equal rows stay
    together.
    """
    units = check.duplicate_group[check.kept]
    largest = int(np.unique(units, return_counts=True)[1].max(initial=0))
    if largest < max(10, 0.2 * len(units)):
        return units, []
    exact = np.arange(check.rows)
    for group in check.exact_groups:
        exact[list(group)] = group[0]
    note = (
        f"{largest:,} rows are nearly the same, each like the next: only equal rows are kept on one side of the split, "
        "so the test may flatter; name a --group column if rows belong together"
    )
    return exact[check.kept], [note]


def _units(rows: Dataset, duplicates: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Return unit numbers for the rows, None where every row is a unit of its own."""
    units = joined_units(len(rows), rows.groups, duplicates)
    return None if len(np.unique(units)) == len(rows) else units


def _refuse_hopeless(rows: Dataset) -> None:
    task, targets = rows.task, rows.targets
    assert task is not None and targets is not None
    if len(rows) < 4:
        raise DataError(f"fit: at least 4 readable labelled rows are needed; got {len(rows)}. Give more rows.")
    if task.kind == "classification" and len(np.unique(targets)) < 2:
        only = task.classes[int(targets[0])]
        raise DataError(f"fit: at least two classes are needed; every row is {only!r}. Add rows of another class.")
    if task.kind == "regression" and float(np.ptp(targets)) == 0:
        raise DataError(f"fit: the targets must differ; every row has {targets[0]:g}. Check the label column.")
