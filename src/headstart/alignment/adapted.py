"""Any scikit-learn classifier or regressor, trained for the target through an aligner.

    moves rows (`FeatureAligner`):  estimator.fit(aligned source, labels);  predict(aligned target)
    weighs rows (`Reweighter`):     estimator.fit(source, labels, sample_weight=weights);  predict(target)
    no aligner (None):              estimator.fit(source, labels);  predict(target)      "do not adapt"

Use it wherever scikit-learn takes an estimator: in pipelines, `GridSearchCV` (``estimator__C``, ``aligner__...``) and
`cross_val_score`, with ``sample_domain`` passed on by metadata routing (``set_fit_request(sample_domain=True)``).
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from headstart.alignment.aligner import Aligner, FeatureAligner, Reweighter, read_sample_domain
from headstart.alignment.row_checks import source_classes
from headstart.core.errors import DomainError

__all__ = ["AdaptedClassifier", "AdaptedRegressor"]

Array = npt.NDArray[Any]


def _estimator_has(method: str) -> Any:
    def check(self: _Adapted) -> bool:
        return hasattr(self.estimator_ if hasattr(self, "estimator_") else self._default(), method)

    return available_if(check)


class _Adapted(MetaEstimatorMixin, Aligner):  # type: ignore[misc]
    """What both share: ``aligner`` brings the domains together, ``estimator`` learns from the source rows."""

    requires_labels = True

    def __init__(self, aligner: Aligner | None = None, estimator: Any = None) -> None:
        self.aligner = aligner
        self.estimator = estimator

    @property
    def accepts_sparse(self) -> bool:  # type: ignore[override]
        """Sparse rows are taken where the aligner takes them."""
        return self.aligner is None or self.aligner.accepts_sparse

    def fit(self, X: Any, y: Any, target: Any = None, *, sample_domain: Any = None) -> Self:
        """Align, then train the estimator on the source rows; target labels in ``y`` are never read."""
        domains = self._read(X, y, target, sample_domain)
        self.estimator_, self.aligner_ = clone(self._default()), None
        rows, options = domains.source_nd, {}
        if self.aligner is not None:
            self.aligner_ = clone(self.aligner)
            stacked, labels, domain_n = _stack(domains)
            self.aligner_.fit(
                stacked, labels, sample_domain=domain_n
            ) if not domains.is_one_domain else self.aligner_.fit(rows, domains.source_labels_n)
        if isinstance(self.aligner_, FeatureAligner):
            rows = self.aligner_.transform(
                rows, sample_domain=np.asarray(domains.source_numbers)[domains.source_groups_n]
            )
        elif isinstance(self.aligner_, Reweighter):
            if not has_fit_parameter(self.estimator_, "sample_weight"):
                raise DomainError(
                    f"{type(self).__name__}: {type(self.aligner_).__name__} weighs rows, but "
                    f"{type(self.estimator_).__name__} takes no sample_weight; choose an estimator that does."
                )
            options = {"sample_weight": self.aligner_.weights_}
        elif self.aligner_ is not None:
            raise DomainError(
                f"{type(self).__name__}: aligner must move rows (FeatureAligner) or weigh them (Reweighter); "
                f"got {type(self.aligner_).__name__}, which predicts by itself."
            )
        self.estimator_.fit(rows, domains.source_labels_n, **options)
        if hasattr(self.estimator_, "classes_"):
            self.classes_ = self.estimator_.classes_
        return self

    @abstractmethod
    def _default(self) -> Any:
        """Return the estimator, or what stands for it when it is left out."""

    def _aligned(self, X: Any, sample_domain: Any) -> Any:
        """Return rows as the estimator wants them: each mapped by its domain, the target's where none is named."""
        check_is_fitted(self)
        X = self._check(getattr(X, "values_nd", X), reset=False)
        if sample_domain is not None:
            sample_domain = read_sample_domain(type(self).__name__, sample_domain, X.shape[0])
        return (
            self.aligner_.transform(X, sample_domain=sample_domain) if isinstance(self.aligner_, FeatureAligner) else X
        )

    def predict(self, X: Any, *, sample_domain: Any = None) -> Array:
        """Return an answer for each row; rows are the target's unless ``sample_domain`` says otherwise."""
        rows = self._aligned(X, sample_domain)
        return np.asarray(self.estimator_.predict(rows))


