"""The whole state of a run between two steps, as tensors by name and a JSON value, and back.

    network/...      what training may change        kept/...       weights to go back to: the best, or the last that were good
    optimiser/...    by parameter and quantity       objectives/... buffers and parameters of their own
    follower/...     running average                 swa/...        equal average

Order, views, dropout and mixing are functions of the seed and the step, so the number of steps done stands for them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headstart.core.errors import TrainingError
from headstart.training.history import History

if TYPE_CHECKING:
    from headstart.training.loop import Run

__all__ = ["State", "collect_state", "restore_state"]

State = tuple[dict[str, Tensor], dict[str, Any]]


def collect_state(run: Run) -> State:
    """Return everything that `restore` needs: tensors by name, and a JSON value."""
    tensors = {f"network/{name}": tensor for name, tensor in run.moving.items()}
    tensors |= {f"optimiser/{name}": tensor for name, tensor in run.optimiser.state().items()}
    tensors |= {f"kept/{name}": tensor for name, tensor in run.kept.items()}
    for number, objective in enumerate(run.objectives):
        tensors |= {f"objectives/{number}/{name}": tensor for name, tensor in objective.state_dict().items()}
    for place, average in (("follower", run.follower), ("swa", run.swa)):
        if average is not None:
            tensors |= {f"{place}/{name}": tensor for name, tensor in average.tensors.items()}
    run.measure.collect()
    value = {
        "done": run.done,
        "spent": run.spent,
        "waited": run.waited,
        "checking": run.checking,
        "last_check": run.last_check,
        "best_loss": run.best_loss,
        "precision": run.precision,
        "history": run.history.to_dict(),
        "watch": run.watch.state(),
        "measure": [run.measure.good, run.measure.count],
        "averaged": 0 if run.swa is None else run.swa.count,
        "scaler": run.scaler.state_dict(),
        "resting": sorted(name for name, item in run.optimiser.parameters.items() if not item.requires_grad),
    }
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}, value


@torch.no_grad()
def restore_state(run: Run, tensors: dict[str, Tensor], value: dict[str, Any]) -> None:
    """Go on from what `state` gave.

    Raises
    ------
    TrainingError
        If it is the state of another network or other objectives.
    """
    places = {"network": run.moving, "kept": run.kept}
    places |= {name: item.tensors for name, item in (("follower", run.follower), ("swa", run.swa)) if item}
    for place, mine in places.items():
        theirs = _under(tensors, place)
        if theirs.keys() != mine.keys():
            raise TrainingError(
                f"train: the stored state has other tensors under {place!r} than this run; train with the network, plan and "
                "options it began with."
            )
        for name, tensor in theirs.items():
            mine[name].copy_(tensor)
    for number, objective in enumerate(run.objectives):
        objective.load_state_dict(_under(tensors, f"objectives/{number}"))
    run.optimiser.restore(_under(tensors, "optimiser"))
    run.done, run.spent, run.checking = value["done"], value["spent"], value["checking"]
    run.waited = run.waited_earlier = value["waited"]
    run.last_check, run.best_loss, run.precision = value["last_check"], value["best_loss"], value["precision"]
    run.history = History.from_dict(value["history"])
    run.watch.restore(value["watch"])
    run.measure.good, run.measure.count = value["measure"]
    if run.swa is not None:
        run.swa.count = value["averaged"]
    if run.scaler.is_enabled():
        run.scaler.load_state_dict(value["scaler"])


def _under(tensors: dict[str, Tensor], place: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{place}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{place}/")}
