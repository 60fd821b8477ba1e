"""Targets as the scores read them: whole numbers are classes, other numbers values, a matrix several labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from headstart.core.checks import check_matrix, check_same_rows
from headstart.core.errors import DataError, ShapeError

__all__ = ["Targets", "check_features", "class_numbers", "read_targets"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Targets:
    """Targets as columns.

    Attributes
    ----------
    kind : {"classes", "labels", "values"}
    columns : ndarray of shape (n, k)
        An indicator for each class that occurs or for each label, or the values themselves (n, 1).
    """

    kind: Literal["classes", "labels", "values"]
    columns: npt.NDArray[np.float64]


def check_features(who: str, features_nd: Array, targets: Array, min_rows: int = 2) -> None:
    """Refuse features that are not a finite matrix with a row for each target."""
    check_matrix(who, "features", features_nd, min_rows)
    check_same_rows(who, "features", features_nd, "targets", np.asarray(targets))
    if not np.isfinite(features_nd).all():
        raise DataError(f"{who}: features must be finite; some are NaN or infinite. Drop the rows that have them.")


def read_targets(who: str, targets: Array) -> Targets:
    """Return targets as columns.

    Examples
    --------
    >>> read_targets("doc", np.array([5, 2])).columns
    array([[0., 1.],
           [1., 0.]])
    """
    targets = np.asarray(targets)
    if targets.ndim == 2 and targets.shape[1] >= 1:
        if not np.isin(targets, (0, 1)).all():
            raise DataError(f"{who}: a matrix of targets holds several labels, 0 or 1 each; other values were found.")
        return Targets("labels", targets.astype(np.float64))
    if targets.ndim != 1:
        raise ShapeError(f"{who}: targets have shape (n,) or (n, k); got {targets.shape}.")
    if np.issubdtype(targets.dtype, np.floating):
        if not np.isfinite(targets).all():
            raise DataError(f"{who}: targets must be finite numbers; drop the rows without one.")
        if np.ptp(targets) == 0:
            raise DataError(f"{who}: all targets are equal; there is nothing to predict.")
        return Targets("values", targets.astype(np.float64)[:, None])
    numbers, num_classes = class_numbers(who, targets)
    return Targets("classes", np.eye(num_classes)[numbers])


def class_numbers(who: str, targets: Array) -> tuple[npt.NDArray[np.int64], int]:
    """Return classes renumbered without gaps, and how many occur; at least two must.

    Examples
    --------
    >>> class_numbers("doc", np.array([7, 3, 7]))
    (array([1, 0, 1]), 2)
    """
    targets = np.asarray(targets)
    if targets.ndim != 1 or np.issubdtype(targets.dtype, np.floating):
        raise ShapeError(
            f"{who}: needs one class for each row, whole numbers of shape (n,); got {targets.dtype} {targets.shape}."
        )
    names, numbers = np.unique(targets, return_inverse=True)
    if len(names) < 2:
        raise DataError(f"{who}: needs rows of at least two classes to tell apart; got {len(names)}.")
    return numbers.astype(np.int64), len(names)
