"""Strategies: which parameters of a pretrained network train, from when, and how fast.

A strategy turns a `Network` (segments in order, and heads) into a `Plan`: groups of parameters, each with a multiplier of the
learning rate and the share of the training after which it begins. What is in no group never trains; frozen leading segments
are a prefix that the loop may run once a row. The learning rate of a run is that of the pretrained body; a fresh head learns
`FRESH_HEAD` times as fast, a solved head, which is right already, at the body's rate.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

from torch.nn.modules.batchnorm import _NormBase

from headstart.core.errors import ConfigError, did_you_mean
from headstart.training.network import Network
from headstart.training.plan import ParameterGroup, Plan

__all__ = [
    "FRESH_HEAD",
    "FullFineTuning",
    "GradualUnfreezing",
    "HeadOnly",
    "LastStages",
    "LayerwiseDecay",
    "LinearProbeThenFineTune",
    "Strategy",
    "check_few_numbers",
    "check_stages",
    "few_numbers_plan",
    "head_group",
    "last_stages",
    "named_stages",
    "read_strategy",
    "without_batch_norm",
]

FRESH_HEAD = 10.0


@dataclass(frozen=True)
class Strategy(ABC):
    """Which parameters train, and how. The constructor is the configuration.

    A strategy may rewrite the network before training (`prepare`) and must then undo that (`finish`), so that the network
    that is saved is an ordinary one.

    Attributes
    ----------
    name : str
        As users write it.
    trains : str
        How much of the base model moves: ``"nothing"``, a ``"part"`` of its stages, a ``"few"`` numbers that cannot move far, or
        ``"all"``. Rates, epochs and regularisers follow from it.
    main_argument : str
        What the number after a colon sets; nothing where it is empty.
    """

    name: ClassVar[str]
    trains: ClassVar[Literal["nothing", "part", "few", "all"]] = "all"
    kinds: ClassVar[dict[str, type[Strategy]]] = {}
    main_argument: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" in cls.__dict__:  # a family of strategies has none
            Strategy.kinds[cls.name] = cls

    def prepare(self, network: Network, seed: int = 0) -> None:  # noqa: B027 - most have nothing to do
        """Change the network before its plan is made; most strategies leave it as it is."""

    @abstractmethod
    def plan(self, network: Network, num_rows: int, *, solved: bool = False) -> Plan:
        """Return which parameters train.

        Parameters
        ----------
        network : Network
            After `prepare`.
        num_rows : int
            Number of training rows, for the words of the reason.
        solved : bool
            Whether the head starts as a solution on the frozen features, and not at random.
        """

    def finish(self, network: Network) -> None:  # noqa: B027
        """Undo what `prepare` changed and keep what was learnt."""

    def config(self) -> dict[str, Any]:
        """Return a JSON value that `read_strategy` reads back.

        Examples
        --------
        >>> LastStages(2).config()
        {'name': 'last-stages', 'num_stages': 2}
        """
        arguments = {item.name: getattr(self, item.name) for item in fields(self)}
        return {"name": self.name} | {
            key: value.config() if isinstance(value, Strategy) else value for key, value in arguments.items()
        }


def read_strategy(value: str | dict[str, Any] | Strategy) -> Strategy:
    """Return the strategy that a name, a name with a number, or a configuration stands for.

    Parameters
    ----------
    value : str, dict or Strategy
        ``"last-stages"``, ``"last-stages:2"`` (the number is the first thing one would set), or what `Strategy.config` wrote.

    Raises
    ------
    ConfigError
        If there is no such strategy, or an argument breaks its rule.

    Examples
    --------
    >>> read_strategy("layerwise-decay:0.6")
    LayerwiseDecay(decay=0.6, num_stages=None)
    >>> read_strategy("last-stage")
    Traceback (most recent call last):
        ...
    headstart.core.errors.ConfigError: strategy: there is no 'last-stage'; there are dora, full, gradual-unfreezing, head-only, \
