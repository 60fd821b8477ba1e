"""A committee as a candidate: several candidates whose probabilities are averaged, judged as one.

    p_committee = mean over members of p_i        on target rows, on held-out source rows, and for new rows

The committee costs no fit of its own where its members have been fitted. What its members cannot average (features differ in
kind and width) it has not. A member may know the rows by features of its own (a network raw ones, an aligner those on one scale):
on a way back over the committee's rows, which are those of its first member, each is handed its own features of the same rows.
Shapes: m target rows, k classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

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
_ROWS = ("source_rows_vd", "source_training_nd", "target_rows_md")


def committee_evidence(members: Sequence[CandidateEvidence]) -> CandidateEvidence:
    """Return what a committee of candidates may be judged by.

    Parameters
    ----------
    members : sequence of at least two CandidateEvidence
        Over the same target rows, classes and source rows.

    Returns
    -------
    CandidateEvidence
        Means of the members' probabilities; ``refit`` where every member has it; ``predict_target`` where every member has it
        and knows rows by the same features; ``members``.

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
    own = [None if _same_rows(members[0], member) else _OwnRows(members[0], member) for member in members]
    if _all_have(members, "predict_target") and not any(own):
        given["predict_target"] = _mean_of([member.predict_target for member in members])
    if _all_have(members, "refit"):
        given["refit"] = lambda source, labels, target: _Voters(
            [
                member.refit(_seen(source, rows), labels, _seen(target, rows))
                for member, rows in zip(members, own, strict=True)
                if member.refit is not None
            ],
            own,
        )
    return CandidateEvidence(**given, members=tuple(members))


def _all_have(members: Sequence[CandidateEvidence], name: str) -> bool:
    return all(getattr(member, name) is not None for member in members)


def _same_rows(first: CandidateEvidence, other: CandidateEvidence) -> bool:
    """Return whether two members know all rows they both have by the same features."""
    pairs = [(getattr(first, name), getattr(other, name)) for name in _ROWS]
    return all(
        one is two or one is None or two is None or (one.shape == two.shape and _equal(one, two)) for one, two in pairs
    )


def _equal(one: Any, two: Any) -> bool:
    if sparse.issparse(one) != sparse.issparse(two):
        return False
    return (one != two).nnz == 0 if sparse.issparse(one) else bool(np.array_equal(one, two))


class _OwnRows:
    """A member's features of rows that are given by the committee's; found by their bytes, whatever order they come in."""

    def __init__(self, first: CandidateEvidence, member: CandidateEvidence) -> None:
        self._known: dict[bytes, Array] = {}
        for name in _ROWS:
            shared, own = getattr(first, name), getattr(member, name)
            if shared is not None and own is not None:
                self._known |= dict(zip(map(_key, _dense(shared)), _dense(own), strict=True))

    def __call__(self, rows: Any) -> Array:
        """Return the member's features, a row for each.

        Raises
        ------
        DataError
            If a row is none of those the members were judged on.
        """
        try:
            return np.stack([self._known[_key(row)] for row in _dense(rows)])
        except KeyError:
            raise DataError(
                "committee_evidence: a member knows rows by features of its own, and has none of a row that was asked for; "
                "ask for the rows the members were judged on."
            ) from None


def _dense(rows: Any) -> Array:
    dense: Any = rows.toarray() if hasattr(rows, "toarray") else rows
    return np.asarray(dense)


def _key(row: Array) -> bytes:
    return np.ascontiguousarray(row, dtype=np.float64).tobytes()


def _mean_of(predict: Sequence[Callable[[Any], Any] | None]) -> Callable[[Any], Array]:
    return lambda rows: np.asarray(np.mean([ask(rows) for ask in predict if ask is not None], axis=0))


class _Voters:
    """Predictors that learnt one task: the mean of their probabilities decides, or the most votes where there are none.

    Each is asked for its own features of the rows.
    """

    def __init__(self, predictors: Sequence[Predictor], own: Sequence[_OwnRows | None]) -> None:
        self.predictors: list[Any] = list(predictors)
        self.own = own

    def predict(self, rows: Any) -> Array:
        """Return the class number of each row; of equal ones the lowest."""
        asked = list(zip(self.predictors, [_seen(rows, own) for own in self.own], strict=True))
        if all(hasattr(one, "predict_proba") and hasattr(one, "classes_") for one in self.predictors):
            classes = np.asarray(self.predictors[0].classes_)
            tables = [np.asarray(one.predict_proba(own_rows)) for one, own_rows in asked]
            return np.asarray(classes[np.mean(tables, axis=0).argmax(axis=1)])
        votes = np.stack([np.asarray(one.predict(own_rows)) for one, own_rows in asked])
        classes = np.unique(votes)
        return np.asarray(classes[(votes[:, :, None] == classes).sum(axis=0).argmax(axis=1)])


def _seen(rows: Any, own: _OwnRows | None) -> Any:
    return rows if own is None else own(rows)
