"""What every selection rule is: candidates in, one score each out, the higher the better.

A rule never sees a target label: `CandidateEvidence` has no place for one. It states in `RuleFacts` where it comes from, what its
numbers mean and when it is known to fail; read that before trusting it. What cannot be judged gets NaN and a reason.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from headstart.core.errors import ConfigError, DataError, HeadstartError
from headstart.evaluation.selecting.evidence import CandidateEvidence

__all__ = ["CandidateRule", "RuleFacts", "Score", "SelectionRule", "is_tie", "paired_error", "rank_shares"]

Candidates = Mapping[str, CandidateEvidence]

_TIE = 1e-9


@dataclass(frozen=True)
class RuleFacts:
    """What a rule says about itself.

    Parameters
    ----------
    title : str
        Its name in words.
    source : str
        Paper, with equation where there is one.
    unit : str
        Unit of a score.
    bounds : str
        Range of a score; k classes, m target rows, r features.
    fails_when : str
        The known failure.
    """

    title: str
    source: str
    unit: str
    bounds: str
    fails_when: str


@dataclass(frozen=True)
class Score:
    """One candidate's score.

    Parameters
    ----------
    value : float
        The higher the better; NaN where the candidate could not be judged.
    reason : str
        Why not, then.
    outcomes : array, optional
        What the score is the mean of, one number a row, where all candidates are judged on the same rows.
    """

    value: float
    reason: str = ""
    outcomes: npt.NDArray[Any] | None = field(default=None, compare=False, repr=False)

    @property
    def is_judged(self) -> bool:
        """Whether there is a score."""
        return not math.isnan(self.value)


class SelectionRule(ABC):
    """Base of every rule. Its constructor is its configuration.

    Attributes
    ----------
    facts : RuleFacts
        Origin, unit, range and known failure.
    needs : tuple of frozenset of str
        Fields of `CandidateEvidence` a score is computed from: all of *one* of these sets, the best first.
    compares_feature_spaces : bool
        Whether scores of candidates whose features differ in kind and width can be set against each other.
    default_margin : float
        How much better than "do not adapt" a candidate must score unless the caller says otherwise.
    default_errors : float
        The same in standard errors of the paired difference, for rules whose scores have outcomes; the larger counts.
    """

    facts: ClassVar[RuleFacts]
    needs: tuple[frozenset[str], ...]
    compares_feature_spaces: bool = True
    default_margin: float = 0.0
    default_errors: float = 0.0

    @property
    def name(self) -> str:
        """Name of the class."""
        return type(self).__name__

    @property
    def wants(self) -> frozenset[str]:
        """Fields to give where everything can be had: the first of ``needs``, which serves the rule best."""
        return self.needs[0]

    def missing(self, evidence: CandidateEvidence) -> tuple[str, ...]:
        """Return the fields that are lacking, the fewest that would do; empty when the rule can judge."""
        return min((tuple(sorted(need - evidence.available)) for need in self.needs), key=len)

    def margin(self, best: Score, stay: Score) -> float:
        """Return by how much ``best`` must exceed ``stay`` to be chosen over it."""
        return max(self.default_margin, self.default_errors * paired_error(best, stay) if self.default_errors else 0.0)

    def first_choices(self, candidates: Candidates) -> tuple[str, ...]:
        """Return names that are chosen before better scores, as long as they beat "do not adapt"; none unless a rule says so."""
        del candidates
        return ()

    def for_values(self) -> SelectionRule | None:
        """Return what judges candidates that predict numbers in this rule's place; None where there is no such thing."""
        return None

    @abstractmethod
    def scores(self, candidates: Candidates) -> dict[str, Score]:
        """Return a score for each candidate, in the order they came.

        Parameters
        ----------
        candidates : mapping of str to CandidateEvidence
            Candidates by name, all over the same target rows and classes.

        Raises
        ------
        HeadstartError
            If the candidates cannot be set against each other at all.
        """

    def _comparable(self, candidates: Candidates) -> None:
        """Refuse candidates over other rows or classes, or features of other widths where that spoils the comparison."""
        for what, values in {
            "target rows": {name: evidence.num_target_rows for name, evidence in candidates.items()},
            "classes": {name: evidence.num_classes for name, evidence in candidates.items()},
        }.items():
            _same(self.name, what, values)
        if not self.compares_feature_spaces:
            _same(
                self.name,
                "features, and this rule cannot compare such spaces",
                {
                    name: evidence.target_features_mr.shape[1]
                    for name, evidence in candidates.items()
                    if evidence.target_features_mr is not None
                },
            )


