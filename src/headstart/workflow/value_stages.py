"""Stages of a base model as rivals where labels are numbers: what `network_rivals.try_stages` is for classes.

Shapes: n source rows, m target rows, v source rows set aside, d features.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import ConfigError, DataError, TrainingError
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.evaluation.selection import FailedCandidate, ValueEvidence
from headstart.methods import DeeplyAdapted
from headstart.model import Model
from headstart.workflow.clock import BudgetSpent, with_deadline
from headstart.workflow.domains import TwoDomains
from headstart.workflow.entrants import Room
from headstart.workflow.features_to_rows import RowsOfFeatures
from headstart.workflow.network_rivals import FittedStages, StagedTraining, check_complete, check_stages
from headstart.workflow.rivals import Rival

__all__ = ["hold_out_values", "try_value_stages"]

Array = NDArray[Any]


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


def try_value_stages(
    recipes: Mapping[str, Any],
    two: TwoDomains,
    training: StagedTraining,
    judging_v: Array,
    *,
    needs: frozenset[str],
    room: Room | None = None,
    progress: Progress | None = None,
) -> list[Rival]:
    """Train every recipe with stages of the base model, as long as there is time, and gather what a rule needs of it.

    Parameters
    ----------
    recipes : mapping of str to recipe
        By name.
    two : TwoDomains
        The rows.
    training : StagedTraining
        How.
    judging_v : int64 array of shape (v,)
        Source rows that are set aside: those that the other candidates are judged on, too.
    needs : frozenset of str
        Fields of `ValueEvidence` that the rule reads.
    room : Room, optional
        Time there is; endless when left out. Every recipe may take what is left, less its way back.
    progress : Progress, optional
        Gets the stages of every training.
    """
    check_stages(two)
    room, said = room or Room(), progress or Progress(quiet=True)
    fits = 2 if "refit" in needs else 1
    rivals = []
    for name, recipe in recipes.items():
        started, wall_started = time.process_time(), time.perf_counter()
        fitted: FittedStages | None = None
        evidence: ValueEvidence | FailedCandidate
        try:
            found = training.method(name, recipe).fit(
                two.source,
                two.target,
                two.backbone,
                set_aside=judging_v,
                checkpoint=training.folder(name),
                store=training.store,
                progress=with_deadline(said, room.left / fits),
            )
            check_complete(found, len(two.target))
            fitted = FittedStages(found)
            if "refit" in needs:
                room.promise(time.perf_counter() - wall_started)
            way = _OtherWay(name, recipe, two, replace(training, checkpoint=None), room)
            evidence = _evidence(found, two, way, needs)
        except BudgetSpent:
            fitted, evidence = None, FailedCandidate("the budget ran out in the middle of it", begun=False)
        except (ConfigError, DataError, TrainingError) as error:
            fitted, evidence = None, FailedCandidate(str(error))
        rivals.append(Rival(name, fitted, evidence, time.process_time() - started))
    return rivals


def _evidence(found: DeeplyAdapted, two: TwoDomains, way: _OtherWay, needs: frozenset[str]) -> ValueEvidence:
    values, kept = np.asarray(two.source.targets, np.float64), found.held_out
    assert kept is not None
    others = np.setdiff1d(np.arange(len(values)), kept)
    given: dict[str, Any] = {"target_values_m": found.target_scores, "source_values_v": found.held_out_scores}
    if "target_features_mr" in needs:
        given["target_features_mr"] = found.target_seen_mr
    if "target_rows_md" in needs:
        given["target_rows_md"] = two.target_md
    if "refit" in needs:
        given["refit"] = way
    return ValueEvidence(
        **given,
        source_labels_v=values[kept],
        source_rows_vd=two.source_nd[kept],
        source_training_nd=two.source_nd[others],
    )


class _OtherWay:
    """Trains the same recipe from other rows: it is given features, and finds the rows they belong to."""

    def __init__(self, name: str, recipe: Any, two: TwoDomains, training: StagedTraining, room: Room) -> None:
        self._name, self._recipe, self._two, self._training, self._clock = name, recipe, two, training, room.clock
        self.rows = RowsOfFeatures(two.source, two.target, two.source_nd, two.target_md)

    def __call__(self, source_nd: Array, values_n: Array, target_md: Array) -> _Answers:
        method = replace(self._training.method(self._name, self._recipe), held_out=0.0)
        found = method.fit(
            self.rows(source_nd).relabelled(Task("regression"), np.asarray(values_n, np.float64)),
            self.rows(target_md).unlabelled(),
            self._two.backbone,
            store=self._training.store,
            progress=with_deadline(Progress(quiet=True), max(0.0, self._clock.left)),
        )
        return _Answers(self, found.model)


@dataclass(frozen=True)
class _Answers:
    """What a network that was trained the other way says of rows known by their features."""

    way: _OtherWay
    model: Model

    def predict(self, rows: Array) -> Array:
        """Return numbers."""
        return self.model.predict(self.way.rows(rows).unlabelled(), store=False, runtime="torch-fp32").scores
