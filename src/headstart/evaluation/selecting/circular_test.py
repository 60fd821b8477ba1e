"""Paired circular test: adapt there and back, and adapt only if more source labels return than chance would explain.

    B_c    probabilities of the source rows after candidate c went there and back      (circular validation's three steps)
    score  = 1/n sum_i [argmax B_c(i) = y_i]                                            over all labelled source rows
    chosen over "do not adapt" if  score_c - score_0 > z sqrt(sum_i (r_ci - r_0i)^2) / n,    r = 1 where a label returned
    committee:  B = mean of its members' B, each member gone there and back with its own answers

Sources: circular validation is Bruzzone & Marconcini, IEEE TPAMI 2010, and Zhong et al., ECML PKDD 2010; the paired error is
that of McNemar, Psychometrika 1947, under the null. The rest is headstart's own: judging on every labelled source row, a margin
in standard errors of the pair rather than in points, and the return of a committee.
Use it to choose among anything that can go back, committees before all. A margin in points asks for the impossible where "do not
adapt" returns 98 % of the labels, and for too little on a hundred rows; an error of the pair is small where both agree.
It ignores everything that undoes itself on the way back: classes swapped consistently return as they were.
Its z is not tuned: 1.645 is the one-sided 5 % point of the normal distribution. On docs/benchmarks.md values from 1 to 3 differ
little; below 1 noise is taken for gain.
Where a candidate brings no ``refit`` (too dear for a network) its features stand in: a ridge classifier learns the candidate's
answers on target features and names held-out source rows by theirs, and then every candidate is judged on held-out rows alone.
That way back is the same for all recipes, so it asks whether the answers fit the features rather than whether the recipe undoes
itself: weaker, and measured so. With neither a candidate is not judged, and not chosen.
Shapes: n source rows trained on, v held out, m target rows, d features, r features as seen, k classes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from headstart.core.errors import ConfigError, DataError, HeadstartError
from headstart.evaluation.selecting.evidence import CandidateEvidence
from headstart.evaluation.selecting.rule import Candidates, RuleFacts, Score, SelectionRule

__all__ = ["CircularTest"]

Array = npt.NDArray[Any]


class CircularTest(SelectionRule):
    """Share of source labels that come back, told from chance row by row.

    Parameters
    ----------
    num_errors : float
        z: how many standard errors of the paired difference a candidate must return more than "do not adapt"; at least 0.

    Examples
    --------
    >>> class Nearest:
    ...     def __init__(self, rows, labels, target): self.rows, self.labels = rows, labels
    ...     def predict(self, rows): return self.labels[abs(rows - self.rows.T).argmin(axis=1)]
    >>> evidence = CandidateEvidence(
    ...     target_probabilities_mk=np.array([[0.9, 0.1], [0.2, 0.8]]), target_rows_md=np.array([[0.0], [4.0]]),
    ...     source_rows_vd=np.array([[1.0], [3.0]]), source_labels_v=[0, 1],
    ...     source_training_nd=np.array([[5.0], [0.5]]), source_training_labels_n=[0, 0], refit=Nearest)
    >>> score = CircularTest().scores({"nearest": evidence})["nearest"]
    >>> score.value, score.outcomes.tolist()     # held-out rows return as 0, 1; rows trained on as 1, 0
    (0.75, [1.0, 1.0, 0.0, 1.0])
    """

    facts = RuleFacts(
        title="paired circular test",
        source="headstart's own, on circular validation (Bruzzone & Marconcini, IEEE TPAMI 2010) and McNemar 1947",
        unit="share of source rows",
        bounds="0 to 1",
        fails_when="classes are swapped consistently: a wrong map that can be undone returns every label",
    )
    needs = (
        frozenset({"refit", "source_rows_vd", "source_labels_v", "target_rows_md"}),
        frozenset({"source_features_vr", "target_features_mr", "source_labels_v"}),
    )

    def __init__(self, num_errors: float = 1.645) -> None:
        if not (math.isfinite(num_errors) and num_errors >= 0):
            raise ConfigError(f"CircularTest: num_errors must be a number of at least 0; got {num_errors}.")
        self.num_errors = num_errors
        self.default_errors = num_errors

    def scores(self, candidates: Candidates) -> dict[str, Score]:
        """Return each candidate's share of labels that return, with the outcome of every row: held-out rows first."""
        self._comparable(candidates)
        held_out_alone = any(self._goes_by_features(evidence) for evidence in candidates.values())
        known: dict[int, Array] = {}
        return {name: self._judge(evidence, held_out_alone, known) for name, evidence in candidates.items()}

    def missing(self, evidence: CandidateEvidence) -> tuple[str, ...]:
        """Return the fields that are lacking; of a committee, those of the first member that lacks any."""
        if evidence.members is None:
            return super().missing(evidence)
        return next((lacking for member in evidence.members if (lacking := self.missing(member))), ())

    def first_choices(self, candidates: Candidates) -> tuple[str, ...]:
        """Return the committees: one that passes is chosen before any single candidate."""
        return tuple(name for name, evidence in candidates.items() if evidence.members is not None)

    def returned(self, evidence: CandidateEvidence) -> Array:
        """Return probabilities of source rows after the way back, held-out rows first, then those trained on.

        Raises
        ------
        HeadstartError
            If the way back breaks off, or gives no classes for these rows.
        """
        return self._returned(evidence, {})

    def _judge(self, evidence: CandidateEvidence, held_out_alone: bool, known: dict[int, Array]) -> Score:
        if missing := self.missing(evidence):
            return Score(math.nan, f"{self.name} needs {', '.join(missing)}")
        try:
            table = self._returned(evidence, known)
        except (HeadstartError, ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            return Score(math.nan, f"{type(error).__name__}: {error}")
        labels = _labels(evidence)
        if held_out_alone:
            assert evidence.source_labels_v is not None
            table, labels = table[: len(evidence.source_labels_v)], evidence.source_labels_v
        outcomes = (table.argmax(axis=1) == labels).astype(np.float64)
        return Score(float(outcomes.mean()), outcomes=outcomes)

    def _returned(self, evidence: CandidateEvidence, known: dict[int, Array]) -> Array:
        if id(evidence) not in known:
            if evidence.members is not None:
                tables = [self._returned(member, known) for member in evidence.members]
                fewest = min(
                    len(table) for table in tables
                )  # one that goes by features answers for held-out rows alone
                known[id(evidence)] = np.asarray(np.mean([table[:fewest] for table in tables], axis=0))
            elif self._goes_by_features(evidence):
                known[id(evidence)] = _by_features(evidence)
            else:
                known[id(evidence)] = _by_recipe(evidence)
        return known[id(evidence)]

    def _goes_by_features(self, evidence: CandidateEvidence) -> bool:
        if evidence.members is not None:
            return any(self._goes_by_features(member) for member in evidence.members)
        by_recipe, by_features = self.needs
        return bool(by_recipe - evidence.available) and not by_features - evidence.available


def _labels(evidence: CandidateEvidence) -> Array:
    """Return the labels of the rows that go back: held-out rows, then those trained on where their labels are known."""
    if evidence.members is not None:
        return _labels(evidence.members[0])
    assert evidence.source_labels_v is not None
    if evidence.refit is None or evidence.source_training_labels_n is None:
        return evidence.source_labels_v
    return np.concatenate([evidence.source_labels_v, evidence.source_training_labels_n])


def _by_recipe(evidence: CandidateEvidence) -> Array:
    """Return the source rows' probabilities after the candidate's own recipe went back."""
    assert evidence.refit is not None
    rows, back = evidence.source_rows_vd, evidence.source_training_nd
    if back is not None and evidence.source_training_labels_n is not None:
        stack: Any = sparse.vstack if sparse.issparse(rows) else np.concatenate
        rows = stack([rows, back])
    back = evidence.source_rows_vd if back is None else back
    pseudo_m = evidence.target_probabilities_mk.argmax(axis=1)
    identity = np.eye(evidence.num_classes)
    if (pseudo_m == pseudo_m[0]).all():
        return np.repeat(identity[pseudo_m[:1]], rows.shape[0], axis=0)
    predictor: Any = evidence.refit(evidence.target_rows_md, pseudo_m, back)
    if hasattr(predictor, "predict_proba") and hasattr(predictor, "classes_"):
        table = np.zeros((rows.shape[0], evidence.num_classes))
        table[:, np.asarray(predictor.classes_, dtype=np.int64)] = predictor.predict_proba(rows)
        return table
    answers = np.asarray(predictor.predict(rows))
    if answers.shape != (rows.shape[0],) or answers.dtype.kind not in "iuf":
        raise DataError(
            f"CircularTest: refit(...).predict must return a class number for each of {rows.shape[0]} rows; got "
            f"{answers.dtype} of shape {answers.shape}."
        )
    return np.asarray(identity[answers.astype(np.int64)])


def _by_features(evidence: CandidateEvidence) -> Array:
    """Return held-out source rows' scores by a ridge classifier that learnt the candidate's answers from target features."""
    from sklearn.linear_model import Ridge

    target, source = evidence.target_features_mr, evidence.source_features_vr
    assert target is not None and source is not None
    pseudo_mk = np.eye(evidence.num_classes)[evidence.target_probabilities_mk.argmax(axis=1)]
    centred = target.astype(np.float64) - target.mean(axis=0, dtype=np.float64)
    penalty = max(float(np.square(centred).sum(axis=1).mean()), np.finfo(np.float64).tiny)
    model = Ridge(alpha=penalty).fit(target.astype(np.float64), pseudo_mk)
    return np.asarray(model.predict(source.astype(np.float64)))
