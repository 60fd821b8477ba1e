"""Which candidates `adapt` lets compete, by what the user named, and the table of all of them carried through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.catalog import entries, find, read_objectives, read_recipe
from headstart.core.errors import ConfigError, did_you_mean
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.data import Dataset
from headstart.methods.adaptations.carry_out import check_serves
from headstart.methods.adaptations.givens import Given, check_given
from headstart.methods.adaptations.recipe import AdaptationRecipe
from headstart.methods.image_translation import SourceTranslation
from headstart.objectives import CrossEntropy, supervised_objective
from headstart.training.strategies import read_strategy
from headstart.workflow.adaptations import (
    DEFAULT_NETWORKS,
    base_classifier,
    default_candidates,
    hold_out,
    make_candidates,
    try_entrants,
)
from headstart.workflow.changed_images import check_images, translation_entrants
from headstart.workflow.committee import add_committee
from headstart.workflow.domains import TwoDomains
from headstart.workflow.entrants import Entrant, Room
from headstart.workflow.few_labels import FEW_CANDIDATES, with_few
from headstart.workflow.few_rows import FewRows
from headstart.workflow.network_rivals import FittedNetwork, make_network, raw_features
from headstart.workflow.rivals import Rival
from headstart.workflow.several_sources import apart
from headstart.workflow.staged_rivals import SOURCE_ONLY, StagedTraining, check_stages, try_stages

__all__ = ["CandidatePlan", "check_plan", "read_candidates", "try_all"]


@dataclass(frozen=True)
class CandidatePlan:
    """What competes beside "do not adapt".

    Parameters
    ----------
    aligners : tuple of str
        Names of aligners; None: the default ones for the number of rows.
    networks : mapping of str to recipe
        Trained on features; None: the default ones.
    stages : mapping of str to recipe
        Trained with stages of the base model; translations of source images among them.
    translations : mapping of str to SourceTranslation
        Change source images, which a frozen base model embeds.
    """

    aligners: tuple[str, ...] | None = None
    networks: Mapping[str, Any] | None = None
    stages: Mapping[str, Any] = field(default_factory=dict)
    translations: Mapping[str, Any] = field(default_factory=dict)


def read_candidates(
    methods: Sequence[str], objectives: str | None, strategy: str | None, *, few: bool = False
) -> CandidatePlan:
    """Return what competes, before any row is read.

    Parameters
    ----------
    methods : sequence of str
        Names a user typed.
    objectives : str, optional
        A joint loss in words.
    strategy : str, optional
        Which stages networks train.
    few : bool
        Whether there are labelled target rows.

    Raises
    ------
    ConfigError
        If there is no such name, objective or strategy, or a method needs labelled target rows and there are none.

    Examples
    --------
    >>> read_candidates([], None, None).aligners is None
    True
    >>> plan = read_candidates(["coral", "source-only"], None, None)
    >>> plan.aligners, list(plan.networks)
    (('coral',), ['source-only'])
    """
    if strategy is not None:
        read_strategy(strategy)
    known = {entry.name for entry in entries("aligner")}
    networks = {entry.name for entry in (*entries("adaptation"), *entries("objective"))}
    images = {entry.name: entry for entry in entries("translation")}
    aligners, recipes, translations = [], {}, {}
    for name in methods:
        if name in images:
            translations[name] = images[name].load()()
            continue
        if name in known and strategy is None:
            if not few and find(name, "aligner").details.get("needs") == "some target labels":
                raise ConfigError(
                    f"adapt: {name} learns from labelled target rows; give some with few (--few), or name another method."
                )
            aligners.append(name)
            continue
        if name not in networks:
            if name in known:
                raise ConfigError(
                    f"adapt: {name} aligns features and trains no stages; leave --strategy out, or name a method for networks."
                )
            near = did_you_mean(name, sorted(known | networks | set(images)))
            raise ConfigError(f"adapt: there is no method {name!r}.{near} `headstart methods` lists them.")
        recipes[name] = read_recipe(name)
    if objectives is not None:
        recipes[objectives] = read_objectives(objectives)
    for name, recipe in recipes.items():
        made = recipe(lambda head: CrossEntropy(head=head))
        check_serves(made, Task("classification", ("a", "b")), f"adapt: {name}")
        if strategy is None:
            check_given(made, f"adapt: {name}", Given("a network on features", ("hidden",)))
    if strategy is not None:
        alone = {SOURCE_ONLY: read_recipe(SOURCE_ONLY)}
        return CandidatePlan((), {}, {**alone, **recipes, **translations})
    if not methods and not recipes:
        return CandidatePlan()
    return CandidatePlan(tuple(aligners), recipes, {}, translations)


def check_plan(
    plan: CandidatePlan, training: StagedTraining, source: Dataset, backbone: Backbone, *, few: bool = False
) -> None:
    """Refuse recipes whose terms need what these rows or stages of this base model cannot give, before a row is embedded.

    Parameters
    ----------
    plan : CandidatePlan
        What competes.
    training : StagedTraining
        How stages train.
    source : Dataset
        Labelled rows, of one domain or several.
    backbone : Backbone
        Stays as it is.
    few : bool
        Whether there are labelled target rows, which stages learn from as from one more domain.

    Raises
    ------
    ConfigError
        With the recipe, the term, what it needs, and the base model where it is that which cannot give it.
    """
    check_images({**plan.translations, **plan.stages}, backbone.modality)
    task = source.task
    assert task is not None
    given = None
    if plan.stages:
        check_stages(backbone)
        given = training.method(SOURCE_ONLY, read_recipe(SOURCE_ONLY)).given(backbone, task, len(source))
    num_domains = 1 if source.domains is None else len(set(source.domains))
    for recipes, domains in ((plan.networks or {}, num_domains), (plan.stages, num_domains + few)):
        for name, recipe in recipes.items():
            of = recipe.recipe if isinstance(recipe, SourceTranslation) else recipe
            made = of(lambda head: supervised_objective(task, head=head))
            _check_sources(made, name, domains)
            if given is not None:
                check_given(made, f"adapt: {name}", given)


def _check_sources(recipe: AdaptationRecipe, name: str, num_domains: int) -> None:
    terms = dict.fromkeys(type(term).__name__ for term in recipe.objectives if term.compares_sources)
    if terms and num_domains < 2:
        raise ConfigError(
            f"adapt: {name}: {', '.join(terms)} compares labelled domains, and there is one; give several sources, or "
            "name another method."
        )


def try_all(
    plan: CandidatePlan,
    two: TwoDomains,
    codes_n: NDArray[Any],
    classes: Sequence[str],
    training: StagedTraining,
    *,
    needs: frozenset[str],
    seed: int,
    progress: Progress,
    room: Room | None = None,
    few: FewRows | None = None,
) -> list[Rival]:
    """Carry every candidate through that there is time for: "do not adapt", others on features, their committee, stages.

    Parameters
    ----------
    plan : CandidatePlan
        What competes.
    two : TwoDomains
        The rows.
    codes_n : int64 array of shape (n,)
        Class numbers of the source rows.
    classes : sequence of str
        Their names.
    training : StagedTraining
        How stages train.
    needs : frozenset of str
        Fields of `CandidateEvidence` that the rule reads.
    seed : int
        Of folds and draws.
    progress : Progress
        Where the lines go.
    room : Room, optional
        Time there is; endless when left out.
    few : FewRows, optional
        Labelled target rows.
    """
    check_images({**plan.translations, **plan.stages}, two.backbone.modality)
    entrants, told = apart(_entrants(plan, two, codes_n, training, seed, few is not None), two.source)
    if told:
        progress.say(told)
    if few is not None:
        entrants = with_few(entrants, few, two, chooses=not needs)
    rivals = add_committee(try_entrants(entrants, codes_n, needs=needs, seed=seed, room=room, progress=progress))
    if plan.stages:
        named = two.source.relabelled(Task("classification", tuple(classes)), codes_n)
        judging = hold_out(codes_n, training.seed)[1]  # the rows that the other candidates are judged on, too
        rivals += try_stages(
            plan.stages,
            named,
            two,
            training,
            judging,
            needs=needs,
            room=room,
            progress=progress,
            few=None if few is None else few.rows,
        )
    return rivals


def _entrants(
    plan: CandidatePlan,
    two: TwoDomains,
    codes_n: NDArray[Any],
    training: StagedTraining,
    seed: int,
    few: bool,
) -> list[Entrant]:
    """Return what learns from features, "do not adapt" first: aligners on one scale, networks on features as they came."""
    names, networks = plan.aligners, plan.networks
    if names is None:
        names = (*default_candidates(len(two.source_nd) + len(two.target_md)), *(FEW_CANDIDATES if few else ()))
    if networks is None:
        networks = {name: read_recipe(name) for name in (*DEFAULT_NETWORKS, *(("mme",) if few else ()))}
    base = base_classifier(two.source_nd, codes_n, seed=seed)
    aligners = make_candidates(names, base)
    raw = raw_features(two)
    return [
        *(Entrant(name, one, two.source_nd, two.target_md) for name, one in aligners.items()),
        *(Entrant(name, make_network(recipe, two, seed), *raw, FittedNetwork) for name, recipe in networks.items()),
        *translation_entrants(plan.translations, base, two, seed, training.store, training.checkpoint),
    ]
