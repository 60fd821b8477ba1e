"""The committee as a rival: all candidates on features that came through answer together, each from its own view of the rows.

    p(row) = mean over members of p_i(row as member i sees it)

An aligner sees features on one scale, a network as the base model gave them; the way back of a rule goes member by member, each
by its own recipe (`committee_evidence`). It costs no fit. Stages of a base model have no seat: they see no features.
Shapes: m target rows, k classes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.alignment import Committee
from headstart.core.tasks import Task
from headstart.evaluation.selection import CandidateEvidence, committee_evidence
from headstart.heads import Head
from headstart.model import Model
from headstart.model.adapted_head import AdaptedHead
from headstart.model.committee_head import CommitteeHead
from headstart.workflow.adaptations import NO_ADAPTATION
from headstart.workflow.domains import TwoDomains
from headstart.workflow.rivals import FittedCandidate, FittedEstimator, Rival, model_on_features

__all__ = ["COMMITTEE", "FittedCommittee", "add_committee"]

COMMITTEE = "committee"

Array = NDArray[Any]


class FittedCommittee(FittedCandidate):
    """Candidates on features that answer together; one voice each.

    Parameters
    ----------
    members : sequence of at least two FittedEstimator
        Fitted on the same rows, whatever features of them they see.
    """

    def __init__(self, members: Sequence[FittedEstimator]) -> None:
        self.members = tuple(members)

    @cached_property
    def target_scores(self) -> Array:
        """Mean of the members' probabilities of the target rows."""
        return np.asarray(np.mean([member.target_scores for member in self.members], axis=0))

    @property
    def source_seen_nr(self) -> Array | None:
        """Source rows as its members see them, side by side; None where none of them moves any."""
        return None if self._seen is None else self._seen[0]

    @property
    def target_seen_mr(self) -> Array | None:
        """Target rows as its members see them, side by side."""
        return None if self._seen is None else self._seen[1]

    @property
    def seen_as(self) -> str:
        """How members' features are put together."""
        return "what its members see, side by side, each brought to one size"

    @cached_property
    def _seen(self) -> tuple[Array, Array] | None:
        """Features of both domains, a block a member; what several see as it came stands there once, with the weight of all."""
        moving = [member for member in self.members if member.moves_rows]
        if not moving:
            return None
        still = [member for member in self.members if not member.moves_rows]
        blocks = [_to_one_size(member, 1) for member in moving]
        blocks += [_to_one_size(still[0], len(still))] if still else []
        source, target = zip(*blocks, strict=True)
        return np.concatenate(source, axis=1), np.concatenate(target, axis=1)

    @property
    def new_rows(self) -> str:
        """What those members say who answer rows they have not seen otherwise."""
        said = [(type(member.estimator).__name__, member.new_rows) for member in self.members if member.new_rows]
        return "; ".join(f"of its member {name} {words}" for name, words in said)

    def to_model(self, two: TwoDomains, task: Task) -> Model:
        """Return the base model that embedded both domains, with the committee as its head.

        Members on the one scale share a head, which keeps once the rows that several of them remember.
        """
        aligned = [member for member in self.members if type(member) is FittedEstimator]
        others = [member for member in self.members if type(member) is not FittedEstimator]
        heads: list[Head] = [member.to_head(two, task) for member in others]
        seats = [1] * len(heads)
        if aligned:
            estimators = [member.estimator for member in aligned]
            shared = Committee.of(estimators) if len(estimators) > 1 else estimators[0]
            heads, seats = [AdaptedHead(shared, two.scale, task), *heads], [len(estimators), *seats]
        head = CommitteeHead(heads, seats) if len(heads) > 1 else heads[0]
        return model_on_features(head, two, task)


def _to_one_size(member: FittedEstimator, weight: int) -> tuple[Array, Array]:
    """Return rows of both domains as a member sees them, about their mean, their mean squared length ``weight``."""
    parts = [np.asarray(part, dtype=np.float64) for part in (member.source_seen_nr, member.target_seen_mr)]
    pooled = np.concatenate(parts)
    mean = pooled.mean(axis=0)
    size = float(np.sqrt(np.square(pooled - mean).sum(axis=1).mean())) or 1.0
    source, target = (((part - mean) * (np.sqrt(weight) / size)).astype(np.float32) for part in parts)
    return source, target


def add_committee(rivals: Sequence[Rival]) -> list[Rival]:
    """Return the rivals and, where two adaptations or more came through, the committee of all that came through.

    "Do not adapt" is among them. Every candidate on features has a seat, for it answers for any row and can go back; what trains
    stages competes for itself.

    Parameters
    ----------
    rivals : sequence of Rival
        "Do not adapt" first.
    """
    members = [rival for rival in rivals if isinstance(rival.fitted, FittedEstimator) and rival.fitted.has_seat]
    if len(members) < 3 or members[0].name != NO_ADAPTATION:
        return list(rivals)
    started = time.process_time()
    evidence = committee_evidence(
        [rival.evidence for rival in members if isinstance(rival.evidence, CandidateEvidence)]
    )
    fitted = FittedCommittee([rival.fitted for rival in members if isinstance(rival.fitted, FittedEstimator)])
    return [*rivals, Rival(COMMITTEE, fitted, evidence, time.process_time() - started)]
