"""The one shape of every aligner: source rows with labels and target rows without come in, in one of two forms.

    Aligner().fit(source, source_labels, target)
    Aligner().fit(X, y, sample_domain=domains)      one array, mixed in any order, as scikit-learn's pipelines pass it on

``domains`` holds one whole number a row: above 0 a source domain (its number), below 0 the target. Labels of target rows are
removed before an aligner sees them, unless it says that it learns from labelled target rows (``uses_target_labels``). With
neither ``target`` nor ``sample_domain`` there is one domain: the target is the source, and nothing needs aligning.
Use these classes to write an aligner; to adapt a classifier use `AdaptedClassifier`.
Shapes: n source rows, m target rows, d features, r features after alignment.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    RegressorMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d, validate_data

from headstart.alignment.row_checks import in_our_words, source_classes
from headstart.core.errors import DomainError

__all__ = [
    "Aligner",
    "DomainClassifier",
    "DomainRegressor",
    "Domains",
    "FeatureAligner",
    "Reweighter",
    "effective_sample_size",
    "read_sample_domain",
]

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Domains:
    """What an aligner learns from.

    Parameters
    ----------
    source_nd : ndarray of shape (n, d)
        Source features, float32 or float64 (or a CSR matrix where the aligner takes one).
    target_md : ndarray of shape (m, d)
        Target features, of the same type.
    source_labels_n : ndarray of shape (n,), optional
        Labels of the source rows as they were given.
    target_labels_m : ndarray of shape (m,), optional
        Labels of the target rows, for the few aligners that learn from them; `target_labelled_m` says which are there.
    source_groups_n : ndarray of int64 of shape (n,)
        Number of the source domain of each source row, from 0.
    source_rows, target_rows : ndarray of int64
        Places of the rows in the array they came in.
    is_one_domain : bool
        Whether no target was given, so that the target is the source.
    source_numbers : tuple of int
        Number by which ``sample_domain`` calls each source domain, ascending.
    """

    source_nd: Any
    target_md: Any
    source_labels_n: Array | None
    target_labels_m: Array | None
    source_groups_n: IntArray
    source_rows: IntArray
    target_rows: IntArray
    is_one_domain: bool = False
    source_numbers: tuple[int, ...] = (1,)

    @property
    def num_sources(self) -> int:
        """Number of source domains."""
        return int(self.source_groups_n.max()) + 1

    @property
    def target_labelled_m(self) -> npt.NDArray[np.bool_]:
        """Which target rows carry a label: not None, not NaN, not empty text, and not -1 among whole numbers."""
        if self.target_labels_m is None:
            return np.zeros(self.target_md.shape[0], dtype=bool)
        labels = self.target_labels_m
        if labels.dtype.kind == "f":
            return ~np.isnan(labels)
        if labels.dtype.kind in "iu":
            return np.asarray(labels != -1)
        return np.array([label is not None and label == label and label != "" for label in labels.tolist()], dtype=bool)  # noqa: PLR0124 - NaN differs from itself


def read_sample_domain(who: str, sample_domain: Any, num_rows: int) -> IntArray:
    """Return domains as whole numbers: above 0 source, below 0 target.

    Raises
    ------
    DomainError
        If there is not one whole number other than 0 for each row.

    Examples
    --------
    >>> read_sample_domain("CORAL", [1, -1, 2], 3).tolist()
    [1, -1, 2]
    """
    domains = np.asarray(sample_domain)
    if domains.shape != (num_rows,):
        raise DomainError(
            f"{who}: sample_domain needs one number for each of {num_rows} rows; got shape {domains.shape}."
        )
    if domains.dtype.kind not in "iuf" or not np.isfinite(domains).all() or (domains != np.rint(domains)).any():
        raise DomainError(
            f"{who}: sample_domain must hold whole numbers, above 0 source and below 0 target; got {domains[:5]}."
        )
    if (domains == 0).any():
        raise DomainError(
            f"{who}: sample_domain must be above 0 (source) or below 0 (target); {(domains == 0).sum()} are 0."
        )
    return domains.astype(np.int64)


def effective_sample_size(weights_n: npt.ArrayLike) -> float:
    """Return how many equally weighted rows are worth as much: ``(sum w)^2 / sum w^2`` (Kish 1965); 0 when all weights are 0.

    Examples
    --------
    >>> effective_sample_size([1.0, 1.0, 0.0, 0.0])
    2.0
    """
    weights = np.asarray(weights_n, dtype=np.float64)
    largest = float(weights.max(initial=0.0))
    if largest <= 0.0:
        return 0.0
    scaled = weights / largest
    return float(scaled.sum() ** 2 / np.square(scaled).sum())


class Aligner(BaseEstimator):  # type: ignore[misc]
    """Base of everything here: reads both forms into `Domains`. A subclass's constructor is its configuration.

    ``separates_sources`` says that several source domains are seen apart; all others take them as one. ``fit_only`` names
    attributes that answering for target rows has no need of; a saved model leaves them out. ``new_rows`` says how target rows
    that were not in ``fit`` are answered, where that is not how those of ``fit`` are.
    """

    accepts_sparse: ClassVar[bool] = False
    requires_labels: ClassVar[bool] = False
    uses_target_labels: ClassVar[bool] = False
    separates_sources: ClassVar[bool] = False
    min_rows: ClassVar[int] = 1
    fit_only: ClassVar[frozenset[str]] = frozenset()
    new_rows: ClassVar[str] = ""

    def _read(self, X: Any, y: Any, target: Any, sample_domain: Any, target_labels: Any = None) -> Domains:
        """Check what came and split it into domains."""
        who = type(self).__name__
        if target is not None and sample_domain is not None:
            raise DomainError(
                f"{who}: give target (rows of the other domain) or sample_domain (a number a row), not both."
            )
        if y is None and self.requires_labels:
            raise DomainError(f"{who} requires y to be passed, but the target y is None; give the source rows' labels.")
        X = self._check(_values(X), reset=True)
        labels = None if y is None else column_or_1d(y, warn=True)
        if labels is not None and len(labels) != X.shape[0]:
            raise DomainError(f"{who}: y needs one label for each of {X.shape[0]} rows; got {len(labels)}.")
        every = np.arange(X.shape[0])
        if sample_domain is not None:
            domains = read_sample_domain(who, sample_domain, X.shape[0])
            source_rows, target_rows = every[domains > 0], every[domains < 0]
            if not len(source_rows) or not len(target_rows):
                empty, side = ("source", "above") if not len(source_rows) else ("target", "below")
                raise DomainError(f"{who}: the {empty} domain is empty; sample_domain has no number {side} 0.")
            found, groups = np.unique(domains[source_rows], return_inverse=True)
            numbers = tuple(int(number) for number in found)
            target_nd, given = X[target_rows], None if labels is None else labels[target_rows]
        else:
            source_rows, groups, numbers = every, np.zeros(X.shape[0], dtype=np.int64), (1,)
            target_nd = X if target is None else self._check(_values(target), reset=False, name="target")
            target_rows = np.arange(target_nd.shape[0])
            given = None if target_labels is None else column_or_1d(np.asarray(target_labels))
            if given is not None and len(given) != target_nd.shape[0]:
                raise DomainError(
                    f"{who}: target_labels needs one entry for each of {target_nd.shape[0]} target rows; got {len(given)}."
                )
        source_nd = X[source_rows] if sample_domain is not None else X
        if min(source_nd.shape[0], target_nd.shape[0]) < self.min_rows:
            raise DomainError(
                f"{who} needs at least {self.min_rows} rows in each domain; got {source_nd.shape[0]} source and "
                f"{target_nd.shape[0]} target rows (n_samples = {min(source_nd.shape[0], target_nd.shape[0])})."
            )
        return Domains(
            source_nd,
            target_nd,
            None if labels is None else self._check_labels(labels[source_rows]),
            given if self.uses_target_labels else None,
            np.asarray(groups, dtype=np.int64),
            source_rows,
            target_rows,
            is_one_domain=sample_domain is None and target is None,
            source_numbers=numbers,
        )

    def _check(self, X: Any, *, reset: bool, name: str = "X") -> Any:
        """Return finite float rows of the fitted width; sparse ones as CSR where the aligner takes them."""
        if sparse.issparse(X) and not self.accepts_sparse:
            raise TypeError(
                f"{type(self).__name__}: sparse input is not supported, its mathematics needs the whole matrix; "
                f"reduce it first (TruncatedSVD), or use {name}.toarray() where it fits in memory."
            )
        options = {"accept_sparse": "csr" if self.accepts_sparse else False, "dtype": [np.float64, np.float32]}
        try:
            if name == "X":
                return validate_data(self, X, reset=reset, **options)
            X = check_array(X, input_name=name, **options)
        except ValueError as error:
            raise in_our_words(type(self).__name__, name, X, error) from error
        if X.shape[1] != self.n_features_in_:
            raise DomainError(
                f"{type(self).__name__}: source has {self.n_features_in_} features but target has {X.shape[1]}; "
                "extract both with the same backbone and layer."
            )
        return X

    def _check_labels(self, labels_n: Array) -> Array:
        """Refuse missing source labels; a subclass may ask for more."""
        if labels_n.dtype.kind == "f" and not np.isfinite(labels_n).all():
            raise DomainError(f"{type(self).__name__}: source labels contain NaN or infinity; leave such rows out.")
        return labels_n

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn what this estimator takes."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.accepts_sparse
        tags.target_tags.required = self.requires_labels
        if tags.transformer_tags is not None:
            tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class FeatureAligner(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Aligner):  # type: ignore[misc]
    """An aligner that moves rows: ``_align`` learns from `Domains`, ``_map_source`` and ``_map_target`` apply it to any rows."""

    def fit(self, X: Any, y: Any = None, target: Any = None, *, sample_domain: Any = None) -> Self:
        """Learn from source rows ``X`` with labels ``y`` and target rows, or from both in ``X`` and ``sample_domain``."""
        domains = self._read(X, y, target, sample_domain)
        self._align(domains)
        self._n_features_out = int(self._map_target(domains.target_md[:1]).shape[1])
        return self

    def transform(self, X: Any, *, sample_domain: Any = None) -> Any:
        """Return aligned rows in the order they came in.

        Without ``sample_domain`` rows are taken as the target's: what a fitted model meets when it predicts.
        """
        check_is_fitted(self)
        X = self._check(_values(X), reset=False)
        if sample_domain is None:
            return self._map_target(X)
        domains = read_sample_domain(type(self).__name__, sample_domain, X.shape[0])
        return self._join(X, domains > 0)

    def fit_transform(self, X: Any, y: Any = None, target: Any = None, *, sample_domain: Any = None) -> Any:
        """Learn, then return ``X`` aligned: its rows are the source's when ``target`` is given apart."""
        self.fit(X, y, target, sample_domain=sample_domain)
        if target is not None:
            return self.transform(X, sample_domain=np.ones(_num_rows(X), dtype=np.int64))
        return self.transform(X, sample_domain=sample_domain)

    def _join(self, X: Any, is_source: npt.NDArray[np.bool_]) -> Any:
        """Map every row by its own domain, keeping the order."""
        if is_source.all():
            return self._map_source(X)
        target = self._map_target(X[~is_source])
        if not is_source.any():
            return target
        source = self._map_source(X[is_source])
        if sparse.issparse(source) or sparse.issparse(target):
            order = np.argsort(np.concatenate([np.flatnonzero(is_source), np.flatnonzero(~is_source)]))
            return sparse.vstack([source, target], format="csr")[order]
        joined = np.empty((X.shape[0], target.shape[1]), dtype=target.dtype)
        joined[is_source], joined[~is_source] = source, target
        return joined

    @abstractmethod
    def _align(self, domains: Domains) -> None:
        """Learn; what is learned ends in ``_``."""

    @abstractmethod
    def _map_source(self, X: Any) -> Any:
        """Return source rows in the space both domains share; dtype kept."""

    @abstractmethod
    def _map_target(self, X: Any) -> Any:
        """Return target rows in the space both domains share; dtype kept."""


