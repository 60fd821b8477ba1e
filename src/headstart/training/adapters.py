"""Low-rank adapters (LoRA): beside each frozen weight a product of two narrow matrices learns, and is added in at the end.

    output = W x + (alpha / r) B A x          A (r, d) random, B (k, r) zero at the start;   at the end  W <- W + (alpha / r) B A

Source: Hu et al., "LoRA: Low-rank adaptation of large language models", ICLR 2022 (arXiv:2106.09685); for a convolution A has
its kernel and B is 1x1. The layers are those of the library peft. Use it on large networks: what is trained, and what the
optimiser remembers, is small, and the network cannot move far (Biderman et al., "LoRA learns less and forgets less",
TMLR 2024, arXiv:2405.09673). It ignores grouped and dilated convolutions, which hold few of a network's weights.
Shapes: d inputs, k outputs, r rank.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from headstart.core.errors import ConfigError, MissingExtra
from headstart.training.network import Network
from headstart.training.plan import ParameterGroup, Plan
from headstart.training.strategies import Strategy, check_stages, head_group, last_stages, named_stages

__all__ = ["LowRankAdapters"]

_MARK = ".lora_"


@dataclass(frozen=True)
class LowRankAdapters(Strategy):
    """Train low-rank adapters beside every linear layer and plain convolution, and the head.

    When training ends the adapters are merged: the network that is saved has the same layers as before.

    Parameters
    ----------
    rank : int, at least 1
        Width r of the two matrices.
    alpha : float
        Their product is multiplied by ``alpha / rank``.
    dropout : float in [0, 1)
        Of the adapters' input, in training.
    num_stages : int, optional
        Only in so many of the last stages; in all when left out.
    rate : float
        Learning rate of the adapters over that of a body trained in full; they start at nothing and bear more.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    num_stages: int | None = None
    rate: float = 10.0
    name: ClassVar[str] = "lora"
    main_argument: ClassVar[str] = "rank"

    def __post_init__(self) -> None:
        check_stages(self.name, self.num_stages)
        if not isinstance(self.rank, int) or self.rank < 1:
            raise ConfigError(f"strategy {self.name}: rank is a whole number, at least 1; got {self.rank!r}.")
        if not 0 <= self.dropout < 1 or not self.alpha > 0 or not self.rate > 0:
            raise ConfigError(
                f"strategy {self.name}: dropout lies in [0, 1), alpha and rate are above 0; "
                f"got {self.dropout!r}, {self.alpha!r}, {self.rate!r}."
            )

    def prepare(self, network: Network, seed: int = 0) -> None:
        """Put adapters beside the layers; at first they change nothing.

        Raises
        ------
        MissingExtra
            If peft is not installed.
        ConfigError
            If the network has no layer that can be adapted.
        """
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise MissingExtra("LowRankAdapters", "peft", "adapters") from error
        targets = self._targets(network)
        if not targets:
            raise ConfigError(
                f"strategy {self.name}: the base model has no linear layer or plain convolution to adapt; use full instead."
            )
        trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=targets,
            bias="none",
        )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            inject_adapter_in_model(config, network)
        for parameter in trainable:  # peft switches off all but its own; which train is the plan's to say
            parameter.requires_grad_(True)

    def _targets(self, network: Network) -> list[str]:
        """Return the names of the layers to adapt. Subclasses of linear and convolution layers may do more with their weight."""
        prefixes = tuple(f"segments.{stage}." for stage in last_stages(network, self.num_stages))
        return [name for name, part in network.named_modules() if f"{name}.".startswith(prefixes) and _is_plain(part)]

    def plan(self, network: Network, num_rows: int, *, solved: bool = False) -> Plan:
        names = tuple(name for name, _ in network.named_parameters() if _MARK in name)
        first = min(int(name.split(".")[1]) for name in names)
        stages = [stage for stage in last_stages(network, None) if stage >= first]
        count = sum(parameter.numel() for name, parameter in network.named_parameters() if _MARK in name)
        return Plan(
            (ParameterGroup(names, self.rate), head_group(network, solved)),
            first,
            f"adapters of rank {self.rank} in {named_stages(network, stages)} ({count:,} numbers) and the head train on "
            f"{num_rows:,} rows; every other weight is frozen",
        )

    def finish(self, network: Network) -> None:
        """Add what the adapters learnt to the weights, and take the adapters out."""
        from peft.tuners.lora import LoraLayer

        adapted: dict[nn.Module, nn.Module] = {}
        with torch.no_grad():
            for parent in list(network.modules()):
                for name, part in list(parent.named_children()):
                    if not isinstance(part, LoraLayer):
                        continue
                    if part not in adapted:
                        part.merge()
                        adapted[part] = part.get_base_layer()
                    setattr(parent, name, adapted[part])


def _is_plain(part: Any) -> bool:
    if type(part) is nn.Linear:
        return True
    plain_convolution = type(part) is nn.Conv2d and part.groups == 1 and part.padding_mode == "zeros"
    return plain_convolution and part.dilation == (1, 1)
