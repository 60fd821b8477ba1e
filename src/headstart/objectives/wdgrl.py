"""Wasserstein-guided features: a critic of slope 1 measures how far apart the domains are, the features come together.

    critic:     min over c of  -(mean c(f_source) - mean c(f_target)) + penalty * mean (|| dc(p)/dp || - 1)^2
    features:   min over f of  strength * (mean c(f_source) - mean c(f_target))                                 c is constant
    p: the rows of both domains, and random points between them

Source: Shen, Qu, Zhang & Yu, "Wasserstein Distance Guided Representation Learning for Domain Adaptation", AAAI 2018
(arXiv:1707.01217), algorithm 1: penalty 10, five steps of the critic for one of the features. Their
programs take strength 1 for reviews, 0.01 for digits and 0.1 for features of photographs (there with ten steps of the critic, at
ten times the rate), and one hidden layer of 100 for the critic. Batches of unequal sizes are paired by letting the shorter one
begin again, which is our reading.
Use it as two phases on one objective: in the first, repeated, only the objective's own parameters train, in the second the
network's. Its value is the critic's loss. The gap of a trained critic's means is the earth mover's distance of the two domains'
features, in their unit, or more: domains that are one W apart throughout come out as W (1 + W / (2 penalty)), for the penalty
gives way.
It ignores classes; shares of classes that differ cost distance that no feature can save.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headstart.core.errors import ConfigError
from headstart.objectives.critic import CriticObjective, between, frozen, gradient_penalty
from headstart.objectives.objective import Batch, Setup

__all__ = ["WDGRL"]


class WDGRL(CriticObjective):
    """The gap between a critic's means on both domains: made large by the critic, within its slope, and small by the features.

    Parameters
    ----------
    strength : float, at least 0
        Multiplies the features' part alone.
    penalty : float, at least 0
        Multiplies the penalty on the critic's slope.
    widths : sequence of int
        Of the critic's layers between.
    dropout : float in [0, 1)
        Of the critic's layers.
    spectral : bool
        Divide the critic's layers by their largest singular values; the penalty may then be 0.
    seed : int
        Of the critic's first weights.
    weight : float
        Multiplies everything.

    Raises
    ------
    ConfigError
        If an argument breaks its rule.

    Examples
    --------
    >>> objective = WDGRL(penalty=0.0, widths=())
    >>> objective.prepare(Setup(torch.nn.Module(), task=None, width=2))
    >>> _ = torch.nn.init.ones_(objective.critic.layers[0].weight)
    >>> objective(Batch(features=torch.ones(3, 2)), Batch(features=torch.zeros(4, 2)))          # -(1 + 1 - 0)
    tensor(-2., grad_fn=<MulBackward0>)
    """

    needs = frozenset({"features"})

    def __init__(
        self,
        strength: float = 1.0,
        penalty: float = 10.0,
        widths: Sequence[int] = (100,),
        dropout: float = 0.0,
        spectral: bool = False,
        seed: int = 0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.configure(strength, widths, dropout, spectral, seed)
        if not penalty >= 0:
            raise ConfigError(f"WDGRL: penalty is at least 0; got {penalty}.")
        self.penalty, self.weight = penalty, weight

    def prepare(self, setup: Setup) -> None:
        """Make the critic."""
        self.make_critic(setup, setup.known_width("WDGRL"))

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the critic's loss; its gradient at the features is that of the distance."""
        (other,) = self.chosen("target", source, target)
        source_nd, target_md = self.take(source, "features"), self.take(other, "features")
        features_bd, size = torch.cat([source_nd, target_md]), len(source_nd)
        critic = self.known_critic()
        told = -_gap(critic(features_bd.detach()), size)
        if self.penalty:
            points_bd = torch.cat([features_bd.detach(), between(source_nd, target_md).to(features_bd.dtype)])
            told = told + self.penalty * gradient_penalty(critic, points_bd)
        apart = self.strength * _gap(frozen(critic, features_bd), size)
        return self.weight * (told + (apart - apart.detach()))


def _gap(said_b1: Tensor, size: int) -> Tensor:
    """Return the critic's mean on the first rows minus that on the others."""
    return said_b1[:size].mean() - said_b1[size:].mean()
