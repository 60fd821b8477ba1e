"""The map a transport plan stands for: source rows at the mean of where their mass goes, other rows moved like their nearest.

    T(x_i) = sum_j P_ij z_j / sum_j P_ij                              rows of the fit (barycentric)
    T(x)   = x + T(x_i) - x_i,   i the nearest row of the fit          other rows

Source: Ferradans, Papadakis, Peyre & Aujol, "Regularized discrete optimal transport", SIAM J. Imaging Sciences 2014, for the
displacement; Courty, Flamary, Tuia & Rakotomamonjy, "Optimal transport for domain adaptation", IEEE TPAMI 2017, for both
together. Equal rows share one image (the mean over their mass), so that the map is a function of the row; a row whose
mass stays behind (partial and unbalanced plans) is moved like its nearest transported row.
Shapes: n source rows of the fit, m target rows, d features, q rows to map.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["TransportMap"]

Array = npt.NDArray[Any]
_LEAST_SHARE = 1e-6


class TransportMap:
    """Where a plan sends source rows, those of the fit and others.

    Parameters
    ----------
    source_nd : ndarray of shape (n, d)
        Source rows of the fit.
    plan_nm : ndarray of shape (n, m)
        Mass sent from each source to each target row; not all 0.
    target_md : ndarray of shape (m, d)
        Target rows.

    Examples
    --------
    >>> move = TransportMap(np.array([[0.0], [1.0]]), np.eye(2) / 2, np.array([[10.0], [20.0]]))
    >>> move(np.array([[1.0], [0.25]])).tolist()                     # of the fit; nearest to 0, which moves by 10
    [[20.0], [10.25]]
    """

    def __init__(self, source_nd: Array, plan_nm: Array, target_md: Array) -> None:
        rows, places = np.unique(source_nd + 0.0, axis=0, return_inverse=True)  # + 0.0: -0 and 0 are one value
        places = places.reshape(-1)
        order = np.argsort(places, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(places[order]) > 0])
        mass = np.add.reduceat(plan_nm.sum(axis=1)[order], starts)
        sent = np.add.reduceat((plan_nm @ target_md.astype(np.float64))[order], starts, axis=0)
        moved = mass > _LEAST_SHARE * mass.mean()
        self.centre = rows.mean(axis=0, dtype=np.float64)
        self.rows = rows[moved]
        self.images = sent[moved] / mass[moved, None]

    def __call__(self, X: Array) -> Array:
        """Return rows (q, d) where the plan sends them, in their own precision."""
        from sklearn.metrics import pairwise_distances_argmin

        known = {row.tobytes(): place for place, row in enumerate(self.rows)}
        asked = np.ascontiguousarray(X) + 0.0
        places = np.array([known.get(row.tobytes(), -1) for row in asked]) if X.dtype == self.rows.dtype else None
        if places is None:
            places = np.full(len(X), -1)
        is_known = places >= 0
        if not is_known.all():
            others = asked[~is_known] - self.centre
            places[~is_known] = pairwise_distances_argmin(others, self.rows - self.centre)
        mapped = self.images[places]
        away = ~is_known
        mapped[away] += asked[away].astype(np.float64) - self.rows[places[away]]
        return np.asarray(mapped, dtype=X.dtype)
