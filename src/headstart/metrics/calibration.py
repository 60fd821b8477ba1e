"""Calibration: does a row given 80 % turn out right 80 % of the time?

    ECE = sum_b n_b / n |share right in bin b - mean confidence in bin b|       bins of equal width over [0, 1]

Source: Naeini, Cooper & Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015;
Guo et al., "On calibration of modern neural networks", ICML 2017 (arXiv:1706.04599), equation 3.
Use it beside accuracy, never instead: a constant guess of the class shares is perfectly calibrated.
It ignores every probability but the largest one (with several labels at once it looks at every label's own).
Shapes: n rows, k classes, b bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.errors import ConfigError
from headstart.metrics.probability import check_probabilities

__all__ = ["ReliabilityBins", "calibration_error", "reliability_bins"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ReliabilityBins:
    """What a reliability diagram draws.

    Attributes
    ----------
    edges : ndarray of shape (b + 1,)
        Bin b holds confidences in (edges[b], edges[b + 1]]; 0 falls into the first.
    counts : ndarray of shape (b,)
        Predictions in each bin.
    confidence, accuracy : ndarray of shape (b,)
        Mean confidence and share right in each bin, in [0, 1]; NaN in an empty bin.
    """

    edges: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]

    def error(self) -> float:
        """Return the expected calibration error over these bins, in [0, 1]; NaN without predictions."""
        total = self.counts.sum()
        if not total:
            return float("nan")
        return float((self.counts * np.nan_to_num(np.abs(self.accuracy - self.confidence))).sum() / total)


def reliability_bins(targets: Array, probabilities_nk: Array, num_bins: int = 15) -> ReliabilityBins:
    """Return mean confidence and share right for bins of equal width.

    Parameters
    ----------
    targets : ndarray of shape (n,) or (n, k)
        Class numbers: the largest probability of each row is the confidence. Or 0/1 indicators: every label's
        probability is one, and "right" means that the row has the label.
    probabilities_nk : ndarray of shape (n, k)
        In [0, 1].
    num_bins : int
        At least 1; 15 as in Guo et al.

    Examples
    --------
    >>> bins = reliability_bins(np.array([0, 1]), np.array([[0.8, 0.2], [0.8, 0.2]]), num_bins=2)
    >>> bins.counts, bins.accuracy
    (array([0, 2]), array([nan, 0.5]))
    """
    if num_bins < 1:
        raise ConfigError(f"reliability_bins: num_bins is at least 1; got {num_bins}.")
    check_probabilities("reliability_bins", targets, probabilities_nk)
    probabilities = np.clip(np.asarray(probabilities_nk, dtype=np.float64), 0.0, 1.0)
    if targets.ndim == 2:
        confidence, right = probabilities.ravel(), (targets > 0).ravel().astype(np.float64)
    else:
        confidence, right = probabilities.max(axis=1), (probabilities.argmax(axis=1) == targets).astype(np.float64)
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
    counts = np.bincount(place, minlength=num_bins)
    sums = [np.bincount(place, weights=values, minlength=num_bins) for values in (confidence, right)]
    means = [np.divide(item, counts, out=np.full(num_bins, np.nan), where=counts > 0) for item in sums]
    return ReliabilityBins(edges, counts, *means)


def calibration_error(targets: Array, probabilities_nk: Array, num_bins: int = 15) -> float:
    """Return the expected calibration error (ECE), in [0, 1]; 0 is best.

    Parameters
    ----------
    targets : ndarray of shape (n,) or (n, k)
        Class numbers, or 0/1 indicators.
    probabilities_nk : ndarray of shape (n, k)
        In [0, 1].
    num_bins : int
        Bins of equal width.

    Examples
    --------
    >>> round(calibration_error(np.array([0, 1]), np.array([[0.8, 0.2], [0.8, 0.2]])), 4)        # |0.5 - 0.8|
    0.3
    """
    return reliability_bins(targets, probabilities_nk, num_bins).error()
