"""Heads of a network in adaptation: hidden layers apart from the last one, and as many last ones as a recipe asks for."""

from __future__ import annotations

import math

import torch
from torch import nn

from headstart.core.seeds import derive_seed
from headstart.heads import NetworkHead, OpenSetHead
from headstart.methods.adaptations.recipe import AdaptationRecipe

__all__ = ["heads_of", "open_head", "split_head", "steps_to_epochs"]


def steps_to_epochs(num_steps: int, num_source: int, num_target: int, batch_size: int) -> int:
    """Return how many passes over the larger domain make about so many steps; at least one.

    Examples
    --------
    >>> steps_to_epochs(300, 640, 64, batch_size=64)
    30
    """
    batches = max(max(1, rows // min(batch_size, rows)) for rows in (num_source, num_target))
    return max(1, math.ceil(num_steps / batches))


def split_head(head: NetworkHead) -> tuple[nn.Sequential | None, nn.Module]:
    """Return the hidden layers of a head, None where it has none, and its last layer; both are the head's own.

    Examples
    --------
    >>> from headstart.core.tasks import Task
    >>> hidden, last = split_head(NetworkHead("dense8-relu", 4, Task("classification", ("ant", "bee"))))
    >>> [type(part).__name__ for part in hidden], tuple(last.weight.shape)
    (['Linear', 'ReLU'], (2, 8))
    """
    parts = list(head.module) if isinstance(head.module, nn.Sequential) else [head.module]
    return (nn.Sequential(*parts[:-1]) if len(parts) > 1 else None), parts[-1]


def heads_of(recipe: AdaptationRecipe, last: nn.Module, seed: int) -> dict[str, nn.Module]:
    """Return a recipe's heads: ``last`` itself as ``"main"``, the others of its shape and with weights of their own.

    Examples
    --------
    >>> from headstart.methods.adaptations import source_only
    >>> from headstart.objectives import CrossEntropy
    >>> list(heads_of(source_only(lambda head: CrossEntropy(head=head)), nn.Linear(2, 2), seed=0))
    ['main']
    """
    heads = {"main": last}
    for name in recipe.heads[1:]:
        assert isinstance(last, nn.Linear)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "head", name))
            heads[name] = nn.Linear(last.in_features, last.out_features)
    return heads


def open_head(head: NetworkHead, recipe: AdaptationRecipe) -> NetworkHead | OpenSetHead:
    """Return a trained head with the output for rows of no class that its recipe has learned beside it; as it is without one.

    Examples
    --------
    >>> from headstart.core.tasks import Task
    >>> from headstart.methods.adaptations import source_only
    >>> from headstart.objectives import CrossEntropy
    >>> head = NetworkHead("dense8-relu", 4, Task("classification", ("ant", "bee")))
    >>> open_head(head, source_only(lambda name: CrossEntropy(head=name))) is head
    True
    """
    unknown = recipe.unknown_layer
    return head if unknown is None else OpenSetHead.beside(head, unknown)
