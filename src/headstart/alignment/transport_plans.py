"""Costs between rows and transport plans over them: what every optimal-transport aligner is made of.

    cost      C_ij = |x_i - z_j|^2 / scale                                  scale: mean, median or largest of the squares, or 1
    Sinkhorn  min_P  <P, C> + e KL(P | a b')              with P 1 = a, P' 1 = b
    unbalanced       ... + w KL(P 1 | a) + w KL(P' 1 | b)  instead of the two constraints
    P_ij = a_i b_j u_i v_j exp((f_i + g_j - C_ij) / e),   u <- 1 / K(b v),  v <- 1 / K'(a u)

Source: Cuturi, "Sinkhorn distances", NeurIPS 2013 (arXiv:1306.0895); Chizat, Peyre, Schmitzer & Vialard, "Scaling
algorithms for unbalanced optimal transport", Math. Comp. 2018 (arXiv:1607.05816), for the unbalanced update and for
absorbing large u and v into the potentials f and g, which start at the least cost of each row and column, so that no
kernel row underflows. Over-relaxed steps with a factor from the observed rate: Lehmann, von Renesse, Sambale &
Uschmajew, "A note on overrelaxation in the Sinkhorn algorithm", Optimization Letters 2021 (arXiv:2012.12562).
A sharp plan (small e) starts from the potentials of a smoother one.
Use these to write a transport aligner. Exact plans come from POT (extra ``ot``); the entropic one is written here,
because the marginal error is free inside the iteration and costs POT a pass over the plan.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.alignment.option_checks import check_choice
from headstart.core.errors import MissingExtra, TrainingError

__all__ = ["COST_SCALES", "EntropicPlan", "cost_scale", "exact_plan", "open_pot", "sinkhorn_plan", "squared_costs"]

Array = npt.NDArray[Any]
COST_SCALES = ("mean", "median", "max", "none")
_LARGEST = 1e60
_SHARP, _SMOOTHER = 100.0, 100


def open_pot(who: str) -> Any:
    """Return POT's module, or say which extra to install.

    Raises
    ------
    MissingExtra
        If POT is not installed.
    """
    try:
        import ot
    except ImportError:
        raise MissingExtra(who, "POT", "ot") from None
    return ot


def squared_costs(source_nd: Array, target_md: Array) -> Array:
    """Return squared Euclidean distances (n, m) in float64; rows are centred first, which keeps digits far from the origin.

    Examples
    --------
    >>> squared_costs(np.array([[0.0], [1.0]]), np.array([[3.0]])).tolist()
    [[9.0], [4.0]]
    """
    centre = target_md.mean(axis=0, dtype=np.float64)
    source, target = source_nd - centre, target_md - centre
    costs = source @ target.T
    costs *= -2.0
    costs += np.square(source).sum(axis=1)[:, None]
    costs += np.square(target).sum(axis=1)
    np.maximum(costs, 0.0, out=costs)
    return np.asarray(costs)


def cost_scale(who: str, costs_nm: Array, normalise: str) -> float:
    """Return what costs are divided by: above 0, and 1 where all costs are 0.

    Raises
    ------
    ConfigError
        If ``normalise`` is none of `COST_SCALES`.

    Examples
    --------
    >>> cost_scale("EMDTransport", np.array([[1.0, 3.0]]), "mean")
    2.0
    """
    check_choice(who, "normalise", normalise, COST_SCALES)
    if normalise == "none":
        return 1.0
    if normalise == "median":
        scale = float(np.median(costs_nm))
    else:
        scale = float(costs_nm.mean() if normalise == "mean" else costs_nm.max())
    return scale if scale > 0 else float(costs_nm.mean()) or 1.0


def exact_plan(who: str, costs_nm: Array, source_mass_n: Array, target_mass_m: Array) -> Array:
    """Return the plan of least cost with these marginals (network simplex, POT).

    Raises
    ------
    MissingExtra
        If POT is not installed.
    TrainingError
        If the solver stops before the optimum.
    """
    plan, log = open_pot(who).emd(source_mass_n, target_mass_m, costs_nm, numItermax=50_000_000, log=True)
    if log["warning"] is not None:
        raise TrainingError(
            f"{who}: the exact transport solver stopped early ({log['warning']}); try SinkhornTransport."
        )
    return np.asarray(plan)


@dataclass(frozen=True)
class EntropicPlan:
    """What `sinkhorn_plan` found.

    Parameters
    ----------
    plan_nm : ndarray of shape (n, m)
        Mass sent from each source to each target row.
    source_potential_n, target_potential_m : ndarray
        Dual potentials F and G in the unit of the costs: ``P_ij = a_i b_j exp((F_i + G_j - C_ij) / e)``.
    num_rounds : int
        Rounds taken.
    error : float
        Total mass by which the target's marginal moved in the last round; 0 at the optimum.
    """

    plan_nm: Array
    source_potential_n: Array
    target_potential_m: Array
    num_rounds: int
    error: float


def sinkhorn_plan(
    costs_nm: Array,
    source_mass_n: Array,
    target_mass_m: Array,
    regularisation: float,
    *,
    marginal_weight: float = math.inf,
    tolerance: float = 1e-9,
    max_rounds: int = 1000,
    start_m: Array | None = None,
) -> EntropicPlan:
    """Return the entropic plan; ``marginal_weight`` below infinity lets the marginals go for its price.

    Parameters
    ----------
    costs_nm : ndarray of shape (n, m)
    source_mass_n, target_mass_m : ndarray
        Masses above 0.
    regularisation : float, above 0
        Weight of the entropy, in the unit of the costs.
    marginal_weight : float, above 0
        Weight of each marginal's Kullback-Leibler divergence, in the unit of the costs; infinite: marginals are kept.
    tolerance : float
        Stop when a round moves less than this share of the mass.
    max_rounds : int
        Most rounds; the plan of the last is returned with its ``error``.
    start_m : ndarray, optional
        Target potential to begin with, for a problem near one that was solved.

    Returns
    -------
    EntropicPlan

    Examples
    --------
    >>> half = np.array([0.5, 0.5])
    >>> sinkhorn_plan(np.array([[0.0, 9.0], [9.0, 0.0]]), half, half, 0.1).plan_nm.round(6).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    a, b, share = source_mass_n, target_mass_m, 1.0
    if math.isfinite(marginal_weight):
        share = marginal_weight / (marginal_weight + regularisation)
    if start_m is None and float(np.ptp(costs_nm)) > _SHARP * regularisation:  # solve a smoother problem first
        start_m = sinkhorn_plan(
            costs_nm, a, b, 4.0 * regularisation, marginal_weight=marginal_weight, tolerance=1e-3, max_rounds=_SMOOTHER
        ).target_potential_m
    g = np.zeros(len(b)) if start_m is None else start_m.astype(np.float64)
    f = (costs_nm - g).min(axis=1)
    g = (costs_nm - f[:, None]).min(axis=0)
    kernel = _kernel(costs_nm, f, g, regularisation)
    u, v = np.ones(len(a)), np.ones(len(b))
    relax, errors, error, num_rounds = 1.0, [math.inf], math.inf, 0
    for num_rounds in range(1, max_rounds + 1):
        u = (
            _scaling(kernel @ (b * v), f, regularisation, share)
            if relax == 1.0 or num_rounds == 1
            else (u ** (1.0 - relax) * _scaling(kernel @ (b * v), f, regularisation, share) ** relax)
        )
        following = _scaling((a * u) @ kernel, g, regularisation, share)
        error = float((b * np.abs(v / following - 1.0)).sum())
        v = following if relax == 1.0 else v ** (1.0 - relax) * following**relax
        if error <= tolerance:
            v = following
            break
        relax = _relaxation(errors, error, relax)
        largest = max(u.max(), v.max(), 1.0 / u.min(), 1.0 / v.min())
        if not largest < _LARGEST:
            f, g = f + regularisation * np.log(u), g + regularisation * np.log(v)
            kernel = _kernel(costs_nm, f, g, regularisation)
            u, v = np.ones(len(a)), np.ones(len(b))
    plan = (a * u)[:, None] * kernel
    plan *= b * v
    f, g = f + regularisation * np.log(u), g + regularisation * np.log(v)
    return EntropicPlan(plan, f, g, num_rounds, error)


def _kernel(costs_nm: Array, f_n: Array, g_m: Array, regularisation: float) -> Array:
    exponent = f_n[:, None] - costs_nm
    exponent += g_m
    exponent /= regularisation
    return np.asarray(np.exp(exponent, out=exponent))


def _scaling(reached: Array, potential: Array, regularisation: float, share: float) -> Array:
    """Return the factors that restore a marginal, given what the kernel carries to it."""
    if share == 1.0:
        return np.asarray(1.0 / reached)
    return np.asarray(np.exp((share - 1.0) * potential / regularisation - share * np.log(reached)))


def _relaxation(errors: list[float], error: float, relax: float) -> float:
    """Return the factor of the next round, from the rate at which plain rounds converge; 1 after any setback."""
    errors.append(error)
    if relax > 1.0:
        return 1.0 if error > 4.0 * min(errors[:-1]) else relax
    if len(errors) % 20 or not error < errors[-6]:
        return relax
    rate = (error / errors[-6]) ** 0.2
    return min(2.0 / (1.0 + math.sqrt(max(1.0 - rate, 1e-4))), 1.9)
