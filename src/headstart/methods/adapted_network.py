"""A network on features, adapted to the target by any recipe, as a scikit-learn classifier or regressor of two domains.

    features -> one scale -> hidden layers -> head(s)      trained by the recipe's phases on source rows (labels) and target rows

Where a base model stays frozen, its features are computed once and this is all that trains: seconds on one core. It takes the
place of an aligner anywhere (`headstart.alignment`): both forms of ``fit``, pipelines, searches, and every rule that chooses
without target labels, "do not adapt" beside it. To adapt stages of the base model itself: `headstart.methods.DeepAdaptation`.
Numbers are learned on a scale of their own; recipes that read classes are refused for them.
It ignores what a linear map on frozen features cannot say; with few rows the aligners are steadier.
Shapes: n source rows, m target rows, d features, r hidden units, k classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator

from headstart.alignment.aligner import DomainClassifier, DomainRegressor, Domains
from headstart.backbones import vector_backbone
from headstart.core.errors import ConfigError
from headstart.core.progress import watched
from headstart.core.seeds import derive_seed
from headstart.core.tasks import Task
from headstart.data import open_dataset
from headstart.heads import NetworkHead, OpenSetHead
from headstart.heads.layers import hidden_layers, parse_layers
from headstart.methods.adaptations import AdaptationRecipe, LossOf, source_only
from headstart.methods.adaptations.carry_out import Adapting, adapt_network, loss_of, make_recipe
from headstart.methods.adaptations.givens import Given, check_given
from headstart.methods.adaptations.heads import heads_of, open_head, split_head, steps_to_epochs
from headstart.model.predictions import entropy_above, last_is_largest
from headstart.training import History, InputRows, Network, ParameterGroup, Plan, TrainingConfig, TrainingRows

__all__ = ["AdaptedNetwork", "AdaptedNetworkRegressor", "NetworkOnFeatures"]

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

_HIDDEN = "hidden"


class NetworkOnFeatures(BaseEstimator):  # type: ignore[misc]
    """What classifier and regressor have in common: options, the scale of the rows, and the training."""

    head_: NetworkHead | OpenSetHead

    def __init__(
        self,
        recipe: Callable[[LossOf], AdaptationRecipe] = source_only,
        layers: str = "dense256-relu",
        scaling: str = "whole",
        num_steps: int = 600,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        self.recipe = recipe
        self.layers = layers
        self.scaling = scaling
        self.num_steps = num_steps
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.seed = seed

    def _train(self, domains: Domains, task: Task, targets_n: Array) -> None:
        """Fill ``centre_``, ``scale_``, ``head_``, ``histories_`` and ``unknown_above_``."""
        self._check_options()
        self.centre_, self.scale_ = self._fit_scale(np.asarray(domains.source_nd, np.float64))
        source = TrainingRows(self._rows(domains.source_nd), targets_n, domains=domains.source_groups_n)
        target = TrainingRows(self._rows(domains.target_md), None)
        config = TrainingConfig(
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            max_epochs=steps_to_epochs(self.num_steps, len(source), len(target), self.batch_size),
            precision="fp32",
            restore_best=False,
            seed=self.seed,
            threads=1,  # matrices this small are computed sooner than threads agree
        )
        width = domains.source_nd.shape[1]
        head = NetworkHead(hidden_layers(self.layers, task), width, task, seed=derive_seed(self.seed, "head") % 2**31)
        hidden, last = split_head(head)
        assert hidden is not None
        recipe = make_recipe(self.recipe, task, config, source)
        network = Network({_HIDDEN: hidden}, heads_of(recipe, last, self.seed))
        plan = Plan((ParameterGroup(tuple(name for name, _ in network.named_parameters())),))
        check_given(recipe, type(self).__name__, Given.of("a network on features", network, plan))
        job = Adapting(network, task, source, target, recipe, config, loss_of(task, config, source), plan)
        self.unknown_above_ = recipe.unknown_above
        self.histories_: tuple[History, ...] = adapt_network(job, progress=watched())
        head.module.eval()
        self.head_ = open_head(head, recipe)

    def _check_options(self) -> None:
        who = type(self).__name__
        if self.scaling not in {"whole", "columns"}:
            raise ConfigError(f"{who}: scaling is 'whole' or 'columns'; got {self.scaling!r}.")
        if not isinstance(self.num_steps, int) or self.num_steps < 1:
            raise ConfigError(f"{who}: num_steps is a whole number of at least 1; got {self.num_steps!r}.")
        task = Task("classification", ("a", "b", "c"))
        words = parse_layers(hidden_layers(self.layers, task), task)
        if len(words) < 3 or words[0].name != "dense":
            raise ConfigError(
                f"{who}: layers begins with a dense layer, such as 'dense256-relu', whose outputs are what domains are compared "
                f"by; got {self.layers!r}."
            )

    def _fit_scale(self, source_nd: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return what is taken off the rows and what they are divided by."""
        centre = source_nd.mean(axis=0)
        spread = source_nd.std(axis=0)
        if self.scaling == "whole":
            spread = np.full_like(centre, np.sqrt(np.mean(spread**2)))
        return centre, np.where(spread > 1e-12 * np.maximum(1.0, np.abs(centre)), spread, 1.0)

    def _scaled(self, rows: Any) -> npt.NDArray[np.float32]:
        scaled: npt.NDArray[np.float32] = ((np.asarray(rows, np.float64) - self.centre_) / self.scale_).astype(
            np.float32
        )
        return scaled

    def _rows(self, rows: Any) -> InputRows:
        scaled = self._scaled(rows)
        return InputRows(open_dataset(scaled, unlabelled=True), vector_backbone(scaled.shape[1]))

    @property
    def _network_head(self) -> NetworkHead:
        """The head that has hidden layers."""
        return self.head_.network if isinstance(self.head_, OpenSetHead) else self.head_

    def hidden(self, rows: Any) -> npt.NDArray[np.float32]:
        """Return rows as the last layer sees them: the outputs of the hidden layers, float32 (rows, r)."""
        module, _ = split_head(self._network_head)
        assert module is not None
        with torch.no_grad():
            output: npt.NDArray[np.float32] = module.eval()(torch.from_numpy(self._scaled(rows))).numpy()
        return output

    def _unscaled(self, trained: NetworkHead, task: Task) -> NetworkHead:
        head = NetworkHead(trained.layers, len(self.centre_), task, seed=trained.seed)
        head.module.load_state_dict(trained.module.state_dict())
        first: Any = next(head.module.children())
        weight, bias = (item.detach().double().numpy() for item in (first.weight, first.bias))
        folded = weight / self.scale_
        with torch.no_grad():
            first.weight.copy_(torch.from_numpy(folded))
            first.bias.copy_(torch.from_numpy(bias - folded @ self.centre_))
        head.module.eval()
        return head


