"""`open_dataset`: anything a user may call data, to a `Dataset`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import ConfigError, DataError, ShapeError, did_you_mean
from headstart.core.tasks import Task
from headstart.data.cells import feature_number, labels_of_columns, names_of_cells, splits_of_cells, where_missing
from headstart.data.columns import Columns, choose_columns
from headstart.data.dataset import Dataset
from headstart.data.findings import Finding, row_list
from headstart.data.folders import IMAGE_SUFFIXES, list_folder, read_layout
from headstart.data.rows import ArrayRows, FileRows, Rows, TextRows
from headstart.data.tables import TABLE_SUFFIXES, FrameTable, Table, open_table
from headstart.data.targets import Labelled, class_name, is_missing, label_rows

__all__ = ["is_table", "open_dataset"]

Column = str | Sequence[Any] | np.ndarray[Any, Any] | None


def open_dataset(
    source: Any,
    *,
    text: str | None = None,
    image: str | None = None,
    label: str | Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    group: Column = None,
    split: Column = None,
    domain: Column = None,
    prefer: str | None = None,
    task: str | None = None,
    labels: Sequence[Any] | np.ndarray[Any, Any] | None = None,
    classes: Sequence[str] | None = None,
    unlabelled: bool = False,
) -> Dataset:
    """Open rows with their labels, lazily; nothing is decoded yet.

    Parameters
    ----------
    source : path, DataFrame, array, list of texts or paths, or Dataset
        A folder of class folders, or of ``train``/``val``/``test`` (or of domains) of class folders; a CSV, TSV, JSONL
        or Parquet file; a pandas DataFrame; an array of vectors (n, d) or of uint8 images (n, h, w) or (n, h, w, c);
        texts; paths of images. A Dataset is returned as it is (without its labels if ``unlabelled``).
    text, image : str, optional
        The table's column of texts, or of image paths (relative to the table's folder). Found by content when left out.
    label : str or sequence of str, optional
        The table's label column; several columns of 0 and 1 make a multi-label task, as do values joined by ``|`` or
        ``;``.
    features : sequence of str, optional
        The table's columns of numbers, in the order wanted, such as those of a table opened before. All columns of numbers
        when left out.
    group, split, domain : str or sequence of length n, optional
        Columns of a table, or values for arrays and lists. Rows of a group stay together when rows are split.
    prefer : str, optional
        A column of texts or image paths, such as that of a table opened before, which is taken where the table has it and
        neither text nor image is named.
    task : {"auto", "classification", "multilabel", "regression"}, optional
        Kind of target; by the rule of `headstart.data.targets` when left out.
    labels : sequence of length n, or 0/1 array (n, k), optional
        Labels for arrays and lists.
    classes : sequence of str, optional
        Class names in the order wanted, such as a model's.
    unlabelled : bool
        Open without labels, for prediction; a folder may then hold files at any depth, and a single image file will do.

    Returns
    -------
    Dataset
        Rows that cannot be used are in ``quarantine``, decisions in ``notes``.

    Raises
    ------
    DataError
        If no row is left, or columns, labels or layout break a rule.

    Examples
    --------
    >>> dataset = open_dataset(["good", "bad", "fine"], labels=["yes", "no", "yes"])
    >>> dataset
    Dataset(memory: 3 text rows, classification of 2 classes)
    >>> dataset.task.classes, dataset.targets.tolist(), dataset.ids[0]
    (('no', 'yes'), [1, 0, 1], 'row 1')
    """
    if task not in {None, "auto", "classification", "multilabel", "regression"}:
        known = ("auto", "classification", "multilabel", "regression")
        raise ConfigError(
            f"open_dataset: task is one of {', '.join(known)}; got {task!r}.{did_you_mean(str(task), known)}"
        )
    if isinstance(source, Dataset):
        return source.unlabelled() if unlabelled else source
    columns: dict[str, Any] = {
        "text": text,
        "image": image,
        "label": label,
        "features": features,
        "group": group,
        "split": split,
        "domain": domain,
        "prefer": prefer,
    }
    if isinstance(source, str | Path):
        dataset = _open_path(Path(source).expanduser(), columns, task, classes, unlabelled)
    elif hasattr(source, "iloc") and hasattr(source, "columns"):
        dataset = _open_table(FrameTable(source), columns, task, classes, unlabelled)
    else:
        rows = _memory_rows(source)
        if wrong := [name for name in ("text", "image", "label", "features") if columns[name] is not None]:
            raise ConfigError(f"open_dataset: {wrong[0]}= names a column of a table; arrays and lists take labels=.")
        dataset = _open_memory(rows, None if unlabelled else labels, columns, task, classes)
        labels = None
    if labels is not None and not unlabelled:
        raise ConfigError("open_dataset: labels= goes with arrays and lists; name a table's label column with label=.")
    return dataset.unlabelled() if unlabelled else dataset


def is_table(source: Any) -> bool:
    """Return whether rows come as a table with named columns: a DataFrame, or the path of a table's file.

    Examples
    --------
    >>> is_table("rows.csv"), is_table("photos/"), is_table(np.zeros((2, 3)))
    (True, False, False)
    """
    if isinstance(source, str | Path):
        return Path(source).suffix.lower() in TABLE_SUFFIXES and not Path(source).expanduser().is_dir()
    return hasattr(source, "iloc") and hasattr(source, "columns")


def _open_path(
    path: Path, columns: dict[str, Any], task: str | None, classes: Sequence[str] | None, unlabelled: bool
) -> Dataset:
    if path.is_dir():
        if wrong := [name for name, value in columns.items() if value is not None and name != "prefer"]:
            raise ConfigError(
                f"open_dataset: {wrong[0]}= names a column of a table, but {path} is a folder; leave it out."
            )
        return _open_folder(path, task, classes, unlabelled)
    if not path.exists():
        near = did_you_mean(path.name, _siblings(path))
        raise DataError(f"open_dataset: there is no file or folder {path}.{near}")
    if path.suffix.lower() in TABLE_SUFFIXES:
        return _open_table(open_table(path), columns, task, classes, unlabelled)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        if not unlabelled:
            raise DataError(
                f"open_dataset: {path} is a single image and has no label; "
                "give a folder of class folders, or unlabelled=True."
            )
        return Dataset(FileRows([str(path)]), ids=[path.name], root=str(path))
    raise DataError(
        f"open_dataset: {path.name} is no table and no image; give a folder, or a file ending in "
        f"{', '.join(sorted(TABLE_SUFFIXES))}.{did_you_mean(path.suffix, TABLE_SUFFIXES)}"
    )


def _siblings(path: Path) -> list[str]:
    try:
        return os.listdir(path.parent)  # noqa: PTH208 - names are wanted
    except OSError:
        return []


def _open_folder(path: Path, task: str | None, classes: Sequence[str] | None, unlabelled: bool) -> Dataset:
    if task in {"multilabel", "regression"}:
        raise ConfigError(
            f"open_dataset: class folders make a classification; for {task} give a table with an image column."
        )
    found = read_layout(list_folder(str(path)), unlabelled)
    rows = FileRows([os.path.join(path, *file) for file in found.files], found.modality)  # noqa: PTH118 - for every row
    labelled = None if unlabelled else _folder_labels(found.classes, classes)
    return Dataset(
        rows,
        ids=["/".join(file) for file in found.files],
        task=labelled.task if labelled else None,
        targets=labelled.targets if labelled else None,
        domains=np.array(found.domains) if any(found.domains) else None,
        given_split=np.array(found.splits) if any(found.splits) else None,
        quarantine=tuple(found.quarantine),
        notes=(*found.notes, *(labelled.notes if labelled else ())),
        root=str(path),
    )


def _folder_labels(names: list[str], classes: Sequence[str] | None) -> Labelled:
    """Folder names are class names whatever they look like: a folder may be called ``NA``, ``a|b`` or ``1.0``."""
    texts = [class_name(name) for name in names]
    distinct = {name: class_name(name) for name in dict.fromkeys(names)}
    labelled = label_rows([[text] for text in texts], task="multilabel", classes=classes, name="label")
    task = Task("classification", labelled.task.classes, "label")
    merged = len(distinct) - len(set(distinct.values()))
    note = Finding(
        "class-name",
        "warning",
        (),
        f"{merged} class folders differ from others only in blanks or in how letters are composed; merged",
    )
    return Labelled(
        task,
        labelled.targets.argmax(1).astype(np.int64),
        labelled.present,
        labelled.notes + ((note,) if merged else ()),
    )


def _open_table(
    table: Table, columns: dict[str, Any], task: str | None, classes: Sequence[str] | None, unlabelled: bool
) -> Dataset:
    if wrong := [
        name
        for name in ("group", "split", "domain")
        if columns[name] is not None and not isinstance(columns[name], str)
    ]:
        raise ConfigError(
            f"open_dataset: {wrong[0]}= is the name of a column of {table.root}; "
            f"got {type(columns[wrong[0]]).__name__}."
        )
    chosen = choose_columns(table, **columns, unlabelled=unlabelled)
    content_names = [name for name in (chosen.image or chosen.text,) if name] or chosen.features
    others = [name for name in (chosen.group, chosen.split, chosen.domain) if name]
    names = list(dict.fromkeys([*content_names, *chosen.labels, *others]))
    values = dict(zip(names, table.columns(names), strict=True))
    if not table.row_numbers:
        raise DataError(f"open_dataset: {table.root} has a header but no rows.")
    ids = [f"row {count}" for count in table.row_numbers]
    quarantine = [finding for finding in table.findings if finding.kind == "ragged-row"]
    notes = [finding for finding in table.findings if finding.kind != "ragged-row"]
    rows, ids, usable = _table_rows(table, chosen, values, ids, quarantine)
    labelled: Labelled | None = None
    if chosen.labels:
        labelled = labels_of_columns(chosen.labels, values, task, classes)
        notes += labelled.notes
        if gone := [row for row, there in zip(ids, labelled.present, strict=True) if not there]:
            quarantine.append(
                Finding(
                    "missing-label",
                    "error",
                    tuple(gone),
                    f"{len(gone):,} rows have no label in {labelled.task.target_name!r}",
                )
            )
    kept = usable if labelled is None else usable & labelled.present
    if not kept.any():
        reasons = "; ".join(f"{finding.message} ({row_list(finding.rows)})" for finding in quarantine)
        raise DataError(f"open_dataset: no row of {table.root} can be used: {reasons}.")
    chosen_rows = np.flatnonzero(kept)
    return Dataset(
        rows,
        ids=[ids[i] for i in chosen_rows],
        task=labelled.task if labelled else None,
        targets=labelled.targets[kept[labelled.present]] if labelled else None,
        groups=None if chosen.group is None else names_of_cells(values[chosen.group])[chosen_rows],
        domains=None if chosen.domain is None else names_of_cells(values[chosen.domain])[chosen_rows],
        given_split=None if chosen.split is None else splits_of_cells(values[chosen.split], chosen.split)[chosen_rows],
        quarantine=tuple(quarantine),
        notes=tuple(notes),
        root=table.root,
        positions=chosen_rows,
    )


def _table_rows(
    table: Table, chosen: Columns, values: dict[str, list[Any]], ids: list[str], quarantine: list[Finding]
) -> tuple[Rows, list[str], np.ndarray[Any, Any]]:
    """Return content, ids and which rows have content; the others go to ``quarantine``."""
    if chosen.text is not None:
        texts = [
            value if isinstance(value, str) else "" if is_missing(value) else str(value)
            for value in values[chosen.text]
        ]
        usable = np.array([bool(text.strip()) for text in texts], bool)
        rows: Rows = TextRows(texts, chosen.text)
        kind, what = "missing-text", f"have no text in {chosen.text!r}"
    elif chosen.image is not None:
        names = ["" if is_missing(value) else str(value).strip() for value in values[chosen.image]]
        paths = [str(table.folder / name) for name in names]
        usable = np.array([bool(name) and os.path.exists(path) for name, path in zip(names, paths, strict=True)], bool)  # noqa: PTH110
        ids = [name or row for name, row in zip(names, ids, strict=True)]
        rows = FileRows(paths, column=chosen.image)
        kind, what = (
            "missing-file",
            f"name no file in {chosen.image!r} (paths are relative to {table.folder or Path()})",
        )
    else:
        numbers = np.full((len(ids), len(chosen.features)), np.nan)
        for place, name in enumerate(chosen.features):
            numbers[:, place] = [feature_number(value) for value in values[name]]
        usable = np.isfinite(numbers).all(1)
        rows = ArrayRows(numbers, "vector", chosen.features)
        kind, what = "missing-value", f"lack a number: {where_missing(numbers, chosen.features)}"
    if gone := [row for row, there in zip(ids, usable, strict=True) if not there]:
        quarantine.append(Finding(kind, "error", tuple(gone), f"{len(gone):,} rows {what}"))
    return rows, ids, usable


def _memory_rows(source: Any) -> Rows:
    """Return content given as an array or a list."""
    if isinstance(source, np.ndarray) and source.dtype.kind not in "OUS":
        if source.ndim == 2:
            return ArrayRows(source, "vector")
        if source.ndim in {3, 4}:
            return ArrayRows(source, "image")
        raise ShapeError(
            "open_dataset: an array holds vectors (n, d) or uint8 images (n, h, w) or (n, h, w, channels); "
            f"got shape {source.shape}."
        )
    if not isinstance(source, list | tuple | np.ndarray) or not all(isinstance(item, str | Path) for item in source):
        raise DataError(
            "open_dataset: source is a path, a DataFrame, an array, a list of texts or paths, or a Dataset; "
            f"got {type(source).__name__}."
        )
    if len(source) == 0:
        raise DataError("open_dataset: the list is empty; give at least one row.")
    items = [str(item) for item in source]
    named = (os.path.splitext(item)[1].lower() in IMAGE_SUFFIXES and "\n" not in item for item in items)  # noqa: PTH122
    if all(isinstance(item, Path) for item in source) or (all(named) and os.path.exists(items[0])):  # noqa: PTH110
        return FileRows(items)
    return TextRows(items)


def _open_memory(
    rows: Rows, labels: Any, columns: dict[str, Any], task: str | None, classes: Sequence[str] | None
) -> Dataset:
    if len(rows) == 0:
        raise DataError("open_dataset: the array has no rows; give at least one.")
    extra: dict[str, Any] = {}
    for name in ("group", "split", "domain"):
        value = columns[name]
        if value is None:
            continue
        if isinstance(value, str) or len(value) != len(rows):
            raise ShapeError(
                f"open_dataset: {name}= holds one value for each of the {len(rows):,} rows of an array or a list."
            )
        extra[name] = splits_of_cells(value, name) if name == "split" else names_of_cells(value)
    ids = [f"row {count + 1}" if rows.path(count) is None else rows.paths[count] for count in range(len(rows))]  # type: ignore[attr-defined]
    quarantine: list[Finding] = []
    usable = np.ones(len(rows), bool)
    if (
        isinstance(rows, ArrayRows)
        and rows.modality == "vector"
        and not (usable := np.isfinite(rows.array).all(1)).all()
    ):
        gone = tuple(ids[i] for i in np.flatnonzero(~usable))
        quarantine.append(Finding("missing-value", "error", gone, f"{len(gone):,} rows hold NaN or infinity"))
    labelled = None if labels is None else _memory_labels(labels, len(rows), task, classes)
    if labelled is not None and not labelled.present.all():
        gone = tuple(ids[i] for i in np.flatnonzero(~labelled.present))
        quarantine.append(Finding("missing-label", "error", gone, f"{len(gone):,} rows have no label"))
    kept = usable if labelled is None else usable & labelled.present
    if not kept.any():
        raise DataError(
            "open_dataset: no row can be used: " + "; ".join(finding.message for finding in quarantine) + "."
        )
    at = np.flatnonzero(kept)
    return Dataset(
        rows,
        ids=[ids[i] for i in at],
        task=labelled.task if labelled else None,
        targets=labelled.targets[kept[labelled.present]] if labelled else None,
        groups=extra["group"][at] if "group" in extra else None,
        domains=extra["domain"][at] if "domain" in extra else None,
        given_split=extra["split"][at] if "split" in extra else None,
        quarantine=tuple(quarantine),
        notes=labelled.notes if labelled else (),
        positions=at,
    )


def _memory_labels(labels: Any, num_rows: int, task: str | None, classes: Sequence[str] | None) -> Labelled:
    if len(labels) != num_rows:
        raise ShapeError(
            f"open_dataset: labels= has {len(labels):,} entries for {num_rows:,} rows; give one for each row."
        )
    if isinstance(labels, np.ndarray) and labels.ndim == 2:
        names = [f"{place}" for place in range(labels.shape[1])] if classes is None else list(classes)
        if len(names) != labels.shape[1]:
            raise ShapeError(
                f"open_dataset: {len(names)} classes for {labels.shape[1]} columns of labels=; give one name a column."
            )
        return labels_of_columns(
            names, {name: labels[:, place].tolist() for place, name in enumerate(names)}, task, None
        )
    values = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    return label_rows(values, task=task, classes=classes)
