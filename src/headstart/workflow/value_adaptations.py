"""Adaptations of regressors as rivals: what `adaptations` does for classes, for numbers.

    candidate -> fitted on source (numbers) + target (none) -> predictions for target rows
                 fitted again on part of the source         -> predictions for the source rows left out

"Do not adapt" is the first candidate, always. A candidate that breaks off stays in the table with its reason. Aligners that read
classes or need labels of the target are refused in words.
Shapes: n source rows, m target rows, v source rows held out, d features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.linear_model import Ridge, RidgeCV

from headstart.alignment import AdaptedRegressor, Aligner, DomainRegressor, FeatureAligner, Reweighter
from headstart.catalog import entries, find
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.evaluation.selection import SelectionRule, ValueEvidence
from headstart.methods.adaptations.carry_out import check_serves
from headstart.methods.adapted_network import NetworkOnFeatures
from headstart.methods.image_translation import SourceTranslation
from headstart.objectives import SquaredError
from headstart.workflow.adaptations import NO_ADAPTATION
from headstart.workflow.candidates_of_adapt import CandidatePlan
from headstart.workflow.changed_images import check_images, translation_entrants
from headstart.workflow.domains import TwoDomains
from headstart.workflow.entrants import Entrant, Room, carry_through
from headstart.workflow.network_rivals import FittedNetwork, make_network, raw_features
from headstart.workflow.rivals import FittedEstimator, Rival, rows_as_seen
from headstart.workflow.staged_rivals import StagedTraining, try_stages

__all__ = [
    "base_regressor",
    "default_value_candidates",
    "hold_out_values",
    "make_value_candidates",
    "rule_for_values",
    "try_value_candidates",
    "try_values",
    "value_aligners",
]

VALUE_CANDIDATES = ("moment-matching", "coral", "linear-ot", "subspace-alignment", "tca", "discriminator-ratio")
_QUADRATIC = {"tca"}  # holds a number for every pair of rows
_MOST_PAIRED_ROWS = 8000
_PENALTIES = np.logspace(-3, 4, 15)

Array = NDArray[Any]


def base_regressor(source_nd: Array, values_n: Array) -> Ridge:
    """Return the regressor every aligner shares: ridge regression whose penalty the source rows choose, each left out once.

    Examples
    --------
    >>> rows = np.arange(10.0)[:, None]
    >>> bool(base_regressor(rows, 3 * rows[:, 0]).alpha <= 1e-2)
    True
    """
    search = RidgeCV(_PENALTIES).fit(source_nd.astype(np.float64), values_n)
    return Ridge(alpha=float(search.alpha_))


def default_value_candidates(num_rows: int) -> tuple[str, ...]:
    """Return the aligners that compete for numbers when nobody names any, by the number of rows of both domains together.

    Their mean gains on the 24 pairs of docs/benchmarks.md are between -1.4 and +3.4 points of R2.

    Examples
    --------
    >>> "tca" in default_value_candidates(1_000), "tca" in default_value_candidates(100_000)
    (True, False)
    """
    small = num_rows <= _MOST_PAIRED_ROWS
    return tuple(name for name in VALUE_CANDIDATES if small or name not in _QUADRATIC)


def value_aligners() -> tuple[str, ...]:
    """Return the names of all aligners that serve a regressor without target labels.

    Examples
    --------
    >>> names = value_aligners()
    >>> "coral" in names, "jdot-regression" in names, "jda" in names, "tradaboost-r2" in names
    (True, True, False, False)
    """
    return tuple(entry.name for entry in entries("aligner") if _serves(entry.load()))


def _serves(kind: type) -> bool:
    if not issubclass(kind, Aligner) or kind.uses_target_labels:
        return False
    return issubclass(kind, DomainRegressor) or (
        issubclass(kind, FeatureAligner | Reweighter) and not kind.requires_labels
    )


def make_value_candidates(names: Sequence[str], base: Any) -> dict[str, Aligner]:
    """Return estimators by name, "do not adapt" first.

    Raises
    ------
    ConfigError
        If there is no such aligner, or it serves no regressor without target labels.
    """
    found: dict[str, Aligner] = {NO_ADAPTATION: AdaptedRegressor(None, clone(base))}
    for name in names:
        entry = find(name, "aligner")
        kind = entry.load()
        if not _serves(kind):
            why = "learns from labelled target rows" if kind.uses_target_labels else "reads classes"
            raise ConfigError(
                f"adapt: {entry.name} {why}, and the source's labels are numbers; choose from {', '.join(value_aligners())}."
            )
        found[entry.name] = kind() if issubclass(kind, DomainRegressor) else AdaptedRegressor(kind(), clone(base))
    return found


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

    Raises
    ------
    HeadstartError
        If a name will not do, or the source has fewer than four rows or one number only.
    """
    values = np.asarray(two.source.targets, dtype=np.float64)
    if len(values) < 4 or not values.std() > 0:
        raise DataError("adapt: the source needs at least four rows and two different numbers to learn from.")
    check_images({**plan.translations, **plan.stages}, two)
    for name, recipe in {**(plan.networks or {}), **plan.stages, **plan.translations}.items():
        given = recipe.recipe if isinstance(recipe, SourceTranslation) else recipe
        if getattr(recipe, "keeps_classes", False):
            raise ConfigError(f"adapt: {name} keeps classes, and the labels are numbers; take cyclegan or fda.")
        check_serves(given(lambda head: SquaredError(head=head)), Task("regression"), f"adapt: {name}")
    if two.source.domains is not None and len(np.unique(two.source.domains)) > 1 and progress is not None:
        progress.say("where labels are numbers, all candidates take several sources as one")
    names = (
        default_value_candidates(len(two.source_nd) + len(two.target_md)) if plan.aligners is None else plan.aligners
    )
    base = base_regressor(two.source_nd, values)
    estimators = make_value_candidates(names, base)
    raw = raw_features(two)
    entrants = [
        *(Entrant(name, one, two.source_nd, two.target_md) for name, one in estimators.items()),
        *(
            Entrant(name, make_network(recipe, two, seed), *raw, FittedNetwork)
            for name, recipe in (plan.networks or {}).items()
        ),
        *translation_entrants(plan.translations, base, two, seed, training.store, training.checkpoint),
    ]
    rivals = _carried(entrants, values, needs=needs, seed=seed, room=room, progress=progress)
    if plan.stages:
        held_out = hold_out_values(len(values), seed)[1]
        rivals += try_stages(
            plan.stages, two.source, two, training, held_out, needs=needs, room=room, progress=progress
        )
    return rivals


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
        return _evidence(entrant.estimator, fitted, entrant.source_nd, values_n, entrant.target_md, held_out, needs)

    return carry_through(entrants, values_n, gather, needs=needs, seed=seed, room=room, progress=progress)


def _evidence(
    estimator: Aligner,
    fitted: FittedEstimator,
    source_nd: Array,
    values_n: Array,
    target_md: Array,
    held_out: tuple[Array, Array],
    needs: frozenset[str],
) -> ValueEvidence:
    learn, judge = held_out
    given: dict[str, Any] = {"target_values_m": fitted.target_scores}
    if needs & {"source_values_v", "source_features_vr"}:
        partial = clone(estimator).fit(source_nd[learn], values_n[learn], target_md)
        as_source = np.ones(len(judge), dtype=np.int64)
        options = {"sample_domain": as_source} if isinstance(partial, AdaptedRegressor) else {}
        given["source_values_v"] = partial.predict(source_nd[judge], **options)
        if "source_features_vr" in needs:
            given["source_features_vr"] = _seen(partial, source_nd[judge], as_source)
            given["target_features_mr"] = _seen(partial, target_md, None)
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


def _seen(estimator: Any, rows: Array, sample_domain: Array | None) -> Array:
    if isinstance(estimator, NetworkOnFeatures):
        return np.asarray(estimator.hidden(rows))
    return rows_as_seen(estimator, rows, sample_domain)
