"""What the loop trains on: network inputs by row number, their targets, and which of them a purpose may use.

Shapes: b rows of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from headstart.core.errors import DataError, ShapeError

__all__ = ["Rows", "TrainingRows"]


class Rows(Protocol):
    """Network inputs by row number: raw rows (`InputRows`), or activations that were computed before."""

    @property
    def num_views(self) -> int:
        """How many fixed views a row has; 1 where there is only the plain one, or views are drawn freely."""
        ...

    def __len__(self) -> int: ...

    def batch(self, indices: NDArray[np.int64], draws: NDArray[np.uint64] | None = None) -> tuple[Tensor, ...]:
        """Return the network's arguments for some rows.

        Parameters
        ----------
        indices : int64 array of shape (b,)
            Row numbers.
        draws : uint64 array of shape (b,), optional
            One random number a row, which chooses its view: fixed views by ``draw % num_views``. The plain view when left out
            (validation, prediction).
        """
        ...

    def close(self) -> None:
        """Let go of threads and memory."""
        ...


@dataclass(frozen=True)
class TrainingRows:
    """Inputs, their targets, and which of them this purpose may use.

    Parameters
    ----------
    inputs : Rows
        Where inputs come from.
    targets : array of shape (len(inputs),) or (len(inputs), k), optional
        In the task's own type; ``None`` for rows without labels.
    indices : int64 array
        Row numbers; all when left out.

    Raises
    ------
    DataError
        If a row number does not exist.
    ShapeError
        If there is not one target for each row of ``inputs``.
    """

    inputs: Rows
    targets: NDArray[Any] | None
    indices: NDArray[np.int64] = None  # type: ignore[assignment]  # all rows; filled below

    def __post_init__(self) -> None:
        num_rows = len(self.inputs)
        indices = np.arange(num_rows) if self.indices is None else np.asarray(self.indices, np.int64)
        object.__setattr__(self, "indices", indices)
        if self.targets is not None and len(self.targets) != num_rows:
            raise ShapeError(
                f"TrainingRows: targets has {len(self.targets)} entries for {num_rows} rows; give one for each row."
            )
        if len(indices) and not (indices.min() >= 0 and indices.max() < num_rows):
            raise DataError(
                f"TrainingRows: row numbers lie in 0..{num_rows - 1}; got {indices.min()} to {indices.max()}."
            )

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def chosen(self) -> NDArray[Any] | None:
        """Targets of the rows this purpose may use, in their order."""
        return None if self.targets is None else self.targets[self.indices]

    def name(self, index: int) -> str:
        """Return what a person finds a row by."""
        ids = getattr(getattr(self.inputs, "dataset", None), "ids", None)
        return f"row {index + 1}" if ids is None else str(ids[index])
