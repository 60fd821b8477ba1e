"""How a model that may answer "unknown" does on rows of known and of unknown classes.

    known    mean over known classes of the share of their rows answered by their own name      ("unknown" is wrong there)
    unknown  share of the rows of no known class answered "unknown"
    both     2 known unknown / (known + unknown)

Source: Bucci, Loghmani & Tommasi, "On the Effectiveness of Image Rotation for Open Set Domain Adaptation", ECCV 2020
(arXiv:2007.12576), section 4: OS*, UNK and their harmonic mean HOS, which answering one way throughout makes 0.
It ignores probabilities, and which unknown class a row is of.
Shapes: n rows, k known classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.core.checks import check_same_rows
from headstart.core.errors import DataError
from headstart.core.tasks import Task
from headstart.evaluation.intervals import Interval, bootstrap_interval

__all__ = ["OpenSetResult", "evaluate_open_set", "open_set_scores"]

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class OpenSetResult:
    """Figures with their 95 % intervals, each from 0 to 1.

    Parameters
    ----------
    known : Interval
        Of rows of known classes; the mean over classes.
    unknown : Interval
        Of rows of no known class.
    both : Interval
        Their harmonic mean.
    num_unknown : int
        Rows of no known class.
    """

    known: Interval
    unknown: Interval
    both: Interval
    num_unknown: int

    def to_dict(self) -> dict[str, object]:
        """Return a JSON value with the same names."""
        figures = {name: getattr(self, name).to_dict() for name in ("known", "unknown", "both")}
        return {**figures, "num_unknown": self.num_unknown}


def open_set_scores(truth_n: Codes, answers_n: Codes, num_classes: int) -> tuple[float, float, float]:
    """Return the three figures; ``num_classes`` stands for "unknown" in either array.

    Parameters
    ----------
    truth_n, answers_n : int64 array of shape (n,)
        Class numbers from 0 to ``num_classes``; there is a row of a known class, and one of none.
    num_classes : int
        Known classes.

    Returns
    -------
    tuple of float
        Known, unknown, both; NaN where rows of that kind are missing.

    Examples
    --------
    >>> open_set_scores(np.array([0, 0, 1, 2, 2]), np.array([0, 2, 1, 2, 0]), 2)            # (1/2 + 1) / 2, 1/2
    (0.75, 0.5, 0.6)
    """
    check_same_rows("open_set_scores", "truth", truth_n[:, None], "answers", answers_n[:, None])
    right_n = truth_n == answers_n
    shares = [float(right_n[truth_n == code].mean()) for code in range(num_classes) if (truth_n == code).any()]
    outside_n = truth_n == num_classes
    known = float(np.mean(shares)) if shares else float("nan")
    unknown = float(right_n[outside_n].mean()) if outside_n.any() else float("nan")
    both = 0.0 if known + unknown == 0 else 2 * known * unknown / (known + unknown)
    return known, unknown, both


def evaluate_open_set(truth_n: Codes, answers_n: Codes, num_classes: int, *, seed: int = 0) -> OpenSetResult:
    """Return the figures with bootstrap intervals.

    Parameters
    ----------
    truth_n, answers_n, num_classes
        As in `open_set_scores`.
    seed : int
        Of the bootstrap.

    Raises
    ------
    DataError
        If there is no row of a known class, or none of an unknown one.

    Examples
    --------
    >>> result = evaluate_open_set(np.array([0, 0, 1, 2, 2] * 20), np.array([0, 2, 1, 2, 0] * 20), 2)
    >>> result.both.value, result.num_unknown, result.both.low < 0.6 < result.both.high
    (0.6, 40, True)
    """
    outside = int((truth_n == num_classes).sum())
    if outside in {0, len(truth_n)}:
        raise DataError(
            f"evaluate_open_set: needs rows of known and of unknown classes; {outside} of {len(truth_n)} rows are of unknown "
            "classes. Measure such rows with `evaluate`."
        )
    task = Task("classification", tuple(str(code) for code in range(num_classes + 1)))

    def interval(place: int) -> Interval:
        def figure(rows: Codes) -> float:
            return open_set_scores(truth_n[rows], answers_n[rows], num_classes)[place]

        return bootstrap_interval(figure, task, truth_n, answers_n, seed=seed)

    return OpenSetResult(interval(0), interval(1), interval(2), outside)
