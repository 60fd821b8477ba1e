"""Network inputs that are an array already: pictures, series, or anything a network of one's own takes, by row number.

    batch(i_1, ..., i_b) = float32 tensor of rows i_1, ..., i_b

Use it to train a network that is no base model (`headstart.methods.adapt_module`); files and base models have `InputRows`, which
knows their preprocessing. It ignores views: every look at a row is the plain one.
Shapes: n rows, b rows of a batch; the other extents are the network's own.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.core.errors import DataError, ShapeError

__all__ = ["ArrayRows"]


class ArrayRows:
    """An array as `Rows`.

    Parameters
    ----------
    values_n : array of shape (n, ...), of numbers
        One row each; of pictures (n, channels, height, width). Kept as it is, turned into float32 batch by batch.

    Raises
    ------
    ShapeError
        If rows are single numbers.
    DataError
        If values are no numbers, or not all finite.

    Examples
    --------
    >>> rows = ArrayRows(np.arange(6).reshape(3, 2))
    >>> len(rows), rows.batch(np.array([2, 0]))
    (3, (tensor([[4., 5.],
            [0., 1.]]),))
    """

    num_views = 1

    def __init__(self, values_n: NDArray[np.generic]) -> None:
        self.values_n = np.asarray(values_n)
        if self.values_n.ndim < 2:
            raise ShapeError(
                f"ArrayRows: a row is an array of its own, so rows have at least two extents; got shape "
                f"{self.values_n.shape}. Single numbers a row are of shape (n, 1)."
            )
        if self.values_n.dtype.kind not in "buif":
            raise DataError(f"ArrayRows: values are numbers; got {self.values_n.dtype}. Turn them into numbers first.")
        if self.values_n.dtype.kind == "f" and not np.isfinite(self.values_n).all():
            raise DataError("ArrayRows: values must be finite; some are not. Leave those rows out, or fill them.")

    def __len__(self) -> int:
        return len(self.values_n)

    def batch(self, indices: NDArray[np.int64], draws: NDArray[np.uint64] | None = None) -> tuple[Tensor, ...]:
        """Return some rows as one float32 tensor, in channels_last memory where it has channels (`Rows.batch`)."""
        del draws
        rows = torch.from_numpy(self.values_n[np.asarray(indices, np.int64)].astype(np.float32))
        return (rows.contiguous(memory_format=torch.channels_last) if rows.ndim == 4 else rows,)

    def close(self) -> None:
        """Nothing is held."""
