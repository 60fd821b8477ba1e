"""Two domains as rows of features: a labelled source, a target whose labels, if there are any, stay under seal.

    open both -> check -> embed both with one base model -> one scale

Vectors (tables, arrays) are standardised by the source's mean and deviation; features of a base model are rows of length 1. The
target's own statistics are left alone: matching them is what an aligner does.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.core.errors import ConfigError, DataError, DomainError, did_you_mean
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.data import Dataset, Finding, check_dataset, is_table, join_datasets, open_dataset
from headstart.evaluation import SealedTest
from headstart.features import Features, FeatureStore, extract_features
from headstart.features.scale import FeatureScale
from headstart.workflow.candidates import open_candidates

__all__ = ["TwoDomains", "as_sources", "names_of", "open_like_target", "open_two_domains", "places_of", "title_of"]

Matrix = NDArray[np.float32]

_LONGEST_PATH = 4096
_COLUMNS = {"text", "image", "label", "task"}


@dataclass(frozen=True)
class TwoDomains:
    """Rows of both domains that could be read, embedded by one base model.

    Parameters
    ----------
    source, target : Dataset
        The rows; those of the target without labels.
    source_nd, target_md : float32 array
        Their features on one scale.
    backbone : Backbone
        What embedded them.
    truth : SealedTest of Dataset, optional
        Those target rows that came with a label, with it, for a single look after everything is chosen.
    truth_rows : int64 array
        Which of the target rows these are.
    findings : tuple of Finding
        Rows left out, and why.
    notes : tuple of str
        What a person should know.
    features : tuple of Features
        What embedding both gave and cost.
    scale : FeatureScale
        What brought the features of both on one scale.
    """

    source: Dataset
    target: Dataset
    source_nd: Matrix
    target_md: Matrix
    backbone: Backbone
    truth: SealedTest[Dataset] | None
    truth_rows: NDArray[np.int64]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    features: tuple[Features, Features]
    scale: FeatureScale

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """Names of the columns, for tables."""
        return self.source.feature_names or None

    @property
    def task(self) -> Task | None:
        """What the source's labels mean; None where it has none."""
        return self.source.task


def open_two_domains(
    who: str,
    source: Any,
    target: Any,
    *,
    labelled: bool,
    columns: dict[str, Any] | None = None,
    labels: Any = None,
    target_labels: Any = None,
    backbones: Sequence[str | Path | Backbone] = (),
    runtime: str = "auto",
    store: FeatureStore | bool | None = None,
    progress: Progress | None = None,
    check: Callable[[Dataset, Backbone], None] | None = None,
) -> TwoDomains:
    """Open, check and embed both domains.

    Parameters
    ----------
    who : str
        The command, for messages.
    source, target : anything `open_dataset` takes
        Rows of the two domains; a list of data sets, tables or folders is as many sources (`as_sources`).
    labelled : bool
        Whether the source must have labels.
    columns : dict, optional
        ``text``, ``image``, ``label``, ``task`` of tables; the target need not have the label column.
    labels, target_labels : sequence, optional
        Labels for arrays and lists, a list of them for several sources. The target's are sealed.
    backbones : sequence, optional
        The one that embeds both; the default for the modality when left out.
    runtime, store, progress
        As for `extract_features`.
    check : callable, optional
        Sees the source rows and the base model before anything is embedded, and may refuse them.

    Raises
    ------
    HeadstartError
        If rows cannot be opened, the modalities differ, the source has no labels where it must, or several base models are named.
    """
    progress = progress or Progress(quiet=True)
    wanted = _one_backbone(who, backbones)
    given = {name: value for name, value in (columns or {}).items() if value is not None}
    if unknown := sorted(set(given) - _COLUMNS):
        raise ConfigError(f"{who}: there is no option {unknown[0]!r}.{did_you_mean(unknown[0], sorted(_COLUMNS))}")
    sources = as_sources(source)
    tables = is_table(target) or any(map(is_table, sources))
    opened = _open_sources(who, sources, given, tables, labels, labelled)
    other, truth = _open_target(who, target, _columns_of(target, given, tables), target_labels, opened)
    if opened.modality != other.modality:
        raise DomainError(
            f"{who}: source holds {opened.modality} rows but target {other.modality} rows; one base model must read both."
        )
    findings: list[Finding] = []
    rows, notes = [], []
    for name, dataset in (("source", opened), ("target", other)):
        scanned = check_dataset(dataset, near=False, progress=progress)
        clean = scanned.clean(dataset)
        findings += clean.quarantine
        lost = [finding for finding in clean.quarantine if finding.rows]
        left_out = f"; left out: {'; '.join(finding.message for finding in lost)}" if lost else ""
        said = _classes(clean) if name == "source" else _set_aside(truth)
        progress.say(f"{name}: {len(clean):,} {clean.modality} rows{said}{left_out}")
        notes += [f"{name}: {note}" for note in clean.notes]
        rows.append(clean)
    if rows[0].modality == "vector":
        rows[1] = _same_columns(who, rows[0], rows[1], notes)
    backbone = open_candidates(who, wanted or _default(rows[0]), rows[0], progress)[0][0]
    if check is not None:
        check(rows[0], backbone)
    features, kept = [], []
    for dataset in rows:
        found = extract_features(dataset.unlabelled(), backbone, runtime=runtime, store=store, progress=progress)
        features.append(found)
        kept.append(dataset.subset(found.kept) if len(found.kept) < len(dataset) else dataset)
        findings += found.failures
    truth, truth_rows = _among(kept[1], truth)
    source_nd, target_md = (item.values_nd for item in features)
    scale = FeatureScale.standardising(source_nd) if rows[0].modality == "vector" else FeatureScale("unit-length")
    return TwoDomains(
        kept[0],
        kept[1].unlabelled(),
        scale(source_nd),
        scale(target_md),
        backbone,
        None if truth is None else SealedTest(truth),
        truth_rows,
        tuple(findings),
        tuple(notes),
        (features[0], features[1]),
        scale,
    )


