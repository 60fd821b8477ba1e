"""LEEP: how well do the source model's own class probabilities predict the target's classes?

    P(y, z) = 1/n sum_i [y_i = y] theta_i(z),   P(y | z) = P(y, z) / P(z),   LEEP = 1/n sum_i log sum_z P(y_i | z) theta_i(z)

Source: Nguyen, Hassner, Seeger & Archambeau, "LEEP: a new measure to evaluate transferability of learned representations",
ICML 2020 (arXiv:2002.12295), equations 1 and 2.
Use it when the base model still has its source classifier and the target has classes.
It ignores everything in the features that the source classes do not express.
Shapes: n rows, z source classes, k target classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.errors import DataError
from headstart.transferability.targets import check_features, class_numbers

__all__ = ["leep"]

Array = npt.NDArray[Any]


def leep(source_probabilities_nz: Array, targets_n: Array) -> float:
    """Return the log expected empirical prediction; the larger the better.

    Parameters
    ----------
    source_probabilities_nz : ndarray of shape (n, z)
        The source model's probabilities for the target's rows; at least 0, rows add up to 1.
    targets_n : ndarray of shape (n,)
        Target classes as whole numbers; at least two occur.

    Returns
    -------
    float
        At most 0; in nats per row.

    Raises
    ------
    HeadstartError
        If the rows are not probabilities, or the shapes do not fit each other.

    Examples
    --------
    >>> certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> leep(certain, np.array([0, 1]))                        # source classes tell all
    0.0
    >>> round(leep(np.full((2, 2), 0.5), np.array([0, 1])), 4) # and nothing: log 1/2
    -0.6931
    """
    check_features("leep", source_probabilities_nz, targets_n)
    theta_nz = np.asarray(source_probabilities_nz, dtype=np.float64)
    if theta_nz.min() < 0 or np.abs(theta_nz.sum(axis=1) - 1).max() > 1e-3:
        raise DataError(
            "leep: source probabilities are at least 0 and rows add up to 1; apply a softmax to the logits."
        )
    numbers, num_classes = class_numbers("leep", targets_n)
    joint_kz = np.zeros((num_classes, theta_nz.shape[1]))
    np.add.at(joint_kz, numbers, theta_nz)
    marginal_z = joint_kz.sum(axis=0)
    conditional_kz = joint_kz / np.where(marginal_z > 0, marginal_z, 1.0)
    expected_n = np.einsum("nz,nz->n", theta_nz, conditional_kz[numbers])
    return float(np.log(np.maximum(expected_n, 1e-300)).mean()) + 0.0
