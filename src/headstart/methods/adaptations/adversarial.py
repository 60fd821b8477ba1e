"""Recipes in which the features learn against a critic or a second classifier.

    one phase      dann, multi-domain-dann, cdan, cdan-e, mdd, gvb, pada, osbp:     loss(source) + weight * term
    two phases     domain-confusion, adda, wdgrl:     the critic learns, the network rests; the network learns, the critic rests
    three phases   mcd:     everything on source rows; the heads disagree on target rows; the segments make them agree

Source: of each method, in the module of its objective; Saito et al., CVPR 2018 (arXiv:1712.02560), for mcd, whose authors repeat
the last phase four times. Critics learn ten times as fast as the pretrained network, as with the authors of dann, cdan, mdd, gvb
and pada, and by our choice in osbp and domain-confusion; in adda and wdgrl both learn at the same rate, as with theirs (wdgrl's
authors let the critic learn faster on features of photographs alone).
Use them by name; options are those of the objective.
They ignore which part of the network trains, which the strategy decides.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from headstart.core.errors import ConfigError, did_you_mean
from headstart.methods.adaptations.recipe import AdaptationRecipe, LossOf, joint
from headstart.objectives import (
    ADDA,
    CDAN,
    DANN,
    GVB,
    MDD,
    OSBP,
    PADA,
    WDGRL,
    ClassifierDiscrepancy,
    DomainConfusion,
    MultiDomainDANN,
    Objective,
)
from headstart.training import Phase

__all__ = [
    "adda",
    "cdan",
    "cdan_e",
    "dann",
    "domain_confusion",
    "gvb",
    "mcd",
    "mdd",
    "multi_domain_dann",
    "osbp",
    "pada",
    "wdgrl",
]

_FAST = 10.0  # a critic's rate over that of a pretrained network


def dann(loss: LossOf, **options: Any) -> AdaptationRecipe:
    """Return the recipe of `DANN`.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> recipe = dann(lambda head: CrossEntropy(head=head), strength=0.5)
    >>> [type(term).__name__ for term in recipe.objectives], recipe.own_rate
    (['CrossEntropy', 'DANN'], 10.0)
    """
    return _one_phase(loss, _made(DANN, "dann", options))


def multi_domain_dann(loss: LossOf, **options: Any) -> AdaptationRecipe:
    """Return the recipe of `MultiDomainDANN`.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> len(multi_domain_dann(lambda head: CrossEntropy(head=head)).phases)
    1
    """
    return _one_phase(loss, _made(MultiDomainDANN, "multi-domain-dann", options))


def cdan(loss: LossOf, **options: Any) -> AdaptationRecipe:
    """Return the recipe of `CDAN`.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> cdan(lambda head: CrossEntropy(head=head)).objectives[1].entropy
    False
    """
    return _one_phase(loss, _made(CDAN, "cdan", options))


def cdan_e(loss: LossOf, **options: Any) -> AdaptationRecipe:
    """Return the recipe of `CDAN` with weights by entropy.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> cdan_e(lambda head: CrossEntropy(head=head)).objectives[1].entropy
    True
    """
    return _one_phase(loss, _made(CDAN, "cdan-e", {"entropy": True} | options))


def mdd(loss: LossOf, **options: Any) -> AdaptationRecipe:
    """Return the recipe of `MDD`.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> mdd(lambda head: CrossEntropy(head=head)).objectives[1].margin
    4.0
    """
    return _one_phase(loss, _made(MDD, "mdd", options))


def gvb(loss: LossOf, **options: Any) -> AdaptationRecipe:
    """Return the recipe of `GVB`.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> gvb(lambda head: CrossEntropy(head=head)).objectives[1].features_bridge
    1.0
    """
    return _one_phase(loss, _made(GVB, "gvb", options))


def pada(loss: LossOf, **options: Any) -> AdaptationRecipe:
    """Return the recipe of `PADA`, after the task's loss on source rows alone.

    In the authors' program all classes count alike at first, and are counted when the classifier has learned for a while.
    Weighed by a classifier that knows nothing yet, classes are lost by chance and stay lost.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> recipe = pada(lambda head: CrossEntropy(head=head))
    >>> [type(term).__name__ for term in recipe.objectives], recipe.starts_trained
    (['CrossEntropy', 'PADA'], True)
    """
    return replace(_one_phase(loss, _made(PADA, "pada", options)), starts_trained=True)


def osbp(loss: LossOf, **options: Any) -> AdaptationRecipe:
    """Return the recipe of `OSBP`, whose model may answer "unknown".

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> osbp(lambda head: CrossEntropy(head=head)).objectives[1].boundary
    0.5
    """
    return _one_phase(loss, _made(OSBP, "osbp", options))


def domain_confusion(loss: LossOf, **options: Any) -> AdaptationRecipe:
    """Return the recipe of `DomainConfusion`: the critic's step, then the network's.

    The paper begins with a network that has learned on the source; here both begin at once.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> [phase.name for phase in domain_confusion(lambda head: CrossEntropy(head=head)).phases]
    ['critic', 'features']
    """
    return _two_phases(loss, _made(DomainConfusion, "domain-confusion", options), 1, _FAST)


def wdgrl(loss: LossOf, *, repeats: int = 5, **options: Any) -> AdaptationRecipe:
    """Return the recipe of `WDGRL`: the critic's step, repeated, then the network's.

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    repeats : int
        Steps of the critic for one of the network.
    **options
        Of `WDGRL`.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> [phase.repeats for phase in wdgrl(lambda head: CrossEntropy(head=head)).phases]
    [5, 1]
    """
    return _two_phases(loss, _made(WDGRL, "wdgrl", options), repeats, 1.0)


def adda(loss: LossOf, **options: Any) -> AdaptationRecipe:
    """Return the recipe of `ADDA`: after the network has learned on the source, the critic's step, then the target encoder's.

    The heads stay as they are, so the task's loss is not among the terms.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> recipe = adda(lambda head: CrossEntropy(head=head))
    >>> recipe.starts_trained, [phase.trains for phase in recipe.phases]
    (True, [('objectives',), ('segments',)])
    """
    term = _made(ADDA, "adda", options)
    critic = Phase((term,), trains=("objectives",), name="critic")
    encoder = Phase((term,), trains=("segments",), name="encoder", streams=("target",))
    return AdaptationRecipe((critic, encoder), starts_trained=True)


def mcd(loss: LossOf, *, repeats: int = 4, weight: float = 1.0) -> AdaptationRecipe:
    """Return the recipe of two classifiers that disagree on target rows while the features make them agree.

    The head ``"main"`` predicts; the authors take either, too.

    Parameters
    ----------
    loss : callable
        Gives the task's loss for a head's name.
    repeats : int
        Steps of the features for one of the heads.
    weight : float
        Multiplies the discrepancy, in both phases.

    Examples
    --------
    >>> from headstart.objectives import CrossEntropy
    >>> recipe = mcd(lambda head: CrossEntropy(head=head))
    >>> recipe.heads, [phase.name for phase in recipe.phases]
    (('main', 'second'), ['learn', 'disagree', 'agree'])
    """
    losses = (loss("main"), loss("second"))
    learn = Phase(losses, name="learn", streams=("source",))
    disagree = Phase((*losses, ClassifierDiscrepancy(weight=-weight)), trains=("heads",), name="disagree")
    term = ClassifierDiscrepancy(weight=weight)
    agree = Phase((term,), trains=("segments",), repeats=repeats, name="agree", streams=("target",))
    return AdaptationRecipe((learn, disagree, agree), ("main", "second"))


def _one_phase(loss: LossOf, term: Objective) -> AdaptationRecipe:
    return replace(joint(loss, [term]), own_rate=_FAST)


def _two_phases(loss: LossOf, term: Objective, repeats: int, own_rate: float) -> AdaptationRecipe:
    """Let the critic learn, the network at rest, and then the network, the critic at rest."""
    critic = Phase((term,), trains=("objectives",), repeats=repeats, name="critic")
    features = Phase((loss("main"), term), trains=("segments", "heads"), name="features")
    return AdaptationRecipe((critic, features), own_rate=own_rate)


def _made(kind: type[Objective], name: str, options: Mapping[str, Any]) -> Objective:
    """Return the objective with these options, or refuse one it has not."""
    known = tuple(inspect.signature(kind).parameters)
    unknown = next((option for option in options if option not in known), None)
    if unknown is not None:
        raise ConfigError(
            f"{name}: has no option {unknown!r}; it has {', '.join(known)}.{did_you_mean(unknown, known)}"
        )
    return kind(**options)
