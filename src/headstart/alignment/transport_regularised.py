"""Optimal transport with a structure to keep: classes of the source apart, neighbours together.

    class, lpl1         <P, C> + e KL(P | ab') + w sum_j b_j sum_c sqrt(s_cj + 0.001),   s_cj = sum_{i in c} P_ij / b_j
    class, group lasso  <P, C> + e KL(P | ab') + w sum_j sum_c |P_{i in c, j}|_2
    Laplace             <P, C> + w ((1 - t) sum_ij S_ij |D_i - D_j|^2 + t sum_ij S'_ij |D'_i - D'_j|^2)
                        D_i = T(x_i) - x_i  (or T(x_i)),   S the symmetric nearest-neighbour graph, entries summing to 1

Source: Courty, Flamary, Tuia & Rakotomamonjy, "Optimal transport for domain adaptation", IEEE TPAMI 2017
(arXiv:1507.00504): lpl1 by majorisation and minimisation with p = 1/2, the group lasso by generalised conditional
gradient, the Laplacian by conditional gradient; Flamary et al., "Optimal transport with Laplacian regularization",
NeurIPS OTML workshop 2014, for displacements. The paper writes the lpl1 penalty on masses, which shrink as rows are
added; here it is on shares of a target row, and the Laplace graph sums to 1, so that a weight means the same for every
number of rows. Features enter D in units of the root cost scale, so that their unit cancels.
Use the class penalties when source classes should not land on one target row (labels of the source alone are read); the
Laplacian when the domains differ by a smooth deformation. Both ignore target labels.
Shapes: n source rows, m target rows, d features, k classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, sparse

from headstart.alignment.aligner import Domains
from headstart.alignment.option_checks import check_choice, check_count, check_number
from headstart.alignment.transport import TransportAligner
from headstart.alignment.transport_plans import exact_plan, sinkhorn_plan

__all__ = ["ClassRegularisedTransport", "LaplaceTransport", "neighbour_graph"]

Array = npt.NDArray[Any]
_ROOT_OFFSET = 1e-3
_STILL = 1e-7


class ClassRegularisedTransport(TransportAligner):
    """Entropic transport that keeps each target row to source rows of one class; reads the source's labels, never the target's.

    After ``fit``: ``classes_``, the source's; ``objective_``, its value after each outer round.

    Parameters
    ----------
    regularisation : float, above 0
        Weight of the entropy, in units of the scaled cost.
    weight : float, at least 0
        Weight of the class penalty, in units of the scaled cost.
    penalty : {"lpl1", "group_lasso"}
        The square root of class shares (not convex) or the Euclidean norm of class masses (convex).
    normalise : {"mean", "median", "max", "none"}
        What squared distances are divided by.
    max_rounds : int, at least 1
        Most outer rounds; each solves one entropic problem.

    Examples
    --------
    >>> source, target = np.array([[0.0], [1.0], [9.0], [10.0]]), np.array([[1.0], [2.0], [11.0], [12.0]])
    >>> fitted = ClassRegularisedTransport(regularisation=0.1).fit(source, ["a", "a", "b", "b"], target)
    >>> bool(fitted.plan_[:2, 2:].sum() < 1e-3)                                 # nothing goes to the other cluster
    True
    """

    requires_labels = True

    def __init__(
        self,
        regularisation: float = 0.1,
        weight: float = 0.3,
        penalty: str = "lpl1",
        normalise: str = "mean",
        max_rounds: int = 10,
    ) -> None:
        self.regularisation = regularisation
        self.weight = weight
        self.penalty = penalty
        self.normalise = normalise
        self.max_rounds = max_rounds

    def _check_labels(self, labels_n: Array) -> Array:
        from sklearn.utils.multiclass import check_classification_targets

        check_classification_targets(labels_n)
        return super()._check_labels(labels_n)

    def _plan(self, costs_nm: Array, source_mass_n: Array, target_mass_m: Array, domains: Domains) -> Array:
        who = type(self).__name__
        check_number(who, "regularisation", self.regularisation, low_included=False, high_included=False)
        check_number(who, "weight", self.weight, high_included=False)
        check_count(who, "max_rounds", self.max_rounds)
        check_choice(who, "penalty", self.penalty, ("lpl1", "group_lasso"))
        assert domains.source_labels_n is not None
        self.classes_, codes = np.unique(domains.source_labels_n, return_inverse=True)
        members_kn = np.equal(np.arange(len(self.classes_))[:, None], codes.reshape(-1)).astype(np.float64)
        solve = self._by_majorising if self.penalty == "lpl1" else self._by_conditional_gradient
        return solve(costs_nm, source_mass_n, target_mass_m, members_kn)

    def _by_majorising(self, costs_nm: Array, a: Array, b: Array, members_kn: Array) -> Array:
        """Replace the concave root by its tangent, solve the entropic problem, and again; each round lowers the objective."""
        codes, slope_nm, start = members_kn.argmax(axis=0), np.zeros_like(costs_nm), None
        self.objective_: list[float] = []
        plan = np.empty_like(costs_nm)
        for _ in range(self.max_rounds):
            found = sinkhorn_plan(costs_nm + slope_nm, a, b, self.regularisation, start_m=start, tolerance=1e-8)
            plan, start = found.plan_nm, found.target_potential_m
            roots = np.sqrt(members_kn @ plan / b + _ROOT_OFFSET)
            self.objective_.append(
                _entropic_value(plan, costs_nm, a, b, self.regularisation) + self.weight * float((b * roots).sum())
            )
            if len(self.objective_) > 1 and self.objective_[-2] - self.objective_[-1] < _STILL:
                break
            slope_nm = (0.5 * self.weight / roots)[codes]
        return plan

    def _by_conditional_gradient(self, costs_nm: Array, a: Array, b: Array, members_kn: Array) -> Array:
        """Linearise the penalty alone, solve the entropic problem, and go to the best point on the way there."""
        codes = members_kn.argmax(axis=0)

        def value(plan: Array) -> float:
            norms = np.sqrt(members_kn @ np.square(plan))
            return _entropic_value(plan, costs_nm, a, b, self.regularisation) + self.weight * float(norms.sum())

        plan = sinkhorn_plan(costs_nm, a, b, self.regularisation).plan_nm
        self.objective_ = [value(plan)]
        for _ in range(self.max_rounds):
            norms = np.sqrt(members_kn @ np.square(plan))
            slope_nm = self.weight * plan / np.maximum(norms, np.finfo(np.float64).tiny)[codes]
            move = sinkhorn_plan(costs_nm + slope_nm, a, b, self.regularisation).plan_nm - plan
            along = _along(value, plan, move)
            best = optimize.minimize_scalar(along, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-4})
            if not self.objective_[-1] - best.fun > _STILL:
                break
            plan = plan + best.x * move
            self.objective_.append(float(best.fun))
        return plan


class LaplaceTransport(TransportAligner):
    """Exact transport under which neighbouring rows move alike; needs POT (extra ``ot``).

    After ``fit``: ``objective_``, its value before the first and after each round.

    Parameters
    ----------
    weight : float, at least 0
        Weight of the Laplace penalty, in units of the scaled cost.
    of : {"displacement", "position"}
        Whether neighbours should move by the same vector or end at the same place.
    target_share : float from 0 to 1
        Share of the penalty that is on the target's neighbours, moved back to the source.
    num_neighbours : int, at least 1
        Neighbours of each row in the graph.
    max_rounds : int, at least 1
        Most rounds; each solves one exact transport problem.

    Examples
    --------
    >>> source = np.array([[0.0], [1.0], [3.0]])
    >>> LaplaceTransport(num_neighbours=1).fit_transform(source, None, source + 10.0).tolist()
    [[10.0], [11.0], [13.0]]
    """

    def __init__(
        self,
        weight: float = 1.0,
        of: str = "displacement",
        target_share: float = 0.5,
        num_neighbours: int = 3,
        max_rounds: int = 30,
    ) -> None:
        self.weight = weight
        self.of = of
        self.target_share = target_share
        self.num_neighbours = num_neighbours
        self.max_rounds = max_rounds

    def _plan(self, costs_nm: Array, source_mass_n: Array, target_mass_m: Array, domains: Domains) -> Array:
        who = type(self).__name__
        self._check_parameters(who)
        unit = np.sqrt(self.cost_scale_)
        centre = domains.target_md.mean(axis=0, dtype=np.float64)
        source, target = (domains.source_nd - centre) / unit, (domains.target_md - centre) / unit
        sides = (
            _Side(source, target, (1.0 - self.target_share) * self.weight, self.num_neighbours, self.of),
            _Side(target, source, self.target_share * self.weight, self.num_neighbours, self.of),
        )
        plan = exact_plan(who, costs_nm, source_mass_n, target_mass_m)
        images = [sides[0].images(plan), sides[1].images(plan.T)]
        value = float((plan * costs_nm).sum()) + sum(
            side.value(image) for side, image in zip(sides, images, strict=True)
        )
        self.objective_ = [value]
        for _ in range(self.max_rounds):
            slope = costs_nm + sides[0].slope(images[0]) + sides[1].slope(images[1]).T
            move = exact_plan(who, slope, source_mass_n, target_mass_m) - plan
            steps = [sides[0].images(move), sides[1].images(move.T)]
            fall = -float((move * slope).sum())
            bend = 2.0 * sum(side.bend(step) for side, step in zip(sides, steps, strict=True))
            if fall <= _STILL * max(abs(value), _STILL):
                break
            share = 1.0 if bend <= fall else fall / bend
            plan = plan + share * move
            images = [image + share * step for image, step in zip(images, steps, strict=True)]
            value -= share * fall - 0.5 * share**2 * bend
            self.objective_.append(value)
        return plan

    def _check_parameters(self, who: str) -> None:
        check_number(who, "weight", self.weight, high_included=False)
        check_count(who, "num_neighbours", self.num_neighbours)
        check_count(who, "max_rounds", self.max_rounds)
        check_choice(who, "of", self.of, ("displacement", "position"))
        check_number(who, "target_share", self.target_share, 0.0, 1.0)


class _Side:
    """The Laplace penalty on one domain's rows: ``weight sum_ij S_ij |D_i - D_j|^2 = 2 weight trace(D' L D)``."""

    def __init__(self, rows_nd: Array, others_md: Array, weight: float, num_neighbours: int, of: str) -> None:
        self.rows, self.others, self.weight = rows_nd, others_md, weight
        graph = neighbour_graph(rows_nd, num_neighbours)
        self.laplacian = sparse.diags_array(np.asarray(graph.sum(axis=1)).ravel()) - graph
        self.origin = rows_nd if of == "displacement" else np.zeros_like(rows_nd)

    def images(self, plan: Array) -> Array:
        """Return barycentric images; linear in the plan."""
        return np.asarray(len(self.rows) * (plan @ self.others))

    def value(self, images: Array) -> float:
        return self.bend(images - self.origin)

    def bend(self, moved: Array) -> float:
        return 2.0 * self.weight * float((moved * (self.laplacian @ moved)).sum())

    def slope(self, images: Array) -> Array:
        """Return the derivative by the plan, (rows, others)."""
        pulled = self.laplacian @ (images - self.origin)
        return np.asarray(4.0 * self.weight * len(self.rows) * (pulled @ self.others.T))


def neighbour_graph(rows_nd: Array, num_neighbours: int) -> sparse.csr_array:
    """Return the symmetric graph of nearest neighbours as weights that sum to 1 (0 for a single row).

    Examples
    --------
    >>> neighbour_graph(np.array([[0.0], [1.0], [3.0]]), 1).toarray().round(3).tolist()
    [[0.0, 0.333, 0.0], [0.333, 0.0, 0.167], [0.0, 0.167, 0.0]]
    """
    from sklearn.neighbors import kneighbors_graph

    num_rows = len(rows_nd)
    if num_rows < 2:
        return sparse.csr_array((num_rows, num_rows))
    nearest = kneighbors_graph(rows_nd, min(int(num_neighbours), num_rows - 1))
    both = sparse.csr_array(nearest + nearest.T)
    return sparse.csr_array(both / both.sum())


def _entropic_value(plan: Array, costs_nm: Array, a: Array, b: Array, regularisation: float) -> float:
    """Return ``<P, C> + e KL(P | a b')``."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(plan > 0, np.log(plan / np.outer(a, b)), 0.0)
    return float((plan * costs_nm).sum() + regularisation * ((plan * logs).sum() - plan.sum() + 1.0))


def _along(value: Callable[[Array], float], plan: Array, move: Array) -> Callable[[float], float]:
    return lambda share: value(plan + share * move)
