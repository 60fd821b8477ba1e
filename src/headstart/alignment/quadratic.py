"""A convex quadratic over a box and a band: the problem inside kernel mean matching.

    minimise  1/2 x' K x - c' x     subject to  0 <= x <= upper,  low <= sum(x) <= high         K positive semi-definite

Source: projected gradients that find which bounds hold, conjugate gradients on the free entries (More & Toraldo, "On the
solution of large quadratic programming problems with bound constraints", SIAM J. Optimization 1991), with each projected
step taken to its exact minimum. The band is left out first; where the sum then breaks it, the optimum of the whole lies
on the broken side (convexity), and the problem is solved again with that sum held.
Use it for dense K of up to some thousands of rows. It costs one product with K a step and needs no decomposition, so that a K
without full rank (many equal rows, wide kernels) does no harm. It ignores sparsity.
Shapes: n variables.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["project", "solve_quadratic"]

Array = npt.NDArray[np.float64]
_PROJECTED_STEPS = 3


def solve_quadratic(
    K_nn: Array,
    c_n: Array,
    *,
    upper: float = math.inf,
    low: float = -math.inf,
    high: float = math.inf,
    start_n: Array | None = None,
    tolerance: float = 1e-9,
    max_steps: int = 2000,
) -> Array:
    """Return the minimiser of ``1/2 x'Kx - c'x`` with ``0 <= x <= upper`` and ``low <= sum(x) <= high``.

    Parameters
    ----------
    K_nn : ndarray of float64 of shape (n, n)
        Symmetric, positive semi-definite.
    c_n : ndarray of float64 of shape (n,)
    upper : float, above 0
        Upper bound of every entry; may be infinite.
    low, high : float
        Bounds of the sum; may be infinite. ``low <= n * upper`` and ``high >= 0`` must hold.
    start_n : ndarray, optional
        Where to begin; 0 when left out.
    tolerance : float
        Where to stop: no free slope above this share of the largest entry of ``c``, or a round that lowers the value by less
        than this share of it.
    max_steps : int
        Most products with ``K_nn``; the best point until then is returned.

    Returns
    -------
    ndarray of float64 of shape (n,)

    Examples
    --------
    >>> solve_quadratic(np.eye(2), np.array([3.0, -1.0])).tolist()              # free it would be (3, -1)
    [3.0, 0.0]
    >>> solve_quadratic(np.eye(2), np.array([3.0, 1.0]), high=2.0).tolist()     # nearest point with sum 2
    [2.0, 0.0]
    """
    start = np.zeros(len(c_n)) if start_n is None else start_n
    found = _solve(K_nn, c_n, upper, None, start, tolerance, max_steps)
    total = float(found.sum())
    if total > high or total < low:
        held = high if total > high else low
        found = _solve(K_nn, c_n, upper, held, found, tolerance, max_steps)
    return found


def project(point_n: Array, upper: float, total: float | None) -> Array:
    """Return the nearest point of the box ``[0, upper]``, with the sum ``total`` where one is held.

    Examples
    --------
    >>> project(np.array([2.0, -1.0, 5.0]), 4.0, None).tolist()
    [2.0, 0.0, 4.0]
    >>> project(np.array([2.0, 0.0]), 4.0, 1.0).tolist()
    [1.0, 0.0]
    """
    if total is None:
        return np.asarray(np.clip(point_n, 0.0, upper))
    below, above = point_n.min() - upper if math.isfinite(upper) else point_n.min() - total, point_n.max()
    shift = (below + above) / 2
    for _ in range(200):  # Newton's method on a falling, piecewise linear function, inside a shrinking bracket
        moved = point_n - shift
        excess = np.clip(moved, 0.0, upper).sum() - total
        if excess > 0:
            below = shift
        else:
            above = shift
        num_inside = np.count_nonzero((moved > 0) & (moved < upper))
        step = shift + excess / num_inside if num_inside else math.nan
        following = step if below < step < above else (below + above) / 2
        if following == shift or abs(excess) <= 1e-14 * max(abs(total), 1.0):
            break
        shift = following
    return np.asarray(np.clip(point_n - shift, 0.0, upper))


def _solve(
    K_nn: Array, c_n: Array, upper: float, total: float | None, start_n: Array, tolerance: float, max_steps: int
) -> Array:
    """Minimise over the box, with the sum held at ``total`` where it is not None."""
    x = project(start_n, upper, total)
    slope = K_nn @ x - c_n
    enough, num_products = tolerance * max(float(np.abs(c_n).max()), 1e-300), 0
    step = 1.0 / max(float(np.trace(K_nn)), 1e-300)  # the trace bounds the largest eigenvalue
    value = math.inf
    while num_products < max_steps:
        for turn in range(_PROJECTED_STEPS):
            # kernels have one long direction, nearly all ones: steps that keep the sum stay out of it
            held = total if total is not None or turn == _PROJECTED_STEPS - 1 else float(x.sum())
            move = project(x - step * slope, upper, held) - x
            product = K_nn @ move
            num_products += 1
            bend, fall = float(move @ product), -float(move @ slope)
            if fall <= 0.0:
                continue
            share = 1.0 if bend <= fall else fall / bend
            x, slope = np.clip(x + share * move, 0.0, upper), slope + share * product
            if bend > 0:
                step = float(move @ move) / bend
        before, value = value, 0.5 * float(x @ (slope - c_n))
        if _unmet(x, slope, upper, total) <= enough or before - value <= tolerance * abs(value):
            break
        free = (x > 0.0) & (x < upper)
        if np.count_nonzero(free) > (total is not None):
            inner = 0.1 * float(np.abs(slope[free]).max())
            move, used = _conjugate_gradients(K_nn, slope, free, total is not None, inner, max_steps - num_products)
            x, slope, used_again = _advance(K_nn, x, slope, move, upper, total)
            num_products += used + used_again
    return x


def _unmet(x: Array, slope: Array, upper: float, total: float | None) -> float:
    """Return by how much the conditions of optimality are missed: the largest slope a bound does not hold back."""
    if total is not None:
        free = (x > 0.0) & (x < upper)
        slope = slope - (slope[free].mean() if free.any() else np.median(slope))
    held = ((x <= 0.0) & (slope > 0.0)) | ((x >= upper) & (slope < 0.0))
    return float(np.abs(np.where(held, 0.0, slope)).max())


def _conjugate_gradients(
    K_nn: Array, slope_n: Array, free_n: npt.NDArray[np.bool_], keep_sum: bool, enough: float, budget: int
) -> tuple[Array, int]:
    """Return the move over the free entries that (nearly) minimises the quadratic, and the number of products it took."""
    centre: Callable[[Array], Array] = (lambda part: part - part.mean()) if keep_sum else (lambda part: part)
    inside = K_nn[np.ix_(free_n, free_n)] if free_n.mean() < 0.9 else None
    move, rest = np.zeros(int(free_n.sum())), centre(-slope_n[free_n])
    direction, length, wide = rest.copy(), float(rest @ rest), np.zeros(len(slope_n))
    used = 0
    for _ in range(min(len(move), max(budget, 1))):
        if inside is None:
            wide[free_n] = direction
            product = (K_nn @ wide)[free_n]
        else:
            product = inside @ direction
        used += 1
        bend = float(direction @ product)
        if bend <= 1e-15 * float(direction @ direction):
            break
        move += length / bend * direction
        rest -= length / bend * centre(product)
        shorter = float(rest @ rest)
        if np.abs(rest).max() <= enough:
            break
        direction, length = rest + shorter / length * direction, shorter
    wide[:] = 0.0
    wide[free_n] = move
    return wide, used


def _advance(
    K_nn: Array, x: Array, slope: Array, move: Array, upper: float, total: float | None
) -> tuple[Array, Array, int]:
    """Go along ``move``: the projection of its end where that lies lower, else as far as the bounds allow."""
    end = x + move
    floor, ceiling = 0.0, len(x) * upper
    for held in (total if total is not None else min(max(float(end.sum()), floor), ceiling), total):
        bent = project(end, upper, held) - x
        product = K_nn @ bent
        if float(bent @ slope) + 0.5 * float(bent @ product) < 0.0:
            return x + bent, slope + product, 1
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(move < 0.0, -x / move, np.where(move > 0.0, (upper - x) / move, math.inf))
    share = min(1.0, float(room.min()))
    return np.clip(x + share * move, 0.0, upper), slope + share * (K_nn @ move), 2
