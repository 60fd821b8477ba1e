"""CORAL between source domains: the features of all of them share one covariance.

    loss = mean over pairs e < f of ||C_e - C_f||_F^2 / (4 d^2)         C_e: covariance of the features of domain e

Source: Sun & Saenko, "Deep CORAL", ECCV Workshops 2016 (arXiv:1607.01719), equation 1, between all pairs of source domains as in
Gulrajani & Lopez-Paz, "In Search of Lost Domain Generalization", ICLR 2021 (arXiv:2007.01434). Published code for several domains
adds the distance of means, and divides by d^2 in place of 4 d^2: its weight 1 is 4 here.
Use it for unseen domains whose style (light, camera, pen) differs as the known ones differ among each other.
Of several processes each sees the rows of all: value and gradient are those of one process.
It ignores means and labels, and domains with fewer than two rows in the batch.
Shapes: b rows in a batch, d features.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from headstart.distances import coral_distance
from headstart.objectives.domain_risks import domains_present
from headstart.objectives.objective import Batch, Objective
from headstart.objectives.precision import full_precision, widen

__all__ = ["DomainCORAL", "domain_coral_distance"]


@full_precision
def domain_coral_distance(features_bd: Tensor, domains: Tensor) -> Tensor:
    """Return the mean of `headstart.distances.coral_distance` over all pairs of domains.

    Parameters
    ----------
    features_bd : Tensor of shape (b, d)
        Features. Half precision is computed in float32.
    domains : Tensor of shape (b,)
        int64 number of each row's domain.

    Returns
    -------
    Tensor of shape ()
        At least 0; 0 where fewer than two domains have two rows. Unit: feature unit to the fourth power.

    Raises
    ------
    ShapeError
        If there is not one domain a row.

    Examples
    --------
    >>> features = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 5.0], [5.0, 5.0]])   # covariances [[2, 0], [0, 0]] and 0
    >>> domain_coral_distance(features, torch.tensor([0, 0, 1, 1]))                   # 2^2 / (4 * 2^2)
    tensor(0.2500)
    """
    features_bd = widen(features_bd)
    parts = [features_bd[mask] for _, mask in domains_present(features_bd, domains) if int(mask.sum()) > 1]
    pairs = [coral_distance(one, other) for one, other in combinations(parts, 2)]
    return torch.stack(pairs).mean() if pairs else (0.0 * features_bd).sum()


class DomainCORAL(Objective):
    """`domain_coral_distance` of the labelled rows' features.

    Parameters
    ----------
    weight : float
        Multiplies the term.

    Examples
    --------
    >>> features = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 5.0], [5.0, 5.0]])
    >>> DomainCORAL(weight=4.0)(Batch(features=features, domains=torch.tensor([0, 0, 1, 1])))
    tensor(1.)
    """

    needs = frozenset({"features", "domains"})
    compares_sources = True

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the mean distance of two source domains."""
        features_bd, domains = self.together.whole(widen(self.take(source, "features")), self.take(source, "domains"))
        return self.weight * domain_coral_distance(features_bd, domains)
