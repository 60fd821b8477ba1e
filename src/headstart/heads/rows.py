"""Training rows made ready once for every solver: checked, standardised, rotated, weighted and dealt into folds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from headstart.core.checks import check_matrix, check_same_rows
from headstart.core.errors import ConfigError, DataError, ShapeError
from headstart.core.tasks import Task
from headstart.heads.folds import deal_folds
from headstart.transferability.row_space import RowSpace

__all__ = ["ClassWeight", "TrainingRows", "check_targets"]

Array = npt.NDArray[Any]
ClassWeight = Literal["balanced"]


def check_targets(who: str, targets: Array, task: Task) -> Array:
    """Return targets in the task's own type, or say what is wrong with them.

    Raises
    ------
    DataError
        If labels lie outside the task's classes, are missing, or there is nothing to tell apart.
    ShapeError
        If the shape is not the task's.
    """
    targets = np.asarray(targets)
    if task.kind == "multilabel":
        if targets.ndim != 2 or targets.shape[1] != len(task.classes):
            raise ShapeError(
                f"{who}: several labels at once need targets (n, {len(task.classes)}); got {targets.shape}."
            )
        if not np.isin(targets, (0, 1)).all():
            raise DataError(f"{who}: several labels at once are 0 or 1 each; other values were found.")
        return targets.astype(np.uint8)
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim != 1:
        raise ShapeError(f"{who}: {task.kind} needs one target for each row, shape (n,); got {targets.shape}.")
    if task.kind == "regression":
        numbers = targets.astype(np.float64)
        if not np.isfinite(numbers).all():
            raise DataError(f"{who}: targets must be finite numbers; drop the rows without one.")
        return numbers
    if not np.issubdtype(targets.dtype, np.integer):
        raise DataError(
            f"{who}: class numbers are integers; got {targets.dtype}. Map class names to their place in the task."
        )
    if targets.size and not 0 <= targets.min() <= targets.max() < len(task.classes):
        raise DataError(
            f"{who}: class numbers lie in 0..{len(task.classes) - 1}; got {targets.min()}..{targets.max()}."
        )
    if len(np.unique(targets)) < 2:
        raise DataError(f"{who}: needs rows of at least two classes to tell apart; got one. Add rows of another class.")
    return targets.astype(np.int64)


@dataclass(frozen=True)
class TrainingRows:
    """What every head is fitted on.

    Attributes
    ----------
    task : Task
    space : RowSpace
        Features, standardised and rotated.
    targets : ndarray of shape (n,) or (n, k)
        In the task's own type.
    weights : ndarray of shape (n,)
        Positive, mean 1.
    folds : ndarray of shape (n,)
        Number of the fold in which a row is held out.
    by_group : bool
        Whether rows of one group share a fold; leaving out single rows would then be too kind.
    """

    task: Task
    space: RowSpace
    targets: Array
    weights: npt.NDArray[np.float64]
    folds: npt.NDArray[np.int64]
    by_group: bool

    @classmethod
    def of(
        cls,
        features_nd: Array,
        targets: Array,
        task: Task,
        *,
        groups: Array | None = None,
        sample_weight: Array | None = None,
        num_folds: int = 5,
        seed: int = 0,
    ) -> TrainingRows:
        """Check the rows, rotate the features, deal the folds.

        Parameters
        ----------
        features_nd : ndarray of shape (n, d)
        targets : ndarray of shape (n,) or (n, k)
        task : Task
        groups : ndarray of shape (n,), optional
            Rows of one group (a patient, a duplicate) are never on both sides of a fold.
        sample_weight : ndarray of shape (n,), optional
            Positive; how many rows each row stands for.
        num_folds : int
            At least 2.
        seed : int
            Of the folds.

        Raises
        ------
        HeadstartError
            Whatever is wrong with the rows; see `check_targets` and `RowSpace.of`.
        """
        features_nd = np.asarray(features_nd)
        check_matrix("fit", "features", features_nd, min_rows=2)
        check_same_rows("fit", "features", features_nd, "targets", np.asarray(targets))
        checked = check_targets("fit", targets, task)
        if groups is not None:
            groups = np.asarray(groups)
            check_same_rows("fit", "features", features_nd, "groups", groups)
            _, groups = np.unique(groups, return_inverse=True)
            if groups.max() == len(groups) - 1 or groups.max() == 0:
                groups = None  # every row alone, or all together: groups say nothing
        if num_folds < 2:
            raise ConfigError(f"fit: num_folds is at least 2; got {num_folds}.")
        folds = deal_folds(checked, task, num_folds, seed, groups)
        weights = _check_weights(sample_weight, len(features_nd))
        return cls(task, RowSpace.of(features_nd), checked, weights, folds, groups is not None)

    @property
    def codes(self) -> npt.NDArray[np.float64]:
        """What least squares aims at, shape (n, k): +1 and -1 for labels, or the numbers themselves."""
        if self.task.kind == "regression":
            return np.asarray(self.targets, dtype=np.float64)[:, None]
        return 2 * self.indicators - 1

    @property
    def indicators(self) -> npt.NDArray[np.float64]:
        """Labels as 0 and 1, shape (n, k)."""
        if self.task.kind == "multilabel":
            return self.targets.astype(np.float64)
        indicators = np.zeros((len(self.targets), len(self.task.classes)))
        indicators[np.arange(len(self.targets)), self.targets] = 1.0
        return indicators

    def weighted(self, who: str, class_weight: ClassWeight | None) -> TrainingRows:
        """Return the same rows with class weights multiplied into their weights.

        ``"balanced"`` makes every class that occurs count alike: a row weighs n / (classes x rows of its class).
        """
        if class_weight is None:
            return self
        if class_weight != "balanced":
            raise ConfigError(f"{who}: class_weight is None or 'balanced'; got {class_weight!r}.")
        if self.task.kind != "classification":
            raise ConfigError(
                f"{who}: class weights need one class for each row; leave class_weight out for {self.task.kind}."
            )
        totals = np.bincount(self.targets, weights=self.weights, minlength=len(self.task.classes))
        weights = self.weights / totals[self.targets]
        return replace(self, weights=weights / weights.mean())


def _check_weights(sample_weight: Array | None, num_rows: int) -> npt.NDArray[np.float64]:
    if sample_weight is None:
        return np.ones(num_rows)
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (num_rows,):
        raise ShapeError(f"fit: sample_weight needs one number for each of {num_rows} rows; got shape {weights.shape}.")
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise DataError("fit: sample weights are positive and finite; leave out rows that should not count.")
    return np.asarray(weights / weights.mean())
