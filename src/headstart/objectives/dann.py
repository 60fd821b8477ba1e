"""Domain-adversarial training: a critic learns to tell the domains apart, the features learn that it cannot.

    L(critic, features) = domain loss(c(reverse(f_source)), c(reverse(f_target)))      min over the critic, max over the features
    strength of the reversal = strength * (2 / (1 + exp(-steepness p)) - 1)            p: the share of the training that is done
    several domains:      L = 1/K sum_k mean over the rows of domain k of -log softmax(c(reverse(f)))_k

Source: Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016 (arXiv:1505.07818), sections 4.2
and, for the schedule, 5.2: only the features' step is scheduled, the critic always learns at full strength. For several domains
Schoenauer-Sebag et al., "Multi-Domain Adversarial Learning", ICLR 2019 (arXiv:1903.09239), the critic's part; that each domain
counts alike, whatever its rows in the batch, is our reading. The paper's critics have one hidden layer of 100 for digits and two
of 1,024 for photographs; 256 and 256 lie between.
Use it where both domains have the same classes in about the same shares; add it to the source rows' own loss.
It ignores classes: features of one class may come to lie on those of another (see `CDAN`). Shares of classes that differ are
levelled by force.
Shapes: n source rows, m target rows, d features, K domains.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.checks import check_same_rows
from headstart.core.errors import ConfigError, ShapeError
from headstart.objectives.critic import CriticObjective, domain_loss, progress, reverse_gradient
from headstart.objectives.objective import Batch, Setup
from headstart.objectives.precision import full_precision, widen
from headstart.objectives.schedules import ramp

__all__ = ["DANN", "MultiDomainDANN", "multi_domain_loss"]


class DANN(CriticObjective):
    """The critic's loss on both domains' features, whose gradient is turned round before it reaches them.

    Parameters
    ----------
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
    seed : int
        Of the critic's first weights.
    weight : float
        Multiplies the term, for the critic too.

    Raises
    ------
    ConfigError
        If an argument breaks its rule.

    Examples
    --------
    >>> objective = DANN(widths=())
    >>> objective.prepare(Setup(torch.nn.Module(), task=None, width=2))
    >>> _ = torch.nn.init.zeros_(objective.critic.layers[0].weight), torch.nn.init.zeros_(objective.critic.layers[0].bias)
    >>> objective(Batch(features=torch.ones(3, 2)), Batch(features=torch.zeros(4, 2))).item()       # log 2: it knows nothing
    0.6931471824645996
    """

    needs = frozenset({"features"})

    def __init__(
        self,
        strength: float = 1.0,
        steepness: float = 10.0,
        widths: Sequence[int] = (256, 256),
        dropout: float = 0.0,
        spectral: bool = False,
        seed: int = 0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.configure(strength, widths, dropout, spectral, seed)
        self.steepness, self.weight = steepness, weight

    def prepare(self, setup: Setup) -> None:
        """Make the critic."""
        self.make_critic(setup, setup.known_width("DANN"))

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the critic's loss."""
        (other,) = self.chosen("target", source, target)
        source_nd, target_md = self.take(source, "features"), self.take(other, "features")
        strength = self.strength * ramp(progress(source, target), self.steepness)
        said_b1 = self.known_critic()(reverse_gradient(torch.cat([source_nd, target_md]), strength))
        return self.weight * domain_loss(said_b1[: len(source_nd)], said_b1[len(source_nd) :])


@full_precision
def multi_domain_loss(logits_bk: Tensor, domains_b: Tensor) -> Tensor:
    """Return how badly a critic names the domain of each row; every domain that occurs counts alike.

    Parameters
    ----------
    logits_bk : Tensor of shape (b, K)
        What the critic says. Half precision is computed in float32.
    domains_b : Tensor of shape (b,)
        int64 domain numbers, 0 to K - 1.

    Returns
    -------
    Tensor of shape ()
        Nats; log K where all logits are equal.

    Raises
    ------
    ShapeError
        If the shapes do not fit, or a domain has no output.

    Examples
    --------
    >>> multi_domain_loss(torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 50.0]]), torch.tensor([0, 0, 1]))     # (log 2 + 0) / 2
    tensor(0.3466)
    """
    check_same_rows("multi_domain_loss", "logits", logits_bk, "domains", domains_b)
    if len(domains_b) and int(domains_b.max()) >= logits_bk.shape[1]:
        raise ShapeError(
            f"multi_domain_loss: the critic knows {logits_bk.shape[1]} domains, but a row comes from number "
            f"{int(domains_b.max())}."
        )
    losses_b = functional.cross_entropy(widen(logits_bk), domains_b, reduction="none")
    counts_k = torch.bincount(domains_b, minlength=logits_bk.shape[1]).to(losses_b.dtype)
    return (losses_b / counts_k[domains_b]).sum() / (counts_k > 0).sum()


class MultiDomainDANN(CriticObjective):
    """The loss of a critic that names each row's domain, with the gradient to the features turned round.

    The domains are those of the labelled rows and, where there is a second stream, the target as one more. Without a second
    stream the features learn to be the same in all source domains, for a target not seen yet.

    Parameters
    ----------
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
    seed : int
        Of the critic's first weights.
    weight : float
        Multiplies the term, for the critic too.

    Raises
    ------
    ConfigError
        If an argument breaks its rule, or there is one domain only.

    Examples
    --------
    >>> objective = MultiDomainDANN(widths=())
    >>> objective.prepare(Setup(torch.nn.Module(), task=None, width=2, num_domains=2, num_target=9))
    >>> objective.critic.layers[0].out_features                                # two sources and the target
    3
    """

    needs = frozenset({"features", "domains"})

    def __init__(
        self,
        strength: float = 1.0,
        steepness: float = 10.0,
        widths: Sequence[int] = (256, 256),
        dropout: float = 0.0,
        spectral: bool = False,
        seed: int = 0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.configure(strength, widths, dropout, spectral, seed)
        self.steepness, self.weight = steepness, weight

    def prepare(self, setup: Setup) -> None:
        """Make the critic, with an output for each domain."""
        num_domains = setup.num_domains + (setup.num_target > 0)
        if num_domains < 2:
            raise ConfigError(
                "MultiDomainDANN: needs rows of two domains at least; say which domain each row comes from, or give target rows."
            )
        self._num_sources = setup.num_domains
        self.make_critic(setup, setup.known_width("MultiDomainDANN"), num_domains)

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the critic's loss."""
        features_bd, domains_b = self.take(source, "features"), self.take(source, "domains")
        critic = self.known_critic()
        if target is not None:
            others_md = self.take(target, "features")
            features_bd = torch.cat([features_bd, others_md])
            domains_b = torch.cat([domains_b, domains_b.new_full((len(others_md),), self._num_sources)])
        strength = self.strength * ramp(progress(source, target), self.steepness)
        return self.weight * multi_domain_loss(critic(reverse_gradient(features_bd, strength)), domains_b)
