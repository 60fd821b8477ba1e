"""Label values, as they come, to a `Task` and an array of targets.

The rule for a single column (always told in a note, and overruled by ``task=``):

* lists, or texts joined by ``|`` or ``;`` that share their parts: several classes at once;
* numbers of which one is not whole and more than 10 differ: regression;
* whole numbers: classes if at most 20 differ, or if they are 0..k-1 or 1..k with two rows or more a value; else
  regression;
* everything else: one class each. Classes are kept as text, in natural order (``2`` before ``10``).

A label is missing when it is None, NaN, blank, or one of the texts ``nan``, ``NaN``, ``NA``, ``N/A``, ``#N/A``,
``<NA>``, ``null``, ``NULL``.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core.errors import ConfigError, DataError, did_you_mean
from headstart.core.tasks import Task, TaskKind
from headstart.data.findings import Finding, row_list

__all__ = ["Labelled", "class_name", "class_order", "is_missing", "label_rows", "natural_key", "number"]

_MISSING = frozenset({"", "nan", "NaN", "NA", "N/A", "#N/A", "<NA>", "null", "NULL"})
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_KINDS: tuple[TaskKind, ...] = ("classification", "multilabel", "regression")
_FEW_VALUES = 20
_FEW_FRACTIONS = 10


@dataclass(frozen=True)
class Labelled:
    """A task, the targets of the labelled rows, which rows those are (bool (n,)), and what was decided on the way."""

    task: Task
    targets: np.ndarray[Any, Any]
    present: np.ndarray[Any, Any]
    notes: tuple[Finding, ...]


def natural_key(name: str) -> tuple[Any, ...]:
    """Return a sort key by which numbers inside names count as numbers.

    Examples
    --------
    >>> sorted(["b10", "b9", "a"], key=natural_key)
    ['a', 'b9', 'b10']
    """
    parts = re.split(r"(\d+)", name.casefold())
    return (*((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part), (-1, 0, name))


def class_name(name: str) -> str:
    """Return a class name as text that is equal on every system: no blanks around it, letters composed (NFC)."""
    return unicodedata.normalize("NFC", name.strip())


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return distinct class names in the order every model keeps: numbers by value, else natural order.

    Examples
    --------
    >>> class_order(["10", "9", "-1", "9"])
    ('-1', '9', '10')
    """
    distinct = set(names)
    if all(_NUMBER.fullmatch(name) for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (float(name), name)))
    return tuple(sorted(distinct, key=natural_key))


def is_missing(value: Any) -> bool:
    """Return whether a label value is missing; see the module's rule."""
    if value is None:
        return True
    if isinstance(value, str):
        return value.strip() in _MISSING
    if isinstance(value, list | tuple | set | np.ndarray):
        return False
    try:
        return bool(value != value)  # noqa: PLR0124 - NaN and NaT differ from themselves
    except (TypeError, ValueError):
        return True  # pandas.NA refuses to be compared


def number(value: Any) -> float | None:
    """Return a label value as a finite number, or None where it is not one (booleans are not)."""
    if isinstance(value, str):
        value = value.strip()
        if not _NUMBER.fullmatch(value):
            return None
    elif isinstance(value, bool | np.bool_):
        return None
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def label_rows(
    values: Sequence[Any],
    *,
    task: str | None = None,
    classes: Sequence[str] | None = None,
    name: str = "label",
    numbers_are_classes: bool = False,
) -> Labelled:
    """Turn label values, one for each row, into a task and targets.

    Parameters
    ----------
    values : sequence of length n
        Texts, numbers, booleans, lists of texts, or missing values.
    task : {"auto", "classification", "multilabel", "regression"}, optional
        Overrules the rule for the kind of target.
    classes : sequence of str, optional
        Class names in the order wanted; a label that is none of them is an error.
    name : str
        The column's name, for the task and for messages.
    numbers_are_classes : bool
        Never take numbers for regression targets unless ``task`` says so.

    Raises
    ------
    DataError
        If no row has a label, or a label breaks the task's rule.

    Examples
    --------
    >>> labelled = label_rows(["10", "9", None, "10"])
    >>> labelled.task.classes, labelled.targets.tolist(), labelled.present.tolist()
    (('9', '10'), [1, 0, 1], [True, True, False, True])
    >>> label_rows(["a|b", "b", "a"]).targets.tolist()
    [[1, 1], [0, 1], [1, 0]]
    >>> label_rows([0.5, 1.5], task="regression").targets.tolist()
    [0.5, 1.5]
    """
    present = np.array([not is_missing(value) for value in values], bool)
    kept = [value for value, here in zip(values, present, strict=True) if here]
    if not kept:
        raise DataError(
            f"open_dataset: label {name!r} is missing in all {len(values)} rows; give another column with label=."
        )
    kind, reason = _kind(kept, task, numbers_are_classes or classes is not None)
    notes = [Finding("label-rule", "note", (), f"label {name!r}: {reason}")] if reason else []
    if kind == "regression":
        return Labelled(Task("regression", (), name), _numbers(kept, name), present, tuple(notes))
    if kind == "multilabel":
        parts = [_parts(value) for value in kept]
        names, targets = _indicators(parts, classes, name)
    else:
        texts = _texts(kept)
        names = _classes(texts, classes, name)
        index = {text: i for i, text in enumerate(names)}
        targets = np.array([index[text] for text in texts], np.int64)
    notes += _odd_names(names)
    return Labelled(Task(kind, names, name), targets, present, tuple(notes))


