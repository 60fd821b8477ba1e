"""What a method of deep domain adaptation decides: the phases of a step, the heads they need, and whether source rows are there.

    joint(loss, terms):   one phase,  loss(source) + sum_k weight_k * term_k(source, target)

A method is a function ``recipe(loss, **options) -> AdaptationRecipe``: ``loss("main")`` is the task's own loss on labelled rows
for the head of that name. Adding one touches one file in this folder and one catalog line; a method that is a sum of objectives
needs no file at all.
It ignores which rows, which network and which rates: those are the user's, and the same for every method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from headstart.core.errors import ConfigError
from headstart.objectives import Objective
from headstart.training import Phase

__all__ = ["AdaptationRecipe", "LossOf", "RecipeOf", "joint", "source_only"]

LossOf = Callable[[str], Objective]


@dataclass(frozen=True)
class AdaptationRecipe:
    """How a network learns for a target.

    Parameters
    ----------
    phases : tuple of Phase
        Of one step, in order.
    heads : tuple of str
        Heads of the network, ``"main"`` first. All have the same shape; the others start apart from it.
    needs_source : bool
        Whether labelled source rows are looked at during adaptation. Without them the network learns from them first, and
        then from target rows alone.
    starts_trained : bool
        Whether the network learns from source rows alone first, as without adaptation, and adapts from there. It always does
        where ``needs_source`` is false.
    settings : mapping
        Fields of `TrainingConfig` that belong to the method: ``{"ema": 0.99}``, ``{"balance": "domains"}``.
    own_rate : float
        Multiplies the learning rate of what objectives bring themselves.
    unknown_above : float in (0, 1), optional
        The model answers "unknown" where the entropy of its probabilities is above this share of the largest.

    Raises
    ------
    ConfigError
        If there is no phase or no head ``"main"``, a phase looks at source rows that are not there, or a share is none.
    """

    phases: tuple[Phase, ...]
    heads: tuple[str, ...] = ("main",)
    needs_source: bool = True
    starts_trained: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    own_rate: float = 1.0
    unknown_above: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "phases", tuple(self.phases))
        object.__setattr__(self, "heads", tuple(self.heads))
        if not self.phases or not self.heads or self.heads[0] != "main" or len(set(self.heads)) != len(self.heads):
            raise ConfigError(
                f"AdaptationRecipe: needs at least one phase, and heads without doubles of which the first is 'main'; got "
                f"{len(self.phases)} phases and heads {list(self.heads)}."
            )
        if self.unknown_above is not None and not 0 < self.unknown_above < 1:
            raise ConfigError(f"AdaptationRecipe: unknown_above lies in (0, 1); got {self.unknown_above}.")
        if not self.needs_source and (seen := [item.name for item in self.phases if "source" in item.streams]):
            raise ConfigError(
                f"AdaptationRecipe: source rows are not there, but phase {seen[0]!r} looks at them; its streams are ('target',)."
            )

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Every term of every phase, once."""
        return tuple(dict.fromkeys(term for phase in self.phases for term in phase.objectives))

    @property
    def unknown_layer(self) -> nn.Linear | None:
        """What scores rows of no source class beside the head ``"main"``, once trained; None where no term learns it."""
        return next((found for term in self.objectives if (found := term.unknown_layer()) is not None), None)


RecipeOf = Callable[[LossOf], AdaptationRecipe]


def joint(loss: LossOf, terms: Sequence[Objective]) -> AdaptationRecipe:
    """Return the recipe of one phase: the task's loss on source rows and further terms, over everything at once.

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    terms : sequence of Objective
        What is added; none at all trains on source rows alone.

    Examples
    --------
    >>> from headstart.objectives import ClassifierDiscrepancy, CrossEntropy
    >>> joint(lambda head: CrossEntropy(head=head), []).heads
    ('main',)
    >>> joint(lambda head: CrossEntropy(head=head), [ClassifierDiscrepancy()]).heads
    ('main', 'second')
    """
    named = {getattr(term, name, "main") for term in terms for name in ("head", "first", "second")}
    others = sorted(name for name in named if isinstance(name, str) and name not in {"main", "source"})
    losses = [loss(head) for head in ("main", *others)]
    streams = ("source", "target") if terms else ("source",)  # target rows would move the statistics of BatchNorm
    return AdaptationRecipe((Phase((*losses, *terms), streams=streams),), ("main", *others))


def source_only(loss: LossOf) -> AdaptationRecipe:
    """Return the recipe that adapts nothing: what every other has to beat.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> len(source_only(lambda head: CrossEntropy(head=head)).objectives)
    1
    """
    return joint(loss, [])
