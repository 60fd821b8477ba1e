"""DSAN: class by class, source and target have one mean under several Gaussian kernels.

    L = f(p) / |C| sum_c [ a_c' K_SS a_c + b_c' K_TT b_c - 2 a_c' K_ST b_c ]
    a_ic = y_ic / sum_j y_jc              y: source labels          b_ic = q_ic / sum_j q_jc       q: softmax of target rows
    C: classes that the batch has on both sides, by labels there and by the likeliest class here; f(p) = 2 / (1 + exp(-s p)) - 1

Source: Zhu et al., "Deep subdomain adaptation network for image classification", IEEE TNNLS 2020 (arXiv:2106.09388), with
s = 10. Which classes count is read from its authors' code, which also adds up its five kernels where ours is their mean: a weight
of 0.5 there is 2.5 here.
Use it where classes overlap after the domains as a whole are matched. The target's probabilities are weights: no gradient.
It ignores that a confident wrong answer matches a row to the wrong class.
Shapes: n source rows, m target rows, p = n + m pooled rows, d features, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_matrix, check_same_rows
from headstart.core.errors import ConfigError, ShapeError
from headstart.distances import pooled_kernel
from headstart.objectives.layers import both_domains, check_layer, layer_needs, or_not_a_number
from headstart.objectives.objective import Batch, Objective, check_positive
from headstart.objectives.precision import full_precision, widen
from headstart.objectives.schedules import rise_factor

__all__ = ["DSAN", "DSAN_FACTORS", "local_mmd"]

DSAN_FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0)


@full_precision
def local_mmd(
    source_nd: Tensor,
    target_md: Tensor,
    labels_nk: Tensor,
    probabilities_mk: Tensor,
    *,
    factors: Sequence[float] = DSAN_FACTORS,
) -> Tensor:
    """Return the mean over classes of the squared maximum mean discrepancy between the rows of that class.

    Parameters
    ----------
    source_nd, target_md : Tensor of shape (n, d) and (m, d)
        Features. Half precision is computed in float32.
    labels_nk : Tensor of shape (n, k)
        How much of each class a source row is: 0 or 1, or soft labels.
    probabilities_mk : Tensor of shape (m, k)
        The same of target rows, as the network guesses. No gradient flows here.
    factors : sequence of float, each above 0
        Variances of the kernels, as multiples of the median squared distance.

    Returns
    -------
    Tensor of shape ()
        At least 0, below 2; 0 where no class is on both sides. No unit.

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    Examples
    --------
    >>> source, target, both = torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([[1.0, 0.0]])
    >>> local_mmd(source, target, both, both, factors=[0.5])                 # one class: 1 + 1 - 2 exp(-1)
    tensor(1.2642)
    >>> local_mmd(source, target, both, torch.tensor([[0.2, 0.8]]), factors=[0.5])
    tensor(0.)
    """
    check_matrix("local_mmd", "labels", labels_nk)
    check_same_rows("local_mmd", "source", source_nd, "labels", labels_nk)
    check_same_rows("local_mmd", "target", target_md, "probabilities", probabilities_mk)
    if labels_nk.shape[1:] != probabilities_mk.shape[1:]:
        raise ShapeError(
            f"local_mmd: labels and probabilities are over the same classes; got {tuple(labels_nk.shape)} and "
            f"{tuple(probabilities_mk.shape)}."
        )
    kernel: Tensor = pooled_kernel(source_nd, target_md, factors=factors)
    labels_nk, probabilities_mk = (rows.detach().to(kernel.dtype) for rows in (labels_nk, probabilities_mk))
    guessed = functional.one_hot(probabilities_mk.argmax(1), labels_nk.shape[1]).sum(0) > 0
    common_k = (labels_nk.sum(0) > 0) & guessed
    weights = [rows / rows.sum(0).clamp_min(torch.finfo(rows.dtype).tiny) for rows in (labels_nk, probabilities_mk)]
    signed_pk = torch.cat([weights[0], -weights[1]]) * common_k
    return (signed_pk * (kernel @ signed_pk)).sum() / common_k.sum().clamp_min(1)


class DSAN(Objective):
    """`local_mmd` of a layer, as a loss term that rises while training goes on.

    Parameters
    ----------
    layer : str
        ``"features"``, ``"logits"``, ``"probabilities"`` or ``"segments.NAME"``.
    factors : sequence of float, each above 0
        Variances of the kernels, as multiples of the median squared distance.
    rise : float, at least 0
        Steepness s of the factor that rises from 0 to 1 while training goes on; 0: the term counts in full from the start.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If an argument breaks its rule.
    ShapeError
        If labels are numbers, and no classes.

    Examples
    --------
    >>> source = Batch(labels=torch.tensor([0]), features=torch.zeros(1, 1))
    >>> target = Batch(features=torch.ones(1, 1), logits=torch.tensor([[9.0, 0.0]]))
    >>> DSAN(factors=[0.5], rise=0.0)(source, target)                         # 1 + 1 - 2 exp(-1)
    tensor(1.2642)
    """

    needs = frozenset({"labels", "features", "logits"})
    reads_classes = True

    def __init__(
        self,
        layer: str = "features",
        factors: Sequence[float] = DSAN_FACTORS,
        rise: float = 10.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_layer("DSAN", layer)
        if not factors:
            raise ConfigError("DSAN: needs a kernel at least; got no factors.")
        for factor in factors:
            check_positive("DSAN", "a factor", factor)
        rise_factor("DSAN", rise, 0.0)
        self.layer, self.factors, self.rise, self.weight = layer, tuple(factors), rise, weight
        self.needs = layer_needs([layer]) | {"labels", "logits"}

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the discrepancy, as far as it has risen."""
        (other,) = self.chosen("target", source, target)
        source_nd, target_md = both_domains(self, self.layer, source, target)
        probabilities_mk = functional.softmax(widen(self.take_logits(other, "main")), dim=1)
        labels_nk = class_shares(self, self.take(source, "labels"), probabilities_mk.shape[1])
        value = or_not_a_number(
            lambda: local_mmd(source_nd, target_md, labels_nk, probabilities_mk, factors=self.factors),
            source_nd,
            target_md,
        )
        return self.weight * rise_factor("DSAN", self.rise, source.share) * value


def class_shares(objective: Objective, labels: Tensor, num_classes: int) -> Tensor:
    """Return class numbers as indicators, and soft labels as they are.

    Raises
    ------
    ShapeError
        If labels are numbers, and no classes.
    """
    if labels.ndim == 1 and not labels.is_floating_point():
        return functional.one_hot(labels, num_classes)
    if labels.ndim != 2:
        raise ShapeError(
            f"{type(objective).__name__}: needs classes as labels; got numbers of shape {tuple(labels.shape)}."
        )
    return labels
