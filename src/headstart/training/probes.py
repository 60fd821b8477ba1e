"""Looks at a run's first step before it is taken: which precision to compute in, and which learning rate to take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headstart.objectives import Batch, Together, joint_loss
from headstart.training.optimiser import GroupedOptimiser
from headstart.training.precision import choose_precision
from headstart.training.rate_finder import RateSweep, find_learning_rate

if TYPE_CHECKING:
    from headstart.training.loop import Run

__all__ = ["loss_at", "set_precision", "sweep_rates"]

_PROBE_PAYS = 100  # steps; choosing the precision costs about ten


def set_precision(run: Run) -> None:
    """Take the configured precision, or measure a step where the training is long enough for that to pay."""
    wanted = run.config.precision
    if wanted != "auto":
        run.precision = wanted
    elif run.total < _PROBE_PAYS:
        run.precision = "fp32"
    else:  # of several processes, all take what the first one measured
        made = run.world.hand_out(lambda: ({}, {"precision": _measured(run)}))
        assert made is not None
        run.precision = str(made[1]["precision"])
    run.history.precision = run.precision


def _measured(run: Run) -> str:
    key = {"rows": run.source.batch_size, "needs": sorted(run.needs)}
    run.network.train()
    choice = choose_precision(run.network, lambda: loss_at(run, 0), key=key, device=run.forward.device)
    if choice.precision != "fp32":
        run.history.notes.append(f"trained in {choice.precision}: {choice.reason}")
    return choice.precision


def loss_at(run: Run, step: int) -> Tensor:
    """Return the first phase's loss on the rows of a step, with its graph; only running statistics move."""
    phase = run.phases[0]
    seen, other = Batch(), None
    source, target = run.feed.pieces(step)
    if "source" in phase.streams:
        seen = run.forward.batch(source[0](), phase.needs, False)
    if target and "target" in phase.streams:
        other = run.forward.batch(target[0](), phase.needs, False)
    for objective in phase.objectives:
        objective.eval()  # queues and running figures stay as they are
        objective.together = Together()  # the other processes are not asked: they may not be looking
    try:
        return joint_loss(phase.objectives, seen, other)
    finally:
        for objective in phase.objectives:
            objective.train()
            objective.together = run.world.together()


def sweep_rates(run: Run, *, lowest: float = 1e-7, highest: float = 1.0, num_steps: int = 100) -> RateSweep:
    """Return the first phase's losses along rising learning rates; the run is left as it was.

    Parameters
    ----------
    run : Run
        Before its first step. Groups keep the ratio of their rates; those that begin later rest.
    lowest, highest : float
        First and last rate.
    num_steps : int
        Steps of the sweep.
    """
    if not run.precision:
        set_precision(run)

    def make() -> torch.optim.Optimizer:
        optimiser = GroupedOptimiser(run.plan, run.optimiser.parameters, run.config)
        optimiser.set_rate(0.0)  # every group's own factor
        return optimiser.torch

    run.optimiser.set_rate(0.0)
    run.network.settle()
    run.network.train()
    with run.random_numbers():
        return find_learning_rate(
            [run.network, *run.objectives],
            lambda step: loss_at(run, step),
            make,
            lowest=lowest,
            highest=highest,
            num_steps=num_steps,
            clip=run.config.clip,
        )
