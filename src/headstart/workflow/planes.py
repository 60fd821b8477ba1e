"""Two domains in two dimensions, for people to look at.

Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["plane_of", "turned_like"]

Array = NDArray[Any]
_MOST_FITTED = 2000


def plane_of(source_nd: Array, target_md: Array) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return both domains on the two directions of largest variance, each domain counting the same, and the share they hold.

    Examples
    --------
    >>> source, target, held = plane_of(np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([[0.0, 1.0], [2.0, 1.0]]))
    >>> np.abs(source[:, 0]).tolist(), round(held, 6)
    ([1.0, 1.0], 1.0)
    """
    from sklearn.decomposition import PCA

    rows = min(len(source_nd), len(target_md), _MOST_FITTED)
    draws = np.random.default_rng(0)
    some = np.concatenate([part[draws.permutation(len(part))[:rows]] for part in (source_nd, target_md)])
    width = min(2, source_nd.shape[1], len(some))
    axes = PCA(width, svd_solver="randomized" if source_nd.shape[1] > 50 else "full", random_state=0)
    with np.errstate(invalid="ignore", divide="ignore"):  # rows that are all the same have no variance to share out
        axes.fit(some.astype(np.float64))
    places = [axes.transform(part.astype(np.float64)) for part in (source_nd, target_md)]
    if width < 2:
        places = [np.column_stack([part, np.zeros(len(part))]) for part in places]
    return places[0], places[1], float(np.nan_to_num(axes.explained_variance_ratio_).sum())


def turned_like(places_n2: Array, first_n2: Array) -> NDArray[np.float64]:
    """Return 1 or -1 for each direction: what turns the places of rows so that they lie as they did in an earlier picture.

    Examples
    --------
    >>> turned_like(np.array([[-1.0, 0.0], [1.0, 2.0]]), np.array([[3.0, 0.0], [2.0, 1.0]])).tolist()
    [-1.0, 1.0]
    """
    centred, first = places_n2 - places_n2.mean(axis=0), first_n2 - first_n2.mean(axis=0)
    return np.where((centred * first).sum(axis=0) < 0, -1.0, 1.0)
