"""Methods tried on a saved model: target rows opened as the model reads them, and what each method makes of the model.

    as it is            answers of the model for the target rows
    tent, eata, ...     a new model, its answers, the rows as its head sees them

All answers are asked for in one runtime, so that what differs is not rounding.
Shapes: m target rows, d features, r training rows that the model keeps, k classes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.catalog import Kind, entries, find
from headstart.core.errors import ConfigError, DataError, DomainError, HeadstartError, did_you_mean
from headstart.core.progress import Progress, format_seconds
from headstart.data import Dataset, open_dataset
from headstart.evaluation import SealedTest
from headstart.features import Features, FeatureStore
from headstart.methods.test_time import moment_map
from headstart.model import Model, Predictions
from headstart.model.predictions import likeliest_classes
from headstart.workflow.adaptations import NO_ADAPTATION

__all__ = ["Answered", "SavedCandidate", "SavedTarget", "labelled_rows", "open_target", "read_methods", "try_methods"]

Array = NDArray[Any]


@dataclass(frozen=True)
class SavedTarget:
    """Target rows of a saved model.

    Parameters
    ----------
    rows : Dataset
        Those that can be read, without labels.
    features : Features
        Theirs, as the model sees them.
    truth : SealedTest of Dataset, optional
        Those that came with a label, with it.
    truth_rows : int64 array
        Which of the rows these are.
    """

    rows: Dataset
    features: Features
    truth: SealedTest[Dataset] | None
    truth_rows: NDArray[np.int64]


@dataclass(frozen=True)
class Answered:
    """What a model says of the target rows.

    Parameters
    ----------
    model : Model
        Who answers.
    predictions : Predictions
        The answers.
    seen_md : array of shape (m, d)
        The rows as its head sees them, by the plain view.
    unlike : float, optional
        Share of these that are unlike the training rows that the saved model keeps; None where it keeps none.
    """

    model: Model
    predictions: Predictions
    seen_md: Array
    unlike: float | None

    @property
    def target_scores(self) -> Array:
        """Probabilities (m, k), or numbers (m,)."""
        return self.predictions.scores

    @property
    def target_unknown_m(self) -> Array | None:
        """Which rows it takes for none of the classes."""
        return self.predictions.unknown_n

    @property
    def target_answers(self) -> Array:
        """Class number of each row, the number of classes for "unknown"; the table (m, k) of several labels a row; or numbers."""
        scores = self.target_scores
        if self.predictions.task.kind == "regression":
            return scores
        if self.predictions.task.kind == "multilabel":
            return np.asarray(scores >= 0.5)
        return likeliest_classes(scores, self.target_unknown_m)

    @property
    def entropy(self) -> float | None:
        """Mean entropy of the answers, in nats; None where they are no probabilities of classes."""
        if self.predictions.task.kind != "classification":
            return None
        logs = np.log(np.where(self.target_scores > 0, self.target_scores, 1.0))
        return float(-(self.target_scores * logs).sum(axis=1).mean())

    def changed(self, first: Answered) -> int | None:
        """Return how many rows are answered otherwise than by another; None for numbers."""
        if self.predictions.task.kind == "regression":
            return None
        differ = self.target_answers != first.target_answers
        return int((differ.any(axis=1) if differ.ndim == 2 else differ).sum())


@dataclass(frozen=True)
class SavedCandidate:
    """One method tried; ``found`` is None where it failed, and ``reason`` says why."""

    name: str
    found: Answered | None
    reason: str
    cpu_seconds: float


def read_methods(methods: Sequence[str]) -> tuple[str, ...]:
    """Return the methods a user named, or refuse.

    Raises
    ------
    ConfigError
        If none is named, or one is no method for a saved model.

    Examples
    --------
    >>> read_methods(["tent", "lame", "tent"])
    ('tent', 'lame')
    >>> read_methods(["coral"])
    Traceback (most recent call last):
        ...
    headstart.core.errors.ConfigError: adapt: coral learns from source rows with labels, and a saved model comes without \
