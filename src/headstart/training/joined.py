"""Rows of several places as one: several source domains, or a source with a few labelled rows of the target.

Row numbers run through the parts in order. Rows of texts are padded to the longest of a batch, as in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.core.errors import ConfigError
from headstart.training.rows import Rows

__all__ = ["JoinedRows"]


@dataclass(frozen=True)
class _Ids:
    """What a person finds rows by."""

    ids: tuple[str, ...]


class JoinedRows:
    """Several `Rows` behind one another.

    Parameters
    ----------
    parts : sequence of Rows
        At least one; all give the same number of tensors a row.

    Raises
    ------
    ConfigError
        If there is none.

    Examples
    --------
    >>> from headstart.backbones import vector_backbone
    >>> from headstart.data import open_dataset
    >>> from headstart.training import InputRows
    >>> def rows(values):
    ...     return InputRows(open_dataset(np.array(values, np.float32), unlabelled=True), vector_backbone(1))
    >>> JoinedRows([rows([[1.0], [2.0]]), rows([[3.0]])]).batch(np.array([2, 0]))
    (tensor([[3.],
            [1.]]),)
    """

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts = tuple(parts)
        if not self.parts:
            raise ConfigError("JoinedRows: needs rows of at least one place; got none.")
        self._ends = np.cumsum([len(part) for part in self.parts])
        names = []
        for part in self.parts:
            known = getattr(getattr(part, "dataset", None), "ids", None)
            names += [f"row {row + 1}" for row in range(len(part))] if known is None else list(map(str, known))
        self.dataset = _Ids(tuple(names))
        if all(hasattr(part, "strong") for part in self.parts):
            self.strong = self._strong

    @property
    def num_views(self) -> int:
        """How many fixed views a row has: as many as the part that has most."""
        return max(part.num_views for part in self.parts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(self, indices: NDArray[np.int64], draws: NDArray[np.uint64] | None = None) -> tuple[Tensor, ...]:
        """Return the network's arguments for some rows, in their order (`Rows.batch`)."""
        return self._gather("batch", indices, draws)

    def _strong(self, indices: NDArray[np.int64], draws: NDArray[np.uint64]) -> tuple[Tensor, ...]:
        return self._gather("strong", indices, draws)

    def _gather(self, look: str, indices: NDArray[np.int64], draws: NDArray[np.uint64] | None) -> tuple[Tensor, ...]:
        rows = np.asarray(indices, np.int64)
        which = np.searchsorted(self._ends, rows, side="right")
        found, places = [], []
        for number in np.unique(which):
            mine = np.flatnonzero(which == number)
            first = self._ends[number] - len(self.parts[number])
            found.append(getattr(self.parts[number], look)(rows[mine] - first, None if draws is None else draws[mine]))
            places.append(mine)
        order = torch.from_numpy(np.argsort(np.concatenate(places)))
        return tuple(_padded(list(tensors))[order] for tensors in zip(*found, strict=True))

    def close(self) -> None:
        """Let go of threads and memory of all parts."""
        for part in self.parts:
            part.close()


def _padded(tensors: list[Tensor]) -> Tensor:
    """Join tensors along rows; of texts (b, t) and (b, t, d), shorter ones get zeros behind."""
    if tensors[0].ndim not in {2, 3} or len({tensor.shape[1:] for tensor in tensors}) == 1:
        return torch.cat(tensors)
    longest = max(tensor.shape[1] for tensor in tensors)
    joined = []
    for tensor in tensors:
        whole = tensor.new_zeros((tensor.shape[0], longest, *tensor.shape[2:]))
        whole[:, : tensor.shape[1]] = tensor
        joined.append(whole)
    return torch.cat(joined)
