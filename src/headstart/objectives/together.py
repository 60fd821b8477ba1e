"""Several processes that train together, as an objective sees them: what all of them saw in a step.

    means over the rows of all:   R_p = sum_r n_pr R_pr / N_p        R_pr the mean over the n_pr rows of part p that process r has
    their gradient here:          n_pr / N_p * N / N_r * dR_pr       N_p = sum_r n_pr,  N_r = sum_p n_pr,  N = sum_r N_r

The loop multiplies each process's loss by N_r / N and adds gradients up, so that the factor N / N_r leaves, of any function of
the means, the gradient that one process with all rows would have.
Source: the chain rule. Use it where an objective remembers what it saw (all processes then remember the same), or compares means
over parts of a batch. It ignores a batch taken in pieces: each piece is compared by itself.
Shapes: b rows here, B rows in all processes, p parts of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Together"]


def _itself(tensor: Tensor) -> Tensor:
    return tensor


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
        counts = torch.zeros(self.size, dtype=torch.int64, device=tensors[0].device)
        counts[self.rank] = len(tensors[0])
        ends = self.add_up(counts).cumsum(0).tolist()
        whole = list[Tensor]()
        for tensor in tensors:
            places = tensor.new_zeros(ends[-1], *tensor.shape[1:])
            places[ends[self.rank] - len(tensor) : ends[self.rank]] = tensor.detach()
            whole.append(self.add_up(places))
        return tuple(whole)

    def means(self, means_p: Tensor, counts_p: Tensor) -> Tensor:
        """Return means over the rows of all processes, with the gradient that belongs to the rows here.

        Parameters
        ----------
        means_p : Tensor of shape (p,)
            Means over the rows of each part that this process has; any number for a part of which it has none.
        counts_p : Tensor of shape (p,)
            How many rows that are. Each row belongs to one part.

        Returns
        -------
        Tensor of shape (p,)
            Not a number for parts without rows anywhere.

        Examples
        --------
        >>> Together().means(torch.tensor([0.5, 2.0]), torch.tensor([3, 1]))
        tensor([0.5000, 2.0000])
        """
        counts_p = counts_p.to(means_p.dtype)
        if self.size == 1:
            return torch.where(counts_p > 0, means_p, torch.nan)
        sums_p = torch.where(counts_p > 0, means_p, 0.0) * counts_p
        whole_p, all_p = self.add_up(torch.stack([sums_p.detach(), counts_p]))
        here_p = sums_p / all_p.clamp_min(1.0) * (all_p.sum() / counts_p.sum())
        means: Tensor = whole_p / all_p + (here_p - here_p.detach())
        return means
