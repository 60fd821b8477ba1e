"""Networks as rivals of aligners: trained by a recipe, on features of a frozen base model or with its last stages.

    on features     `AdaptedNetwork`: seconds; every rule can judge it
    with stages     `DeepAdaptation`: minutes; circular validation trains it once more, the other way round

Both give a rule what an aligner gives it, and become a model. A network that breaks off stays in the table with its reason.
Shapes: n source rows, m target rows, d features, k classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import ConfigError, DataError, TrainingError
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.data import Dataset
from headstart.evaluation.selection import CandidateEvidence, FailedCandidate
from headstart.features import FeatureStore
from headstart.heads import Head
from headstart.methods import AdaptedNetwork, AdaptedNetworkRegressor, DeepAdaptation, DeeplyAdapted
from headstart.methods.image_translation import SourceTranslation
from headstart.model import Model
from headstart.workflow.adaptations import hold_out
from headstart.workflow.clock import BudgetSpent, with_deadline
from headstart.workflow.domains import TwoDomains
from headstart.workflow.entrants import FOLDS, Room
from headstart.workflow.features_to_rows import RowsOfFeatures
from headstart.workflow.rivals import FittedCandidate, FittedEstimator, Rival, model_on_features

__all__ = [
    "SOURCE_ONLY",
    "FittedNetwork",
    "FittedStages",
    "StagedTraining",
    "check_complete",
    "check_stages",
    "make_network",
    "raw_features",
    "try_stages",
]

SOURCE_ONLY = "source-only"

Array = NDArray[Any]
_PASSES, _BATCH = 40, 64

_LEAST_SECONDS = 1.0  # less than this trains no stage


class FittedNetwork(FittedEstimator):
    """An `AdaptedNetwork`, or one for numbers, fitted on features as the base model gave them (or columns as they came)."""

    @property
    def target_unknown_m(self) -> Array | None:
        """Target rows of none of the classes, where the recipe has learned to tell."""
        found: Array | None = self.estimator.unknown(self._target_md)
        return found

    @property
    def source_seen_nr(self) -> Array:
        """Source rows as the network's last layer sees them."""
        return np.asarray(self.estimator.hidden(self._source_nd))

    @property
    def target_seen_mr(self) -> Array:
        """Target rows as the network's last layer sees them."""
        return np.asarray(self.estimator.hidden(self._target_md))

    def to_head(self, two: TwoDomains, task: Task) -> Head:
        """Return the network as the head of a model: centre and scale are part of it."""
        head: Head = self.estimator.to_head(task)
        return head

    def to_model(self, two: TwoDomains, task: Task) -> Model:
        """Return the base model with the network as its head, which takes features as they come."""
        model = model_on_features(self.to_head(two, task), two, task)
        model.unknown_above = self.estimator.unknown_above_
        return model


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


def raw_features(two: TwoDomains) -> tuple[Array, Array]:
    """Return features of both domains as the base model gave them: a network brings them on a scale of its own."""
    return two.features[0].values_nd, two.features[1].values_nd


