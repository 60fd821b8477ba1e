"""Adapters: beside each frozen weight a few numbers learn a change of it, which is added in at the end.

    lora   W + (alpha / r) B A                                A (r, d) random, B (k, r) zero at the start
    dora   m (W + (alpha / r) B A) / |W + (alpha / r) B A|    m (k,): the length of each output's row, |W| at the start
    loha   W + (alpha / r) (B1 A1) * (B2 A2)                  * element by element: of rank r^2
    lokr   W + C x (alpha / r) B A                            x Kronecker's product, C (p, q), zero at the start
    ia3    l W                                                l (k,): a factor for each output, 1 at the start

Source: Hu et al., "LoRA: Low-rank adaptation of large language models", ICLR 2022 (arXiv:2106.09685); Liu et al., "DoRA:
Weight-decomposed low-rank adaptation", ICML 2024 (arXiv:2402.09353); Hyeon-Woo et al., "FedPara: Low-rank Hadamard product",
ICLR 2022 (arXiv:2108.06098); Yeh et al., "Navigating text-to-image customization: from LyCORIS fine-tuning to model evaluation",
ICLR 2024 (arXiv:2309.14859); Liu et al., "Few-shot parameter-efficient fine-tuning is better and cheaper than in-context
learning", NeurIPS 2022 (arXiv:2205.05638), which scales keys, values and the hidden layer alone where this scales every layer.
The layers are those of the library peft. For a convolution A has its kernel and B is 1x1; loha and lokr see a matrix of k rows.
Use them on large networks: what is trained, and what the optimiser remembers, is small, and the network cannot move far
(Biderman et al., "LoRA learns less and forgets less", TMLR 2024, arXiv:2405.09673). ia3 has the fewest numbers.
They ignore grouped and dilated convolutions, which hold few of a network's weights; dora ignores all but 1x1 convolutions, as the
library reads its kernels in an order of memory that networks of images do not train in.
Shapes: d inputs, k outputs, r rank.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from headstart.core.errors import ConfigError, MissingExtra
from headstart.training.network import Network
from headstart.training.plan import Plan
from headstart.training.strategies import Strategy, check_few_numbers, few_numbers_plan, last_stages

__all__ = [
    "Adapters",
    "HadamardAdapters",
    "KroneckerAdapters",
    "LowRankAdapters",
    "RescalingAdapters",
    "WeightDecomposedAdapters",
]


class Adapters(Strategy):
    """Train adapters beside every linear layer and plain convolution, and the head; a subclass says which adapters.

    When training ends the adapters are merged: the network that is saved has the same layers as before.
    """

    num_stages: int | None
    rate: float
    trains = "few"
    largest_kernel: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        check_few_numbers(self.name, self.num_stages, self.rate)

    @abstractmethod
    def make_config(self, peft: Any, targets: list[str]) -> Any:
        """Return the library's configuration of these adapters for layers of these names."""

    def describe(self) -> str:
        """Return what the adapters are, in words."""
        return f"adapters ({self.name})"

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
            import peft
        except ImportError as error:
            raise MissingExtra(type(self).__name__, "peft", "adapters") from error
        targets = self._targets(network)
        if not targets:
            raise ConfigError(
                f"strategy {self.name}: the base model has no linear layer or plain convolution to adapt; use full instead."
            )
        trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            peft.inject_adapter_in_model(self.make_config(peft, targets), network)
        for parameter in trainable:  # peft switches off all but its own; which train is the plan's to say
            parameter.requires_grad_(True)

    def _targets(self, network: Network) -> list[str]:
        """Return the names of the layers to adapt. Subclasses of linear and convolution layers may do more with their weight."""
        prefixes = tuple(f"segments.{stage}." for stage in last_stages(network, self.num_stages))
        every = [(name, part) for name, part in network.named_modules() if f"{name}.".startswith(prefixes)]
        return [name for name, part in every if _is_plain(part, self.largest_kernel)]

    def plan(self, network: Network, num_rows: int, *, solved: bool = False) -> Plan:
        own = tuple(f"{name}.{part}." for name, layer in _adapted(network) for part in layer.adapter_layer_names)
        names = tuple(name for name, _ in network.named_parameters() if name.startswith(own))
        return few_numbers_plan(network, names, self.rate, self.describe(), num_rows, solved=solved)

    def finish(self, network: Network) -> None:
        """Add what the adapters learnt to the weights, and take the adapters out."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        merged: dict[nn.Module, nn.Module] = {}
        with torch.no_grad():
            for parent in list(network.modules()):
                for name, part in list(parent.named_children()):
                    if not isinstance(part, BaseTunerLayer):
                        continue
                    if part not in merged:
                        part.merge()
                        merged[part] = part.get_base_layer()
                    setattr(parent, name, merged[part])


@dataclass(frozen=True)
class LowRankAdapters(Adapters):
    """LoRA: a product of two narrow matrices.

    Parameters
    ----------
    rank : int, at least 1
        Width r of the matrices.
    alpha : float
        Their product is multiplied by ``alpha / rank``.
    dropout : float in [0, 1)
        In training: of the adapters' input; of whole rows of their product for loha and lokr.
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
        super().__post_init__()
        if not isinstance(self.rank, int) or self.rank < 1:
            raise ConfigError(f"strategy {self.name}: rank is a whole number, at least 1; got {self.rank!r}.")
        if not 0 <= self.dropout < 1 or not self.alpha > 0:
            raise ConfigError(
                f"strategy {self.name}: dropout lies in [0, 1), alpha is above 0; got {self.dropout!r}, {self.alpha!r}."
            )

    def describe(self) -> str:
        """Return what the adapters are, in words."""
        return f"adapters ({self.name}) of rank {self.rank}"

    def make_config(self, peft: Any, targets: list[str]) -> Any:
        """Return the library's configuration of these adapters for layers of these names."""
        return self._low_rank(peft, targets)

    def _low_rank(self, peft: Any, targets: list[str], **options: Any) -> Any:
        return peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=targets,
            bias="none",
            **options,
        )


