"""How good predicted probabilities are: their order, and their surprise.

    AUC_c    = P(score of a row of c > score of a row not of c) + 1/2 P(equal)
    AUC      = mean of AUC_c over the classes (one against the rest)
    log loss = -1/n sum_i log p_i[true class]       (several labels: mean over rows and labels of the two-class form)

Source: Hanley & McNeil, "The meaning and use of the area under a ROC curve", Radiology 1982;
Good, "Rational decisions", 1952.
Use AUC when only the order of rows matters, log loss when the probabilities themselves are acted on.
AUC ignores every monotone distortion of the scores; log loss ignores nothing.
Shapes: n rows, k classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.checks import check_matrix, check_same_rows
from headstart.core.errors import DataError, ShapeError

__all__ = ["check_probabilities", "class_roc_auc", "log_loss", "roc_auc"]

Array = npt.NDArray[Any]


def check_probabilities(who: str, targets: Array, probabilities_nk: Array) -> None:
    """Refuse what is not one row of finite numbers for each target."""
    check_matrix(who, "probabilities", probabilities_nk, min_rows=0)
    check_same_rows(who, "targets", targets, "probabilities", probabilities_nk)
    if targets.ndim == 2 and targets.shape != probabilities_nk.shape:
        raise ShapeError(f"{who}: targets have shape {targets.shape} but probabilities {probabilities_nk.shape}.")
    if not np.isfinite(probabilities_nk).all():
        raise DataError(f"{who}: probabilities must be finite; some are NaN or infinite. Look for NaN in the features.")
    if targets.ndim == 1 and targets.size and not 0 <= targets.min() <= targets.max() < probabilities_nk.shape[1]:
        raise DataError(f"{who}: class numbers lie in 0..{probabilities_nk.shape[1] - 1}, one for each column.")


def class_roc_auc(targets: Array, probabilities_nk: Array) -> npt.NDArray[np.float64]:
    """Return the area under the ROC curve of every class against the rest.

    Parameters
    ----------
    targets : ndarray of shape (n,) or (n, k)
        Class numbers, or 0/1 indicators.
    probabilities_nk : ndarray of shape (n, k)
        Any scores that rise with the class; larger means more likely.

    Returns
    -------
    ndarray of shape (k,)
        In [0, 1]; 0.5 is chance; NaN for a class that no row has, or every row has.

    Examples
    --------
    >>> scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.6, 0.4], [0.1, 0.9]])
    >>> class_roc_auc(np.array([0, 0, 1, 1]), scores)      # 3 of the 4 pairs stand in the right order
    array([0.75, 0.75])
    """
    check_probabilities("roc_auc", targets, probabilities_nk)
    areas = np.full(probabilities_nk.shape[1], np.nan)
    for label in range(len(areas)):
        positive = targets[:, label] > 0 if targets.ndim == 2 else targets == label
        below = np.sort(probabilities_nk[~positive, label])
        above = probabilities_nk[positive, label]
        if len(below) and len(above):
            pairs = np.searchsorted(below, above, "left").sum() + np.searchsorted(below, above, "right").sum()
            areas[label] = pairs / (2 * len(below) * len(above))
    return areas


def roc_auc(targets: Array, probabilities_nk: Array) -> float:
    """Return the macro mean of `class_roc_auc` over the classes for which it is defined; NaN when there is none.

    Examples
    --------
    >>> roc_auc(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]))
    1.0
    """
    areas = class_roc_auc(targets, probabilities_nk)
    defined = areas[~np.isnan(areas)]
    return float(defined.mean()) if len(defined) else float("nan")


def log_loss(targets: Array, probabilities_nk: Array) -> float:
    """Return the mean surprise of the true labels, in nats; 0 is best.

    Parameters
    ----------
    targets : ndarray of shape (n,) or (n, k)
        Class numbers, or 0/1 indicators.
    probabilities_nk : ndarray of shape (n, k)
        In [0, 1]; rows add up to 1 for one class of several. Values are kept 1e-15 away from 0 and 1, so that one
        certain mistake costs 34.5 and not infinity.

    Examples
    --------
    >>> round(log_loss(np.array([0, 1]), np.array([[0.5, 0.5], [0.5, 0.5]])), 4)         # log 2
    0.6931
    """
    check_probabilities("log_loss", targets, probabilities_nk)
    if not targets.size:
        return float("nan")
    clipped = np.clip(np.asarray(probabilities_nk, dtype=np.float64), 1e-15, 1 - 1e-15)
    if targets.ndim == 2:
        return float(-np.where(targets > 0, np.log(clipped), np.log1p(-clipped)).mean())
    return float(-np.log(clipped[np.arange(len(targets)), targets.astype(np.int64)]).mean())
