"""What one step is made of: phases, each a sum of objectives made smaller over some parts of the network.

    step:   for each phase, as often as it repeats:   theta_parts <- optimiser(theta_parts, grad sum_k weight_k L_k)

Plain training is one phase. Methods that alternate (two classifiers that disagree, critics, teachers) are several, on the same
batch. Use `supervised_phase` for the task's own loss, alone or with further terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from torch import nn

from headstart.core.errors import ConfigError, did_you_mean
from headstart.core.tasks import Task
from headstart.objectives import Objective, balanced_class_weights, supervised_objective
from headstart.training.config import TrainingConfig
from headstart.training.network import Network

__all__ = ["Phase", "parameters_of", "supervised_phase"]

_PARTS = ("segments", "heads", "objectives")
_STREAMS = ("source", "target")


@dataclass(frozen=True)
class Phase:
    """Some objectives, and the parts of the network that train on their sum.

    Parameters
    ----------
    objectives : tuple of Objective
        Their sum is made smaller.
    trains : tuple of str
        Parts that take the step: ``"segments"``, ``"segments.NAME"``, ``"heads"``, ``"heads.NAME"``, ``"objectives"`` (their own
        parameters). What the plan freezes stays frozen.
    repeats : int
        How often in one step, on the same batch.
    name : str
        For the history.
    streams : tuple of str
        Which rows are run: ``"source"`` (labelled), ``"target"`` (the second stream, where there is one). A stream that is
        left out is not computed; objectives get an empty batch in its place.

    Raises
    ------
    ConfigError
        If there is nothing to minimise, or a part or stream is unknown.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> Phase((CrossEntropy(),), trains=("heads",)).repeats
    1
    """

    objectives: tuple[Objective, ...]
    trains: tuple[str, ...] = _PARTS
    repeats: int = 1
    name: str = "train"
    streams: tuple[str, ...] = _STREAMS
    needs: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "objectives", tuple(self.objectives))
        object.__setattr__(self, "needs", frozenset[str]().union(*(item.needs for item in self.objectives)))
        if not self.objectives or self.repeats < 1:
            raise ConfigError(
                f"Phase {self.name!r}: needs at least one objective and one repeat; "
                f"got {len(self.objectives)} and {self.repeats}."
            )
        unknown = [part for part in self.trains if part.partition(".")[0] not in _PARTS]
        if unknown or not self.trains:
            raise ConfigError(
                f"Phase {self.name!r}: trains names segments, heads or objectives; got {unknown or 'nothing'}."
            )
        if not self.streams or set(self.streams) - set(_STREAMS):
            raise ConfigError(f"Phase {self.name!r}: streams are among {_STREAMS}; got {self.streams}.")


def supervised_phase(
    task: Task, config: TrainingConfig, targets: NDArray[Any], further: Sequence[Objective] = (), *, name: str = "train"
) -> Phase:
    """Return the phase that trains everything on the task's own loss, smoothed and balanced as the configuration says.

    Parameters
    ----------
    task : Task
        Says which loss.
    config : TrainingConfig
        ``label_smoothing`` and ``balance`` are taken from it.
    targets : array of shape (n,) or (n, k)
        Targets of the training rows, for balancing.
    further : sequence of Objective
        Terms that are added (regularisers).
    name : str
        For the history.

    Raises
    ------
    ConfigError
        If the task has no classes to smooth or balance.
    """
    weights = balanced_class_weights(targets, task.num_outputs) if config.balance == "loss" and task.classes else None
    if config.balance == "loss" and weights is None:
        raise ConfigError("train: targets that are numbers have no classes to balance; leave balance at 'none'.")
    supervised = supervised_objective(task, label_smoothing=config.label_smoothing, class_weights=weights)
    return Phase((supervised, *further), name=name)


def parameters_of(phase: Phase, network: Network, parameters: Mapping[str, nn.Parameter]) -> list[nn.Parameter] | None:
    """Return which of the parameters that train take a phase's step; ``None`` for all of them.

    Parameters
    ----------
    phase : Phase
        Names the parts.
    network : Network
        Has them.
    parameters : mapping of str to nn.Parameter
        All that train, by name; those of objectives begin with ``"objectives."``.

    Raises
    ------
    ConfigError
        If a part does not exist, or nothing in it trains.
    """
    starts = []
    for part in phase.trains:
        kind, _, name = part.partition(".")
        known = {"segments": network.names, "heads": tuple(network.heads)}.get(kind, ())
        if name and name not in known:
            raise ConfigError(
                f"Phase {phase.name!r}: the network has no {part!r}; its {kind} are {', '.join(known) or 'not named'}."
                + did_you_mean(name, known)
            )
        starts.append(f"segments.{network.names.index(name)}." if name and kind == "segments" else f"{part}.")
    chosen = [item for name, item in parameters.items() if name.startswith(tuple(starts))]
    if not chosen:
        raise ConfigError(f"Phase {phase.name!r}: trains {', '.join(phase.trains)}, where the plan lets nothing train.")
    return None if len(chosen) == len(parameters) else chosen
