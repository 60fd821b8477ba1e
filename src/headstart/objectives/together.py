"""Several processes that train together, as an objective sees them: the rows that all of them have in a step.

    value here:           f(x), x the rows of all processes
    gradient of row i:    N / N_r * df/dx_i                      for the rows i here; the others' rows are constants
    of own parameters p:  df/dp                                  N_r labelled rows here, N in all processes

The loop multiplies each process's loss by N_r / N and adds gradients up, which leaves of any function of the rows, and of
parameters that every process has, the gradient that one process with all rows would have.
Source: the chain rule. Use it where an objective remembers what it saw (all processes then remember the same), or is no mean over
single rows: means of parts of a batch, covariances, a maximum. It ignores a batch taken in pieces: each piece is looked at by
itself. Every process computes the whole function; use it where that is little beside the network.
Shapes: b rows here, B rows in all processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Together"]


def _itself(tensor: Tensor) -> Tensor:
    return tensor


class _Scaled(torch.autograd.Function):
    """The same numbers, whose gradient comes back times a factor."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return ctx.factor * gradients[0], None


@dataclass(frozen=True)
class Together:
    """The processes that train together. Without arguments: one, alone; everything it saw is all there is.

    All processes call the same methods in the same order.

    Parameters
    ----------
    rank : int
        Which process this is, from 0.
    size : int
        How many there are.
    add_up : callable
        Returns the sum over all processes of a tensor that has the same shape in each.

    Examples
    --------
    >>> rows, labels = Together().rows(torch.tensor([4, 7]), torch.tensor([0, 1]))
    >>> rows.tolist(), labels.tolist()
    ([4, 7], [0, 1])
    """

    rank: int = 0
    size: int = 1
    add_up: Callable[[Tensor], Tensor] = _itself

    @torch.no_grad()
    def rows(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the rows of all processes, those of the first process first, without gradient.

        Parameters
        ----------
        *tensors : Tensor of shape (b, ...)
            What this process has of its rows; b may differ from process to process.

        Returns
        -------
        tuple of Tensor of shape (B, ...)
            In the order of the arguments, and of their types.
        """
        if self.size == 1:
            return tensors
        begin, total = self._place(tensors[0])
        return tuple(self._spread(tensor, begin, total) for tensor in tensors)

    def whole(self, *tensors: Tensor, beside: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the rows of all processes as `rows` does, with the gradient that belongs to the rows here.

        Parameters
        ----------
        *tensors : Tensor of shape (b, ...)
            What this process has of its rows; those without gradient get none.
        beside : Tensor of shape (n, ...), optional
            Labelled rows of this process, where ``tensors`` are of another stream: the loop weighs by their number.

        Returns
        -------
        tuple of Tensor of shape (B, ...)
            In the order of the arguments, and of their types.

        Examples
        --------
        >>> Together().whole(torch.tensor([0.5, 2.0]))
        (tensor([0.5000, 2.0000]),)
        """
        if self.size == 1:
            return tensors
        begin, total = self._place(tensors[0])
        factor = total / len(tensors[0]) if beside is None else self._place(beside)[1] / len(beside)
        whole = list[Tensor]()
        for tensor in tensors:
            every = self._spread(tensor, begin, total)
            if tensor.requires_grad:
                mine: Tensor = _Scaled.apply(tensor, factor)
                every = torch.cat([every[:begin], mine, every[begin + len(mine) :]])
            whole.append(every)
        return tuple(whole)

    def _place(self, tensor: Tensor) -> tuple[int, int]:
        """Return where the rows here begin among those of all processes, and how many these are."""
        counts = torch.zeros(self.size, dtype=torch.int64, device=tensor.device)
        counts[self.rank] = len(tensor)
        ends = self.add_up(counts).cumsum(0).tolist()
        return ends[self.rank] - len(tensor), ends[-1]

    def _spread(self, tensor: Tensor, begin: int, total: int) -> Tensor:
        places = tensor.new_zeros(total, *tensor.shape[1:])
        places[begin : begin + len(tensor)] = tensor.detach()
        return self.add_up(places)
