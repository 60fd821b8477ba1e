"""Deep domain adaptation: stages of the base model train on labelled source rows and unlabelled target rows, by any recipe.

    1. set source rows aside      2. solve the head on frozen source features      3. open both domains at the freeze boundary
    4. train by the recipe's phases, last weights kept      5. calibrate on the source rows set aside

The third of the core methods, on networks. What is frozen is run once a row of either domain, so adapting the upper part of a
large network costs what the upper part costs. Use it when both domains have a few hundred rows and aligning frozen features
(`headstart.alignment`, `headstart.methods.AdaptedNetwork`) does not bring them together. It cannot see target labels: the target
is taken without them, and nothing of the target chooses weights.
Sources may be several (`Dataset.domains`), and a few labelled rows of the target may stand beside them.
Shapes: n source rows, m target rows, v source rows set aside, d features, r features that objectives compare, k outputs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.core.errors import ConfigError, DataError
from headstart.core.preprocessing import View
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.data import Dataset
from headstart.features import FeatureStore
from headstart.heads import NetworkHead
from headstart.methods.adaptations import RecipeOf, source_only
from headstart.methods.adaptations.givens import Given
from headstart.methods.adaptations.heads import split_head, steps_to_epochs
from headstart.methods.adaptations.job import AdaptationJob, AdaptationSettings
from headstart.methods.adaptations.stages import stages_given
from headstart.methods.image_translation.source_rows import SourceTranslation
from headstart.methods.tuning_rows import TuningRows, check_rows, readable_rows
from headstart.model import Model
from headstart.training import History, TrainingConfig
from headstart.training.strategies import HeadOnly, Strategy, read_strategy

__all__ = ["DeepAdaptation", "DeeplyAdapted"]

BatchNorm = Literal["frozen", "train"]
Array = NDArray[Any]

_STEPS = 400
_RATE, _HEAD_RATE = 3e-4, 1e-3
_WORDS = "dense256-relu"


@dataclass(frozen=True)
class DeeplyAdapted:
    """What deep adaptation made, and what may be judged without target labels.

    Parameters
    ----------
    model : Model
        Answers for the target; tuned copy of the base model, trained head, temperature.
    histories : tuple of History
        Of the trainings, in order.
    target_scores : float64 array of shape (m, k) or (m,)
        Probabilities, or numbers, of the target rows that could be read.
    target_kept : int64 array
        Which of the target rows these are.
    held_out_scores : float64 array of shape (v, k) or (v,), or None
        The same of the source rows set aside.
    held_out : int64 array, or None
        Which of the source rows these are.
    source_seen_nr, target_seen_mr : float32 arrays
        Source rows (set aside ones left out) and target rows as the head sees them.
    plan_reason : str
        What trained, and why.
    notes : tuple of str
        What a person should know.
    cpu_seconds : float
        CPU time of all of it, all threads.
    target_unknown : bool array of shape (m,), optional
        Which of these target rows are of none of the classes, where the recipe has learned to tell.
    """

    model: Model
    histories: tuple[History, ...]
    target_scores: NDArray[np.float64]
    target_kept: NDArray[np.int64]
    held_out_scores: NDArray[np.float64] | None
    held_out: NDArray[np.int64] | None
    source_seen_nr: NDArray[np.float32]
    target_seen_mr: NDArray[np.float32]
    plan_reason: str
    notes: tuple[str, ...] = ()
    cpu_seconds: float = 0.0
    target_unknown: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class DeepAdaptation:
    """Adapt a network to a target by a recipe.

    Parameters
    ----------
    recipe : callable
        What is minimised: a recipe of the catalog (``resolve("mcd", "adaptation")``), or what
        `headstart.catalog.read_objectives` returns. Without one the network learns from source rows alone.
    name : str
        What the recipe is called, for the model's provenance.
    strategy : str, dict or Strategy
        Which stages train, as in `FineTuning`; ``"head-only"`` leaves the base model frozen and trains hidden layers on its
        features.
    head : str
        ``"solved"`` starts from the solution on frozen source features; words with hidden layers (``"dense256-relu"``) start at
        random, and their hidden layers give what objectives compare. "auto": solved where stages train, hidden layers otherwise.
    config : TrainingConfig, optional
        How to train: about 400 steps when left out.
    views : tuple of View, optional
        Images: fixed looks, of which each epoch draws one a row. Plain and mirrored when left out.
    held_out : float in [0, 1)
        Share of the source rows set aside for calibration and for rules that choose without target labels.
    boundary, runtime, batch_norm
        As in `FineTuning`.
    translation : SourceTranslation, optional
        Images: how source rows are changed before any network sees them (`headstart.methods.image_translation`).
    seed : int
        Of the split, starting weights and every draw, unless ``config`` has its own.

    Raises
    ------
    ConfigError
        If a value breaks its rule.
    """

    recipe: RecipeOf = source_only
    name: str = ""
    strategy: str | dict[str, Any] | Strategy = "last-stages:1"
    head: str = "auto"
    config: TrainingConfig | None = None
    views: tuple[View, ...] | None = None
    held_out: float = 0.15
    boundary: Literal["auto", "cached", "computed"] = "auto"
    runtime: str = "auto"
    batch_norm: BatchNorm = "frozen"
    translation: SourceTranslation | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        read_strategy(self.strategy)
        if self.batch_norm not in get_args(BatchNorm):
            raise ConfigError(f"DeepAdaptation: batch_norm is 'frozen' or 'train'; got {self.batch_norm!r}.")
        if self.boundary not in {"auto", "cached", "computed"}:
            raise ConfigError(f"DeepAdaptation: boundary is auto, cached or computed; got {self.boundary!r}.")
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"DeepAdaptation: held_out lies in [0, 1); got {self.held_out!r}.")

    def fit(
        self,
        source: Dataset,
        target: Dataset,
        backbone: Backbone,
        *,
        few_labels: Dataset | None = None,
        groups: NDArray[Any] | None = None,
        set_aside: NDArray[np.int64] | None = None,
        checkpoint: Path | None = None,
        store: FeatureStore | bool | None = None,
        progress: Progress | None = None,
    ) -> DeeplyAdapted:
        """Train, and return a model for the target.

        Parameters
        ----------
        source : Dataset
            Labelled. Its ``domains``, where it has any, tell several sources apart.
        target : Dataset
            Rows of the target; labels that come with them are taken off first.
        backbone : Backbone
            Stays as it is.
        few_labels : Dataset, optional
            A few labelled rows of the target, which join the source rows as a domain of their own.
        groups : array of shape (n,), optional
            Source rows with equal values are not divided.
        set_aside : int64 array, optional
            Which source rows are set aside, in place of a share drawn by ``held_out``.
        checkpoint : Path, optional
            Folder to go on from after a kill, and to save to.
        store : FeatureStore or bool, optional
            Where frozen features and activations are kept.
        progress : Progress, optional
            Gets a stage for each pass.

        Raises
        ------
        DataError
            If the source has no labels, a domain has too few rows, or modalities differ.
        ConfigError
            If strategy, head or recipe do not suit the base model, or an objective needs what it cannot give.
        TrainingError
            If a loss cannot be believed.
        """
        started = time.process_time()
        who = type(self).__name__
        check_rows(source, backbone, who=who)
        unlabelled = target.unlabelled()
        if unlabelled.modality != backbone.modality:
            raise DataError(
                f"{who}: {backbone.name} reads {backbone.modality} rows but the target holds {unlabelled.modality} rows; "
                "choose a base model for them."
            )
        if backbone.modality == "vector":
            raise ConfigError(
                f"{who}: these rows are features already, and there is no base model to train; use AdaptedNetwork, or "
                "headstart.adapt, which does."
            )
        strategy = read_strategy(self.strategy)
        words = self._words(strategy)
        part = TuningRows(source, None, who)
        if getattr(target, "targets", None) is not None:
            part.notes.append(f"the labels of the {len(target)} target rows are not looked at")
        if set_aside is None:
            part.divide(self.held_out, groups, self.seed)
        else:
            part.set_aside(set_aside)
        if self.translation is not None:
            folder = None if checkpoint is None else checkpoint / "translation"
            change = self.translation.learn(part.learning, unlabelled, backbone, checkpoint=folder, progress=progress)
            part.learning, part.judging = change(part.learning), None if part.judging is None else change(part.judging)
        part.read(backbone, False, store, progress)
        readable, _, kept = readable_rows(unlabelled, backbone, False, store, progress)
        labelled = None if few_labels is None else _same_classes(who, source, few_labels, backbone)
        job = AdaptationJob(
            self._settings(part, len(readable), strategy, words),
            part,
            readable,
            labelled,
            backbone,
            strategy,
            self.recipe,
        )
        found = job.run(checkpoint, store, progress)
        return DeeplyAdapted(
            model=found.model,
            histories=found.histories,
            target_scores=found.target_scores,
            target_kept=kept,
            held_out_scores=found.held_out_scores,
            held_out=part.kept if part.divided else None,
            source_seen_nr=found.source_seen_nr,
            target_seen_mr=found.target_seen_mr,
            plan_reason=found.plan_reason,
            notes=tuple(job.notes),
            cpu_seconds=time.process_time() - started,
            target_unknown=found.target_unknown,
        )

    def given(self, backbone: Backbone, task: Task, num_rows: int) -> Given:
        """Return what the network that trains will give a recipe's terms, asked before any row is read.

        Parameters
        ----------
        backbone : Backbone
            Stays as it is.
        task : Task
            What source labels mean.
        num_rows : int
            Source rows.

        Raises
        ------
        ConfigError
            If strategy or head do not suit the base model.
        """
        strategy = read_strategy(self.strategy)
        words = self._words(strategy)
        head = NetworkHead("linear" if words == "solved" else words, backbone.width, task)
        return stages_given(backbone, *split_head(head), strategy, num_rows=num_rows, batch_norm=self.batch_norm)

    def _words(self, strategy: Strategy) -> str:
        if self.head != "auto":
            return self.head
        return _WORDS if isinstance(strategy, HeadOnly) else "solved"

    def _settings(self, part: TuningRows, num_target: int, strategy: Strategy, words: str) -> AdaptationSettings:
        batch, small = 32, isinstance(strategy, HeadOnly)
        config = self.config or TrainingConfig(
            learning_rate=_HEAD_RATE if small else _RATE,
            weight_decay=0.01,
            batch_size=batch,
            max_epochs=steps_to_epochs(_STEPS, len(part.learning), max(1, num_target), batch),
            restore_best=False,
            seed=self.seed,
            threads=1 if small else 0,
        )
        views = self.views or ((View(), View(flip=True)) if part.learning.modality == "image" else (View(),))
        return AdaptationSettings(
            config, words, views, self.boundary, self.runtime, self.batch_norm, self.name, self.seed
        )


def _same_classes(who: str, source: Dataset, few: Dataset, backbone: Backbone) -> Dataset:
    """Return the labelled target rows with the source's class numbers."""
    check_rows(few, backbone, who=who)
    task, theirs = source.task, few.task
    assert task is not None and theirs is not None and few.targets is not None
    if task.kind != theirs.kind:
        raise DataError(f"{who}: the source's labels make a {task.kind} task, the target's few a {theirs.kind} task.")
    if task.kind != "classification":
        return few.relabelled(task, few.targets)
    return few.relabelled(task, _renumber(who, task, theirs, few.targets))


def _renumber(who: str, task: Task, theirs: Task, targets: Array) -> NDArray[np.int64]:
    unknown = sorted({theirs.classes[int(value)] for value in np.unique(targets)} - set(task.classes))
    if unknown:
        raise DataError(
            f"{who}: the few labelled target rows name {unknown[0]!r}, a class the source does not have; its classes are "
            f"{', '.join(task.classes[:8])}."
        )
    places = np.array([task.classes.index(name) if name in task.classes else -1 for name in theirs.classes], np.int64)
    return places[targets]
