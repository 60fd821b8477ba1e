"""How well predicted classes agree with true ones: counts first, every measure from the counts.

    precision_c = TP_c / predicted_c      recall_c = TP_c / actual_c      F1_c = 2 TP_c / (predicted_c + actual_c)
    macro    = mean over the classes that occur in the targets or the predictions
    weighted = mean weighted by actual_c
    micro    = the same formula on counts summed over classes
    balanced accuracy = mean recall over the classes that occur in the targets

Source: scikit-learn's conventions with ``zero_division=0``; Brodersen et al., "The balanced accuracy and its posterior
distribution", ICPR 2010.
Use them for one class of several, or for several labels at once (each label is then a yes/no question of its own).
They ignore confidence: a probability of 0.51 counts like one of 0.99.
Every measure takes counts with any number of leading axes, so that a bootstrap is one call.
Shapes: n rows, k classes; ``...`` any leading axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from headstart.core.checks import check_same_rows
from headstart.core.errors import DataError, ShapeError

__all__ = [
    "Average",
    "ClassCounts",
    "accuracy",
    "balanced_accuracy",
    "class_counts",
    "confusion_matrix",
    "counts_from_confusion",
    "f1",
    "hamming_loss",
    "precision",
    "recall",
    "to_predictions",
]

Array = npt.NDArray[Any]
Average = Literal["macro", "micro", "weighted"]


@dataclass(frozen=True)
class ClassCounts:
    """For every class: rows rightly given it, rows given it, rows that have it.

    Attributes
    ----------
    hits, predicted, actual : ndarray of shape (..., k)
        Numbers of rows, as float64.
    """

    hits: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.float64]
    actual: npt.NDArray[np.float64]

    def precision(self) -> npt.NDArray[np.float64]:
        """Return the precision of every class, in [0, 1]; NaN for a class that was never predicted."""
        return _divide(self.hits, self.predicted)

    def recall(self) -> npt.NDArray[np.float64]:
        """Return the recall of every class, in [0, 1]; NaN for a class without rows."""
        return _divide(self.hits, self.actual)

    def f1(self) -> npt.NDArray[np.float64]:
        """Return the F1 of every class, in [0, 1]; NaN for a class neither predicted nor present."""
        return _divide(2 * self.hits, self.predicted + self.actual)


def _divide(above: npt.NDArray[np.float64], below: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    result = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=result, where=below > 0)
    return result


def to_predictions(targets: Array, scores: Array) -> npt.NDArray[np.int64]:
    """Return predicted classes (n,) or indicators (n, k) from probabilities; predictions come back as they are.

    Parameters
    ----------
    targets : ndarray of shape (n,) or (n, k)
        Only its number of axes is looked at: one class of several, or several labels at once.
    scores : ndarray of shape (n,) or (n, k)
        Predicted classes, or probabilities. The first of equal probabilities wins; a label is on above 0.5.

    Raises
    ------
    ShapeError
        If the shapes do not fit each other.
    DataError
        If a score is NaN.

    Examples
    --------
    >>> to_predictions(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]))
    array([0, 0])
    """
    check_same_rows("to_predictions", "targets", targets, "scores", scores)
    if np.issubdtype(scores.dtype, np.floating) and np.isnan(scores).any():
        raise DataError("to_predictions: scores must be numbers; some are NaN. Look for NaN in the features.")
    if targets.ndim == 2:
        if scores.shape != targets.shape:
            raise ShapeError(
                f"to_predictions: several labels at once need scores of shape {targets.shape}; got {scores.shape}."
            )
        return (scores > 0.5).astype(np.int64)
    if scores.ndim == 2:
        return np.asarray(scores.argmax(axis=1), dtype=np.int64)
    if scores.ndim != 1 or not np.all(scores == np.floor(scores)):
        raise ShapeError(
            "to_predictions: give class numbers (n,) or probabilities (n, k); "
            f"got {scores.dtype} of shape {scores.shape}."
        )
    return scores.astype(np.int64)


def confusion_matrix(targets_n: Array, predictions_n: Array, num_classes: int) -> npt.NDArray[np.int64]:
    """Return how often each true class (row) was given each class (column).

    Parameters
    ----------
    targets_n, predictions_n : ndarray of shape (n,)
        Class numbers in ``range(num_classes)``.
    num_classes : int
        Number of rows and columns, whether or not each class occurs.

    Returns
    -------
    ndarray of shape (k, k)
        Numbers of rows; they add up to n.

    Raises
    ------
    DataError
        If a class number lies outside the range.

    Examples
    --------
    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    array([[1, 1],
           [0, 1]])
    """
    check_same_rows("confusion_matrix", "targets", targets_n, "predictions", predictions_n)
    targets, predictions = targets_n.astype(np.int64), predictions_n.astype(np.int64)
    if targets.size and (
        min(targets.min(), predictions.min()) < 0 or max(targets.max(), predictions.max()) >= num_classes
    ):
        raise DataError(f"confusion_matrix: class numbers lie in 0..{num_classes - 1}; give each class its own number.")
    flat = np.bincount(targets * num_classes + predictions, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def counts_from_confusion(confusion_kk: Array) -> ClassCounts:
    """Return the counts of every class from confusion matrices of shape (..., k, k)."""
    confusion = np.asarray(confusion_kk, dtype=np.float64)
    return ClassCounts(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-2), confusion.sum(axis=-1))


def class_counts(targets: Array, scores: Array, num_classes: int) -> ClassCounts:
    """Return the counts of every class, for one class of several (n,) and for several labels at once (n, k).

    Parameters
    ----------
    targets : ndarray of shape (n,) or (n, k)
        Class numbers, or 0/1 indicators.
    scores : ndarray of shape (n,) or (n, k)
        Predictions or probabilities, see `to_predictions`.
    num_classes : int
        k.

    Examples
    --------
    >>> class_counts(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).recall()
    array([0.5, 1. ])
    """
    predictions = to_predictions(targets, scores)
    if targets.ndim == 1:
        return counts_from_confusion(confusion_matrix(targets, predictions, num_classes))
    truth = targets > 0
    hits = np.logical_and(truth, predictions > 0).sum(axis=0)
    return ClassCounts(hits.astype(float), predictions.sum(axis=0).astype(float), truth.sum(axis=0).astype(float))


def _averaged(counts: ClassCounts, above: str, average: Average) -> npt.NDArray[np.float64]:
    """Average a ratio of counts over classes; an undefined ratio counts as 0, as in scikit-learn."""
    hits, predicted, actual = counts.hits, counts.predicted, counts.actual
    if average == "micro":
        total = ClassCounts(*(item.sum(axis=-1, keepdims=True) for item in (hits, predicted, actual)))
        values: npt.NDArray[np.float64] = getattr(total, above)()
        return values[..., 0]
    values = np.nan_to_num(getattr(counts, above)())
    weights = actual if average == "weighted" else (predicted + actual > 0).astype(np.float64)
    return _divide((values * weights).sum(axis=-1), weights.sum(axis=-1))


def precision(counts: ClassCounts, average: Average = "macro") -> npt.NDArray[np.float64]:
    """Return the share of rows given a class that have it, averaged over classes; shape (...), in [0, 1].

    Parameters
    ----------
    counts : ClassCounts
        From `class_counts` or `counts_from_confusion`.
    average : {"macro", "micro", "weighted"}
        See the module's formulas. A class that was never predicted counts as 0.

    Examples
    --------
    >>> float(precision(counts_from_confusion(np.array([[1, 1], [0, 1]]))))      # (1/1 + 1/2) / 2
    0.75
    """
    return _averaged(counts, "precision", average)


def recall(counts: ClassCounts, average: Average = "macro") -> npt.NDArray[np.float64]:
    """Return the share of a class's rows that were given it, averaged over classes; shape (...), in [0, 1].

    Parameters
    ----------
    counts : ClassCounts
        From `class_counts` or `counts_from_confusion`.
    average : {"macro", "micro", "weighted"}
        See the module's formulas. A class that was predicted but has no rows counts as 0.

    Examples
    --------
    >>> float(recall(counts_from_confusion(np.array([[1, 1], [0, 1]]))))         # (1/2 + 1/1) / 2
    0.75
    """
    return _averaged(counts, "recall", average)


def f1(counts: ClassCounts, average: Average = "macro") -> npt.NDArray[np.float64]:
    """Return the harmonic mean of precision and recall, averaged over classes; shape (...), in [0, 1].

    Parameters
    ----------
    counts : ClassCounts
        From `class_counts` or `counts_from_confusion`.
    average : {"macro", "micro", "weighted"}
        See the module's formulas.

    Examples
    --------
    >>> round(float(f1(counts_from_confusion(np.array([[1, 1], [0, 1]])))), 4)   # (2/3 + 2/3) / 2
    0.6667
    """
    return _averaged(counts, "f1", average)


def accuracy(targets: Array, scores: Array) -> float:
    """Return the share of rows predicted right, in [0, 1]; with several labels at once, of rows with every label right.

    Parameters
    ----------
    targets : ndarray of shape (n,) or (n, k)
        Class numbers, or 0/1 indicators.
    scores : ndarray of shape (n,) or (n, k)
        Predictions or probabilities, see `to_predictions`.

    Examples
    --------
    >>> accuracy(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0]))
    0.75
    >>> accuracy(np.array([[1, 0], [1, 1]]), np.array([[0.9, 0.2], [0.9, 0.2]]))
    0.5
    """
    same = to_predictions(targets, scores) == targets
    return float(np.mean(same.all(axis=1) if same.ndim == 2 else same)) if len(same) else float("nan")


def balanced_accuracy(counts: ClassCounts) -> npt.NDArray[np.float64]:
    """Return the mean recall over the classes that have rows; shape (...), in [0, 1].

    Examples
    --------
    >>> float(balanced_accuracy(counts_from_confusion(np.array([[8, 0, 0], [1, 1, 0], [0, 0, 0]]))))     # (1 + 1/2) / 2
    0.75
    """
    present = (counts.actual > 0).astype(np.float64)
    return _divide((np.nan_to_num(counts.recall()) * present).sum(axis=-1), present.sum(axis=-1))


def hamming_loss(targets_nk: Array, scores_nk: Array) -> float:
    """Return the share of single labels that are wrong, in [0, 1]; 0 is best.

    Examples
    --------
    >>> hamming_loss(np.array([[1, 0], [1, 1]]), np.array([[0.9, 0.2], [0.9, 0.2]]))
    0.25
    """
    wrong = to_predictions(targets_nk, scores_nk) != targets_nk
    return float(np.mean(wrong)) if wrong.size else float("nan")
