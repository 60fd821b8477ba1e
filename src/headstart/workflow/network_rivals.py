"""Networks on features of a frozen base model as rivals of aligners, trained by a recipe in seconds; every rule can judge them.

They give a rule what an aligner gives it, and become a model. `staged_rivals` has those that train stages of the base model.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.tasks import Task
from headstart.heads import Head
from headstart.methods import AdaptedNetwork, AdaptedNetworkRegressor
from headstart.model import Model
from headstart.workflow.domains import TwoDomains
from headstart.workflow.rivals import FittedEstimator, model_on_features

__all__ = ["FittedNetwork", "make_network", "raw_features"]

Array = NDArray[Any]
_PASSES, _BATCH = 40, 64


class FittedNetwork(FittedEstimator):
    """An `AdaptedNetwork`, or one for numbers, fitted on features as the base model gave them (or columns as they came)."""

    @property
    def target_unknown_m(self) -> Array | None:
        """Target rows of none of the classes, where the recipe has learned to tell."""
        found: Array | None = self.estimator.unknown(self._target_md)
        return found

    @property
    def source_seen_nr(self) -> Array:
        """Source rows as the network's last layer sees them."""
        return np.asarray(self.estimator.hidden(self._source_nd))

    @property
    def target_seen_mr(self) -> Array:
        """Target rows as the network's last layer sees them."""
        return np.asarray(self.estimator.hidden(self._target_md))

    def to_head(self, two: TwoDomains, task: Task) -> Head:
        """Return the network as the head of a model: centre and scale are part of it."""
        head: Head = self.estimator.to_head(task)
        return head

    def to_model(self, two: TwoDomains, task: Task) -> Model:
        """Return the base model with the network as its head, which takes features as they come."""
        model = model_on_features(self.to_head(two, task), two, task)
        model.unknown_above = self.estimator.unknown_above_
        return model


def raw_features(two: TwoDomains) -> tuple[Array, Array]:
    """Return features of both domains as the base model gave them: a network brings them on a scale of its own."""
    return two.features[0].values_nd, two.features[1].values_nd


def make_network(recipe: Any, two: TwoDomains, seed: int) -> AdaptedNetwork | AdaptedNetworkRegressor:
    """Return the unfitted network on features of these domains, for classes or for numbers.

    A table's columns are few and have units of their own; features of a base model are many and have one. It takes about forty
    passes over the larger domain, but 200 steps at least (with which the defaults were measured) and 600 at most.
    """
    is_table = two.backbone.modality == "vector"
    has_numbers = two.source.task is not None and two.source.task.kind == "regression"
    kind = AdaptedNetworkRegressor if has_numbers else AdaptedNetwork
    return kind(
        recipe,
        layers="dense64-relu-dense64-relu" if is_table else "dense256-relu",
        scaling="columns" if is_table else "whole",
        num_steps=int(np.clip(_PASSES * max(len(two.source_nd), len(two.target_md)) // _BATCH, 200, 600)),
        batch_size=_BATCH,
        seed=seed,
    )
