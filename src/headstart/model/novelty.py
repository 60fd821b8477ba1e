"""Rows unlike the training data: distance to the nearest training row, against the distances training rows have.

    distance(x) = min over training rows r of ||x / |x| - r / |r|||          cosine geometry, in [0, 2]
    unlike      = distance above the q quantile of the training rows' own leave-one-out distances

Source: nearest-neighbour distance on normalised features, Sun et al., "Out-of-Distribution Detection with Deep Nearest
Neighbors", ICML 2022 (arXiv:2204.06507). Vectors that are no network's features are standardised by column and
compared by plain distance instead, because their columns have units.
Training rows that equal another (duplicates) are measured to their nearest *different* row; otherwise they would pull
the threshold to zero. It says "unlike", not "wrong": the head may be right there, and wrong on rows that look familiar.
Shapes: n training rows, m new rows, r reference rows kept, d features.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headstart.core.checks import check_matrix, check_same_width
from headstart.core.errors import ConfigError
from headstart.core.seeds import generator

__all__ = ["NoveltyScorer"]

Array = NDArray[Any]
_BLOCK = 1024
_SAME = 1e-3


class NoveltyScorer:
    """Scores how unlike the training rows a new row is.

    Parameters
    ----------
    distance : {"cosine", "standardised"}
        "cosine" for a network's features, "standardised" for columns with units.
    quantile : float in (0, 1)
        Share of training rows that count as familiar; about ``1 - quantile`` of ordinary new rows are flagged.
    max_reference : int
        Training rows kept (drawn at random where there are more); they travel in the saved model.
    seed : int
        Draws them.

    Attributes
    ----------
    threshold : float
        Distance above which a row is flagged.
    training_distances_r : float32 array of shape (r,)
        Leave-one-out distances of the reference rows, ascending.
    moments : pair of float32 arrays of shape (d,), or None
        Mean and deviation of every feature over all training rows; None of a scorer that was saved without them.

    Examples
    --------
    >>> angles = np.linspace(0, 0.5, 50)
    >>> scorer = NoveltyScorer().fit(np.column_stack([np.cos(angles), np.sin(angles)]))
    >>> scorer.unlike(np.array([[1.0, 0.1], [-1.0, 0.0]]))
    array([False,  True])
    """

    def __init__(
        self,
        distance: Literal["cosine", "standardised"] = "cosine",
        quantile: float = 0.98,
        max_reference: int = 2000,
        seed: int = 0,
    ) -> None:
        if distance not in ("cosine", "standardised") or not 0 < quantile < 1 or max_reference < 2:
            raise ConfigError(
                "NoveltyScorer: distance is 'cosine' or 'standardised', quantile lies in (0, 1), "
                f"max_reference is at least 2; got {distance!r}, {quantile}, {max_reference}."
            )
        self.distance: Literal["cosine", "standardised"] = distance
        self.quantile = quantile
        self.max_reference = max_reference
        self.seed = seed
        self.threshold = np.inf
        self.training_distances_r: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        self.moments: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self._centre_d: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        self._scale_d: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        self._reference_rd: NDArray[np.float16] = np.zeros((0, 0), dtype=np.float16)

    def fit(self, features_nd: Array) -> NoveltyScorer:
        """Keep reference rows and set the threshold from their leave-one-out distances.

        Parameters
        ----------
        features_nd : float array of shape (n, d), n >= 2
            Features of the training rows.
        """
        check_matrix("NoveltyScorer.fit", "features", features_nd, min_rows=2)
        rows = np.arange(len(features_nd))
        if len(rows) > self.max_reference:
            rows = np.sort(generator(self.seed, "novelty").choice(rows, self.max_reference, replace=False))
        width = features_nd.shape[1]
        self._centre_d, self._scale_d = np.zeros(width, np.float32), np.ones(width, np.float32)
        centre_d = features_nd.mean(axis=0, dtype=np.float64).astype(np.float32)
        spread_d = features_nd.std(axis=0, dtype=np.float64)
        self.moments = centre_d, spread_d.astype(np.float32)
        if self.distance == "standardised":
            self._centre_d = centre_d
            self._scale_d = np.where(spread_d > 0, 1 / np.maximum(spread_d, 1e-30), 0).astype(np.float32)
        self._reference_rd = self._place(features_nd[rows]).astype(np.float16)
        nearest_r = self._nearest(self._reference_rd.astype(np.float32), leave_out_equal=True)
        self.training_distances_r = np.sort(nearest_r[np.isfinite(nearest_r)]).astype(np.float32)
        if len(self.training_distances_r):
            self.threshold = float(np.quantile(self.training_distances_r, self.quantile))
        return self

    def distances(self, features_md: Array) -> NDArray[np.float32]:
        """Return the distance of each row to its nearest reference row, shape (m,); at most 2 for "cosine".

        Raises
        ------
        ShapeError
            If the width is not that of the training rows.
        """
        check_same_width("NoveltyScorer", self._reference_rd, features_md)
        return self._nearest(self._place(features_md))

    def unlike(self, features_md: Array) -> NDArray[np.bool_]:
        """Return which rows are unlike the training data, shape (m,)."""
        return np.asarray(self.distances(features_md) > self.threshold)

    def familiarity(self, features_md: Array) -> NDArray[np.float64]:
        """Return the share of training rows that lie farther out than each row, shape (m,): 1 near, 0 unlike all."""
        place_m = np.searchsorted(self.training_distances_r, self.distances(features_md), side="left")
        return 1 - place_m / max(1, len(self.training_distances_r))

    @property
    def reference_rd(self) -> NDArray[np.float32]:
        """Training rows that are kept, at most ``max_reference``, in the space in which distances are taken."""
        return self._reference_rd.astype(np.float32)

    def place(self, features_md: Array) -> NDArray[np.float32]:
        """Return rows in the space in which distances are taken, shape (m, d): that of `reference_rd`.

        Examples
        --------
        >>> NoveltyScorer().fit(np.eye(2)).place(np.array([[3.0, 4.0]])).round(2).tolist()     # cosine: of length 1
        [[0.6000000238418579, 0.800000011920929]]
        """
        check_same_width("NoveltyScorer", self._reference_rd, features_md)
        return self._place(features_md)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments and the threshold as a JSON value."""
        return {
            "distance": self.distance,
            "quantile": self.quantile,
            "max_reference": self.max_reference,
            "seed": self.seed,
            "threshold": self.threshold if np.isfinite(self.threshold) else None,
        }

    def state(self) -> dict[str, Array]:
        """Return the arrays that `from_state` needs."""
        moments = {} if self.moments is None else dict(zip(("mean", "deviation"), self.moments, strict=True))
        return {
            **moments,
            "reference": self._reference_rd,
            "centre": self._centre_d,
            "scale": self._scale_d,
            "training_distances": self.training_distances_r,
        }

    @classmethod
    def from_state(cls, config: dict[str, Any], state: dict[str, Array]) -> NoveltyScorer:
        """Return the scorer that `config` and `state` wrote down."""
        arguments = {key: value for key, value in config.items() if key != "threshold"}
        scorer = cls(**arguments)
        scorer.threshold = np.inf if config["threshold"] is None else float(config["threshold"])
        scorer._reference_rd = np.asarray(state["reference"], dtype=np.float16)
        scorer._centre_d = np.asarray(state["centre"], dtype=np.float32)
        scorer._scale_d = np.asarray(state["scale"], dtype=np.float32)
        scorer.training_distances_r = np.asarray(state["training_distances"], dtype=np.float32)
        if "mean" in state and "deviation" in state:
            scorer.moments = np.asarray(state["mean"], np.float32), np.asarray(state["deviation"], np.float32)
        return scorer

    def _place(self, features_md: Array) -> NDArray[np.float32]:
        """Bring rows into the space in which distances are taken."""
        placed_md = (np.asarray(features_md, dtype=np.float32) - self._centre_d) * self._scale_d
        if self.distance == "cosine":
            length_m1 = np.linalg.norm(placed_md, axis=1, keepdims=True)
            placed_md = placed_md / np.maximum(length_m1, 1e-12)
        else:
            placed_md = np.clip(placed_md, -1e4, 1e4)
        return np.asarray(placed_md, dtype=np.float32)

    def _nearest(self, placed_md: NDArray[np.float32], leave_out_equal: bool = False) -> NDArray[np.float32]:
        reference_rd = self._reference_rd.astype(np.float32)
        square_r = (reference_rd**2).sum(axis=1)
        nearest_m = np.empty(len(placed_md), dtype=np.float32)
        for start in range(0, len(placed_md), _BLOCK):
            block_bd = placed_md[start : start + _BLOCK]
            square_b = (block_bd**2).sum(axis=1)
            gap_br = np.maximum(square_b[:, None] + square_r - 2 * block_bd @ reference_rd.T, 0)
            if leave_out_equal:
                gap_br[gap_br <= _SAME**2 * np.maximum(square_b[:, None], 1e-12)] = np.inf
            nearest_m[start : start + _BLOCK] = np.sqrt(gap_br.min(axis=1))
        return nearest_m
