"""BBSE: weigh source rows by class, so that class proportions are the target's (label shift).

    C_pk = share of source rows predicted p with label k,   mu_p = share of target rows predicted p
    C w = mu                                                w_k = P_T(y = k) / P_S(y = k), cut off at 0

Source: Lipton, Wang & Smola, "Detecting and correcting for label shift with black box predictors", ICML 2018
(arXiv:1802.03916), as `headstart.distances.label_shift.bbse` solves it; with ``soft`` predicted probabilities stand for
predicted classes, which varies less.
Use it when proportions of classes differ and each class looks the same in both domains (diagnosis at another hospital).
It ignores any change within a class, and classes the source lacks. C comes from predictions of rows that were held out.
Shapes: n source rows, m target rows, k classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from headstart.alignment.aligner import Domains, Reweighter
from headstart.alignment.option_checks import check_count, check_number
from headstart.alignment.row_checks import source_classes
from headstart.core.errors import DomainError
from headstart.distances.label_shift import bbse

__all__ = ["BBSE"]

Array = npt.NDArray[Any]


class BBSE(Reweighter):
    """Black box shift estimation.

    After ``fit`` also ``classes_``; ``class_weights_``, one a class; ``target_proportions_``; ``shift_``, the
    estimate with its intervals and condition number; ``estimator_``.

    Parameters
    ----------
    estimator : scikit-learn classifier, optional
        What predicts classes; logistic regression on features divided by their deviation when left out.
    soft : bool
        Whether probabilities are averaged instead of counting predicted classes.
    num_folds : int, at least 2
        Parts of the source in which rows are predicted by a classifier trained on the others; at most the rows of the
        rarest class.
    max_condition : float, at least 1
        Largest condition number of C accepted: beyond it small errors of the predictions become large ones of the weights.
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
        max_condition: float = 100.0,
        min_effective_rows: float = 10.0,
        random_state: int = 0,
    ) -> None:
        self.estimator = estimator
        self.soft = soft
        self.num_folds = num_folds
        self.max_condition = max_condition
        self.min_effective_rows = min_effective_rows
        self.random_state = random_state

    def _check_labels(self, labels_n: Array) -> Array:
        from sklearn.utils.multiclass import check_classification_targets

        check_classification_targets(labels_n)
        return super()._check_labels(labels_n)

    def _weigh(self, domains: Domains) -> Array:
        check_count("BBSE", "num_folds", self.num_folds, 2)
        check_number("BBSE", "max_condition", self.max_condition, 1.0)
        assert domains.source_labels_n is not None
        self.classes_, codes = source_classes("BBSE", domains.source_labels_n)
        held_out_nk = self._held_out(domains.source_nd, codes)
        self.estimator_ = clone(self._default()).fit(domains.source_nd, codes)
        target_mk = self._said(self.estimator_, domains.target_md)
        try:
            self.shift_ = bbse(
                held_out_nk,
                codes,
                target_mk,
                kind="soft" if self.soft else "hard",
                max_condition=self.max_condition,
                seed=self.random_state,
            )
        except DomainError as refused:
            raise DomainError(f"BBSE: {refused}") from None
        self.class_weights_, self.target_proportions_ = self.shift_.weights_k, self.shift_.target_priors_k
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
