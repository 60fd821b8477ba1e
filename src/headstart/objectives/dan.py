"""DAN: on several layers each, source and target have one mean under many Gaussian kernels at once.

    L = sum over layers of MMD^2(S_l, T_l),   k(x, y) = 1/33 sum_u exp(-|x - y|^2 / g_u)
    g_u = m 2^(u/2), u = -16 .. 16            m: median squared distance of the layer's pooled rows, a constant

Source: Long et al., "Learning transferable features with deep adaptation networks", ICML 2015 (arXiv:1502.02791), with the
kernels of its experiments. They have equal weights here; the paper learns them by a quadratic programme.
Use it where features of both domains should be alike layer by layer. `headstart.distances.mk_mmd` is the measure.
It ignores classes, and how layers depend on each other (`JAN`).
Shapes: n source rows, m target rows, d features of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

from torch import Tensor

from headstart.core.errors import ConfigError
from headstart.distances import linear_time_mmd, mk_mmd
from headstart.objectives.layers import StepDraws, both_domains, check_layer, layer_needs, or_not_a_number
from headstart.objectives.objective import Batch, check_positive
from headstart.objectives.precision import full_precision

__all__ = ["DAN", "DAN_FACTORS"]

# a kernel's variance is half of g; exact powers of two times one root, so that every other kernel is the square of one before
DAN_FACTORS = tuple(2.0 ** (step // 2 - 1) * (2**0.5 if step % 2 else 1.0) for step in range(-16, 17))


class DAN(StepDraws):
    """Multi-kernel maximum mean discrepancy of several layers, as a loss term.

    Parameters
    ----------
    layers : sequence of str
        Each ``"features"``, ``"logits"``, ``"probabilities"`` or ``"segments.NAME"``.
    factors : sequence of float, each above 0
        Variances of the kernels, as multiples of the median squared distance.
    linear : bool
        The estimate of linear time, from pairs of rows, as the paper trains; noisier than the one from all pairs.
    seed : int
        Of the linear estimate's pairs, drawn anew in every step.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If there is no layer, or an argument breaks its rule.

    Examples
    --------
    >>> import torch
    >>> source, target = (Batch(features=torch.full((2, 1), value)) for value in (0.0, 1.0))
    >>> DAN(["features"], factors=[0.5])(source, target)             # the median is 1: 1 + 1 - 2 exp(-1)
    tensor(1.2642)
    """

    needs = frozenset({"features", "logits"})

    def __init__(
        self,
        layers: Sequence[str] = ("features", "logits"),
        factors: Sequence[float] = DAN_FACTORS,
        linear: bool = False,
        seed: int = 0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not layers or not factors:
            raise ConfigError(f"DAN: needs a layer and a kernel at least; got {list(layers)} and {list(factors)}.")
        for layer in layers:
            check_layer("DAN", layer)
        for factor in factors:
            check_positive("DAN", "a factor", factor)
        self.layers, self.factors, self.linear = tuple(layers), tuple(factors), linear
        self.seed, self.weight = seed, weight
        self.needs = layer_needs(layers)

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the sum over the layers."""
        total: Tensor | float = 0.0
        for layer in self.layers:
            rows = both_domains(self, layer, source, target, min_rows=2)
            total = total + or_not_a_number(partial(self._layer, *rows), *rows)
        return self.weight * total  # type: ignore[return-value]  # the sum of at least one tensor

    @full_precision
    def _layer(self, source_nd: Tensor, target_md: Tensor) -> Tensor:
        if self.linear:
            value = linear_time_mmd(source_nd, target_md, factors=self.factors, seed=self.step_seed())
        else:
            value = mk_mmd(source_nd, target_md, factors=self.factors)
        return cast(Tensor, value)
