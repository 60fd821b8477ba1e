"""One network, one recipe, rows of two domains: the trainings that adapt it, in order.

    starts trained:   the task's loss on source rows      then the recipe's phases on source and target rows
    source-free:      the task's loss on source rows      then the recipe's phases on target rows alone
    otherwise:                                            the recipe's phases on source and target rows

Target rows come without labels: what `TrainingRows` of theirs may bring is taken off before anything sees it. No row chooses
which weights are kept; they are the last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.methods.adaptations.recipe import AdaptationRecipe, LossOf, RecipeOf
from headstart.objectives import (
    Objective,
    balanced_class_weights,
    supervised_objective,
    without_mixstyle,
    without_stochastic_normalisation,
)
from headstart.training import History, Network, Phase, TrainingConfig, TrainingRows, train
from headstart.training.checkpoint import Checkpoint
from headstart.training.plan import Plan

__all__ = ["Adapting", "adapt_network", "check_serves", "loss_of", "make_recipe"]

_FEWEST_TARGET_ROWS = 2


def loss_of(task: Task, config: TrainingConfig, source: TrainingRows) -> LossOf:
    """Return what gives the task's loss for a head, smoothed and balanced as the configuration says."""
    weights = None
    if config.balance == "loss" and task.classes and source.chosen is not None:
        weights = balanced_class_weights(source.chosen, task.num_outputs)

    def loss(head: str) -> Objective:
        return supervised_objective(task, label_smoothing=config.label_smoothing, class_weights=weights, head=head)

    return loss


def make_recipe(recipe: RecipeOf, task: Task, config: TrainingConfig, source: TrainingRows) -> AdaptationRecipe:
    """Return a recipe's phases with objectives of their own: one recipe serves many trainings, its objectives one.

    Raises
    ------
    ConfigError
        If a term reads labels of the second stream, or labels are numbers and a term reads classes: of one output without
        classes such a term is a constant.
    """
    made = recipe(loss_of(task, config, source))
    check_serves(made, task, "adapt")
    return made


def check_serves(recipe: AdaptationRecipe, task: Task, who: str) -> None:
    """Refuse a recipe that reads labels of the second stream, or classes where labels are numbers.

    Parameters
    ----------
    recipe : AdaptationRecipe
        Made for the task.
    task : Task
        What labels mean.
    who : str
        Who refuses, for the message.

    Raises
    ------
    ConfigError
        With the terms that will not do, and what does.
    """
    both = dict.fromkeys(type(term).__name__ for term in recipe.objectives if term.labels_both)
    if both:
        raise ConfigError(
            f"{who}: {', '.join(both)} learns from labels of both streams, and adapting takes the target's off; give a few "
            "labelled target rows (few) to mme or any other network, or train two labelled tasks with headstart.training.train."
        )
    if task.kind != "regression":
        return
    reading = dict.fromkeys(type(term).__name__ for term in recipe.objectives if term.reads_classes)
    if reading or recipe.unknown_above is not None:
        raise ConfigError(
            f"{who}: {', '.join(reading) or 'the recipe'} reads probabilities of classes, and the labels are numbers; take "
            "a method that compares features, such as dann, dan, cmd, wdgrl or deep-coral."
        )


@dataclass(frozen=True)
class Adapting:
    """What an adaptation trains, and how.

    Parameters
    ----------
    network : Network
        Trained in place; has the recipe's heads.
    task : Task
        What source labels mean.
    source : TrainingRows
        Labelled.
    target : TrainingRows
        Rows of the target domain.
    recipe : AdaptationRecipe
        Freshly made (`make_recipe`).
    config : TrainingConfig
        Of both trainings; the recipe's own settings go on top.
    plan : Plan, optional
        Which parameters train.
    loss : callable
        Gives the task's loss for a head, for the first training.
    held_out : TrainingRows, optional
        Labelled source rows to watch the source by; they choose nothing.
    source_head : nn.Module, optional
        The base model's own classifier, for terms that look at its answers.
    """

    network: Network
    task: Task
    source: TrainingRows
    target: TrainingRows
    recipe: AdaptationRecipe
    config: TrainingConfig
    loss: LossOf
    plan: Plan | None = None
    held_out: TrainingRows | None = None
    source_head: nn.Module | None = None


def adapt_network(
    job: Adapting,
    *,
    checkpoint: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> tuple[History, ...]:
    """Train the network by the recipe and leave it in evaluation mode.

    Parameters
    ----------
    job : Adapting
        What to train.
    checkpoint : Path, optional
        Folder to go on from after a kill, and to save to.
    identity : mapping, optional
        What the checkpoint belongs to, as a JSON value.
    progress : Progress, optional
        Gets a stage for each training.

    Returns
    -------
    tuple of History
        Of the trainings, in order.

    Raises
    ------
    DataError
        If there are fewer than two target rows.
    ConfigError
        If an objective needs what the network cannot give.
    TrainingError
        If a loss cannot be believed; a critic that explodes is named.
    """
    if len(job.target) < _FEWEST_TARGET_ROWS:
        raise DataError(
            f"adapt: adapting a network needs at least {_FEWEST_TARGET_ROWS} target rows; got {len(job.target)}. Predict with "
            "the source model instead."
        )
    target = TrainingRows(job.target.inputs, None, job.target.indices)
    config = replace(job.config, **dict(job.recipe.settings), restore_best=False)
    config = replace(config, patience=config.max_epochs + 1)
    recipe, histories = job.recipe, []
    _check_heads(job)
    if recipe.starts_trained or not recipe.needs_source:
        losses = [job.loss(head) for head in recipe.heads]
        first = replace(config, ema=0.0, swa=0.0)
        histories.append(
            _train(
                job,
                job.source,
                None,
                first,
                [Phase(tuple(losses), name="source")],
                "source",
                checkpoint,
                identity,
                progress,
            )
        )
    alone = not recipe.needs_source
    rows = target if alone else job.source
    job = replace(job, held_out=None) if alone else job
    histories.append(_train(job, rows, target, config, recipe.phases, "adapt", checkpoint, identity, progress))
    without_mixstyle(job.network)  # what an objective put into the network for its training is no part of it
    without_stochastic_normalisation(job.network)
    return tuple(histories)


def _check_heads(job: Adapting) -> None:
    if missing := [name for name in job.recipe.heads if name not in job.network.heads]:
        raise ConfigError(
            f"adapt: the recipe needs the heads {', '.join(job.recipe.heads)}; the network lacks {', '.join(missing)}."
        )


def _train(
    job: Adapting,
    rows: TrainingRows,
    target: TrainingRows | None,
    config: TrainingConfig,
    phases: Sequence[Phase],
    stage: str,
    checkpoint: Path | None,
    identity: Mapping[str, Any] | None,
    progress: Progress | None,
) -> History:
    plan = job.plan
    if plan is not None and stage == "adapt":
        plan = replace(plan, own_rate=job.recipe.own_rate)
    kept: Any = contextlib.nullcontext()
    if checkpoint is not None:
        kept = Checkpoint(checkpoint / stage, identity={**(identity or {}), "stage": stage})
    with kept as saved:
        return train(
            job.network,
            job.task,
            rows,
            job.held_out,
            config,
            unlabelled=target,
            phases=phases,
            plan=plan,
            source_head=job.source_head,
            checkpoint=saved,
            progress=progress,
            stage=stage,
        )
