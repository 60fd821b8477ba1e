"""Which of two models is better, judged on the same rows.

Accuracy: exact McNemar. Of the rows that one model alone got right, a's are binomial(1/2) if both are equally good.
Any other metric, and grouped rows: paired permutation. Each row's two answers are swapped with probability 1/2;
    p = (1 + #{|difference after swapping| >= |difference|}) / (1 + number of permutations).
The interval of the difference comes from a paired bootstrap: both models on the same draws of rows.

Source: McNemar, Psychometrika 12 (1947); Dietterich, Neural Computation 10 (1998); for the 1 +: Phipson & Smyth,
Statistical Applications in Genetics and Molecular Biology 9 (2010).
It speaks of these two fitted models, not of their training procedures on other data.
Shapes: n rows, k classes, b resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from headstart.core.seeds import generator
from headstart.core.tasks import Task
from headstart.evaluation.resampling import bootstrap_weights, check_rows, resample_budget, weighted_metric
from headstart.metrics import METRICS, find_metric, to_predictions

__all__ = ["PairedTest", "paired_test"]

Array = NDArray[Any]


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


def paired_test(
    task: Task,
    targets: Array,
    scores_a: Array,
    scores_b: Array,
    metric: str,
    *,
    num_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    groups: Array | None = None,
) -> PairedTest:
    """Test whether two models differ beyond chance on the same rows.

    Parameters
    ----------
    task : Task
        What is predicted.
    targets : array of shape (n,) or (n, k)
        The truth.
    scores_a, scores_b : arrays
        Both models' scores, row by row, as `headstart.metrics.compute_metrics` takes them.
    metric : str
        What to compare.
    num_resamples : int
        Permutations, and draws for the interval.
    confidence : float in (0, 1)
        Of the interval.
    seed : int
        Equal seeds give equal answers.
    groups : array of shape (n,), optional
        Rows of one group are swapped and drawn together.

    Returns
    -------
    PairedTest
        Positive differences favour a. Where the metric is undefined the difference is 0 and p is 1.

    Examples
    --------
    >>> task = Task("classification", ("a", "b"))
    >>> truth = np.zeros(20, dtype=int)
    >>> first = np.zeros(20, dtype=int)
    >>> second = np.repeat([0, 1], 10)         # wrong in ten rows that the first has right
    >>> test = paired_test(task, truth, first, second, "accuracy")
    >>> test.difference, test.p_value          # 2 * (1/2)^10
    (0.5, 0.001953125)
    """
    name = find_metric(metric).name
    targets, scores_a = check_rows("paired_test", task, targets, scores_a)
    _, scores_b = check_rows("paired_test", task, targets, scores_b)
    sign = 1.0 if METRICS[name].higher_is_better else -1.0
    difference = sign * (METRICS[name](task, targets, scores_a) - METRICS[name](task, targets, scores_b))
    exact = name == "accuracy" and groups is None
    test = "exact McNemar" if exact else "paired permutation"
    if not math.isfinite(difference):
        return PairedTest(name, test, 0.0, 0.0, 0.0, 1.0)
    budget = resample_budget(name, 2 * len(targets), max(1, len(task.classes)), num_resamples)
    low, high = _difference_interval(name, task, targets, (scores_a, scores_b), sign, budget, confidence, seed, groups)
    if exact:
        p_value = _mcnemar(targets, scores_a, scores_b)
    else:
        p_value = _permutation(name, task, targets, (scores_a, scores_b), abs(difference), budget, seed, groups)
    return PairedTest(name, test, difference, min(low, difference), max(high, difference), p_value)


def _mcnemar(targets: Array, scores_a: Array, scores_b: Array) -> float:
    right = [to_predictions(targets, scores) == targets for scores in (scores_a, scores_b)]
    a_n, b_n = (item.all(axis=1) if item.ndim == 2 else item for item in right)
    only_a, only_b = int((a_n & ~b_n).sum()), int((b_n & ~a_n).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def _difference_interval(
    name: str,
    task: Task,
    targets: Array,
    scores: tuple[Array, Array],
    sign: float,
    num_resamples: int,
    confidence: float,
    seed: int,
    groups: Array | None,
) -> tuple[float, float]:
    first, second = (weighted_metric(name, task, targets, one) for one in scores)
    drawn_b = np.concatenate(
        [
            sign * (first(weights_nb) - second(weights_nb))
            for weights_nb in bootstrap_weights(len(targets), num_resamples, seed, groups)
        ]
    )
    drawn_b = drawn_b[np.isfinite(drawn_b)]
    if not len(drawn_b):
        return math.inf, -math.inf
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn_b, [tail, 1 - tail])
    return float(low), float(high)


def _permutation(
    name: str,
    task: Task,
    targets: Array,
    scores: tuple[Array, Array],
    observed: float,
    num_permutations: int,
    seed: int,
    groups: Array | None,
) -> float:
    """Swap the models' answers row by row: weights of 0 and 1 on both models' rows laid end to end."""
    both = weighted_metric(name, task, np.concatenate([targets, targets]), np.concatenate(scores))
    random = generator(seed, "permutation")
    unit_n = np.arange(len(targets)) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    block = max(1, 2_000_000 // len(targets))
    as_large = 0
    for start in range(0, num_permutations, block):
        columns = min(block, num_permutations - start)
        keep_nb = (random.random((int(unit_n.max()) + 1, columns)) < 0.5).astype(np.float32)[unit_n]
        swapped_b = both(np.concatenate([keep_nb, 1 - keep_nb])) - both(np.concatenate([1 - keep_nb, keep_nb]))
        as_large += int((np.abs(np.nan_to_num(swapped_b)) >= observed * (1 - 1e-9) - 1e-12).sum())
    return (1 + as_large) / (1 + num_permutations)
