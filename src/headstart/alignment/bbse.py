"""BBSE: weigh source rows by class, so that class proportions are the target's (label shift).

    C_pk = share of source rows predicted p with label k,   mu_p = share of target rows predicted p
    w = argmin_{w >= 0} |C w - mu|_2        w_k estimates P_T(y = k) / P_S(y = k); C^-1 mu where that is not negative

Source: Lipton, Wang & Smola, "Detecting and correcting for label shift with black box predictors", ICML 2018
(arXiv:1802.03916). The paper inverts C; least squares under w >= 0 gives the same answer where the inverse is not
negative. With ``soft`` predicted probabilities stand for predicted classes, which varies less.
Use it when proportions of classes differ and each class looks the same in both domains (diagnosis at another hospital).
It ignores any change within a class, and classes the source lacks. C comes from predictions of rows that were held out.
Shapes: n source rows, m target rows, k classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize
from sklearn.base import clone

from headstart.alignment.aligner import Domains, Reweighter
from headstart.alignment.option_checks import check_count
from headstart.core.errors import DomainError

__all__ = ["BBSE", "label_shift_weights"]

Array = npt.NDArray[Any]


class BBSE(Reweighter):
    """Black box shift estimation.

    After ``fit`` also ``classes_``; ``class_weights_``, one a class; ``target_proportions_``, their estimate; ``estimator_``.

    Parameters
    ----------
    estimator : scikit-learn classifier, optional
        What predicts classes; logistic regression on features divided by their deviation when left out.
    soft : bool
        Whether probabilities are averaged instead of counting predicted classes.
    num_folds : int, at least 2
        Parts of the source in which rows are predicted by a classifier trained on the others; at most the rows of the
        rarest class.
    min_effective_rows : float
        Weights worth fewer rows are refused.
    random_state : int
        Draws the parts.

    Examples
    --------
    >>> source, target = np.repeat([[0.0], [9.0]], 4, axis=0), np.array([[0.0], [9.0], [9.0], [9.0]])
    >>> fitted = BBSE(soft=False, min_effective_rows=1).fit(source, ["no"] * 4 + ["yes"] * 4, target)
    >>> fitted.class_weights_.round(6).tolist()                             # half and half there, 1 in 4 and 3 in 4 here
    [0.5, 1.5]
    """

    requires_labels = True
    accepts_sparse = True

    def __init__(
        self,
        estimator: Any = None,
        soft: bool = True,
        num_folds: int = 5,
        min_effective_rows: float = 10.0,
        random_state: int = 0,
    ) -> None:
        self.estimator = estimator
        self.soft = soft
        self.num_folds = num_folds
        self.min_effective_rows = min_effective_rows
        self.random_state = random_state

    def _check_labels(self, labels_n: Array) -> Array:
        from sklearn.utils.multiclass import check_classification_targets

        check_classification_targets(labels_n)
        return super()._check_labels(labels_n)

    def _weigh(self, domains: Domains) -> Array:
        check_count("BBSE", "num_folds", self.num_folds, 2)
        assert domains.source_labels_n is not None
        self.classes_, codes = np.unique(domains.source_labels_n, return_inverse=True)
        codes = codes.reshape(-1)
        if len(self.classes_) < 2:
            raise DomainError(
                f"BBSE: the source needs at least two classes; it has one class, {self.classes_.tolist()[0]!r}."
            )
        held_out_nk = self._held_out(domains.source_nd, codes)
        self.estimator_ = clone(self._default()).fit(domains.source_nd, codes)
        target_mk = self._said(self.estimator_, domains.target_md)
        members_nk = np.eye(len(self.classes_))[codes]
        self.class_weights_ = label_shift_weights(held_out_nk.T @ members_nk / len(codes), target_mk.mean(axis=0))
        shares = self.class_weights_ * members_nk.mean(axis=0)
        if not shares.sum() > 0:
            raise DomainError(
                "BBSE: no class keeps weight; the target's predictions fit no mixture of the source's classes."
            )
        self.target_proportions_ = shares / shares.sum()
        return np.asarray(self.class_weights_[codes])

    def _held_out(self, rows: Any, codes_n: Array) -> Array:
        """Return what classifiers trained on the other parts say of each source row, (n, k)."""
        from sklearn.model_selection import StratifiedKFold

        rarest = int(np.bincount(codes_n).min())
        if rarest < 2:
            lonely = self.classes_.tolist()[int(np.bincount(codes_n).argmin())]
            raise DomainError(
                f"BBSE: every source class needs at least 2 rows, one of them held out; {lonely!r} has 1. Leave it out."
            )
        parts = StratifiedKFold(min(int(self.num_folds), rarest), shuffle=True, random_state=self.random_state)
        said = np.empty((len(codes_n), len(self.classes_)))
        for learn, judge in parts.split(np.zeros(len(codes_n)), codes_n):
            said[judge] = self._said(clone(self._default()).fit(rows[learn], codes_n[learn]), rows[judge])
        return said

    def _said(self, fitted: Any, rows: Any) -> Array:
        """Return probabilities, or 1 for the predicted class."""
        if self.soft:
            return np.asarray(fitted.predict_proba(rows), dtype=np.float64)
        return np.eye(len(self.classes_))[np.asarray(fitted.predict(rows), dtype=np.int64)]

    def _default(self) -> Any:
        if self.estimator is not None:
            return self.estimator
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        return make_pipeline(StandardScaler(with_mean=False), LogisticRegression(max_iter=1000))


def label_shift_weights(confusion_kk: Array, predicted_k: Array) -> Array:
    """Return the class weights ``w >= 0`` that best explain the target's predictions: ``confusion @ w = predicted``.

    Parameters
    ----------
    confusion_kk : ndarray of shape (k, k)
        Share of source rows with prediction p (row) and label c (column); entries sum to 1.
    predicted_k : ndarray of shape (k,)
        Share of target rows with each prediction.

    Returns
    -------
    ndarray of shape (k,)

    Examples
    --------
    >>> label_shift_weights(np.array([[0.4, 0.1], [0.1, 0.4]]), np.array([0.2, 0.8])).round(6).tolist()
    [0.0, 2.0]
    """
    return np.asarray(optimize.nnls(confusion_kk, predicted_k)[0])
