"""A few labelled target rows in `adapt`: who learns from them, and what they alone would teach; classes or numbers.

    aligners that read target labels (tradaboost, fusion, ...)      get them as labelled target rows
    networks (mme and all others)                                   get them among the labelled rows, as a domain of their own
    "few labels alone"                                              the aligners' classifier (ridge regression), on nothing else
    all other candidates                                            do not see them

Enough of them choose, too (`few_choice`). With fewer a rule without target labels does; candidates that cannot go back without
labels of the other domain are then not judged, because such labels would help them to the answer, and for the same reason have no
seat in the committee.
Shapes: n source rows, m target rows, l labelled target rows, d features, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from headstart.alignment import AdaptedClassifier, AdaptedRegressor, Aligner
from headstart.core.errors import DataError
from headstart.core.tasks import Task
from headstart.methods.adapted_network import NetworkOnFeatures
from headstart.model import Model
from headstart.workflow.adaptations import base_classifier
from headstart.workflow.domains import TwoDomains
from headstart.workflow.entrants import FOLDS, Entrant
from headstart.workflow.few_rows import FewRows
from headstart.workflow.rivals import model_on_features
from headstart.workflow.several_sources import (
    ApartCandidate,
    ApartClassifier,
    ApartRegressor,
    FittedApart,
    SourceNumbers,
)
from headstart.workflow.value_candidates import base_regressor

__all__ = [
    "FEW_ALONE",
    "FEW_CANDIDATES",
    "FEW_VALUE_CANDIDATES",
    "CandidateWithFew",
    "FewAlone",
    "FewValuesAlone",
    "LearnsFromFew",
    "RegressorFromFew",
    "with_few",
]

Array = NDArray[Any]

FEW_ALONE = "few labels alone"
FEW_CANDIDATES = ("feature-augmentation", "fusion", "source-prior", "balanced-weighting", "tradaboost")
FEW_VALUE_CANDIDATES = (
    "feature-augmentation-regression",
    "fusion-regression",
    "source-prior-regression",
    "balanced-weighting-regression",
    "tradaboost-r2",
)


class CandidateWithFew(ApartCandidate):
    """A candidate that gets labelled target rows, too; what classifier and regressor have in common.

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
        if isinstance(inner, NetworkOnFeatures):
            return self._holds(self._network(inner, source, labels, others, forward))
        if not forward:
            raise DataError(f"{type(inner).__name__} cannot go back: there are no labelled rows of the other domain")
        none = -1 if self.few.has_classes else np.nan
        given = np.concatenate([np.full(len(others), none), self.few.labels_l])
        every = np.concatenate([others, self.few.scaled_ld.astype(others.dtype)])
        return self._holds(inner.fit(source, labels, every, target_labels=given))

    def _network(self, inner: Any, source: Array, labels: Array, others: Array, forward: bool) -> Any:
        """Train with labelled target rows as a domain of their own among the labelled ones."""
        numbers = self.numbers(source)
        rows, codes, where = [source], [labels], [numbers]
        if forward:
            rows.append(self.few.raw_ld.astype(source.dtype))
            codes.append(self.few.labels_l)
            where.append(np.full(len(self.few), numbers.max() + 1))
        rows, codes, where = (
            [*rows, others],
            [*codes, np.repeat(labels[:1], len(others))],
            [*where, np.full(len(others), -1)],
        )
        return inner.fit(np.concatenate(rows), np.concatenate(codes), sample_domain=np.concatenate(where))

    def around(self, inner: Aligner) -> Self:
        """Return the same around another candidate."""
        return type(self)(inner, self.numbers, self.few)

    def without(self, places: Array) -> Self:
        """Return it unfitted, with some of the labelled target rows left out."""
        kept = np.setdiff1d(np.arange(len(self.few)), places)
        return type(self)(self.inner, self.numbers, self.few.subset(kept))


class LearnsFromFew(CandidateWithFew, ApartClassifier):
    """A classifier that gets labelled target rows, too."""


class RegressorFromFew(CandidateWithFew, ApartRegressor):
    """A regressor that gets labelled target rows, too."""


class FewAlone(LearnsFromFew):
    """The classifier of the aligners, on labelled target rows and nothing else; source rows say only which classes there are."""

    def fit(self, X: Any, y: Any, target: Any = None, *, sample_domain: Any = None) -> Self:
        """Learn from labelled target rows."""
        domains = self._read(X, y, target, sample_domain)
        _check_forward(self, domains.source_nd)
        every = np.unique(np.asarray(domains.source_labels_n))
        if missing := set(every.tolist()) - set(self.few.labels_l.tolist()):
            raise DataError(f"{len(missing)} classes have no labelled target row")
        rows, codes = self.few.scaled_ld, self.few.labels_l
        return self._holds(AdaptedClassifier(None, base_classifier(rows, codes)).fit(rows, codes))


class FewValuesAlone(RegressorFromFew):
    """The ridge regression of the aligners, on labelled target rows and nothing else; its penalty too is chosen on them."""

    def fit(self, X: Any, y: Any, target: Any = None, *, sample_domain: Any = None) -> Self:
        """Learn from labelled target rows."""
        _check_forward(self, self._read(X, y, target, sample_domain).source_nd)
        rows, values = self.few.scaled_ld, self.few.labels_l
        if len(values) < 2:
            raise DataError("one labelled target row alone teaches nothing")
        return self._holds(AdaptedRegressor(None, base_regressor(rows, values)).fit(rows, values))


def _check_forward(candidate: CandidateWithFew, source_nd: Array) -> None:
    """Refuse to go back."""
    if not candidate.numbers.knows(source_nd):
        raise DataError("what labelled target rows alone teach has no way back")


class FittedByFew(FittedApart):
    """A candidate that makes nothing of its own without labelled target rows."""

    has_seat = False

    def to_model(self, two: TwoDomains, task: Task) -> Model:
        """Return the candidate within as a model; unusual is what is unlike the target's rows, for it learned from some."""
        return model_on_features(self.to_head(two, task), two, task)


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
    alone: Aligner = (
        FewAlone(AdaptedClassifier(None), plain, few)
        if few.has_classes
        else FewValuesAlone(AdaptedRegressor(None), plain, few)
    )
    found = [Entrant(FEW_ALONE, alone, two.source_nd, two.target_md, FittedByFew, later)]
    for entrant in entrants:
        estimator: Any = entrant.estimator
        told = isinstance(estimator, ApartCandidate)
        inner = estimator.inner if told else estimator
        is_network = isinstance(inner, NetworkOnFeatures)
        if not (is_network or inner.uses_target_labels):
            found.append(entrant)
            continue
        rows = entrant.source_nd
        numbers = estimator.numbers if told else SourceNumbers(rows, np.zeros(len(rows)))
        learner = (LearnsFromFew if few.has_classes else RegressorFromFew)(inner, numbers, few)
        kind = FittedApart if is_network else FittedByFew
        found.append(Entrant(entrant.name, learner, rows, entrant.target_md, kind, later))
    return [*found[1:2], found[0], *found[2:]]
