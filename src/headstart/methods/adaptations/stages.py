"""The network of a deep adaptation, and what of it trains: stages of a base model by a strategy, hidden layers, and heads.

Use `staged_network` for a training, and `stages_given` to ask what such a network will give before any row is read.
It ignores rows: their number is only told.
"""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import nn

from headstart.backbones import Backbone
from headstart.core.seeds import derive_seed
from headstart.methods.adaptations.givens import Given, check_given, classifier_of
from headstart.methods.adaptations.heads import heads_of
from headstart.methods.adaptations.recipe import AdaptationRecipe
from headstart.training import Network, ParameterGroup, Plan
from headstart.training.strategies import FRESH_HEAD, Strategy, without_batch_norm

__all__ = ["HIDDEN", "staged_network", "stages_given"]

HIDDEN = "hidden"


def staged_network(
    tuned: Backbone,
    hidden: nn.Module | None,
    last: nn.Module,
    recipe: AdaptationRecipe,
    strategy: Strategy,
    *,
    num_rows: int,
    batch_norm: str,
    seed: int,
    solved: bool,
) -> tuple[Network, Plan]:
    """Return the network and what of it trains: the strategy's stages, hidden layers and all heads.

    Parameters
    ----------
    tuned : Backbone
        Copy of the base model; its module is the network's.
    hidden : nn.Module, optional
        Layers between its features and the heads.
    last : nn.Module
        Head ``"main"``, which the recipe's other heads are like.
    recipe : AdaptationRecipe
        Made for the training.
    strategy : Strategy
        Which stages train.
    num_rows : int
        Labelled rows to learn from.
    batch_norm : str
        ``"frozen"`` or ``"train"``.
    seed : int
        Of what the strategy and further heads draw.
    solved : bool
        Whether ``last`` is a solution on frozen features.

    Raises
    ------
    ConfigError
        If a term of the recipe needs what the network cannot give.
    """
    heads = heads_of(recipe, last, seed)
    given = tuned.source_head if hidden is None else None  # which takes the features, not hidden outputs
    if (classifier := classifier_of(given, recipe)) is not None:
        heads["source"] = copy.deepcopy(classifier)
    network, plan = _planned(tuned, hidden, heads, strategy, num_rows, batch_norm, seed, solved)
    check_given(recipe, "adapt", _given(tuned, hidden, network, plan))
    return network, plan


def stages_given(
    backbone: Backbone, hidden: nn.Module | None, last: nn.Module, strategy: Strategy, *, num_rows: int, batch_norm: str
) -> Given:
    """Return what the network of `staged_network` will give a recipe; the base model stays as it is."""
    tuned = backbone.copy()
    network, plan = _planned(tuned, hidden, {"main": last}, strategy, num_rows, batch_norm, 0, solved=hidden is None)
    return _given(tuned, hidden, network, plan)


def _given(tuned: Backbone, hidden: nn.Module | None, network: Network, plan: Plan) -> Given:
    name = tuned.name if hidden is None else f"{tuned.name} under hidden layers of the head"
    classifier = tuned.source_head if hidden is None else None
    return Given.of(name, network, plan, classifier, reads_tokens=tuned.modality == "text")


def _planned(
    tuned: Backbone,
    hidden: nn.Module | None,
    heads: dict[str, nn.Module],
    strategy: Strategy,
    num_rows: int,
    batch_norm: str,
    seed: int,
    solved: bool,
) -> tuple[Network, Plan]:
    network = Network.of(tuned, heads)
    strategy.prepare(network, derive_seed(seed, "strategy") % 2**31)
    plan = strategy.plan(network, num_rows, solved=solved)
    if batch_norm == "frozen":
        plan = without_batch_norm(plan, network)
    if hidden is None:
        return network, plan
    whole = Network({**dict(zip(network.names, network.segments, strict=True)), HIDDEN: hidden}, heads)
    start = f"segments.{len(network.segments)}."
    names = tuple(name for name, _ in whole.named_parameters() if name.startswith(start))
    fresh = 1.0 if strategy.trains == "nothing" else FRESH_HEAD
    groups = tuple(
        replace(group, rate=fresh) if group.names[0].startswith("heads.") else group for group in plan.groups
    )
    reason = f"{plan.reason}; hidden layers train with the head"
    return whole, replace(plan, groups=(*groups, ParameterGroup(names, fresh)), reason=reason)
