"""JAN: source and target have one joint distribution of several layers, as far as a product of kernels can tell.

    K(x, y) = prod over layers of k_l(x_l, y_l),      k_l = mean over factors f of exp(-|x_l - y_l|^2 / (2 f m_l))
    full    : mean_ij K(s_i, s_j) + mean_ij K(t_i, t_j) - 2 mean_ij K(s_i, t_j)              all pairs, at least 0
    linear  : mean over i of K(s_2i-1, s_2i) + K(t_2i-1, t_2i) - K(s_2i-1, t_2i) - K(t_2i-1, s_2i)
    times f(p) = 2 / (1 + exp(-s p)) - 1              m_l: median squared distance of the layer's pooled rows, a constant

Source: Long et al., "Deep transfer learning with joint adaptation networks", ICML 2017 (arXiv:1605.06636), both
estimates, with one kernel exp(-|x - y|^2 / m) a layer, the softmax output as the last layer, and the factor f(p) with s = 10.
Use it where features that look alike should also be answered alike: a product of kernels sees features and answers together.
It ignores labels. The more layers, the nearer K is to the identity, and the less it tells rows apart.
Shapes: n source rows, m target rows, d features of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headstart.core.checks import check_same_rows
from headstart.core.errors import ConfigError
from headstart.distances import pooled_kernel
from headstart.objectives.layers import both_domains, check_layer, layer_needs, or_not_a_number
from headstart.objectives.objective import Batch, Objective, check_positive
from headstart.objectives.precision import full_precision
from headstart.objectives.schedules import rise_factor

__all__ = ["JAN", "JAN_FACTORS", "joint_mmd"]

JAN_FACTORS = (0.5,)  # one kernel exp(-|x - y|^2 / m)


def joint_mmd(
    source_layers: Sequence[Tensor],
    target_layers: Sequence[Tensor],
    *,
    factors: Sequence[float] = JAN_FACTORS,
    linear: bool = False,
) -> Tensor:
    """Return the squared maximum mean discrepancy under the product of the layers' kernels.

    Parameters
    ----------
    source_layers, target_layers : sequence of Tensor of shape (n, d) and (m, d)
        The same rows on every layer; widths may differ from layer to layer. Half precision is computed in float32.
    factors : sequence of float, each above 0
        Variances of each layer's kernels, as multiples of its median squared distance.
    linear : bool
        From neighbouring pairs of rows, in the order given, instead of all pairs.

    Returns
    -------
    Tensor of shape ()
        Below 2; from all pairs at least 0, and 0 for equal rows. No unit.

    Raises
    ------
    ConfigError
        If there is no layer, or the numbers of layers differ.
    ShapeError
        If the shapes do not fit, or the linear form has fewer than two rows of a domain.

    Examples
    --------
    >>> zero, one = torch.zeros(2, 1), torch.ones(2, 1)
    >>> joint_mmd([zero, zero], [one, one])                       # each kernel is exp(-1): 1 + 1 - 2 exp(-2)
    tensor(1.7293)
    """
    if not source_layers or len(source_layers) != len(target_layers):
        raise ConfigError(
            f"joint_mmd: needs the same layers of both domains; got {len(source_layers)} and {len(target_layers)}."
        )
    product = torch.ones(())
    for source_nd, target_md in zip(source_layers, target_layers, strict=True):
        check_same_rows("joint_mmd", "the first source layer", source_layers[0], "another", source_nd)
        check_same_rows("joint_mmd", "the first target layer", target_layers[0], "another", target_md)
        product = product.to(source_nd.device) * full_precision(pooled_kernel)(source_nd, target_md, factors=factors)
    num_source = len(source_layers[0])
    source_nn, target_mm = product[:num_source, :num_source], product[num_source:, num_source:]
    between_nm = product[:num_source, num_source:]
    if not linear:
        return source_nn.mean() + target_mm.mean() - 2 * between_nm.mean()
    num_pairs = min(between_nm.shape) // 2
    if not num_pairs:
        raise ConfigError("joint_mmd: the linear form needs two rows of each domain; take all pairs.")
    first = torch.arange(0, 2 * num_pairs, 2, device=product.device)
    second = first + 1
    within = source_nn[first, second] + target_mm[first, second]
    return (within - between_nm[first, second] - between_nm[second, first]).mean()


class JAN(Objective):
    """`joint_mmd` of several layers, as a loss term that rises while training goes on.

    Parameters
    ----------
    layers : sequence of str
        Each ``"features"``, ``"logits"``, ``"probabilities"`` or ``"segments.NAME"``.
    factors : sequence of float, each above 0
        Variances of each layer's kernels, as multiples of its median squared distance.
    linear : bool
        From neighbouring pairs of rows instead of all pairs.
    rise : float, at least 0
        Steepness s of the factor that rises from 0 to 1 while training goes on; 0: the term counts in full from the start.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If there is no layer, or an argument breaks its rule.

    Examples
    --------
    >>> source, target = (Batch(features=torch.full((2, 1), value), share=0.0) for value in (0.0, 1.0))
    >>> JAN(["features"], rise=0.0)(source, target), JAN(["features"])(source, target)      # 1 + 1 - 2 exp(-1)
    (tensor(1.2642), tensor(0.))
    """

    needs = frozenset({"features", "logits"})
    reads_classes = True

    def __init__(
        self,
        layers: Sequence[str] = ("features", "probabilities"),
        factors: Sequence[float] = JAN_FACTORS,
        linear: bool = False,
        rise: float = 10.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not layers or not factors:
            raise ConfigError(f"JAN: needs a layer and a kernel at least; got {list(layers)} and {list(factors)}.")
        for layer in layers:
            check_layer("JAN", layer)
        for factor in factors:
            check_positive("JAN", "a factor", factor)
        rise_factor("JAN", rise, 0.0)
        self.layers, self.factors, self.linear = tuple(layers), tuple(factors), linear
        self.rise, self.weight = rise, weight
        self.needs = layer_needs(layers)

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the discrepancy, as far as it has risen."""
        pairs = [both_domains(self, layer, source, target, 2 if self.linear else 1) for layer in self.layers]
        sources, targets = zip(*pairs, strict=True)
        value = or_not_a_number(
            lambda: joint_mmd(sources, targets, factors=self.factors, linear=self.linear), *sources, *targets
        )
        return self.weight * rise_factor("JAN", self.rise, source.share) * value
