"""Bringing features of two domains on one scale, so that what is learnt of the source can be said of the target.

    "standardised"    (row - centre) / scale      columns with units, by mean and deviation of the source; 1 for a constant
    "unit-length"     row / |row|                 features of a base model; a row of zeros stays

The target's own statistics are left alone: matching them is what an aligner does.
Shapes: n rows, d features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import ConfigError, ShapeError

__all__ = ["FeatureScale", "ScaleKind"]

Array = NDArray[Any]
ScaleKind = Literal["standardised", "unit-length"]


@dataclass(frozen=True, eq=False)
class FeatureScale:
    """A fixed map of features, the same for every row and every domain.

    Parameters
    ----------
    kind : {"standardised", "unit-length"}
        Which.
    centre_d, scale_d : float64 arrays of shape (d,), optional
        For "standardised" alone: what is subtracted, and what is divided by afterwards.

    Raises
    ------
    ConfigError
        If there is no such kind, or the arrays do not belong to it.

    Examples
    --------
    >>> FeatureScale("unit-length")(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    >>> FeatureScale.standardising(np.array([[0.0, 7.0], [2.0, 7.0]]))(np.array([[3.0, 8.0]])).tolist()
    [[2.0, 1.0]]
    """

    kind: ScaleKind
    centre_d: Array | None = None
    scale_d: Array | None = None

    def __post_init__(self) -> None:
        given = [array is not None for array in (self.centre_d, self.scale_d)]
        if self.kind not in get_args(ScaleKind) or any(item != (self.kind == "standardised") for item in given):
            raise ConfigError(
                "FeatureScale: kind is 'standardised', with centre and scale, or 'unit-length', without; "
                f"got {self.kind!r} {'with' if any(given) else 'without'} arrays."
            )
        centre, scale = self.centre_d, self.scale_d
        if centre is None or scale is None:
            return
        if centre.ndim != 1 or centre.shape != scale.shape or not (scale > 0).all():
            raise ConfigError(
                "FeatureScale: centre and scale hold one number a feature each, and scales are above 0; "
                f"got shapes {centre.shape} and {scale.shape}."
            )

    @classmethod
    def standardising(cls, source_nd: Array) -> FeatureScale:
        """Return the scale on which ``source_nd`` has mean 0 and deviation 1 in every column that varies."""
        centre = source_nd.mean(axis=0, dtype=np.float64)
        scale = source_nd.std(axis=0, dtype=np.float64)
        return cls("standardised", centre, np.where(scale > 1e-12 * np.maximum(1.0, np.abs(centre)), scale, 1.0))

    def __call__(self, features_nd: Array) -> NDArray[np.float32]:
        """Return rows on the scale, float32 of shape (n, d).

        Raises
        ------
        ShapeError
            If the width is not that of the rows the scale was taken from.
        """
        if self.kind == "unit-length":
            lengths = np.linalg.norm(features_nd, axis=1, keepdims=True)
            return np.asarray(features_nd / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)
        assert self.centre_d is not None and self.scale_d is not None
        if features_nd.shape[1] != len(self.centre_d):
            raise ShapeError(
                f"FeatureScale: the scale was taken from {len(self.centre_d)} features but got {features_nd.shape[1]}; "
                "extract both with the same backbone and layer."
            )
        return np.asarray((features_nd - self.centre_d) / self.scale_d, dtype=np.float32)

    def state(self) -> dict[str, Array]:
        """Return the arrays by name: ``centre`` and ``scale``, or none."""
        if self.centre_d is None or self.scale_d is None:
            return {}
        return {"centre": self.centre_d, "scale": self.scale_d}
