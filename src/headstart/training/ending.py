"""How a run ends: which weights the network is left with, the proof that nothing frozen has changed, or what went wrong where.

averaging of late weights (``swa``)    their equal average, unless the best of the checks was better
``restore_best`` and validation rows   the weights of the lowest validation loss
a running average (``ema``)            that average
otherwise                              the last weights
a loss that cannot be believed         the last good weights, and an error that names step and rows
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headstart.core.errors import TrainingError
from headstart.training.averaging import recompute_statistics
from headstart.training.history import History
from headstart.training.losses import Broken

if TYPE_CHECKING:
    from headstart.training.loop import Run

__all__ = ["broken_off", "finish"]


def finish(run: Run) -> History:
    """Put the weights to keep into the network, in evaluation mode.

    Raises
    ------
    TrainingError
        If a loss since the last check cannot be believed, or something frozen has changed.
    """
    history, network = run.history, run.network
    history.stopped = run.ended() or "epochs"
    try:
        run.watch.collect()
    except Broken as broken:
        raise broken_off(run, broken) from None
    if run.swa is not None:
        _take_average(run)
    elif run.config.restore_best and history.best >= 0:
        _put(run, run.kept, "best")
    elif run.config.ema:
        _put(run, run.judged(), "average")
    network.eval()
    history.cpu_seconds, history.precision = run.spent, run.precision or "fp32"
    if network.frozen_names and network.frozen_digest() != run.frozen_digest:
        raise TrainingError(
            "train: something frozen has changed during training; an objective or a layer writes where it must not. "
            "The network is not to be trusted; train again without it."
        )
    run.world.check_same(run.moving)
    return history


def _take_average(run: Run) -> None:
    """Take the equal average of the late weights, unless the best of the checks was better."""
    assert run.swa is not None
    history = run.history
    best = history.best >= 0 and run.config.restore_best
    if not run.swa.count:
        history.notes.append("training ended before the weights were averaged; none are")
        if best:
            _put(run, run.kept, "best")
        return
    _put(run, run.swa.tensors, "average")
    recompute_statistics(run.network, lambda: _inputs(run))
    if run.judge is None:
        return
    loss, measure = run.judge.judge(run.network)
    if best and not loss <= run.best_loss:
        _put(run, run.kept, "best")
        history.notes.append(
            f"the average of {run.swa.count} epochs' weights has a validation loss of {loss:.4g}, more than the best "
            f"check's {run.best_loss:.4g}; the best weights are kept"
        )
        return
    history.notes.append(
        f"the average of {run.swa.count} epochs' weights is kept: validation loss {loss:.4g}, measure {measure:.4g}"
    )


def _inputs(run: Run) -> Iterator[tuple[Tensor, ...]]:
    """Yield the batches of one more pass over the labelled rows."""
    stream = run.source
    for number in range(stream.num_batches):
        sample = stream.at(run.done + number)
        yield run.forward.on_device(stream.rows.inputs.batch(stream.indices(sample), stream.draws(sample)))


@torch.no_grad()
def _put(run: Run, tensors: dict[str, Tensor], kept: str) -> None:
    for name, tensor in tensors.items():
        run.moving[name].copy_(tensor)
    run.history.kept = kept


def broken_off(run: Run, broken: Broken) -> TrainingError:
    """Put the last good weights back and return the error that says what happened where."""
    history = run.history
    _put(run, run.kept, "best" if history.best >= 0 and run.config.restore_best else "last")
    run.network.eval()
    history.stopped, history.cpu_seconds, history.precision = "error", run.spent, run.precision or "fp32"
    indices = run.training.indices[broken.positions]
    rows = ", ".join(run.training.name(int(index)) for index in indices[:8])
    more = f" and {len(indices) - 8} more" if len(indices) > 8 else ""
    back = "its last good weights" if history.train_loss else "the weights it began with"
    error = TrainingError(
        f"train: {broken.what} at step {broken.step + 1} (learning rate {run.config.learning_rate:g}), rows {rows}{more}; "
        f"look at these rows, or take a lower learning_rate. The network has {back} back."
    )
    error.history = history
    return error
