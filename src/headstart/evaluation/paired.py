"""Which of two models is better, judged on the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["PairedTest"]


@dataclass(frozen=True)
class PairedTest:
    """The outcome of a paired test between models a and b on the same rows.

    Parameters
    ----------
    metric : str
        Name of the metric compared.
    test : str
        Name of the test, for people: ``"exact McNemar"`` or ``"paired permutation"``.
    difference, low, high : float
        How much better a is than b, in the metric's unit, and its 95 % interval. Positive always favours a,
        also where a lower metric is better.
    p_value : float in [0, 1]
        Two-sided: how often a difference at least this large would come by chance if a and b were equally good.
    """

    metric: str
    test: str
    difference: float
    low: float
    high: float
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value with the same names."""
        return {
            "metric": self.metric,
            "test": self.test,
            "difference": self.difference,
            "low": self.low,
            "high": self.high,
            "p_value": self.p_value,
        }
