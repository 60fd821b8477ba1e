"""TransRate: how much shorter do features become to write down once the class is known?

    R(Z) = 1/2 log det(I + Z'Z / (m eps)),  Z: m rows        TransRate = R(Z) - sum_c n_c/n R(Z_c)
    Z = features minus their mean, scaled so that the squared lengths of all n rows add up to 1

Source: Huang, Huang, Rong, Yang & Wei, "Frustratingly easy transferability estimation", ICML 2022 (arXiv:2106.09362). Its
listing averages the classes alike; weighting them by their rows, which the mutual information it estimates asks for, is
the same when classes are of equal size and right when they are not.
Use it beside LogME; it rewards features that are spread out as a whole and compact within a class.
It ignores the distance between classes once they are apart, depends on eps, and says little when a class has fewer rows
than features: the rates then measure the number of rows.
Shapes: n rows, d features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.errors import ConfigError, DataError
from headstart.transferability.targets import check_features, class_numbers

__all__ = ["transrate"]

Array = npt.NDArray[Any]


def transrate(features_nd: Array, targets_n: Array, eps: float = 1e-4) -> float:
    """Return TransRate; the larger the better.

    Parameters
    ----------
    features_nd : ndarray of shape (n, d), n >= 2
        Features of the target's rows; computed in float64.
    targets_n : ndarray of shape (n,)
        Target classes as whole numbers; at least two occur.
    eps : float
        Distortion allowed, relative to the summed squared length of all rows; positive.

    Returns
    -------
    float
        In nats; comparable between base models on the same rows only.

    Raises
    ------
    HeadstartError
        If the shapes do not fit each other, a value is not finite, or there is only one class.

    Examples
    --------
    >>> features = np.array([[-1.0], [0.0], [0.0], [1.0]])
    >>> round(transrate(features, np.array([0, 1, 1, 0]), eps=0.25), 4)    # 1/2 log 2 - 1/2 (1/2 log 3)
    0.0719
    """
    if not eps > 0:
        raise ConfigError(f"transrate: eps is positive; got {eps}.")
    check_features("transrate", features_nd, targets_n)
    numbers, num_classes = class_numbers("transrate", targets_n)
    centred = np.asarray(features_nd, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    energy = float(np.square(centred).sum())
    if not energy > 0:
        raise DataError("transrate: all rows have the same features; there is nothing to measure.")
    centred /= np.sqrt(energy)
    rate = _coding_rate(centred, eps)
    for label in range(num_classes):
        rows = centred[numbers == label]
        rate -= len(rows) / len(centred) * _coding_rate(rows, eps)
    return rate


def _coding_rate(rows_md: Array, eps: float) -> float:
    """Return 1/2 log det(I + Z'Z / (m eps)) from the smaller of the two Gram matrices."""
    num_rows, width = rows_md.shape
    gram = rows_md.T @ rows_md if width <= num_rows else rows_md @ rows_md.T
    gram /= num_rows * eps
    gram[np.diag_indices_from(gram)] += 1.0
    return float(np.log(np.diag(np.linalg.cholesky(gram))).sum())
