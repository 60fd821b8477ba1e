"""How a rung fine-tunes: a recipe in plain values, the time and memory it will take, and the one place that carries it out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.core.errors import DataError
from headstart.core.preprocessing import View
from headstart.core.progress import Progress
from headstart.data import Dataset
from headstart.features import FeatureStore
from headstart.heads import LinearHead
from headstart.model import Model
from headstart.report import TrainingCurves

if TYPE_CHECKING:
    from headstart.training import History

__all__ = [
    "Recipe",
    "Tune",
    "Tuned",
    "fitting_epochs",
    "last_stages",
    "recipe_for",
    "seconds_for",
    "trained_share",
    "tune",
]

_LEAST_EPOCHS = 3
_LEAST_SHARE = 0.2
_FULL_REGULARISERS = {"l2-sp": 1.0, "bss": 0.001}
_SPARE = 1.2  # steps cost a little more than their arithmetic


@dataclass(frozen=True)
class Recipe:
    """One way to fine-tune, as JSON.

    Parameters
    ----------
    strategy : str
        What `headstart.training.strategies.read_strategy` takes: ``"last-stages:2"``, ``"layerwise-decay:0.75"``, ...
    epochs : int
        Passes over the rows; the whole length is trained, no check on judging rows ends it.
    learning_rate, weight_decay, label_smoothing
        As in `TrainingConfig`.
    batch_size : int
        Rows a step.
    regularisers : mapping of str to float
        Weights of further terms of the loss, by the names `headstart.methods.FineTuning` knows.
    """

    strategy: str = "last-stages"
    epochs: int = 10
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    batch_size: int = 32
    regularisers: Mapping[str, float] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """``"partial"`` or ``"full"``: by how much of the network trains."""
        from headstart.training.strategies import read_strategy

        return "partial" if read_strategy(self.strategy).trains == "part" else "full"

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value."""
        return asdict(self)

    def __str__(self) -> str:
        parts = [self.strategy, f"{self.epochs} epochs", f"learning rate {self.learning_rate:g}"]
        parts += [f"{name} {weight:g}" for name, weight in self.regularisers.items()]
        return ", ".join(parts)


@dataclass(frozen=True)
class Tuned:
    """What a recipe made.

    Parameters
    ----------
    model : Model
        The whole model.
    scores : array of shape (n, k) or (n,), or None
        For the judging rows that were given.
    history : History, optional
        Its curves.
    notes : tuple of str
        What a person should know: the boundary, the strategy's reason, the precision.
    mix : float, optional
        How far its weights went from the solved start to the trained ones.
    """

    model: Model
    scores: NDArray[np.float64] | None = None
    history: History | None = None
    notes: tuple[str, ...] = ()
    mix: float | None = None

    def curves(self, name: str, measure: str) -> TrainingCurves | None:
        """Return the curves for the report."""
        if self.history is None:
            return None
        h = self.history
        return TrainingCurves(name, h.train_loss, h.validation_loss, h.train_measure, h.validation_measure, measure)


@dataclass(frozen=True)
class TuningRows:
    """Rows and settings that every recipe of a run shares."""

    backbone: Backbone
    solved: LinearHead | None
    views: tuple[View, ...] = (View(),)
    class_weight: str = "none"
    runtime: str = "auto"
    seed: int = 0
    store: FeatureStore | bool | None = None
    temperature: float | None = None
    mix: float | None = None


Tune = Callable[[Recipe, Dataset, Dataset | None, TuningRows, Path | None, Progress], Tuned]
"""Carries out a recipe: learning rows, judging rows (or None), what all recipes share, folder for checkpoints, progress."""


def recipe_for(strategy: str, rows: Dataset) -> Recipe:
    """Return the recipe of a strategy: rates and epochs of `headstart.methods.recipe`, L2-SP and BSS where all trains."""
    from headstart.methods.recipe import default_config
    from headstart.training.strategies import read_strategy

    assert rows.task is not None
    trains = read_strategy(strategy).trains
    head_only, whole = trains == "nothing", trains in {"few", "all"}
    config = default_config(rows.modality, rows.task.kind, len(rows), whole=whole, head_only=head_only)
    recipe = Recipe(
        strategy,
        config.max_epochs,
        config.learning_rate,
        config.weight_decay,
        config.label_smoothing,
        config.batch_size,
    )
    if trains == "all":  # few numbers cannot move far, and the weights that L2-SP ties stay
        return replace(recipe, weight_decay=0.0, regularisers=dict(_FULL_REGULARISERS))
    return recipe


