"""Checks of a run: when they come, what they write down, and whether the weights of that moment are kept.

    without a time budget   at the end of every epoch
    under one               at the end of an epoch while checks are cheap, five times over the budget, and at the end

Checks are not charged to the budget.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from headstart.training.loop import Run

__all__ = ["check", "check_due"]

_CHEAP = 0.25  # of the seconds spent in steps


def check_due(run: Run, over: bool) -> bool:
    """Return whether a check is due after a step; ``over`` says that it was the last of an epoch."""
    config = run.config
    if math.isinf(config.cpu_seconds) and math.isinf(config.wall_seconds):
        return over
    if run.spent_share >= 1 or run.done >= run.total:
        return True
    return (over and run.checking <= _CHEAP * run.spent) or run.spent_share - run.last_check >= 0.2


@torch.no_grad()
def check(run: Run) -> None:
    """Write down where the run is, judge it on validation rows, and keep the weights if they are good.

    Raises
    ------
    Broken
        If a loss cannot be believed.
    """
    history, started = run.history, time.process_time()
    means = run.watch.means()
    history.train_loss.append(sum(means))
    for name, value in zip(run.watch.names, means, strict=True):
        history.losses.setdefault(name, []).append(value)
    history.train_measure.append(_train_measure(run))
    history.rates.append(run.config.learning_rate * run.optimiser.share(run.share()))
    history.check_epochs.append(history.epochs)
    if _is_good(run):
        for name, tensor in run.judged().items():
            run.kept[name].copy_(tensor)
    run.last_check = run.spent_share
    run.checking += run.world.sums([time.process_time() - started])[0]
    history.cpu_seconds = run.spent


def _is_good(run: Run) -> bool:
    """Judge the network, or its average, and return whether its weights are to be kept."""
    if run.judge is None:
        return True
    history = run.history
    averaged = run.follower is not None and bool(run.config.ema)
    judged = run.follower.network if run.follower is not None and averaged else run.network
    loss, measure = run.judge.judge(judged)
    history.validation_loss.append(loss)
    history.validation_measure.append(measure)
    if loss < run.best_loss:
        run.best_loss, history.best = loss, len(history.validation_loss) - 1
        return True
    return not run.config.restore_best


def _train_measure(run: Run) -> float:
    measure = run.measure
    measure.collect()
    if run.world.size > 1:
        measure.good, count = run.world.sums([measure.good, float(measure.count)])
        measure.count = int(count)
    value = measure.value
    measure.reset()
    return value
