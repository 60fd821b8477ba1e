"""Moment matching: the task's loss on source rows, and a distance of the two domains' features that is made small along.

    dan, jan, dsan         means under kernels: of each layer, of layers together, of each class
    deep_coral, homm, cmd  covariances, moments of a higher order, central moments of every feature
    deep_jdot              target rows learn from the source rows that optimal transport gives them
    swd                    two classifiers disagree on target rows as far as they can, and the features make them agree
    afn                    features grow longer
    domain_distance        any differentiable distance by its name

Source: each objective names its paper; weights and schedules here are the papers', and what is not is said.
Use them where both domains have the same classes in about the same shares and look different.
They ignore that class shares may differ: features are then brought together that belong to different classes.
"""

from __future__ import annotations

from typing import Literal

from headstart.methods.adaptations.recipe import AdaptationRecipe, LossOf, joint
from headstart.objectives import AFN, CMD, CORAL, DAN, DSAN, JAN, SWD, DeepJDOT, DomainDistance, HoMM
from headstart.training import Phase

__all__ = ["afn", "cmd", "dan", "deep_coral", "deep_jdot", "domain_distance", "dsan", "homm", "jan", "swd"]


def dan(loss: LossOf, *, weight: float = 1.0, linear: bool = False) -> AdaptationRecipe:
    """Return the recipe of multi-kernel mean matching on features and logits.

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    weight : float
        Of the discrepancy.
    linear : bool
        From pairs of rows, as in the paper, instead of all pairs, which is as cheap for a batch and less noisy.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> [type(term).__name__ for term in dan(lambda head: CrossEntropy(head=head)).objectives]
    ['CrossEntropy', 'DAN']
    """
    return joint(loss, [DAN(linear=linear, weight=weight)])


def jan(loss: LossOf, *, weight: float = 1.0, linear: bool = False) -> AdaptationRecipe:
    """Return the recipe of joint mean matching of features and softmax outputs, which rises while training goes on.

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    weight : float
        Of the discrepancy.
    linear : bool
        From neighbouring pairs of rows instead of all pairs.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> [type(term).__name__ for term in jan(lambda head: CrossEntropy(head=head)).objectives]
    ['CrossEntropy', 'JAN']
    """
    return joint(loss, [JAN(linear=linear, weight=weight)])


def dsan(loss: LossOf, *, weight: float = 0.5) -> AdaptationRecipe:
    """Return the recipe of mean matching class by class, which rises while training goes on.

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    weight : float
        Of the discrepancy. Its authors' 0.5 is of the sum of five kernels, which is 2.5 of their mean: that much made small
        networks, trained from the start, give all rows one answer.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> [type(term).__name__ for term in dsan(lambda head: CrossEntropy(head=head)).objectives]
    ['CrossEntropy', 'DSAN']
    """
    return joint(loss, [DSAN(weight=weight)])


def deep_coral(loss: LossOf, *, weight: float = 1.0, layer: str = "logits") -> AdaptationRecipe:
    """Return the recipe of covariance matching, on the outputs of the last layer.

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    weight : float
        Of the distance. The paper says only that both losses should be about equal in the end.
    layer : str
        ``"logits"`` as in the paper, or ``"features"``.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> [type(term).__name__ for term in deep_coral(lambda head: CrossEntropy(head=head)).objectives]
    ['CrossEntropy', 'CORAL']
    """
    return joint(loss, [CORAL(layer, weight)])


def homm(loss: LossOf, *, order: int = 3, weight: float | None = None, num_moments: int = 0) -> AdaptationRecipe:
    """Return the recipe of matching all moments of one order.

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    order : int
        3 or 4, as in the paper; any other needs a weight.
    weight : float, optional
        Of the difference; left out, the paper's: 1e4 for order 3 and 1e7 for order 4.
    num_moments : int
        How many moments are drawn in every step; 0: all of them.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> homm(lambda head: CrossEntropy(head=head), order=4).objectives[1].weight
    10000000.0
    """
    chosen = {3: 1e4, 4: 1e7}.get(order, 1.0) if weight is None else weight
    return joint(loss, [HoMM(order, num_moments, weight=chosen)])


