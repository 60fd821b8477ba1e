"""Entropy separation: a target row becomes certain of a known class, or certain to be of none.

    loss = mean_i l(H_i)        l(H) = -|H - rho| where |H - rho| > margin, else 0          rho = log(k) / 2

H_i: entropy of the softmax of target row i. Afterwards a row with H above rho is of no known class.

Source: Saito, Kim, Sclaroff & Saenko, "Universal Domain Adaptation through Self Supervision" (DANCE), NeurIPS 2020
(arXiv:2002.07953), equations 6 and 7; margin 0.5. Published code gives -margin in place of 0 near rho: the same gradient.
Use it together with `NeighbourhoodClustering` where the target may hold unknown classes; a recipe says so (``unknown_above``),
and the model then answers "unknown".
It ignores labels. With two or three classes rho is near the margin, and hardly any row is moved: take a smaller margin.
Shapes: b target rows, k classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_matrix
from headstart.core.errors import ConfigError
from headstart.objectives.objective import Batch, Objective
from headstart.objectives.precision import widen

__all__ = ["EntropySeparation", "entropy_separation"]


def entropy_separation(logits_bk: Tensor, margin: float = 0.5) -> Tensor:
    """Return minus the mean distance of the rows' entropies from half of the largest, where it is more than a margin.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, k)
        Outputs before the softmax. Half precision is computed in float32.
    margin : float, at least 0
        Rows nearer than this are left alone.

    Returns
    -------
    Tensor of shape ()
        Nats, from -log(k) / 2 to 0.

    Raises
    ------
    ShapeError
        If the logits are no matrix.

    Examples
    --------
    >>> entropy_separation(torch.tensor([[100.0, 0.0], [0.0, 0.0]]), margin=0.1)        # both are log(2) / 2 away
    tensor(-0.3466)
    >>> entropy_separation(torch.zeros(1, 2), margin=0.5)
    tensor(-0.)
    """
    check_matrix("entropy_separation", "logits", logits_bk)
    logs_bk = functional.log_softmax(widen(logits_bk), dim=1)
    entropy_b = -(logs_bk.exp() * logs_bk).sum(1)
    away_b = (entropy_b - math.log(logits_bk.shape[1]) / 2).abs()
    return -torch.where(away_b > margin, away_b, 0.0 * away_b).mean()


class EntropySeparation(Objective):
    """`entropy_separation` of the target rows.

    Parameters
    ----------
    margin : float, at least 0
        Rows whose entropy is nearer to half of the largest are left alone.
    head : str
        Name of the head.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If ``margin`` is below 0.

    Examples
    --------
    >>> EntropySeparation(margin=0.1, weight=2.0)(Batch(), Batch(logits=torch.zeros(1, 2)))
    tensor(-0.6931)
    """

    needs = frozenset({"logits"})
    reads_classes = True

    def __init__(self, margin: float = 0.5, head: str = "main", weight: float = 0.05) -> None:
        super().__init__()
        if not margin >= 0:
            raise ConfigError(f"EntropySeparation: margin is at least 0; got {margin}.")
        self.margin, self.head, self.weight = margin, head, weight

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the separation."""
        (batch,) = self.chosen("target", source, target)
        return self.weight * entropy_separation(self.take_logits(batch, self.head), self.margin)
