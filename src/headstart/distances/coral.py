"""CORAL distance: how far apart the two domains' covariances are.

    coral(S, T) = ||C_S - C_T||_F^2 / (4 d^2)        C_X = X_c' X_c / (n - 1),  X_c = X - mean(X)

Source: Sun & Saenko, "Deep CORAL: correlation alignment for deep domain adaptation", ECCV Workshops 2016 (arXiv:1607.01719),
equation 1. Unit: feature unit to the fourth power.
Use it when the shift is second-order (sensor, style, lighting), as a loss or to see what CORAL alignment can remove.
It ignores means: domains that differ by a constant offset are 0 apart. It depends on the unit of the features.
Rows are read block by block; memory is one block and two d x d matrices.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from typing import Any

from headstart.distances.moments import mean_and_covariance
from headstart.distances.rows import constant, finish, read_domains

__all__ = ["coral_distance"]


def coral_distance(source_nd: Any, target_md: Any) -> Any:
    """Return the squared Frobenius gap between two feature covariances, over ``4 d^2``.

    Parameters
    ----------
    source_nd : array or tensor of shape (n, d), n >= 2
        Source features.
    target_md : array or tensor of shape (m, d), m >= 2
        Target features; m need not equal n.

    Returns
    -------
    float or Tensor of shape ()
        At least 0; 0 when the covariances agree. Unit: feature unit to the fourth power.

    Raises
    ------
    HeadstartError
        If the rows cannot be compared: no matrix, fewer than two rows, different widths, NaN or infinity, sparse.

    Examples
    --------
    >>> import numpy as np
    >>> source = np.array([[0.0, 0.0], [2.0, 0.0]])      # covariance [[2, 0], [0, 0]]
    >>> coral_distance(source, np.zeros((2, 2)))         # 2^2 / (4 * 2^2)
    0.25
    """
    xp, source, target = read_domains("coral_distance", source_nd, target_md, min_rows=2)
    gap_dd = mean_and_covariance(xp, source)[1] - mean_and_covariance(xp, target)[1]
    largest = float(xp.max(xp.abs(constant(gap_dd))))
    largest = largest if largest > 0 else 1.0
    scaled_dd = gap_dd / largest  # squares of features around 1e10 would leave float32's range
    return finish(xp.sum(scaled_dd * scaled_dd) / (4 * source.shape[1] ** 2)) * largest * largest
