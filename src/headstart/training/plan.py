"""Which parameters train, how fast each, and from when on: what a strategy decides and the loop carries out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from headstart.core.errors import ConfigError
from headstart.training.network import Network

__all__ = ["ParameterGroup", "Plan", "whole_plan"]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that train alike.

    Parameters
    ----------
    names : tuple of str
        As `Network.named_parameters` has them.
    rate : float
        Multiplies the learning rate; more than 0.
    begins : float in [0, 1)
        Share of the training after which they begin to train; until then they rest, in evaluation mode.

    Raises
    ------
    ConfigError
        If the rate is not positive, or the group never begins.
    """

    names: tuple[str, ...]
    rate: float = 1.0
    begins: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        if not self.rate > 0 or not 0 <= self.begins < 1:
            raise ConfigError(
                f"ParameterGroup: rate is positive and begins lies in [0, 1); got {self.rate} and {self.begins}."
            )


@dataclass(frozen=True)
class Plan:
    """What trains; parameters in no group never do.

    Parameters
    ----------
    groups : tuple of ParameterGroup
        No parameter in two of them.
    num_frozen : int
        Leading segments that never train.
    reason : str
        Why, for the log and the report.
    own_rate : float
        Multiplies the learning rate of what objectives bring themselves (critics, projections); more than 0.
    norms_learn : bool
        Whether the body's normalisation layers are what is to learn, and not to be left out where few rows train them.
    rest_statistics : bool
        Whether batch normalisation in the body keeps its statistics though its scale and shift train.

    Raises
    ------
    ConfigError
        If a parameter is in two groups, or ``own_rate`` is not positive.
    """

    groups: tuple[ParameterGroup, ...]
    num_frozen: int = 0
    reason: str = ""
    own_rate: float = 1.0
    norms_learn: bool = False
    rest_statistics: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        names = [name for group in self.groups for name in group.names]
        if len(names) != len(set(names)):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"Plan: a parameter trains in one group; {twice!r} is in two.")
        if not self.own_rate > 0:
            raise ConfigError(f"Plan: own_rate is positive; got {self.own_rate}.")

    def carry_out(self, network: Network) -> dict[str, nn.Parameter]:
        """Freeze what does not train, and return the parameters that do, by name.

        Raises
        ------
        ConfigError
            If a name is not one of the network's, or lies in a frozen segment.
        """
        known = dict(network.named_parameters())
        inside = tuple(f"segments.{index}." for index in range(self.num_frozen))
        for name in (name for group in self.groups for name in group.names):
            if name not in known:
                raise ConfigError(f"Plan: the network has no parameter {name!r}; it has {len(known)}.")
            if inside and name.startswith(inside):
                raise ConfigError(
                    f"Plan: {name!r} lies in one of the {self.num_frozen} frozen segments and cannot train."
                )
        chosen = {name for group in self.groups for name in group.names}
        network.rest_statistics = self.rest_statistics
        network.freeze(self.num_frozen, (name for name in known if name not in chosen))
        return {name: parameter for name, parameter in known.items() if name in chosen}

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value: for every group how many parameters, how fast and from when on; what is frozen; the reason."""
        groups = [{"parameters": len(group.names), "rate": group.rate, "begins": group.begins} for group in self.groups]
        plain: dict[str, Any] = {"groups": groups, "num_frozen": self.num_frozen, "reason": self.reason}
        if self.rest_statistics:
            plain["rest_statistics"] = True
        return plain if self.own_rate == 1 else plain | {"own_rate": self.own_rate}


def whole_plan(network: Network) -> Plan:
    """Return the plan that trains everything outside the network's frozen segments."""
    inside = tuple(f"segments.{index}." for index in range(network.num_frozen))
    names = tuple(name for name, _ in network.named_parameters() if not (inside and name.startswith(inside)))
    return Plan((ParameterGroup(names),), network.num_frozen, "everything trains")