class CandidateRule(SelectionRule):
    """A rule that judges each candidate by itself: a subclass writes ``score(evidence)``."""

    def scores(self, candidates: Candidates) -> dict[str, Score]:
        """Return each candidate's own score."""
        self._comparable(candidates)
        return {name: self.judge(evidence) for name, evidence in candidates.items()}

    def judge(self, evidence: CandidateEvidence) -> Score:
        """Return a candidate's score, or NaN with the reason it has none."""
        if missing := self.missing(evidence):
            return Score(math.nan, f"{self.name} needs {', '.join(missing)}")
        try:
            value = float(self.score(evidence))
        except (HeadstartError, ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            return Score(math.nan, f"{type(error).__name__}: {error}")
        if not math.isfinite(value):
            return Score(math.nan, f"{self.name} came out as {value}")
        return Score(value)

    @abstractmethod
    def score(self, evidence: CandidateEvidence) -> float:
        """Return the candidate's score; the higher the better.

        Raises
        ------
        HeadstartError
            If the evidence is too little, or degenerate.
        """


def paired_error(first: Score, second: Score) -> float:
    """Return the standard error of the difference of two scores over the same rows.

    ``sqrt(sum_i (a_i - b_i)^2) / n``: that of McNemar's test under the null, so that one row of difference is never certain.

    Raises
    ------
    DataError
        If a score has no outcomes, or both are not of the same rows.

    Examples
    --------
    >>> paired_error(Score(0.75, outcomes=np.array([1, 1, 1, 0])), Score(0.25, outcomes=np.array([1, 0, 0, 0])))
    0.3535533905932738
    """
    if first.outcomes is None or second.outcomes is None or first.outcomes.shape != second.outcomes.shape:
        raise DataError(
            "paired_error: both scores need outcomes of the same rows, so that their difference can be judged."
        )
    gaps = first.outcomes.astype(np.float64) - second.outcomes.astype(np.float64)
    return float(math.sqrt(np.square(gaps).sum()) / len(gaps))


def is_tie(first: float, second: float) -> bool:
    """Return whether two scores differ by rounding alone."""
    return abs(first - second) <= _TIE * max(1.0, abs(first), abs(second))


def rank_shares(scores: Mapping[str, Score]) -> dict[str, float]:
    """Return for each candidate the share of the others it beats; a tie counts half, one without a score beats none.

    Examples
    --------
    >>> rank_shares({"a": Score(0.5), "b": Score(0.9), "c": Score(0.5)})
    {'a': 0.25, 'b': 1.0, 'c': 0.25}
    """
    return {
        name: sum(_beats(own, other) for rival, other in scores.items() if rival != name) / max(1, len(scores) - 1)
        for name, own in scores.items()
    }


def _beats(own: Score, other: Score) -> float:
    if not own.is_judged or not other.is_judged:
        return 0.5 if own.is_judged == other.is_judged else float(own.is_judged)
    return 0.5 if is_tie(own.value, other.value) else float(own.value > other.value)


def _same(who: str, what: str, values: Mapping[str, int]) -> None:
    if len(set(values.values())) > 1:
        words = ", ".join(f"{name!r} has {value}" for name, value in values.items())
        raise DataError(f"{who}: candidates must have the same number of {what}; {words}.")


def check_choice(who: str, name: str, value: str, known: Iterable[str]) -> str:
    """Return a word; refuse what is none of the known ones."""
    known = tuple(known)
    if value not in known:
        raise ConfigError(f"{who}: {name} must be one of {', '.join(known)}; got {value!r}.")
    return value


def check_positive(who: str, name: str, value: float) -> float:
    """Return a number above 0; refuse anything else."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{who}: {name} must be above 0; got {value}.")
    return value
