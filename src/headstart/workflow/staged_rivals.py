"""Stages of a base model as rivals of aligners, trained on both domains by a recipe, for classes and for numbers alike.

Training takes minutes, so a budget breaks it off, and the way back (circular rules) is one more training with the domains' parts
turned round. A network that breaks off stays in the table with its reason.
Shapes: n source rows, m target rows, v source rows set aside, d features, k classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.catalog import entries
from headstart.core.errors import ConfigError, DataError, TrainingError
from headstart.core.progress import Progress, watched
from headstart.core.tasks import Task
from headstart.data import Dataset
from headstart.evaluation.selection import CandidateEvidence, FailedCandidate, SelectionRule, ValueEvidence
from headstart.features import FeatureStore
from headstart.methods import DeepAdaptation, DeeplyAdapted
from headstart.methods.image_translation import SourceTranslation
from headstart.model import Model
from headstart.workflow.clock import BudgetSpent, with_deadline
from headstart.workflow.domains import TwoDomains
from headstart.workflow.entrants import FOLDS, OUT_OF_TIME, Evidence, Room
from headstart.workflow.features_to_rows import RowsOfFeatures
from headstart.workflow.rivals import FittedCandidate, Rival

__all__ = ["SOURCE_ONLY", "FittedStages", "StagedTraining", "check_judge", "check_stages", "try_stages"]

SOURCE_ONLY = "source-only"

Array = NDArray[Any]

_LEAST_SECONDS = 1.0  # less than this trains no stage


class FittedStages(FittedCandidate):
    """Stages of a base model that were trained on both domains, with their head.

    Parameters
    ----------
    found : DeeplyAdapted
        What training has made.
    again : callable, optional
        Trains once more, with other labelled target rows; None where none were learned from.
    """

    def __init__(self, found: DeeplyAdapted, again: Callable[[Dataset], DeeplyAdapted] | None = None) -> None:
        self.found, self.again = found, again

    @property
    def target_scores(self) -> Array:
        """Probabilities of the target rows."""
        return self.found.target_scores

    @property
    def target_unknown_m(self) -> Array | None:
        """Target rows of none of the classes, where the recipe has learned to tell."""
        return self.found.target_unknown

    @property
    def source_seen_nr(self) -> Array:
        """Source rows it learnt from, as its head sees them."""
        return self.found.source_seen_nr

    @property
    def source_seen_rows(self) -> Array | None:
        """Those that were not set aside."""
        aside = self.found.held_out
        if aside is None:
            return None
        return np.setdiff1d(np.arange(len(self.found.source_seen_nr) + len(aside)), aside)

    @property
    def target_seen_mr(self) -> Array:
        """Target rows as its head sees them."""
        return self.found.target_seen_mr

    @property
    def notes(self) -> tuple[str, ...]:
        """What trained, and why, and what came up meanwhile."""
        return (self.found.plan_reason, *self.found.notes)

    def to_model(self, two: TwoDomains, task: Task) -> Model:
        """Return the tuned copy of the base model with its head; it was trained on this task."""
        return self.found.model


@dataclass(frozen=True)
class StagedTraining:
    """How stages train, the same for every recipe.

    Parameters
    ----------
    strategy : str
        Which stages, as for `headstart.methods.DeepAdaptation`.
    seed : int
        Of every draw.
    store : FeatureStore or bool, optional
        Where activations are kept.
    checkpoint : Path, optional
        Folder to go on from after a kill.
    """

    strategy: str
    seed: int = 0
    store: FeatureStore | bool | None = None
    checkpoint: Path | None = None

    def folder(self, name: str) -> Path | None:
        """Return where the training of a recipe is kept."""
        if self.checkpoint is None:
            return None
        return self.checkpoint / "".join(sign if sign.isalnum() or sign in "-_" else "_" for sign in name)

    def method(self, name: str, recipe: Any) -> DeepAdaptation:
        """Return the method for a recipe, or for a translation of source images with the recipe that goes with it."""
        if isinstance(recipe, SourceTranslation):
            given = replace(recipe, seed=self.seed)
            return DeepAdaptation(recipe.recipe, name, strategy=self.strategy, translation=given, seed=self.seed)
        return DeepAdaptation(recipe, name, strategy=self.strategy, seed=self.seed)


def try_stages(
    recipes: Mapping[str, Any],
    source: Dataset,
    two: TwoDomains,
    training: StagedTraining,
    judging_v: Array,
    *,
    needs: frozenset[str],
    room: Room | None = None,
    progress: Progress | None = None,
    few: Dataset | None = None,
) -> list[Rival]:
    """Train every recipe with stages of the base model, as long as there is time, and gather what a rule needs of it.

    Parameters
    ----------
    recipes : mapping of str to recipe
        By name.
    source : Dataset
        Source rows with their task: classes or numbers.
    two : TwoDomains
        The same rows opened, with features of both domains.
    training : StagedTraining
        How.
    judging_v : int64 array of shape (v,)
        Source rows that are set aside: those that the other candidates are judged on, too.
    needs : frozenset of str
        Fields of `CandidateEvidence` (`ValueEvidence` for numbers) that the rule reads.
    room : Room, optional
        Time there is; endless when left out. The first recipe may take what is left, less its way back, and is broken off when
        that is over; those after it are taken to need as long as the longest before.
    progress : Progress, optional
        Gets the stages of every training.
    few : Dataset, optional
        Labelled target rows, which all but `SOURCE_ONLY` learn from.

    Returns
    -------
    list of Rival
        In the order of the recipes.
    """
    check_stages(two.backbone)
    room, said = room or Room(), progress or Progress(quiet=True)
    fits = 1 + ("refit" in needs) + (FOLDS if few is not None and not needs else 0)
    longest = 0.0
    rivals = []
    for name, recipe in recipes.items():
        if refused := room.refused(max(longest, _LEAST_SECONDS), fits):
            rivals.append(Rival(name, None, refused, 0.0))
            continue
        started, wall_started = time.process_time(), time.perf_counter()
        fitted: FittedStages | None = None
        evidence: Evidence | FailedCandidate
        try:
            method = training.method(name, recipe)
            fit = partial(method.fit, source, two.target, two.backbone, set_aside=judging_v, store=training.store)
            own = None if name == SOURCE_ONLY else few
            found = fit(
                few_labels=own, checkpoint=training.folder(name), progress=with_deadline(said, room.left / fits)
            )
            _check_complete(found, len(two.target))
            fitted = FittedStages(found, None if own is None else _Again(fit))
            longest = max(longest, time.perf_counter() - wall_started)
            room.promise((fits - 1) * (time.perf_counter() - wall_started))
            way = _OtherWay(replace(method, held_out=0.0), source, two, training.store, room)
            evidence = _evidence(found, source, two, way, needs)
        except BudgetSpent:
            longest = max(longest, time.perf_counter() - wall_started)  # the next would take as long, and more
            fitted, evidence = None, FailedCandidate(OUT_OF_TIME, begun=False)
        except (ConfigError, DataError, TrainingError) as error:
            fitted, evidence = None, FailedCandidate(str(error))
        rivals.append(Rival(name, fitted, evidence, time.process_time() - started))
    return rivals


@dataclass(frozen=True)
class _Again:
    """The same training with other labelled target rows."""

    fit: Callable[..., DeeplyAdapted]

    def __call__(self, few: Dataset) -> DeeplyAdapted:
        return self.fit(few_labels=few, progress=watched())


def check_stages(backbone: Backbone) -> None:
    """Refuse rows that have no stages to train.

    Raises
    ------
    ConfigError
        If they are features already.
    """
    if backbone.modality == "vector":
        raise ConfigError(
            "adapt: these rows are features already and have no stages to train; leave --strategy out, and networks train on "
            "the rows themselves."
        )


_GIVEN = {
    *("target_probabilities_mk", "source_probabilities_vk", "target_values_m", "source_values_v"),
    *("source_labels_v", "source_rows_vd", "source_training_nd", "source_training_labels_n"),
    *("target_features_mr", "target_rows_md", "refit"),
}  # what `_evidence` can hold


def check_judge(judge: SelectionRule) -> None:
    """Refuse a rule that can judge no stages, before any is trained.

    Parameters
    ----------
    judge : SelectionRule
        Of classes or of numbers.

    Raises
    ------
    ConfigError
        With what it needs, and the rules that will do.
    """
    if _can_judge(judge):
        return
    lacking = min((need - _GIVEN for need in judge.needs), key=len)
    by_name = {entry.name: entry.load()() for entry in entries("rule")}
    counterparts = {name: rule.for_values() if _is_of_values(judge) else rule for name, rule in by_name.items()}
    known = [name for name, rule in counterparts.items() if rule is not None and _can_judge(rule)]
    raise ConfigError(
        f"adapt: {judge.name} needs {', '.join(sorted(lacking))}, which networks that train stages do not give, so it can "
        f"judge none of them; choose --rule from {', '.join(known)}, or leave --strategy out."
    )


def _can_judge(rule: SelectionRule) -> bool:
    return any(need <= _GIVEN for need in rule.needs)


def _is_of_values(rule: SelectionRule) -> bool:
    return rule.for_values() is rule


def _check_complete(found: DeeplyAdapted, num_target: int) -> None:
    """Refuse answers for some of the target rows alone."""
    if len(found.target_scores) != num_target:
        raise DataError(
            f"adapt: {num_target - len(found.target_scores)} target rows could not be read again; leave them out first."
        )


def _evidence(
    found: DeeplyAdapted, source: Dataset, two: TwoDomains, way: _OtherWay, needs: frozenset[str]
) -> Evidence:
    """Return what a rule may see: of classes by their numbers and probabilities, of numbers as they are."""
    task, kept = source.task, found.held_out
    assert task is not None and source.targets is not None
    has_classes = task.kind == "classification"
    answers = (
        ("target_probabilities_mk", "source_probabilities_vk")
        if has_classes
        else ("target_values_m", "source_values_v")
    )
    given: dict[str, Any] = {answers[0]: found.target_scores}
    if kept is not None and found.held_out_scores is not None:
        others = np.setdiff1d(np.arange(len(source.targets)), kept)
        given |= {answers[1]: found.held_out_scores, "source_labels_v": source.targets[kept]}
        given |= {"source_rows_vd": two.source_nd[kept], "source_training_nd": two.source_nd[others]}
        if "refit" in needs:
            given["refit"] = way
            if has_classes:
                given["source_training_labels_n"] = source.targets[others]
    if "target_features_mr" in needs:
        given["target_features_mr"] = found.target_seen_mr
    if "target_rows_md" in needs or "refit" in needs:
        given["target_rows_md"] = two.target_md
    return CandidateEvidence(**given) if has_classes else ValueEvidence(**given)


class _OtherWay:
    """Trains the same recipe from other rows: it is given features, and finds the rows they belong to."""

    def __init__(
        self, method: DeepAdaptation, source: Dataset, two: TwoDomains, store: FeatureStore | bool | None, room: Room
    ) -> None:
        self._method, self._source, self._two, self._store, self._clock = method, source, two, store, room.clock
        self.rows = RowsOfFeatures(source, two.target, two.source_nd, two.target_md)

    def __call__(self, source_nd: Array, labels_n: Array, target_md: Array) -> _Values | _Classes:
        task = self._source.task
        assert task is not None
        learning, present = self.rows(source_nd), np.unique(labels_n)
        if task.kind == "classification":
            named = Task("classification", tuple(task.classes[int(place)] for place in present))
            learning = learning.relabelled(named, np.searchsorted(present, labels_n).astype(np.int64))
        else:
            learning = learning.relabelled(task, np.asarray(labels_n, np.float64))
        found = self._method.fit(
            learning,
            self.rows(target_md).unlabelled(),
            self._two.backbone,
            store=self._store,
            progress=with_deadline(Progress(quiet=True), max(0.0, self._clock.left)),
        )
        if task.kind == "classification":
            return _Classes(self.rows, found.model, present)
        return _Values(self.rows, found.model)


@dataclass(frozen=True)
class _Values:
    """What a network that was trained the other way says of rows known by their features: numbers."""

    rows: RowsOfFeatures
    model: Model

    def predict(self, rows: Array) -> Array:
        """Return numbers."""
        return _scores(self.model, self.rows(rows))


@dataclass(frozen=True)
class _Classes:
    """The same of classes: ``classes_`` are class numbers in the order of the columns of `predict_proba`."""

    rows: RowsOfFeatures
    model: Model
    classes_: Array

    def predict_proba(self, rows: Array) -> Array:
        """Return probabilities of the classes it learnt."""
        return _scores(self.model, self.rows(rows))

    def predict(self, rows: Array) -> Array:
        """Return class numbers."""
        return np.asarray(self.classes_[self.predict_proba(rows).argmax(axis=1)])


def _scores(model: Model, rows: Dataset) -> Array:
    return model.predict(rows.unlabelled(), store=False, runtime="torch-fp32").scores
