"""Recipes of what unlabelled target rows say of themselves, with their authors' weights.

    joint         loss(source) + weight * term(target)       entropy, mcc, bnm, infomax, vat, fixmatch, flexmatch,
                                                             self-training, co-training, mean-teacher, atdoc
    source-free   term(target), the head frozen              shot, nrc: the network has learned from source rows before
    few labels    loss(source and labelled target) + mme     mme: labelled target rows are a domain of the labelled stream

Sources stand in the objectives' files. `vat` is VADA without its critic: virtual adversarial loss of source rows with weight 1,
of target rows, and their entropy, with 0.01 each as there.
They ignore rates and lengths of training: a source-free network wants a small rate.
"""

from __future__ import annotations

from dataclasses import replace

from headstart.methods.adaptations.recipe import AdaptationRecipe, LossOf, joint
from headstart.objectives import (
    ATDOC,
    BNM,
    MCC,
    MME,
    NRC,
    SHOT,
    VAT,
    DeepCoTraining,
    Entropy,
    FixMatch,
    FlexMatch,
    InfoMax,
    MeanTeacher,
    Objective,
    SelfTraining,
)
from headstart.objectives.atdoc import Form
from headstart.training import Phase

__all__ = [
    "atdoc",
    "bnm",
    "co_training",
    "entropy",
    "fixmatch",
    "flexmatch",
    "infomax",
    "mcc",
    "mean_teacher",
    "mme",
    "nrc",
    "self_training",
    "shot",
    "vat",
]


def entropy(loss: LossOf, weight: float = 0.1) -> AdaptationRecipe:
    """Return entropy minimisation.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> entropy(lambda head: CrossEntropy(head=head)).objectives[1].weight
    0.1
    """
    return joint(loss, [Entropy(weight=weight)])


def mcc(loss: LossOf, temperature: float = 2.5, weight: float = 1.0) -> AdaptationRecipe:
    """Return minimum class confusion."""
    return joint(loss, [MCC(temperature=temperature, weight=weight)])


def bnm(loss: LossOf, fast: bool = False, weight: float = 1.0) -> AdaptationRecipe:
    """Return batch nuclear-norm maximisation, or its fast form."""
    return joint(loss, [BNM(fast=fast, weight=weight)])


def infomax(loss: LossOf, diversity: float = 1.0, weight: float = 1.0) -> AdaptationRecipe:
    """Return information maximisation beside the loss of source rows."""
    return joint(loss, [InfoMax(diversity=diversity, weight=weight)])


def shot(loss: LossOf, labels: float = 0.3, diversity: float = 1.0) -> AdaptationRecipe:
    """Return SHOT: the features learn from target rows alone, the head stays as source rows made it.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> recipe = shot(lambda head: CrossEntropy(head=head))
    >>> recipe.needs_source, recipe.phases[0].trains, recipe.phases[0].streams
    (False, ('segments',), ('target',))
    """
    del loss  # no labelled row is looked at
    return _source_free(SHOT(labels=labels, diversity=diversity))


def nrc(loss: LossOf, num_neighbours: int = 5, num_expanded: int = 5, diversity: float = 1.0) -> AdaptationRecipe:
    """Return neighbourhood reciprocity clustering: as `shot`, by the answers of neighbours."""
    del loss  # no labelled row is looked at
    return _source_free(NRC(num_neighbours=num_neighbours, num_expanded=num_expanded, diversity=diversity))


def vat(
    loss: LossOf,
    epsilon: float = 0.06,
    source_weight: float = 1.0,
    target_weight: float = 0.01,
    entropy_weight: float = 0.01,
) -> AdaptationRecipe:
    """Return virtual adversarial training of both domains with the entropy of target rows."""
    terms = [
        VAT(epsilon=epsilon, rows="source", weight=source_weight),
        VAT(epsilon=epsilon, rows="target", weight=target_weight),
        Entropy(weight=entropy_weight),
    ]
    return joint(loss, terms)


def fixmatch(loss: LossOf, threshold: float = 0.95, weight: float = 1.0) -> AdaptationRecipe:
    """Return FixMatch."""
    return joint(loss, [FixMatch(threshold=threshold, weight=weight)])


def flexmatch(loss: LossOf, threshold: float = 0.95, warm_up: bool = True, weight: float = 1.0) -> AdaptationRecipe:
    """Return FlexMatch, after the network has learned on the source: while it knows nothing, low thresholds let chance count.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> flexmatch(lambda head: CrossEntropy(head=head)).starts_trained
    True
    """
    term = FlexMatch(threshold=threshold, warm_up=warm_up, weight=weight)
    return replace(joint(loss, [term]), starts_trained=True)


def self_training(loss: LossOf, start: float = 0.2, end: float = 0.5, weight: float = 1.0) -> AdaptationRecipe:
    """Return class-balanced self-training."""
    return joint(loss, [SelfTraining(start=start, end=end, weight=weight)])


def co_training(
    loss: LossOf, threshold: float = 0.9, difference: float = 0.01, weight: float = 1.0
) -> AdaptationRecipe:
    """Return deep co-training of the heads ``"main"`` and ``"second"``.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> co_training(lambda head: CrossEntropy(head=head)).heads
    ('main', 'second')
    """
    return joint(loss, [DeepCoTraining(threshold=threshold, difference=difference, weight=weight)])


def mean_teacher(
    loss: LossOf, threshold: float = 0.968, ramp: float = 0.0, weight: float = 3.0, decay: float = 0.99
) -> AdaptationRecipe:
    """Return the mean teacher on target rows; the averaged network is what is kept."""
    recipe = joint(loss, [MeanTeacher(threshold=threshold, ramp=ramp, weight=weight)])
    return AdaptationRecipe(recipe.phases, recipe.heads, settings={"ema": decay})


def atdoc(loss: LossOf, form: Form = "neighbours", num_neighbours: int = 5, weight: float = 1.0) -> AdaptationRecipe:
    """Return ATDOC, by neighbours or by class centres."""
    return joint(loss, [ATDOC(form=form, num_neighbours=num_neighbours, weight=weight)])


def mme(loss: LossOf, weight: float = 0.1) -> AdaptationRecipe:
    """Return minimax entropy: labelled rows of both domains equally often, the head against the features on the others.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> dict(mme(lambda head: CrossEntropy(head=head)).settings)
    {'balance': 'domains'}
    """
    recipe = joint(loss, [MME(weight=weight)])
    return AdaptationRecipe(recipe.phases, recipe.heads, settings={"balance": "domains"})


def _source_free(term: Objective) -> AdaptationRecipe:
    phase = Phase((term,), trains=("segments",), name="adapt", streams=("target",))
    return AdaptationRecipe((phase,), needs_source=False)
