"""What a candidate adaptation may be judged by: everything but the target's labels.

A record has no place for labels of target rows, takes no unknown name, and cannot be added to later. Whoever holds such
labels can evaluate a choice after it was made, never make it.
Classes are numbers 0 to k-1, the places of the columns of probabilities.
Shapes: v source rows to judge on, n source rows trained on, m target rows, d features before and r after adaptation, k classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from headstart.core.checks import check_matrix, check_same_rows
from headstart.core.errors import DataError, ShapeError

__all__ = ["CandidateEvidence", "FailedCandidate", "Predictor", "Refit", "check_probabilities"]

Array = npt.NDArray[Any]

_WHO = "CandidateEvidence"
_SUM_TOLERANCE = 2e-3  # what half precision leaves of a sum of 1


class Predictor(Protocol):
    """A fitted classifier: ``predict(rows)`` returns one class number a row, for rows of its own target domain."""

    def predict(self, rows: Any, /) -> Any:
        """Return the class number of each row."""
        ...


class Refit(Protocol):
    """The candidate's own recipe, applied afresh: source rows, their class numbers, target rows in; a predictor out."""

    def __call__(self, source_nd: Any, labels_n: Any, target_md: Any, /) -> Predictor:
        """Return a predictor for rows like ``target_md``."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CandidateEvidence:
    """One candidate, as far as it may be judged without target labels. Give what there is; a rule says what it needs.

    Parameters
    ----------
    target_probabilities_mk : array of shape (m, k)
        The candidate's probabilities for target rows; rows sum to 1.
    source_probabilities_vk : array of shape (v, k), optional
        Its probabilities for source rows that it was *not* trained on (held out, or out of fold).
    source_labels_v : integer array of shape (v,), optional
        Class numbers of those source rows.
    source_rows_vd : array or sparse matrix of shape (v, d), optional
        Those source rows before adaptation.
    target_rows_md : array or sparse matrix of shape (m, d), optional
        Target rows before adaptation.
    source_features_vr : array of shape (v, r), optional
        Those source rows as the adapted classifier sees them.
    target_features_mr : array of shape (m, r), optional
        Target rows as the adapted classifier sees them.
    source_training_nd : array or sparse matrix of shape (n, d), optional
        Source rows the candidate was trained on, before adaptation.
    source_training_labels_n : integer array of shape (n,), optional
        Class numbers of those rows: for a rule whose own step never sees them, such as the way back of circular validation.
    input_weights_v : array of shape (v,), optional
        Density ratio target / source at ``source_rows_vd``; estimated from the rows where it is not given.
    feature_weights_v : array of shape (v,), optional
        Density ratio target / source at ``source_features_vr``; estimated likewise.
    refit : callable, optional
        `Refit`; for an estimator of `headstart.alignment`,
        ``lambda source, labels, target: clone(estimator).fit(source, labels, target)``.
    predict_target : callable, optional
        The fitted candidate: rows like ``target_rows_md`` in, probabilities of shape (rows, k) out.
    members : tuple of CandidateEvidence, optional
        Of a committee: the candidates whose probabilities it averages. `committee_evidence` makes one.

    Raises
    ------
    HeadstartError
        If shapes do not fit each other, a value is not finite, rows of probabilities do not sum to 1, or labels are not
        class numbers.

    Examples
    --------
    >>> evidence = CandidateEvidence(target_probabilities_mk=np.array([[0.9, 0.1], [0.2, 0.8]]))
    >>> evidence.num_target_rows, evidence.num_classes, sorted(evidence.available)
    (2, 2, ['target_probabilities_mk'])
    >>> CandidateEvidence(target_probabilities_mk=np.ones((2, 1)), target_labels_m=[0, 0])
    Traceback (most recent call last):
    TypeError: CandidateEvidence.__init__() got an unexpected keyword argument 'target_labels_m'
    """

    target_probabilities_mk: Array
    source_probabilities_vk: Array | None = None
    source_labels_v: Array | None = None
    source_rows_vd: Any = None
    target_rows_md: Any = None
    source_features_vr: Array | None = None
    target_features_mr: Array | None = None
    source_training_nd: Any = None
    source_training_labels_n: Array | None = None
    input_weights_v: Array | None = None
    feature_weights_v: Array | None = None
    refit: Refit | None = None
    predict_target: Callable[[Any], Any] | None = None
    members: tuple[CandidateEvidence, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("target_probabilities_mk", "source_probabilities_vk"):
            if getattr(self, name) is not None:
                self._replace(name, check_probabilities(_WHO, name, getattr(self, name)))
        for name in ("source_features_vr", "target_features_mr"):
            if getattr(self, name) is not None:
                self._replace(name, _finite(name, np.asarray(getattr(self, name))))
                check_matrix(_WHO, name, getattr(self, name))
        for name in ("input_weights_v", "feature_weights_v"):
            if getattr(self, name) is not None:
                self._replace(name, _weights(name, getattr(self, name)))
        for name in ("source_rows_vd", "target_rows_md", "source_training_nd"):
            if getattr(self, name) is not None:
                check_matrix(_WHO, name, getattr(self, name))
        if self.source_probabilities_vk is not None and self.source_probabilities_vk.shape[1] != self.num_classes:
            raise ShapeError(
                f"{_WHO}: source_probabilities_vk has {self.source_probabilities_vk.shape[1]} classes but "
                f"target_probabilities_mk has {self.num_classes}; give both a column for each class."
            )
        for name in ("source_labels_v", "source_training_labels_n"):
            if getattr(self, name) is not None:
                self._replace(name, _class_numbers(name, getattr(self, name), self.num_classes))
        self._check_rows()

    def _replace(self, name: str, value: Array) -> None:
        object.__setattr__(self, name, value)

    def _check_rows(self) -> None:
        """Refuse different numbers of rows, and different widths where one is expected."""
        for suffixes in (("_vk", "_v", "_vd", "_vr"), ("_mk", "_md", "_mr"), ("_nd", "_n")):
            group = [f.name for f in fields(self) if f.name[f.name.rfind("_") :] in suffixes]
            given = [name for name in group if getattr(self, name) is not None]
            for name in given[1:]:
                check_same_rows(_WHO, given[0], getattr(self, given[0]), name, getattr(self, name))
        for names in (
            ("source_rows_vd", "target_rows_md", "source_training_nd"),
            ("source_features_vr", "target_features_mr"),
        ):
            widths = {name: getattr(self, name).shape[1] for name in names if getattr(self, name) is not None}
            if len(set(widths.values())) > 1:
                words = ", ".join(f"{name} has {width}" for name, width in widths.items())
                raise ShapeError(f"{_WHO}: rows of one space have the same number of features; {words}.")

    @property
    def num_classes(self) -> int:
        """Number of classes k."""
        return int(self.target_probabilities_mk.shape[1])

    @property
    def num_target_rows(self) -> int:
        """Number of target rows m."""
        return int(self.target_probabilities_mk.shape[0])

    @property
    def available(self) -> frozenset[str]:
        """Names of what was given."""
        return frozenset(field.name for field in fields(self) if getattr(self, field.name) is not None)


@dataclass(frozen=True)
class FailedCandidate:
    """A candidate whose adaptation broke off, or was not begun; it stays in the table with its reason.

    Parameters
    ----------
    reason : str
        Why, in words.
    begun : bool
        False where it was left out, for lack of time.
    """

    reason: str
    begun: bool = True


def check_probabilities(who: str, name: str, probabilities: Any) -> Array:
    """Return probabilities as a float array; refuse what is no table of probabilities over two classes or more."""
    table = np.asarray(probabilities)
    check_matrix(who, name, table)
    if table.shape[1] < 2:
        raise ShapeError(f"{who}: {name} needs a column for each of at least 2 classes; got 1.")
    if table.dtype.kind not in "fiub":
        raise DataError(f"{who}: {name} must hold numbers; got {table.dtype}.")
    table = table if table.dtype.kind == "f" else table.astype(np.float64)
    _finite(name, table, who)
    if float(table.min()) < -1e-6 or float(table.max()) > 1 + _SUM_TOLERANCE:
        raise DataError(
            f"{who}: {name} must lie between 0 and 1; got {table.min():g} to {table.max():g}. Apply softmax to logits."
        )
    sums = table.sum(axis=1, dtype=np.float64)
    worst = int(np.abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > _SUM_TOLERANCE:
        raise DataError(f"{who}: rows of {name} must sum to 1; row {worst} sums to {sums[worst]:.4g}.")
    return table


def _finite(name: str, values: Array, who: str = _WHO) -> Array:
    if values.dtype.kind not in "fiub":
        raise DataError(f"{who}: {name} must hold numbers; got {values.dtype}.")
    if not np.isfinite(values).all():
        raise DataError(f"{who}: {name} contains NaN or infinity; this candidate has failed, give FailedCandidate.")
    return values


def _weights(name: str, weights: Any) -> Array:
    values = _finite(name, np.asarray(weights)).astype(np.float64)
    if values.ndim != 1:
        raise ShapeError(f"{_WHO}: {name} must hold one number a source row; got shape {values.shape}.")
    if (values < 0).any() or not values.sum() > 0:
        raise DataError(f"{_WHO}: {name} must be at least 0 and not all 0; a density ratio is never negative.")
    return values


def _class_numbers(name: str, labels: Any, num_classes: int) -> Array:
    values = np.asarray(labels)
    if values.ndim != 1:
        raise ShapeError(f"{_WHO}: {name} must hold one class number a row; got shape {values.shape}.")
    whole = values.dtype.kind in "iu" or (values.dtype.kind == "f" and bool((values == np.rint(values)).all()))
    if not whole or (len(values) and (values.min() < 0 or values.max() >= num_classes)):
        raise DataError(
            f"{_WHO}: {name} must be class numbers 0 to {num_classes - 1}, the columns of the probabilities; "
            f"got {values[:5].tolist()}."
        )
    return values.astype(np.int64)
