"""How far predicted numbers lie from true ones.

    RMSE = sqrt(1/n sum_i (y_i - p_i)^2)      MAE = 1/n sum_i |y_i - p_i|
    R2   = 1 - sum (y - p)^2 / sum (y - mean y)^2

Source: any textbook; the definitions are scikit-learn's.
Use RMSE when large mistakes hurt most, MAE when all hurt alike, R2 to compare across units.
They ignore the sign of a mistake.
Shapes: n rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.checks import check_same_rows
from headstart.core.errors import DataError, ShapeError

__all__ = ["mean_absolute_error", "r2", "root_mean_squared_error"]

Array = npt.NDArray[Any]


def _errors(who: str, targets_n: Array, predictions_n: Array) -> npt.NDArray[np.float64]:
    check_same_rows(who, "targets", targets_n, "predictions", predictions_n)
    if targets_n.size != len(targets_n) or predictions_n.size != len(predictions_n):
        raise ShapeError(
            f"{who}: one number for each row; got targets {targets_n.shape} and predictions {predictions_n.shape}."
        )
    errors = targets_n.reshape(-1).astype(np.float64) - predictions_n.reshape(-1).astype(np.float64)
    if not np.isfinite(errors).all():
        raise DataError(f"{who}: targets and predictions must be finite; some are NaN or infinite.")
    return errors


def root_mean_squared_error(targets_n: Array, predictions_n: Array) -> float:
    """Return the root of the mean squared error, in the unit of the target; 0 is best, NaN without rows.

    Examples
    --------
    >>> root_mean_squared_error(np.array([0.0, 0.0]), np.array([3.0, 3.0]))
    3.0
    """
    errors = _errors("root_mean_squared_error", targets_n, predictions_n)
    return float(np.sqrt(np.mean(errors**2))) if len(errors) else float("nan")


def mean_absolute_error(targets_n: Array, predictions_n: Array) -> float:
    """Return the mean absolute error, in the unit of the target; 0 is best, NaN without rows.

    Examples
    --------
    >>> mean_absolute_error(np.array([0.0, 0.0]), np.array([1.0, -3.0]))
    2.0
    """
    errors = _errors("mean_absolute_error", targets_n, predictions_n)
    return float(np.mean(np.abs(errors))) if len(errors) else float("nan")


def r2(targets_n: Array, predictions_n: Array) -> float:
    """Return the share of the targets' variance that the predictions explain; 1 is best, 0 is the mean's.

    NaN when the targets do not vary.

    Examples
    --------
    >>> r2(np.array([0.0, 2.0]), np.array([0.0, 1.0]))         # 1 - 1/2
    0.5
    """
    errors = _errors("r2", targets_n, predictions_n)
    targets = targets_n.reshape(-1).astype(np.float64)
    if not len(targets) or np.ptp(targets) == 0:
        return float("nan")
    return float(1 - (errors**2).sum() / ((targets - targets.mean()) ** 2).sum())
