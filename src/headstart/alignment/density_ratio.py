"""Density ratios as sums of kernels: KLIEP, uLSIF and RuLSIF.

    w(x) = sum_l a_l k(x, c_l),  a >= 0,      c: up to num_centres target rows,   k(x, c) = exp(-|x - c|^2 / (2 b^2 s^2))
    KLIEP    maximise mean_j log w(z_j)  with  mean_i w(x_i) = 1
    RuLSIF   a = max(0, (H + r I)^-1 h),  H = t mean_j k(z_j) k(z_j)' + (1 - t) mean_i k(x_i) k(x_i)',  h = mean_j k(z_j)
             an estimate of p_T / (t p_T + (1 - t) p_S), which is at most 1/t
    uLSIF    RuLSIF with t = 0

Source: Sugiyama et al., "Direct importance estimation for covariate shift adaptation", Ann. Inst. Stat. Math. 2008
(KLIEP and its likelihood cross-validation); Kanamori, Hido & Sugiyama, "A least-squares approach to direct importance
estimation", JMLR 2009 (uLSIF, analytic leave-one-out); Yamada et al., "Relative density-ratio estimation for robust
distribution comparison", Neural Computation 2013 (RuLSIF). KLIEP is solved as the mixture problem it is (shares p_l =
a_l mean_i k(x_i, c_l)) by Newton steps with a duality-gap certificate. Leaving one source and one target row out changes
H by rank two, so that every bandwidth and penalty is judged exactly without refitting, for uLSIF and RuLSIF alike.
KLIEP's cross-validation holds out source rows with target rows: the paper's holds out the target alone, and narrow kernels
then profit from the gaps between the source rows that normalise them. Coefficients below 0 are set to 0 for both.
Use KLIEP or uLSIF for covariate shift in few dimensions, RuLSIF where the target reaches beyond the source.
They ignore labels; in many dimensions kernels see little.
Shapes: n source rows, m target rows, d features, b centres, q pairs left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, optimize

from headstart.alignment.aligner import Domains, Reweighter
from headstart.alignment.kernel_rows import RowScale, gaussian_kernel
from headstart.alignment.option_checks import check_count, check_number
from headstart.core.errors import ConfigError

__all__ = ["KLIEP", "ULSIF", "RuLSIF", "least_squares_ratio", "left_out_scores", "mixture_shares"]

Array = npt.NDArray[Any]
BANDWIDTHS = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.5, 2.5)
PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


class KLIEP(Reweighter):
    """Kullback-Leibler importance estimation; the bandwidth is chosen by the likelihood of held-out target rows.

    After ``fit`` also ``bandwidth_``; ``scores_``, the held-out ``mean log w(z) - log mean w(x)`` of each bandwidth;
    ``centres_`` and ``coefficients_``.

    Parameters
    ----------
    bandwidths : sequence of float, above 0
        Widths of the Gaussian kernel to choose from, in units of the root mean squared distance of all rows from their mean.
    num_centres : int, at least 1
        Most kernel centres, drawn from the target rows.
    num_folds : int, at least 2
        Parts of both domains for cross-validation; unused where there is one bandwidth.
    min_effective_rows : float
        Weights worth fewer rows are refused.
    random_state : int
        Draws centres and parts.

    Examples
    --------
    >>> source, target = np.array([[0.0], [0.0], [9.0], [9.0]]), np.array([[0.0], [9.0], [9.0], [9.0]])
    >>> KLIEP(bandwidths=[0.1], min_effective_rows=1).fit(source, None, target).weights_.round(6).tolist()
    [0.5, 0.5, 1.5, 1.5]
    """

    min_rows = 2

    def __init__(
        self,
        bandwidths: Sequence[float] = BANDWIDTHS,
        num_centres: int = 100,
        num_folds: int = 5,
        min_effective_rows: float = 10.0,
        random_state: int = 0,
    ) -> None:
        self.bandwidths = bandwidths
        self.num_centres = num_centres
        self.num_folds = num_folds
        self.min_effective_rows = min_effective_rows
        self.random_state = random_state

    def _weigh(self, domains: Domains) -> Array:
        widths = _choices("KLIEP", "bandwidths", self.bandwidths)
        check_count("KLIEP", "num_centres", self.num_centres)
        check_count("KLIEP", "num_folds", self.num_folds, 2)
        source, target, self.centres_ = _rows_and_centres(domains, self.num_centres, self.random_state)
        num_folds = min(int(self.num_folds), len(source), len(target))
        random = np.random.default_rng(self.random_state)
        fold_n, fold_m = (random.permutation(np.arange(len(rows)) % num_folds) for rows in (source, target))
        self.scores_ = []
        for width in widths if len(widths) > 1 else []:
            at_source, at_target = (gaussian_kernel(rows, self.centres_, width) for rows in (source, target))
            scores = []
            for fold in range(num_folds):
                coefficients = _kliep(at_source[fold_n != fold], at_target[fold_m != fold])
                ratio_n, ratio_m = (
                    np.maximum(values[folds == fold] @ coefficients, np.finfo(np.float64).tiny)
                    for values, folds in ((at_source, fold_n), (at_target, fold_m))
                )
                scores.append(np.log(ratio_m).mean() - np.log(ratio_n.mean()))
            self.scores_.append(float(np.mean(scores)))
        self.bandwidth_ = widths[int(np.argmax(self.scores_))] if self.scores_ else widths[0]
        at_source = gaussian_kernel(source, self.centres_, self.bandwidth_)
        self.coefficients_ = _kliep(at_source, gaussian_kernel(target, self.centres_, self.bandwidth_))
        return np.asarray(at_source @ self.coefficients_)


class RuLSIF(Reweighter):
    """Relative least-squares importance fitting: weights of at most 1 / ``relative``, before scaling.

    After ``fit`` also ``bandwidth_`` and ``penalty_``, chosen by exact leave-one-out; ``scores_``, a row a bandwidth and
    a column a penalty, lower is better; ``centres_`` and ``coefficients_``.

    Parameters
    ----------
    relative : float, at least 0 and below 1
        Share of the target in the density that the target's is divided by.
    bandwidths : sequence of float, above 0
        Widths of the Gaussian kernel to choose from, in units of the root mean squared distance of all rows from their mean.
    penalties : sequence of float, above 0
        Ridge penalties to choose from.
    num_centres : int, at least 1
        Most kernel centres, drawn from the target rows.
    min_effective_rows : float
        Weights worth fewer rows are refused.
    random_state : int
        Draws centres and the pairs that are left out.

    Examples
    --------
    >>> source, target = np.array([[0.0], [0.0], [9.0], [9.0]]), np.array([[0.0], [9.0], [9.0], [9.0]])
    >>> fitted = RuLSIF(bandwidths=[0.1], penalties=[1e-9], min_effective_rows=1).fit(source, None, target)
    >>> fitted.weights_.round(3).tolist()                       # ratios 1/2 and 3/2; over the mixture 0.53 and 1.43
    [0.538, 0.538, 1.462, 1.462]
    """

    min_rows = 2

    def __init__(
        self,
        relative: float = 0.1,
        bandwidths: Sequence[float] = BANDWIDTHS,
        penalties: Sequence[float] = PENALTIES,
        num_centres: int = 100,
        min_effective_rows: float = 10.0,
        random_state: int = 0,
    ) -> None:
        self.relative = relative
        self.bandwidths = bandwidths
        self.penalties = penalties
        self.num_centres = num_centres
        self.min_effective_rows = min_effective_rows
        self.random_state = random_state

    def _weigh(self, domains: Domains) -> Array:
        who = type(self).__name__
        widths = _choices(who, "bandwidths", self.bandwidths)
        penalties = _choices(who, "penalties", self.penalties)
        check_count(who, "num_centres", self.num_centres)
        relative = check_number(who, "relative", self.relative, 0.0, 1.0, high_included=False)
        source, target, self.centres_ = _rows_and_centres(domains, self.num_centres, self.random_state)
        random = np.random.default_rng(self.random_state)
        num_pairs = min(len(source), len(target))
        pairs = random.permutation(len(source))[:num_pairs], random.permutation(len(target))[:num_pairs]
        self.scores_ = np.empty((len(widths), len(penalties)))
        for place, width in enumerate(widths):
            at_source, at_target = (gaussian_kernel(rows, self.centres_, width) for rows in (source, target))
            for column, penalty in enumerate(penalties):
                self.scores_[place, column] = left_out_scores(at_source, at_target, penalty, relative, pairs).mean()
        place, column = divmod(int(np.argmin(self.scores_)), len(penalties))
        self.bandwidth_, self.penalty_ = widths[place], penalties[column]
        at_source, at_target = (gaussian_kernel(rows, self.centres_, self.bandwidth_) for rows in (source, target))
        self.coefficients_ = least_squares_ratio(at_source, at_target, self.penalty_, relative)
        return np.asarray(at_source @ self.coefficients_)


class ULSIF(RuLSIF):
    """Unconstrained least-squares importance fitting: `RuLSIF` of the plain ratio, target over source.

    Parameters
    ----------
    bandwidths, penalties, num_centres, min_effective_rows, random_state
        See `RuLSIF`.

    Examples
    --------
    >>> source, target = np.array([[0.0], [0.0], [9.0], [9.0]]), np.array([[0.0], [9.0], [9.0], [9.0]])
    >>> fitted = ULSIF(bandwidths=[0.1], penalties=[1e-9], min_effective_rows=1).fit(source, None, target)
    >>> fitted.weights_.round(3).tolist()
    [0.5, 0.5, 1.5, 1.5]
    """

    relative = 0.0

    def __init__(
        self,
        bandwidths: Sequence[float] = BANDWIDTHS,
        penalties: Sequence[float] = PENALTIES,
        num_centres: int = 100,
        min_effective_rows: float = 10.0,
        random_state: int = 0,
    ) -> None:
        self.bandwidths = bandwidths
        self.penalties = penalties
        self.num_centres = num_centres
        self.min_effective_rows = min_effective_rows
        self.random_state = random_state


def least_squares_ratio(source_nb: Array, target_mb: Array, penalty: float, relative: float = 0.0) -> Array:
    """Return the coefficients (b,) of the (relative) ratio from kernel values at source and target rows.

    Examples
    --------
    >>> least_squares_ratio(np.array([[1.0], [1.0]]), np.array([[1.0], [1.0]]), 1.0).tolist()       # 1 / (1 + 1)
    [0.5]
    """
    inner = (1.0 - relative) / len(source_nb) * (source_nb.T @ source_nb)
    if relative:
        inner += relative / len(target_mb) * (target_mb.T @ target_mb)
    inner[np.diag_indices_from(inner)] += penalty
    return np.maximum(linalg.solve(inner, target_mb.mean(axis=0), assume_a="pos"), 0.0)


def left_out_scores(
    source_nb: Array, target_mb: Array, penalty: float, relative: float, pairs: tuple[Array, Array]
) -> Array:
    """Return for each pair (one source row, one target row) the loss on it of the coefficients fitted without it.

    The loss is ``t/2 w(z)^2 + (1 - t)/2 w(x)^2 - w(z)``. Nothing is refitted: leaving a pair out takes two rank-one
    terms from H.

    Parameters
    ----------
    source_nb, target_mb : ndarray
        Kernel values at source and target rows.
    penalty, relative : float
        The ridge penalty r and the target's share t.
    pairs : tuple of two ndarray of shape (q,)
        Places of the source and the target row of each pair.

    Returns
    -------
    ndarray of shape (q,)

    Examples
    --------
    >>> ones = np.ones((2, 1))                                        # without a pair: H = h = 1, a = 1 / (1 + 1)
    >>> left_out_scores(ones, ones, 1.0, 0.0, (np.array([0]), np.array([0]))).round(6).tolist()       # 1/8 - 1/2
    [-0.375]
    """
    num_source, num_target = len(source_nb), len(target_mb)
    share_s, share_t = (1.0 - relative) / (num_source - 1), relative / (num_target - 1)
    inner = share_s * (source_nb.T @ source_nb)
    if relative:
        inner += share_t * (target_mb.T @ target_mb)
    inner[np.diag_indices_from(inner)] += penalty
    factor = linalg.cho_factor(inner)
    source, target = source_nb[pairs[0]], target_mb[pairs[1]]
    left, right = np.sqrt(share_t) * target, np.sqrt(share_s) * source  # H loses left left' + right right'
    solved_left, solved_right = linalg.cho_solve(factor, left.T).T, linalg.cho_solve(factor, right.T).T
    mean = (num_target * target_mb.mean(axis=0) - target) / (num_target - 1)
    solved = linalg.cho_solve(factor, mean.T).T
    # Woodbury with a 2 x 2 system [[p, q], [q, r]] for each pair
    p, r = (1.0 - (left * solved_left).sum(axis=1), 1.0 - (right * solved_right).sum(axis=1))
    q = -(left * solved_right).sum(axis=1)
    on_left, on_right = (left * solved).sum(axis=1), (right * solved).sum(axis=1)
    determinant = p * r - q * q
    solved += ((r * on_left - q * on_right) / determinant)[:, None] * solved_left
    solved += ((p * on_right - q * on_left) / determinant)[:, None] * solved_right
    coefficients = np.maximum(solved, 0.0)
    at_source, at_target = (source * coefficients).sum(axis=1), (target * coefficients).sum(axis=1)
    return np.asarray(0.5 * relative * at_target**2 + 0.5 * (1.0 - relative) * at_source**2 - at_target)


def mixture_shares(densities_mb: Array, tolerance: float = 1e-7, max_steps: int = 50) -> Array:
    """Return the shares (b,) of a mixture under which the rows are likeliest: ``max_p mean_j log (D p)_j``, p >= 0, sum 1.

    Parameters
    ----------
    densities_mb : ndarray of shape (m, b)
        Density of each row under each component, each row on any scale of its own.
    tolerance : float
        Most log-likelihood a row that the optimum may be above the answer (a bound, from duality).
    max_steps : int
        Most Newton steps.

    Examples
    --------
    >>> mixture_shares(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])).round(6).tolist()
    [0.25, 0.75]
    """
    num_parts = densities_mb.shape[1]
    largest = densities_mb.max(axis=1, keepdims=True)
    scaled = densities_mb / np.where(largest > 0, largest, 1.0)
    scaled = scaled[largest[:, 0] > 0]
    shares = np.full(num_parts, 1.0 / num_parts)
    for _ in range(max_steps):
        relative = scaled / (scaled @ shares)[:, None]
        gain = relative.mean(axis=0)
        if len(scaled) == 0 or np.log(max(gain.max(), 1.0)) <= tolerance:
            break
        curvature = relative.T @ relative / len(scaled)
        curvature[np.diag_indices_from(curvature)] += 1e-10 * np.trace(curvature) / num_parts
        root = linalg.cholesky(curvature)  # 1/2 z'Hz - c'z is half the squared length of (root z - root'^-1 c), z >= 0
        goal = linalg.solve_triangular(root, 2.0 * gain - 1.0, trans=1)
        try:
            towards, _ = optimize.nnls(root, goal, maxiter=50 * num_parts)
        except RuntimeError:  # it did not settle: a step of EM instead
            towards = shares
        if not towards.sum() > 0:
            break
        shares = _climb(scaled, shares, towards / towards.sum())
    return shares


def _climb(scaled: Array, shares: Array, towards: Array) -> Array:
    """Go towards a point as far as the likelihood rises; multiply each share by its gain (EM) where it does not."""
    before, start, end = float(np.log(scaled @ shares).mean()), scaled @ shares, scaled @ towards
    step = 1.0
    while step > 1e-6:
        mixed = (1.0 - step) * start + step * end
        if (mixed > 0).all() and float(np.log(mixed).mean()) > before:
            return np.asarray((1.0 - step) * shares + step * towards)
        step /= 2.0
    return np.asarray(shares * (scaled / start[:, None]).mean(axis=0))


def _kliep(source_nb: Array, target_mb: Array) -> Array:
    """Return KLIEP's coefficients: mixture shares over the mean kernel value at source rows."""
    reach = source_nb.mean(axis=0)
    # a centre that no source row is near would weigh without bound
    seen = reach > 1e-12 * max(reach.max(), np.finfo(np.float64).tiny)
    coefficients = np.zeros(len(reach))
    coefficients[seen] = mixture_shares(target_mb[:, seen] / reach[seen]) / reach[seen]
    return coefficients


def _rows_and_centres(domains: Domains, num_centres: int, seed: int) -> tuple[Array, Array, Array]:
    """Return both domains' scaled rows, and the centres: all target rows, or some drawn from them."""
    scale = RowScale(np.concatenate([domains.source_nd, domains.target_md]), to_unit=False)
    source, target = scale(domains.source_nd), scale(domains.target_md)
    if len(target) <= num_centres:
        return source, target, target
    drawn = np.random.default_rng(seed).choice(len(target), int(num_centres), replace=False)
    return source, target, target[np.sort(drawn)]


def _choices(who: str, name: str, values: Sequence[float]) -> list[float]:
    """Return the values to choose from, each above 0."""
    chosen = [float(value) for value in np.atleast_1d(np.asarray(values, dtype=np.float64))]
    if not chosen:
        raise ConfigError(f"{who}: {name} needs at least one value; got none.")
    for value in chosen:
        check_number(who, name, value, low_included=False, high_included=False)
    return chosen