def _kind(values: list[Any], task: str | None, numbers_are_classes: bool) -> tuple[TaskKind, str]:
    """Return the kind of target, and the reason where it was guessed from values that could mean something else."""
    for known in _KINDS:
        if task == known:
            return known, ""
    if task not in {None, "auto"}:
        raise ConfigError(
            f"open_dataset: task is one of auto, {', '.join(_KINDS)}; got {task!r}.{did_you_mean(str(task), _KINDS)}"
        )
    if any(isinstance(value, list | tuple | set | np.ndarray) for value in values):
        return "multilabel", ""
    numbers = [number(value) for value in values]
    whole = [value for value in numbers if value is not None]
    if len(whole) < len(values):
        return _kind_of_texts(values)
    return ("classification", "") if numbers_are_classes else _kind_of_numbers(whole)


def _kind_of_numbers(values: list[float]) -> tuple[TaskKind, str]:
    distinct = sorted(set(values))
    if all(value.is_integer() for value in distinct):
        run = distinct[0] in {0, 1} and distinct[-1] - distinct[0] == len(distinct) - 1
        few, what = len(distinct) <= _FEW_VALUES or (run and len(values) >= 2 * len(distinct)), "whole numbers"
    else:
        few, what = len(distinct) <= _FEW_FRACTIONS, "different numbers"
    if len(distinct) <= 2:
        return "classification", ""
    if few:
        return "classification", f'{len(distinct):,} {what}, taken as classes (task="regression" for a quantity)'
    return "regression", f'{len(distinct):,} {what}, taken as a quantity (task="classification" for classes)'


def _kind_of_texts(values: list[Any]) -> tuple[TaskKind, str]:
    texts = {value for value in values if isinstance(value, str)}
    for separator in "|;":
        joined = [text for text in texts if separator in text]
        if joined:
            parts = [part.strip() for text in texts for part in text.split(separator)]
            if len(set(parts)) < len(parts) and all(parts):
                return (
                    "multilabel",
                    f'values joined by {separator!r}, taken as several classes at once (task="classification" for one)',
                )
    return "classification", ""


def _parts(value: Any) -> list[str]:
    if isinstance(value, str):
        separator = next((mark for mark in "|;," if mark in value), None)
        parts = value.split(separator) if separator else [value]
    elif isinstance(value, list | tuple | set | np.ndarray):
        parts = [str(part) for part in value]
    else:
        parts = [str(value)]
    return [name for part in parts if (name := class_name(part))]


def _texts(values: list[Any]) -> list[str]:
    """Return class names; whole numbers lose their ``.0`` when all values are numbers."""
    if any(isinstance(value, list | tuple | set | np.ndarray) for value in values):
        raise DataError('open_dataset: a label that is a list means several classes; give task="multilabel".')
    texts = [class_name(str(value)) for value in values]
    numbers = [number(value) for value in values]
    if all(value is not None and value.is_integer() for value in numbers):
        return [
            re.sub(r"\.0*$", "", text) if "e" not in text.lower() else str(int(value or 0))
            for text, value in zip(texts, numbers, strict=True)
        ]
    return texts


def _classes(texts: Iterable[str], classes: Sequence[str] | None, name: str) -> tuple[str, ...]:
    found = set(texts)
    if classes is None:
        return class_order(found)
    names = tuple(class_name(str(text)) for text in classes)
    if unknown := sorted(found - set(names), key=natural_key):
        raise DataError(
            f"open_dataset: label {name!r} holds {row_list(unknown)}, not among the {len(names)} classes given: "
            f"{row_list(names, 8)}.{did_you_mean(unknown[0], names)}"
        )
    return names


def _indicators(
    parts: list[list[str]], classes: Sequence[str] | None, name: str
) -> tuple[tuple[str, ...], np.ndarray[Any, Any]]:
    names = _classes((part for row in parts for part in row), classes, name)
    if not names:
        raise DataError(f"open_dataset: label {name!r} names no class in any row; give another column with label=.")
    index = {text: i for i, text in enumerate(names)}
    targets = np.zeros((len(parts), len(names)), np.uint8)
    for row, row_parts in enumerate(parts):
        for part in row_parts:
            targets[row, index[part]] = 1
    return names, targets


def _numbers(values: list[Any], name: str) -> np.ndarray[Any, Any]:
    numbers = [number(value) for value in values]
    if wrong := [str(value) for value, parsed in zip(values, numbers, strict=True) if parsed is None]:
        raise DataError(
            f"open_dataset: label {name!r} must hold finite numbers for regression; got {row_list(wrong)}; "
            'correct them, or give task="classification".'
        )
    return np.array(numbers, np.float64)


def _odd_names(names: tuple[str, ...]) -> list[Finding]:
    """Return a warning for class names that differ only in upper and lower case or in inner blanks."""
    folded: dict[str, list[str]] = {}
    for text in names:
        folded.setdefault(" ".join(text.casefold().replace("_", " ").split()), []).append(text)
    return [
        Finding(
            "class-name",
            "warning",
            (),
            f"classes {', '.join(map(repr, same))} differ only in case or blanks; are they one?",
        )
        for same in folded.values()
        if len(same) > 1
    ]
