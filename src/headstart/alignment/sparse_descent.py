"""Least values where weights cost their size: few features at a time, each step within one orthant.

    min over w, b   F(w, b),   F smooth where no weight changes its sign;   slopes s of the rest, costs c of the sizes |w|
    steepest way of a weight     s + c sign(w)   where w != 0,    sign(s) max(|s| - c, 0)   where w = 0
    step                         w - t H steepest, components that turn against it or change w's sign set to 0
    a feature with weight 0 and |s| <= c everywhere is at its optimum: rows are cut to the features in use, and others join

Source: Andrew & Gao, "Scalable training of l1-regularized log-linear models", ICML 2007 (orthant-wise L-BFGS), from memory. The
growing set of features is the usual one of l1 solvers. Ours is how many join at once: as many as are in use, fifty at least, the
steepest first.
Use these where wide rows need few features, as `CODA` does. They ignore second slopes that are not met on the way.
Shapes: d features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["Smooth", "minimise_sparse", "solve_growing"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Smooth = tuple[float, FloatArray, FloatArray, FloatArray]
_SLOPE = 1e-6  # the slope up to which an optimum is one
_GAIN = 1e-11  # the share of the value that a step must gain at least
_FEW = 50  # so many features may join at once, or as many as there are
_MEMORY = 10  # steps that L-BFGS remembers
_HALVINGS = 20  # of a step that leads up


def solve_growing(
    in_use_d: BoolArray,
    excess: Callable[[], FloatArray],
    solve: Callable[[IntArray], None],
    max_joinings: int | None = None,
) -> None:
    """Solve on few features, let those join whose slope outweighs what a weight costs, and again until there are none.

    A feature whose slope does not outweigh its cost has weight 0 at the optimum, so that leaving it out changes nothing.

    Parameters
    ----------
    in_use_d : ndarray of bool of shape (d,)
        Features to begin with.
    excess : callable
        For each feature, by how much its slope outweighs its cost at what was solved last.
    solve : callable
        Solves on the features with these numbers, from where the last solution is.
    max_joinings : int, optional
        How often features may join at most.

    Examples
    --------
    >>> seen = []
    >>> solve_growing(np.array([True, False, False]), lambda: np.array([0.0, 1.0, -1.0]), lambda few: seen.append(few.tolist()))
    >>> seen                                                 # the second asks to join, the third does not
    [[0, 1]]
    """
    in_use = in_use_d.copy()
    joinings = 0
    while max_joinings is None or joinings < max_joinings:
        over = np.where(in_use, 0.0, excess())
        asking = np.flatnonzero(over > _SLOPE)
        if joinings and not len(asking):
            break
        most = max(_FEW, int(in_use.sum()))
        in_use[asking[np.argsort(-over[asking], kind="stable")][:most]] = True
        solve(np.flatnonzero(in_use))
        joinings += 1


def minimise_sparse(
    smooth: Callable[[FloatArray, FloatArray], Smooth], weights: FloatArray, offsets: FloatArray, max_steps: int
) -> tuple[FloatArray, FloatArray]:
    """Return weights and offsets of least value; weights can be exactly 0.

    Orthant-wise L-BFGS (Andrew & Gao, "Scalable training of l1-regularized log-linear models", ICML 2007): a step keeps the
    signs of its orthant, in which the value is smooth, and a weight that would change its sign becomes 0.

    Parameters
    ----------
    smooth : callable
        ``(weights, offsets) -> value, slopes by weights without the l1 terms, by offsets, and the costs of the weights' sizes``.
    weights, offsets : ndarray
        Where to begin.
    max_steps : int
        Steps at most.
    """
    width, here = len(weights), np.concatenate([weights, offsets])

    def look(place: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        value, by_weights, by_offsets, costs = smooth(place[:width], place[width:])
        return value, np.concatenate([by_weights, by_offsets]), np.concatenate([costs, np.zeros(len(place) - width)])

    value, slope, costs = look(here)
    steps: list[tuple[FloatArray, FloatArray]] = []
    for _ in range(max_steps):
        steepest = _orthant_slope(here, slope, costs)
        if np.abs(steepest).max(initial=0.0) <= _SLOPE:
            break
        way = -_apply_memory(steps, steepest)
        way[way * steepest >= 0] = 0.0
        orthant = np.where(here != 0, np.sign(here), -np.sign(steepest))
        orthant[width:] = 0.0
        length = 1.0 if steps else min(1.0, 1.0 / float(np.abs(steepest).sum()))
        for _ in range(_HALVINGS):
            there = here + length * way
            there[orthant * there < 0] = 0.0
            new_value, new_slope, new_costs = look(there)
            if new_value <= value + 1e-4 * float(steepest @ (there - here)):
                break
            length /= 2
        else:
            break
        moved, turned = there - here, new_slope - slope
        if float(moved @ turned) > 1e-12 * float(turned @ turned):
            steps = [*steps[1 - _MEMORY :], (moved, turned)]
        gained = value - new_value
        here, value, slope, costs = there, new_value, new_slope, new_costs
        if gained <= _GAIN * max(1.0, abs(value)):
            break
    return here[:width], here[width:]


def _orthant_slope(here: FloatArray, slope: FloatArray, costs: FloatArray) -> FloatArray:
    """Return the slope of the value along each coordinate that is steepest downwards; 0 where both ways lead up."""
    at_zero = np.sign(slope) * np.maximum(np.abs(slope) - costs, 0.0)
    return np.where(here != 0, slope + costs * np.sign(here), at_zero)


def _apply_memory(steps: list[tuple[FloatArray, FloatArray]], slope: FloatArray) -> FloatArray:
    """Return the inverse of the curvature that the steps met, times the slope (the two loops of L-BFGS)."""
    found, shares = slope.copy(), []
    for moved, turned in reversed(steps):
        shares.append(float(moved @ found) / float(moved @ turned))
        found -= shares[-1] * turned
    if steps:
        moved, turned = steps[-1]
        found *= float(moved @ turned) / float(turned @ turned)
    for (moved, turned), share in zip(steps, reversed(shares), strict=True):
        found += (share - float(turned @ found) / float(moved @ turned)) * moved
    return found
