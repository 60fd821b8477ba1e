"""Which column of a table is what: taken as told, else found by name and content, and always said.

Told: an exact name, or one that differs only by blanks around it (with a warning). Found, in this order: an image
column holds file names with an image's ending; a text column has a telling name, or holds the longest texts; a label
column has a telling name, or is the only column left. Where two would do, nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headstart.core.errors import DataError, did_you_mean
from headstart.data.findings import Finding, row_list
from headstart.data.folders import IMAGE_SUFFIXES, SPLIT_NAMES
from headstart.data.tables import Table
from headstart.data.targets import is_missing, number

__all__ = ["Columns", "choose_columns", "find_column"]

_TEXT_NAMES = (
    "text",
    "sentence",
    "review",
    "message",
    "content",
    "body",
    "utterance",
    "comment",
    "tweet",
    "question",
    "document",
)
_LABEL_NAMES = ("label", "labels", "class", "category", "target", "intent", "sentiment", "y")
_SPLIT_COLUMNS = ("split", "set", "subset", "partition")
_ID_COLUMNS = ("id", "index", "uid", "uuid", "row", "unnamed: 0", "column 1")


@dataclass
class Columns:
    """The columns chosen. ``features`` are the numeric columns of a table that has neither text nor image."""

    text: str | None = None
    image: str | None = None
    labels: list[str] = field(default_factory=list)
    group: str | None = None
    split: str | None = None
    domain: str | None = None
    features: list[str] = field(default_factory=list)


def find_column(table: Table, wanted: str, role: str) -> str:
    """Return the table's own spelling of a column that the user named.

    Raises
    ------
    DataError
        If there is none; the message names the nearest.
    """
    if wanted in table.names:
        return wanted
    near = [name for name in table.names if name.strip() == wanted.strip()]
    if len(near) == 1:
        message = f"column {near[0]!r} was read as {wanted!r}: blanks around its name; correct the header"
        table.findings.append(Finding("column-name", "warning", (), message))
        return near[0]
    raise DataError(
        f"open_dataset: {table.root} has no column {wanted!r} for {role}; "
        f"its {len(table.names):,} columns are {row_list(table.names, 12)}.{did_you_mean(wanted, table.names)}"
    )


def choose_columns(
    table: Table,
    *,
    text: str | None,
    image: str | None,
    label: str | Sequence[str] | None,
    features: Sequence[str] | None,
    group: str | None,
    split: str | None,
    domain: str | None,
    prefer: str | None,
    unlabelled: bool,
) -> Columns:
    """Choose the column for each role; what was guessed is added to ``table.findings``."""
    chosen = Columns()
    labels = [] if label is None else [label] if isinstance(label, str) else list(label)
    chosen.labels = [] if unlabelled else [find_column(table, name, "label") for name in labels]
    chosen.group = None if group is None else find_column(table, group, "group")
    chosen.domain = None if domain is None else find_column(table, domain, "domain")
    chosen.split = _named_split(table) if split is None else find_column(table, split, "split")
    if text is not None and image is not None:
        raise DataError("open_dataset: give text= or image=, not both; a data set has one modality.")
    chosen.text = None if text is None else find_column(table, text, "text")
    chosen.image = None if image is None else find_column(table, image, "image")
    taken = {name for name in (*chosen.labels, *labels, chosen.group, chosen.domain, chosen.split) if name is not None}
    free = [name for name in table.names if name not in taken]
    guessed: list[str] = []
    if features is not None:
        chosen.features = _told_features(table, features, free)
    elif chosen.text is None and chosen.image is None:
        _find_content(table, chosen, [prefer] if prefer in free else free, prefer)
        guessed += [f"{chosen.image!r} for image"] if chosen.image else []
        guessed += [f"{chosen.text!r} for text"] if chosen.text else []
    if not chosen.labels and not unlabelled:
        chosen.labels = [_find_label(table, [name for name in free if name not in {chosen.text, chosen.image}])]
        guessed.append(f"{chosen.labels[0]!r} for label")
    if chosen.split is not None and split is None:
        guessed.append(f"{chosen.split!r} for split")
    if chosen.text is None and chosen.image is None and features is None:
        chosen.features = [name for name in free if name not in chosen.labels and _is_numeric(table.sample(name))]
        chosen.features = [name for name in chosen.features if name.strip().lower() not in _ID_COLUMNS]
        if not chosen.features:
            raise DataError(
                f"open_dataset: {table.root} has no column of image files, texts or numbers besides the label; "
                f"give text= or image= (columns: {row_list(table.names, 12)})."
            )
        guessed.append(f"{len(chosen.features):,} columns of numbers for features ({row_list(chosen.features)})")
    if guessed:
        table.findings.append(Finding("column-choice", "note", (), "columns taken: " + "; ".join(guessed)))
    return chosen


def _told_features(table: Table, features: Sequence[str], free: list[str]) -> list[str]:
    """Return the columns asked for; what else there is of numbers is said."""
    if missing := [name for name in features if name not in free]:
        raise DataError(
            f"open_dataset: {table.root} lacks {len(missing):,} of the {len(features):,} feature columns asked for, such as "
            f"{missing[0]!r}; its columns are {row_list(table.names, 12)}.{did_you_mean(missing[0], free)}"
        )
    extra = [name for name in free if name not in features and name.strip().lower() not in _ID_COLUMNS]
    if extra:
        message = f"columns that were not asked for are not used: {row_list(extra, 8)}"
        table.findings.append(Finding("column-choice", "note", (), message))
    return list(features)


def _named_split(table: Table) -> str | None:
    """Return a column named like a split whose values all mean one."""
    for name in table.names:
        if name.strip().lower() in _SPLIT_COLUMNS:
            values = {str(value).strip().lower() for value in table.sample(name) if not is_missing(value)}
            if values and values <= SPLIT_NAMES.keys():
                return name
    return None


def _find_content(table: Table, chosen: Columns, free: list[str], prefer: str | None) -> None:
    """Fill in the image or the text column, if the table has one; the preferred one is, whatever its texts look like."""
    samples = {
        name: [value for value in table.sample(name) if isinstance(value, str) and value.strip()] for name in free
    }
    images = [
        name for name, values in samples.items() if values and _share(map(_names_image, values), len(values)) >= 0.9
    ]
    if len(images) > 1:
        raise DataError(
            f"open_dataset: columns {row_list(images, 8)} of {table.root} all hold image files; choose one with image=."
        )
    if images:
        chosen.image = images[0]
        return
    if prefer in free:
        chosen.text = prefer
        return
    by_name = {name.strip().lower(): name for name in reversed(free) if samples[name]}
    for known in _TEXT_NAMES:
        if known in by_name:
            chosen.text = by_name[known]
            return
    lengths = {
        name: float(np.mean([len(value) for value in values])) for name, values in samples.items() if _is_prose(values)
    }
    if lengths:
        chosen.text = max(lengths, key=lambda name: lengths[name])


def _is_prose(values: list[str]) -> bool:
    """Return whether texts are long, mostly different, and no numbers: what a person would call a text column."""
    if not values or len(set(values)) < 0.5 * len(values):
        return False
    return float(np.mean([len(value) for value in values])) >= 12 and not _is_numeric(values)


def _find_label(table: Table, free: list[str]) -> str:
    by_name = {name.strip().lower(): name for name in reversed(free)}
    named = [by_name[known] for known in _LABEL_NAMES if known in by_name]
    if named:
        return named[0]
    others = [name for name in free if name.strip().lower() not in _ID_COLUMNS]
    if len(others) == 1:
        return others[0]
    few = [name for name in others if len({str(value) for value in table.sample(name)}) <= 200]
    raise DataError(
        f"open_dataset: which column of {table.root} is the label? Give label=; "
        f"candidates are {row_list(few or others or table.names, 12)}. To open it without labels give unlabelled=True."
    )


def _names_image(value: str) -> bool:
    head, dot, ending = value.strip().rpartition(".")
    return bool(head and dot) and f".{ending.lower()}" in IMAGE_SUFFIXES


def _is_numeric(values: Sequence[Any]) -> bool:
    present = [value for value in values if not is_missing(value)]
    return bool(present) and all(isinstance(value, bool) or number(value) is not None for value in present)


def _share(flags: Iterable[bool], count: int) -> float:
    return sum(flags) / count
