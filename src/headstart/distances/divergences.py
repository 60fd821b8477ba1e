"""Kullback-Leibler and Jensen-Shannon divergence: between label distributions, and between estimated densities.

    KL(P || Q) = sum_x P(x) log(P(x) / Q(x))        JS(P, Q) = KL(P || M) / 2 + KL(Q || M) / 2,   M = (P + Q) / 2

Densities of features are estimated in one of two named ways:

    gaussian   one Gaussian a domain; KL in closed form, JS as log 2 less the mean over both domains' rows, each domain counting
               for half, of the entropy of w = p / (p + q), what a row says of its domain: never below 0, whatever the rows
               KL = (tr C_T^-1 C_S + (mean_T - mean_S)' C_T^-1 (mean_T - mean_S) - d + log det C_T / det C_S) / 2
    neighbours k nearest neighbours: p(x_i) / q(x_i) = (nu_i / rho_i)^d m / (n - 1),  KL = mean over source rows of its log
               rho_i, nu_i: distance of x_i to its k-th nearest other source row and its k-th nearest target row

Source: Kullback & Leibler, "On information and sufficiency", 1951; Lin, "Divergence measures based on the Shannon entropy", IEEE
Transactions on Information Theory 1991; Wang, Kulkarni & Verdú, "Divergence estimation for multidimensional densities via
k-nearest-neighbor distances", IEEE Transactions on Information Theory 2009. Unit: nats (JS at most log 2 = 0.693).
Use them between label distributions, or between few features; "gaussian" when one bump fits, "neighbours" when it does not.
They ignore how *far* mass moved. In more than about 20 features no density can be estimated from some thousand rows: the figures
then say "different", and not by how much. KL does not change when features are rescaled or mixed linearly; "neighbours" therefore
standardises first. Of tensors "gaussian" is a tensor with a gradient, through means, covariances and densities alike.
Shapes: n source rows, m target rows, d features, k classes.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from array_api_compat import is_torch_array
from scipy.spatial import cKDTree

from headstart.core.errors import ConfigError, DataError, DomainError, did_you_mean
from headstart.distances.moments import mean_and_covariance
from headstart.distances.rows import as_numpy, constant, read_domains

__all__ = ["js_divergence", "kl_divergence", "label_js_divergence", "label_kl_divergence", "label_shares"]

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
Estimator = Literal["gaussian", "neighbours"]


def label_shares(
    source_labels_n: npt.ArrayLike, target_labels_m: npt.ArrayLike
) -> tuple[FloatArray, FloatArray, Array]:
    """Return the share of each class in both domains, and the classes, sorted.

    Raises
    ------
    DataError
        If there are no labels, or some are missing.

    Examples
    --------
    >>> source, target, classes = label_shares(["a", "b"], ["b"])
    >>> source.tolist(), target.tolist(), classes.tolist()
    ([0.5, 0.5], [0.0, 1.0], ['a', 'b'])
    """
    both = [np.ravel(np.asarray(as_numpy(labels))) for labels in (source_labels_n, target_labels_m)]
    for name, labels in zip(("source", "target"), both, strict=True):
        if not len(labels):
            raise DataError(f"label_shares: {name} has no labels; give one for each row.")
        missing = [label is None or label != label for label in labels.tolist()]  # noqa: PLR0124 - NaN differs from itself
        if any(missing):
            raise DataError(f"label_shares: {sum(missing)} labels of {name} are missing; leave those rows out.")
    kinds = {"number" if labels.dtype.kind in "fiub" else "text" for labels in both}
    if len(kinds) == 2:
        raise DataError("label_shares: one domain's labels are numbers and the other's text; bring them to one type.")
    classes, codes = np.unique(np.concatenate(both), return_inverse=True)
    num_source = len(both[0])
    counts = [np.bincount(part, minlength=len(classes)) for part in (codes[:num_source], codes[num_source:])]
    return counts[0] / len(both[0]), counts[1] / len(both[1]), classes


def label_kl_divergence(source_labels_n: npt.ArrayLike, target_labels_m: npt.ArrayLike) -> float:
    """Return the Kullback-Leibler divergence of the target's class shares from the source's.

    Parameters
    ----------
    source_labels_n, target_labels_m : array-like of shape (n,) and (m,)
        Class of each row: numbers or text.

    Returns
    -------
    float
        At least 0, in nats; infinite where the source has a class that the target lacks.

    Raises
    ------
    DataError
        If labels are missing.

    Examples
    --------
    >>> round(label_kl_divergence(["a", "a"], ["a", "b"]), 6)     # log 2
    0.693147
    """
    source_k, target_k, _ = label_shares(source_labels_n, target_labels_m)
    return _kl(source_k, target_k)


def label_js_divergence(source_labels_n: npt.ArrayLike, target_labels_m: npt.ArrayLike) -> float:
    """Return the Jensen-Shannon divergence of the two domains' class shares.

    Parameters
    ----------
    source_labels_n, target_labels_m : array-like of shape (n,) and (m,)
        Class of each row: numbers or text.

    Returns
    -------
    float
        Between 0 (equal shares) and log 2 = 0.693 (no class in common), in nats.

    Raises
    ------
    DataError
        If labels are missing.

    Examples
    --------
    >>> round(label_js_divergence([0, 0], [1]), 6)
    0.693147
    """
    source_k, target_k, _ = label_shares(source_labels_n, target_labels_m)
    middle_k = (source_k + target_k) / 2
    return (_kl(source_k, middle_k) + _kl(target_k, middle_k)) / 2


def kl_divergence(
    source_nd: Any,
    target_md: Any,
    *,
    estimator: Estimator = "gaussian",
    num_neighbours: int = 5,
    regularisation: float = 1e-3,
) -> Any:
    """Return the Kullback-Leibler divergence of the target's estimated density from the source's.

    Parameters
    ----------
    source_nd, target_md : array or tensor of shape (n, d) and (m, d)
        Features; computed in float64. Features that are constant over both domains tell nothing and are left out.
    estimator : {"gaussian", "neighbours"}
        How densities are estimated.
    num_neighbours : int, at least 1
        "neighbours": k; more is steadier and blurs more.
    regularisation : float, at least 0
        "gaussian": added to the variances of the standardised features, so that few rows leave no direction without spread.

    Returns
    -------
    float, or Tensor of shape () for tensors under "gaussian"
        In nats; "neighbours" may be a little below 0 for equal domains. Infinite where all target rows lie apart from duplicated
        source rows.

    Raises
    ------
    HeadstartError
        If the rows cannot be compared or are too few, or an option breaks its rule.

    Examples
    --------
    >>> round(kl_divergence([[-1.0], [1.0]], [[0.0], [2.0]], regularisation=0.0), 6)     # variances 2: 1^2 / (2 * 2)
    0.25
    """
    who = "kl_divergence"
    xp, source, target = _standardised(who, source_nd, target_md, estimator, num_neighbours, regularisation)
    if estimator == "neighbours":
        return float(_log_ratio_by_neighbours(source, target, num_neighbours).mean()) if source.shape[1] else 0.0
    source_mean, source_root = _gaussian(who, xp, source, regularisation)
    target_mean, target_root = _gaussian(who, xp, target, regularisation)
    gap_d = xp.linalg.solve(target_root, (target_mean - source_mean)[:, None])
    spread = xp.sum(xp.square(xp.linalg.solve(target_root, source_root)))
    volume = 2 * (_log_volume(xp, target_root) - _log_volume(xp, source_root))
    return _finish(spread + xp.sum(xp.square(gap_d)) - source.shape[1] + volume, source_nd)


def js_divergence(
    source_nd: Any,
    target_md: Any,
    *,
    estimator: Estimator = "gaussian",
    num_neighbours: int = 5,
    regularisation: float = 1e-3,
) -> Any:
    """Return the Jensen-Shannon divergence of the two domains' estimated densities.

    Parameters
    ----------
    source_nd, target_md, estimator, num_neighbours, regularisation
        As in `kl_divergence`.

    Returns
    -------
    float, or Tensor of shape () for tensors under "gaussian"
        In nats, at most log 2 = 0.693. "gaussian" is at least 0; "neighbours" may be a little below 0 for equal domains, and the
        noise of few neighbours pulls it down (by a fifth for 5 neighbours in two features): give more of them where the amount
        matters.

    Raises
    ------
    HeadstartError
        As `kl_divergence`.

    Examples
    --------
    >>> source = np.array([[-1.0], [1.0]])
    >>> round(js_divergence(source, source + 1000), 6)     # nothing in common: log 2
    0.693147
    """
    who = "js_divergence"
    xp, source, target = _standardised(who, source_nd, target_md, estimator, num_neighbours, regularisation)
    if estimator == "neighbours":
        if not source.shape[1]:
            return 0.0
        ratios = [_log_ratio_by_neighbours(a, b, num_neighbours) for a, b in ((source, target), (target, source))]
        means = [np.mean(math.log(2.0) + _log_share(np, ratio)) for ratio in ratios]
    else:
        gaussians = [_gaussian(who, xp, rows, regularisation) for rows in (source, target)]
        ratios = [
            _log_density(xp, rows, *gaussians[0]) - _log_density(xp, rows, *gaussians[1]) for rows in (source, target)
        ]
        means = [math.log(2.0) - xp.mean(_entropy_of_share(xp, ratio)) for ratio in ratios]
    return _finish(means[0] + means[1], source_nd)


def _kl(first_k: FloatArray, second_k: FloatArray) -> float:
    there = first_k > 0
    if (second_k[there] == 0).any():
        return float("inf")
    return max(0.0, float((first_k[there] * np.log(first_k[there] / second_k[there])).sum()))


def _log_share(xp: Any, log_ratio_n: Any) -> Any:
    """Return log(r / (1 + r)) from log r, without overflow."""
    return -xp.logaddexp(xp.zeros_like(log_ratio_n), -log_ratio_n)


def _entropy_of_share(xp: Any, log_ratio_n: Any) -> Any:
    """Return the entropy, in nats, of the two shares r / (1 + r) and 1 / (1 + r) of each row, from log r."""
    log_shares = (_log_share(xp, log_ratio_n), _log_share(xp, -log_ratio_n))
    return -sum(xp.exp(log_share) * log_share for log_share in log_shares)


def _standardised(
    who: str, source_nd: Any, target_md: Any, estimator: str, num_neighbours: int, regularisation: float
) -> tuple[Any, Any, Any]:
    """Return both domains in float64, less the pooled mean and over the pooled deviation, without constant features."""
    if estimator not in ("gaussian", "neighbours"):
        near = did_you_mean(str(estimator), ("gaussian", "neighbours"))
        raise ConfigError(f"{who}: estimator must be 'gaussian' or 'neighbours'; got {estimator!r}.{near}")
    if num_neighbours < 1 or not regularisation >= 0:
        raise ConfigError(
            f"{who}: num_neighbours is at least 1 and regularisation at least 0; got {num_neighbours} and {regularisation}."
        )
    min_rows = num_neighbours + 1 if estimator == "neighbours" else 2
    xp, source, target = read_domains(who, source_nd, target_md, min_rows=min_rows)
    epsilon = float(xp.finfo(source.dtype).eps)
    if estimator == "neighbours":
        xp, source, target = np, as_numpy(source), as_numpy(target)
    both = [xp.astype(rows, xp.float64) if xp is not np else rows.astype(np.float64) for rows in (source, target)]
    means = [xp.mean(rows, axis=0) for rows in both]
    centre = (means[0] + means[1]) / 2
    variances = [xp.mean(xp.square(rows - centre), axis=0) for rows in both]
    pooled = (variances[0] + variances[1]) / 2
    varies = constant(pooled) > xp.square(4 * epsilon * constant(centre))
    deviation = xp.sqrt(pooled[varies])
    return xp, (both[0] - centre)[:, varies] / deviation, (both[1] - centre)[:, varies] / deviation


def _gaussian(who: str, xp: Any, rows_nd: Any, regularisation: float) -> tuple[Any, Any]:
    """Return the mean and the lower root L of the covariance L L'."""
    mean, covariance = mean_and_covariance(xp, rows_nd)
    covariance = covariance + regularisation * xp.asarray(np.eye(len(mean)), device=covariance.device)
    if len(mean) and np.linalg.eigvalsh(as_numpy(covariance))[0] <= 1e-14:
        raise DomainError(
            f"{who}: a domain has no spread in some direction ({len(rows_nd)} rows, {len(mean)} features), so that it has no "
            "density; give a regularisation above 0."
        )
    return mean, xp.linalg.cholesky(covariance)


