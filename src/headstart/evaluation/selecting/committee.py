"""A committee as a candidate: several candidates whose probabilities are averaged, judged as one.

    p_committee = mean over members of p_i        on target rows, on held-out source rows, and for new rows

The committee costs no fit of its own where its members have been fitted. What its members cannot average (features differ in
kind and width) it has not.
Shapes: m target rows, k classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.errors import DataError
from headstart.evaluation.selecting.evidence import CandidateEvidence, Predictor

__all__ = ["committee_evidence"]

Array = npt.NDArray[Any]

_SHARED = (
    "source_labels_v",
    "source_rows_vd",
    "target_rows_md",
    "source_training_nd",
    "source_training_labels_n",
    "input_weights_v",
)


def committee_evidence(members: Sequence[CandidateEvidence]) -> CandidateEvidence:
    """Return what a committee of candidates may be judged by.

    Parameters
    ----------
    members : sequence of at least two CandidateEvidence
        Over the same target rows, classes and source rows.

    Returns
    -------
    CandidateEvidence
        Means of the members' probabilities; ``refit`` and ``predict_target`` where every member has them; ``members``.

    Raises
    ------
    HeadstartError
        If there are fewer than two members, or they are of other rows or classes.

    Examples
    --------
    >>> one = CandidateEvidence(target_probabilities_mk=np.array([[0.9, 0.1], [0.4, 0.6]]))
    >>> two = CandidateEvidence(target_probabilities_mk=np.array([[0.5, 0.5], [0.8, 0.2]]))
    >>> np.round(committee_evidence([one, two]).target_probabilities_mk, 3).tolist()
    [[0.7, 0.3], [0.6, 0.4]]
    """
    if len(members) < 2:
        raise DataError(f"committee_evidence: a committee needs at least two members; got {len(members)}.")
    shapes = {member.target_probabilities_mk.shape for member in members}
    if len(shapes) > 1:
        raise DataError(f"committee_evidence: members must answer for the same rows and classes; got shapes {shapes}.")
    given: dict[str, Any] = {name: getattr(members[0], name) for name in _SHARED if _all_have(members, name)}
    for name in ("target_probabilities_mk", "source_probabilities_vk"):
        if _all_have(members, name):
            given[name] = np.mean([getattr(member, name) for member in members], axis=0, dtype=np.float64)
    if _all_have(members, "predict_target"):
        given["predict_target"] = _mean_of([member.predict_target for member in members])
    if _all_have(members, "refit"):
        given["refit"] = lambda source, labels, target: _Voters(
            [member.refit(source, labels, target) for member in members if member.refit is not None]
        )
    return CandidateEvidence(**given, members=tuple(members))


def _all_have(members: Sequence[CandidateEvidence], name: str) -> bool:
    return all(getattr(member, name) is not None for member in members)


def _mean_of(predict: Sequence[Callable[[Any], Any] | None]) -> Callable[[Any], Array]:
    return lambda rows: np.asarray(np.mean([ask(rows) for ask in predict if ask is not None], axis=0))


class _Voters:
    """Predictors that learnt one task: the mean of their probabilities decides, or the most votes where there are none."""

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        self.predictors: list[Any] = list(predictors)

    def predict(self, rows: Any) -> Array:
        """Return the class number of each row; of equal ones the lowest."""
        if all(hasattr(one, "predict_proba") and hasattr(one, "classes_") for one in self.predictors):
            classes = np.asarray(self.predictors[0].classes_)
            tables = [np.asarray(one.predict_proba(rows)) for one in self.predictors]
            return np.asarray(classes[np.mean(tables, axis=0).argmax(axis=1)])
        votes = np.stack([np.asarray(one.predict(rows)) for one in self.predictors])
        classes = np.unique(votes)
        return np.asarray(classes[(votes[:, :, None] == classes).sum(axis=0).argmax(axis=1)])
