"""Rungs 3 and 4: the last stages fine-tuned from the freeze boundary, then the whole network with regularisers.

A recipe learns from the training rows that do not judge, starts from a head solved on those rows alone, and trains its whole
length: nothing is chosen by looking at judging rows. A finished rung is written into the run folder and read back when the same
command runs again after it was killed; one that was cut off goes on from its checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.core.progress import Progress
from headstart.data import Dataset
from headstart.heads import LinearHead
from headstart.metrics import compute_metrics
from headstart.model import Model
from headstart.report.rungs import short_name
from headstart.workflow.expectation import Expectation, evidence_of, tuning_gain
from headstart.workflow.head_rungs import HeadSettings
from headstart.workflow.ladder import Needs, Standing, Tried
from headstart.workflow.limits import estimate_size, measure_latency, resident_memory, training_memory
from headstart.workflow.recipes import (
    Recipe,
    Tune,
    Tuned,
    TuningRows,
    fitting_epochs,
    last_stages,
    recipe_for,
    seconds_for,
    trained_share,
    tune,
)
from headstart.workflow.unfinished import Unfinished

__all__ = ["TuningRung", "solved_on", "tried_from"]

_SHARE_OF_ROOM = 0.42  # of what is left of the budget: the final fit on all rows takes a quarter more


@dataclass
class TuningRung:
    """Fine-tuning by one strategy, on the base model of the best solved head.

    Parameters
    ----------
    name : {"partial", "full", "asked"}
        Which rung.
    strategy : str
        See `Recipe`; empty for as many last stages as do a fifth of the work.
    settings : HeadSettings
        Rows and what all rungs share.
    unfinished : Unfinished
        Where checkpoints and finished rungs lie.
    reserve : float
        Seconds of the budget kept for what comes after the climb.
    seed : int
        Of the training.
    forced : bool
        The user named the strategy.
    carry_out : callable
        Does the work.
    """

    name: str
    strategy: str
    settings: HeadSettings
    unfinished: Unfinished
    reserve: float = 0.0
    seed: int = 0
    forced: bool = False
    carry_out: Tune = tune

    def __post_init__(self) -> None:
        what = {"partial": "fine-tuning of the last stages", "full": "full fine-tuning with regularisers"}
        self.title = what.get(self.name, f"fine-tuning, {self.strategy}")
        self.backbone = ""
        self._planned: tuple[Recipe, float] | None = None

    def recipe(self, standing: Standing) -> Recipe:
        """Return the recipe before the budget shortens it."""
        assert standing.head is not None
        strategy = self.strategy or last_stages(standing.head.model.backbone)
        return recipe_for(strategy, self.settings.train.subset(standing.judging.learning))

    def expect(self, standing: Standing) -> Expectation:
        """Return what the rule for fine-tuning says."""
        judging = standing.judging
        kind = "partial" if self.name == "partial" else self.recipe(standing).kind
        evidence = evidence_of(*standing.tuned) if standing.tuned is not None else 1.0
        return tuning_gain(
            kind, judging.metric, standing.value, judging.task, len(judging.learning), standing.curve(), evidence
        )

    def needs(self, standing: Standing) -> Needs:
        """Return time, size and memory, from a timed batch; shortens the recipe to what the budget allows."""
        assert standing.head is not None
        backbone, judging = standing.head.model.backbone, standing.judging
        self.backbone = backbone.name
        rows = self.settings.train.subset(judging.learning)
        recipe = self.recipe(standing)
        before, each = seconds_for(recipe, backbone, rows, len(judging))
        room = _SHARE_OF_ROOM * (standing.clock.left - self.reserve)
        fitting = fitting_epochs(recipe, before, each, room)
        seconds = before + each * (recipe if fitting is None else fitting).epochs
        if fitting is None:
            seconds = (before + each * min(3, recipe.epochs)) / _SHARE_OF_ROOM
        self._planned = (fitting or recipe, seconds)
        size = memory = None
        if self.settings.limits:
            size = estimate_size(backbone, judging.task.num_outputs, len(self.settings.train))
            share = trained_share(backbone, recipe.strategy)
            memory = resident_memory() + training_memory(backbone, recipe.batch_size, share)
        return Needs(seconds, size, memory, standing.head.latency)

    def run(self, standing: Standing) -> Tried:
        """Train, judge, and say how to fit again on all rows."""
        assert standing.head is not None
        if self._planned is None:
            self.needs(standing)
        assert self._planned is not None
        recipe, judging = self._planned[0], standing.judging
        train = self.settings.train
        learning, judged = train.subset(judging.learning), train.subset(judging.rows)
        shared = TuningRows(
            standing.head.model.backbone,
            solved_on(standing.head, judging.learning, self.settings),
            self.settings.views,
            self.settings.method.class_weight or "none",
            self.settings.runtime,
            self.seed,
            self.settings.store,
        )
        recipe = self.unfinished.recipe_begun(self.name, recipe)
        key = self.unfinished.key(self.name, recipe, shared.backbone, learning)
        done = self.unfinished.recall(key)
        if done is None:
            folder = self.unfinished.folder(key)
            started, cpu_started = time.perf_counter(), time.process_time()
            tuned = self.carry_out(recipe, learning, judged, shared, folder, standing.progress)
            costs = time.process_time() - cpu_started, time.perf_counter() - started
            done = self.unfinished.remember(key, tuned, *costs)
        return tried_from(done, recipe, self, standing, learning)


def tried_from(done: Any, recipe: Recipe, rung: Any, standing: Standing, learning: Dataset) -> Tried:
    """Return what a carried-out recipe is to the climb."""
    settings, judging = rung.settings, standing.judging
    head = standing.head
    assert head is not None
    tuned: Tuned = done.tuned
    scores = tuned.scores
    if scores is None:
        scores = tuned.model.predict(
            settings.train.subset(judging.rows).unlabelled(), progress=Progress(quiet=True)
        ).scores
    measure = "R2" if judging.task.kind == "regression" else "accuracy"
    shared = TuningRows(
        head.model.backbone,
        _linear(head.model.head),
        settings.views,
        settings.method.class_weight or "none",
        settings.runtime,
        rung.seed,
        settings.store,
        getattr(tuned.model.head, "temperature", None),
        tuned.mix,
    )

    def refit(progress: Progress) -> Model:
        again: Tuned = rung.carry_out(recipe, settings.train, None, shared, rung.unfinished.folder("refit"), progress)
        return again.model

    limited = math.isfinite(settings.limits.latency)
    return Tried(
        tuned.model,
        np.asarray(scores, np.float64),
        head.backbone,
        compute_metrics(judging.task, judging.targets, scores),
        curves=tuned.curves(f"{rung.title} of {short_name(head.backbone)}", measure),
        refit=refit,
        size=estimate_size(tuned.model.backbone, judging.task.num_outputs, len(settings.train)),
        latency=measure_latency(tuned.model, settings.train) if limited else None,
        costs=done.costs,
        settings=recipe.to_dict(),
        notes=[note for note in tuned.notes if note],
    )


def solved_on(head: Tried, learning: Sequence[int] | np.ndarray[Any, Any], settings: HeadSettings) -> LinearHead | None:
    """Return the head solved again on the learning rows alone: one that saw judging rows would hand them on."""
    if head.features is None:
        return None
    features, targets, task = head.features, settings.train.targets, settings.train.task
    assert targets is not None and task is not None
    part = replace(features, values_nd=features.values_nd[learning], kept=np.arange(len(learning)))
    groups = None if settings.groups is None else settings.groups[learning]
    model = settings.method.fit(head.model.backbone, part, targets[learning], task, groups=groups)
    return _linear(model.head)


def _linear(head: Any) -> LinearHead | None:
    return head if isinstance(head, LinearHead) else None
