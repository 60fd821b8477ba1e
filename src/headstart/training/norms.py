"""Normalisation layers alone: scale and shift of every one of them train, and the head; every other weight is frozen.

    output = scale (x - mean) / deviation + shift      mean, deviation: of the batch, the row, or kept ones

Source: Frankle, Schwab & Morcos, "Training BatchNorm and only BatchNorm", ICLR 2021 (arXiv:2003.00152); as adaptation of one
network to several domains Rebuffi, Bilen & Vedaldi, "Learning multiple visual domains with residual adapters", NeurIPS 2017
(arXiv:1705.08045), section 3.2. Use it with few rows, or where each domain is to keep a small file: a thousandth of a network's
numbers train. Kept statistics of batch normalisation stay the base model's unless batch normalisation is asked to train as well
(``batch_norm="train"``). It ignores networks without such layers (VGG), which are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from headstart.core.errors import ConfigError
from headstart.training.network import Network
from headstart.training.plan import Plan
from headstart.training.strategies import Strategy, check_few_numbers, few_numbers_plan, last_stages

__all__ = ["NormsOnly", "norm_parameters"]

_KINDS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def norm_parameters(network: Network, stages: list[int]) -> tuple[str, ...]:
    """Return names of scale and shift of the normalisation layers in some segments.

    Examples
    --------
    >>> network = Network({"body": nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))}, {"main": nn.Linear(3, 1)})
    >>> norm_parameters(network, [0])
    ('segments.0.1.weight', 'segments.0.1.bias')
    """
    prefixes = tuple(f"segments.{stage}." for stage in stages)
    return tuple(
        f"{path}.{name}"
        for path, part in network.named_modules()
        if isinstance(part, _KINDS) and f"{path}.".startswith(prefixes)
        for name, _ in part.named_parameters(recurse=False)
    )


@dataclass(frozen=True)
class NormsOnly(Strategy):
    """Train scale and shift of the normalisation layers, and the head.

    Parameters
    ----------
    num_stages : int, optional
        Only in so many of the last stages; in all when left out.
    rate : float
        Learning rate of scales and shifts over that of a body trained in full; they are few and bear more.
    """

    num_stages: int | None = None
    rate: float = 10.0
    name: ClassVar[str] = "norms"
    trains = "few"
    main_argument: ClassVar[str] = "num_stages"

    def __post_init__(self) -> None:
        check_few_numbers(self.name, self.num_stages, self.rate)

    def plan(self, network: Network, num_rows: int, *, solved: bool = False) -> Plan:
        names = norm_parameters(network, last_stages(network, self.num_stages))
        if not names:
            raise ConfigError(
                f"strategy {self.name}: these stages have no normalisation layer with scale and shift; use last-stages or lora."
            )
        plan = few_numbers_plan(network, names, self.rate, "normalisation layers", num_rows, solved=solved)
        return replace(plan, norms_learn=True)
