"""Cells of tables and entries of lists: as numbers, as names, as parts, and as labels; and where numbers are missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.core.errors import ConfigError, DataError, did_you_mean
from headstart.core.tasks import Task
from headstart.data.findings import row_list
from headstart.data.folders import SPLIT_NAMES
from headstart.data.targets import Labelled, class_name, is_missing, label_rows, number

__all__ = ["feature_number", "labels_of_columns", "names_of_cells", "splits_of_cells", "where_missing"]


def where_missing(numbers_nd: np.ndarray[Any, Any], names: Sequence[str], most: int = 3) -> str:
    """Return in which columns numbers are missing, those that miss most first, and what to do.

    Examples
    --------
    >>> where_missing(np.array([[1.0, np.nan], [np.nan, np.nan]]), ["age", "pulse"])
    "'pulse' in 2, 'age' in 1; fill such cells in, or leave these columns out"
    """
    missing_d = (~np.isfinite(numbers_nd)).sum(axis=0)
    order = [place for place in np.argsort(-missing_d, kind="stable") if missing_d[place]]
    told = ", ".join(f"{names[place]!r} in {missing_d[place]:,}" for place in order[:most])
    rest = f" and {len(order) - most:,} columns more" if len(order) > most else ""
    return f"{told}{rest}; fill such cells in, or leave these columns out"


def feature_number(value: Any) -> float:
    """Return a cell as a number, NaN where it is missing or none.

    Examples
    --------
    >>> feature_number("1.5"), feature_number(True), feature_number("n/a")
    (1.5, 1.0, nan)
    """
    if isinstance(value, bool):
        return float(value)
    parsed = None if is_missing(value) else number(value)
    return float("nan") if parsed is None else parsed


def labels_of_columns(
    names: list[str], values: dict[str, list[Any]], task: str | None, classes: Sequence[str] | None
) -> Labelled:
    """Return labels of one column, or of several with 0 and 1 in each: a task of several labels a row.

    Raises
    ------
    ConfigError
        If several columns are to make another task.
    DataError
        If no row has a value in all of them, or a value is neither 0 nor 1.
    """
    if len(names) == 1:
        return label_rows(values[names[0]], task=task, classes=classes, name=names[0].strip())
    if task not in {None, "auto", "multilabel"}:
        raise ConfigError(f"open_dataset: several label columns make a multilabel task, not {task}; name one column.")
    present = np.array(
        [not any(map(is_missing, row)) for row in zip(*(values[name] for name in names), strict=True)], bool
    )
    if not present.any():
        raise DataError(f"open_dataset: every row lacks a value in one of the label columns {row_list(names, 8)}.")
    indicators = np.zeros((int(present.sum()), len(names)), np.uint8)
    for place, name in enumerate(names):
        column = [feature_number(value) for value, there in zip(values[name], present, strict=True) if there]
        if not set(column) <= {0.0, 1.0}:
            odd = next(
                str(value) for value, parsed in zip(values[name], column, strict=False) if parsed not in {0.0, 1.0}
            )
            raise DataError(f"open_dataset: with several label columns each holds 0 or 1; {name!r} holds {odd!r}.")
        indicators[:, place] = column
    return Labelled(
        Task("multilabel", tuple(class_name(name) for name in names), "+".join(names)), indicators, present, ()
    )


def names_of_cells(values: Sequence[Any] | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return cells as words, those that are missing as nothing."""
    return np.array(["" if is_missing(value) else str(value).strip() for value in values], dtype=np.str_)


def splits_of_cells(values: Sequence[Any] | np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """Return cells as names of parts (train, val, test), those that are missing as nothing.

    Raises
    ------
    DataError
        If a word names no part.
    """
    words = [str(value).lower() for value in names_of_cells(values)]
    if unknown := sorted({word for word in words if word and word not in SPLIT_NAMES}):
        raise DataError(
            f"open_dataset: split {name!r} holds {row_list(unknown)}; "
            f"a split is one of {', '.join(SPLIT_NAMES)}, or blank.{did_you_mean(unknown[0], SPLIT_NAMES)}"
        )
    return np.array([SPLIT_NAMES.get(word, "") for word in words], dtype=np.str_)
