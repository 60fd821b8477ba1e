"""What the next rung may bring, from what is known before it starts; the rule is simple and its numbers are printed.

    error      distance of the best figure so far from the ideal: 1 - value, or the value itself where lower is better
    stays      share of the error that eight times as many rows would leave: 8^-b, with a n^-b fitted to the head's
               learning curve; what more rows cannot mend, better features may
    rows       m / (m + half): how far m labelled rows for each class suffice to change the features (half = 100 for
               the last stages, 250 for the whole network); for numbers m is a tenth of the rows
    most       share of that error a rung removes at best: 0.4 last stages, 0.5 whole network
    evidence   (1 + r) / 2, where r is what the fine-tuned rung before brought over what it was expected to, in [-1, 2]

    partial, full fine-tuning   gain = error * stays * rows * most * evidence
    search of t tries           gain = error * stays * rows * 0.05 sqrt(2 ln t) * evidence     the best of t about equal ones
    another base model          gain = error * mean over bootstrap draws of max(0, score - score of the best) / (1 - score)

The shares are rules of thumb, first set by fine-tuning twelve base models on 17 rows a class (-6 to +1 points of accuracy).
On the six sets of `benchmarks/fine_tuning.py` the rule expected 2 to 31 % of the error (`benchmarks/expected_gains.py`).
Three image sets near their ceiling brought nothing that can be told from chance, pets 9 %, two text sets 27 and 64 %. So it
is a reason to try and no forecast: too hopeful for image networks whose solved head is nearly right, too modest for sentence
encoders trained for another purpose. Wherever fine-tuning did gain, the rule had it above the threshold below; a try that
brings nothing costs time and is not kept, one that is left out costs accuracy. Six sets cannot fix four numbers, and they
stay as they are.

A rung is worth it when the gain is at least 2 % of the error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.core.seeds import generator
from headstart.core.tasks import Task
from headstart.evaluation import CurvePoint
from headstart.evaluation.wording import is_share
from headstart.metrics import METRICS

__all__ = [
    "Expectation",
    "base_model_gain",
    "error_of",
    "evidence_of",
    "gain_text",
    "search_gain",
    "share_that_stays",
    "tuning_gain",
    "worth_of",
]

_MORE_ROWS = 8.0
_MOST = {"partial": 0.4, "full": 0.5}
_HALF = {"partial": 100.0, "full": 250.0}
_SPREAD = 0.05
_WORTH = 0.02


@dataclass(frozen=True)
class Expectation:
    """An expected gain in the metric's own unit, positive better, and how it came about in words."""

    gain: float
    why: str


def error_of(metric: str, value: float) -> float:
    """Return the distance of a figure from the ideal.

    Examples
    --------
    >>> error_of("accuracy", 0.75), error_of("rmse", 3.0)
    (0.25, 3.0)
    """
    return max(0.0, 1.0 - value) if METRICS[metric].higher_is_better else max(0.0, value)


def share_that_stays(metric: str, points: Sequence[CurvePoint]) -> float:
    """Return the share of the error that eight times as many rows would leave, from the last four points of a curve.

    1 where the curve is flat or rises, or holds fewer than two points: nothing says that rows would help.

    Examples
    --------
    >>> halving = [CurvePoint(n, 1 - 1 / n, 0, 1) for n in (10, 20, 40)]      # the error falls like 1 / n
    >>> round(share_that_stays("accuracy", halving), 6)
    0.125
    """
    known = [(p.size, error_of(metric, p.value)) for p in points[-4:] if p.size > 0]
    known = [(size, max(error, 1e-4)) for size, error in known if math.isfinite(error)]
    if len(known) < 2 or len({size for size, _ in known}) < 2:
        return 1.0
    sizes, errors = (np.log(np.array(column, dtype=np.float64)) for column in zip(*known, strict=True))
    slope = float(np.polyfit(sizes, errors, 1)[0])
    return float(_MORE_ROWS ** -min(max(-slope, 0.0), 1.0))


def rows_for_each(task: Task, num_rows: int) -> float:
    """Return labelled rows for each class; a tenth of the rows for numbers."""
    return num_rows / (10 if task.kind == "regression" else max(1, len(task.classes)))


def evidence_of(expected: float | None, brought: float | None) -> float:
    """Return the factor by which the rung before changes what the next one is expected to bring.

    Examples
    --------
    >>> evidence_of(None, None), evidence_of(0.02, 0.02), evidence_of(0.02, 0.0), evidence_of(0.02, -0.05)
    (1.0, 1.0, 0.5, 0.0)
    """
    if expected is None or brought is None or expected <= 0:
        return 1.0
    return (1 + min(max(brought / expected, -1.0), 2.0)) / 2