class AdaptedClassifier(ClassifierMixin, _Adapted):  # type: ignore[misc]
    """A classifier trained on aligned or weighted source rows.

    Parameters
    ----------
    aligner : FeatureAligner or Reweighter, optional
        What brings the domains together; None: do not adapt.
    estimator : scikit-learn classifier, optional
        What learns; logistic regression when left out. Its penalty is in the unit of the features: a pipeline with a
        `StandardScaler` makes the unit no matter.

    Examples
    --------
    >>> from headstart.alignment import CORAL
    >>> source, target = np.array([[-1.0], [-2.0], [1.0], [2.0]]), np.array([[-4.0], [-8.0], [4.0], [8.0]])
    >>> adapted = AdaptedClassifier(CORAL()).fit(source, ["no", "no", "yes", "yes"], target)
    >>> adapted.predict([[-3.0], [5.0]]).tolist()
    ['no', 'yes']
    """

    def _default(self) -> Any:
        return LogisticRegression(max_iter=1000) if self.estimator is None else self.estimator

    def _check_labels(self, labels_n: Array) -> Array:
        """Refuse missing labels, and a source of one class: there is nothing to tell apart."""
        from sklearn.utils.multiclass import check_classification_targets

        check_classification_targets(labels_n)
        labels = super()._check_labels(labels_n)
        source_classes(type(self).__name__, labels)
        return labels

    def score(self, X: Any, y: Any, sample_weight: Any = None, *, sample_domain: Any = None) -> float:
        """Return the accuracy of ``X`` against ``y``."""
        return float(accuracy_score(y, self.predict(X, sample_domain=sample_domain), sample_weight=sample_weight))

    @_estimator_has("predict_proba")  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any, *, sample_domain: Any = None) -> Array:
        """Return class probabilities in the order of ``classes_``."""
        rows = self._aligned(X, sample_domain)
        return np.asarray(self.estimator_.predict_proba(rows))

    @_estimator_has("decision_function")  # type: ignore[untyped-decorator]
    def decision_function(self, X: Any, *, sample_domain: Any = None) -> Array:
        """Return the estimator's decision values."""
        rows = self._aligned(X, sample_domain)
        return np.asarray(self.estimator_.decision_function(rows))


class AdaptedRegressor(RegressorMixin, _Adapted):  # type: ignore[misc]
    """A regressor trained on aligned or weighted source rows; ridge regression when ``estimator`` is left out.

    Examples
    --------
    >>> source, target = np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [2.0]])
    >>> AdaptedRegressor(estimator=Ridge(alpha=0.0)).fit(source, [0.0, 2.0, 4.0], target).predict([[1.5]]).round(6).tolist()
    [3.0]
    """

    def _default(self) -> Any:
        return Ridge() if self.estimator is None else self.estimator

    def score(self, X: Any, y: Any, sample_weight: Any = None, *, sample_domain: Any = None) -> float:
        """Return R2 of ``X`` against ``y``."""
        return float(r2_score(y, self.predict(X, sample_domain=sample_domain), sample_weight=sample_weight))


def _stack(domains: Any) -> tuple[Any, Array, Array]:
    """Return source above target, labels (the target's are the first source label, which nobody reads), and domain numbers."""
    from scipy import sparse

    num_target = domains.target_md.shape[0]
    labels = np.concatenate([domains.source_labels_n, np.repeat(domains.source_labels_n[:1], num_target)])
    own = np.asarray(domains.source_numbers)[domains.source_groups_n]
    numbers = np.concatenate([own, np.full(num_target, -1)])
    both = [domains.source_nd, domains.target_md]
    return sparse.vstack(both, format="csr") if sparse.issparse(both[0]) else np.concatenate(both), labels, numbers