class Reweighter(Aligner):
    """An aligner that weighs source rows so that they stand for the target.

    After ``fit``: ``weights_`` of shape (n,), one a source row in its own order, mean 1; ``effective_sample_size_``.
    A subclass has the constructor parameter ``min_effective_rows``: fewer are refused, with the reason.
    """

    min_effective_rows: float

    def fit(self, X: Any, y: Any = None, target: Any = None, *, sample_domain: Any = None) -> Self:
        """Learn weights from source rows ``X`` (labels ``y``) and target rows, in either form."""
        domains = self._read(X, y, target, sample_domain)
        weights = np.asarray(self._weigh(domains), dtype=np.float64)
        who, num_source = type(self).__name__, domains.source_nd.shape[0]
        if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
            raise DomainError(
                f"{who}: the weights came out negative, not finite or all 0; the domains do not overlap. Do not reweight."
            )
        self.weights_ = weights * (num_source / weights.sum())
        self.effective_sample_size_ = effective_sample_size(self.weights_)
        if self.effective_sample_size_ < min(self.min_effective_rows, num_source):
            raise DomainError(
                f"{who}: {num_source} weighted source rows are worth {self.effective_sample_size_:.1f}, fewer than "
                f"min_effective_rows={self.min_effective_rows:g}; the domains overlap too little to reweight. "
                "Align features instead, or do not adapt."
            )
        return self

    @abstractmethod
    def _weigh(self, domains: Domains) -> Array:
        """Return one weight of at least 0 for each source row, on any scale."""


