"""Judging adaptations that answer with numbers: the evidence, and the rules that make sense without probabilities.

    e_i = (prediction - label)^2 / Var(labels)    squared error of a source row, in units of the labels' variance
    SourceError                     1 - mean e                                                          (R2)
    ValueCircularValidation         1 - mean e of source rows after adapting to the target and back     (R2)
    ValueImportanceWeighted         -mean(w e)
    ValueDeepEmbeddedValidation     -(mean(w e) + eta mean(w) - eta),  eta as for classes

Sources: those of the rules for classes, whose counterparts these are (`circular`, `source_risk`); DEV and importance
weighting are stated for any loss. Dividing by the variance frees scores and margins from the unit of the labels.
Use them through the rules for classes: `select` asks those for their counterpart when candidates come as `ValueEvidence`. What
reads probabilities (entropy, clusters of classes) has none.
Margins are measured on the 24 pairs of benchmarks/adaptation_of_numbers.py: at 0.02 the error on the source chooses a helpful
default candidate once and a harmful one never; circular validation needs 0.05 to choose none that hurts, and then chooses
none at all; importance weighting and DEV hurt more often than they help at every margin tried.
They ignore target labels, which `ValueEvidence` has no place for, and all that their counterparts ignore.
Shapes: v source rows to judge on, n source rows trained on, m target rows, d features before and r after adaptation.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.checks import check_matrix, check_same_rows
from headstart.core.errors import DataError, ShapeError
from headstart.evaluation.selecting.evidence import Refit
from headstart.evaluation.selecting.rule import CandidateRule, RuleFacts, SelectionRule
from headstart.evaluation.selecting.source_risk import control_variate_risk, density_ratio

__all__ = [
    "SourceError",
    "ValueCircularValidation",
    "ValueDeepEmbeddedValidation",
    "ValueEvidence",
    "ValueImportanceWeighted",
]

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

_WHO = "ValueEvidence"
_SOURCE = frozenset({"source_values_v", "source_labels_v"})


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ValueEvidence:
    """One candidate that predicts numbers, as far as it may be judged without target labels; counterpart of `CandidateEvidence`.

    Parameters
    ----------
    target_values_m : array of shape (m,)
        The candidate's predictions for target rows.
    source_values_v : array of shape (v,), optional
        Its predictions for source rows that it was *not* trained on.
    source_labels_v : array of shape (v,), optional
        The true numbers of those source rows.
    source_rows_vd, target_rows_md, source_training_nd : array or sparse matrix, optional
        Those source rows, target rows, and source rows trained on, before adaptation.
    source_features_vr, target_features_mr : array, optional
        The same source and target rows as the adapted regressor sees them.
    input_weights_v, feature_weights_v : array of shape (v,), optional
        Density ratio target / source before and after adaptation; estimated from the rows where it is not given.
    refit : callable, optional
        The candidate's own recipe, applied afresh: source rows, their numbers, target rows in; a predictor of numbers out.

    Raises
    ------
    HeadstartError
        If shapes do not fit each other or a value is not finite.

    Examples
    --------
    >>> evidence = ValueEvidence(target_values_m=[1.0, 2.5], source_values_v=[0.0], source_labels_v=[0.5])
    >>> evidence.num_target_rows, sorted(evidence.available)
    (2, ['source_labels_v', 'source_values_v', 'target_values_m'])
    """

    target_values_m: Any
    source_values_v: Any = None
    source_labels_v: Any = None
    source_rows_vd: Any = None
    target_rows_md: Any = None
    source_features_vr: Any = None
    target_features_mr: Any = None
    source_training_nd: Any = None
    input_weights_v: Any = None
    feature_weights_v: Any = None
    refit: Refit | None = None

    def __post_init__(self) -> None:
        for name in ("target_values_m", "source_values_v", "source_labels_v", "input_weights_v", "feature_weights_v"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        for name in ("input_weights_v", "feature_weights_v"):
            weights = getattr(self, name)
            if weights is not None and ((weights < 0).any() or not weights.sum() > 0):
                raise DataError(f"{_WHO}: {name} must be at least 0 and not all 0; a density ratio is never negative.")
        for suffixes in (("_v", "_vd", "_vr"), ("_m", "_md", "_mr")):
            names = [item.name for item in fields(self) if item.name[item.name.rfind("_") :] in suffixes]
            given = [name for name in names if getattr(self, name) is not None]
            for name in given[1:]:
                check_same_rows(_WHO, given[0], getattr(self, given[0]), name, getattr(self, name))
        for name in (
            "source_rows_vd",
            "target_rows_md",
            "source_training_nd",
            "source_features_vr",
            "target_features_mr",
        ):
            if getattr(self, name) is not None:
                check_matrix(_WHO, name, getattr(self, name))

    @property
    def num_target_rows(self) -> int:
        """Number of target rows m."""
        return len(self.target_values_m)

    @property
    def available(self) -> frozenset[str]:
        """Names of what was given."""
        return frozenset(item.name for item in fields(self) if getattr(self, item.name) is not None)


def _numbers(name: str, values: Any) -> FloatArray:
    found = np.asarray(values)
    if found.ndim != 1 or found.dtype.kind not in "fiub":
        raise ShapeError(f"{_WHO}: {name} must hold one number a row; got {found.dtype} of shape {found.shape}.")
    if not np.isfinite(found).all():
        raise DataError(f"{_WHO}: {name} contains NaN or infinity; this candidate has failed, give FailedCandidate.")
    return found.astype(np.float64)


class ValueRule(CandidateRule):
    """Base of the rules for numbers: candidates are `ValueEvidence`, and a gain of 2 % of the labels' variance is the least."""

    default_margin = 0.02

    def for_values(self) -> SelectionRule:
        """Return the rule itself."""
        return self

    def _comparable(self, candidates: Any) -> None:
        """Refuse candidates over other target rows."""
        counts = {name: evidence.num_target_rows for name, evidence in candidates.items()}
        if len(set(counts.values())) > 1:
            words = ", ".join(f"{name!r} has {count}" for name, count in counts.items())
            raise DataError(f"{self.name}: candidates must have the same number of target rows; {words}.")

    @staticmethod
    def errors(values_v: Any, labels_v: FloatArray) -> FloatArray:
        """Return squared errors over the variance of the labels.

        Raises
        ------
        DataError
            If all labels are equal: their variance is 0.
        """
        variance = float(labels_v.var())
        if variance <= 0.0:
            raise DataError("every held-out source row has the same number; there is nothing to predict.")
        return np.asarray(np.square(np.asarray(values_v, dtype=np.float64) - labels_v) / variance)


