"""Wasserstein distances: the least cost of moving one domain's rows onto the other's.

    W_p(S, T)   = (min over plans P of sum_ij P_ij |x_i - y_j|^p)^(1/p)       p = 1 or 2
    one feature : (integral_0^1 |F_S^-1(q) - F_T^-1(q)|^p dq)^(1/p)           sorted rows against sorted rows
    sliced      : (mean over directions u of W_p(u'S, u'T)^p)^(1/p)           u uniform on the sphere
    max-sliced  : max over directions u of W_p(u'S, u'T)

Source: Peyré & Cuturi, "Computational optimal transport", Foundations and Trends in Machine Learning 2019 (arXiv:1803.00567);
Bonneel, Rabin, Peyré & Pfister, "Sliced and Radon Wasserstein barycenters of measures", Journal of
Mathematical Imaging and Vision 2015; Deshpande et al., "Max-sliced Wasserstein distance and its use for GANs", CVPR 2019
(arXiv:1904.05877). Unit: feature unit.
Use the exact distance for up to some thousand rows, sliced for any number, max-sliced to see the one direction that carries most.
They ignore labels, and are led by features of large spread; standardise features of different units first. The exact distance
between finite samples of *equal* domains is well above 0 in many dimensions (about n^(-1/d)), and max-sliced likewise: read
them against their permutation test. `sliced` shrinks by about 1/sqrt(d) against `exact`.
Shapes: n source rows, m target rows, d features, r directions, q steps of the two quantile functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.checks import HasShape
from headstart.core.errors import ConfigError, DomainError, MissingExtra
from headstart.core.seeds import generator
from headstart.distances.moments import column_mean, largest_change
from headstart.distances.pairs import centre_together, squared_distances
from headstart.distances.rows import as_numpy, check_order, constant, finish, read_domains, root, take_rows

__all__ = [
    "exact_wasserstein",
    "max_sliced_direction",
    "max_sliced_wasserstein",
    "sliced_wasserstein",
    "sphere_directions",
    "wasserstein_1d",
]

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
_BLOCK_DIRECTIONS = 32
_MAX_PAIRS = 50_000_000


def wasserstein_1d(source_n: Any, target_m: Any, *, order: int = 1) -> Any:
    """Return the exact Wasserstein distance of one feature.

    Parameters
    ----------
    source_n, target_m : array or tensor of shape (n,) and (m,), or (n, 1) and (m, 1)
        Values; n and m need not be equal.
    order : {1, 2}
        1: mean distance moved; 2: root of the mean squared distance.

    Returns
    -------
    float or Tensor of shape ()
        At least 0. Unit: that of the feature.

    Raises
    ------
    HeadstartError
        If the values cannot be compared, or ``order`` is neither 1 nor 2.

    Examples
    --------
    >>> wasserstein_1d([0.0, 1.0], [2.0])            # 2 and 1, half each
    1.5
    >>> wasserstein_1d([0.0, 1.0], [1.0, 2.0], order=2)
    1.0
    """
    check_order("wasserstein_1d", order)
    xp, source, target = read_domains("wasserstein_1d", _column(source_n), _column(target_m))
    if source.shape[1] != 1:
        raise ConfigError(f"wasserstein_1d: takes one feature; got {source.shape[1]}. Use sliced_wasserstein.")
    return finish(_root(xp, _powers(xp, source, target, order)[0], order))


def sliced_wasserstein(
    source_nd: Any, target_md: Any, *, order: int = 2, num_directions: int = 128, seed: int = 0
) -> Any:
    """Return the sliced Wasserstein distance: the one-dimensional distance, averaged over random directions.

    Parameters
    ----------
    source_nd, target_md : array or tensor of shape (n, d) and (m, d)
        Features.
    order : {1, 2}
        Power to which distances are averaged.
    num_directions : int, at least 1
        Directions drawn; the more, the less noise. Memory is that of 32 projections, whatever their number.
    seed : int
        Draws them.

    Returns
    -------
    float or Tensor of shape ()
        At least 0. Unit: feature unit.

    Raises
    ------
    HeadstartError
        If the rows cannot be compared, or an option breaks its rule.

    Examples
    --------
    >>> import numpy as np
    >>> sliced_wasserstein(np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]]))     # one feature: no slicing
    1.0
    """
    who = "sliced_wasserstein"
    check_order(who, order)
    xp, source, target = read_domains(who, source_nd, target_md)
    source, target = centre_together(xp, source, target)
    directions_dr = sphere_directions(who, source.shape[1], num_directions, seed)
    total = 0.0
    for start in range(0, num_directions, _BLOCK_DIRECTIONS):
        block = _like(xp, directions_dr[:, start : start + _BLOCK_DIRECTIONS], source)
        total = total + xp.sum(_powers(xp, source @ block, target @ block, order))
    return finish(_root(xp, total / num_directions, order))


def max_sliced_wasserstein(
    source_nd: Any, target_md: Any, *, order: int = 2, num_steps: int = 30, num_starts: int = 4, seed: int = 0
) -> Any:
    """Return the largest one-dimensional Wasserstein distance over all directions, as far as ascent finds it.

    Parameters
    ----------
    source_nd, target_md : array or tensor of shape (n, d) and (m, d)
        Features.
    order : {1, 2}
        1 or 2.
    num_steps : int, at least 1
        Steps of the ascent from each start.
    num_starts : int, at least 1
        Starting directions: the gap of the means, the direction whose spread differs most, then random ones.
    seed : int
        Draws those.

    Returns
    -------
    float or Tensor of shape ()
        At least 0, and a lower bound of the maximum. Unit: feature unit. It is found and measured on the same rows: with few
        rows and many features it is well above 0 for equal domains too.

    Raises
    ------
    HeadstartError
        If the rows cannot be compared, or an option breaks its rule.

    Examples
    --------
    >>> import numpy as np
    >>> source = np.array([[0.0, 0.0], [0.0, 2.0]])
    >>> round(max_sliced_wasserstein(source, source + np.array([3.0, 4.0])), 6)     # the means are 5 apart
    5.0
    """
    xp, source, target = read_domains("max_sliced_wasserstein", source_nd, target_md)
    direction_d1 = max_sliced_direction(
        source, target, order=order, num_steps=num_steps, num_starts=num_starts, seed=seed
    )[:, None]
    direction_d1 = _like(xp, direction_d1, source)
    source, target = centre_together(xp, source, target)
    return finish(_root(xp, _powers(xp, source @ direction_d1, target @ direction_d1, order)[0], order))


def max_sliced_direction(
    source_nd: Any, target_md: Any, *, order: int = 2, num_steps: int = 30, num_starts: int = 4, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Return the unit direction of `max_sliced_wasserstein`, shape (d,): which mixture of features carries most.

    Raises
    ------
    HeadstartError
        As `max_sliced_wasserstein`.

    Examples
    --------
    >>> import numpy as np
    >>> source = np.array([[0.0, 0.0], [0.0, 2.0]])
    >>> np.abs(max_sliced_direction(source, source + np.array([3.0, 0.0]))).round(6).tolist()
    [1.0, 0.0]
    """
    who = "max_sliced_wasserstein"
    check_order(who, order)
    if num_steps < 1 or num_starts < 1:
        raise ConfigError(f"{who}: num_steps and num_starts are at least 1; got {num_steps} and {num_starts}.")
    xp, source, target = read_domains(who, source_nd, target_md)
    source, target = centre_together(xp, constant(source), constant(target))
    best_value, best = -1.0, np.zeros(source.shape[1])
    for start_d in _starts(who, xp, source, target, num_starts, seed):
        value, direction_d = _ascend(xp, source, target, start_d, order, num_steps)
        if value > best_value:
            best_value, best = value, direction_d
    return best