def make_network(recipe: Any, two: TwoDomains, seed: int) -> AdaptedNetwork | AdaptedNetworkRegressor:
    """Return the unfitted network on features of these domains, for classes or for numbers.

    A table's columns are few and have units of their own; features of a base model are many and have one. It takes about forty
    passes over the larger domain, but 200 steps at least (with which the defaults were measured) and 600 at most.
    """
    is_table = two.backbone.modality == "vector"
    has_numbers = two.source.task is not None and two.source.task.kind == "regression"
    kind = AdaptedNetworkRegressor if has_numbers else AdaptedNetwork
    return kind(
        recipe,
        layers="dense64-relu-dense64-relu" if is_table else "dense256-relu",
        scaling="columns" if is_table else "whole",
        num_steps=int(np.clip(_PASSES * max(len(two.source_nd), len(two.target_md)) // _BATCH, 200, 600)),
        batch_size=_BATCH,
        seed=seed,
    )


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
    two: TwoDomains,
    codes_n: Array,
    classes: Sequence[str],
    training: StagedTraining,
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
    two : TwoDomains
        The rows.
    codes_n : int64 array of shape (n,)
        Class numbers of the source rows.
    classes : sequence of str
        Their names.
    training : StagedTraining
        How.
    needs : frozenset of str
        Fields of `CandidateEvidence` that the rule reads.
    room : Room, optional
        Time there is; endless when left out. The first recipe may take what is left, less its way back, and is broken off when
        that is over; those after it are taken to need as long as the longest before.
    progress : Progress, optional
        Gets the stages of every training.
    few : Dataset, optional
        Labelled target rows, which all but `SOURCE_ONLY` learn from.
    """
    room, said = room or Room(), progress or Progress(quiet=True)
    fits = 1 + ("refit" in needs) + (FOLDS if few is not None and not needs else 0)
    longest = 0.0
    check_stages(two)
    source = two.source.relabelled(Task("classification", tuple(classes)), codes_n)
    judging = hold_out(codes_n, training.seed)[1]  # the rows that the other candidates are judged on, too
    rivals = []
    for name, recipe in recipes.items():
        if refused := room.refused(max(longest, _LEAST_SECONDS), fits):
            rivals.append(Rival(name, None, refused, 0.0))
            continue
        started, wall_started = time.process_time(), time.perf_counter()
        fitted: FittedStages | None = None
        evidence: CandidateEvidence | FailedCandidate
        try:
            fit = partial(
                training.method(name, recipe).fit,
                source,
                two.target,
                two.backbone,
                set_aside=judging,
                store=training.store,
            )
            own = None if name == SOURCE_ONLY else few
            found = fit(
                few_labels=own, checkpoint=training.folder(name), progress=with_deadline(said, room.left / fits)
            )
            check_complete(found, len(two.target))
            fitted = FittedStages(found, None if own is None else _Again(fit))
            longest = max(longest, time.perf_counter() - wall_started)
            room.promise((fits - 1) * (time.perf_counter() - wall_started))
            evidence = _evidence(found, recipe, name, two, codes_n, source, training, needs, room)
        except BudgetSpent:
            longest = max(longest, time.perf_counter() - wall_started)  # the next would take as long, and more
            fitted, evidence = None, FailedCandidate("the budget ran out in the middle of it", begun=False)
        except (ConfigError, DataError, TrainingError) as error:
            fitted, evidence = None, FailedCandidate(str(error))
        rivals.append(Rival(name, fitted, evidence, time.process_time() - started))
    return rivals


@dataclass(frozen=True)
class _Again:
    """The same training with other labelled target rows."""

    fit: Callable[..., DeeplyAdapted]

    def __call__(self, few: Dataset) -> DeeplyAdapted:
        return self.fit(few_labels=few)


def check_stages(two: TwoDomains) -> None:
    """Refuse rows that have no stages to train."""
    if two.backbone.modality == "vector":
        raise ConfigError(
            "adapt: these rows are features already and have no stages to train; leave --strategy out, and networks train on "
            "the rows themselves."
        )


def check_complete(found: DeeplyAdapted, num_target: int) -> None:
    """Refuse answers for some of the target rows alone."""
    if len(found.target_scores) != num_target:
        raise DataError(
            f"adapt: {num_target - len(found.target_scores)} target rows could not be read again; leave them out first."
        )


def _evidence(
    found: DeeplyAdapted,
    recipe: Any,
    name: str,
    two: TwoDomains,
    codes_n: Array,
    source: Dataset,
    training: StagedTraining,
    needs: frozenset[str],
    room: Room,
) -> CandidateEvidence:
    given: dict[str, Any] = {"target_probabilities_mk": found.target_scores}
    kept = found.held_out
    others = np.arange(len(codes_n))
    if kept is not None and found.held_out_scores is not None:
        others = np.setdiff1d(others, kept)
        given |= {"source_probabilities_vk": found.held_out_scores, "source_labels_v": codes_n[kept]}
        given |= {"source_rows_vd": two.source_nd[kept], "source_training_nd": two.source_nd[others]}
    if "target_features_mr" in needs:
        given["target_features_mr"] = found.target_seen_mr
    if "target_rows_md" in needs or "refit" in needs:
        given["target_rows_md"] = two.target_md
    if "refit" in needs and kept is not None:
        given["source_training_labels_n"] = codes_n[others]
        given["refit"] = _OtherWay(name, recipe, two, source, replace(training, checkpoint=None), room)
    return CandidateEvidence(**given)


class _OtherWay:
    """Trains the same recipe from other rows: it is given features, and finds the rows they belong to."""

    def __init__(
        self, name: str, recipe: Any, two: TwoDomains, source: Dataset, training: StagedTraining, room: Room
    ) -> None:
        self._name, self._recipe, self._two, self._source = name, recipe, two, source
        self._training, self._clock = training, room.clock
        self.rows = RowsOfFeatures(source, two.target, two.source_nd, two.target_md)

    def __call__(self, source_nd: Array, labels_n: Array, target_md: Array) -> _Answers:
        learning = self.rows(source_nd)
        present, codes = np.unique(labels_n, return_inverse=True)
        task = self._source.task
        assert task is not None
        named = Task("classification", tuple(task.classes[int(place)] for place in present))
        method = replace(self._training.method(self._name, self._recipe), held_out=0.0)
        found = method.fit(
            learning.relabelled(named, codes.astype(np.int64)),
            self.rows(target_md).unlabelled(),
            self._two.backbone,
            store=self._training.store,
            progress=with_deadline(Progress(quiet=True), max(0.0, self._clock.left)),
        )
        return _Answers(self, found.model, present)


@dataclass(frozen=True)
class _Answers:
    """What a network that was trained the other way says of rows known by their features."""

    way: _OtherWay
    model: Model
    present: Array

    @property
    def classes_(self) -> Array:
        """Class numbers in the order of the columns of `predict_proba`."""
        return self.present

    def predict_proba(self, rows: Array) -> Array:
        """Return probabilities of the classes it learnt."""
        return self.model.predict(self.way.rows(rows).unlabelled(), store=False, runtime="torch-fp32").scores

    def predict(self, rows: Array) -> Array:
        """Return class numbers."""
        return np.asarray(self.present[self.predict_proba(rows).argmax(axis=1)])
