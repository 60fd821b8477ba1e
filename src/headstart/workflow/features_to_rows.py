"""From features back to the rows they were computed from: rules judge by features, and some candidates need the rows.

Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError
from headstart.data import Dataset

__all__ = ["RowsOfFeatures"]

Array = NDArray[Any]


class RowsOfFeatures:
    """Finds the rows that features belong to.

    Parameters
    ----------
    source, target : Dataset
        The rows of both domains.
    source_nd, target_md : float32 arrays
        Their features.
    """

    def __init__(self, source: Dataset, target: Dataset, source_nd: Array, target_md: Array) -> None:
        self._domains = [
            (rows, {_key(row): place for place, row in enumerate(np.asarray(features, np.float32))})
            for rows, features in ((source, source_nd), (target, target_md))
        ]

    def __call__(self, features: Array) -> Dataset:
        """Return the rows, in order; all of one domain.

        Raises
        ------
        DataError
            If a row is unknown, or rows are of both domains.
        """
        keys = [_key(row) for row in np.asarray(features, np.float32)]
        for rows, places in self._domains:
            if all(key in places for key in keys):
                return rows.subset([places[key] for key in keys])
        raise DataError("adapt: rows of both domains at once, or of neither, cannot be traced back to one of them.")


def _key(row: Array) -> bytes:
    return np.ascontiguousarray(row).tobytes()
