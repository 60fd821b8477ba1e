"""What permutations of rows have in common, computed once: kernel matrices, costs, projections.

    prepare(pooled rows, n)  ->  statistic(places of one domain, places of the other)

Use it through `headstart.distances.measures`, whose entries name what they prepare.
It ignores which rows are whose: the first n of the pooled rows are the source's before they are permuted.
Shapes: N pooled rows, n source rows, d features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.distances.mmd import FACTORS, kernel_variances, mean_kernel
from headstart.distances.moments import largest_change
from headstart.distances.pairs import centre_together, squared_distances
from headstart.distances.permutation import Statistic
from headstart.distances.sinkhorn import divergence_of_costs
from headstart.distances.wasserstein import optimal_plan, quantile_steps, sphere_directions

__all__ = [
    "PAIR_MATRICES",
    "Prepare",
    "plain",
    "prepare_discrepancy",
    "prepare_exact",
    "prepare_sinkhorn",
    "prepare_sliced",
]

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
Prepare = Callable[[Array, int], Statistic]


def plain(function: Callable[..., Any]) -> Prepare:
    """Return what computes a measure anew from the rows of each permutation."""

    def prepare(pooled: Array, num_source: int) -> Statistic:
        return lambda source, target: float(function(pooled[source], pooled[target]))

    return prepare


def _kernel_matrix(pooled: Array, num_source: int) -> Array:
    source, target = centre_together(np, pooled[:num_source], pooled[num_source:])
    variances = kernel_variances("mk-mmd", np, source, target, FACTORS, None)
    rows = np.concatenate([source, target])
    return np.asarray(mean_kernel(np, squared_distances(np, rows, rows), variances))


def _negative_distances(pooled: Array, num_source: int) -> Array:
    rows = np.concatenate(centre_together(np, pooled[:num_source], pooled[num_source:]))
    return np.asarray(-np.sqrt(squared_distances(np, rows, rows)))


def prepare_discrepancy(pooled: Array, num_source: int) -> Statistic:
    """Return the linear discrepancy of places: nothing is shared, but rows are not read again."""
    return lambda source, target: abs(largest_change(pooled[source], pooled[target])[0])


def prepare_sliced(pooled: Array, num_source: int) -> Statistic:
    """Return the sliced Wasserstein distance of places, over projections that are made once."""
    projected = pooled @ sphere_directions("sliced-wasserstein", pooled.shape[1], 128, 0)

    def statistic(source: IntArray, target: IntArray) -> float:
        source_q, target_q, width_q = quantile_steps(len(source), len(target))
        gap = np.sort(projected[source], axis=0)[source_q] - np.sort(projected[target], axis=0)[target_q]
        return float(np.sqrt((width_q @ np.square(gap)).mean()))

    return statistic


def prepare_sinkhorn(pooled: Array, num_source: int) -> Statistic:
    """Return the Sinkhorn divergence of places, over costs that are computed once."""
    costs = np.square(_negative_distances(pooled, num_source))
    epsilon = 0.05 * float(costs[:num_source, num_source:].mean())

    def statistic(source: IntArray, target: IntArray) -> float:
        between, own = costs[np.ix_(source, target)], (costs[np.ix_(source, source)], costs[np.ix_(target, target)])
        return float(divergence_of_costs(np, between, own[0], own[1], epsilon, 1e-3))

    return statistic


def prepare_exact(order: int) -> Prepare:
    """Return what gives the Wasserstein distance of an order of places, over costs that are computed once."""

    def prepare(pooled: Array, num_source: int) -> Statistic:
        costs = np.abs(_negative_distances(pooled, num_source)) ** order

        def statistic(source: IntArray, target: IntArray) -> float:
            part = costs[np.ix_(source, target)]
            return float((optimal_plan("exact_wasserstein", part) * part).sum() ** (1 / order))

        return statistic

    return prepare


PAIR_MATRICES: Mapping[str, Callable[[Array, int], Array]] = {"mk-mmd": _kernel_matrix, "energy": _negative_distances}
"""Measures that are sums over entries of one matrix of all pairs, and that matrix."""
