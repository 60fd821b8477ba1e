"""A few labelled target rows in `adapt`: who learns from them, what they alone would teach, and when they may choose.

    aligners that read target labels (tradaboost, fusion, ...)      get them as labelled target rows
    networks (mme and all others)                                   get them among the labelled rows, as a domain of their own
    "few labels alone"                                              the classifier of the aligners, on nothing but them
    all other candidates                                            do not see them

With five rows of every class they choose: each is answered by every candidate that has not learned from it (five folds), and an
adaptation has to beat "do not adapt" beyond chance, row by row. With fewer a rule without target labels chooses; candidates that
cannot go back without labels of the other domain are then not judged, because such labels would help them to the answer, and for
the same reason have no seat in the committee. It ignores regression.
Shapes: n source rows, m target rows, l labelled target rows, d features, k classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold

from headstart.alignment import AdaptedClassifier, Aligner
from headstart.core.errors import DataError, HeadstartError
from headstart.core.tasks import Task
from headstart.data import Dataset
from headstart.evaluation.selection import CandidateEvidence, RuleFacts, Score, SelectionRule
from headstart.features import FeatureStore, extract_features
from headstart.methods import AdaptedNetwork
from headstart.model import Model
from headstart.workflow.adaptations import base_classifier
from headstart.workflow.committee import FittedCommittee
from headstart.workflow.domains import TwoDomains, open_like_target
from headstart.workflow.entrants import FOLDS, Entrant
from headstart.workflow.rivals import FittedCandidate, FittedEstimator, Rival
from headstart.workflow.several_sources import ApartClassifier, FittedApart, SourceNumbers
from headstart.workflow.staged_rivals import FittedStages

__all__ = ["FEW_ALONE", "FEW_CANDIDATES", "FewLabelTest", "FewRows", "answer_few", "open_few", "with_few"]

Array = NDArray[Any]

FEW_ALONE = "few labels alone"
FEW_CANDIDATES = ("feature-augmentation", "fusion", "source-prior", "balanced-weighting", "tradaboost")
_FAILURES = (HeadstartError, ValueError, ArithmeticError, np.linalg.LinAlgError)


@dataclass(frozen=True)
class FewRows:
    """Labelled target rows.

    Parameters
    ----------
    rows : Dataset
        With class numbers of the source's classes, as candidates number them.
    codes_l : int64 array of shape (l,)
        These numbers.
    raw_ld, scaled_ld : float32 arrays
        Features as the base model gives them, and on the scale of the aligners.
    """

    rows: Dataset
    codes_l: Array
    raw_ld: Array
    scaled_ld: Array

    def __deepcopy__(self, memo: dict[int, Any]) -> FewRows:
        """Return itself: an estimator that is cloned goes on with the same rows."""
        return self

    def __len__(self) -> int:
        return len(self.codes_l)

    def subset(self, places: Array) -> FewRows:
        """Return some of them."""
        return FewRows(self.rows.subset(places), self.codes_l[places], self.raw_ld[places], self.scaled_ld[places])

    def too_few(self, classes: Sequence[str]) -> str:
        """Return why these rows cannot choose; empty where they can.

        Parameters
        ----------
        classes : sequence of str
            Of the source.
        """
        counts = np.bincount(self.codes_l, minlength=len(classes))
        least = int(counts.argmin())
        if counts[least] >= FOLDS:
            return ""
        return (
            f"{counts[least]} labelled target rows of class {classes[least]!r}, and {FOLDS} of every class could choose"
        )

    def folds(self, seed: int) -> list[tuple[Array, Array]]:
        """Return places to learn from and places to answer, each row answered once."""
        split = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        return [(learn, answer) for learn, answer in split.split(self.codes_l[:, None], self.codes_l)]


def open_few(
    few: Any,
    labels: Any,
    two: TwoDomains,
    classes: Sequence[str],
    columns: Mapping[str, Any],
    store: FeatureStore | bool | None,
) -> FewRows:
    """Open and embed labelled target rows.

    Parameters
    ----------
    few : path, DataFrame, array, list or Dataset
        The rows, with labels.
    labels : sequence, optional
        Labels for arrays and lists.
    two : TwoDomains
        What they belong to.
    classes : sequence of str
        Of the source, as candidates number them.
    columns : mapping
        Columns of tables.
    store : FeatureStore or bool, optional
        Where features are kept.

    Raises
    ------
    DataError
        If a label is no class of the source, or rows stand among the target's, too, where labels are for the end.
    """
    rows = open_like_target("adapt", few, dict(columns), labels, two.source)
    assert rows.task is not None and rows.targets is not None
    if rows.task.kind != "classification":
        raise DataError(f"adapt: the few labelled rows make a {rows.task.kind} task, the source's labels classes.")
    names = [rows.task.classes[int(code)] for code in rows.targets]
    places = {name: place for place, name in enumerate(classes)}
    if unknown := sorted(set(names) - set(places)):
        raise DataError(
            f"adapt: the few labelled rows name {unknown[0]!r}, a class the source does not have; its classes are "
            f"{', '.join(list(classes)[:8])}. Leave such rows out."
        )
    features = extract_features(rows.unlabelled(), two.backbone, runtime=two.features[1].runtime.label, store=store)
    kept = rows.subset(features.kept)
    codes = np.array([places[names[int(place)]] for place in features.kept], np.int64)
    if two.truth is not None and (both := set(kept.digests()) & set(two.target.digests())):
        raise DataError(
            f"adapt: {len(both)} of the few labelled rows are among the target rows too, whose labels are for the end alone; "
            "leave them out of one of the two."
        )
    named = kept.relabelled(Task("classification", tuple(classes)), codes)
    return FewRows(named, codes, features.values_nd, two.scale(features.values_nd))


class LearnsFromFew(ApartClassifier):
    """A candidate that gets labelled target rows, too.

    Parameters
    ----------
    inner : Aligner
        The candidate, unfitted: one that reads target labels, or a network.
    numbers : SourceNumbers
        Knows the source rows, and tells several sources apart.
    few : FewRows
        Labelled target rows.
    """

    def __init__(self, inner: Aligner, numbers: SourceNumbers, few: FewRows) -> None:
        super().__init__(inner, numbers)
        self.few = few

    def fit(self, X: Any, y: Any, target: Any = None, *, sample_domain: Any = None) -> Self:
        """Learn from source rows, labelled target rows and target rows; on a rule's way back there are none with labels."""
        domains = self._read(X, y, target, sample_domain)
        source, others, labels = domains.source_nd, domains.target_md, np.asarray(domains.source_labels_n)
        forward, inner = self.numbers.knows(source), clone(self.inner)
        if isinstance(inner, AdaptedNetwork):
            self.inner_ = self._network(inner, source, labels, others, forward)
        elif forward:
            given = np.concatenate([np.full(len(others), -1), self.few.codes_l])
            every = np.concatenate([others, self.few.scaled_ld.astype(others.dtype)])
            self.inner_ = inner.fit(source, labels, every, target_labels=given)
        else:
            raise DataError(f"{type(inner).__name__} cannot go back: there are no labelled rows of the other domain")
        self.classes_ = self.inner_.classes_
        return self

    def _network(self, inner: AdaptedNetwork, source: Array, labels: Array, others: Array, forward: bool) -> Any:
        """Train with labelled target rows as a domain of their own among the labelled ones."""
        numbers = self.numbers(source)
        rows, codes, where = [source], [labels], [numbers]
        if forward:
            rows.append(self.few.raw_ld.astype(source.dtype))
            codes.append(self.few.codes_l)
            where.append(np.full(len(self.few), numbers.max() + 1))
        rows, codes, where = (
            [*rows, others],
            [*codes, np.repeat(labels[:1], len(others))],
            [*where, np.full(len(others), -1)],
        )
        return inner.fit(np.concatenate(rows), np.concatenate(codes), sample_domain=np.concatenate(where))

    def around(self, inner: Aligner) -> LearnsFromFew:
        """Return the same around another candidate."""
        return type(self)(inner, self.numbers, self.few)

    def without(self, places: Array) -> LearnsFromFew:
        """Return it unfitted, with some of the labelled target rows left out."""
        kept = np.setdiff1d(np.arange(len(self.few)), places)
        return type(self)(self.inner, self.numbers, self.few.subset(kept))