def exact_wasserstein(source_nd: Any, target_md: Any, *, order: int = 2) -> Any:
    """Return the exact Wasserstein distance of two sets of rows, from POT's network simplex (extra ``ot``).

    Parameters
    ----------
    source_nd, target_md : array or tensor of shape (n, d) and (m, d)
        Features; at most 50 million pairs. Time grows about with the cube of the rows.
    order : {1, 2}
        1: mean distance moved; 2: root of the mean squared distance moved.

    Returns
    -------
    float or Tensor of shape ()
        At least 0. Unit: feature unit. Gradients flow through the distances at the optimal plan.

    Raises
    ------
    MissingExtra
        If POT is not installed.
    HeadstartError
        If the rows cannot be compared or are too many, or ``order`` is neither 1 nor 2.

    Examples
    --------
    >>> exact_wasserstein([[0.0, 0.0], [1.0, 0.0]], [[1.0, 2.0], [0.0, 2.0]])     # both rows move up by 2
    2.0
    """
    who = "exact_wasserstein"
    check_order(who, order)
    xp, source, target = read_domains(who, source_nd, target_md)
    if source.shape[0] * target.shape[0] > _MAX_PAIRS:
        raise DomainError(
            f"{who}: {source.shape[0]} x {target.shape[0]} pairs are more than {_MAX_PAIRS}; "
            "use sliced_wasserstein, or draw rows."
        )
    source, target = centre_together(xp, source, target)
    costs_nm = squared_distances(xp, source, target)
    costs_nm = costs_nm if order == 2 else root(xp, costs_nm)
    plan_nm = optimal_plan(who, as_numpy(costs_nm))
    return finish(_root(xp, xp.sum(_like(xp, plan_nm, source) * costs_nm), order))


