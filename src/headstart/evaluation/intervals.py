"""How far a measured figure can be trusted: bootstrap intervals, and Wilson's for a share.

Percentile bootstrap: draw n rows with replacement B times, compute the metric on each draw, take the
(1 - confidence) / 2 quantiles. With groups, whole groups are drawn, because rows of one group are not independent.

Source: Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13; Wilson, JASA 22 (1927).
It speaks of the test rows drawn, not of another training run: the model is held fixed.
A bootstrap of nothing but right answers collapses to a point; there Wilson's bound for as many rows is given instead.
Shapes: n rows, k classes, b resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from headstart.core.errors import ConfigError
from headstart.core.tasks import Task
from headstart.evaluation.resampling import (
    WeightedMetric,
    bootstrap_weights,
    check_rows,
    repeated_rows,
    resample_budget,
    weighted_metric,
)
from headstart.metrics import METRICS, find_metric

__all__ = ["Interval", "bootstrap_interval", "bootstrap_intervals", "wilson_interval"]

Array = NDArray[Any]


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


def wilson_interval(successes: float, trials: int, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of a share; the whole range [0, 1] without trials.

    Examples
    --------
    >>> wilson = wilson_interval(10, 10)
    >>> round(wilson.low, 3), wilson.high         # ten of ten: 72 % is still possible
    (0.722, 1.0)
    """
    if trials == 0:
        return Interval(math.nan, 0.0, 1.0)
    z = float(norm.ppf(0.5 + confidence / 2))
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    reach = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Interval(share, min(max(0.0, centre - reach), share), max(min(1.0, centre + reach), share))


def bootstrap_interval(
    metric: str | Callable[[NDArray[np.int64]], float],
    task: Task,
    targets: Array,
    scores: Array,
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    groups: Array | None = None,
) -> Interval:
    """Return a metric on some rows and its bootstrap interval.

    Parameters
    ----------
    metric : str, or function of row indices
        A metric's name, or any statistic: it is given indices (m,) into the rows, some repeated, and returns a number.
    task : Task
        What is predicted.
    targets, scores : arrays
        As `headstart.metrics.compute_metrics` takes them.
    num_resamples : int
        Draws; a ranking of very many rows and classes gets fewer, at least 200.
    confidence : float in (0, 1)
        How often such intervals hold the true value.
    seed : int
        Equal seeds give equal intervals.
    groups : array of shape (n,), optional
        Rows of one group (one patient, one set of duplicates) are drawn together.

    Returns
    -------
    Interval
        NaN throughout where the metric is undefined on the rows.

    Examples
    --------
    >>> task = Task("classification", ("a", "b"))
    >>> interval = bootstrap_interval("accuracy", task, np.repeat([0, 1], 50), np.repeat([0, 0, 1, 1, 0], 20))
    >>> interval.value, round(interval.low, 1), round(interval.high, 1)
    (0.7, 0.6, 0.8)
    """
    if isinstance(metric, str):
        name = find_metric(metric).name
        intervals = bootstrap_intervals(
            task, targets, scores, [name], num_resamples=num_resamples, confidence=confidence, seed=seed, groups=groups
        )
        return intervals[name]
    targets, scores = check_rows("bootstrap_interval", task, targets, scores)
    value = float(metric(np.arange(len(targets))))
    drawn_b = _draw([repeated_rows(metric)], len(targets), [num_resamples], seed, groups)[0]
    return _percentiles(value, drawn_b, confidence)


def bootstrap_intervals(
    task: Task,
    targets: Array,
    scores: Array,
    names: Sequence[str],
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    groups: Array | None = None,
) -> dict[str, Interval]:
    """Return several metrics with their intervals, all from the same draws; see `bootstrap_interval`."""
    if not 0 < confidence < 1 or num_resamples < 1:
        raise ConfigError(
            "bootstrap_intervals: confidence lies in (0, 1) and num_resamples is at least 1; "
            f"got {confidence}, {num_resamples}."
        )
    targets, scores = check_rows("bootstrap_intervals", task, targets, scores)
    values = {name: METRICS[name](task, targets, scores) for name in names}
    defined = [name for name in names if math.isfinite(values[name])]
    budgets = [resample_budget(name, len(targets), max(1, len(task.classes)), num_resamples) for name in defined]
    metrics = [weighted_metric(name, task, targets, scores) for name in defined]
    drawn = dict(zip(defined, _draw(metrics, len(targets), budgets, seed, groups), strict=True))
    trials = len(targets) if groups is None else len(np.unique(groups))
    intervals = {}
    for name in names:
        if name not in drawn:
            intervals[name] = Interval(math.nan, math.nan, math.nan)
            continue
        interval = _percentiles(values[name], drawn[name], confidence)
        intervals[name] = _open_up(interval, METRICS[name].needs == "predictions", trials, confidence)
    return intervals


def _draw(
    metrics: Sequence[WeightedMetric], num_rows: int, budgets: Sequence[int], seed: int, groups: Array | None
) -> list[NDArray[np.float64]]:
    """Return every metric's values on as many of the shared draws as its budget allows."""
    found: list[list[NDArray[np.float64]]] = [[] for _ in metrics]
    done = 0
    for weights_nb in bootstrap_weights(num_rows, max(budgets, default=0), seed, groups):
        for metric, budget, values in zip(metrics, budgets, found, strict=True):
            if budget > done:
                values.append(metric(weights_nb[:, : budget - done]))
        done += weights_nb.shape[1]
    return [np.concatenate(values) for values in found]


def _percentiles(value: float, drawn_b: NDArray[np.float64], confidence: float) -> Interval:
    """Return the percentile interval, widened to hold the value: a biased metric's draws may all lie beside it."""
    usable = drawn_b[np.isfinite(drawn_b)]
    if not len(usable) or not math.isfinite(value):
        return Interval(value, value, value)
    tail = (1 - confidence) / 2
    low, high = np.quantile(usable, [tail, 1 - tail])
    return Interval(float(value), float(min(low, value)), float(max(high, value)))


def _open_up(interval: Interval, is_share: bool, trials: int, confidence: float) -> Interval:
    """Replace an interval that collapsed at 0 or 1 by Wilson's for as many independent rows."""
    if not is_share or interval.width > 0 or interval.value not in (0.0, 1.0):
        return interval
    wilson = wilson_interval(interval.value * trials, trials, confidence)
    return Interval(interval.value, wilson.low, wilson.high)
