"""How far a measured figure can be trusted: bootstrap intervals, and Wilson's for a share.

Percentile bootstrap: draw n rows with replacement B times, compute the metric on each draw, take the
(1 - confidence) / 2 quantiles. With groups, whole groups are drawn, because rows of one group are not independent.

Source: Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13; Wilson, JASA 22 (1927).
It speaks of the test rows drawn, not of another training run: the model is held fixed.
Shapes: n rows, k classes, b resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Interval"]


@dataclass(frozen=True)
class Interval:
    """A figure and the range that holds its true value with the stated confidence.

    Parameters
    ----------
    value : float
        The figure on all test rows.
    low, high : float
        Ends of the interval; equal to ``value`` where none could be computed.

    Examples
    --------
    >>> Interval(0.5, 0.25, 0.75).width
    0.5
    """

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Distance from the lower to the upper end."""
        return self.high - self.low

    @property
    def finite(self) -> bool:
        """Whether all three numbers are finite."""
        return all(map(math.isfinite, (self.value, self.low, self.high)))

    def to_dict(self) -> dict[str, float]:
        """Return ``{"value", "low", "high"}``."""
        return {"value": self.value, "low": self.low, "high": self.high}