def cmd(loss: LossOf, *, weight: float = 0.3, num_moments: int = 5) -> AdaptationRecipe:
    """Return the recipe of matching means and central moments of every feature.

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    weight : float
        Of the discrepancy. The paper's 1 is for activations in [0, 1]; where features have no bounds it may turn classes over.
    num_moments : int
        Up to which order.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> [type(term).__name__ for term in cmd(lambda head: CrossEntropy(head=head)).objectives]
    ['CrossEntropy', 'CMD']
    """
    return joint(loss, [CMD(num_moments, weight=weight)])


def deep_jdot(loss: LossOf, *, feature_cost: float = 0.001, label_cost: float = 0.0001) -> AdaptationRecipe:
    """Return the recipe in which target rows learn from the source rows they are carried to.

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    feature_cost : float
        Of a squared distance of features.
    label_cost : float
        Of a nat of a label's surprise at a target row's answer.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> [type(term).__name__ for term in deep_jdot(lambda head: CrossEntropy(head=head)).objectives]
    ['CrossEntropy', 'DeepJDOT']
    """
    return joint(loss, [DeepJDOT(feature_cost, label_cost)])


def swd(loss: LossOf, *, num_directions: int = 128, repeats: int = 1) -> AdaptationRecipe:
    """Return the recipe of two classifiers that disagree as far as they can, by the sliced Wasserstein discrepancy.

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    num_directions : int
        Of the discrepancy, drawn anew in every step.
    repeats : int
        How often the features take a step towards agreement.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> recipe = swd(lambda head: CrossEntropy(head=head))
    >>> [phase.name for phase in recipe.phases], recipe.heads
    (['learn', 'disagree', 'agree'], ('main', 'second'))
    """
    losses = (loss("main"), loss("second"))
    apart, together = (SWD(num_directions=num_directions, weight=weight) for weight in (-1.0, 1.0))
    return AdaptationRecipe(
        (
            Phase(losses, name="learn", streams=("source",)),
            Phase((*losses, apart), trains=("heads",), name="disagree"),
            Phase((together,), trains=("segments",), repeats=repeats, name="agree", streams=("target",)),
        ),
        heads=("main", "second"),
    )


def afn(
    loss: LossOf,
    *,
    form: Literal["stepwise", "hard"] = "stepwise",
    step: float = 1.0,
    radius: float = 25.0,
    weight: float = 0.05,
) -> AdaptationRecipe:
    """Return the recipe in which the features of both domains grow longer.

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    form : {"stepwise", "hard"}
        By a step more than now, or to one length for all.
    step, radius : float
        Of the one form and the other.
    weight : float
        Of the feature norm.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> [type(term).__name__ for term in afn(lambda head: CrossEntropy(head=head)).objectives]
    ['CrossEntropy', 'AFN']
    """
    return joint(loss, [AFN(form, step, radius, weight=weight)])


def domain_distance(
    loss: LossOf,
    *,
    distance: str = "sliced-wasserstein",
    layer: str = "features",
    rise: float = 0.0,
    weight: float = 1.0,
) -> AdaptationRecipe:
    """Return the recipe of any differentiable distance of the domains: ``L_source + weight * D``.

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    distance : str
        Its name, as `headstart.objectives.DomainDistance` takes it.
    layer : str
        ``"features"``, ``"logits"``, ``"probabilities"`` or ``"segments.NAME"``.
    rise : float
        Steepness of the factor that rises from 0 to 1 while training goes on; 0: in full from the start.
    weight : float
        Of the distance.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> domain_distance(lambda head: CrossEntropy(head=head), distance="energy").objectives[1].distance
    'energy'
    """
    return joint(loss, [DomainDistance(distance, layer, rise=rise, weight=weight)])
