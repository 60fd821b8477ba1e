"""LogME: how much evidence do the features give for the targets, under a linear model that weighs all weights at once?

    log p(y | F, alpha, beta) = d/2 log alpha + n/2 log beta - n/2 log(2 pi)
                                - beta/2 |F m - y|^2 - alpha/2 |m|^2 - 1/2 log det A
    A = alpha I + beta F'F,   m = beta A^-1 F'y                         alpha, beta: where this is largest
    LogME = that maximum / n, averaged over the columns of y (classes, labels, or the one value)

    fixed point:  gamma = sum_i beta s_i^2 / (alpha + beta s_i^2),  alpha = gamma / |m|^2,  beta = (n - gamma) / |F m - y|^2

Source: You, Liu, Wang & Long, "LogME: practical assessment of pre-trained models for transfer learning", ICML 2021
(arXiv:2102.11005), algorithm 1.
Use it to rank base models by their features alone, for classes, several labels and values; nothing is trained.
It ignores that classes exclude each other. Features are taken as they are, neither centred nor scaled, as in the paper.
In the eigenbasis of F'F every quantity is a sum over r eigenvalues, so all columns are solved at once after one
decomposition: no matrix is touched inside the loop.
Shapes: n rows, d features, r eigenvalues above 0, k columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.errors import ConfigError
from headstart.transferability.targets import check_features, read_targets

__all__ = ["logme"]

Array = npt.NDArray[Any]


def logme(features_nd: Array, targets: Array, *, tolerance: float = 1e-3, max_steps: int = 100) -> float:
    """Return the maximum log evidence per row, averaged over target columns; the larger the better.

    Parameters
    ----------
    features_nd : ndarray of shape (n, d), n >= 2
        Features of the target's rows; computed in float64.
    targets : ndarray of shape (n,) or (n, k)
        Whole numbers are classes, floating-point numbers are values, a matrix of 0 and 1 holds several labels.
    tolerance : float
        A column is done when its alpha / beta changes by less than this share.
    max_steps : int
        Steps of the fixed point at most.

    Returns
    -------
    float
        In nats per row; comparable between base models on the same rows and targets only.

    Raises
    ------
    HeadstartError
        If the shapes do not fit each other, a value is not finite, or there is only one class.

    Examples
    --------
    >>> targets = np.array([0, 0, 1, 1])
    >>> telling, silent = np.array([[0.0], [0.1], [1.0], [0.9]]), np.array([[0.0], [1.0], [0.1], [0.9]])
    >>> logme(telling, targets) > logme(silent, targets)
    True
    """
    if not tolerance > 0 or max_steps < 1:
        raise ConfigError(f"logme: tolerance and max_steps are positive; got {tolerance} and {max_steps}.")
    check_features("logme", features_nd, targets)
    columns = read_targets("logme", targets).columns
    features = np.asarray(features_nd, dtype=np.float64)
    squared_r, products_rk = _decompose(features, columns)
    rest_k = np.clip(np.square(columns).sum(axis=0) - products_rk.sum(axis=0), 0.0, None)
    if len(squared_r) == len(features):
        rest_k[:] = 0.0  # as many directions as rows: nothing lies outside them
    return float(_maximum_evidence(squared_r, products_rk, rest_k, len(features), tolerance, max_steps).mean())


def _decompose(features_nd: Array, columns_nk: Array) -> tuple[Array, Array]:
    """Return the squared singular values (r,) and the squared coordinates (U'y)^2 (r, k) of every column."""
    wide = features_nd.shape[1] > features_nd.shape[0]
    values, vectors = np.linalg.eigh(features_nd @ features_nd.T if wide else features_nd.T @ features_nd)
    kept = values > max(features_nd.shape) * np.finfo(np.float64).eps * max(float(values[-1]), 1e-300)
    values, vectors = values[kept], vectors[:, kept]
    if wide:
        return values, np.square(vectors.T @ columns_nk)
    return values, np.square(vectors.T @ (features_nd.T @ columns_nk)) / values[:, None]


def _maximum_evidence(
    squared_r: Array, products_rk: Array, rest_k: Array, num_rows: int, tolerance: float, max_steps: int
) -> npt.NDArray[np.float64]:
    """Return the maximum of the evidence per row for every column, shape (k,)."""
    evidence = np.empty(len(rest_k))
    ratio = np.ones(len(rest_k))  # alpha / beta
    running = np.arange(len(rest_k))
    for _ in range(max_steps):
        products, t = products_rk[:, running], ratio[running]
        inverse_rk = 1.0 / (squared_r[:, None] + t)
        gamma = squared_r @ inverse_rk
        length = np.maximum(np.einsum("r,rk,rk->k", squared_r, products, inverse_rk**2, optimize=True), 1e-300)
        residual = np.maximum(np.einsum("rk,rk->k", products, (t * inverse_rk) ** 2) + rest_k[running], 1e-300)
        freedom = num_rows - len(squared_r) + t * inverse_rk.sum(axis=0)  # n - gamma, without its rounding
        alpha, beta = gamma / length, np.maximum(freedom, 1e-300) / residual
        new_ratio = np.clip(alpha / beta, 1e-300, 1e300)
        evidence[running] = (
            0.5 * len(squared_r) * np.log(alpha)
            + 0.5 * num_rows * np.log(beta / (2 * np.pi))
            - 0.5 * np.log(alpha + beta * squared_r[:, None]).sum(axis=0)
            - 0.5 * (beta * residual + alpha * length)
        ) / num_rows
        ratio[running] = new_ratio
        running = running[np.abs(new_ratio - t) > tolerance * t]
        if not len(running):
            break
    return evidence
