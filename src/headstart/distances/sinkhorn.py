"""Sinkhorn divergence: optimal transport smoothed by entropy, without the bias that smoothing brings.

    OT_e(S, T) = min over plans P of <P, C> + e KL(P | a b')      C_ij = |x_i - y_j|^p,  a, b: equal weights
    D_e(S, T)  = OT_e(S, T) - OT_e(S, S) / 2 - OT_e(T, T) / 2

    f_i = -e log sum_j b_j exp((g_j - C_ij) / e),   g_j likewise from f       (log domain; e falls from the largest cost to its
    value, and the two potentials are averaged with their updates, as in the source)

Source: Genevay, Peyré & Cuturi, "Learning generative models with Sinkhorn divergences", AISTATS 2018 (arXiv:1706.00292);
Feydy et al., "Interpolating between optimal transport and MMD using Sinkhorn divergences", AISTATS 2019 (arXiv:1810.08278).
Unit: feature unit to the power p.
Use it as a loss or a measure where the exact distance is too noisy or too slow; ``epsilon`` near 0 gives W_p^p, large the energy
distance (p = 1) or the squared gap of the means (p = 2).
It ignores labels, and is led by features of large spread. ``epsilon`` is a share of the mean cost, so that neither the unit of
the features nor their number decides how smooth it is. Memory is a few (n, m) matrices.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from typing import Any

from headstart.core.errors import ConfigError
from headstart.distances.pairs import centre_together, squared_distances
from headstart.distances.rows import check_order, constant, finish, read_domains, root

__all__ = ["divergence_of_costs", "sinkhorn_divergence"]


def sinkhorn_divergence(
    source_nd: Any,
    target_md: Any,
    *,
    epsilon: float = 0.05,
    order: int = 2,
    normalise: bool = True,
    tolerance: float = 1e-4,
    max_steps: int = 1000,
) -> Any:
    """Return the debiased Sinkhorn divergence of two domains.

    Parameters
    ----------
    source_nd, target_md : array or tensor of shape (n, d) and (m, d)
        Features.
    epsilon : float, above 0
        How smooth: a share of the mean cost between the domains where ``normalise``, otherwise in the unit of the cost.
    order : {1, 2}
        Cost is the distance to this power.
    normalise : bool
        Whether ``epsilon`` is a share of the mean cost.
    tolerance : float, above 0
        A plan is done when potentials change by less than this share of ``epsilon``.
    max_steps : int, at least 1
        Steps at most.

    Returns
    -------
    float or Tensor of shape ()
        At least 0 up to the tolerance; 0 for equal rows. Unit: feature unit to the power ``order``.

    Raises
    ------
    HeadstartError
        If the rows cannot be compared, or an option breaks its rule.

    Examples
    --------
    >>> round(sinkhorn_divergence([[0.0], [1.0]], [[3.0], [4.0]]), 6)     # a shift by 3: 3^2, whatever epsilon
    9.0
    """
    who = "sinkhorn_divergence"
    check_order(who, order)
    if not epsilon > 0 or not tolerance > 0 or max_steps < 1:
        raise ConfigError(
            f"{who}: epsilon and tolerance are above 0, max_steps at least 1; got {epsilon}, {tolerance}, {max_steps}."
        )
    xp, source, target = read_domains(who, source_nd, target_md)
    source, target = centre_together(xp, source, target)
    costs = [squared_distances(xp, first, second) for first, second in
             ((source, target), (source, source), (target, target))]  # fmt: skip
    if order == 1:
        costs = [root(xp, cost) for cost in costs]
    smoothing = epsilon * float(xp.mean(constant(costs[0]))) if normalise else epsilon
    return finish(divergence_of_costs(xp, costs[0], costs[1], costs[2], smoothing, tolerance, max_steps))


def divergence_of_costs(
    xp: Any,
    between_nm: Any,
    source_nn: Any,
    target_mm: Any,
    epsilon: float,
    tolerance: float = 1e-4,
    max_steps: int = 1000,
) -> Any:
    """Return the divergence from the three cost matrices; ``epsilon`` in their unit."""
    if epsilon <= 0:  # every cost between the domains is 0
        return xp.sum(between_nm) * 0.0
    cross = _smoothed_cost(xp, between_nm, epsilon, tolerance, max_steps)
    own = [_smoothed_cost(xp, costs, epsilon, tolerance, max_steps) for costs in (source_nn, target_mm)]
    return cross - (own[0] + own[1]) / 2


def _smoothed_cost(xp: Any, costs_nm: Any, epsilon: float, tolerance: float, max_steps: int) -> Any:
    """Return ``OT_e`` as its dual at the best potentials; they are constants, so that the gradient is the plan's."""
    fixed_nm = constant(costs_nm) / epsilon
    f_n, g_m = _potentials(xp, fixed_nm, tolerance, max_steps)
    plan_nm = xp.exp(f_n[:, None] + g_m[None, :] - costs_nm / epsilon)
    return epsilon * (xp.mean(f_n) + xp.mean(g_m) + 1 - xp.mean(plan_nm))


def _potentials(xp: Any, costs_nm: Any, tolerance: float, max_steps: int) -> tuple[Any, Any]:
    """Return the potentials over epsilon for costs over epsilon."""
    f_n, g_m = xp.zeros_like(costs_nm[:, 0]), xp.zeros_like(costs_nm[0, :])
    heat = max(1.0, float(xp.max(costs_nm)))
    for _ in range(max_steps):
        new_f = _soft_minimum(xp, costs_nm / heat - g_m[None, :] / heat, 1) * heat
        new_g = _soft_minimum(xp, costs_nm / heat - f_n[:, None] / heat, 0) * heat
        change = float(xp.max(xp.abs(new_f - f_n)))
        f_n, g_m = (f_n + new_f) / 2, (g_m + new_g) / 2
        if heat == 1.0 and change <= tolerance:
            break
        heat = max(1.0, heat / 2)
    # one exact half step: the plan's rows then add up to the source weights
    return _soft_minimum(xp, costs_nm - g_m[None, :], 1), g_m


def _soft_minimum(xp: Any, values: Any, axis: int) -> Any:
    """Return ``-log mean exp(-values)`` along an axis."""
    least = xp.min(values, axis=axis, keepdims=True)
    return xp.squeeze(least, axis=axis) - xp.log(xp.mean(xp.exp(least - values), axis=axis))
