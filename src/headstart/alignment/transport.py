"""Optimal transport: move the source rows onto the target's at least cost, exactly, smoothly or in part.

    EMDTransport          min_P <P, C>                                           P 1 = 1/n, P' 1 = 1/m
    SinkhornTransport     min_P <P, C> + e KL(P | a b')                          the same marginals
    UnbalancedTransport   min_P <P, C> + e KL(P | a b') + w KL(P 1 | a) + w KL(P' 1 | b)
    PartialTransport      min_P <P, C>                                           P 1 <= 1/n, P' 1 <= 1/m, 1' P 1 = mass

Source: Courty, Flamary, Tuia & Rakotomamonjy, "Optimal transport for domain adaptation", IEEE TPAMI 2017
(arXiv:1507.00504); Cuturi, NeurIPS 2013, for the entropy; Chizat et al., Math. Comp. 2018, for the unbalanced form;
Caffarelli & McCann, "Free boundaries in optimal transport", Annals of Mathematics 2010, and Chapel, Alaya & Gasso,
NeurIPS 2020 (arXiv:2002.08276), for the partial one.
Use exact transport where the domains have the same classes in the same proportions and few rows; the entropic plan where
rows are many or noisy; the unbalanced and the partial one where proportions differ or the target lacks part of the
source. Costs are squared Euclidean distances over their own mean, so that the unit of the features never matters.
They ignore labels (`ClassRegularisedTransport` uses the source's), and need memory for n times m numbers.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from headstart.alignment.aligner import Domains, FeatureAligner
from headstart.alignment.option_checks import check_count, check_number
from headstart.alignment.transport_map import TransportMap
from headstart.alignment.transport_plans import (
    EntropicPlan,
    cost_scale,
    exact_plan,
    open_pot,
    sinkhorn_plan,
    squared_costs,
)
from headstart.core.errors import ConfigError

__all__ = [
    "EMDTransport",
    "PartialTransport",
    "SinkhornTransport",
    "TransportAligner",
    "UnbalancedTransport",
]

Array = npt.NDArray[Any]


class TransportAligner(FeatureAligner):
    """Base of the transport aligners: a subclass finds the plan (``_plan``); target rows stay as they are.

    After ``fit``: ``plan_`` of shape (n, m), the mass sent from each source to each target row; ``cost_scale_``, what
    costs were divided by; ``map_``, which moves rows.
    """

    fit_only: ClassVar[frozenset[str]] = frozenset({"plan_", "map_"})

    def _align(self, domains: Domains) -> None:
        costs = squared_costs(domains.source_nd, domains.target_md)
        self.cost_scale_ = cost_scale(type(self).__name__, costs, self._normalise())
        costs /= self.cost_scale_
        num_source, num_target = costs.shape
        self.plan_ = self._plan(
            costs, np.full(num_source, 1.0 / num_source), np.full(num_target, 1.0 / num_target), domains
        )
        self.map_ = TransportMap(domains.source_nd, self.plan_, domains.target_md)

    def _normalise(self) -> str:
        """Return how costs are scaled; a plan that no scale changes is computed with the mean."""
        return str(getattr(self, "normalise", "mean"))

    @abstractmethod
    def _plan(self, costs_nm: Array, source_mass_n: Array, target_mass_m: Array, domains: Domains) -> Array:
        """Return the plan for scaled costs."""

    def _map_source(self, X: Array) -> Array:
        return self.map_(X)

    def _map_target(self, X: Array) -> Array:
        return X


class EMDTransport(TransportAligner):
    """Exact optimal transport ("earth mover's distance") with barycentric mapping; needs POT (extra ``ot``).

    Examples
    --------
    >>> source, target = np.array([[0.0], [1.0]]), np.array([[20.0], [10.0]])
    >>> EMDTransport().fit_transform(source, None, target).tolist()
    [[10.0], [20.0]]
    """

    def _plan(self, costs_nm: Array, source_mass_n: Array, target_mass_m: Array, domains: Domains) -> Array:
        return exact_plan(type(self).__name__, costs_nm, source_mass_n, target_mass_m)


class SinkhornTransport(TransportAligner):
    """Entropic optimal transport with barycentric mapping.

    The entropy draws images towards their mean, more with a larger ``regularisation``; identical domains are therefore not
    left as they are unless ``debias`` is set. After ``fit`` also ``num_rounds_`` and ``marginal_error_``, the share of
    mass that the last round still moved.

    Parameters
    ----------
    regularisation : float, above 0
        Weight of the entropy, in units of the scaled cost.
    debias : bool
        Whether the entropy's own shift is taken out: ``x + T(x) - T_S(x)``, with ``T_S`` the entropic map of the source
        onto itself. It costs a second plan.
    normalise : {"mean", "median", "max", "none"}
        What squared distances are divided by.
    tolerance : float, above 0
        Stop when a round moves less than this share of the mass.
    max_rounds : int, at least 1
        Most rounds.

    Examples
    --------
    >>> source, target = np.array([[0.0], [10.0]]), np.array([[3.0], [13.0]])
    >>> SinkhornTransport(regularisation=0.01).fit_transform(source, None, target).round(6).tolist()
    [[3.0], [13.0]]
    """

    def __init__(
        self,
        regularisation: float = 0.05,
        debias: bool = False,
        normalise: str = "mean",
        tolerance: float = 1e-7,
        max_rounds: int = 1000,
    ) -> None:
        self.regularisation = regularisation
        self.debias = debias
        self.normalise = normalise
        self.tolerance = tolerance
        self.max_rounds = max_rounds

    def _align(self, domains: Domains) -> None:
        super()._align(domains)
        if self.debias:
            source = domains.source_nd
            mass = np.full(len(source), 1.0 / len(source))
            own = self._entropic(squared_costs(source, source) / self.cost_scale_, mass, mass).plan_nm
            self.map_.images = self.map_.rows + self.map_.images - TransportMap(source, own, source).images

    def _plan(self, costs_nm: Array, source_mass_n: Array, target_mass_m: Array, domains: Domains) -> Array:
        found = self._entropic(costs_nm, source_mass_n, target_mass_m)
        self.num_rounds_, self.marginal_error_ = found.num_rounds, found.error
        return found.plan_nm

    def _entropic(self, costs_nm: Array, source_mass_n: Array, target_mass_m: Array) -> EntropicPlan:
        who = type(self).__name__
        check_number(who, "regularisation", self.regularisation, low_included=False, high_included=False)
        check_number(who, "tolerance", self.tolerance, low_included=False, high_included=False)
        check_count(who, "max_rounds", self.max_rounds)
        return sinkhorn_plan(
            costs_nm,
            source_mass_n,
            target_mass_m,
            self.regularisation,
            tolerance=self.tolerance,
            max_rounds=self.max_rounds,
        )


class UnbalancedTransport(TransportAligner):
    """Entropic transport that may leave mass behind, or bring some, for a price: for other class proportions and outliers.

    After ``fit``: ``source_mass_`` of shape (n,), the mass each source row kept, at most about 1/n.

    Parameters
    ----------
    regularisation : float, above 0
        Weight of the entropy, in units of the scaled cost.
    marginal_weight : float, above 0
        Weight of the marginals' Kullback-Leibler divergences: a row whose cheapest cost is beyond a few times it stays behind.
    normalise : {"mean", "median", "max", "none"}
        What squared distances are divided by.
    max_rounds : int, at least 1
        Most rounds.

    Examples
    --------
    >>> source, target = np.array([[0.0], [1.0], [90.0]]), np.array([[0.0], [1.0]])
    >>> fitted = UnbalancedTransport(regularisation=1e-4, marginal_weight=0.01).fit(source, None, target)
    >>> (fitted.source_mass_ > 0.1).tolist()                                     # the outlier is not sent
    [True, True, False]
    """

    def __init__(
        self,
        regularisation: float = 0.05,
        marginal_weight: float = 1.0,
        normalise: str = "mean",
        max_rounds: int = 1000,
    ) -> None:
        self.regularisation = regularisation
        self.marginal_weight = marginal_weight
        self.normalise = normalise
        self.max_rounds = max_rounds

    def _plan(self, costs_nm: Array, source_mass_n: Array, target_mass_m: Array, domains: Domains) -> Array:
        who = type(self).__name__
        check_number(who, "regularisation", self.regularisation, low_included=False, high_included=False)
        check_number(who, "marginal_weight", self.marginal_weight, low_included=False, high_included=False)
        check_count(who, "max_rounds", self.max_rounds)
        plan = sinkhorn_plan(
            costs_nm,
            source_mass_n,
            target_mass_m,
            self.regularisation,
            marginal_weight=self.marginal_weight,
            max_rounds=self.max_rounds,
        ).plan_nm
        self.source_mass_ = plan.sum(axis=1)
        if not self.source_mass_.sum() > 0:
            raise ConfigError(
                f"{who}: marginal_weight={self.marginal_weight!r} is so small that no mass moves; raise it above the scaled cost."
            )
        return plan


class PartialTransport(TransportAligner):
    """Exact transport of a share of the mass, the cheapest; needs POT (extra ``ot``). Rows left behind move like their nearest.

    After ``fit``: ``source_mass_`` of shape (n,), what each source row sends, at most 1/n.

    Parameters
    ----------
    mass : float, above 0 and at most 1
        Share of both domains' mass that is moved.

    Examples
    --------
    >>> source, target = np.array([[0.0], [1.0], [90.0]]), np.array([[5.0], [6.0], [40.0]])
    >>> fitted = PartialTransport(mass=2 / 3).fit(source, None, target)
    >>> fitted.source_mass_.round(3).tolist()
    [0.333, 0.333, 0.0]
    """

    def __init__(self, mass: float = 0.8) -> None:
        self.mass = mass

    def _plan(self, costs_nm: Array, source_mass_n: Array, target_mass_m: Array, domains: Domains) -> Array:
        who = type(self).__name__
        check_number(who, "mass", self.mass, 0.0, 1.0, low_included=False)
        open_pot(who)
        num_source, num_target = costs_nm.shape
        # one more row and column take what stays behind, at a cost of 0; what they would send each other costs too much
        # to be used
        widened = np.zeros((num_source + 1, num_target + 1))
        widened[:-1, :-1] = costs_nm
        widened[-1, -1] = 2.0 * costs_nm.max() + 1.0
        left = max(1.0 - self.mass, 0.0)
        if left == 0.0:
            plan = exact_plan(who, costs_nm, source_mass_n, target_mass_m)
        else:
            plan = exact_plan(who, widened, np.r_[source_mass_n, left], np.r_[target_mass_m, left])[:-1, :-1]
        self.source_mass_ = plan.sum(axis=1)
        return plan
