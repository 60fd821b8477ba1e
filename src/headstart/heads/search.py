"""One search over penalties for every solver: coarse first, then finer around the best.

The held-out loss of an L2 penalty is smooth in its logarithm, so most of a fine grid need not be looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.tasks import Task
from headstart.heads.folds import cross_selected_score
from headstart.heads.temperature import fit_temperature, log_losses

__all__ = ["HeldOut", "score_held_out", "search_grid", "search_report"]

Array = npt.NDArray[Any]
ENOUGH_FOR_TEMPERATURE = 5000  # rows; one number needs no more


@dataclass(frozen=True)
class HeldOut:
    """Held-out scores under one penalty, and what they are worth.

    Attributes
    ----------
    scores_nk : ndarray of shape (n, k)
    temperature : float
    losses_n : ndarray of shape (n,)
        Log loss after temperature scaling, or squared error, of every row.
    loss : float
        Their weighted mean: what the search minimises.
    """

    scores_nk: Array
    temperature: float
    losses_n: npt.NDArray[np.float64]
    loss: float


def score_held_out(
    task: Task, scores_nk: Array, targets: Array, weights_n: Array, start: float | None = None
) -> HeldOut:
    """Return what held-out scores are worth: calibrated log loss, or squared error for regression."""
    if task.kind == "regression":
        losses, temperature = (scores_nk[:, 0] - targets) ** 2, 1.0
    else:
        some = slice(None, None, max(1, len(scores_nk) // ENOUGH_FOR_TEMPERATURE))
        temperature = fit_temperature(task, scores_nk[some], targets[some], weights_n[some], start)
        losses = log_losses(task, scores_nk, targets, temperature)
    return HeldOut(scores_nk, temperature, losses, float(weights_n @ losses / weights_n.sum()))


def search_grid(size: int, loss_at: Callable[[int], float], first: list[int], steps: list[int]) -> int:
    """Return the place in ``range(size)`` with the smallest loss found.

    Parameters
    ----------
    size : int
        Length of the grid.
    loss_at : callable (int) -> float
        Asked at most once for each place.
    first : list of int
        Places to begin with. When the best lies at the end of those seen, the search walks on in that direction.
    steps : list of int
        Distances to try on both sides of the best, the coarsest first.

    Examples
    --------
    >>> search_grid(41, lambda place: (place - 13) ** 2, [0, 20, 40], [8, 4, 2, 1])
    13
    """
    known: dict[int, float] = {}

    def look(place: int) -> None:
        if 0 <= place < size and place not in known:
            value = loss_at(place)
            known[place] = value if np.isfinite(value) else np.inf

    for place in first:
        look(place)
    for step in steps:
        while True:
            best = min(known, key=lambda place: (known[place], place))
            before = len(known)
            for place in (best - step, best + step):
                look(place)
            if len(known) == before:
                break
            if min(known, key=lambda place: (known[place], place)) == best:
                break
    return min(known, key=lambda place: (known[place], place))


def search_report(
    seen: dict[float, HeldOut], penalty: float, folds_n: Array, weights_n: Array, task: Task, how: str
) -> dict[str, Any]:
    """Return the account of a search as a JSON value."""
    path = sorted(seen)
    losses = np.stack([seen[value].losses_n for value in path], axis=1)
    return {
        "penalty": float(penalty),
        "criterion": "squared error" if task.kind == "regression" else "log loss",
        "held_out": how,
        "score": seen[penalty].loss,
        "nested_score": cross_selected_score(losses, folds_n, weights_n),
        "path": [{"penalty": float(value), "score": seen[value].loss} for value in path],
    }