them; name tent, eata, adabn, moments or lame, or give the labelled rows in the place of the model.
    """
    known = entries("test-time")
    names = [entry.name for entry in known]
    listed = f"{', '.join(names[:-1])} or {names[-1]}"
    if not methods:
        told = "; ".join(f"{entry.name}: {entry.summary}" for entry in known)
        raise ConfigError(
            f"adapt: say how to adapt a saved model, because nothing can choose without its training rows: --method {listed} "
            f"({told})."
        )
    kinds: tuple[Kind, ...] = ("aligner", "adaptation", "objective", "translation")
    others = {entry.name for kind in kinds for entry in entries(kind)}
    for name in methods:
        if name in names:
            continue
        if name in others:
            raise ConfigError(
                f"adapt: {name} learns from source rows with labels, and a saved model comes without them; name {listed}, or "
                "give the labelled rows in the place of the model."
            )
        raise ConfigError(f"adapt: a saved model is adapted by {listed}; got {name!r}.{did_you_mean(name, names)}")
    return tuple(dict.fromkeys(methods))


def open_target(
    model: Model,
    target: Any,
    labels: Any,
    columns: Mapping[str, Any],
    *,
    runtime: str,
    store: FeatureStore | bool | None,
    progress: Progress,
) -> SavedTarget:
    """Open target rows as the model reads them, and embed them; labels that came with some are sealed.

    Parameters
    ----------
    model : Model
        Who will answer.
    target, labels
        As for `adapt`.
    columns : mapping
        ``text``, ``image``, ``label`` of a table.
    runtime, store, progress
        As for `Model.features`.

    Raises
    ------
    HeadstartError
        If the rows cannot be opened, or are not rows as the model reads.
    """
    content = {name: value for name, value in columns.items() if name in {"text", "image"}}
    rows = check_kind(model, model.open_rows(target, **content).unlabelled())
    features = model.features(rows, runtime=runtime, store=store, progress=progress)
    kept = rows.subset(features.kept) if len(features.kept) < len(rows) else rows
    truth, places = _among(kept, _open_truth(model, target, labels, columns))
    said = "" if truth is None else f", labels of {len(truth):,} set aside until all is chosen"
    progress.say(f"target: {len(kept):,} {kept.modality} rows{said}")
    return SavedTarget(kept, features, None if truth is None else SealedTest(truth), places)


def check_kind(model: Model, rows: Dataset) -> Dataset:
    """Return rows that the model reads, or refuse."""
    modality = model.backbone.modality
    if rows.modality != modality:
        raise DomainError(
            f"adapt: the model reads {modality} rows but target holds {rows.modality} rows; give rows of the kind it was trained "
            "on."
        )
    if modality == "vector" and (width := rows.matrix().shape[1]) != model.backbone.width:
        raise DomainError(
            f"adapt: the model reads {model.backbone.width} feature columns but target has {width}; give it the columns it was "
            "trained on."
        )
    return rows


def labelled_rows(model: Model, source: Any, labels: Any, columns: Mapping[str, Any]) -> Dataset:
    """Open rows with labels of the model's kind.

    Raises
    ------
    DataError
        If they have none.
    """
    if isinstance(source, Dataset):
        names = model.feature_names
        rows = source.select_features(names) if names and source.feature_names else source
    else:
        given = {**columns, **({} if labels is None else {"labels": labels})}
        rows = open_dataset(source, task=model.task.kind, **given, **model.columns_of(source))
    if rows.task is None or rows.targets is None:
        raise DataError("adapt: the rows have no labels; give class folders, or name the column with --label.")
    return rows


def _open_truth(model: Model, target: Any, labels: Any, columns: Mapping[str, Any]) -> Dataset | None:
    try:
        return labelled_rows(model, target, labels, columns)
    except DataError:
        if labels is not None:
            raise
        return None  # what else is wrong is said when they are opened without


def _among(rows: Dataset, labelled: Dataset | None) -> tuple[Dataset | None, NDArray[np.int64]]:
    """Return the labelled rows that are among all rows, and their places there."""
    places = {name: place for place, name in enumerate(rows.ids)}
    found = [] if labelled is None else [place for place, name in enumerate(labelled.ids) if name in places]
    if labelled is None or not found:
        return None, np.zeros(0, dtype=np.int64)
    return labelled.subset(np.array(found)), np.array([places[labelled.ids[place]] for place in found])


def try_methods(
    model: Model,
    target: SavedTarget,
    names: Sequence[str],
    *,
    seed: int,
    store: FeatureStore | bool | None,
    progress: Progress,
) -> list[SavedCandidate]:
    """Return the model as it is, then each method's.

    Parameters
    ----------
    model : Model
        Stays as it is.
    target : SavedTarget
        The rows.
    names : sequence of str
        Of `read_methods`.
    seed, store, progress
        As for `adapt`.

    Raises
    ------
    HeadstartError
        If every method fails: the first one's reason.
    """
    started = time.process_time()
    plain = _plain(target.features)
    unlike = None if model.novelty is None else float(model.novelty.unlike(plain).mean())
    stays = Answered(model, model.predict_features(target.features, list(target.rows.ids)), plain, unlike)
    candidates = [SavedCandidate(NO_ADAPTATION, stays, "", time.process_time() - started)]
    errors: list[HeadstartError] = []
    for name in names:
        started = time.process_time()
        try:
            found = _adapted(name, model, target, stays, seed, store, progress)
        except HeadstartError as error:
            errors.append(error)
            candidates.append(SavedCandidate(name, None, str(error), time.process_time() - started))
            continue
        seconds = time.process_time() - started
        candidates.append(SavedCandidate(name, found, "", seconds))
        changed = found.changed(stays)
        words = "" if changed is None else f"{changed:,} of {len(target.rows):,} answers changed, "
        progress.say(f"{name}: {words}{format_seconds(seconds)} of CPU time")
    if len(errors) == len(names):
        raise errors[0]
    return candidates


def _adapted(
    name: str,
    model: Model,
    target: SavedTarget,
    stays: Answered,
    seed: int,
    store: FeatureStore | bool | None,
    progress: Progress,
) -> Answered:
    """Return what one method makes of the model."""
    runtime = target.features.runtime.label
    method = find(name, "test-time").load()(name, seed=seed)
    made = method.fit(model, target.rows, store=store, runtime=runtime, progress=progress)
    same = made.backbone.weights_digest == model.backbone.weights_digest
    found = made.features(target.rows, runtime=runtime, store=store if same else False)
    seen = _plain(found)
    if name == "moments":
        assert model.novelty is not None and model.novelty.moments is not None
        scale_d, shift_d = moment_map(model.novelty.moments, seen)
        seen = np.asarray(scale_d * seen + shift_d, np.float32)
    unlike = None if model.novelty is None else float(model.novelty.unlike(seen).mean())
    answers = made.predict_features(replace(found, failures=()), [target.rows.ids[place] for place in found.kept])
    return Answered(made, answers, seen, unlike)


def _plain(features: Features) -> Array:
    """Return features by the plain view."""
    values: Array = features.values_nd
    return values if values.ndim == 2 else values[:, 0]
