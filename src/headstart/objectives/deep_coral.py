"""Deep CORAL: both domains' features get one covariance while the task is learned.

    L = ||C_S - C_T||_F^2 / (4 d^2)                               C_X = X_c' X_c / (n - 1), X_c = X - mean(X)

Source: Sun & Saenko, "Deep CORAL: correlation alignment for deep domain adaptation", ECCV Workshops 2016 (arXiv:1607.01719),
equation 1. The paper compares the outputs of the last layer, and weighs so that both losses are about equal in the end.
Use it when the shift is second-order (sensor, style, lighting). `headstart.distances.coral_distance` is the measure.
It ignores means: domains that differ by a constant offset are 0 apart.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from torch import Tensor

from headstart.distances import coral_distance
from headstart.objectives.layers import both_domains, check_layer, layer_needs, or_not_a_number
from headstart.objectives.objective import Batch, Objective
from headstart.objectives.precision import full_precision

__all__ = ["CORAL"]


class CORAL(Objective):
    """`coral_distance` between the two batches, as a loss term.

    Parameters
    ----------
    layer : str
        ``"features"``, ``"logits"``, ``"probabilities"`` or ``"segments.NAME"``.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If the layer is unknown.

    Examples
    --------
    >>> import torch
    >>> source = Batch(features=torch.tensor([[0.0, 0.0], [2.0, 0.0]]))              # covariance [[2, 0], [0, 0]]
    >>> CORAL()(source, Batch(features=torch.zeros(2, 2)))                           # 2^2 / (4 * 2^2)
    tensor(0.2500)
    """

    needs = frozenset({"features"})

    def __init__(self, layer: str = "features", weight: float = 1.0) -> None:
        super().__init__()
        check_layer("CORAL", layer)
        self.layer, self.weight = layer, weight
        self.needs = layer_needs([layer])

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the distance of the covariances."""
        source_nd, target_md = both_domains(self, self.layer, source, target, min_rows=2)
        distance = full_precision(coral_distance)
        return self.weight * or_not_a_number(lambda: distance(source_nd, target_md), source_nd, target_md)
