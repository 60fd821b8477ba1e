"""Which candidates `adapt` lets compete, by what the user named, and the table of all of them carried through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from headstart.catalog import entries, find, read_objectives, read_recipe
from headstart.core.errors import ConfigError, did_you_mean
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.methods.adaptations.carry_out import check_serves
from headstart.methods.adaptations.givens import check_given
from headstart.objectives import CrossEntropy
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
from headstart.workflow.staged_rivals import SOURCE_ONLY, StagedTraining, try_stages

__all__ = ["CandidatePlan", "read_candidates", "try_all"]


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
            check_given(made, f"adapt: {name}", "a network on features", ["hidden"])
    if strategy is not None:
        alone = {SOURCE_ONLY: read_recipe(SOURCE_ONLY)}
        return CandidatePlan((), {}, {**alone, **recipes, **translations})
    if not methods and not recipes:
        return CandidatePlan()
    return CandidatePlan(tuple(aligners), recipes, {}, translations)


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
    check_images({**plan.translations, **plan.stages}, two)
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
