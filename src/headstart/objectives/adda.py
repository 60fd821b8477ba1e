"""Adversarial discriminative adaptation: a second encoder, for the target, learns to be taken for the source's.

    critic:    min over c of  domain loss(c(g_source), c(f_target))              g: the encoder trained on source rows, at rest
    encoder:   min over f of  strength * mean -log s(c(f_target))                with the labels turned round; c is constant

Source: Tzeng, Hoffman, Saenko & Darrell, "Adversarial Discriminative Domain Adaptation", CVPR 2017 (arXiv:1702.05464), section 4.
Its authors' critic for digits has two layers of 500.
Use it on a network that has learned from source rows already, in two phases on one objective: first its own parameters train,
then the network's segments, on target rows alone; the heads rest. The encoder at rest is the network as it was before.
Its value is the critic's loss, and the encoder's where there are target rows alone.
It ignores labels, so nothing but its slow start keeps classes apart: take a small learning rate (the authors' is 0.0002). Where
the critic wins, the encoder's loss runs away and training stops, in words; ``spectral`` holds the critic back.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from headstart.objectives.critic import CriticObjective, domain_loss, frozen
from headstart.objectives.objective import Batch, Setup
from headstart.objectives.precision import full_precision, widen

__all__ = ["ADDA", "inverted_label_loss"]


@full_precision
def inverted_label_loss(said_m1: Tensor) -> Tensor:
    """Return how far target rows are from being taken for source rows.

    Parameters
    ----------
    said_m1 : Tensor of shape (m,) or (m, 1)
        What the critic says of target rows; above 0 means source. Half precision is computed in float32.

    Returns
    -------
    Tensor of shape ()
        Nats a row; at least 0.

    Examples
    --------
    >>> inverted_label_loss(torch.tensor([0.0, -100.0]))                         # (log 2 + 100) / 2
    tensor(50.3466)
    """
    return functional.softplus(-widen(said_m1)).mean()


class ADDA(CriticObjective):
    """The critic's loss for the critic, and `inverted_label_loss` for the encoder of the target.

    Parameters
    ----------
    strength : float, at least 0
        Multiplies the encoder's part alone.
    widths : sequence of int
        Of the critic's layers between.
    dropout : float in [0, 1)
        Of the critic's layers.
    spectral : bool
        Divide the critic's layers by their largest singular values.
    seed : int
        Of the critic's first weights.
    weight : float
        Multiplies both parts.

    Raises
    ------
    ConfigError
        If an argument breaks its rule.

    Examples
    --------
    >>> objective = ADDA(widths=())
    >>> objective.prepare(Setup(torch.nn.Module(), task=None, width=2))
    >>> _ = torch.nn.init.zeros_(objective.critic.layers[0].weight), torch.nn.init.zeros_(objective.critic.layers[0].bias)
    >>> objective(Batch(base_features=torch.ones(3, 2)), Batch(features=torch.zeros(4, 2))).item()
    0.6931471824645996
    """

    needs = frozenset({"features", "base_features"})

    def __init__(
        self,
        strength: float = 1.0,
        widths: Sequence[int] = (500, 500),
        dropout: float = 0.0,
        spectral: bool = False,
        seed: int = 0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.configure(strength, widths, dropout, spectral, seed)
        self.weight = weight

    def prepare(self, setup: Setup) -> None:
        """Make the critic."""
        self.make_critic(setup, setup.known_width("ADDA"))

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the critic's loss; its gradient at the target's features is that of the inverted labels."""
        (other,) = self.chosen("target", source, target)
        target_md, critic = self.take(other, "features"), self.known_critic()
        fooled = self.strength * inverted_label_loss(frozen(critic, target_md))
        if source.features is None and source.base_features is None:  # a phase of target rows alone
            return self.weight * fooled
        source_nd = self.take(source, "base_features").detach()
        said_b1 = critic(torch.cat([source_nd, target_md.detach()]))
        told = domain_loss(said_b1[: len(source_nd)], said_b1[len(source_nd) :])
        return self.weight * (told + (fooled - fooled.detach()))
