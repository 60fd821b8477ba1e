"""Projections on which the domains' means agree: the eigenproblem that TCA, JDA, BDA and TJM share.

    max_A tr(A' R'HR A)   with   A' (I + R'E E'R) A  diagonal        R: rows as seen (n + m, p),  H = I - 11'/(n + m)

The columns of E hold the means to be brought together: +1/n_S on rows of the source, -1/n_T on rows of the target, for all rows
(marginal) or for those of one class (conditional), scaled so that |E E'|_F = 1 (as in the programs; checked, see `jda`).

    primal  R = X / sqrt(l)                  A acts on features (Long et al. 2013)
    linear  R = X (X' D^-1 X)^1/2            A acts on rows; the same as K = X X' with penalty D, but d x d (see below)
    rbf     R = K D^-1/2                     A acts on rows

D is the penalty on each row's coefficients: l I, or TJM's reweighting. With K = X X' and K A = X B the best A for a given B
costs B'(X' D^-1 X)^-1 B, so that the problem of n + m unknowns is one of d without approximation.
I + F F' with few columns F has the inverse root I - U diag(1 - 1/sqrt(1 + s^2)) U' (F = U s V'), which makes the problem
symmetric: a dense solver for small p, Lanczos for large.
The papers fix the length of a column of A by giving its component variance 1 (A'R'HRA = (n + m) I, ``whiten=True``); the authors'
programs return columns of length 1, which the published figures need (``whiten=False``). Signs are fixed.
Shapes: n source rows, m target rows, d features, p columns of R, c columns of E, r components.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import linalg
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from headstart.alignment.aligner import Domains, FeatureAligner
from headstart.alignment.gaussians import symmetric_powers
from headstart.alignment.kernel_rows import RowScale, gaussian_kernel, unit_rows
from headstart.core.errors import ConfigError, DomainError

__all__ = [
    "MMDProjection",
    "SpreadRows",
    "View",
    "check_above_zero",
    "check_whole",
    "leading_projection",
    "mean_contrasts",
]

Array = npt.NDArray[Any]
_DENSE = 1200  # up to here a dense solver is as fast as Lanczos
_BLOCK = 2048


def mean_contrasts(
    num_source: int,
    num_target: int,
    source_codes_n: Array | None = None,
    target_codes_m: Array | None = None,
    marginal: float = 1.0,
    conditional: float = 1.0,
    by_share: bool = False,
) -> Array:
    """Return the columns E whose squares are the discrepancies to shrink, with ``|E E'|_F = 1``.

    Parameters
    ----------
    num_source, num_target : int
        Numbers of rows.
    source_codes_n, target_codes_m : ndarray of int, optional
        Class of every row; without them only the marginal column is made. A class that one domain lacks has no column.
    marginal, conditional : float, at least 0
        Weights of the marginal discrepancy and of each class's.
    by_share : bool
        Whether a class's means are multiplied by the root of the class's share in their domain (weighted BDA).

    Returns
    -------
    ndarray of shape (n + m, c)
        Source rows first.

    Examples
    --------
    >>> mean_contrasts(1, 1).round(4).tolist()
    [[0.7071], [-0.7071]]
    """
    columns = [np.sqrt(marginal) * np.repeat([1.0 / num_source, -1.0 / num_target], [num_source, num_target])]
    if source_codes_n is not None and target_codes_m is not None:
        for code in np.intersect1d(source_codes_n, target_codes_m):
            of_source, of_target = source_codes_n == code, target_codes_m == code
            shares = (of_source.mean(), of_target.mean()) if by_share else (1.0, 1.0)
            column = np.concatenate(
                [
                    np.sqrt(shares[0]) * of_source / of_source.sum(),
                    -np.sqrt(shares[1]) * of_target / of_target.sum(),
                ]
            )
            columns.append(np.sqrt(conditional) * column)
    contrasts = np.stack(columns, axis=1)
    size = np.sqrt(np.linalg.norm(contrasts.T @ contrasts))
    return np.asarray(contrasts / (size or 1.0))


class _InverseRoot:
    """``(I + F F')^-1/2`` times a vector or a matrix."""

    def __init__(self, factor_pc: Array) -> None:
        basis, sizes, _ = linalg.svd(factor_pc, full_matrices=False, check_finite=False)
        self.basis_pc = basis
        self.shrunk_c = 1.0 - 1.0 / np.sqrt(1.0 + np.square(sizes))

    def __call__(self, right: Array) -> Array:
        inner = self.basis_pc.T @ right
        scaled = self.shrunk_c[:, None] * inner if right.ndim == 2 else self.shrunk_c * inner
        return np.asarray(right - self.basis_pc @ scaled)


class SpreadRows:
    """Rows R of an eigenproblem, and what all its solutions share: a basis of their span where they are wide, their scatter.

    Parameters
    ----------
    rows_np : ndarray of shape (n + m, p)
        Source rows first.
    """

    def __init__(self, rows_np: Array) -> None:
        self.basis_pq: Array | None = None
        self.rows_nq = rows_np
        if rows_np.shape[1] > len(rows_np):  # nothing varies outside the span of the rows
            self.basis_pq = linalg.qr(rows_np.T, mode="economic", check_finite=False)[0]
            self.rows_nq = rows_np @ self.basis_pq

    @cached_property
    def scatter_qq(self) -> Array:
        """``R'HR``."""
        centred = self.rows_nq - self.rows_nq.mean(axis=0)
        return np.asarray(centred.T @ centred)


def leading_projection(rows: Array | SpreadRows, contrasts_nc: Array, num_components: int) -> Array:
    """Return A of shape (p, r): the directions of largest spread over discrepancy, with ``A'R'HRA = (n + m) I``, signs fixed.

    ``rows`` is R, or what `SpreadRows` keeps of it where several problems share it.

    Directions without spread are left out, so that r may be less than ``num_components``.

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.1], [0.0, -0.1]])        # most spread along the first axis
    >>> leading_projection(rows, mean_contrasts(2, 2), 1).round(4).tolist()         # variance 1/2 becomes 1
    [[1.4142], [0.0]]
    """
    spread = rows if isinstance(rows, SpreadRows) else SpreadRows(rows)
    num_rows, width = spread.rows_nq.shape
    root = _InverseRoot(spread.rows_nq.T @ contrasts_nc)
    wanted = min(num_components, width)
    solve = _dense if width <= _DENSE or wanted > width // 4 else _lanczos
    values, vectors = solve(spread, root, wanted)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > max(values[0], 0.0) * width * np.finfo(np.float64).eps
    projection = np.asarray(root(vectors[:, kept]) * np.sqrt(num_rows / values[kept]))
    if spread.basis_pq is not None:
        projection = spread.basis_pq @ projection
    places = np.abs(projection).argmax(axis=0)
    signs = np.sign(projection[places, np.arange(projection.shape[1])])
    return np.asarray(projection * signs)


def _dense(spread: SpreadRows, root: _InverseRoot, wanted: int) -> tuple[Array, Array]:
    half = root(root(spread.scatter_qq).T)
    width = len(half)
    values, vectors = linalg.eigh((half + half.T) / 2, subset_by_index=[width - wanted, width - 1], check_finite=False)
    return values, vectors


def _lanczos(spread: SpreadRows, root: _InverseRoot, wanted: int) -> tuple[Array, Array]:
    rows_nq, width = spread.rows_nq, spread.rows_nq.shape[1]

    def multiply(vector: Array) -> Array:
        seen = rows_nq @ root(np.ravel(vector))
        return root(rows_nq.T @ (seen - seen.mean()))

    start = np.random.default_rng(0).normal(size=width)
    operator: Any = LinearOperator((width, width), matvec=multiply, dtype=np.float64)
    try:
        values, vectors = eigsh(operator, k=wanted, which="LA", v0=start, tol=1e-10)  # type: ignore[call-overload]
    except ArpackNoConvergence:
        return _dense(spread, root, wanted)
    order = np.argsort(values)
    return values[order], vectors[:, order]


@dataclass(frozen=True)
class View:
    """Rows as the eigenproblem sees them, and what a solution of it means.

    Parameters
    ----------
    rows_np : ndarray of shape (n + m, p)
        R, source rows first.
    map : callable
        From a solution to the map that is applied to scaled features or kernel values.
    coefficients : callable
        From a solution to A: one row for each feature ("primal") or each fitted row.
    """

    rows_np: Array
    map: Callable[[Array], Array]
    coefficients: Callable[[Array], Array]

    @cached_property
    def spread(self) -> SpreadRows:
        """What every solution on these rows shares."""
        return SpreadRows(self.rows_np)


class MMDProjection(FeatureAligner):
    """Base of the aligners that move both domains with one projection; a subclass's ``_find`` learns ``map_``.

    Constructor parameters every subclass has: ``num_components``, ``regularisation``, ``kernel``, ``bandwidth``,
    ``normalise_rows``, ``whiten``.
    """

    min_rows = 2
    kernels: ClassVar[tuple[str, ...]] = ("primal", "linear", "rbf")

    def __init__(
        self,
        num_components: int = 30,
        regularisation: float = 1.0,
        kernel: str = "primal",
        bandwidth: float = 1.0,
        normalise_rows: bool = True,
        whiten: bool = False,
    ) -> None:
        self.num_components = num_components
        self.regularisation = regularisation
        self.kernel = kernel
        self.bandwidth = bandwidth
        self.normalise_rows = normalise_rows
        self.whiten = whiten

    def _align(self, domains: Domains) -> None:
        who = type(self).__name__
        check_whole(who, "num_components", self.num_components)
        check_above_zero(who, "regularisation", self.regularisation)
        check_above_zero(who, "bandwidth", self.bandwidth)
        if self.kernel not in self.kernels:
            raise ConfigError(f"{who}: kernel must be one of {', '.join(self.kernels)}; got {self.kernel!r}.")
        stacked = np.concatenate([domains.source_nd, domains.target_md])
        self.scale_ = RowScale(stacked, self.normalise_rows)
        if self.scale_.is_constant:
            raise DomainError(f"{who}: every row of both domains is the same; there is nothing to project.")
        rows_nd = self.scale_(stacked)
        self.fitted_rows_ = rows_nd if self.kernel == "rbf" else None
        if self.kernel == "rbf":
            spread = np.square(rows_nd - rows_nd.mean(axis=0)).sum(axis=1).mean()
            self.kernel_width_ = float(self.bandwidth * np.sqrt(spread))
        self._find(domains, self._base(rows_nd))

    @abstractmethod
    def _find(self, domains: Domains, base_np: Array) -> None:
        """Learn ``map_`` of shape (p, r) from all rows (source first): scaled features, or kernel values between them."""

    def _base(self, rows_nd: Array) -> Array:
        if self.fitted_rows_ is None:
            return rows_nd
        return gaussian_kernel(rows_nd, self.fitted_rows_, self.kernel_width_)

    def _view(self, base_np: Array, penalties_n: Array | None = None) -> View:
        """Return R and the ways back; ``penalties_n`` is the diagonal of D over the regularisation, ones when left out."""
        penalties = np.full(len(base_np), self.regularisation) * (1.0 if penalties_n is None else penalties_n)
        if self.kernel == "rbf":
            roots = 1.0 / np.sqrt(penalties)
            return View(base_np * roots, lambda found: roots[:, None] * found, lambda found: roots[:, None] * found)
        if self.kernel == "primal":
            gain = 1.0 / np.sqrt(self.regularisation)
            return View(base_np * gain, lambda found: gain * found, lambda found: gain * found)
        shrunk = base_np / penalties[:, None]
        root, inverse = symmetric_powers(base_np.T @ shrunk, 0.5, -0.5)
        return View(base_np @ root, lambda found: root @ found, lambda found: shrunk @ (inverse @ found))

    def _solve(self, view: View, contrasts_nc: Array) -> Array:
        """Return the map (p, r) for one set of means."""
        found = leading_projection(view.spread, contrasts_nc, self.num_components)
        sizes = 1.0 if self.whiten else np.linalg.norm(view.coefficients(found), axis=0)
        return np.asarray(view.map(found) / sizes)

    def _project(self, base_np: Array) -> Array:
        projected = base_np @ self.map_
        return unit_rows(projected) if self.normalise_rows else np.asarray(projected)

    def _map_source(self, X: Array) -> Array:
        return self._map_target(X)

    def _map_target(self, X: Array) -> Array:
        moved = np.empty((X.shape[0], self.map_.shape[1]), dtype=X.dtype)
        for start in range(0, X.shape[0], _BLOCK):
            block = slice(start, start + _BLOCK)
            moved[block] = self._project(self._base(self.scale_(X[block])))
        return moved


def check_whole(who: str, name: str, value: object) -> None:
    """Refuse what is not a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ConfigError(f"{who}: {name} must be a whole number of at least 1; got {value!r}.")


def check_above_zero(who: str, name: str, value: float) -> None:
    """Refuse what is not above 0."""
    if not value > 0:
        raise ConfigError(f"{who}: {name} must be above 0; got {value!r}.")