class SourceError(ValueRule):
    """R2 on held-out source rows; the baseline rule.

    Examples
    --------
    >>> evidence = ValueEvidence(target_values_m=[0.0], source_values_v=[0.0, 1.0], source_labels_v=[0.0, 2.0])
    >>> SourceError().score(evidence)            # errors 0 and 1, variance 1
    0.5
    """

    facts = RuleFacts(
        title="source validation error",
        source="the baseline of every study, e.g. Musgrave, Belongie & Lim 2022 (arXiv:2208.07360)",
        unit="R2 on source rows",
        bounds="at most 1",
        fails_when="the domains differ: it never looks at the target, so nothing that adapting changes there counts",
    )
    needs = (_SOURCE,)

    def score(self, evidence: Any) -> float:
        """Return R2."""
        return 1.0 - float(self.errors(evidence.source_values_v, evidence.source_labels_v).mean())


class ValueCircularValidation(ValueRule):
    """R2 of source labels that come back after adapting to the target and back again.

    Examples
    --------
    >>> class Nearest:
    ...     def __init__(self, rows, labels, target): self.rows, self.labels = rows, labels
    ...     def predict(self, rows): return self.labels[abs(rows - self.rows.T).argmin(axis=1)]
    >>> evidence = ValueEvidence(
    ...     target_values_m=[0.0, 4.0], target_rows_md=np.array([[0.0], [4.0]]), source_rows_vd=np.array([[1.0], [3.0]]),
    ...     source_labels_v=[1.0, 3.0], refit=Nearest)
    >>> ValueCircularValidation().score(evidence)      # returns as 0 and 4: errors 1 over a variance of 1
    0.0
    """

    facts = RuleFacts(
        title="circular validation",
        source="Bruzzone & Marconcini, IEEE TPAMI 2010; Zhong et al., ECML PKDD 2010 (there for classes)",
        unit="R2 on source rows",
        bounds="at most 1",
        fails_when="a wrong map can be undone: an offset that goes there and comes back costs nothing",
    )
    needs = (frozenset({"refit", "source_rows_vd", "source_labels_v", "target_rows_md"}),)
    default_margin = 0.05

    def score(self, evidence: Any) -> float:
        """Return R2 of what comes back."""
        back = evidence.source_rows_vd if evidence.source_training_nd is None else evidence.source_training_nd
        predictor = evidence.refit(evidence.target_rows_md, evidence.target_values_m, back)
        answers = np.asarray(predictor.predict(evidence.source_rows_vd), dtype=np.float64)
        if answers.shape != evidence.source_labels_v.shape:
            raise DataError(
                f"{self.name}: refit(...).predict must return a number for each of {len(evidence.source_labels_v)} rows; "
                f"got shape {answers.shape}."
            )
        return 1.0 - float(self.errors(answers, evidence.source_labels_v).mean())


