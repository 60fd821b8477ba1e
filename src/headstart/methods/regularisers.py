"""Regularisers of fine-tuning by name: what keeps a network that learns from few rows near what it knew.

A name may carry the weight of the term, ``"bss:0.01"``; left out, it is the one its paper uses. The number of
``"stochastic-normalisation:0.3"`` is its probability.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from headstart.backbones import Backbone
from headstart.core.errors import ConfigError, did_you_mean
from headstart.objectives import BSS, DELTA, L2SP, BiTuning, CoTuning, LwF, Objective, StochasticNormalisation

__all__ = ["REGULARISERS", "needs_source_head", "read_regularisers", "source_head_of"]

REGULARISERS: dict[str, type[Objective]] = {
    "bi-tuning": BiTuning,
    "bss": BSS,
    "co-tuning": CoTuning,
    "delta": DELTA,
    "l2-sp": L2SP,
    "lwf": LwF,
    "stochastic-normalisation": StochasticNormalisation,
}
_SOURCE = "source"


def read_regularisers(values: Sequence[str | Objective]) -> tuple[Objective, ...]:
    """Return the objectives that names, or objectives themselves, stand for.

    A number after a colon is the term's weight; of stochastic normalisation, which is no term, its probability.

    Raises
    ------
    ConfigError
        If there is no such regulariser, or what follows the colon is no number it takes.

    Examples
    --------
    >>> read_regularisers(["bss:0.5"])[0].weight
    0.5
    >>> read_regularisers(["l2sp"])
    Traceback (most recent call last):
        ...
    headstart.core.errors.ConfigError: regularisers: there is no 'l2sp'; there are bi-tuning, bss, co-tuning, delta, l2-sp, lwf, \
stochastic-normalisation. Did you mean 'l2-sp'?
    """
    return tuple(value if isinstance(value, Objective) else _read(value) for value in values)


def _read(value: str) -> Objective:
    name, colon, weight = str(value).partition(":")
    if name not in REGULARISERS:
        raise ConfigError(
            f"regularisers: there is no {name!r}; there are {', '.join(REGULARISERS)}.{did_you_mean(name, REGULARISERS)}"
        )
    if not colon:
        return REGULARISERS[name]()
    argument = "probability" if name == "stochastic-normalisation" else "weight"
    try:
        number = float(weight)
    except ValueError as error:
        raise ConfigError(
            f"regularisers: what follows {name}: is the term's {argument}, a number; got {weight!r}."
        ) from error
    if not math.isfinite(number):
        raise ConfigError(f"regularisers: what follows {name}: is a finite number; got {weight!r}.")
    return REGULARISERS[name](**{argument: number})


def needs_source_head(objectives: Sequence[Objective]) -> bool:
    """Return whether a term looks at the answers of the source task's own head."""
    return any(getattr(item, "head", "") == _SOURCE or "base_logits" in item.needs for item in objectives)


def source_head_of(backbone: Backbone, objectives: Sequence[Objective]) -> nn.Linear | None:
    """Return the source task's own head where a term needs it, None where none does.

    Raises
    ------
    ConfigError
        If a term needs it and the base model came without one.
    """
    if not needs_source_head(objectives):
        return None
    if backbone.source_head is None:
        names = ", ".join(type(item).__name__ for item in objectives if needs_source_head([item]))
        raise ConfigError(
            f"FineTuning: {names} needs the base model's own classifier, and {backbone.name} came without one; "
            "leave the regulariser out, or choose a base model that has one."
        )
    return backbone.source_head
