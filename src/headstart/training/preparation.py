"""What a run makes once, before its first step: streams of rows, what runs networks, prepared objectives, what trains."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from headstart.core.errors import ConfigError, DataError
from headstart.core.tasks import Task
from headstart.objectives import Objective, Setup
from headstart.training.config import TrainingConfig
from headstart.training.distributed import World
from headstart.training.forward import Forward
from headstart.training.judge import CHECK_ROWS
from headstart.training.losses import LossWatch, chance_loss
from headstart.training.network import Network, Output
from headstart.training.phases import Phase
from headstart.training.plan import Plan
from headstart.training.rows import TrainingRows
from headstart.training.sampler import Stream

__all__ = ["loss_watch", "open_forward", "open_streams", "prepare_objectives", "trained_parameters"]


def open_streams(
    task: Task,
    training: TrainingRows,
    unlabelled: TrainingRows | None,
    phases: Sequence[Phase],
    config: TrainingConfig,
    notes: list[str],
) -> tuple[Stream, Stream | None]:
    """Return the labelled stream, and the second one where there is one; what a person should know is added to the notes."""
    groups = None
    if config.balance == "sampling":
        if task.kind != "classification" or training.chosen is None:
            raise ConfigError("train: balance='sampling' needs one class for each row; use 'loss', or 'none'.")
        groups = training.chosen
    if config.balance == "domains":
        groups = training.chosen_domains
    source = Stream(
        training, config.batch_size, seed=config.seed, purpose="order", groups=groups, changed=unlabelled is None
    )
    if source.batch_size < config.batch_size:
        notes.append(
            f"batch_size {config.batch_size} is more than there are training rows; "
            f"every step takes all {source.batch_size}"
        )
    if unlabelled is None:
        alone = next((phase for phase in phases if "source" not in phase.streams), None)
        if alone is not None:
            raise ConfigError(f"train: phase {alone.name!r} looks at the second stream only; give one as unlabelled.")
        return source, None
    if not len(unlabelled):
        raise DataError("train: the second stream has no rows; leave it out.")
    return source, Stream(unlabelled, config.batch_size, seed=config.seed, purpose="second order", changed=True)


def open_forward(
    network: Network,
    task: Task,
    config: TrainingConfig,
    autocast: Callable[[], contextlib.AbstractContextManager[object]],
    needs: frozenset[str],
    base: Network | None,
    source_head: nn.Module | None,
) -> Forward:
    """Return what runs networks, with a copy of the base model where an objective needs one."""
    if any(need.startswith("base_") for need in needs) and base is None:
        base = network.twin()
    if "base_logits" in needs and source_head is None:
        raise ConfigError(
            "train: an objective needs the answers of the base model's own head, which is not known; give source_head, or "
            "choose a base model that has one."
        )
    forward = Forward(network, task, autocast, base, source_head)
    if config.precision == "fp16" and forward.device.type != "cuda":
        raise ConfigError("TrainingConfig: precision 'fp16' needs a GPU; use 'bf16' or 'fp32'.")
    if config.cutmix and network.start > 0:
        raise ConfigError(
            f"train: cutmix pastes boxes into raw images, but these rows are activations after "
            f"{network.names[network.start - 1]!r}; use mixup, or train from raw images."
        )
    for module in (base, source_head):
        if module is not None:
            module.to(forward.device)
    if config.compile:
        forward.suffix = cast(Callable[..., Output], torch.compile(network.suffix))
    return forward


def prepare_objectives(
    forward: Forward,
    objectives: Sequence[Objective],
    source: Stream,
    target: Stream | None = None,
    world: World | None = None,
) -> None:
    """Let every objective look at the network, the targets, and what the network and the base model say of the rows."""
    together = (world or World()).together()
    network = forward.network

    def outputs(stream: Stream) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return forward.whole_outputs(network, stream, CHECK_ROWS)

    def base_logits() -> NDArray[np.float32]:
        return np.concatenate(list(forward.source_logits(source, forward.base or network.twin(), CHECK_ROWS)))

    known = None if forward.source_head is None else base_logits
    setup = Setup(
        network,
        forward.task,
        source.rows.chosen,
        known,
        width=_width(forward, source),
        num_target=0 if target is None else len(target.rows),
        target_outputs=None if target is None else partial(outputs, target),
        source_outputs=partial(outputs, source),
        num_domains=int(source.rows.chosen_domains.max()) + 1,
    )
    for objective in objectives:
        objective.to(forward.device)
        objective.together = together
        objective.prepare(setup)
        objective.train()
    network.settle()  # an objective may have put other layers in


def _width(forward: Forward, source: Stream) -> int:
    """Return how many features the network gives, by running it on one row."""
    network = forward.network.eval()
    with torch.no_grad(), forward.autocast():
        output = network(*forward.on_device(source.rows.inputs.batch(source.rows.indices[:1], None)))
    return int(output.features.shape[1])


def trained_parameters(network: Network, plan: Plan, objectives: Sequence[Objective]) -> Mapping[str, nn.Parameter]:
    """Return what trains, by name: the network's parameters as planned, and the objectives' own."""
    known = dict(network.named_parameters())
    chosen = {name: known[name] for group in plan.groups for name in group.names}
    theirs = {id(parameter) for parameter in known.values()}
    for number, objective in enumerate(objectives):
        for name, parameter in objective.named_parameters():
            if parameter.requires_grad and id(parameter) not in theirs:
                chosen[f"objectives.{number}.{name}"] = parameter
    return chosen


def loss_watch(phases: Sequence[Phase], task: Task, source: Stream, every_step: bool) -> LossWatch:
    """Return what adds up the losses of all phases, by the names of phases and objectives."""
    names = list[str]()
    for phase in phases:
        for objective in phase.objectives:
            name = f"{phase.name}.{type(objective).__name__}"
            names.append(name if name not in names else f"{name} {len(names) + 1}")
    return LossWatch(
        names, [len(phase.objectives) for phase in phases], chance_loss(task, source.rows.chosen), every_step
    )