def _one_backbone(who: str, backbones: Sequence[str | Path | Backbone]) -> list[str | Path | Backbone]:
    """Return the base model that is named, if any; one name may stand without a list."""
    if isinstance(backbones, str | Path | Backbone):
        return [backbones]
    if len(backbones) > 1:
        names = ", ".join(str(getattr(one, "name", one)) for one in backbones)
        raise ConfigError(
            f"{who}: one base model embeds both domains; got {len(backbones)} ({names}). Name one with --backbone "
            "(backbones=[...] in Python); `headstart rank` compares several."
        )
    return list(backbones)


def _columns_of(source: Any, given: dict[str, Any], tables: bool) -> dict[str, Any]:
    """Return the columns named for rows; a folder that stands beside a table has none of them."""
    is_folder = isinstance(source, str | Path) and Path(source).expanduser().is_dir()
    return {name: value for name, value in given.items() if name == "task"} if tables and is_folder else given


def _open(who: str, source: Any, columns: dict[str, Any], labels: Any, *, must: bool) -> Dataset:
    """Open rows with their labels where they have any; a table may lack the label column, a folder its class folders."""
    if labels is not None:
        return open_dataset(source, labels=labels, **{key: value for key, value in columns.items() if key == "task"})
    try:
        dataset = open_dataset(source, **columns)
    except DataError:
        if must:
            raise
        return open_dataset(source, **_without_label(columns), unlabelled=True)
    if must and dataset.task is None:
        raise DataError(
            f"{who}: {dataset.root or 'the source'} has no labels; give a folder of class folders, or name the "
            "column with --label."
        )
    return dataset


def as_sources(source: Any) -> list[Any]:
    """Return the sources that rows are of: a list of data sets, arrays with columns, tables or folders is several, all else one.

    Examples
    --------
    >>> len(as_sources(["a text", "another"])), len(as_sources(["a.csv", "b.csv"])), len(as_sources([[1.0], [2.0]]))
    (1, 2, 1)
    """
    several = isinstance(source, list | tuple) and len(source) > 1 and all(map(_is_whole, source))
    return list(source) if several else [source]


def _is_whole(source: Any) -> bool:
    """Return whether something is a set of rows rather than one of them."""
    if isinstance(source, str):
        return is_table(source) or (len(source) < _LONGEST_PATH and Path(source).expanduser().is_dir())
    if isinstance(source, Path):
        return is_table(source) or source.expanduser().is_dir()
    return isinstance(source, Dataset) or is_table(source) or getattr(source, "ndim", 0) in {2, 4}


def _open_sources(
    who: str, sources: list[Any], given: dict[str, Any], tables: bool, labels: Any, labelled: bool
) -> Dataset:
    """Open every source and join them."""
    if len(sources) == 1:
        return _open(who, sources[0], _columns_of(sources[0], given, tables), labels, must=labelled)
    each = [None] * len(sources) if labels is None else list(labels)
    if len(each) != len(sources):
        raise DataError(f"{who}: give a list of labels for each of {len(sources)} sources; got {len(each)} lists.")
    parts = [
        _open(who, source, _columns_of(source, given, tables), own, must=labelled)
        for source, own in zip(sources, each, strict=True)
    ]
    return join_datasets(parts, names_of(sources))


def names_of(sources: Sequence[Any]) -> list[str]:
    """Return what sources are called, each by a name of its own.

    Examples
    --------
    >>> names_of(["a/photos", "b/photos", "c/sketches.csv"]), names_of([[[1.0]], [[2.0]]])
    (['photos', 'photos 2', 'sketches.csv'], ['source 1', 'source 2'])
    """
    titles = [title_of(source, f"source {number}") for number, source in enumerate(sources, 1)]
    return [
        title if title not in titles[:place] else f"{title} {titles[: place + 1].count(title)}"
        for place, title in enumerate(titles)
    ]