def trained_share(backbone: Backbone, strategy: str) -> float:
    """Return about what share of a network's work lies in the part that trains."""
    from headstart.training.strategies import LastStages, read_strategy

    chosen = read_strategy(strategy)
    if isinstance(chosen, LastStages):
        return _shares(backbone).get(chosen.num_stages, 1.0)
    return 0.0 if chosen.trains == "nothing" else 1.0


def last_stages(backbone: Backbone) -> str:
    """Return the strategy that trains the fewest last stages which hold a fifth of the network's work.

    A last stage may be no more than a normalisation; training that alone would hardly differ from the solved head.
    """
    shares = _shares(backbone)
    enough = [number for number, share in shares.items() if share >= _LEAST_SHARE]
    return f"last-stages:{enough[0] if enough else max(shares, default=1)}"


def _shares(backbone: Backbone) -> dict[int, float]:
    """Return for each number of last stages that hold parameters the share of the work that they do, fewest first."""
    blocks = list(backbone.blocks)
    parts = backbone.segments([block.name for block in blocks if block.name not in {"input", "features"}])
    ends = [block.fraction for block in blocks if block.name not in {"input", "features"}]
    starts = [0.0, *ends][: len(parts)]
    holding = [start for part, start in zip(parts, starts, strict=False) if next(part.parameters(), None) is not None]
    return {number: 1.0 - start for number, start in enumerate(reversed(holding), start=1)}


def seconds_for(recipe: Recipe, backbone: Backbone, rows: Dataset, num_judging: int = 0) -> tuple[float, float]:
    """Return about how many wall-clock seconds a recipe takes: before the first epoch, and for each epoch.

    One batch is decoded and sent through the network, twice; the second is timed. A step of a trained part costs three times its
    forward pass. The frozen part runs once for each row.
    """
    import torch

    from headstart.training import InputRows

    part = rows.subset(range(min(8, len(rows))))
    inputs = InputRows(part, backbone)
    try:
        started = time.perf_counter()
        tensors = inputs.batch(np.arange(len(part)))
        decoding = (time.perf_counter() - started) / len(part)
        with torch.no_grad():
            backbone.module(*tensors)
            started = time.perf_counter()
            backbone.module(*tensors)
        forward = (time.perf_counter() - started) / len(part)
    finally:
        inputs.close()
    share, n = trained_share(backbone, recipe.strategy), len(rows)
    before = (decoding + forward * (1 - share)) * (n + num_judging)
    return _SPARE * before, _SPARE * forward * share * (3 * n + num_judging)


def fitting_epochs(recipe: Recipe, before: float, each: float, room: float) -> Recipe | None:
    """Return the recipe with as many epochs as the room allows, None where not even the fewest fit.

    Examples
    --------
    >>> recipe = Recipe(epochs=10)
    >>> fitting_epochs(recipe, 5.0, 10.0, 60.0).epochs, fitting_epochs(recipe, 5.0, 10.0, 30.0)
    (5, None)
    """
    if not math.isfinite(room):
        return recipe
    epochs = min(recipe.epochs, int((room - before) / max(each, 1e-9)))
    return replace(recipe, epochs=epochs) if epochs >= min(_LEAST_EPOCHS, recipe.epochs) else None


def tune(
    recipe: Recipe, rows: Dataset, judging: Dataset | None, shared: TuningRows, folder: Path | None, progress: Progress
) -> Tuned:
    """Carry a recipe out; see `Tune`. Judging rows are watched, for the curves, and choose nothing."""
    from headstart.methods import FineTuning
    from headstart.methods.recipe import default_config

    assert rows.task is not None
    config = replace(
        default_config(rows.modality, rows.task.kind, len(rows), seed=shared.seed),
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        batch_size=recipe.batch_size,
        max_epochs=recipe.epochs,
        patience=recipe.epochs + 1,
        restore_best=False,
        label_smoothing=recipe.label_smoothing,
        balance="loss" if shared.class_weight == "balanced" else "none",
    )
    method = FineTuning(
        strategy=recipe.strategy,
        config=config,
        regularisers=tuple(f"{name}:{weight:g}" for name, weight in recipe.regularisers.items()),
        mix="auto" if shared.mix is None else shared.mix,
        temperature=shared.temperature,
        seed=shared.seed,
    )
    done = method.fit(
        rows,
        shared.backbone,
        validation_rows=judging,
        solved=shared.solved,
        checkpoint=folder,
        store=shared.store,
        progress=progress,
    )
    if judging is not None and done.validation_kept is not None and len(done.validation_kept) != len(judging):
        raise DataError(
            f"fit: {len(judging) - len(done.validation_kept)} judging rows could not be read while fine-tuning."
        )
    return Tuned(done.model, done.validation_scores, done.history, (done.plan_reason, *done.notes), done.mix)
