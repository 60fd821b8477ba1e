"""JCPOT: class proportions of the target from several sources whose proportions differ, and labels by transport.

    minimise over h   sum_s v_s  min_P <P, C_s> + e KL(P | .)       P' 1 = 1/m,  P 1 = h_{y_i} / number of rows of class
    y_i in source s P_ij = exp((F_i + G_j - C_ij) / e);  in turn, for every source:  G so that columns fit;  F and h so
    that rows fit, with log h_c = sum_s v_s mean_{i in c} log (n_c P_i.)                                             (an
    exact projection) p_c(z) = sum_s v_s (share of class c in exp((F_i - |x_i - z|^2 / scale) / e) over the source's rows)

Source: Redko, Courty, Flamary & Tuia, "Optimal transport for multi-source domain adaptation under target shift", AISTATS 2019
(arXiv:1803.04899), with equal weights v_s. The paper's update of h takes arithmetic means within a class; the geometric
one here is the projection that the stated problem asks for, as setting its derivative to 0 shows. Labels of target rows
are the ones the plans carry to them; the formula for p continues them to any row.
Use it when each class looks the same everywhere and proportions differ (label shift), with one source or, better, several.
It ignores changes within a class; every source must hold every class. It needs memory for all rows of all sources times m.
Shapes: n rows of one source, m target rows, k classes, q rows to predict.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from headstart.alignment.aligner import DomainClassifier, Domains
from headstart.alignment.option_checks import check_count, check_number
from headstart.alignment.transport_plans import cost_scale, squared_costs
from headstart.core.errors import DomainError

__all__ = ["JCPOT"]

Array = npt.NDArray[Any]
_LARGEST = 200.0
_STILL = 1e-8


class JCPOT(DomainClassifier):
    """Joint class proportions and optimal transport; source domains are told apart by ``sample_domain``.

    After ``fit``: ``proportions_`` (k,), the target's; ``num_rounds_``; ``error_``, how far they and the plans' columns
    moved at the end.

    Parameters
    ----------
    regularisation : float, above 0
        Weight of the entropy, in units of the scaled cost.
    normalise : {"mean", "median", "max", "none"}
        What squared distances are divided by.
    max_rounds : int, at least 1
        Most rounds.

    Examples
    --------
    >>> source, target = np.array([[0.0], [0.1], [9.0], [9.1]]), np.array([[0.0], [9.0], [9.1], [9.2]])
    >>> fitted = JCPOT().fit(source, ["a", "a", "b", "b"], target)
    >>> fitted.proportions_.round(3).tolist(), fitted.predict(target).tolist()
    ([0.25, 0.75], ['a', 'b', 'b', 'b'])
    """

    separates_sources = True

    def __init__(self, regularisation: float = 0.05, normalise: str = "mean", max_rounds: int = 1000) -> None:
        self.regularisation = regularisation
        self.normalise = normalise
        self.max_rounds = max_rounds

    def _learn(self, domains: Domains, codes_n: npt.NDArray[np.int64]) -> None:
        who = type(self).__name__
        check_number(who, "regularisation", self.regularisation, low_included=False, high_included=False)
        check_count(who, "max_rounds", self.max_rounds)
        self.centre_ = domains.target_md.mean(axis=0, dtype=np.float64)
        target = domains.target_md - self.centre_
        rows = domains.source_nd - self.centre_
        costs = squared_costs(rows, target)
        self.cost_unit_ = cost_scale(who, costs, self.normalise) * self.regularisation
        costs /= self.cost_unit_
        groups = [np.flatnonzero(domains.source_groups_n == number) for number in range(domains.num_sources)]
        self.source_rows_, self.source_codes_ = [rows[group] for group in groups], [codes_n[group] for group in groups]
        self._check_classes(who)
        self._alternate([_Scaled(costs[group]) for group in groups], len(target))

    def _alternate(self, plans: list[_Scaled], num_target: int) -> None:
        """Fit columns, then rows and proportions, in turn."""
        members = [np.equal(np.arange(len(self.classes_))[:, None], codes) for codes in self.source_codes_]
        sizes = [member.sum(axis=1) for member in members]
        rows_f = [np.zeros(len(codes)) for codes in self.source_codes_]
        columns_g = [np.zeros(num_target) for _ in plans]
        log_h = np.full(len(self.classes_), -np.log(len(self.classes_)))
        for num_rounds in range(1, int(self.max_rounds) + 1):
            following_g = [-np.log(num_target) - plan.columns(f) for plan, f in zip(plans, rows_f, strict=True)]
            reached = [plan.rows(g) for plan, g in zip(plans, following_g, strict=True)]
            means = [
                np.log(size) + (member @ (f + sums)) / size
                for member, size, f, sums in zip(members, sizes, rows_f, reached, strict=True)
            ]
            before, log_h = log_h, np.mean(means, axis=0)
            rows_f = [
                (log_h - np.log(size))[codes] - sums
                for size, codes, sums in zip(sizes, self.source_codes_, reached, strict=True)
            ]
            off = [np.abs(np.expm1(old - new)).mean() for old, new in zip(columns_g, following_g, strict=True)]
            self.num_rounds_ = num_rounds
            self.error_ = float(np.abs(np.exp(log_h) - np.exp(before)).sum() + max(off))
            columns_g = following_g
            if self.error_ <= _STILL:
                break
        self.source_potentials_ = rows_f
        self.proportions_ = special.softmax(log_h)

    def _check_classes(self, who: str) -> None:
        """Refuse a source without one of the classes: its plan could give that class no mass."""
        for number, codes in enumerate(self.source_codes_):
            missing = np.setdiff1d(np.arange(len(self.classes_)), codes)
            if len(missing):
                raise DomainError(
                    f"{who}: every source domain needs every class; source {number + 1} has no row "
                    f"of {self.classes_.tolist()[missing[0]]!r}. Leave out the class or the domain, or join domains."
                )

    def _probabilities(self, X: Array) -> npt.NDArray[np.floating[Any]]:
        centred, total = X - self.centre_, np.zeros((len(X), len(self.classes_)))
        members = np.eye(len(self.classes_))
        for rows, codes, potential in zip(self.source_rows_, self.source_codes_, self.source_potentials_, strict=True):
            logs = potential - squared_costs(centred, rows) / self.cost_unit_
            total += special.softmax(logs, axis=1) @ members[codes]
        return np.asarray(total / total.sum(axis=1, keepdims=True))


class _Scaled:
    """Log sums of ``exp(potential - costs)`` over rows or columns, by products with a kernel that follows the potentials."""

    def __init__(self, costs_nm: Array) -> None:
        self.costs, self.f, self.g, self.kernel = costs_nm, costs_nm[:, 0], costs_nm[0], costs_nm
        self._follow_rows(np.zeros(len(costs_nm)))

    def columns(self, rows_f: Array) -> Array:
        """Return ``log sum_i exp(F_i - C_ij)`` for each column."""
        shift = rows_f - self.f
        sums = np.exp(np.minimum(shift, _LARGEST)) @ self.kernel
        if shift.max() > _LARGEST or sums.min() < np.exp(-_LARGEST):
            self._follow_rows(rows_f)
            sums = self.kernel.sum(axis=0)
        return np.asarray(np.log(sums) - self.g)

    def rows(self, columns_g: Array) -> Array:
        """Return ``log sum_j exp(G_j - C_ij)`` for each row."""
        shift = columns_g - self.g
        sums = self.kernel @ np.exp(np.minimum(shift, _LARGEST))
        if shift.max() > _LARGEST or sums.min() < np.exp(-_LARGEST):
            self.g = columns_g
            self.f = (self.costs - self.g).min(axis=1)
            self.kernel = np.exp(self.f[:, None] + self.g - self.costs)
            sums = self.kernel.sum(axis=1)
        return np.asarray(np.log(sums) - self.f)

    def _follow_rows(self, rows_f: Array) -> None:
        self.f = rows_f
        self.g = (self.costs - rows_f[:, None]).min(axis=0)
        self.kernel = np.exp(self.f[:, None] + self.g - self.costs)
