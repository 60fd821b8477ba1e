"""Folds that keep class shares and never split a group; and an honest score for the best of many.

Rows (or whole groups) are sorted by their stratum, shuffled inside it, and dealt like cards: every fold gets its share
of every class. Strata: the class; with several labels at once, the rarest label a row carries; for numbers, tenths of
their order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.seeds import generator
from headstart.core.tasks import Task

__all__ = ["cross_selected_score", "deal_folds"]

Array = npt.NDArray[Any]


def deal_folds(
    targets: Array, task: Task, num_folds: int, seed: int, groups: Array | None = None
) -> npt.NDArray[np.int64]:
    """Return the fold of every row, in ``range(num_folds)``.

    Parameters
    ----------
    targets : ndarray of shape (n,) or (n, k)
        In the task's own type.
    task : Task
    num_folds : int
        Fewer are dealt when there are fewer rows or groups.
    seed : int
    groups : ndarray of shape (n,), optional
        Group numbers; rows of a group share a fold.

    Examples
    --------
    >>> folds = deal_folds(np.array([0, 0, 1, 1]), Task("classification", ("a", "b")), 2, seed=0)
    >>> sorted(folds[:2].tolist()), sorted(folds[2:].tolist())
    ([0, 1], [0, 1])
    """
    strata = _strata(targets, task)
    if groups is None:
        groups = np.arange(len(strata))
    first, sizes = _first_and_sizes(groups)
    chance = generator(seed, "folds").random(len(first))
    order = np.lexsort((chance, -sizes, strata[first]))
    fold_of_group = np.empty(len(first), dtype=np.int64)
    count = min(num_folds, len(first))
    rounds, place = np.divmod(np.arange(len(first)), count)
    fold_of_group[order] = np.where(rounds % 2 == 0, place, count - 1 - place)  # there and back: sizes even out
    return fold_of_group[groups]


def _first_and_sizes(groups: Array) -> tuple[Array, Array]:
    _, first, sizes = np.unique(groups, return_index=True, return_counts=True)
    return first, sizes


def _strata(targets: Array, task: Task) -> Array:
    if task.kind == "classification":
        return targets
    if task.kind == "regression":
        ranks: Array = np.argsort(np.argsort(targets, kind="stable"), kind="stable")
        return np.asarray(ranks * 10 // max(len(targets), 1))
    counts = targets.sum(axis=0)
    rarity = np.where(targets > 0, counts[None, :], np.iinfo(np.int64).max)
    strata: Array = np.where(targets.any(axis=1), rarity.argmin(axis=1), targets.shape[1])
    return strata


def cross_selected_score(losses_np: Array, folds_n: Array, weights_n: Array) -> float:
    """Return the mean loss when the candidate is chosen, for each fold, on the rows outside it.

    The smallest mean of many candidates is too good; this one is not, and costs nothing.

    Parameters
    ----------
    losses_np : ndarray of shape (n, p)
        Held-out loss of every row under each of p candidates.
    folds_n, weights_n : ndarray of shape (n,)
        Fold and weight of every row.

    Examples
    --------
    >>> losses = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> cross_selected_score(losses, np.array([0, 1]), np.ones(2))     # either choice is made on the other row
    1.0
    """
    total = 0.0
    for fold in np.unique(folds_n):
        inside = folds_n == fold
        chosen = int(np.argmin(weights_n[~inside] @ losses_np[~inside]))
        total += float(weights_n[inside] @ losses_np[inside, chosen])
    return total / float(weights_n.sum())
