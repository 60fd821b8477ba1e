"""A network of one's own, adapted to the target by any recipe: a torch module from random or given weights, on arrays.

    rows -> the module -> features -> head(s)      trained by the recipe's phases on source rows (labels) and target rows

Use it where no base model knows the rows: digits and a LeNet, signals and a small convolutional network. What a base model can
read is served better by `headstart.methods.DeepAdaptation`, and features by `headstart.methods.AdaptedNetwork`: both can be saved
as a model, which a module that only its own program can build cannot. The last weights are kept; nothing of the target chooses.
It ignores numbers as labels, and answers among the known classes even after a recipe that learns an unknown one.
Shapes: n source rows, m target rows, d features, k classes; the other extents of a row are the module's own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.core.errors import ConfigError, ShapeError
from headstart.core.seeds import derive_seed
from headstart.core.tasks import Task
from headstart.methods.adaptations import RecipeOf, source_only
from headstart.methods.adaptations.carry_out import Adapting, adapt_network, loss_of, make_recipe
from headstart.methods.adaptations.givens import Given, check_given
from headstart.methods.adaptations.heads import heads_of, steps_to_epochs
from headstart.methods.network_outputs import network_outputs
from headstart.training import ArrayRows, History, Network, TrainingConfig, TrainingRows, whole_plan

__all__ = ["AdaptedModule", "adapt_module"]

Array = npt.NDArray[Any]

_STEPS, _BATCH = 400, 64


@dataclass(frozen=True)
class AdaptedModule:
    """An adapted module with its head.

    Parameters
    ----------
    network : Network
        Segments and heads, in evaluation mode.
    classes : array of shape (k,)
        The labels that the columns of probabilities stand for.
    histories : tuple of History
        Of the trainings, in order.
    """

    network: Network
    classes: Array
    histories: tuple[History, ...]

    def features(self, inputs: Array) -> npt.NDArray[np.float32]:
        """Return rows as the head sees them, float32 (rows, d)."""
        return self._outputs(inputs)[0]

    def predict_proba(self, inputs: Array) -> npt.NDArray[np.float64]:
        """Return probabilities of shape (rows, k)."""
        logits = torch.from_numpy(self._outputs(inputs)[1]).double()
        return np.asarray(torch.softmax(logits, dim=1).numpy())

    def predict(self, inputs: Array) -> Array:
        """Return the likeliest class of each row."""
        return np.asarray(self.classes[self._outputs(inputs)[1].argmax(axis=1)])

    def _outputs(self, inputs: Array) -> tuple[Array, Array]:
        return network_outputs(self.network, TrainingRows(ArrayRows(inputs), None))


def adapt_module(
    body: nn.Module | Mapping[str, nn.Module],
    source: Array,
    labels: Array,
    target: Array,
    *,
    recipe: RecipeOf = source_only,
    head: nn.Module | None = None,
    config: TrainingConfig | None = None,
) -> AdaptedModule:
    """Train a copy of a module for the target, and return it with its head.

    Parameters
    ----------
    body : nn.Module, or mapping of str to nn.Module
        Takes float32 rows, returns features (rows, d), which objectives compare. Several in order, by name, let objectives look
        at the outputs between. Stays as it is; its weights are where training begins.
    source : array of shape (n, ...)
        Labelled rows; of pictures (n, channels, height, width).
    labels : array of shape (n,)
        Their classes.
    target : array of shape (m, ...), m >= 2
        Rows of the target, without labels.
    recipe : callable
        What is minimised: a recipe of the catalog (``resolve("mcd", "adaptation")``), or what
        `headstart.catalog.read_objectives` returns. Without one the module learns from source rows alone.
    head : nn.Module, optional
        From features to a number for each class, in sorted order; a linear layer when left out. Stays as it is.
    config : TrainingConfig, optional
        How to train; about 400 steps of 64 rows of each domain when left out. Its seed is that of every draw.

    Raises
    ------
    ShapeError
        If rows of source and target differ in shape, labels are not one a row, or the module does not return features.
    ConfigError
        If the recipe needs several heads and the head given is not linear.
    DataError
        If there are fewer than two classes or target rows.
    TrainingError
        If a loss cannot be believed.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> source = np.concatenate([random.normal(-1, 0.3, (40, 1, 3)), random.normal(1, 0.3, (40, 1, 3))])
    >>> body = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten())
    >>> model = adapt_module(body, source, np.repeat(["low", "high"], 40), source + 0.2)
    >>> model.predict(np.array([[[-1.0, -1.0, -1.0]], [[1.0, 1.0, 1.0]]])).tolist()
    ['low', 'high']
    """
    rows, others, labels = ArrayRows(source), ArrayRows(target), np.asarray(labels)
    if rows.values_n.shape[1:] != others.values_n.shape[1:]:
        raise ShapeError(
            f"adapt_module: rows of both domains have one shape; got {rows.values_n.shape[1:]} in the source and "
            f"{others.values_n.shape[1:]} in the target."
        )
    if labels.shape != (len(rows),):
        raise ShapeError(
            f"adapt_module: labels are one class a source row; got shape {labels.shape} for {len(rows)} rows."
        )
    classes, codes = np.unique(labels, return_inverse=True)
    task = Task("classification", tuple(str(name) for name in classes))
    config = config or TrainingConfig(
        weight_decay=0.01,
        batch_size=_BATCH,
        max_epochs=steps_to_epochs(_STEPS, len(rows), max(1, len(others)), _BATCH),
        restore_best=False,
        precision="fp32",
    )
    segments = copy.deepcopy(dict(body) if isinstance(body, Mapping) else {"features": body})
    learning = TrainingRows(rows, codes.astype(np.int64))
    made = make_recipe(recipe, task, config, learning)
    last = _head(segments, rows, len(classes), config.seed) if head is None else copy.deepcopy(head)
    if len(made.heads) > 1 and not isinstance(last, nn.Linear):
        raise ConfigError(
            f"adapt_module: the recipe needs the heads {', '.join(made.heads)}, each like the first with weights of its own, "
            f"which a linear head allows; got {type(last).__name__}. Put its hidden layers into the body."
        )
    network = Network(segments, heads_of(made, last, config.seed))
    plan = whole_plan(network)
    check_given(made, "adapt_module", Given.of("the module", network, plan))
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    loss = loss_of(task, config, learning)
    job = Adapting(network, task, learning, TrainingRows(others, None), made, config, loss, plan)
    histories = adapt_network(job)
    return AdaptedModule(network.cpu().eval(), classes, histories)


def _head(segments: Mapping[str, nn.Module], rows: ArrayRows, num_classes: int, seed: int) -> nn.Linear:
    """Return a linear head as wide as what the segments return for the first two rows."""
    output: Any = rows.batch(np.arange(min(2, len(rows))))
    with torch.no_grad():
        for module in segments.values():
            output = module.eval()(*(output if isinstance(output, tuple) else (output,)))
    if not isinstance(output, torch.Tensor) or output.ndim != 2:
        got = f"shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__
        raise ShapeError(
            f"adapt_module: the module returns one tensor of features, (rows, d); got {got}. End it with nn.Flatten()."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "head"))
        return nn.Linear(output.shape[1], num_classes)