class ValueImportanceWeighted(ValueRule):
    """Minus the squared error on source rows, weighted by the density ratio *before* adaptation.

    Parameters
    ----------
    random_state : int
        Folds of the domain classifier, where ``input_weights_v`` is not given.

    Examples
    --------
    >>> evidence = ValueEvidence(
    ...     target_values_m=[0.0], source_values_v=[0.0, 1.0], source_labels_v=[0.0, 2.0], input_weights_v=[0.5, 1.5])
    >>> ValueImportanceWeighted().score(evidence)      # -(0.5 * 0 + 1.5 * 1) / 2
    -0.75
    """

    facts = RuleFacts(
        title="importance-weighted validation (IWCV)",
        source="Sugiyama, Krauledat & Mueller, JMLR 2007",
        unit="squared error over the variance of the source labels",
        bounds="at most 0; 0 is best",
        fails_when="the domains hardly overlap: a few source rows carry all the weight, and the score is their luck",
    )
    needs = (_SOURCE | {"source_rows_vd", "target_rows_md"}, _SOURCE | {"input_weights_v"})

    def __init__(self, random_state: int = 0) -> None:
        self.random_state = random_state

    def score(self, evidence: Any) -> float:
        """Return minus the weighted error."""
        weights_v = evidence.input_weights_v
        if weights_v is None:
            weights_v = density_ratio(evidence.source_rows_vd, evidence.target_rows_md, random_state=self.random_state)
        return -float(np.mean(weights_v * self.errors(evidence.source_values_v, evidence.source_labels_v)))


class ValueDeepEmbeddedValidation(ValueRule):
    """Minus the squared target error, estimated from source rows weighted *after* adaptation, with a control variate.

    Parameters
    ----------
    random_state : int
        Folds of the domain classifier, where ``feature_weights_v`` is not given.

    Examples
    --------
    >>> evidence = ValueEvidence(
    ...     target_values_m=[0.0], source_values_v=[0.0, 1.0], source_labels_v=[0.0, 2.0], feature_weights_v=[3.0, 1.0])
    >>> ValueDeepEmbeddedValidation().score(evidence)    # w e = (0, 1): eta = 1/2, error 1/2 + 1/2 (2 - 1)
    -1.0
    """

    facts = RuleFacts(
        title="deep embedded validation (DEV)",
        source="You, Wang, Long & Jordan, ICML 2019",
        unit="squared error over the variance of the source labels",
        bounds="any number; about 0 is best",
        fails_when="adapting pulls the domains apart, or a few weights dominate: the estimate has no bounds and can fall "
        "below an error of 0",
    )
    needs = (_SOURCE | {"source_features_vr", "target_features_mr"}, _SOURCE | {"feature_weights_v"})

    def __init__(self, random_state: int = 0) -> None:
        self.random_state = random_state

    def score(self, evidence: Any) -> float:
        """Return minus the estimated target error."""
        weights_v = evidence.feature_weights_v
        if weights_v is None:
            weights_v = density_ratio(
                evidence.source_features_vr, evidence.target_features_mr, random_state=self.random_state
            )
        errors = self.errors(evidence.source_values_v, evidence.source_labels_v)
        return -control_variate_risk(errors, weights_v)
