"""Domain confusion: the critic learns the domains, the features learn to make it say one half of every row.

    critic:     min over c of  domain loss(c(f_source), c(f_target))                              features are constants
    features:   min over f of  strength * 1/2 sum over domains of mean -1/2 [log s(c(f)) + log(1 - s(c(f)))]   c is constant
    s(z) = 1 / (1 + exp(-z))

Source: Tzeng, Hoffman, Darrell & Saenko, "Simultaneous Deep Transfer Across Domains and Tasks", ICCV 2015 (arXiv:1510.02192),
the domain confusion loss: the cross-entropy to the uniform distribution over domains. With two domains a softmax over two outputs
is a sigmoid of one. The paper's critic is one linear layer, and its strength 0.01; that each domain counts alike is our reading,
which a published reimplementation shares (s-chh/PyTorch-MDC, with two layers of 500 in the critic).
Use it as two phases on one objective: in the first only the objective's own parameters train, in the second the network's. In a
phase that trains both, both learn at once. Its value is the critic's loss.
It ignores classes, as `DANN` does; its pull on the features fades where the critic is sure, as does its gradient.
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

__all__ = ["DomainConfusion", "confusion_loss"]


@full_precision
def confusion_loss(said_b1: Tensor) -> Tensor:
    """Return how far a critic is from being undecided: the cross-entropy from one half to what it says.

    Parameters
    ----------
    said_b1 : Tensor of shape (b,) or (b, 1)
        What the critic says of each row; 0 is undecided. Half precision is computed in float32.

    Returns
    -------
    Tensor of shape ()
        Nats a row; log 2 at its least.

    Examples
    --------
    >>> confusion_loss(torch.zeros(2))
    tensor(0.6931)
    >>> confusion_loss(torch.tensor([100.0]))                                    # (0 + 100) / 2
    tensor(50.)
    """
    said_b1 = widen(said_b1)
    return (functional.softplus(said_b1) + functional.softplus(-said_b1)).mean() / 2


class DomainConfusion(CriticObjective):
    """The critic's loss for the critic, and `confusion_loss` for the features.

    Parameters
    ----------
    strength : float, at least 0
        Multiplies the features' part alone.
    widths : sequence of int
        Of the critic's layers between; none in the paper.
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
    >>> objective = DomainConfusion(widths=())
    >>> objective.prepare(Setup(torch.nn.Module(), task=None, width=2))
    >>> _ = torch.nn.init.zeros_(objective.critic.layers[0].weight), torch.nn.init.zeros_(objective.critic.layers[0].bias)
    >>> objective(Batch(features=torch.ones(3, 2)), Batch(features=torch.zeros(4, 2))).item()       # log 2: it knows nothing
    0.6931471824645996
    """

    needs = frozenset({"features"})

    def __init__(
        self,
        strength: float = 0.01,
        widths: Sequence[int] = (),
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
        self.make_critic(setup, setup.known_width("DomainConfusion"))

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the critic's loss; its gradient at the features is that of the confusion."""
        (other,) = self.chosen("target", source, target)
        features_bd = torch.cat([self.take(source, "features"), self.take(other, "features")])
        critic, size = self.known_critic(), len(self.take(source, "features"))
        said_b1 = critic(features_bd.detach())
        confused_b1 = frozen(critic, features_bd)
        confusion = self.strength * (confusion_loss(confused_b1[:size]) + confusion_loss(confused_b1[size:])) / 2
        return self.weight * (domain_loss(said_b1[:size], said_b1[size:]) + (confusion - confusion.detach()))
