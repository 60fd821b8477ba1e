"""Several labelled sources: opened as one set that remembers where each row came from, and seen apart by the methods that can.

    aligners `separates_sources` (jcpot, monge-alignment), networks whose objectives read domains (m3sda, mdan, ...)      apart
    everything else                                                                                                       as one

On the way back of a rule the target is the one source, so nothing is to be told apart there.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone, is_regressor

from headstart.alignment import AdaptedClassifier, AdaptedRegressor, Aligner
from headstart.core.tasks import Task
from headstart.data import Dataset
from headstart.heads import Head
from headstart.methods import AdaptedNetworkRegressor
from headstart.methods.adapted_network import NetworkOnFeatures
from headstart.model import Model
from headstart.objectives import CrossEntropy, SquaredError
from headstart.workflow.domains import TwoDomains
from headstart.workflow.entrants import Entrant
from headstart.workflow.network_rivals import FittedNetwork
from headstart.workflow.rivals import FittedEstimator, rows_as_seen

__all__ = [
    "ApartCandidate",
    "ApartClassifier",
    "ApartRegressor",
    "FittedApart",
    "SourceNumbers",
    "apart",
    "tells_sources_apart",
]

Array = NDArray[Any]


class SourceNumbers:
    """Which source each row is of, found by its features.

    Parameters
    ----------
    source_nd : array of shape (n, d)
        Features of the source rows.
    domains : array of shape (n,)
        Names of their sources.

    Examples
    --------
    >>> numbers = SourceNumbers(np.array([[0.0], [1.0], [2.0]]), np.array(["a", "a", "b"]))
    >>> numbers(np.array([[2.0], [0.0]])).tolist(), numbers(np.array([[2.0], [9.0]])).tolist()      # 9 is of no source
    ([2, 1], [1, 1])
    """

    def __init__(self, source_nd: Array, domains: Array) -> None:
        found = np.unique(domains, return_inverse=True)[1] + 1
        rows = np.asarray(source_nd, np.float32)
        self._known = {row.tobytes(): int(number) for row, number in zip(rows, found, strict=True)}

    def __deepcopy__(self, memo: dict[int, Any]) -> SourceNumbers:
        """Return itself: an estimator that is cloned goes on with the same rows."""
        return self

    def knows(self, features: Array) -> bool:
        """Return whether all of these rows are of the sources."""
        return all(row.tobytes() in self._known for row in np.asarray(features, np.float32))

    def __call__(self, features: Array) -> NDArray[np.int64]:
        """Return numbers from 1 on; 1 throughout where rows are not the sources'."""
        found = [self._known.get(row.tobytes()) for row in np.asarray(features, np.float32)]
        return np.array([1 if None in found else number for number in found], np.int64)


class ApartCandidate(Aligner):
    """A candidate that is told which source each row is of; what classifier and regressor have in common.

    Parameters
    ----------
    inner : Aligner
        The candidate, unfitted.
    numbers : SourceNumbers
        Who tells.
    """

    def __init__(self, inner: Aligner, numbers: SourceNumbers) -> None:
        super().__init__()
        self.inner = inner
        self.numbers = numbers

    def fit(self, X: Any, y: Any, target: Any = None, *, sample_domain: Any = None) -> Self:
        """Learn from source rows, each of its own source, and target rows."""
        domains = self._read(X, y, target, sample_domain)
        source, others = domains.source_nd, domains.target_md
        own = np.asarray(domains.source_labels_n)
        labels = np.concatenate([own, np.repeat(own[:1], len(others))])
        where = np.concatenate([self.numbers(source), np.full(len(others), -1)])
        fitted: Any = clone(self.inner)
        return self._holds(fitted.fit(np.concatenate([source, others]), labels, sample_domain=where))

    def _holds(self, fitted: Any) -> Self:
        """Take the candidate within, fitted, and the classes it knows."""
        self.inner_ = fitted
        if hasattr(fitted, "classes_"):
            self.classes_ = fitted.classes_
        return self

    def around(self, inner: Aligner) -> Self:
        """Return the same around another candidate."""
        return type(self)(inner, self.numbers)

    def trial(self, num_steps: int) -> tuple[Self, float] | None:
        """Return itself with a training of at most so many steps, and by how much its own is longer; None for no network."""
        if not isinstance(self.inner, NetworkOnFeatures):
            return None
        few = min(num_steps, self.inner.num_steps)
        return self.around(clone(self.inner).set_params(num_steps=few)), self.inner.num_steps / few


