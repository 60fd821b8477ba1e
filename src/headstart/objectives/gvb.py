"""Gradually vanishing bridges: critic and classifier each get a side way for what the domains do not share, and lose it again.

    g = softmax(logits - B(f))                           B: a linear bridge on the features, of the objective's own
    L = domain loss(a(reverse(g)) - z(reverse(g)), w) + features_bridge * mean |B(f)| + critic_bridge * mean |z(reverse(g))|
    w_i = exp(-H(g_i)) over its mean in its domain                  a, z: two outputs of one critic, z its bridge

Source: Cui, Wang, Zhuo, Su, Huang & Tian, "Gradually Vanishing Bridge for Adversarial Domain Adaptation", CVPR 2020
(arXiv:2003.13183), section 3 and the authors' program: both bridges weigh 1, the schedule is that of `DANN`. Our readings: the
classifier that predicts, and the source rows' own loss, are without the bridge, as if it had vanished already; the weights
carry no gradient.
Use it instead of `CDAN` with many classes: the critic sees k numbers a row and not d k.
It ignores features that the classifier does not look at.
Shapes: n source rows, m target rows, b rows in all, d features, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.errors import ConfigError
from headstart.objectives.cdan import certainty_weights
from headstart.objectives.critic import CriticObjective, device_of, domain_loss, num_classes, progress, reverse_gradient
from headstart.objectives.feature_mapping import seeded_linear
from headstart.objectives.objective import Batch, Setup
from headstart.objectives.precision import full_precision, widen
from headstart.objectives.schedules import ramp

__all__ = ["GVB"]


class GVB(CriticObjective):
    """The loss of a critic of predictions, with a bridge on either side and the gradient to the network turned round.

    Parameters
    ----------
    features_bridge : float, at least 0
        Multiplies the size of the features' bridge.
    critic_bridge : float, at least 0
        Multiplies the size of the critic's bridge.
    strength : float, at least 0
        What the reversal rises to.
    steepness : float, above 0
        How early it rises.
    widths : sequence of int
        Of the critic's layers between.
    dropout : float in [0, 1)
        Of the critic's layers.
    spectral : bool
        Divide the critic's layers by their largest singular values.
    head : str
        Name of the classifier.
    seed : int
        Of the first weights of the critic and of the bridge.
    weight : float
        Multiplies everything.

    Raises
    ------
    ConfigError
        If an argument breaks its rule, or the task has no classes.

    Examples
    --------
    >>> from headstart.core.tasks import Task
    >>> objective = GVB(widths=())
    >>> objective.prepare(Setup(torch.nn.Module(), Task("classification", ("a", "b")), width=5))
    >>> objective.bridge.weight.shape, objective.critic.layers[0].weight.shape
    (torch.Size([2, 5]), torch.Size([2, 2]))
    """

    needs = frozenset({"features", "logits"})
    reads_classes = True

    def __init__(
        self,
        features_bridge: float = 1.0,
        critic_bridge: float = 1.0,
        strength: float = 1.0,
        steepness: float = 10.0,
        widths: Sequence[int] = (256, 256),
        dropout: float = 0.0,
        spectral: bool = False,
        head: str = "main",
        seed: int = 0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.configure(strength, widths, dropout, spectral, seed)
        if not min(features_bridge, critic_bridge) >= 0:
            raise ConfigError(f"GVB: bridges weigh at least 0; got {features_bridge} and {critic_bridge}.")
        self.features_bridge, self.critic_bridge = features_bridge, critic_bridge
        self.steepness, self.head, self.weight = steepness, head, weight

    def prepare(self, setup: Setup) -> None:
        """Make the critic and the bridge."""
        width, classes = setup.known_width("GVB"), num_classes("GVB", setup)
        self.make_critic(setup, classes, 2)
        self.bridge = seeded_linear(width, classes, self.seed).to(device_of(setup))

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the critic's loss and the sizes of both bridges."""
        (other,) = self.chosen("target", source, target)
        critic = self.known_critic()
        source_nk, target_mk = self.take_logits(source, self.head), self.take_logits(other, self.head)
        features_bd = torch.cat([self.take(source, "features"), self.take(other, "features")])
        bridge_bk = _bridge(features_bd, self.bridge.weight)
        crossed_bk = widen(torch.cat([source_nk, target_mk])) - bridge_bk
        strength = self.strength * ramp(progress(source, target), self.steepness)
        said_b2 = critic(reverse_gradient(functional.softmax(crossed_bk, dim=1), strength))
        told_b, size = said_b2[:, 0] - said_b2[:, 1], len(source_nk)
        loss = domain_loss(
            told_b[:size],
            told_b[size:],
            certainty_weights(crossed_bk[:size], least=0.0),
            certainty_weights(crossed_bk[size:], least=0.0),
        )
        bridges: Tensor = (
            self.features_bridge * bridge_bk.abs().mean() + self.critic_bridge * said_b2[:, 1].abs().mean()
        )
        return self.weight * (loss + bridges)


@full_precision
def _bridge(features_bd: Tensor, weight_kd: Tensor) -> Tensor:
    return widen(features_bd).to(weight_kd.dtype) @ weight_kd.T