def tuning_gain(
    kind: str,
    metric: str,
    value: float,
    task: Task,
    num_rows: int,
    points: Sequence[CurvePoint],
    evidence: float = 1.0,
) -> Expectation:
    """Return what fine-tuning may bring.

    Parameters
    ----------
    kind : {"partial", "full"}
        The last stages, or the whole network.
    metric : str
        Of ``value`` and of the curve.
    value : float
        The best figure so far.
    task : Task
        What is predicted.
    num_rows : int
        Rows it would learn from.
    points : sequence of CurvePoint
        Learning curve of the solved head.
    evidence : float
        See `evidence_of`.

    Examples
    --------
    >>> flat = [CurvePoint(100, 0.8, 0, 1), CurvePoint(200, 0.8, 0, 1)]
    >>> found = tuning_gain("partial", "accuracy", 0.8, Task("classification", ("a", "b")), 200, flat)
    >>> round(found.gain, 3)                          # 0.2 * 1 * 100 / (100 + 100) * 0.4
    0.04
    """
    error, stays = error_of(metric, value), share_that_stays(metric, points)
    m = rows_for_each(task, num_rows)
    rows = m / (m + _HALF[kind])
    gain = error * stays * rows * _MOST[kind] * evidence
    why = (
        f"{gain_text(metric, error, sign=False)} to the ideal x {stays:.2f} that more rows would not mend x {rows:.2f} "
        f"for {m:,.0f} rows {'a class' if task.kind != 'regression' else '(a tenth of all)'} x {_MOST[kind]:.1f} at best"
    )
    return Expectation(gain, why + _evidence_text(evidence))


def search_gain(
    metric: str,
    value: float,
    task: Task,
    num_rows: int,
    points: Sequence[CurvePoint],
    num_tries: int,
    evidence: float = 1.0,
) -> Expectation:
    """Return what the best of ``num_tries`` fine-tuned recipes may bring over the best so far; parameters as `tuning_gain`."""
    error, stays = error_of(metric, value), share_that_stays(metric, points)
    m = rows_for_each(task, num_rows)
    rows = m / (m + _HALF["full"])
    best = _SPREAD * math.sqrt(2 * math.log(max(1, num_tries)))
    why = (
        f"{gain_text(metric, error, sign=False)} to the ideal x {stays:.2f} that more rows would not mend x {rows:.2f} "
        f"for {m:,.0f} rows {'a class' if task.kind != 'regression' else '(a tenth of all)'} x {best:.2f} for the best of "
        f"{num_tries} tries"
    )
    return Expectation(error * stays * rows * best * evidence, why + _evidence_text(evidence))


def _evidence_text(evidence: float) -> str:
    return "" if evidence == 1 else f" x {evidence:.2f} for what the rung before brought"


def base_model_gain(
    metric: str, value: float, best_n: NDArray[np.float64], other_n: NDArray[np.float64], seed: int = 0
) -> Expectation:
    """Return what another base model may bring, from both models' success on the rows they were ranked by.

    Parameters
    ----------
    metric, value
        The best figure so far.
    best_n, other_n : float arrays of shape (n,)
        For each ranking row how well the held-out probe did (`headstart.workflow.ranking.Scored.success_n`): of the best base
        model so far, and of the one considered.
    seed : int
        Bootstrap draws.

    Examples
    --------
    >>> worse = base_model_gain("accuracy", 0.9, np.ones(50), np.zeros(50))
    >>> worse.gain
    0.0
    """
    error = error_of(metric, value)
    if len(best_n) == len(other_n):
        weights_bn = generator(seed, "base model gain").multinomial(
            len(best_n), np.full(len(best_n), 1 / len(best_n)), 1000
        )
        draws_b = weights_bn @ (other_n - best_n) / len(best_n)
    else:
        draws_b = np.array([other_n.mean() - best_n.mean()])
    gain = float(np.maximum(draws_b, 0).mean())
    left = max(1 - float(best_n.mean()), 1e-9)
    ahead = 100 * float(np.mean(draws_b > 0))
    why = f"its probe is ahead in {ahead:.0f} % of bootstrap draws of the ranking rows, by {100 * gain:.2g} points on average"
    return Expectation(error * min(1.0, gain / left), why)


def worth_of(metric: str, value: float) -> float:
    """Return the least gain that is worth a rung: 2 % of what is missing to the ideal.

    Examples
    --------
    >>> worth_of("rmse", 2.0)
    0.04
    """
    return _WORTH * error_of(metric, value)


def gain_text(metric: str, gain: float, *, sign: bool = True) -> str:
    """Return a difference in a metric for people.

    Examples
    --------
    >>> gain_text("accuracy", 0.0123), gain_text("accuracy", 0.00123), gain_text("rmse", -0.5)
    ('+1.2 points', '+0.12 points', '-0.50')
    """
    plus = "+" if sign else ""
    if is_share(metric):
        return f"{100 * gain:{plus}.{1 if abs(gain) >= 0.01 or gain == 0 else 2}f} points"
    return f"{gain:{plus}.2f}" if abs(gain) >= 0.1 else f"{gain:{plus}.2g}"
