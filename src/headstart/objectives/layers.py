"""Which of a network's outputs two domains are compared on, by name.

    features        output of the last segment
    logits          output of the head "main"
    probabilities   softmax of it
    segments.NAME   output of the segment of that name; several places of a row (height and width, tokens) are averaged

Use it in objectives between domains. An objective that draws something anew in every step, from its seed and the number of the
step alone, is a `StepDraws`.
It ignores the other heads.
Shapes: b rows, d features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_same_width
from headstart.core.errors import ConfigError, HeadstartError, did_you_mean
from headstart.core.seeds import derive_seed
from headstart.objectives.objective import Batch, Objective
from headstart.objectives.precision import widen

__all__ = ["StepDraws", "both_domains", "check_layer", "layer_needs", "layer_rows", "or_not_a_number"]

_LAYERS = ("features", "logits", "probabilities")
_SEGMENT = "segments."


def check_layer(who: str, layer: str) -> None:
    """Refuse what names no layer.

    Raises
    ------
    ConfigError
        With what is allowed, and the nearest of it.
    """
    if layer not in _LAYERS and not (layer.startswith(_SEGMENT) and len(layer) > len(_SEGMENT)):
        raise ConfigError(
            f"{who}: a layer is one of {', '.join(_LAYERS)}, or 'segments.NAME'; got {layer!r}.{did_you_mean(layer, _LAYERS)}"
        )


def layer_needs(layers: Sequence[str]) -> frozenset[str]:
    """Return what an objective on these layers needs of a batch.

    Examples
    --------
    >>> sorted(layer_needs(["features", "probabilities"])), sorted(layer_needs(["segments.layer3"]))
    (['features', 'logits'], ['activations'])
    """
    fields = {"features": "features", "logits": "logits", "probabilities": "logits"}
    return frozenset(fields.get(layer, "activations") for layer in layers)


def layer_rows(objective: Objective, batch: Batch, layer: str) -> Tensor:
    """Return one row of numbers for each row of a batch, in float32 at least.

    Raises
    ------
    ConfigError
        If the batch does not hold that layer.

    Examples
    --------
    >>> batch = Batch(logits=torch.zeros(1, 2), activations={"stem": torch.ones(1, 3, 2, 2)})
    >>> layer_rows(Objective(), batch, "probabilities").tolist(), layer_rows(Objective(), batch, "segments.stem").shape
    ([[0.5, 0.5]], torch.Size([1, 3]))
    """
    if layer == "features":
        return widen(objective.take(batch, "features"))
    if layer.startswith(_SEGMENT):
        values = widen(objective.take(batch, "activations", layer.removeprefix(_SEGMENT)))
        if values.ndim <= 2:
            return values
        return values.mean(dim=1) if values.ndim == 3 else values.flatten(2).mean(dim=2)
    logits_bk = widen(objective.take_logits(batch, "main"))
    return functional.softmax(logits_bk, dim=1) if layer == "probabilities" else logits_bk


def both_domains(
    objective: Objective, layer: str, source: Batch, target: Batch | None, min_rows: int = 1
) -> tuple[Tensor, Tensor]:
    """Return a layer's rows of both streams.

    Raises
    ------
    ConfigError
        If there is no second stream, or a batch does not hold the layer.
    ShapeError
        If a domain has fewer than ``min_rows`` rows.

    Examples
    --------
    >>> both_domains(Objective(), "features", Batch(features=torch.zeros(1, 1)), Batch(features=torch.ones(1, 1)))
    (tensor([[0.]]), tensor([[1.]]))
    """
    (other,) = objective.chosen("target", source, target)
    source_nd, target_md = layer_rows(objective, source, layer), layer_rows(objective, other, layer)
    check_same_width(type(objective).__name__, source_nd, target_md, min_rows)
    return source_nd, target_md


def or_not_a_number(formula: Callable[[], Tensor], *rows: Tensor) -> Tensor:
    """Return a formula's value; not a number where rows are not finite, which the formula itself would refuse.

    A training that has exploded then stops as with any other loss: it says at which step and on which rows, and puts the last
    good weights back.

    Parameters
    ----------
    formula : callable
        Computes the value.
    rows : Tensor
        What it computes it from.

    Raises
    ------
    HeadstartError
        What the formula raises for another reason.

    Examples
    --------
    >>> def refuse():
    ...     raise ConfigError("rows are not finite")
    >>> or_not_a_number(refuse, torch.tensor([1.0, float("inf")]))
    tensor(nan)
    """
    try:
        return formula()
    except (HeadstartError, ValueError, RuntimeError):
        totals = torch.stack([each.sum() for each in rows])
        if bool(torch.isfinite(totals).all()):
            raise
        return totals.sum() * float("nan")


class StepDraws(Objective):
    """An objective that draws something in every step: the number of the step is its memory, so that a killed run goes on alike.

    Attributes
    ----------
    steps : Tensor of shape ()
        int64, how many steps are done.
    seed : int
        Of the draws.
    """

    steps: Tensor
    seed: int

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def step_seed(self) -> int:
        """Return the seed of this step's draws."""
        return derive_seed(self.seed, "step", int(self.steps))

    def after_step(self) -> None:
        """Count the step."""
        self.steps += 1
