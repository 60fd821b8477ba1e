"""An order of rows that depends on their values alone, so that shuffling the rows changes no score.

Splits, pairs and cluster seeds are drawn after the rows have been put in this order.
Shapes: m rows, d features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

__all__ = ["canonical_order"]


def canonical_order(rows_md: Any) -> npt.NDArray[np.intp]:
    """Return places that sort rows by their values; equal rows keep the order they came in.

    Parameters
    ----------
    rows_md : array or sparse matrix of shape (m, d)
        Any rows. Which order it is has no meaning; that it is the same for the same set of rows has.

    Returns
    -------
    array of shape (m,)
        ``rows_md[order]`` is the same matrix however the rows were shuffled.

    Examples
    --------
    >>> first, second = np.array([[3.0, 1.0], [1.0, 2.0]]), np.array([[1.0, 2.0], [3.0, 1.0]])
    >>> bool((first[canonical_order(first)] == second[canonical_order(second)]).all())
    True
    """
    is_sparse: bool = sparse.issparse(rows_md)
    if is_sparse:
        # A row's product with a fixed vector reads that row alone, so it does not depend on where the row stands.
        direction_d = np.random.default_rng(0).standard_normal(rows_md.shape[1])
        return np.argsort(rows_md.tocsr() @ direction_d, kind="stable")
    rows = np.ascontiguousarray(rows_md)
    as_bytes = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)
    return np.argsort(as_bytes, kind="stable")
