"""Several labelled sources and one target without labels.

    m3sda  loss(source) + weight * distance of the moments of all domains
    mdan   smoothed maximum over sources of loss_e + a critic's loss against the target

Source: the objectives `M3SDA` and `MDAN` name their papers.
Use them where the sources differ among each other; where they do not, they are one source, and any other recipe serves.
They ignore how many rows a source has: every domain is equally often in a batch.
"""

from __future__ import annotations

from dataclasses import replace

from headstart.methods.adaptations.recipe import AdaptationRecipe, LossOf, joint
from headstart.objectives import M3SDA, MDAN
from headstart.training import Phase

__all__ = ["m3sda", "mdan"]

_BALANCED = {"balance": "domains"}


def m3sda(loss: LossOf, *, weight: float = 0.125, num_moments: int = 2) -> AdaptationRecipe:
    """Return the recipe that brings the moments of every source and the target together.

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    weight : float
        Of the distance. Dassl, a public program, takes half of the mean over both moments and over all pairs of domains: with
        three sources an eighth of the sum here. The authors' program weighs less: 0.0005, of sums over pairs and five moments.
    num_moments : int
        Powers 1 to this.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> m3sda(lambda head: CrossEntropy(head=head)).objectives[1]
    M3SDA(num_moments=2, weight=0.125)
    """
    return replace(joint(loss, [M3SDA(num_moments, weight)]), settings=_BALANCED)


def mdan(loss: LossOf, *, gamma: float = 10.0, critic_weight: float = 0.02, seed: int = 0) -> AdaptationRecipe:
    """Return the recipe in which each source has a critic against the target, and the hardest source counts most.

    Parameters
    ----------
    loss : callable
        Not called: the objective computes the task's plain loss itself, source by source.
    gamma : float
        How much more the hardest source counts.
    critic_weight : float
        Of the critics' losses.
    seed : int
        Of the critics' first weights.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> [type(term).__name__ for term in mdan(lambda head: CrossEntropy(head=head)).objectives]
    ['MDAN']
    """
    return AdaptationRecipe((Phase((MDAN(gamma, critic_weight, seed=seed),)),), settings=_BALANCED)