def optimal_plan(who: str, costs_nm: Array) -> Array:
    """Return the plan of least cost between rows of equal weight, shape (n, m), in float64."""
    try:
        import ot
    except ImportError as error:
        raise MissingExtra(who, "POT", "ot") from error
    scaled = np.ascontiguousarray(costs_nm, dtype=np.float64)
    scaled = scaled / (scaled.max() or 1.0)
    plan, log = ot.emd([], [], scaled, numItermax=10_000_000, log=True)
    if log["warning"] is not None:
        raise DomainError(f"{who}: no optimal plan was found ({log['warning']}); use fewer rows or sliced_wasserstein.")
    return np.asarray(plan)


def sphere_directions(who: str, width: int, num_directions: int, seed: int) -> npt.NDArray[np.float64]:
    """Return directions drawn uniformly from the unit sphere, shape (d, r)."""
    if num_directions < 1:
        raise ConfigError(f"{who}: num_directions must be at least 1; got {num_directions}.")
    drawn_dr = generator(seed, "directions").normal(size=(num_directions, width)).T
    return np.asarray(drawn_dr / np.linalg.norm(drawn_dr, axis=0))


def quantile_steps(num_source: int, num_target: int) -> tuple[IntArray, IntArray, npt.NDArray[np.float64]]:
    """Return which sorted source and target row stand at each step of the two quantile functions, and the steps' widths.

    Whole numbers throughout: a step of 1/n is m and one of 1/m is n in units of 1/(n m).

    Examples
    --------
    >>> source, target, width = quantile_steps(2, 3)
    >>> source.tolist(), target.tolist(), (6 * width).round(9).tolist()
    ([0, 0, 1, 1], [0, 1, 1, 2], [2.0, 1.0, 1.0, 2.0])
    """
    ends = np.union1d(
        np.arange(1, num_source + 1, dtype=np.int64) * num_target,
        np.arange(1, num_target + 1, dtype=np.int64) * num_source,
    )
    starts = np.concatenate([[0], ends[:-1]])
    return starts // num_target, starts // num_source, (ends - starts) / (num_source * num_target)


def _powers(xp: Any, source_nr: Any, target_mr: Any, order: int) -> Any:
    """Return ``W_p^p`` of each column, shape (r,)."""
    source_nr, target_mr = xp.sort(source_nr, axis=0), xp.sort(target_mr, axis=0)
    if source_nr.shape[0] == target_mr.shape[0]:
        gap = source_nr - target_mr
        return xp.mean(xp.abs(gap) if order == 1 else gap * gap, axis=0)
    source_q, target_q, width_q = quantile_steps(source_nr.shape[0], target_mr.shape[0])
    gap = take_rows(xp, source_nr, source_q) - take_rows(xp, target_mr, target_q)
    return _like(xp, width_q, gap) @ (xp.abs(gap) if order == 1 else gap * gap)