class DomainClassifier(ClassifierMixin, Aligner):  # type: ignore[misc]
    """A classifier for the target that learns from both domains at once.

    A subclass writes ``_learn(domains, codes_n)`` with the source labels as numbers 0 to k-1 (places in ``classes_``), and
    ``_probabilities(X)`` of shape (rows, k).
    """

    requires_labels = True

    def fit(self, X: Any, y: Any, target: Any = None, *, sample_domain: Any = None) -> Self:
        """Learn from source rows ``X`` with labels ``y`` and target rows, in either form."""
        return self._fit(self._read(X, y, target, sample_domain))

    def _fit(self, domains: Domains) -> Self:
        assert domains.source_labels_n is not None
        self.classes_, codes = source_classes(type(self).__name__, domains.source_labels_n)
        self._learn(domains, codes)
        return self

    def _check_labels(self, labels_n: Array) -> Array:
        from sklearn.utils.multiclass import check_classification_targets

        check_classification_targets(labels_n)
        return super()._check_labels(labels_n)

    def predict_proba(self, X: Any) -> FloatArray:
        """Return probabilities of target rows, in the order of ``classes_``."""
        check_is_fitted(self)
        return self._probabilities(self._check(_values(X), reset=False))

    def predict(self, X: Any) -> Array:
        """Return the likeliest class of each target row."""
        check_is_fitted(self)
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    @abstractmethod
    def _learn(self, domains: Domains, codes_n: IntArray) -> None:
        """Learn; what is learned ends in ``_``."""

    @abstractmethod
    def _probabilities(self, X: Any) -> FloatArray:
        """Return class probabilities of target rows, rows summing to 1."""


