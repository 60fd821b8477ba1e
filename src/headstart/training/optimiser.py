"""One optimiser for all parameters, its groups and their rates over the training.

    rate(t) = learning_rate * group.rate * share(t)                t in [0, 1]: how much of the training is done, w: warm-up

    cosine      share = max(0.02, min(1, t / w) (1 + cos(pi t)) / 2)
    constant    share = max(0.02, min(1, t / w))
    one-cycle   from 1/25 to 1 along half a cosine while t < w, then to 1/250000 along the other half

Source: Loshchilov & Hutter, "SGDR" (arXiv:1608.03983) and "Decoupled Weight Decay Regularization" (arXiv:1711.05101); Smith &
Topin, "Super-Convergence" (arXiv:1708.07120), the rate alone.
Parameters that got no gradient in a phase are left alone, their state and their decay too: so one optimiser serves all phases.
It ignores how the groups came about; see `Plan`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headstart.core.errors import ConfigError
from headstart.training.config import Schedule, TrainingConfig
from headstart.training.plan import ParameterGroup, Plan

__all__ = ["GroupedOptimiser", "rate_share"]

_LEAST = 0.02
_FIRST, _LAST = 1 / 25, 1 / 25e4
_WARM_UP = {"cosine": 0.05, "constant": 0.05, "one-cycle": 0.3}


def rate_share(schedule: Schedule, done: float, warm_up: float | None = None) -> float:
    """Return the share of the peak learning rate when a share of the training is done.

    Parameters
    ----------
    schedule : {"cosine", "one-cycle", "constant"}
        See the formulas of this module.
    done : float
        0 at the first step, 1 at the end.
    warm_up : float in [0, 1), optional
        Share of the training in which the rate rises; 0.05, and 0.3 for one-cycle, when left out.

    Examples
    --------
    >>> [round(rate_share("cosine", done, 0.1), 3) for done in (0, 0.05, 0.5, 1)]
    [0.02, 0.497, 0.5, 0.02]
    >>> [round(rate_share("one-cycle", done), 3) for done in (0, 0.15, 0.3, 1)]
    [0.04, 0.52, 1.0, 0.0]
    """
    rising = _WARM_UP[schedule] if warm_up is None else warm_up
    done = min(1.0, done)
    if schedule == "one-cycle":
        if done < rising:
            return _between(_FIRST, 1.0, done / rising)
        return _between(1.0, _LAST, (done - rising) / (1 - rising))
    risen = min(1.0, done / rising) if rising else 1.0
    return max(_LEAST, risen * (_between(1.0, 0.0, done) if schedule == "cosine" else 1.0))


def _between(first: float, last: float, done: float) -> float:
    """Go from one value to another along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2


@dataclass
class _Group:
    """A parameter group: its factor, when it begins, and whether it has."""

    rate: float
    begins: float
    parameters: list[nn.Parameter]
    begun: bool = True


class GroupedOptimiser:
    """The optimiser of one run.

    Parameters
    ----------
    plan : Plan
        Groups of the network's parameters.
    parameters : mapping of str to nn.Parameter
        Those of the network that train, and those of objectives, which form a group of their own.
    config : TrainingConfig
        Which optimiser, rates and schedule.

    Raises
    ------
    ConfigError
        If there is nothing to train.
    """

    def __init__(self, plan: Plan, parameters: Mapping[str, nn.Parameter], config: TrainingConfig) -> None:
        self.config = config
        self.parameters = dict(parameters)
        planned = {name for group in plan.groups for name in group.names}
        own = ParameterGroup(tuple(name for name in parameters if name not in planned), plan.own_rate)
        self._groups: list[_Group] = []
        listed: list[dict[str, Any]] = []
        for group in (*plan.groups, own):
            chosen = [self.parameters[name] for name in group.names]
            for decayed in (True, False):
                part = [parameter for parameter in chosen if (parameter.ndim > 1) == decayed]
                if part:
                    self._groups.append(_Group(group.rate, group.begins, part))
                    listed.append({"params": part, "weight_decay": config.weight_decay if decayed else 0.0})
        if not listed:
            raise ConfigError("train: no parameter trains; let the plan name some, or use the network as it is.")
        self._fused = _can_fuse(self.parameters.values())
        self.torch = _build(listed, config, self._fused)

    def set_rate(self, done: float) -> bool:
        """Set every group's rate for the share of the training that is done.

        Returns
        -------
        bool
            Whether other parameters train now than before.
        """
        rate = self.config.learning_rate * self.share(done)
        changed = False
        for group, settings in zip(self._groups, self.torch.param_groups, strict=True):
            settings["lr"] = rate * group.rate
            begun = done >= group.begins
            if begun != group.begun:
                changed, group.begun = True, begun
                for parameter in group.parameters:
                    parameter.requires_grad_(begun)
        return changed

    def share(self, done: float) -> float:
        """Return the share of the peak rate; where weights are averaged at the end, it stays what it was when that began."""
        held = min(done, self.config.swa) if self.config.swa else done
        return rate_share(self.config.schedule, held, self.config.warm_up)

    def clear(self) -> None:
        """Forget all gradients."""
        self.torch.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Take a step with the parameters that have a gradient."""
        self.torch.step()

    def clip(self) -> Tensor | None:
        """Shorten the gradient to the configured length and return the length it had; ``None`` where nothing is cut."""
        if self.config.clip is None:
            return None
        gradients = [item.grad for item in self.parameters.values() if item.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if norm.device.type != "cpu" or float(norm) > self.config.clip:  # elsewhere looking would make the device wait
            factor = (self.config.clip / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(gradients, factor)
        return norm

    def state(self) -> dict[str, Tensor]:
        """Return the state of every parameter by ``"name/quantity"``."""
        return {
            f"{name}/{quantity}": value
            for name, parameter in self.parameters.items()
            for quantity, value in self.torch.state.get(parameter, {}).items()
            if value is not None
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the state back that `state` gave."""
        self.torch.state.clear()
        for key, value in tensors.items():
            name, _, quantity = key.rpartition("/")
            parameter = self.parameters[name]
            if quantity == "step":
                place = torch.empty_like(value, device=parameter.device if self._fused else "cpu")
            else:
                place = torch.empty_like(parameter, dtype=value.dtype)  # its layout in memory, too
            self.torch.state[parameter][quantity] = place.copy_(value)


def _build(groups: list[dict[str, Any]], config: TrainingConfig, fused: bool) -> torch.optim.Optimizer:
    settings: dict[str, Any] = {"lr": config.learning_rate, "fused": fused}
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.nesterov, **settings)
    kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
    return kind(groups, betas=config.betas, **settings)


def _can_fuse(parameters: Iterable[nn.Parameter]) -> bool:
    """Return whether torch has one kernel for the whole step."""
    return all(item.device.type in {"cpu", "cuda"} and item.is_floating_point() for item in parameters)
