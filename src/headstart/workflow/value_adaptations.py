"""Adaptations of regressors as rivals: what `adaptations` does for classes, for numbers.

    candidate -> fitted on source (numbers) + target (none) -> predictions for target rows
                 fitted again on part of the source         -> predictions for the source rows left out

"Do not adapt" is the first candidate, always. A candidate that breaks off stays in the table with its reason. Aligners that read
classes are refused in words, and those that learn from labelled target rows where there are none.
Shapes: n source rows, m target rows, v source rows held out, d features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from headstart.alignment import AdaptedRegressor, Aligner
from headstart.catalog import entries
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.evaluation.selection import SelectionRule, ValueEvidence
from headstart.methods.adaptations.carry_out import check_serves
from headstart.methods.image_translation import SourceTranslation
from headstart.objectives import SquaredError
from headstart.workflow.candidates_of_adapt import CandidatePlan
from headstart.workflow.changed_images import check_images, translation_entrants
from headstart.workflow.domains import TwoDomains
from headstart.workflow.entrants import Entrant, Room, carry_through
from headstart.workflow.few_labels import FEW_VALUE_CANDIDATES, with_few
from headstart.workflow.few_rows import FewRows
from headstart.workflow.network_rivals import FittedNetwork, make_network, raw_features
from headstart.workflow.rivals import FittedEstimator, Rival
from headstart.workflow.several_sources import apart
from headstart.workflow.staged_rivals import StagedTraining, try_stages
from headstart.workflow.value_candidates import base_regressor, default_value_candidates, make_value_candidates

__all__ = ["check_recipes", "hold_out_values", "rule_for_values", "try_value_candidates", "try_values"]

Array = NDArray[Any]


def rule_for_values(rule: SelectionRule) -> SelectionRule:
    """Return what judges numbers in a rule's place.

    Raises
    ------
    ConfigError
        If the rule reads probabilities of classes; the message names the rules that do not.

    Examples
    --------
    >>> from headstart.evaluation.selection import CircularValidation
    >>> rule_for_values(CircularValidation()).name
    'ValueCircularValidation'
    """
    judge = rule.for_values()
    if judge is None:
        known = [entry.name for entry in entries("rule") if entry.load()().for_values() is not None]
        raise ConfigError(
            f"adapt: {rule.name} judges probabilities of classes, and the source's labels are numbers; choose --rule from "
            f"{', '.join(known)}."
        )
    return judge


def try_values(
    plan: CandidatePlan,
    two: TwoDomains,
    training: StagedTraining,
    *,
    needs: frozenset[str],
    seed: int = 0,
    room: Room | None = None,
    progress: Progress | None = None,
    few: FewRows | None = None,
) -> list[Rival]:
    """Return every candidate carried through on two opened domains: aligners, networks on features, stages.

    Parameters
    ----------
    plan : CandidatePlan
        What competes; the default aligners where it names none.
    two : TwoDomains
        The rows.
    training : StagedTraining
        How stages train.
    needs, seed, room, progress
        As for `try_value_candidates`.
    few : FewRows, optional
        Labelled target rows.

    Raises
    ------
    HeadstartError
        If a name will not do, or the source has fewer than four rows or one number only.
    """
    values = np.asarray(two.source.targets, dtype=np.float64)
    if len(values) < 4 or not values.std() > 0:
        raise DataError("adapt: the source needs at least four rows and two different numbers to learn from.")
    check_images({**plan.translations, **plan.stages}, two.backbone.modality)
    check_recipes(plan)
    entrants, told = apart(_entrants(plan, two, values, training, seed, few is not None), two.source)
    if told and progress is not None:
        progress.say(told)
    if few is not None:
        entrants = with_few(entrants, few, two, chooses=not needs)
    rivals = _carried(entrants, values, needs=needs, seed=seed, room=room, progress=progress)
    if plan.stages:
        held_out = hold_out_values(len(values), seed)[1]
        own = None if few is None else few.rows
        rivals += try_stages(
            plan.stages, two.source, two, training, held_out, needs=needs, room=room, progress=progress, few=own
        )
    return rivals


def check_recipes(plan: CandidatePlan) -> None:
    """Refuse recipes that read classes.

    Raises
    ------
    ConfigError
        With the recipe, and what serves numbers.
    """
    for name, recipe in {**(plan.networks or {}), **plan.stages, **plan.translations}.items():
        given = recipe.recipe if isinstance(recipe, SourceTranslation) else recipe
        if getattr(recipe, "keeps_classes", False):
            raise ConfigError(f"adapt: {name} keeps classes, and the labels are numbers; take cyclegan or fda.")
        check_serves(given(lambda head: SquaredError(head=head)), Task("regression"), f"adapt: {name}")


def _entrants(
    plan: CandidatePlan, two: TwoDomains, values_n: Array, training: StagedTraining, seed: int, few: bool
) -> list[Entrant]:
    """Return what learns from features, "do not adapt" first: aligners on one scale, networks on features as they came."""
    names = plan.aligners
    if names is None:
        defaults = default_value_candidates(len(two.source_nd) + len(two.target_md))
        names = (*defaults, *(FEW_VALUE_CANDIDATES if few else ()))
    base = base_regressor(two.source_nd, values_n)
    estimators = make_value_candidates(names, base, few=few)
    raw = raw_features(two)
    return [
        *(Entrant(name, one, two.source_nd, two.target_md) for name, one in estimators.items()),
        *(
            Entrant(name, make_network(recipe, two, seed), *raw, FittedNetwork)
            for name, recipe in (plan.networks or {}).items()
        ),
        *translation_entrants(plan.translations, base, two, seed, training.store, training.checkpoint),
    ]


def hold_out_values(num_rows: int, seed: int) -> tuple[Array, Array]:
    """Return places of source rows to learn from and to judge on: a quarter, drawn.

    Examples
    --------
    >>> [len(part) for part in hold_out_values(16, seed=0)]
    [12, 4]
    """
    order = np.random.default_rng(seed).permutation(num_rows)
    num_held = max(1, num_rows // 4)
    return np.sort(order[num_held:]), np.sort(order[:num_held])


def try_value_candidates(
    candidates: Mapping[str, Aligner],
    source_nd: Array,
    values_n: Array,
    target_md: Array,
    *,
    needs: frozenset[str],
    seed: int = 0,
    room: Room | None = None,
    progress: Progress | None = None,
) -> list[Rival]:
    """Fit every candidate there is time for and gather what a rule needs of it.

    Parameters
    ----------
    candidates : mapping of str to Aligner
        Unfitted, by name.
    source_nd, values_n, target_md : arrays
        Source features, their numbers, target features.
    needs : frozenset of str
        Fields of `ValueEvidence` that the rule reads; no other is worked out.
    seed : int
        Of the quarter of the source that is held out.
    room : Room, optional
        Time there is; endless when left out.
    progress : Progress, optional
        One stage, "adapt".
    """
    entrants = [Entrant(name, one, source_nd, target_md) for name, one in candidates.items()]
    return _carried(entrants, values_n, needs=needs, seed=seed, room=room, progress=progress)


def _carried(
    entrants: Sequence[Entrant],
    values_n: Array,
    *,
    needs: frozenset[str],
    seed: int,
    room: Room | None,
    progress: Progress | None,
) -> list[Rival]:
    held_out = hold_out_values(len(values_n), seed)

    def gather(entrant: Entrant, fitted: FittedEstimator) -> ValueEvidence:
        return _evidence(entrant, fitted, values_n, held_out, needs)

    return carry_through(entrants, values_n, gather, needs=needs, seed=seed, room=room, progress=progress)


def _evidence(
    entrant: Entrant,
    fitted: FittedEstimator,
    values_n: Array,
    held_out: tuple[Array, Array],
    needs: frozenset[str],
) -> ValueEvidence:
    estimator, source_nd, target_md = entrant.estimator, entrant.source_nd, entrant.target_md
    learn, judge = held_out
    given: dict[str, Any] = {"target_values_m": fitted.target_scores}
    if needs & {"source_values_v", "source_features_vr"}:
        partial = clone(estimator).fit(source_nd[learn], values_n[learn], target_md)
        as_source = np.ones(len(judge), dtype=np.int64)
        options = {"sample_domain": as_source} if isinstance(partial, AdaptedRegressor) else {}
        given["source_values_v"] = partial.predict(source_nd[judge], **options)
        if "source_features_vr" in needs:
            given["source_features_vr"] = entrant.fitted_as(partial, source_nd[judge], target_md).source_seen_nr
            given["target_features_mr"] = entrant.fitted_as(partial, source_nd, target_md).target_seen_mr
    if "refit" in needs:
        given["refit"] = lambda source, values, target: clone(estimator).fit(source, values, target)
    if "target_rows_md" in needs:
        given["target_rows_md"] = target_md
    return ValueEvidence(
        **given,
        source_labels_v=values_n[judge],
        source_rows_vd=source_nd[judge],
        source_training_nd=source_nd[learn],
    )
