"""Source and target whose classes are not the same: unknown ones in the target, or absent ones.

    dance    loss(source) + weight * (entropy of neighbourhoods + separation of entropies); answers above rho are "unknown"
    partial  loss(source) with every class weighed by its share among the target's answers

Source: the objectives name their papers.
Use ``dance`` for open-set and universal adaptation, where it is not known which side has further classes; ``partial`` where the
target has some of the source's classes and no others.
They ignore how many unknown classes there are: all of them are one answer.
"""

from __future__ import annotations

from dataclasses import replace

from headstart.methods.adaptations.recipe import AdaptationRecipe, LossOf, joint
from headstart.objectives import ClassWeightedCrossEntropy, EntropySeparation, NeighbourhoodClustering
from headstart.training import Phase

__all__ = ["dance", "partial"]


def dance(loss: LossOf, *, weight: float = 0.05, temperature: float = 0.05, margin: float = 0.5) -> AdaptationRecipe:
    """Return the recipe of universal adaptation, whose model may answer "unknown".

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    weight : float
        Of either term.
    temperature : float
        Of the likeness between rows.
    margin : float
        Rows whose entropy is nearer to half of the largest are left alone.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> recipe = dance(lambda head: CrossEntropy(head=head))
    >>> [type(term).__name__ for term in recipe.objectives], recipe.unknown_above
    (['CrossEntropy', 'NeighbourhoodClustering', 'EntropySeparation'], 0.5)
    """
    terms = [NeighbourhoodClustering(temperature, weight=weight), EntropySeparation(margin, weight=weight)]
    return replace(joint(loss, terms), unknown_above=0.5)


def partial(loss: LossOf, *, momentum: float = 0.99) -> AdaptationRecipe:
    """Return the recipe that forgets source classes which do not occur in the target.

    Parameters
    ----------
    loss : callable
        Not called: the objective computes the cross-entropy itself, row by row.
    momentum : float in [0, 1)
        How much of the shares stays in each step.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> [type(term).__name__ for term in partial(lambda head: CrossEntropy(head=head)).objectives]
    ['ClassWeightedCrossEntropy']
    """
    return AdaptationRecipe((Phase((ClassWeightedCrossEntropy(momentum),)),))