@dataclass(frozen=True)
class WeightDecomposedAdapters(LowRankAdapters):
    """DoRA: LoRA moves the direction of each output's row, and its length is learned apart. Takes what LoRA takes."""

    name: ClassVar[str] = "dora"
    largest_kernel: ClassVar[int | None] = 1

    def make_config(self, peft: Any, targets: list[str]) -> Any:
        """Return the library's configuration of these adapters for layers of these names."""
        return self._low_rank(peft, targets, use_dora=True)


@dataclass(frozen=True)
class HadamardAdapters(LowRankAdapters):
    """LoHa: two low-rank products multiplied element by element, twice LoRA's numbers for a square of its rank."""

    name: ClassVar[str] = "loha"

    def make_config(self, peft: Any, targets: list[str]) -> Any:
        """Return the library's configuration of these adapters for layers of these names."""
        return peft.LoHaConfig(r=self.rank, alpha=self.alpha, rank_dropout=self.dropout, target_modules=targets)


@dataclass(frozen=True)
class KroneckerAdapters(LowRankAdapters):
    """LoKr: Kronecker's product of a small matrix with a low-rank one, with the fewest numbers of those that have a rank."""

    name: ClassVar[str] = "lokr"

    def make_config(self, peft: Any, targets: list[str]) -> Any:
        """Return the library's configuration of these adapters for layers of these names."""
        return peft.LoKrConfig(r=self.rank, alpha=self.alpha, rank_dropout=self.dropout, target_modules=targets)


@dataclass(frozen=True)
class RescalingAdapters(Adapters):
    """IA3: a factor for each output of each layer.

    Parameters
    ----------
    num_stages : int, optional
        Only in so many of the last stages; in all when left out.
    rate : float
        Learning rate of the factors over that of a body trained in full.
    """

    num_stages: int | None = None
    rate: float = 10.0
    name: ClassVar[str] = "ia3"
    main_argument: ClassVar[str] = "num_stages"

    def make_config(self, peft: Any, targets: list[str]) -> Any:
        """Return the library's configuration of these adapters for layers of these names."""
        return peft.IA3Config(target_modules=targets, feedforward_modules=[])


def _adapted(network: Network) -> Iterator[tuple[str, Any]]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return ((name, part) for name, part in network.named_modules() if isinstance(part, BaseTunerLayer))


def _is_plain(part: Any, largest_kernel: int | None) -> bool:
    if type(part) is nn.Linear:
        return True
    if type(part) is not nn.Conv2d or part.groups != 1 or part.padding_mode != "zeros" or part.dilation != (1, 1):
        return False
    return largest_kernel is None or max(part.kernel_size) <= largest_kernel