def open_like_target(who: str, rows: Any, columns: dict[str, Any], labels: Any, source: Dataset) -> Dataset:
    """Return labelled rows of the target's domain, a table's columns in the order of the source's.

    Raises
    ------
    HeadstartError
        If they have no labels, or are not rows as the source's are.
    """
    given = {name: value for name, value in columns.items() if value is not None}
    known = _like(source, rows, _columns_of(rows, given, is_table(rows)))
    opened = _open(who, rows, known, labels, must=True)
    if opened.modality != source.modality:
        raise DomainError(
            f"{who}: source holds {source.modality} rows but the few labelled ones are {opened.modality} rows."
        )
    return _same_columns(who, source, opened, []) if opened.modality == "vector" else opened


def _open_target(
    who: str, target: Any, columns: dict[str, Any], labels: Any, source: Dataset
) -> tuple[Dataset, Dataset | None]:
    """Return all rows of the target without labels, and those that have one with it; a table is read by the source's columns."""
    columns = _like(source, target, columns)
    try:
        labelled: Dataset | None = _open(who, target, columns, labels, must=False)
    except DataError:
        labelled = None  # no row has a label; what else is wrong is said when they are opened without
    if labelled is not None and labelled.targets is None:
        labelled = None
    if isinstance(target, Dataset):
        return target.unlabelled(), labelled
    known = columns if labelled is not None and labels is None else _without_label(columns)
    return open_dataset(target, **{**known, "unlabelled": True}), labelled


def _like(source: Dataset, table: Any, columns: dict[str, Any]) -> dict[str, Any]:
    """Return columns of another table: where none is named, those that the source's rows came from."""
    if not is_table(table) or {"text", "image"} & set(columns):
        return columns
    if source.feature_names:
        return {**columns, "features": source.feature_names}
    return {**columns, "prefer": source.content_column} if source.content_column else columns


def _without_label(columns: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in columns.items() if name in {"text", "image", "features", "prefer"}}


def _default(rows: Dataset) -> list[str]:
    from headstart.workflow.candidates import candidate_names

    return [] if rows.modality == "vector" else candidate_names(rows.modality)[:1]


def _classes(rows: Dataset) -> str:
    if rows.task is None or rows.task.kind != "classification":
        return ""
    number = len(rows.task.classes)
    return f", {number} class{'es' if number > 1 else ''}"


def _among(rows: Dataset, labelled: Dataset | None) -> tuple[Dataset | None, NDArray[np.int64]]:
    """Return the labelled rows that are among all rows, and their places there."""
    places = {name: place for place, name in enumerate(rows.ids)}
    found = [] if labelled is None else [place for place, name in enumerate(labelled.ids) if name in places]
    if labelled is None or not found:
        return None, np.zeros(0, dtype=np.int64)
    return labelled.subset(np.array(found)), np.array([places[labelled.ids[place]] for place in found])


def _set_aside(truth: Dataset | None) -> str:
    return "" if truth is None else f", labels of {len(truth):,} set aside until all is chosen"


def _same_columns(who: str, source: Dataset, target: Dataset, notes: list[str]) -> Dataset:
    """Return the target with the source's feature columns in the source's order."""
    names, others = source.feature_names, target.feature_names
    if names and others:
        if missing := [name for name in names if name not in others]:
            raise DomainError(
                f"{who}: the target lacks {len(missing)} of the source's {len(names)} feature columns, such as {missing[0]!r}"
                f"{did_you_mean(missing[0], others)}; give both the same columns, and name the label column with --label."
            )
        if extra := [name for name in others if name not in names]:
            notes.append(f"target: columns the source does not have are not used: {', '.join(extra[:8])}")
        return target.select_features(names) if names != others else target
    widths = source.matrix().shape[1], target.matrix().shape[1]
    if widths[0] != widths[1]:
        raise DomainError(
            f"{who}: source has {widths[0]} feature columns but target has {widths[1]}; give both the same columns "
            "(and name the label column with --label, so that it is no feature)."
        )
    return target


def title_of(source: Any, otherwise: str) -> str:
    """Return what rows are called: the name of their file or folder, ``otherwise`` for rows in memory; several with a plus.

    Examples
    --------
    >>> title_of("photos/summer", "source"), title_of([[1.0]], "source")
    ('summer', 'source')
    """
    if len(sources := as_sources(source)) > 1:
        return " + ".join(names_of(sources))
    return Path(source).name if isinstance(source, str | Path) else otherwise


def places_of(source: Any) -> list[str]:
    """Return how a command line names rows, a word for each source."""
    return [str(one) if isinstance(one, str | Path) else "ROWS" for one in as_sources(source)]
