"""KMM: weigh source rows so that their mean in kernel space is the target's.

    minimise  1/2 w' (K + r I) w - k' w     subject to  0 <= w_i <= upper,  |sum(w) - n| <= n slack
    K_ij = k(x_i, x_j),   k_i = n/m sum_j k(x_i, z_j),   k(x, z) = exp(-|x - z|^2 / (2 b^2 s^2))

Source: Huang, Smola, Gretton, Borgwardt & Schoelkopf, "Correcting sample selection bias by unlabeled data", NeurIPS
2006, equation 12, with its slack (sqrt(n) - 1) / sqrt(n). The small ridge r is ours: in few dimensions K has low rank
and the paper's problem many answers nearly as good, so that weights would hang on the order of the rows; r = 0 is the
paper's. The bandwidth b is in units of s, the root mean squared distance of all rows from their mean, so that neither
unit nor origin matters.
Use it when the target is a part of what the source covers and labels depend on rows alone (covariate shift).
It ignores labels, and holds n times n numbers.
Shapes: n source rows, m target rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.alignment.aligner import Domains, Reweighter
from headstart.alignment.kernel_rows import RowScale, gaussian_kernel
from headstart.alignment.option_checks import check_number
from headstart.alignment.quadratic import solve_quadratic
from headstart.core.errors import ConfigError

__all__ = ["KMM", "kernel_mean_weights"]

Array = npt.NDArray[Any]
_BLOCK = 4096


class KMM(Reweighter):
    """Kernel mean matching.

    After ``fit`` also ``objective_``, the value of ``1/2 w'(K + r I)w - k'w`` before the weights are scaled to mean 1.

    Parameters
    ----------
    bandwidth : float, above 0
        Width of the Gaussian kernel, in units of the root mean squared distance of all rows from their mean.
    upper : float, above 0
        Largest weight before scaling.
    slack : float from 0 to 1, optional
        How far the mean weight may be from 1 before scaling; ``(sqrt(n) - 1) / sqrt(n)`` when left out.
    ridge : float, at least 0
        Added to the kernel matrix' diagonal of ones; makes the answer unique where rows are alike.
    min_effective_rows : float
        Weights worth fewer rows are refused.

    Examples
    --------
    >>> source, target = np.array([[0.0], [0.0], [9.0], [9.0]]), np.array([[0.0], [9.0], [9.0], [9.0]])
    >>> KMM(bandwidth=0.1, min_effective_rows=1).fit(source, None, target).weights_.round(6).tolist()
    [0.5, 0.5, 1.5, 1.5]
    """

    def __init__(
        self,
        bandwidth: float = 1.0,
        upper: float = 1000.0,
        slack: float | None = None,
        ridge: float = 1e-3,
        min_effective_rows: float = 10.0,
    ) -> None:
        self.bandwidth = bandwidth
        self.upper = upper
        self.slack = slack
        self.ridge = ridge
        self.min_effective_rows = min_effective_rows

    def _weigh(self, domains: Domains) -> Array:
        check_number("KMM", "bandwidth", self.bandwidth, low_included=False, high_included=False)
        check_number("KMM", "ridge", self.ridge, high_included=False)
        check_number("KMM", "upper", self.upper, low_included=False, high_included=False)
        root = math.sqrt(domains.source_nd.shape[0])
        slack = (root - 1.0) / root if self.slack is None else self.slack
        check_number("KMM", "slack", slack, 0.0, 1.0)
        if self.upper < 1.0 - slack:
            raise ConfigError(f"KMM: upper must be at least 1 - slack = {1.0 - slack:g}; got {self.upper!r}.")
        scale = RowScale(np.concatenate([domains.source_nd, domains.target_md]), to_unit=False)
        weights, self.objective_ = kernel_mean_weights(
            scale(domains.source_nd), scale(domains.target_md), self.bandwidth, self.upper, slack, self.ridge
        )
        return weights


def kernel_mean_weights(
    source_nd: Array,
    target_md: Array,
    width: float,
    upper: float,
    slack: float,
    ridge: float = 0.0,
    tolerance: float = 1e-12,
) -> tuple[Array, float]:
    """Return the weights (n,) that solve the problem above for rows in float64, and its least value.

    Parameters
    ----------
    source_nd, target_md : ndarray of float64
    width : float, above 0
        Width of the kernel, in the unit of the rows.
    upper, slack : float
        Bounds of a weight, and of the mean weight around 1.
    ridge : float, at least 0
        Added to the diagonal of K.
    tolerance : float
        See `solve_quadratic`.

    Examples
    --------
    >>> weights, value = kernel_mean_weights(np.array([[0.0], [9.0]]), np.array([[9.0]]), 1.0, 2.0, 0.0)
    >>> weights.round(6).tolist(), round(value, 6)                                # K is nearly I, k = (0, 2)
    ([0.0, 2.0], -2.0)
    """
    num_source = len(source_nd)
    within = gaussian_kernel(source_nd, source_nd, width)
    within[np.diag_indices_from(within)] += ridge
    across = np.zeros(num_source)
    for start in range(0, len(target_md), _BLOCK):
        across += gaussian_kernel(source_nd, target_md[start : start + _BLOCK], width).sum(axis=1)
    across *= num_source / len(target_md)
    weights = solve_quadratic(
        within,
        across,
        upper=upper,
        low=num_source * (1.0 - slack),
        high=num_source * (1.0 + slack),
        start_n=np.full(num_source, min(1.0, upper)),
        tolerance=tolerance,
    )
    return weights, float(weights @ (0.5 * (within @ weights) - across))