def _root(xp: Any, power: Any, order: int) -> Any:
    return power if order == 1 else root(xp, power)


def _like(xp: Any, array: Array, rows: Any) -> Any:
    """Return an array in the type and on the device of the rows."""
    return xp.asarray(array, dtype=rows.dtype, device=rows.device)


def _column(values: Any) -> Any:
    values = values if hasattr(values, "shape") else np.asarray(values)
    shape: HasShape = values
    return values[:, None] if len(shape.shape) == 1 else values


def _starts(who: str, xp: Any, source: Any, target: Any, count: int, seed: int) -> list[npt.NDArray[np.float64]]:
    """Return unit directions: the gap of the means, the largest change of spread, random ones."""
    gap = as_numpy(column_mean(xp, target) - column_mean(xp, source)).astype(np.float64)
    starts = [gap] if np.linalg.norm(gap) > 0 else []
    if len(starts) < count and min(source.shape[0], target.shape[0]) > 1:
        centred = [as_numpy(rows - column_mean(xp, rows)) for rows in (source, target)]
        starts.append(largest_change(*centred)[1])
    starts += list(sphere_directions(who, len(gap), count, seed).T)
    return [start / np.linalg.norm(start) for start in starts[:count]]


def _ascend(
    xp: Any, source: Any, target: Any, direction_d: npt.NDArray[np.float64], order: int, num_steps: int
) -> tuple[float, npt.NDArray[np.float64]]:
    """Climb ``W_p^p`` over the sphere with backtracking; return its value and the direction."""
    value, gradient_d = _value_and_gradient(xp, source, target, direction_d, order)
    step = 1.0
    for _ in range(num_steps):
        uphill_d = gradient_d - (gradient_d @ direction_d) * direction_d
        length = float(np.linalg.norm(uphill_d))
        if length <= 1e-9 * max(value, 1e-300):
            break
        for _ in range(12):  # along the great circle towards the gradient, by a shorter angle each time
            angle = min(step, 1.5)
            tried_d = np.cos(angle) * direction_d + np.sin(angle) * uphill_d / length
            tried, gradient_of_tried = _value_and_gradient(xp, source, target, tried_d, order)
            if tried > value:
                break
            step /= 2
        else:
            break
        gain = tried - value
        value, gradient_d, direction_d, step = tried, gradient_of_tried, tried_d, min(1.5, 1.5 * step)
        if gain <= 1e-7 * value:
            break
    return value, direction_d


def _value_and_gradient(
    xp: Any, source: Any, target: Any, direction_d: npt.NDArray[np.float64], order: int
) -> tuple[float, npt.NDArray[np.float64]]:
    """Return ``W_p^p`` along one direction and its gradient at the optimal matching: two products with the rows."""
    placed = _like(xp, direction_d, source)
    source_n, target_m = as_numpy(source @ placed).astype(np.float64), as_numpy(target @ placed).astype(np.float64)
    source_order, target_order = np.argsort(source_n), np.argsort(target_m)
    source_q, target_q, width_q = quantile_steps(len(source_n), len(target_m))
    source_q, target_q = source_order[source_q], target_order[target_q]
    gap_q = source_n[source_q] - target_m[target_q]
    slope_q = width_q * (np.sign(gap_q) if order == 1 else 2 * gap_q)
    pull_n = _like(xp, np.bincount(source_q, slope_q, len(source_n)), source)
    pull_m = _like(xp, np.bincount(target_q, slope_q, len(target_m)), source)
    gradient_d = as_numpy(source.T @ pull_n - target.T @ pull_m).astype(np.float64)
    return float(width_q @ np.abs(gap_q) ** order), gradient_d
