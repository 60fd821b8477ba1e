"""Feature augmentation, "frustratingly easy": a block of features both domains share and one for each alone.

    source:  x -> (x, s x, 0)          target:  x -> (x, 0, s x)          s = 1 in the paper
    inner products:  (1 + s^2) x'z within a domain,  x'z across

Source: Daumé III, "Frustratingly easy domain adaptation", ACL 2007. The factor s is ours: with a
ridge-like penalty it says how cheaply a domain may differ (s = 0: both are pooled; s large: each learns alone). Use
it when some target rows are labelled and the two domains agree on most features but not on all; any linear learner
will do. Fitted on source rows alone (`AdaptedClassifier`) the target's block learns nothing and the shared block half
of what it should: give target labels through `AugmentedClassifier`. Several source domains share one block.
Shapes: n source rows, l labelled target rows, d features in, 3 d out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.linear_model import Ridge

from headstart.alignment.aligner import Domains, FeatureAligner
from headstart.alignment.few_labels import FewLabelsClassifier, FewLabelsRegressor
from headstart.alignment.option_checks import check_number
from headstart.alignment.trained_classifier import as_double, class_probabilities, fit_classifier, stack_rows

__all__ = ["AugmentedClassifier", "AugmentedRegressor", "FeatureAugmentation"]

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def _blocks(rows: Any, own_scale: float, *, is_source: bool) -> Any:
    """Return (shared, source's own, target's own)."""
    own = rows * rows.dtype.type(own_scale)
    is_dense = isinstance(rows, np.ndarray)
    nothing: Any = np.zeros_like(rows) if is_dense else sparse.csr_matrix(rows.shape, dtype=rows.dtype)
    parts = [rows, own, nothing] if is_source else [rows, nothing, own]
    return np.concatenate(parts, axis=1) if is_dense else sparse.hstack(parts, format="csr")


class FeatureAugmentation(FeatureAligner):
    """Rows in three blocks: shared, the source's own, the target's own. Labels are not used.

    Parameters
    ----------
    own_scale : float, at least 0
        s, the scale of a domain's own block against the shared one.

    Examples
    --------
    >>> source, target = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])
    >>> FeatureAugmentation().fit_transform(source, None, target).tolist()
    [[1.0, 2.0, 1.0, 2.0, 0.0, 0.0]]
    """

    accepts_sparse = True

    def __init__(self, own_scale: float = 1.0) -> None:
        self.own_scale = own_scale

    def _align(self, domains: Domains) -> None:
        del domains  # nothing is learned but the width
        self.own_scale_ = check_number("FeatureAugmentation", "own_scale", self.own_scale, high_included=False)

    def _map_source(self, X: Any) -> Any:
        return _blocks(X, self.own_scale_, is_source=True)

    def _map_target(self, X: Any) -> Any:
        return _blocks(X, self.own_scale_, is_source=False)


class AugmentedClassifier(FewLabelsClassifier):
    """A classifier trained on both domains' labelled rows, in three blocks.

    Parameters
    ----------
    estimator : scikit-learn classifier with ``predict_proba``, optional
        What learns; logistic regression when left out.
    own_scale : float, at least 0
        s, how cheaply a domain may differ; 0 pools the domains.

    Examples
    --------
    >>> source, target = np.array([[-1.0], [-2.0], [1.0], [2.0]]), np.array([[-1.0], [1.0]])
    >>> model = AugmentedClassifier(own_scale=9.0).fit(source, [0, 0, 1, 1], target, target_labels=[1, 0])
    >>> model.predict([[-2.0], [2.0]]).tolist()
    [1, 0]
    """

    accepts_sparse = True

    def __init__(self, estimator: Any = None, own_scale: float = 1.0) -> None:
        self.estimator = estimator
        self.own_scale = own_scale

    def _learn(self, domains: Domains, codes_n: IntArray) -> None:
        self.own_scale_ = check_number("AugmentedClassifier", "own_scale", self.own_scale, high_included=False)
        target_ld, target_codes = self._labelled(domains)
        rows = _both(as_double(domains.source_nd), target_ld, self.own_scale_)
        codes = np.concatenate([codes_n, target_codes])
        self.estimator_ = fit_classifier("AugmentedClassifier", self.estimator, rows, codes)

    def _probabilities(self, X: Any) -> FloatArray:
        rows = _blocks(as_double(X), self.own_scale_, is_source=False)
        return class_probabilities("AugmentedClassifier", self.estimator_, rows, len(self.classes_))


class AugmentedRegressor(FewLabelsRegressor):
    """A regressor trained on both domains' rows with values, in three blocks.

    Parameters
    ----------
    estimator : scikit-learn regressor, optional
        What learns; ridge regression when left out.
    own_scale : float, at least 0
        s, how cheaply a domain may differ; 0 pools the domains.

    Examples
    --------
    >>> rows = np.array([[-1.0], [1.0]])
    >>> model = AugmentedRegressor(Ridge(alpha=1e-9)).fit(rows, [-2.0, 2.0], rows, target_labels=[-6.0, 6.0])
    >>> model.predict([[1.0]]).round(4).tolist()
    [6.0]
    """

    accepts_sparse = True

    def __init__(self, estimator: Any = None, own_scale: float = 1.0) -> None:
        self.estimator = estimator
        self.own_scale = own_scale

    def _learn(self, domains: Domains, values_n: npt.NDArray[np.floating[Any]]) -> None:
        from sklearn.base import clone

        self.own_scale_ = check_number("AugmentedRegressor", "own_scale", self.own_scale, high_included=False)
        target_ld, target_values = self._labelled(domains)
        rows = _both(as_double(domains.source_nd), target_ld, self.own_scale_)
        estimator = Ridge() if self.estimator is None else self.estimator
        self.estimator_ = clone(estimator).fit(rows, np.concatenate([values_n, target_values]))

    def _estimate(self, X: Any) -> FloatArray:
        rows = _blocks(as_double(X), self.own_scale_, is_source=False)
        return np.asarray(self.estimator_.predict(rows), dtype=np.float64)


def _both(source_nd: Any, target_ld: Any, own_scale: float) -> Any:
    return stack_rows(_blocks(source_nd, own_scale, is_source=True), _blocks(target_ld, own_scale, is_source=False))