class ApartClassifier(ApartCandidate, AdaptedClassifier):
    """A classifier that is told which source each row is of."""

    def predict_proba(self, X: Any, *, sample_domain: Any = None) -> Array:
        """Return probabilities; of source rows (``sample_domain`` above 0), as of their own sources."""
        if sample_domain is None or not isinstance(self.inner_, AdaptedClassifier):
            return np.asarray(self.inner_.predict_proba(X))
        return np.asarray(self.inner_.predict_proba(X, sample_domain=self.numbers(X)))

    def predict(self, X: Any, *, sample_domain: Any = None) -> Array:
        """Return the likeliest class of each row."""
        return np.asarray(self.classes_[self.predict_proba(X, sample_domain=sample_domain).argmax(axis=1)])


class ApartRegressor(ApartCandidate, AdaptedRegressor):
    """A regressor that is told which source each row is of."""

    def predict(self, X: Any, *, sample_domain: Any = None) -> Array:
        """Return numbers; of source rows (``sample_domain`` above 0), as of their own sources."""
        if sample_domain is None or not isinstance(self.inner_, AdaptedRegressor):
            return np.asarray(self.inner_.predict(X))
        return np.asarray(self.inner_.predict(X, sample_domain=self.numbers(X)))


class FittedApart(FittedEstimator):
    """A candidate that was told the sources apart; target rows need no telling, so what is saved is the candidate within."""

    @cached_property
    def _within(self) -> FittedEstimator:
        kind = FittedNetwork if isinstance(self.estimator.inner_, NetworkOnFeatures) else FittedEstimator
        return kind(self.estimator.inner_, self._source_nd, self._target_md)

    @property
    def target_unknown_m(self) -> Array | None:
        """Target rows of none of the classes, where the candidate has learned to tell."""
        return self._within.target_unknown_m

    @property
    def source_seen_nr(self) -> Array:
        """Source rows after alignment, each as of its own source."""
        if isinstance(self._within, FittedNetwork):
            return self._within.source_seen_nr
        return rows_as_seen(self.estimator.inner_, self._source_nd, self.estimator.numbers(self._source_nd))

    @property
    def target_seen_mr(self) -> Array:
        """Target rows after alignment."""
        return self._within.target_seen_mr

    def to_head(self, two: TwoDomains, task: Task) -> Head:
        """Return the candidate within as a head."""
        return self._within.to_head(two, task)

    def to_model(self, two: TwoDomains, task: Task) -> Model:
        """Return the candidate within as a model."""
        return self._within.to_model(two, task)


def tells_sources_apart(estimator: Any) -> bool:
    """Return whether a candidate makes something of knowing which source a row is of.

    Examples
    --------
    >>> from headstart.alignment import CORAL, MongeAlignment
    >>> [tells_sources_apart(AdaptedClassifier(aligner())) for aligner in (CORAL, MongeAlignment)]
    [False, True]
    """
    if isinstance(estimator, NetworkOnFeatures):
        loss = SquaredError if isinstance(estimator, AdaptedNetworkRegressor) else CrossEntropy
        recipe = estimator.recipe(lambda head: loss(head=head))
        return recipe.settings.get("balance") == "domains" or any("domains" in term.needs for term in recipe.objectives)
    return bool(getattr(getattr(estimator, "aligner", None) or estimator, "separates_sources", False))


def apart(entrants: Sequence[Entrant], source: Dataset) -> tuple[list[Entrant], str]:
    """Return candidates, those that can told the sources apart, and what a person should know of it.

    Parameters
    ----------
    entrants : sequence of Entrant
        On features.
    source : Dataset
        The source rows; without domains, or of a single one, nothing changes.
    """
    if source.domains is None or len(names := np.unique(source.domains)) < 2:
        return list(entrants), ""
    found, told = [], []
    for entrant in entrants:
        if not tells_sources_apart(entrant.estimator):
            found.append(entrant)
            continue
        numbers = SourceNumbers(entrant.source_nd, source.domains)
        kind = ApartRegressor if is_regressor(entrant.estimator) else ApartClassifier
        wrapped = kind(entrant.estimator, numbers)
        found.append(Entrant(entrant.name, wrapped, entrant.source_nd, entrant.target_md, FittedApart))
        told.append(entrant.name)
    who = (
        f"{', '.join(told)} tell them apart, all others take them as one" if told else "taken as one by all candidates"
    )
    return found, f"{len(names)} sources ({', '.join(names.tolist())}): {who}"
