"""What a network can give objectives, asked before anything trains: its layers by name, and the base model's own classifier.

Use `check_given` where a recipe and the network it is for are both known.
It ignores what only rows can tell (labels, domains, kinds of input), which objectives say themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from headstart.core.errors import ConfigError, did_you_mean
from headstart.methods.adaptations.recipe import AdaptationRecipe
from headstart.methods.regularisers import needs_source_head
from headstart.objectives import MixStyle, Objective

__all__ = ["check_given", "classifier_of"]

_SEGMENT = "segments."


def check_given(
    recipe: AdaptationRecipe, who: str, network: str, segments: Sequence[str], source_head: nn.Module | None = None
) -> None:
    """Refuse a recipe whose terms need what a network cannot give.

    Parameters
    ----------
    recipe : AdaptationRecipe
        Made for the training.
    who : str
        Who refuses, for the message.
    network : str
        What the network is called.
    segments : sequence of str
        Names of its segments, in order.
    source_head : nn.Module, optional
        The base model's own classifier, where it has one.

    Raises
    ------
    ConfigError
        With the term, what it needs and the network.

    Examples
    --------
    >>> from headstart.methods.adaptations import joint
    >>> from headstart.objectives import CORAL, CrossEntropy
    >>> check_given(joint(lambda head: CrossEntropy(head=head), [CORAL()]), "adapt", "resnet18", ["features"])
    """
    terms = recipe.objectives
    if source_head is None and needs_source_head(terms):
        names = ", ".join(dict.fromkeys(type(term).__name__ for term in terms if needs_source_head([term])))
        raise ConfigError(
            f"{who}: {names} needs the base model's own classifier, and {network} has none; leave the term out, or train stages "
            "of a base model that came with one."
        )
    for term in terms:
        for name in _named(term):
            if name not in segments:
                raise ConfigError(
                    f"{who}: {type(term).__name__} needs the segment {name!r}, and {network} has "
                    f"{', '.join(segments)}.{did_you_mean(name, segments)}"
                )
        if isinstance(term, MixStyle) and len(segments) < 2:
            raise ConfigError(
                f"{who}: MixStyle mixes what a segment before the last one gives, and {network} has {', '.join(segments)} alone; "
                "train stages of a base model (--strategy)."
            )


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