ia3, last-stages, layerwise-decay, loha, lokr, lora, lp-ft, norms. Did you mean 'last-stages'?
    """
    if isinstance(value, Strategy):
        return value
    arguments: dict[str, Any] = dict(value) if isinstance(value, dict) else {}
    name, _, number = str(arguments.pop("name", value) if isinstance(value, dict) else value).partition(":")
    import headstart.training.adapters
    import headstart.training.norms  # noqa: F401 - both add their strategies to the table

    if name not in Strategy.kinds:
        known = sorted(Strategy.kinds)
        raise ConfigError(f"strategy: there is no {name!r}; there are {', '.join(known)}.{did_you_mean(name, known)}")
    kind = Strategy.kinds[name]
    if number:
        arguments[_main(kind)] = _number(name, number)
    known = list(inspect.signature(kind).parameters)
    for key in arguments:
        if key not in known:
            raise ConfigError(
                f"strategy {name}: has no {key!r}; it has {', '.join(known) or 'nothing to set'}.{did_you_mean(key, known)}"
            )
    if "then" in arguments:
        arguments["then"] = read_strategy(arguments["then"])
    return kind(**arguments)


def _main(kind: type[Strategy]) -> str:
    if not kind.main_argument:
        raise ConfigError(f"strategy {kind.name}: takes no number; write {kind.name!r} alone.")
    return kind.main_argument


def _number(name: str, text: str) -> float | int:
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError as error:
        raise ConfigError(f"strategy {name}: what follows the colon is a number; got {text!r}.") from error


@dataclass(frozen=True)
class HeadOnly(Strategy):
    """Train the head; the whole body is frozen, its features are computed once.

    Use it with so few rows that the body could only learn them by heart, or to train a head in words on rows that are features.
    """

    name: ClassVar[str] = "head-only"
    trains = "nothing"

    def plan(self, network: Network, num_rows: int, *, solved: bool = False) -> Plan:
        return Plan(
            groups=(head_group(network, solved),),
            num_frozen=len(network.segments),
            reason=f"the head alone trains on {num_rows:,} rows; the body is frozen",
        )


@dataclass(frozen=True)
class LastStages(Strategy):
    """Train the last stages and the head; what lies before is a frozen prefix.

    The first layers of a network are general, the last ones belong to the source task (Yosinski et al., "How transferable are
    features in deep neural networks?", NeurIPS 2014, arXiv:1411.1792), so these have most to learn and cost least.

    Parameters
    ----------
    num_stages : int, at least 1
        Counted from the end, stages without parameters (a last pooling) not counted.
    """

    num_stages: int = 1
    name: ClassVar[str] = "last-stages"
    trains = "part"
    main_argument: ClassVar[str] = "num_stages"

    def __post_init__(self) -> None:
        check_stages(self.name, self.num_stages)

    def plan(self, network: Network, num_rows: int, *, solved: bool = False) -> Plan:
        stages = last_stages(network, self.num_stages)
        groups = (_stage_group(network, stages), head_group(network, solved))
        return Plan(groups, stages[0], f"{named_stages(network, stages)} and the head train on {num_rows:,} rows")


@dataclass(frozen=True)
class FullFineTuning(Strategy):
    """Train everything at one rate; a fresh head faster."""

    name: ClassVar[str] = "full"

    def plan(self, network: Network, num_rows: int, *, solved: bool = False) -> Plan:
        stages = last_stages(network, None)
        groups = (_stage_group(network, stages), head_group(network, solved))
        return Plan(groups, stages[0], f"every parameter trains on {num_rows:,} rows")


@dataclass(frozen=True)
class LayerwiseDecay(Strategy):
    """Train everything, each stage slower than the one after it.

        rate of stage i = decay^(number of stages after i)

    Source: Howard & Ruder, "Universal language model fine-tuning for text classification" (ULMFiT), ACL 2018
    (arXiv:1801.06146), section 3.2 ("discriminative fine-tuning"; 1/2.6 for each of four groups); for transformers' many layers
    0.65 to 0.9 is usual (Clark et al., "ELECTRA", ICLR 2020).

    Parameters
    ----------
    decay : float in (0, 1]
        Rate of a stage over the rate of the next.
    num_stages : int, optional
        Train only so many of the last stages; all when left out.
    """

    decay: float = 0.75
    num_stages: int | None = None
    name: ClassVar[str] = "layerwise-decay"
    main_argument: ClassVar[str] = "decay"

    def __post_init__(self) -> None:
        _check_share(self.name, "decay", self.decay)
        check_stages(self.name, self.num_stages)

    def plan(self, network: Network, num_rows: int, *, solved: bool = False) -> Plan:
        stages = last_stages(network, self.num_stages)
        groups = [
            _stage_group(network, [stage], rate=self.decay**after) for after, stage in enumerate(reversed(stages))
        ]
        lowest = self.decay ** (len(stages) - 1)
        return Plan(
            (*reversed(groups), head_group(network, solved)),
            stages[0],
            f"{named_stages(network, stages)} and the head train on {num_rows:,} rows, each stage at {self.decay:g} of the rate "
            f"of the next: the first at {lowest:.2g}",
        )


@dataclass(frozen=True)
class GradualUnfreezing(Strategy):
    """Train the head first, then one stage more at a time, from the last to the first.

    Source: Howard & Ruder, "Universal language model fine-tuning for text classification" (ULMFiT), ACL 2018
    (arXiv:1801.06146), section 3.3: a body that trains while the head is still random forgets what it knew.

    Parameters
    ----------
    num_stages : int, optional
        Stages that train in the end; all when left out.
    complete : float in (0, 1]
        Share of the training after which all of them train.
    decay : float in (0, 1]
        Rate of a stage over the rate of the next.
    """

    num_stages: int | None = None
    complete: float = 0.5
    decay: float = 1.0
    name: ClassVar[str] = "gradual-unfreezing"
    trains = "part"
    main_argument: ClassVar[str] = "num_stages"

    def __post_init__(self) -> None:
        check_stages(self.name, self.num_stages)
        _check_share(self.name, "complete", self.complete)
        _check_share(self.name, "decay", self.decay)

    def plan(self, network: Network, num_rows: int, *, solved: bool = False) -> Plan:
        stages = last_stages(network, self.num_stages)
        groups = [
            _stage_group(
                network, [stage], rate=self.decay**after, begins=self.complete * (after + 1) / (len(stages) + 1)
            )
            for after, stage in enumerate(reversed(stages))
        ]
        return Plan(
            (*reversed(groups), head_group(network, solved)),
            stages[0],
            f"the head trains first, then one stage more at a time, until {named_stages(network, stages)} train after "
            f"{100 * self.complete * len(stages) / (len(stages) + 1):.0f} % of the training on {num_rows:,} rows",
        )


@dataclass(frozen=True)
class LinearProbeThenFineTune(Strategy):
    """LP-FT: first the head on frozen features, then head and body together.

    Source: Kumar et al., "Fine-tuning can distort pretrained features and underperform out-of-distribution", ICLR 2022
    (arXiv:2202.10054): a random head's first gradients bend features that were good; a head that is right at the start leaves
    them. A solved head *is* the linear probe, carried to its end; only a fresh head needs the first part here.

    Parameters
    ----------
    then : Strategy
        How the body trains, after the probe.
    probe : float in (0, 1)
        Share of the training in which a fresh head trains alone; a solved head needs none.
    """

    then: Strategy = FullFineTuning()
    probe: float = 0.3
    name: ClassVar[str] = "lp-ft"
    main_argument: ClassVar[str] = "probe"

    def __post_init__(self) -> None:
        if not 0 < self.probe < 1:
            raise ConfigError(f"strategy {self.name}: probe lies between 0 and 1; got {self.probe!r}.")
        if isinstance(self.then, LinearProbeThenFineTune):
            raise ConfigError(f"strategy {self.name}: cannot be followed by itself; give another one as `then`.")

    def prepare(self, network: Network, seed: int = 0) -> None:
        self.then.prepare(network, seed)

    def finish(self, network: Network) -> None:
        self.then.finish(network)

    def plan(self, network: Network, num_rows: int, *, solved: bool = False) -> Plan:
        after = self.then.plan(network, num_rows, solved=solved)
        if solved:
            return replace(after, reason=f"from the solved head, {after.reason}")
        head = {name for name, _ in _head_parameters(network)}
        groups = tuple(
            group
            if set(group.names) <= head
            else ParameterGroup(group.names, group.rate, self.probe + (1 - self.probe) * group.begins)
            for group in after.groups
        )
        reason = f"the head alone trains for {100 * self.probe:.0f} % of the training, then {after.reason}"
        return replace(after, groups=groups, reason=reason)


def without_batch_norm(plan: Plan, network: Network) -> Plan:
    """Return the plan without the body's batch-normalisation layers: they keep the base model's statistics and scales.

    Where they are what is to learn (`headstart.training.norms`), they keep their statistics alone.

    Statistics of a batch of 8 or 32 rows are noise, and running ones taken from few rows forget the source data; in evaluation
    mode the layers are a fixed scaling that training and prediction share.
    """
    if plan.norms_learn:
        return replace(plan, rest_statistics=True)
    resting = {
        f"{path}.{name}"
        for path, part in network.named_modules()
        if isinstance(part, _NormBase) and path.startswith("segments.")
        for name, _ in part.named_parameters(recurse=False)
    }
    kept = (
        ParameterGroup(tuple(name for name in group.names if name not in resting), group.rate, group.begins)
        for group in plan.groups
    )
    return replace(plan, groups=tuple(group for group in kept if group.names))


def check_stages(name: str, num_stages: int | None) -> None:
    """Refuse a number of stages that is none."""
    if num_stages is not None and (not isinstance(num_stages, int) or num_stages < 1):
        raise ConfigError(f"strategy {name}: num_stages is a whole number, at least 1; got {num_stages!r}.")


def check_few_numbers(name: str, num_stages: int | None, rate: float) -> None:
    """Refuse options of a strategy that trains few numbers in some stages, at a rate of their own."""
    check_stages(name, num_stages)
    if not rate > 0:
        raise ConfigError(f"strategy {name}: rate is above 0; got {rate!r}.")


def few_numbers_plan(
    network: Network, names: tuple[str, ...], rate: float, what: str, num_rows: int, *, solved: bool
) -> Plan:
    """Return the plan that trains a few named parameters of the body, and the head; ``what`` names them in the reason."""
    first = min(int(name.split(".")[1]) for name in names)
    stages = [stage for stage in last_stages(network, None) if stage >= first]
    count = sum(network.get_parameter(name).numel() for name in names)
    return Plan(
        (ParameterGroup(names, rate), head_group(network, solved)),
        first,
        f"{what} in {named_stages(network, stages)} ({count:,} numbers) and the head train on {num_rows:,} rows; "
        "every other weight is frozen",
    )


def _check_share(name: str, what: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ConfigError(f"strategy {name}: {what} lies above 0 and is at most 1; got {value!r}.")


def last_stages(network: Network, num_stages: int | None) -> list[int]:
    """Return the last segments that hold parameters, in order: all of them for None.

    Raises
    ------
    ConfigError
        If the body has no parameters, or fewer such stages.
    """
    holding = [i for i, segment in enumerate(network.segments) if next(segment.parameters(), None) is not None]
    if not holding:
        raise ConfigError("strategy: the base model has no parameters to train (its rows are features); use head-only.")
    if num_stages is not None and num_stages > len(holding):
        raise ConfigError(
            f"strategy: the base model has {len(holding)} stages with parameters; num_stages {num_stages} is too many."
        )
    return holding if num_stages is None else holding[-num_stages:]


def _stage_group(network: Network, stages: list[int], rate: float = 1.0, begins: float = 0.0) -> ParameterGroup:
    prefixes = tuple(f"segments.{stage}." for stage in stages)
    names = tuple(name for name, _ in network.named_parameters() if name.startswith(prefixes))
    return ParameterGroup(names, rate, begins)


def _head_parameters(network: Network) -> list[tuple[str, Any]]:
    return [item for item in network.named_parameters() if item[0].startswith("heads.")]


def head_group(network: Network, solved: bool) -> ParameterGroup:
    """Return the parameters of all heads as one group."""
    return ParameterGroup(tuple(name for name, _ in _head_parameters(network)), 1.0 if solved else FRESH_HEAD)


def named_stages(network: Network, stages: list[int]) -> str:
    """Return the names of some segments in words."""
    names = [network.names[stage] for stage in stages]
    every = sum(next(segment.parameters(), None) is not None for segment in network.segments)
    if len(names) == every:
        return f"all {every} stages" if every > 1 else "the whole body"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
