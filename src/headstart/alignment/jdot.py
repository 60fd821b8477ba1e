"""JDOT: find a transport plan over rows and labels together with the target's classifier or regressor.

    minimise over P and f   sum_ij P_ij (w C_ij + L(y_i, f(z_j))) + r |f|^2          P 1 = 1/n,  P' 1 = 1/m
    classifier  L = -log p_y(z),   |f|^2 half the squared coefficients;   regressor  L = (y - f(z))^2 on standardised y,
    kernel ridge in turn:    P by exact transport with f held;   f by fitting the target rows to the labels P sends them

Source: Courty, Flamary, Habrard & Rakotomamonjy, "Joint distribution optimal transportation for domain adaptation",
NeurIPS 2017 (arXiv:1705.08848), algorithm 1. Both half-steps are solved to the end, so that the objective never rises.
The paper's classifier is a hinge loss a class; here it is the cross-entropy, which gives probabilities.
Use it when rows move and labels move with them. C is the squared distance over its mean, rows are centred and of one scale, and
regression labels are standardised, so that units do not matter.
It ignores differences in class proportions, which exact marginals force onto the wrong rows; it needs POT (extra ``ot``).
Shapes: n source rows, m target rows, d features, k classes, q rows to predict.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import linalg, optimize, special

from headstart.alignment.aligner import DomainClassifier, DomainRegressor, Domains
from headstart.alignment.kernel_rows import RowScale, gaussian_kernel
from headstart.alignment.option_checks import check_choice, check_count, check_number
from headstart.alignment.transport_plans import cost_scale, exact_plan, squared_costs

__all__ = ["JDOTClassifier", "JDOTRegressor", "soft_logistic"]

Array = npt.NDArray[Any]
_STILL = 1e-6


class JDOTClassifier(DomainClassifier):
    """Joint distribution transport with a logistic classifier of the target.

    After ``fit``: ``coefficients_`` (d, k) and ``intercepts_`` (k,), for scaled rows; ``plan_`` (n, m); ``objective_``,
    its value after each half-step.

    Parameters
    ----------
    feature_weight : float, at least 0
        Weight of the distance of rows against the loss of labels.
    regularisation : float, above 0
        Weight of half the squared coefficients against the mean loss of a row.
    max_rounds : int, at least 1
        Most rounds of plan and classifier.

    Examples
    --------
    >>> source, target = np.array([[0.0], [1.0], [5.0], [6.0]]), np.array([[4.0], [5.0], [9.0], [10.0]])
    >>> JDOTClassifier().fit(source, ["a", "a", "b", "b"], target).predict(target).tolist()
    ['a', 'a', 'b', 'b']
    """

    fit_only: ClassVar[frozenset[str]] = frozenset({"plan_"})

    def __init__(self, feature_weight: float = 1.0, regularisation: float = 1e-3, max_rounds: int = 20) -> None:
        self.feature_weight = feature_weight
        self.regularisation = regularisation
        self.max_rounds = max_rounds

    def _learn(self, domains: Domains, codes_n: npt.NDArray[np.int64]) -> None:
        who = type(self).__name__
        check_number(who, "feature_weight", self.feature_weight, high_included=False)
        check_number(who, "regularisation", self.regularisation, low_included=False, high_included=False)
        check_count(who, "max_rounds", self.max_rounds)
        self.scale_, source, target, costs, masses = _prepare(who, self.feature_weight, domains)
        members_nk = np.eye(len(self.classes_))[codes_n]
        learned = soft_logistic(source, members_nk / len(source), self.regularisation)
        self.objective_: list[float] = []
        for _ in range(self.max_rounds):
            losses_mk = -special.log_softmax(target @ learned[:-1] + learned[-1], axis=1)
            joint = costs + losses_mk[:, codes_n].T
            self.plan_ = exact_plan(who, joint, *masses)
            penalty = 0.5 * self.regularisation * float(np.square(learned[:-1]).sum())
            self.objective_.append(float((self.plan_ * joint).sum()) + penalty)
            sent_mk = self.plan_.T @ members_nk
            learned = soft_logistic(target, sent_mk, self.regularisation, start=learned)
            losses_mk = -special.log_softmax(target @ learned[:-1] + learned[-1], axis=1)
            penalty = 0.5 * self.regularisation * float(np.square(learned[:-1]).sum())
            self.objective_.append(float((self.plan_ * costs).sum() + (sent_mk * losses_mk).sum()) + penalty)
            if len(self.objective_) > 2 and self.objective_[-3] - self.objective_[-1] < _STILL:
                break
        self.coefficients_, self.intercepts_ = learned[:-1], learned[-1]

    def _probabilities(self, X: Array) -> npt.NDArray[np.floating[Any]]:
        return np.asarray(special.softmax(self.scale_(X) @ self.coefficients_ + self.intercepts_, axis=1))


class JDOTRegressor(DomainRegressor):
    """Joint distribution transport with kernel ridge regression of the target.

    After ``fit``: ``plan_`` (n, m); ``objective_``, its value after each half-step, for standardised labels.

    Parameters
    ----------
    feature_weight : float, at least 0
        Weight of the distance of rows against the squared error of labels.
    regularisation : float, above 0
        Weight of the squared norm of the function against the mean squared error.
    kernel : {"rbf", "linear"}
        What the function is made of.
    bandwidth : float, above 0
        Width of the Gaussian kernel, in units of the root mean squared distance of all rows from their mean.
    max_rounds : int, at least 1
        Most rounds of plan and regressor.

    Examples
    --------
    >>> source, target = np.array([[0.0], [1.0], [2.0]]), np.array([[10.0], [11.0], [12.0]])
    >>> fitted = JDOTRegressor(kernel="linear", regularisation=1e-9).fit(source, [0.0, 2.0, 4.0], target)
    >>> fitted.predict([[10.5]]).round(3).tolist()
    [1.0]
    """

    fit_only: ClassVar[frozenset[str]] = frozenset({"plan_"})

    def __init__(
        self,
        feature_weight: float = 1.0,
        regularisation: float = 1e-3,
        kernel: str = "rbf",
        bandwidth: float = 1.0,
        max_rounds: int = 20,
    ) -> None:
        self.feature_weight = feature_weight
        self.regularisation = regularisation
        self.kernel = kernel
        self.bandwidth = bandwidth
        self.max_rounds = max_rounds

    def _learn(self, domains: Domains, values_n: npt.NDArray[np.floating[Any]]) -> None:
        who = type(self).__name__
        check_number(who, "feature_weight", self.feature_weight, high_included=False)
        check_number(who, "regularisation", self.regularisation, low_included=False, high_included=False)
        check_number(who, "bandwidth", self.bandwidth, low_included=False, high_included=False)
        check_choice(who, "kernel", self.kernel, ("rbf", "linear"))
        check_count(who, "max_rounds", self.max_rounds)
        self.scale_, source, target, costs, masses = _prepare(who, self.feature_weight, domains)
        self.value_mean_, self.value_scale_ = float(values_n.mean()), float(values_n.std()) or 1.0
        values = (values_n - self.value_mean_) / self.value_scale_
        kernel = self._kernel(target, target)
        ridge = _CentredRidge(kernel, self.regularisation)
        on_source = _CentredRidge(self._kernel(source, source), self.regularisation)
        said = on_source.predict(self._kernel(target, source), on_source.fit(values), float(values.mean()))
        self.objective_: list[float] = []
        self.target_rows_, self.kernel_mean_ = target, kernel.mean(axis=0)
        penalty = 0.0
        for _ in range(self.max_rounds):
            joint = costs + np.square(values[:, None] - said)
            self.plan_ = exact_plan(who, joint, *masses)
            if self.objective_:  # the first function is not of the target's kernel: its norm is not comparable
                self.objective_.append(float((self.plan_ * joint).sum()) + penalty)
            sent = len(target) * (self.plan_.T @ values)
            self.dual_, self.offset_ = ridge.fit(sent), float(sent.mean())
            said = ridge.predict(kernel, self.dual_, self.offset_)
            penalty = self.regularisation * float(self.dual_ @ (said - self.offset_))
            joint = costs + np.square(values[:, None] - said)
            self.objective_.append(float((self.plan_ * joint).sum()) + penalty)
            if len(self.objective_) > 2 and self.objective_[-3] - self.objective_[-1] < _STILL:
                break

    def _kernel(self, rows: Array, fitted: Array) -> Array:
        return gaussian_kernel(rows, fitted, self.bandwidth) if self.kernel == "rbf" else np.asarray(rows @ fitted.T)

    def _estimate(self, X: Array) -> npt.NDArray[np.floating[Any]]:
        across = self._kernel(self.scale_(X), self.target_rows_) - self.kernel_mean_
        return np.asarray((across @ self.dual_ + self.offset_) * self.value_scale_ + self.value_mean_)


class _CentredRidge:
    """Kernel ridge regression with a free intercept: ridge on centred kernel features, one decomposition for all labels."""

    def __init__(self, kernel_mm: Array, regularisation: float) -> None:
        self.mean = kernel_mm.mean(axis=0)
        centred = kernel_mm - self.mean
        centred = centred - centred.mean(axis=1, keepdims=True)
        centred[np.diag_indices_from(centred)] += regularisation * len(kernel_mm)
        self.factor = linalg.cho_factor(centred)

    def fit(self, values_m: Array) -> Array:
        """Return the dual coefficients; their sum is 0."""
        dual = linalg.cho_solve(self.factor, values_m - values_m.mean())
        return np.asarray(dual - dual.mean())

    def predict(self, kernel_qm: Array, dual_m: Array, offset: float) -> Array:
        return np.asarray((kernel_qm - self.mean) @ dual_m + offset)


def soft_logistic(rows_nd: Array, targets_nk: Array, regularisation: float, start: Array | None = None) -> Array:
    """Return multinomial logistic coefficients, and intercepts below them, (d + 1, k), for soft labels.

    It minimises ``-sum_ik t_ik log p_k(x_i) + regularisation / 2 |coefficients|^2``; intercepts are free.

    Parameters
    ----------
    rows_nd : ndarray of shape (n, d)
    targets_nk : ndarray of shape (n, k)
        Weight of each class for each row, all together 1.
    regularisation : float, above 0
    start : ndarray of shape (d + 1, k), optional
        Where to begin.

    Examples
    --------
    >>> found = soft_logistic(np.zeros((2, 1)), np.array([[0.5, 0.25], [0.0, 0.25]]), 1.0)
    >>> special.softmax(found[-1]).round(4).tolist()                              # nothing but the intercepts can learn
    [0.5, 0.5]
    """
    width, num_classes = rows_nd.shape[1], targets_nk.shape[1]
    mass_n = targets_nk.sum(axis=1, keepdims=True)

    def value_and_slope(flat: Array) -> tuple[float, Array]:
        both = flat.reshape(width + 1, num_classes)
        logs = special.log_softmax(rows_nd @ both[:-1] + both[-1], axis=1)
        excess = mass_n * np.exp(logs) - targets_nk
        slope = np.vstack([rows_nd.T @ excess + regularisation * both[:-1], excess.sum(axis=0)])
        return float(0.5 * regularisation * np.square(both[:-1]).sum() - (targets_nk * logs).sum()), slope.ravel()

    first = np.zeros((width + 1, num_classes)) if start is None else start
    found = optimize.minimize(
        value_and_slope,
        first.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 1000, "gtol": 1e-8, "ftol": 1e-12},
    )
    return np.asarray(found.x.reshape(width + 1, num_classes))


def _prepare(
    who: str, feature_weight: float, domains: Domains
) -> tuple[RowScale, Array, Array, Array, tuple[Array, Array]]:
    """Return the scale, both domains' rows on it, weighted costs and both masses."""
    scale = RowScale(np.concatenate([domains.source_nd, domains.target_md]), to_unit=False)
    source, target = scale(domains.source_nd), scale(domains.target_md)
    costs = squared_costs(source, target)
    costs *= feature_weight / cost_scale(who, costs, "mean")
    masses = np.full(len(source), 1.0 / len(source)), np.full(len(target), 1.0 / len(target))
    return scale, source, target, costs, masses
