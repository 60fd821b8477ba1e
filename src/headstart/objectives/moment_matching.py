"""Moment matching between several sources and the target, and among the sources (M3SDA).

    md = sum_k ( 1/e sum_i || E[S_i^k] - E[T^k] ||  +  mean over pairs i < j of || E[S_i^k] - E[S_j^k] || )

Source: Peng et al., "Moment Matching for Multi-Source Domain Adaptation", ICCV 2019 (arXiv:1812.01754), equation 1: powers
element by element, norms not squared, k = 1 and 2. Its published program centres rows before the second power, goes up to k = 5,
and sums over pairs with a weight of 0.0005; the equation is what stands here. The paper's own classifier for each source, and
their weighted vote, are left out.
Use it where labelled rows come from several domains and the target is one more; beside the task's loss, with balanced domains.
Of several processes each sees the rows of all: value and gradient are those of one process.
It ignores labels, and how features go together.
Shapes: b source rows, m target rows, d features, e source domains that occur.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from headstart.core.checks import check_same_width
from headstart.core.errors import ConfigError
from headstart.objectives.domain_risks import domains_present
from headstart.objectives.objective import Batch, Objective
from headstart.objectives.precision import widen

__all__ = ["M3SDA", "domain_moment_distance"]


def domain_moment_distance(source_bd: Tensor, domains: Tensor, target_md: Tensor, num_moments: int = 2) -> Tensor:
    """Return how far the moments of all domains are apart.

    Parameters
    ----------
    source_bd : Tensor of shape (b, d)
        Features of the sources' rows. Half precision is computed in float32.
    domains : Tensor of shape (b,)
        int64 number of each source row's domain.
    target_md : Tensor of shape (m, d)
        Features of the target's rows.
    num_moments : int, at least 1
        Powers 1 to this.

    Returns
    -------
    Tensor of shape ()
        At least 0.

    Raises
    ------
    ShapeError
        If widths differ, or there is not one domain a row.

    Examples
    --------
    >>> source, target = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.zeros(1, 2)
    >>> domain_moment_distance(source, torch.tensor([0, 1]), target, num_moments=1)        # (5 + 0) / 2, and 5 for the pair
    tensor(7.5000)
    """
    check_same_width("domain_moment_distance", source_bd, target_md)
    source_bd, target_md = widen(source_bd), widen(target_md)
    total = (0.0 * target_md).sum()
    for power in range(1, num_moments + 1):
        target_d = target_md.pow(power).mean(0)
        means = [source_bd[mask].pow(power).mean(0) for _, mask in domains_present(source_bd, domains)]
        total = total + torch.stack([_norm(mean_d - target_d) for mean_d in means]).mean()
        pairs = [_norm(one - other) for one, other in combinations(means, 2)]
        total = total + torch.stack(pairs).mean() if pairs else total
    return total


def _norm(vector_d: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vector_d)  # its gradient at 0 is 0
    return length


class M3SDA(Objective):
    """`domain_moment_distance` of the features of all source domains and the target.

    Parameters
    ----------
    num_moments : int, at least 1
        Powers 1 to this.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If ``num_moments`` is below 1.

    Examples
    --------
    >>> source = Batch(features=torch.tensor([[3.0, 4.0], [0.0, 0.0]]), domains=torch.tensor([0, 1]))
    >>> M3SDA(num_moments=1, weight=2.0)(source, Batch(features=torch.zeros(1, 2)))
    tensor(15.)
    """

    needs = frozenset({"features", "domains"})

    def __init__(self, num_moments: int = 2, weight: float = 1.0) -> None:
        super().__init__()
        if num_moments < 1:
            raise ConfigError(f"M3SDA: num_moments is at least 1; got {num_moments}.")
        self.num_moments, self.weight = num_moments, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the distance of moments."""
        (other,) = self.chosen("target", source, target)
        here_bd = widen(self.take(source, "features"))
        source_bd, domains = self.together.whole(here_bd, self.take(source, "domains"))
        (target_md,) = self.together.whole(widen(self.take(other, "features")), beside=here_bd)
        return self.weight * domain_moment_distance(source_bd, domains, target_md, self.num_moments)
