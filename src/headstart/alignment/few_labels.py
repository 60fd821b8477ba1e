"""Base of the methods that also learn from a few labelled target rows.

    fit(source, labels, target, target_labels=labels)       None, NaN or "" (or -1, in classes numbered from 0): no label
    fit(X, y, sample_domain=domains)                        y of a target row is its label, where it has one

Classification: a target label must be one of the source's classes. Where -1 itself is a source class it is a label.
Regression: a target value is missing where it is None or NaN; -1 is a value.
Without one labelled target row these methods are their estimator trained on the source: ``num_target_labels_`` is then 0.
Shapes: n source rows, m target rows, l of them labelled, d features, k classes.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from headstart.alignment.aligner import DomainClassifier, DomainRegressor, Domains
from headstart.alignment.trained_classifier import as_double
from headstart.core.errors import DomainError

__all__ = ["FewLabelsClassifier", "FewLabelsRegressor"]

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class FewLabelsClassifier(DomainClassifier):
    """A classifier that learns from source rows and a few labelled target rows; `_labelled` finds them."""

    uses_target_labels: ClassVar[bool] = True

    def fit(self, X: Any, y: Any, target: Any = None, *, sample_domain: Any = None, target_labels: Any = None) -> Self:
        """Learn from source rows ``X`` with labels ``y`` and target rows, some of them labelled, in either form."""
        return self._fit(self._read(X, y, target, sample_domain, target_labels))

    def _check_labels(self, labels_n: Array) -> Array:
        """Take labels that came as objects (so that target labels may be None) for what they are."""
        if labels_n.dtype == object and len({type(label) for label in labels_n.tolist()}) == 1:
            labels_n = np.array(labels_n.tolist())
        return super()._check_labels(labels_n)

    def _labelled(self, domains: Domains) -> tuple[Any, IntArray]:
        """Return the labelled target rows, in double precision, and the numbers of their classes."""
        numbers = {label: number for number, label in enumerate(self.classes_.tolist())}
        places = np.flatnonzero(domains.target_labelled_m)
        labels = domains.target_labels_m
        if labels is not None and labels.dtype.kind in "iu" and -1 in numbers:
            places = np.arange(len(labels))
        given = [] if labels is None else labels[places].tolist()
        unknown = sorted({repr(label) for label in given if label not in numbers})
        if unknown:
            raise DomainError(
                f"{type(self).__name__}: target labels must be classes of the source; {', '.join(unknown[:5])} "
                f"{'is' if len(unknown) == 1 else 'are'} not. Leave such rows unlabelled (None), or out."
            )
        self.num_target_labels_ = len(places)
        return as_double(domains.target_md[places]), np.array([numbers[label] for label in given], dtype=np.int64)


class FewLabelsRegressor(DomainRegressor):
    """A regressor that learns from source rows and a few target rows with values; `_labelled` finds them."""

    uses_target_labels: ClassVar[bool] = True

    def fit(self, X: Any, y: Any, target: Any = None, *, sample_domain: Any = None, target_labels: Any = None) -> Self:
        """Learn from source rows ``X`` with values ``y`` and target rows, some of them with values, in either form."""
        return self._fit(self._read(X, y, target, sample_domain, target_labels))

    def _check_labels(self, labels_n: Array) -> Array:
        return super()._check_labels(labels_n.astype(np.float64) if labels_n.dtype == object else labels_n)

    def _labelled(self, domains: Domains) -> tuple[Any, FloatArray]:
        """Return the target rows with values, in double precision, and the values."""
        given = np.empty(0) if domains.target_labels_m is None else domains.target_labels_m
        values = np.array([np.nan if value is None else value for value in given.tolist()], dtype=np.float64)
        if np.isinf(values).any():
            raise DomainError(f"{type(self).__name__}: target values contain infinity; leave such rows out.")
        places = np.flatnonzero(~np.isnan(values))
        self.num_target_labels_ = len(places)
        return as_double(domains.target_md[places]), values[places]
