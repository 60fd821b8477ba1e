"""Batch spectral penalisation (BSP): no few directions may carry the features of either domain.

    L = sum over the k largest singular values s of F_S and of F_T of s^2          F: a batch's features, one row each

Source: Chen et al., "Transferability vs. discriminability: batch spectral penalization for adversarial domain adaptation", ICML
2019, with k = 1 and a weight of 1e-4.
Use it beside an adversarial objective, which leans on the directions of largest spread; classes need the others as well.
It ignores classes. Its opposite, for fine-tuning, is `headstart.objectives.BSS`.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from headstart.core.checks import check_matrix
from headstart.core.errors import ConfigError
from headstart.objectives.layers import both_domains, check_layer, layer_needs, or_not_a_number
from headstart.objectives.objective import Batch, Objective
from headstart.objectives.precision import full_precision, widen

__all__ = ["BSP", "batch_spectral_penalty"]


@full_precision
def batch_spectral_penalty(features_nd: Tensor, *, num_values: int = 1) -> Tensor:
    """Return the sum of squares of the largest singular values of a batch's features.

    Parameters
    ----------
    features_nd : Tensor of shape (n, d)
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
    >>> batch_spectral_penalty(torch.diag(torch.tensor([3.0, 1.0, 2.0])), num_values=2)       # 9 + 4
    tensor(13.)
    """
    check_matrix("batch_spectral_penalty", "features", features_nd)
    values: Tensor = torch.linalg.svdvals(widen(features_nd))
    return values[:num_values].square().sum()


class BSP(Objective):
    """`batch_spectral_penalty` of both domains' rows, as a loss term.

    Parameters
    ----------
    num_values : int, at least 1
        How many of the largest singular values are penalised.
    layer : str
        ``"features"``, ``"logits"``, ``"probabilities"`` or ``"segments.NAME"``.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If an argument breaks its rule.

    Examples
    --------
    >>> source = Batch(features=torch.diag(torch.tensor([3.0, 2.0])))
    >>> BSP(weight=1.0)(source, Batch(features=torch.eye(2)))                                 # 9 + 1
    tensor(10.)
    """

    needs = frozenset({"features"})

    def __init__(self, num_values: int = 1, layer: str = "features", weight: float = 1e-4) -> None:
        super().__init__()
        check_layer("BSP", layer)
        if num_values < 1:
            raise ConfigError(f"BSP: num_values is at least 1; got {num_values}.")
        self.num_values, self.layer, self.weight = num_values, layer, weight
        self.needs = layer_needs([layer])

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the sum over both domains."""
        first, second = (
            or_not_a_number(partial(batch_spectral_penalty, rows, num_values=self.num_values), rows)
            for rows in both_domains(self, self.layer, source, target)
        )
        return self.weight * (first + second)
