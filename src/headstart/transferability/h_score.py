"""H-score: how much of the features' spread lies between the classes, measured in the features' own units.

    H = tr(C^-1 B)          C = covariance of the features,  B = covariance of the class means, weighted by rows
    regularised:  C -> (1 - a) C + a tr(C)/d I,   B -> (1 - a) B            a: Ledoit and Wolf's optimal shrinkage

Source: Bao et al., "An information-theoretic approach to transferability in task transfer learning", ICIP 2019
(arXiv:2212.10082); Ibrahim, Ponomareva & Mazumder, "Newer is not always better: rethinking transferability metrics, their
peculiarities, stability and performance", 2021 (arXiv:2110.06893); Ledoit & Wolf, "A well-conditioned estimator for
large-dimensional covariance matrices", Journal of Multivariate Analysis 2004.
Use the regularised form always; without it the score is meaningless once features are as many as rows (then H = k - 1
whatever the labels).
It ignores where the classes overlap beyond their means.
Shapes: n rows, d features, k classes. Covariances are divided by n.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.errors import DataError
from headstart.transferability.targets import check_features, class_numbers

__all__ = ["h_score", "ledoit_wolf_shrinkage"]

Array = npt.NDArray[Any]


def h_score(features_nd: Array, targets_n: Array, shrinkage: bool = True) -> float:
    """Return the H-score; the larger the better.

    Parameters
    ----------
    features_nd : ndarray of shape (n, d), n >= 2
        Features of the target's rows; computed in float64.
    targets_n : ndarray of shape (n,)
        Target classes as whole numbers; at least two occur.
    shrinkage : bool
        Regularise the covariance. Without it, directions without spread are left out (pseudo-inverse).

    Returns
    -------
    float
        Between 0 and k - 1 for k classes that occur.

    Raises
    ------
    HeadstartError
        If the shapes do not fit each other, a value is not finite, or there is only one class.

    Examples
    --------
    >>> features, classes = np.array([[-1.0], [1.0], [2.0], [4.0]]), np.array([0, 0, 1, 1])
    >>> round(h_score(features, classes, shrinkage=False), 4)  # B = 9/4 over C = 13/4
    0.6923
    """
    check_features("h_score", features_nd, targets_n)
    numbers, num_classes = class_numbers("h_score", targets_n)
    centred = np.asarray(features_nd, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    width = centred.shape[1]
    sums_kn = np.eye(num_classes)[numbers].T
    counts_k = sums_kn.sum(axis=1)
    wide = width > len(centred)
    values, vectors = np.linalg.eigh((centred @ centred.T if wide else centred.T @ centred) / len(centred))
    if not values[-1] > 0:
        raise DataError("h_score: all rows have the same features; there is nothing to measure.")
    kept = values > 1e-10 * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    if wide:
        vectors = centred.T @ vectors / np.sqrt(values * len(centred))
    means_kr = (sums_kn @ centred) @ vectors / counts_k[:, None]
    between_r = counts_k @ np.square(means_kr) / len(centred)
    if not shrinkage:
        return float((between_r / values).sum())
    amount = ledoit_wolf_shrinkage(centred)
    shrunk_r = (1 - amount) * values + amount * values.sum() / width
    return float((1 - amount) * (between_r / shrunk_r).sum())


def ledoit_wolf_shrinkage(centred_nd: Array) -> float:
    """Return Ledoit and Wolf's optimal share of the identity in a covariance, in [0, 1].

    Parameters
    ----------
    centred_nd : ndarray of shape (n, d)
        Rows with mean 0.

    Examples
    --------
    >>> ledoit_wolf_shrinkage(np.array([[-1.0], [1.0]]))       # one feature: it is its own target
    0.0
    """
    num_rows, width = centred_nd.shape
    lengths_n = np.square(centred_nd).sum(axis=1)
    gram = centred_nd @ centred_nd.T if width > num_rows else centred_nd.T @ centred_nd
    trace = float(lengths_n.sum()) / num_rows
    energy = float(np.square(gram).sum()) / num_rows**2  # squared length of the covariance
    distance = (energy - trace**2 / width) / width
    noise = (float(np.square(lengths_n).sum()) / num_rows - energy) / (width * num_rows)
    return float(np.clip(noise / distance, 0.0, 1.0)) if distance > 1e-15 * energy else 0.0