def _log_volume(xp: Any, lower_dd: Any) -> Any:
    return xp.sum(xp.log(xp.linalg.diagonal(lower_dd)))


def _log_density(xp: Any, rows_nd: Any, mean_d: Any, lower_dd: Any) -> Any:
    """Return the log density of a Gaussian less the constant that all Gaussians share."""
    standard = xp.linalg.solve(lower_dd, (rows_nd - mean_d).T)
    return -xp.sum(xp.square(standard), axis=0) / 2 - _log_volume(xp, lower_dd)


def _finish(doubled: Any, given: Any) -> Any:
    """Return half of it: a number, or a tensor of the type that features came in, float32 for half precision."""
    if not is_torch_array(doubled):
        return float(doubled) / 2
    kept = given.dtype if given.dtype == doubled.dtype else doubled.float().dtype
    return (doubled / 2).to(kept)


def _log_ratio_by_neighbours(own_nd: FloatArray, other_md: FloatArray, num_neighbours: int) -> FloatArray:
    """Return the estimated log ratio of the own to the other density at each own row."""
    own = np.asarray(cKDTree(own_nd).query(own_nd, k=[num_neighbours + 1])[0])[:, 0]
    other = np.asarray(cKDTree(other_md).query(own_nd, k=[num_neighbours])[0])[:, 0]
    scale = np.log(len(other_md) / (len(own_nd) - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = own_nd.shape[1] * (np.log(other) - np.log(own)) + scale
    return np.asarray(
        np.where((own == 0) & (other == 0), scale, ratio)
    )  # duplicated rows in both domains: as dense here as there
