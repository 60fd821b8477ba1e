"""MDAN: every source has a critic of its own against the target, and the hardest source counts most.

    loss = 1/gamma log sum_e exp( gamma (R_e + critic_weight * d_e) )

R_e: risk of source e; d_e: how badly its critic tells its features from the target's, with the gradient to the features reversed.

Source: Zhao et al., "Adversarial Multiple Source Domain Adaptation", NeurIPS 2018 (arXiv:1705.09684), section 4, the smoothed
version; gamma = 10 and a weight of 0.01 on the sum of both domains' losses are those of the published program. Here a critic's
loss is the mean of the two, hence 0.02: little, so that much training is needed before the critics matter.
Use it in place of the task's loss, where labelled rows come from several domains of which some are farther from the target.
Of several processes each sees the rows of all, in the risks and in the critics: value and gradients are those of one process.
It ignores classes in the critics, as `DANN` does. Its derivative weighs the sources by the softmax of gamma times their loss.
Shapes: b source rows, m target rows, d features, e source domains that occur.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from headstart.core.errors import ConfigError
from headstart.core.seeds import derive_seed
from headstart.objectives.critic import Critic, device_of, domain_loss, reverse_gradient
from headstart.objectives.domain_risks import DomainRisks, domain_risks, domains_present
from headstart.objectives.objective import Batch, Setup, check_positive
from headstart.objectives.precision import widen

__all__ = ["MDAN", "smoothed_maximum"]


def smoothed_maximum(losses_e: Tensor, gamma: float) -> Tensor:
    """Return the logarithm of the sum of exponentials of ``gamma`` times some losses, over ``gamma``.

    Parameters
    ----------
    losses_e : Tensor of shape (e,)
        One a domain.
    gamma : float
        The larger, the nearer to the largest loss.

    Returns
    -------
    Tensor of shape ()
        Between the largest loss and that plus log(e) / gamma.

    Examples
    --------
    >>> smoothed_maximum(torch.zeros(2), 1.0)                        # log 2
    tensor(0.6931)
    """
    return torch.logsumexp(gamma * losses_e, 0) / gamma


class MDAN(DomainRisks):
    """The smoothed maximum of the sources' losses, each with its critic's; stands in place of the task's own loss.

    Parameters
    ----------
    gamma : float
        How much more the hardest source counts.
    critic_weight : float
        Of the critics' losses.
    widths : sequence of int
        Of each critic's layers between.
    seed : int
        Of the critics' first weights.
    head : str
        Name of the head that answers.
    weight : float
        Multiplies the term, for the critics too.

    Raises
    ------
    ConfigError
        If a number is not above 0.

    Examples
    --------
    >>> from headstart.core.tasks import Task
    >>> term = MDAN()
    >>> term.prepare(Setup(nn.Identity(), Task("classification", ("a", "b")), width=3, num_domains=2))
    >>> len(term.critics)
    2
    """

    needs = frozenset({"labels", "logits", "features", "domains"})

    def __init__(
        self,
        gamma: float = 10.0,
        critic_weight: float = 0.02,
        widths: Sequence[int] = (256, 256),
        seed: int = 0,
        head: str = "main",
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        for name, value in (("gamma", gamma), ("critic_weight", critic_weight)):
            check_positive("MDAN", name, value)
        self.gamma, self.critic_weight, self.widths = gamma, critic_weight, tuple(widths)
        self.seed, self.head, self.weight = seed, head, weight
        self.critics = nn.ModuleList()

    def prepare(self, setup: Setup) -> None:
        """Take the task's loss, and make a critic for each source domain."""
        super().prepare(setup)
        width = setup.known_width("MDAN")
        seeds = [derive_seed(self.seed, "critic", number) for number in range(setup.num_domains)]
        self.critics = nn.ModuleList(Critic(width, widths=self.widths, seed=seed) for seed in seeds).to(
            device_of(setup)
        )

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the smoothed maximum.

        Raises
        ------
        ConfigError
            If there is no target, or a row comes from a domain that was not there at the start.
        """
        (other,) = self.chosen("target", source, target)
        logits_bk, labels, domains = self.rows(source)
        here_bd = widen(self.take(source, "features"))
        (source_bd,) = self.together.whole(reverse_gradient(here_bd))
        (target_md,) = self.together.whole(reverse_gradient(widen(self.take(other, "features"))), beside=here_bd)
        losses = []
        for number, mask in domains_present(source_bd, domains):
            if number >= len(self.critics):
                raise ConfigError(
                    f"MDAN: has {len(self.critics)} critics, but a row comes from domain {number}; call prepare before the "
                    "first step, with rows of every domain."
                )
            critic = self.critics[number]
            losses.append(domain_loss(critic(source_bd[mask]), critic(target_md)))
        risks_e = domain_risks(logits_bk, labels, domains, self.task_loss)
        return self.weight * smoothed_maximum(risks_e + self.critic_weight * torch.stack(losses), self.gamma)
