"""Linear discrepancy: the most that two linear predictors can disagree more in one domain than in the other.

    disc(S, T) = max over |u| <= 1 of |E_S (u'x)^2 - E_T (u'x)^2| = largest absolute eigenvalue of E_S x x' - E_T x x'

Source: Mansour, Mohri & Rostamizadeh, "Domain adaptation: learning bounds and algorithms", COLT 2009 (arXiv:0902.3430),
for linear hypotheses under the squared loss. u is the difference of two weight vectors: for predictors of norm at most r the
discrepancy is 4 r^2 times this value. Unit: feature unit squared.
Use it when a linear head on these features is what will be adapted: it bounds how much worse the head can become, and its
eigenvector is the mixture of features to blame.
It ignores differences that no linear predictor under squared loss meets, and it counts means: centre or append a constant feature
as the predictor does. It depends on the unit of the features.
Rows are read block by block; memory is one block and d x d matrices. Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.distances.moments import second_moment
from headstart.distances.rows import as_numpy, constant, finish, read_domains

__all__ = ["linear_discrepancy", "linear_discrepancy_direction"]


def linear_discrepancy(source_nd: Any, target_md: Any) -> Any:
    """Return the largest absolute eigenvalue of the difference of the domains' second-moment matrices.

    Parameters
    ----------
    source_nd, target_md : array or tensor of shape (n, d) and (m, d)
        Features as the linear predictor sees them.

    Returns
    -------
    float or Tensor of shape ()
        At least 0. Unit: feature unit squared.

    Raises
    ------
    HeadstartError
        If the rows cannot be compared.

    Examples
    --------
    >>> linear_discrepancy([[1.0, 0.0]], [[0.0, 2.0]])     # eigenvalues 1 and -4
    4.0
    """
    xp, source, target = read_domains("linear_discrepancy", source_nd, target_md)
    gap_dd = second_moment(xp, source) - second_moment(xp, target)
    return finish(xp.max(xp.abs(xp.linalg.eigvalsh(gap_dd))))


def linear_discrepancy_direction(source_nd: Any, target_md: Any) -> npt.NDArray[np.float64]:
    """Return the unit mixture of features along which the second moments differ most, shape (d,).

    Raises
    ------
    HeadstartError
        If the rows cannot be compared.

    Examples
    --------
    >>> np.abs(linear_discrepancy_direction([[1.0, 0.0]], [[0.0, 2.0]])).tolist()
    [0.0, 1.0]
    """
    xp, source, target = read_domains("linear_discrepancy", source_nd, target_md)
    gap_dd = as_numpy(second_moment(xp, constant(source)) - second_moment(xp, constant(target))).astype(np.float64)
    values, vectors = np.linalg.eigh(gap_dd)
    return np.asarray(vectors[:, int(np.abs(values).argmax())])