class FewAlone(LearnsFromFew):
    """The classifier of the aligners, on labelled target rows and nothing else; source rows say only which classes there are."""

    def fit(self, X: Any, y: Any, target: Any = None, *, sample_domain: Any = None) -> Self:
        """Learn from labelled target rows."""
        domains = self._read(X, y, target, sample_domain)
        if not self.numbers.knows(domains.source_nd):
            raise DataError("a classifier of labelled target rows alone has no way back")
        self.classes_ = np.unique(np.asarray(domains.source_labels_n))
        if missing := set(self.classes_.tolist()) - set(self.few.codes_l.tolist()):
            raise DataError(f"{len(missing)} classes have no labelled target row")
        rows, codes = self.few.scaled_ld, self.few.codes_l
        self.inner_ = AdaptedClassifier(None, base_classifier(rows, codes)).fit(rows, codes)
        return self


class FittedByFew(FittedApart):
    """A candidate that makes nothing of its own without labelled target rows."""

    has_seat = False


def with_few(entrants: Sequence[Entrant], few: FewRows, two: TwoDomains, *, chooses: bool = False) -> list[Entrant]:
    """Return candidates, those that can with labelled target rows, and "few labels alone" after "do not adapt".

    Parameters
    ----------
    entrants : sequence of Entrant
        "Do not adapt" first.
    few, two
        The rows.
    chooses : bool
        Whether labelled target rows will choose: each fold of them then asks for a fit.
    """
    later = FOLDS if chooses else 0
    plain = SourceNumbers(two.source_nd, np.zeros(len(two.source_nd)))
    alone = FewAlone(AdaptedClassifier(None), plain, few)
    found = [Entrant(FEW_ALONE, alone, two.source_nd, two.target_md, FittedByFew, later)]
    for entrant in entrants:
        estimator: Any = entrant.estimator
        told = isinstance(estimator, ApartClassifier)
        inner = estimator.inner if told else estimator
        if not (isinstance(inner, AdaptedNetwork) or inner.uses_target_labels):
            found.append(entrant)
            continue
        rows = entrant.source_nd
        numbers = estimator.numbers if told else SourceNumbers(rows, np.zeros(len(rows)))
        learner = LearnsFromFew(inner, numbers, few)
        kind = FittedApart if isinstance(inner, AdaptedNetwork) else FittedByFew
        found.append(Entrant(entrant.name, learner, rows, entrant.target_md, kind, later))
    return [*found[1:2], found[0], *found[2:]]


