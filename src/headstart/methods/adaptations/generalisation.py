"""Domain generalisation: several labelled source domains, and no target at all.

    erm       loss(source), every domain equally often
    dg_coral  loss + weight * mean over pairs of domains of the covariance distance
    groupdro  sum_e q_e loss_e, where domains of large loss gain weight
    irm       loss + weight * mean_e (slope of loss_e by the scale of the logits)^2
    vrex      loss + weight * variance of loss_e
    mixstyle  loss(source), the style of rows mixed inside the network

Source: Gulrajani & Lopez-Paz, "In Search of Lost Domain Generalization", ICLR 2021 (arXiv:2007.01434), for the common protocol
and the default weights (appendix, table of hyperparameters); each objective names its own paper.
Use them where rows say which domain they are from and the domain that matters is not there yet.
Tuned well, ``erm`` is hard to beat.
They ignore rows without labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headstart.methods.adaptations.recipe import AdaptationRecipe, LossOf, joint
from headstart.objectives import IRM, DomainCORAL, GroupDRO, MixStyle, Objective, VREx
from headstart.training import Phase

__all__ = ["dg_coral", "erm", "groupdro", "irm", "mixstyle", "vrex"]

_BALANCED = {"balance": "domains"}
_PENALTY_START = 0.1  # 500 of 5,000 steps in the published benchmark


def _balanced(loss: LossOf, terms: Sequence[Objective]) -> AdaptationRecipe:
    return replace(joint(loss, terms), settings=_BALANCED)


def erm(loss: LossOf) -> AdaptationRecipe:
    """Return the recipe of the task's loss alone, with every source domain equally often in a batch.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> erm(lambda head: CrossEntropy(head=head)).settings
    {'balance': 'domains'}
    """
    return _balanced(loss, [])


def dg_coral(loss: LossOf, *, weight: float = 4.0) -> AdaptationRecipe:
    """Return the recipe that brings the covariances of the source domains' features together.

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    weight : float
        Of the distance; 4 is the published 1, see `headstart.objectives.domain_coral`.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> [type(term).__name__ for term in dg_coral(lambda head: CrossEntropy(head=head)).objectives]
    ['CrossEntropy', 'DomainCORAL']
    """
    return _balanced(loss, [DomainCORAL(weight)])


def groupdro(loss: LossOf, *, step: float = 0.01) -> AdaptationRecipe:
    """Return the recipe in which the domain with the largest loss counts most.

    Parameters
    ----------
    loss : callable
        Not called: the objective computes the task's plain loss itself, domain by domain.
    step : float
        How fast weights move.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> [type(term).__name__ for term in groupdro(lambda head: CrossEntropy(head=head)).objectives]
    ['GroupDRO']
    """
    return AdaptationRecipe((Phase((GroupDRO(step),)),), settings=_BALANCED)


def irm(loss: LossOf, *, weight: float = 100.0, start: float = _PENALTY_START) -> AdaptationRecipe:
    """Return the recipe of invariant risk minimisation (IRMv1).

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    weight : float
        Of the penalty.
    start : float in [0, 1)
        Share of the training before which there is none.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> irm(lambda head: CrossEntropy(head=head)).objectives[1]
    IRM(start=0.1, head='main', weight=100.0)
    """
    return _balanced(loss, [IRM(start, weight=weight)])


def vrex(loss: LossOf, *, weight: float = 10.0, start: float = _PENALTY_START) -> AdaptationRecipe:
    """Return the recipe in which the risks of all source domains become the same.

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    weight : float
        Of the variance.
    start : float in [0, 1)
        Share of the training before which there is none.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> vrex(lambda head: CrossEntropy(head=head)).objectives[1]
    VREx(start=0.1, head='main', weight=10.0)
    """
    return _balanced(loss, [VREx(start, weight=weight)])


def mixstyle(loss: LossOf, *, probability: float = 0.5, alpha: float = 0.1) -> AdaptationRecipe:
    """Return the recipe that mixes the style of rows inside the network while it trains.

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    probability : float in [0, 1]
        Of a batch to be mixed.
    alpha : float
        Of the Beta distribution of the shares.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> mixstyle(lambda head: CrossEntropy(head=head)).objectives[1]
    MixStyle(segments=None, probability=0.5, alpha=0.1)
    """
    return _balanced(loss, [MixStyle(probability=probability, alpha=alpha)])
