"""A few labelled target rows choose among the candidates of `adapt`, where there are enough of them.

    each row is answered by every candidate that has not learned from it (five folds)
    classes: share of right answers          numbers: R2, row by row 1 - (answer - label)^2 / Var(labels)

Enough are five rows of every class, or ten rows with numbers: two a fold, as many as five of each of two classes. An adaptation
has to beat "do not adapt" beyond chance, row by row.
Shapes: n source rows, m target rows, l labelled target rows, k classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError, HeadstartError
from headstart.evaluation.selection import RuleFacts, Score, SelectionRule
from headstart.model import Model
from headstart.workflow.committee import FittedCommittee
from headstart.workflow.domains import TwoDomains
from headstart.workflow.few_labels import CandidateWithFew
from headstart.workflow.few_rows import FewRows
from headstart.workflow.rivals import FittedCandidate, FittedEstimator, Rival
from headstart.workflow.staged_rivals import FittedStages

__all__ = ["FewLabelTest", "FewValueTest", "answer_few", "few_test"]

Array = NDArray[Any]
_FAILURES = (HeadstartError, ValueError, ArithmeticError, np.linalg.LinAlgError)


class FewLabelTest(SelectionRule):
    """Share of labelled target rows that are answered rightly by who has not learned from them.

    Parameters
    ----------
    labels_l : int64 array of shape (l,)
        Their classes.
    answers : mapping of str to array of shape (l, k), or str
        Every candidate's probabilities for them, or why there are none.

    Examples
    --------
    >>> sure, torn = np.eye(2)[[0, 1, 1]], np.eye(2)[[0, 0, 0]]
    >>> rule = FewLabelTest(np.array([0, 1, 1]), {"a": sure, "b": torn})
    >>> [score.value for score in rule.scores({"a": None, "b": None}).values()]
    [1.0, 0.3333333333333333]
    """

    facts = RuleFacts(
        title="cross-validation over labelled target rows",
        source="five folds; the paired error is that of McNemar, Psychometrika 1947, under the null",
        unit="share of labelled target rows",
        bounds="0 to 1",
        fails_when="the labelled rows are not drawn like the others",
    )
    needs = (frozenset(),)
    default_errors = 1.645  # as for the circular test: the one-sided 5 % point

    def __init__(self, labels_l: Array, answers: Mapping[str, Array | str]) -> None:
        self.labels_l, self.answers = labels_l, dict(answers)

    def scores(self, candidates: Mapping[str, Any]) -> dict[str, Score]:
        """Return each candidate's mean outcome over the labelled target rows."""
        found = {}
        for name in candidates:
            table = self.answers.get(name, "it was not asked")
            if isinstance(table, str):
                found[name] = Score(float("nan"), table)
                continue
            outcomes = self._outcomes(table)
            found[name] = Score(float(outcomes.mean()), outcomes=outcomes)
        return found

    def _outcomes(self, answers: Array) -> Array:
        """Return one number a row whose mean is the score."""
        return np.asarray(answers.argmax(axis=1) == self.labels_l, np.float64)


class FewValueTest(FewLabelTest):
    """R2 on labelled target rows that are answered by who has not learned from them.

    A row's outcome is ``1 - (answer - label)^2 / Var(labels)``; the rows' mean is R2.

    Parameters
    ----------
    labels_l : float64 array of shape (l,)
        Their numbers, not all equal.
    answers : mapping of str to array of shape (l,), or str
        Every candidate's numbers for them, or why there are none.

    Examples
    --------
    >>> rule = FewValueTest(np.array([0.0, 2.0]), {"a": np.array([0.0, 1.0]), "b": np.array([1.0, 1.0])})
    >>> [score.value for score in rule.scores({"a": None, "b": None}).values()]      # errors 0 and 1, variance 1
    [0.5, 0.0]
    """

    facts = replace(
        FewLabelTest.facts,
        source=f"{FewLabelTest.facts.source}, of squared errors",
        unit="R2 on labelled target rows",
        bounds="at most 1",
        fails_when=f"{FewLabelTest.facts.fails_when}, or one of them is far off and outweighs all others",
    )

    def for_values(self) -> SelectionRule:
        """Return the rule itself."""
        return self

    def _outcomes(self, answers: Array) -> Array:
        return np.asarray(1.0 - np.square(answers - self.labels_l) / self.labels_l.var())


def few_test(rivals: Sequence[Rival], few: FewRows, two: TwoDomains, labels_n: Array, seed: int) -> FewLabelTest:
    """Return the rule by which labelled target rows choose among candidates.

    Parameters
    ----------
    rivals, few, two, labels_n, seed
        As for `answer_few`.
    """
    answers = answer_few(rivals, few, two, labels_n, seed)
    return (FewLabelTest if few.has_classes else FewValueTest)(few.labels_l, answers)


def answer_few(
    rivals: Sequence[Rival], few: FewRows, two: TwoDomains, labels_n: Array, seed: int
) -> dict[str, Array | str]:
    """Return every candidate's probabilities (numbers) for the labelled target rows, each by a fit that has not learned from it.

    Parameters
    ----------
    rivals : sequence of Rival
        Carried through.
    few : FewRows
        Enough to choose (`FewRows.too_few`).
    two : TwoDomains
        Where candidates learned.
    labels_n : array of shape (n,)
        Class numbers, or numbers, of the source rows.
    seed : int
        Of the folds.
    """
    found: dict[str, Array | str] = {}
    by_fitted: dict[int, Array] = {}
    for rival in rivals:
        fitted = rival.fitted
        if fitted is None:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                table = _answers(fitted, few, two, labels_n, by_fitted, seed)
            found[rival.name] = by_fitted[id(fitted)] = table
        except _FAILURES as error:
            found[rival.name] = str(error)
    return found


def _answers(
    fitted: FittedCandidate, few: FewRows, two: TwoDomains, labels_n: Array, known: Mapping[int, Array], seed: int
) -> Array:
    if isinstance(fitted, FittedCommittee):
        if missing := [member for member in fitted.members if id(member) not in known]:
            raise DataError(f"{len(missing)} of its members have no answers for the labelled target rows")
        return np.asarray(np.mean([known[id(member)] for member in fitted.members], axis=0))
    table = np.zeros((len(few), int(labels_n.max()) + 1) if few.has_classes else len(few))
    if isinstance(fitted, FittedStages):
        if fitted.again is None:
            return _said(fitted.found.model, few)
        for learn, answer in few.folds(seed):
            table[answer] = _said(fitted.again(few.rows.subset(learn)).model, few.subset(answer))
        return table
    assert isinstance(fitted, FittedEstimator)
    source, target = fitted.rows
    values = few.scaled_ld if target is two.target_md else few.raw_ld
    if not isinstance(fitted.estimator, CandidateWithFew):
        return _asked(fitted.estimator, values)
    for _, answer in few.folds(seed):
        learnt = fitted.estimator.without(answer).fit(source, labels_n, target)
        table[answer] = _asked(learnt, values[answer])
    return table


def _asked(estimator: Any, rows: Array) -> Array:
    return np.asarray(getattr(estimator, "predict_proba", estimator.predict)(rows), np.float64)


def _said(model: Model, few: FewRows) -> Array:
    return model.predict(few.rows.unlabelled(), store=False, runtime="torch-fp32").scores