class FewLabelTest(SelectionRule):
    """Share of labelled target rows that are answered rightly by who has not learned from them.

    Parameters
    ----------
    codes_l : int64 array of shape (l,)
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

    def __init__(self, codes_l: Array, answers: Mapping[str, Array | str]) -> None:
        self.codes_l, self.answers = codes_l, dict(answers)

    def scores(self, candidates: Mapping[str, CandidateEvidence]) -> dict[str, Score]:
        """Return each candidate's share of right answers."""
        found = {}
        for name in candidates:
            table = self.answers.get(name, "it was not asked")
            if isinstance(table, str):
                found[name] = Score(float("nan"), table)
                continue
            outcomes = (table.argmax(axis=1) == self.codes_l).astype(np.float64)
            found[name] = Score(float(outcomes.mean()), outcomes=outcomes)
        return found


def answer_few(
    rivals: Sequence[Rival], few: FewRows, two: TwoDomains, codes_n: Array, seed: int
) -> dict[str, Array | str]:
    """Return every candidate's probabilities for the labelled target rows, each from a fit that has not learned from it.

    Parameters
    ----------
    rivals : sequence of Rival
        Carried through.
    few : FewRows
        At least five of every class.
    two, codes_n, seed
        As for the candidates.
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
                table = _answers(fitted, few, two, codes_n, by_fitted, seed)
            found[rival.name] = by_fitted[id(fitted)] = table
        except _FAILURES as error:
            found[rival.name] = str(error)
    return found


def _answers(
    fitted: FittedCandidate, few: FewRows, two: TwoDomains, codes_n: Array, known: Mapping[int, Array], seed: int
) -> Array:
    if isinstance(fitted, FittedCommittee):
        if missing := [member for member in fitted.members if id(member) not in known]:
            raise DataError(f"{len(missing)} of its members have no answers for the labelled target rows")
        return np.asarray(np.mean([known[id(member)] for member in fitted.members], axis=0))
    table = np.zeros((len(few), int(codes_n.max()) + 1))
    if isinstance(fitted, FittedStages):
        if fitted.again is None:
            return _said(fitted.found.model, few)
        for learn, answer in few.folds(seed):
            table[answer] = _said(fitted.again(few.rows.subset(learn)).model, few.subset(answer))
        return table
    assert isinstance(fitted, FittedEstimator)
    source, target = fitted.rows
    values = few.scaled_ld if target is two.target_md else few.raw_ld
    if not isinstance(fitted.estimator, LearnsFromFew):
        return np.asarray(fitted.estimator.predict_proba(values), np.float64)
    for _, answer in few.folds(seed):
        learnt = fitted.estimator.without(answer).fit(source, codes_n, target)
        table[answer] = learnt.predict_proba(values[answer])
    return table


def _said(model: Model, few: FewRows) -> Array:
    return model.predict(few.rows.unlabelled(), store=False, runtime="torch-fp32").scores
