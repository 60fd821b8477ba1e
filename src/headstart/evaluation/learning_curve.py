"""What more rows would bring: the metric against the number of training rows."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CurvePoint"]


@dataclass(frozen=True)
class CurvePoint:
    """One point of a learning curve.

    Parameters
    ----------
    size : int
        Training rows.
    value, low, high : float
        Metric on the held-out rows: mean over draws of the training rows, and its range.
    """

    size: int
    value: float
    low: float
    high: float
