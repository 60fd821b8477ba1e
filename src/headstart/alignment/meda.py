"""MEDA: a kernel classifier on the geodesic manifold that brings domains and classes together while it learns.

    z = L'(x - mean) / |.|      geodesic flow kernel features (`GFK`), unit length
    f(z) = sum_i b_i k(z, z_i),     B = ((A + l M + r Lap) K + e I)^-1 A Y
    M = (1 - mu) M_0 + mu sum_c M_c      M_c by pseudo-labels, which f gives anew each round
    mu = sum_c d_c / (d_0 + sum_c d_c)   d = 2 (1 - 2 error) of a linear classifier between the domains (of one class)

Source: Wang, Feng, Chen, Yu, Huang & Yu, "Visual domain adaptation with manifold embedded distribution alignment", ACM
Multimedia 2018 (arXiv:1807.07258). A = 1 on labelled source rows, Y their classes in columns; Lap is the normalised
Laplacian of nearest neighbours by cosine; M is scaled to Frobenius norm 1. Read beside the authors' program (MEDA.m of
jindongwang/transferlearning), which scales M so and departs from the paper in three places: it counts M_0 once for each
class, mu takes the mean of d_c for their sum, and d_c compares each class with target rows of the first. Here all three
are the paper's. The domain classifier is a least-squares one with leave-one-out answers, where the paper trains a support
vector machine.
Use it when source and target share their classes and first pseudo-labels are mostly right.
It ignores class proportions, and keeps all rows: (n + m)^2 numbers. A round changes M by a few columns, so the part that costs
(n + m)^3 is done once.
Shapes: n source rows, m target rows, d features, k classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse
from sklearn.base import clone
from sklearn.neighbors import KNeighborsClassifier, kneighbors_graph

from headstart.alignment.aligner import DomainClassifier, Domains
from headstart.alignment.gfk import GFK
from headstart.alignment.kernel_rows import gaussian_kernel, unit_rows
from headstart.alignment.mmd_projection import check_above_zero, check_whole, mean_contrasts
from headstart.core.errors import ConfigError

__all__ = ["MEDA", "domain_gap", "nearest_probabilities"]

Array = npt.NDArray[Any]
_BLOCK = 2048


class MEDA(DomainClassifier):
    """Manifold embedded distribution alignment: a classifier for target rows, seen and new.

    After ``fit``: ``pseudo_labels_`` of the target rows, ``balance_`` of the last round.

    Parameters
    ----------
    num_components : int, optional
        Dimension of the subspaces; by the subspace disagreement measure when left out.
    shrinkage : float, above 0
        Weight of the squared norm of f (the paper's eta).
    mmd_weight : float, at least 0
        Weight of the discrepancies (lambda).
    laplacian_weight : float, at least 0
        Weight of differences between neighbours (rho).
    num_neighbours : int
        Neighbours in the graph.
    bandwidth : float
        Width of the Gaussian kernel as a multiple of the unit rows' root mean squared distance from their mean.
    balance : float between 0 and 1, optional
        mu; estimated each round when left out.
    num_rounds : int
        Rounds of labelling at most; it ends when no label changes.
    estimator : scikit-learn classifier, optional
        What labels the target first; one nearest neighbour when left out.

    Examples
    --------
    >>> source, target = np.array([[-2.0, 1.0], [-2.0, -1.0], [2.0, 1.0], [2.0, -1.0]]), np.array([[-3.0, 0.0], [3.0, 0.0]])
    >>> MEDA(num_neighbours=1).fit(source, ["no", "no", "yes", "yes"], target).predict(target).tolist()
    ['no', 'yes']
    """

    min_rows = 2

    def __init__(
        self,
        num_components: int | None = 20,
        shrinkage: float = 0.1,
        mmd_weight: float = 10.0,
        laplacian_weight: float = 1.0,
        num_neighbours: int = 10,
        bandwidth: float = 1.0,
        balance: float | None = None,
        num_rounds: int = 10,
        estimator: Any = None,
    ) -> None:
        self.num_components = num_components
        self.shrinkage = shrinkage
        self.mmd_weight = mmd_weight
        self.laplacian_weight = laplacian_weight
        self.num_neighbours = num_neighbours
        self.bandwidth = bandwidth
        self.balance = balance
        self.num_rounds = num_rounds
        self.estimator = estimator

    def _learn(self, domains: Domains, codes_n: Array) -> None:
        self._check_settings()
        num_source = len(domains.source_nd)
        self.manifold_ = GFK(self.num_components).fit(domains.source_nd, None, domains.target_md)
        ones = np.ones(num_source, dtype=np.int64)
        embedded = [
            self.manifold_.transform(domains.source_nd, sample_domain=ones),
            self.manifold_.transform(domains.target_md),
        ]
        self.fitted_rows_ = unit_rows(np.concatenate(embedded).astype(np.float64))
        spread = np.square(self.fitted_rows_ - self.fitted_rows_.mean(axis=0)).sum(axis=1).mean()
        self.kernel_width_ = float(self.bandwidth * np.sqrt(spread))
        kernel = gaussian_kernel(self.fitted_rows_, self.fitted_rows_, self.kernel_width_)
        estimator = KNeighborsClassifier(1) if self.estimator is None else clone(self.estimator)
        labels = estimator.fit(self.fitted_rows_[:num_source], codes_n).predict(self.fitted_rows_[num_source:])
        factor, answers = self._factorise(kernel, codes_n)
        for _ in range(self.num_rounds):
            self.balance_ = self._estimate_balance(codes_n, labels) if self.balance is None else float(self.balance)
            contrasts = mean_contrasts(
                num_source, len(labels), codes_n, labels, 1.0 - self.balance_, self.balance_
            ) * np.sqrt(self.mmd_weight)
            # (P + E E'K) B = A Y by the Woodbury identity, P factorised once
            solved = linalg.lu_solve(factor, contrasts, check_finite=False)
            seen = kernel @ contrasts
            inner = np.eye(contrasts.shape[1]) + seen.T @ solved
            self.coefficients_ = answers - solved @ linalg.solve(inner, seen.T @ answers)
            before, labels = labels, (kernel[num_source:] @ self.coefficients_).argmax(axis=1)
            if np.array_equal(before, labels):
                break
        self.pseudo_labels_ = self.classes_[labels]

    def _factorise(self, kernel_pp: Array, codes_n: Array) -> tuple[Any, Array]:
        """Return P = (A + r Lap) K + e I factorised, and P^-1 A Y."""
        num_rows, num_source = len(kernel_pp), len(codes_n)
        labelled = np.zeros(num_rows)
        labelled[:num_source] = 1.0
        system = labelled[:, None] * kernel_pp
        if self.laplacian_weight:
            laplacian = neighbour_laplacian(self.fitted_rows_, min(self.num_neighbours, num_rows - 1))
            system += self.laplacian_weight * (laplacian @ kernel_pp)
        system[np.diag_indices(num_rows)] += self.shrinkage
        factor = linalg.lu_factor(system, overwrite_a=True, check_finite=False)
        classes = np.zeros((num_rows, len(self.classes_)))
        classes[np.arange(num_source), codes_n] = 1.0
        return factor, linalg.lu_solve(factor, classes, check_finite=False)

    def _estimate_balance(self, codes_n: Array, labels_m: Array) -> float:
        source, target = self.fitted_rows_[: len(codes_n)], self.fitted_rows_[len(codes_n) :]
        whole = domain_gap(source, target)
        classes = sum(
            domain_gap(source[codes_n == code], target[labels_m == code]) for code in np.intersect1d(codes_n, labels_m)
        )
        return float(classes / (whole + classes)) if whole + classes > 0 else 0.5

    def _check_settings(self) -> None:
        check_above_zero("MEDA", "shrinkage", self.shrinkage)
        check_above_zero("MEDA", "bandwidth", self.bandwidth)
        for name in ("num_neighbours", "num_rounds"):
            check_whole("MEDA", name, getattr(self, name))
        for name in ("mmd_weight", "laplacian_weight"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"MEDA: {name} must be at least 0; got {getattr(self, name)!r}.")
        if self.balance is not None and not 0 <= self.balance <= 1:
            raise ConfigError(f"MEDA: balance must be between 0 and 1; got {self.balance!r}.")

    def _probabilities(self, X: Array) -> Array:
        rows = unit_rows(self.manifold_.transform(X).astype(np.float64))
        scores = [
            gaussian_kernel(rows[start : start + _BLOCK], self.fitted_rows_, self.kernel_width_) @ self.coefficients_
            for start in range(0, len(rows), _BLOCK)
        ]
        return nearest_probabilities(np.concatenate(scores))


def neighbour_laplacian(rows_nd: Array, num_neighbours: int) -> Any:
    """Return the normalised Laplacian of the nearest neighbours by cosine, weighted by it, where it is above 0 (sparse)."""
    graph = kneighbors_graph(rows_nd, num_neighbours, mode="connectivity", include_self=False).tocoo()
    cosines = np.maximum((rows_nd[graph.row] * rows_nd[graph.col]).sum(axis=1), 0.0)
    weights = sparse.csr_array((cosines, (graph.row, graph.col)), shape=graph.shape)
    weights = weights.maximum(weights.T)
    degrees = np.asarray(weights.sum(axis=1)).ravel()
    roots = sparse.diags_array(np.where(degrees > 0, 1.0 / np.sqrt(np.where(degrees > 0, degrees, 1.0)), 0.0))
    return sparse.csr_array(sparse.eye_array(len(rows_nd)) - roots @ weights @ roots)


def domain_gap(source_nd: Array, target_md: Array) -> float:
    """Return ``2 (1 - 2 error)``, at least 0: how well least squares tells the domains of left-out rows apart.

    The error is the mean of both domains' errors; each row is answered by the fit without it.

    Examples
    --------
    >>> domain_gap(np.array([[0.0], [0.1], [0.2]]), np.array([[5.0], [5.1], [5.2]]))
    2.0
    """
    rows = np.concatenate([source_nd, target_md])
    signs = np.repeat([1.0, -1.0], [len(source_nd), len(target_md)])
    if min(len(source_nd), len(target_md)) < 2:
        return 0.0
    weights = np.sqrt(np.repeat([0.5 / len(source_nd), 0.5 / len(target_md)], [len(source_nd), len(target_md)]))
    design = np.column_stack([rows - rows.mean(axis=0), np.ones(len(rows))]) * weights[:, None]
    penalty = 1e-3 * np.trace(design.T @ design) / design.shape[1]
    inverse = linalg.inv(design.T @ design + penalty * np.eye(design.shape[1]))
    hat = np.einsum("ij,jk,ik->i", design, inverse, design)
    fitted = design @ (inverse @ (design.T @ (signs * weights)))
    answers = (fitted - hat * signs * weights) / (1.0 - hat)
    wrong = answers * signs <= 0
    error = (wrong[: len(source_nd)].mean() + wrong[len(source_nd) :].mean()) / 2
    return float(max(2.0 * (1.0 - 2.0 * error), 0.0))


def nearest_probabilities(scores_nk: Array) -> Array:
    """Return the probabilities nearest to scores in squared distance; scores that are probabilities stay.

    The Euclidean projection onto the simplex (Held, Wolfe & Crowder 1974): subtract one number from all, cut at 0.

    Examples
    --------
    >>> nearest_probabilities(np.array([[0.25, 0.75], [2.0, 0.0], [0.5, 0.0]])).tolist()
    [[0.25, 0.75], [1.0, 0.0], [0.75, 0.25]]
    """
    ordered = -np.sort(-scores_nk, axis=1)
    excess = (np.cumsum(ordered, axis=1) - 1.0) / np.arange(1, scores_nk.shape[1] + 1)
    last = (ordered > excess).sum(axis=1) - 1
    return np.asarray(np.maximum(scores_nk - excess[np.arange(len(scores_nk)), last][:, None], 0.0))