class DomainRegressor(RegressorMixin, Aligner):  # type: ignore[misc]
    """A regressor for the target that learns from both domains: ``_learn(domains, values_n)`` and ``_values(X)``."""

    requires_labels = True

    def fit(self, X: Any, y: Any, target: Any = None, *, sample_domain: Any = None) -> Self:
        """Learn from source rows ``X`` with values ``y`` and target rows, in either form."""
        return self._fit(self._read(X, y, target, sample_domain))

    def _fit(self, domains: Domains) -> Self:
        assert domains.source_labels_n is not None
        self._learn(domains, domains.source_labels_n.astype(np.float64))
        return self

    def predict(self, X: Any) -> FloatArray:
        """Return the value of each target row."""
        check_is_fitted(self)
        return self._estimate(self._check(_values(X), reset=False))

    @abstractmethod
    def _learn(self, domains: Domains, values_n: FloatArray) -> None:
        """Learn; what is learned ends in ``_``."""

    @abstractmethod
    def _estimate(self, X: Any) -> FloatArray:
        """Return values of target rows."""


def _values(rows: Any) -> Any:
    """Return the array of a cached feature set (`Features.values_nd`), anything else as it is."""
    return getattr(rows, "values_nd", rows)


def _num_rows(rows: Any) -> int:
    return int(_values(rows).shape[0]) if hasattr(_values(rows), "shape") else len(rows)
