"""Training any scikit-learn classifier inside an adaptation method: numbered classes, weighted rows.

The methods here number the source's classes 0 to k-1. A classifier may be trained on rows that lack some of them (a
few labelled target rows), and its probabilities still need k columns: a class it has never seen has probability 0.
Rows are computed in double precision, so that a choice of rows never turns on rounding.
Shapes: n rows, d features, k classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import has_fit_parameter

from headstart.core.errors import ConfigError

__all__ = ["as_double", "class_probabilities", "deal_folds", "fit_classifier", "fit_weighted", "stack_rows"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def as_double(rows: Any) -> Any:
    """Return rows in float64, dense or CSR as they came."""
    return np.asarray(rows, dtype=np.float64) if isinstance(rows, np.ndarray) else rows.astype(np.float64)


def stack_rows(*parts: Any) -> Any:
    """Return parts one above the other, dense or CSR as they came.

    Examples
    --------
    >>> stack_rows(np.zeros((1, 2)), np.ones((1, 2))).tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    return sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.concatenate(parts)


def fit_weighted(who: str, estimator: Any, rows: Any, labels_n: Any, weights_n: FloatArray) -> Any:
    """Return a clone trained on weighted rows; rows of weight 0 are left out.

    Raises
    ------
    ConfigError
        If the estimator takes no ``sample_weight``.
    """
    if not has_fit_parameter(estimator, "sample_weight"):
        raise ConfigError(
            f"{who}: estimator must take sample_weight, since rows are weighed; {type(estimator).__name__} does not. "
            "Choose one that does, such as LogisticRegression, SVC, Ridge or a tree."
        )
    keep = weights_n > 0
    return clone(estimator).fit(rows[np.flatnonzero(keep)], labels_n[keep], sample_weight=weights_n[keep])


def fit_classifier(who: str, estimator: Any, rows: Any, codes_n: IntArray, weights_n: FloatArray | None = None) -> Any:
    """Return a classifier trained on numbered classes: a clone of ``estimator``, logistic regression where it is None.

    Where the rows that count hold one class only, the classifier always answers that class.
    """
    estimator = LogisticRegression(max_iter=1000) if estimator is None else estimator
    counted = codes_n if weights_n is None else codes_n[weights_n > 0]
    if (counted == counted[0]).all():
        return DummyClassifier(strategy="most_frequent").fit(rows[:1], counted[:1])
    if weights_n is None:
        return clone(estimator).fit(rows, codes_n)
    return fit_weighted(who, estimator, rows, codes_n, weights_n)


def class_probabilities(who: str, trained: Any, rows: Any, num_classes: int) -> FloatArray:
    """Return probabilities with one column for each of ``num_classes``, rows summing to 1.

    Raises
    ------
    ConfigError
        If the classifier gives no probabilities.
    """
    if not hasattr(trained, "predict_proba"):
        raise ConfigError(
            f"{who}: estimator must give probabilities (predict_proba); {type(trained).__name__} does not. "
            "Wrap it in CalibratedClassifierCV, or choose another."
        )
    probabilities = np.zeros((rows.shape[0], num_classes))
    probabilities[:, np.asarray(trained.classes_, dtype=np.int64)] = trained.predict_proba(rows)
    return probabilities


def deal_folds(values_n: npt.NDArray[Any], num_folds: int) -> IntArray:
    """Return a fold number for each row: rows ordered by value (class), dealt out in turn.

    Every fold holds nearly the same share of each class, or the same spread of values; nothing is drawn.

    Examples
    --------
    >>> deal_folds(np.array([0, 1, 0, 1]), 2).tolist()
    [0, 0, 1, 1]
    """
    folds = np.empty(len(values_n), dtype=np.int64)
    folds[np.argsort(values_n, kind="stable")] = np.arange(len(values_n)) % num_folds
    return folds