class AdaptedNetwork(NetworkOnFeatures, DomainClassifier):
    """A small network trained for the target on features of both domains.

    After ``fit``: ``head_`` (on rows on one scale: a `NetworkHead`, or an `OpenSetHead` where the recipe has learned an output
    for rows of no class), ``centre_`` and ``scale_`` of the rows, ``histories_``, and ``unknown_above_``, the entropy above which
    a row is of no class the source knows. `unknown` says which rows those are.

    Parameters
    ----------
    recipe : callable
        What is minimised: a recipe of the catalog (``resolve("mcd", "adaptation")``), or what
        `headstart.catalog.read_objectives` returns. Without one the network learns from source rows alone.
    layers : str
        Hidden layers in words (`headstart.heads.layers`), the first of them dense.
    scaling : {"whole", "columns"}
        What rows are divided by after the source's mean is taken off: one number (features of a base model), or each column's
        deviation (tables).
    num_steps : int
        Optimiser steps, about.
    learning_rate, weight_decay : float
        Of AdamW.
    batch_size : int
        Rows of each domain a step.
    seed : int
        Of starting weights and every draw.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> source = np.concatenate([random.normal(-1, 0.3, (20, 2)), random.normal(1, 0.3, (20, 2))])
    >>> model = AdaptedNetwork(layers="dense8-relu", num_steps=60).fit(source, ["no"] * 20 + ["yes"] * 20, source + 0.2)
    >>> model.predict([[-1.0, -1.0], [1.0, 1.0]]).tolist()
    ['no', 'yes']
    """

    min_rows = 2

    def _learn(self, domains: Domains, codes_n: npt.NDArray[np.int64]) -> None:
        task = Task("classification", tuple(str(number) for number in range(len(self.classes_))))
        self._train(domains, task, codes_n)

    def _probabilities(self, X: Any) -> FloatArray:
        return np.asarray(self.head_.predict_proba(self._scaled(X)), np.float64)

    def unknown(self, rows: Any) -> npt.NDArray[np.bool_] | None:
        """Return which target rows are of none of the classes, shape (rows,); None for a recipe that knows no such rows."""
        scaled = self._scaled(rows)
        open_nk = self.head_.open_probabilities(scaled)
        if open_nk is not None:
            return last_is_largest(open_nk)
        if self.unknown_above_ is None:
            return None
        return entropy_above(self.head_.predict_proba(scaled), self.unknown_above_)

    def to_head(self, task: Task) -> NetworkHead | OpenSetHead:
        """Return a head that takes rows as they came: centre and scale are part of its first layer.

        Parameters
        ----------
        task : Task
            Names of the classes in the order of ``classes_``.
        """
        if isinstance(self.head_, OpenSetHead):
            return OpenSetHead(self._unscaled(self.head_.network, self.head_.network.task), task)
        return self._unscaled(self.head_, task)


class AdaptedNetworkRegressor(NetworkOnFeatures, DomainRegressor):
    """`AdaptedNetwork` for numbers: recipes that compare features, or none.

    After ``fit``: ``head_``, ``centre_``, ``scale_`` and ``histories_``, as there.

    Parameters
    ----------
    recipe, layers, scaling, num_steps, learning_rate, weight_decay, batch_size, seed
        As of `AdaptedNetwork`.

    Examples
    --------
    >>> source = np.linspace(-1, 1, 40)[:, None]
    >>> model = AdaptedNetworkRegressor(layers="dense8-tanh", num_steps=300).fit(source, 50 + 10 * source[:, 0], source)
    >>> bool(abs(model.predict([[0.5]])[0] - 55) < 2)
    True
    """

    min_rows = 2
    unknown_above_ = None

    def _learn(self, domains: Domains, values_n: npt.NDArray[np.floating[Any]]) -> None:
        centre, scale = float(values_n.mean()), float(values_n.std()) or 1.0
        self._train(domains, Task("regression"), (values_n - centre) / scale)
        self._network_head.centre, self._network_head.scale = centre, scale

    def _estimate(self, X: Any) -> FloatArray:
        return np.asarray(self.head_.predict(self._scaled(X)), np.float64)

    def unknown(self, rows: Any) -> None:
        """Return None: numbers have no unknown classes."""
        del rows

    def to_head(self, task: Task) -> NetworkHead:
        """Return a head that takes rows as they came, and answers in the unit of the numbers.

        Parameters
        ----------
        task : Task
            Regression.
        """
        assert isinstance(self.head_, NetworkHead)
        head = self._unscaled(self.head_, task)
        head.centre, head.scale = self.head_.centre, self.head_.scale
        return head
