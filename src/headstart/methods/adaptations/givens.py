"""What a network can give objectives, asked before anything trains.

    its segments by name          those that are run in training: what is frozen before them is run once and not seen again
    the base model's classifier   for terms that look at its answers
    batch normalisation           that learns, for what changes how it does
    numbers at the entrance       to change in some direction; the numbers of tokens have none

Use `check_given` where a recipe and the network it is for are both known; `Given.of` asks a network.
It ignores what only rows can tell (labels, domains), which objectives and commands say themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from headstart.core.errors import ConfigError, did_you_mean
from headstart.methods.adaptations.recipe import AdaptationRecipe
from headstart.methods.regularisers import needs_source_head
from headstart.objectives import MixStyle, Objective, StochasticNormalisation
from headstart.training import Network, Plan

__all__ = ["Given", "check_given", "classifier_of"]

_SEGMENT = "segments."


@dataclass(frozen=True)
class Given:
    """What a network gives the terms of a recipe.

    Parameters
    ----------
    network : str
        What it is called.
    segments : tuple of str
        Names of the segments that are run in training, in order.
    frozen : tuple of str
        Names of those before them.
    source_head : nn.Module, optional
        The base model's own classifier, where it has one.
    has_norms : bool
        Whether a batch normalisation learns.
    reads_tokens : bool
        Whether what enters the first of the segments are numbers of tokens.
    """

    network: str
    segments: tuple[str, ...]
    frozen: tuple[str, ...] = ()
    source_head: nn.Module | None = None
    has_norms: bool = False
    reads_tokens: bool = False

    @classmethod
    def of(
        cls,
        name: str,
        network: Network,
        plan: Plan,
        source_head: nn.Module | None = None,
        *,
        reads_tokens: bool = False,
    ) -> Given:
        """Return what a network gives under a plan.

        Parameters
        ----------
        name : str
            What the network is called.
        network : Network
            Asked for its segments and layers.
        plan : Plan
            Which of its parameters train.
        source_head : nn.Module, optional
            The base model's own classifier.
        reads_tokens : bool
            Whether rows are numbers of tokens.

        Examples
        --------
        >>> from headstart.training import ParameterGroup
        >>> body = {"first": nn.Linear(2, 3), "features": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))}
        >>> network = Network(body, {"main": nn.Linear(4, 2)})
        >>> plan = Plan((ParameterGroup(("segments.1.0.weight", "heads.main.weight")),), num_frozen=1)
        >>> given = Given.of("a small network", network, plan)
        >>> given.segments, given.frozen, given.has_norms
        (('features',), ('first',), False)
        """
        first = plan.num_frozen
        trained = {parameter for group in plan.groups for parameter in group.names}
        norms = [
            (path, dict(part.named_parameters(recurse=False)))
            for number, segment in enumerate(network.segments)
            if number >= first
            for path, part in segment.named_modules(prefix=f"segments.{number}")
            if isinstance(part, _NormBase) and part.running_mean is not None
        ]
        learns = any(not own or any(f"{path}.{parameter}" in trained for parameter in own) for path, own in norms)
        return cls(name, network.names[first:], network.names[:first], source_head, learns, reads_tokens and first == 0)


def check_given(recipe: AdaptationRecipe, who: str, given: Given) -> None:
    """Refuse a recipe whose terms need what a network cannot give.

    Parameters
    ----------
    recipe : AdaptationRecipe
        Made for the training.
    who : str
        Who refuses, for the message.
    given : Given
        What the network gives.

    Raises
    ------
    ConfigError
        With the term, what it needs and the network.

    Examples
    --------
    >>> from headstart.methods.adaptations import joint
    >>> from headstart.objectives import CORAL, CrossEntropy
    >>> check_given(joint(lambda head: CrossEntropy(head=head), [CORAL()]), "adapt", Given("resnet18", ("features",)))
    """
    terms = recipe.objectives
    if given.source_head is None and needs_source_head(terms):
        names = ", ".join(dict.fromkeys(type(term).__name__ for term in terms if needs_source_head([term])))
        raise ConfigError(
            f"{who}: {names} needs the base model's own classifier, and {given.network} has none; leave the term out, or train "
            "stages of a base model that came with one."
        )
    for term in terms:
        if lacking := _lacking(term, given):
            raise ConfigError(f"{who}: {type(term).__name__} {lacking}")


def _lacking(term: Objective, given: Given) -> str:
    """Return what a term needs that is not there, and what to do; nothing where all is there."""
    network, known = given.network, ", ".join(given.segments)
    for name in _named(term):
        if name in given.frozen:
            return f"needs the segment {name!r}, which {network} keeps frozen and runs once; name one of {known}, or train it."
        if name not in given.segments:
            return f"needs the segment {name!r}, and {network} has {known}.{did_you_mean(name, given.segments)}"
    if isinstance(term, MixStyle) and len(given.segments) < 2:
        return (
            f"mixes what a segment before the last one gives, and {network} has {known} alone; train more stages of a base model "
            "(--strategy)."
        )
    if isinstance(term, StochasticNormalisation) and not given.has_norms:
        return f"changes batch normalisations that learn, and {network} has none; leave the term out."
    if "hidden" in term.needs and given.reads_tokens:
        return (
            f"changes the numbers that enter the network, and {network} takes the numbers of tokens, which have no directions; "
            "leave the embedding frozen (--strategy last-stages:1), or choose another term."
        )
    return ""


def classifier_of(source_head: nn.Module | None, recipe: AdaptationRecipe) -> nn.Module | None:
    """Return the base model's own classifier where a term of the recipe needs it, None where none does.

    Examples
    --------
    >>> from headstart.methods.adaptations import source_only
    >>> from headstart.objectives import CrossEntropy
    >>> classifier_of(nn.Linear(2, 2), source_only(lambda head: CrossEntropy(head=head))) is None
    True
    """
    return source_head if needs_source_head(recipe.objectives) else None


def _named(term: Objective) -> Iterable[str]:
    """Return the segments that a term names in its configuration."""
    config: dict[str, Any] = term.config()
    layers = [config["layer"]] if "layer" in config else config.get("layers", [])
    yield from (layer.removeprefix(_SEGMENT) for layer in layers if layer.startswith(_SEGMENT))
    yield from config.get("segments") or []
