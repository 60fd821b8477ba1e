"""Batch spectral shrinkage (BSS): features give up the directions in which the base model knows least.

    bss(F) = sum over the k smallest singular values s of F of s^2            F: the batch's features, one row each

Source: Chen et al., "Catastrophic Forgetting Meets Negative Transfer: Batch Spectral Shrinkage for Safe Transfer Learning",
NeurIPS 2019, the regulariser of section 4 (its authors use k = 1 and a weight of 0.001).
Use it against negative transfer when labelled rows are few; it goes with any other regulariser.
It ignores whether the shrunken direction is the one the new task needs. A batch taken in pieces has the values of the pieces.
The gradient, 2 s u v' for each s, stays finite where singular values are equal or zero.
Shapes: b rows, d features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.core.checks import check_matrix
from headstart.core.errors import ConfigError
from headstart.objectives.objective import Batch, Objective
from headstart.objectives.precision import full_precision, widen

__all__ = ["BSS", "batch_spectral_shrinkage"]


@full_precision
def batch_spectral_shrinkage(features_bd: Tensor, *, num_values: int = 1) -> Tensor:
    """Return the sum of squares of the smallest singular values of a batch's features.

    Parameters
    ----------
    features_bd : Tensor of shape (b, d)
        Features. Half precision is computed in float32.
    num_values : int, at least 1
        How many singular values; all of them where the matrix has fewer.

    Returns
    -------
    Tensor of shape ()
        At least 0; the squared unit of the features.

    Raises
    ------
    ShapeError
        If the features are no matrix.

    Examples
    --------
    >>> batch_spectral_shrinkage(torch.diag(torch.tensor([3.0, 1.0, 2.0])), num_values=2)     # 1 + 4
    tensor(5.)
    """
    check_matrix("batch_spectral_shrinkage", "features", features_bd)
    values: Tensor = torch.linalg.svdvals(widen(features_bd))
    return values[-num_values:].square().sum()


class BSS(Objective):
    """`batch_spectral_shrinkage` of the source rows' features.

    Parameters
    ----------
    num_values : int, at least 1
        How many of the smallest singular values are shrunk.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If ``num_values`` is below 1.

    Examples
    --------
    >>> BSS(weight=0.5)(Batch(features=torch.diag(torch.tensor([3.0, 2.0]))))      # 0.5 * 4
    tensor(2.)
    """

    needs = frozenset({"features"})

    def __init__(self, num_values: int = 1, weight: float = 0.001) -> None:
        super().__init__()
        if num_values < 1:
            raise ConfigError(f"BSS: num_values is at least 1; got {num_values}.")
        self.num_values, self.weight = num_values, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the smallest squared singular values."""
        return self.weight * batch_spectral_shrinkage(self.take(source, "features"), num_values=self.num_values)
