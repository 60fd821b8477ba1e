"""Central moment discrepancy (CMD): source and target agree in the mean and the central moments of every single feature.

    L = ||E x - E y||_2 / w + sum_k=2..K ||c_k(x) - c_k(y)||_2 / w^k          c_k(x) = E (x - E x)^k by features, w = |b - a|

Source: Zellinger et al., "Central moment discrepancy (CMD) for domain-invariant representation learning", ICLR 2017
(arXiv:1702.08811), with K = 5. The paper's features lie in [a, b] by their activation; where no ``span`` is given, w
is what both batches span, a constant, which is our reading for activations without bounds.
Use it where features are compared one by one; it needs no kernel and no pairs, time and memory are those of the features.
It ignores how features depend on each other, and classes.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.core.checks import check_same_width
from headstart.core.errors import ConfigError
from headstart.objectives.layers import both_domains, check_layer, layer_needs
from headstart.objectives.objective import Batch, Objective, check_positive
from headstart.objectives.precision import widen

__all__ = ["CMD", "central_moment_discrepancy"]


def central_moment_discrepancy(
    source_nd: Tensor, target_md: Tensor, *, num_moments: int = 5, span: float | None = None
) -> Tensor:
    """Return how far the means and central moments of the features are apart.

    Parameters
    ----------
    source_nd, target_md : Tensor of shape (n, d) and (m, d)
        Features. Half precision is computed in float32.
    num_moments : int, at least 1
        K: 1 compares means alone.
    span : float, above 0, optional
        w, the length of the interval that features lie in; what both batches span when left out.

    Returns
    -------
    Tensor of shape ()
        At least 0; 0 where all these moments agree. No unit.

    Raises
    ------
    ShapeError
        If an input is no matrix, or the widths differ.

    Examples
    --------
    >>> source, target = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]])       # means 1, 3; variances 1, 4
    >>> central_moment_discrepancy(source, target, num_moments=2, span=1.0)               # 2 + 3
    tensor(5.)
    """
    check_same_width("central_moment_discrepancy", source_nd, target_md)
    source, target = widen(source_nd), widen(target_md)
    if span is None:
        both = torch.cat([source, target]).detach()
        width = both.max() - both.min()
        width = torch.where(width > 0, width, torch.ones_like(width))
    else:
        width = torch.tensor(span, dtype=source.dtype, device=source.device)
    source, target = source / width, target / width
    means = source.mean(0), target.mean(0)
    total: Tensor = torch.linalg.vector_norm(means[0] - means[1])
    source, target = source - means[0], target - means[1]
    for order in range(2, num_moments + 1):
        total = total + torch.linalg.vector_norm(source.pow(order).mean(0) - target.pow(order).mean(0))
    return total


class CMD(Objective):
    """`central_moment_discrepancy` of a layer, as a loss term.

    Parameters
    ----------
    num_moments : int, at least 1
        K: up to which order moments are compared.
    span : float, above 0, optional
        Length of the interval that features lie in: 1 for sigmoids, 2 for tanh; what both batches span when left out.
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
    >>> source, target = Batch(features=torch.tensor([[0.0], [2.0]])), Batch(features=torch.tensor([[1.0], [5.0]]))
    >>> CMD(num_moments=1)(source, target)                                                # 2 of a span of 5
    tensor(0.4000)
    """

    needs = frozenset({"features"})

    def __init__(
        self, num_moments: int = 5, span: float | None = None, layer: str = "features", weight: float = 1.0
    ) -> None:
        super().__init__()
        check_layer("CMD", layer)
        if num_moments < 1:
            raise ConfigError(f"CMD: num_moments is at least 1; got {num_moments}.")
        if span is not None:
            check_positive("CMD", "span", span)
        self.num_moments, self.span, self.layer, self.weight = num_moments, span, layer, weight
        self.needs = layer_needs([layer])

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the discrepancy."""
        source_nd, target_md = both_domains(self, self.layer, source, target)
        value = central_moment_discrepancy(source_nd, target_md, num_moments=self.num_moments, span=self.span)
        return self.weight * value
