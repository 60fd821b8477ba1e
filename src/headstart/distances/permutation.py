"""Is a distance larger than chance, and how sure is its value: permutations and half samples, for any measure.

    p-value   domains are pooled and dealt out anew B times;  p = (1 + #{permuted >= observed}) / (1 + B)
    interval  B times half the rows of each domain are drawn without replacement;  [v + q_0.025, v + q_0.975]
              v: value on all rows, q: quantiles of the half samples' values less their own mean

Source: Phipson & Smyth, "Permutation p-values should never be zero", Statistical Applications in Genetics and Molecular
Biology 2010; Shao & Wu, "A general theory for jackknife variance estimation", Annals of Statistics 1989 (the delete-d
jackknife: with half the rows left out, the spread of the half samples is that of the whole). No row is ever drawn twice, which
would make distances within a domain too small.
The p-value is exact for equal domains of independent rows; rows that belong together (frames of one video, one patient) make
it too small. The interval is one of noise: bias of a measure stays in it. Near 0 it is too wide.
Shapes: n source rows, m target rows, N = n + m, b permutations or half samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.checks import check_matrix
from headstart.core.errors import ConfigError, ShapeError
from headstart.core.seeds import generator

__all__ = [
    "PermutationTest",
    "Statistic",
    "half_samples",
    "interval_of_half_samples",
    "pair_matrix_half_samples",
    "pair_matrix_statistics",
    "pair_matrix_test",
    "permutation_p_value",
    "permutation_test",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Statistic = Callable[[IntArray, IntArray], float]


@dataclass(frozen=True)
class PermutationTest:
    """A value, its p-value, and the values of the permutations.

    Parameters
    ----------
    value : float
        The statistic of the domains as they are.
    p_value : float in (0, 1]
        ``(1 + #{null >= value}) / (1 + b)``; at least ``1 / (1 + b)``.
    null_b : float64 array of shape (b,)
        The statistic of each permutation.
    """

    value: float
    p_value: float
    null_b: FloatArray


def permutation_p_value(value: float, null_b: npt.ArrayLike) -> float:
    """Return ``(1 + #{null >= value}) / (1 + b)``; values within rounding of each other count as equal.

    Examples
    --------
    >>> permutation_p_value(3.0, [1.0, 2.0, 3.0])
    0.5
    """
    null = np.asarray(null_b, dtype=np.float64)
    slack = 1e-12 * abs(value) if np.isfinite(value) else 0.0
    return float(1 + (null >= value - slack).sum()) / (1 + len(null))


def permutation_test(
    statistic: Statistic, num_source: int, num_target: int, *, num_permutations: int = 199, seed: int = 0
) -> PermutationTest:
    """Test a statistic of two groups of places in the pooled rows.

    Parameters
    ----------
    statistic : callable (source places, target places) -> float
        Large values speak against equal domains. Places 0 to n-1 are the source's rows, n to n+m-1 the target's; whatever it
        needs of the pooled rows (a distance matrix, projections) is computed once, outside.
    num_source, num_target : int
        n and m.
    num_permutations : int, at least 1
        Permutations; the smallest p-value is ``1 / (1 + num_permutations)``.
    seed : int
        Draws them.

    Raises
    ------
    ConfigError
        If there is no permutation to be made.

    Examples
    --------
    >>> rows = np.array([0.0, 0.1, 0.2, 0.3, 5.0, 5.1, 5.2, 5.3])
    >>> gap = lambda source, target: abs(rows[source].mean() - rows[target].mean())
    >>> test = permutation_test(gap, 4, 4, num_permutations=999)
    >>> round(test.value, 6), test.p_value < 0.06                        # 2 of the 70 ways to deal are as far apart
    (5.0, True)
    """
    _check_counts("permutation_test", num_source, num_target, num_permutations)
    random = generator(seed, "permutation")
    places = np.arange(num_source + num_target)
    value = float(statistic(places[:num_source], places[num_source:]))
    null_b = np.empty(num_permutations)
    for number in range(num_permutations):
        dealt = random.permutation(places)
        null_b[number] = statistic(np.sort(dealt[:num_source]), np.sort(dealt[num_source:]))
    return PermutationTest(value, permutation_p_value(value, null_b), null_b)


def half_samples(
    statistic: Statistic, num_source: int, num_target: int, *, num_samples: int = 100, seed: int = 0
) -> FloatArray:
    """Return the statistic of half of each domain's rows, drawn without replacement, shape (b,).

    Raises
    ------
    ConfigError
        If a domain has fewer than two rows, or ``num_samples`` is below 1.

    Examples
    --------
    >>> half_samples(lambda source, target: float(len(source) + len(target)), 4, 6, num_samples=2).tolist()
    [5.0, 5.0]
    """
    _check_counts("half_samples", num_source, num_target, num_samples, least=2)
    random = generator(seed, "halves")
    values_b = np.empty(num_samples)
    for number in range(num_samples):
        source = np.sort(random.permutation(num_source)[: (num_source + 1) // 2])
        target = num_source + np.sort(random.permutation(num_target)[: (num_target + 1) // 2])
        values_b[number] = statistic(source, target)
    return values_b


def interval_of_half_samples(
    value: float, samples_b: npt.ArrayLike, *, shrink: float = 1.0, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval around a value that half samples give.

    Parameters
    ----------
    value : float
        The measure on all rows.
    samples_b : array-like of shape (b,)
        Its half samples.
    shrink : float
        Factor on the deviations: the root of (rows halved / rows of the value), where only some rows were halved.
    level : float in (0, 1)
        Coverage.

    Examples
    --------
    >>> low, high = interval_of_half_samples(10.0, [1.0, 2.0, 3.0], level=0.5)
    >>> low, high
    (9.5, 10.5)
    """
    samples = np.asarray(samples_b, dtype=np.float64)
    if not np.isfinite(samples).all() or not np.isfinite(value):
        return float("nan"), float("nan")
    low, high = np.quantile(samples - samples.mean(), [(1 - level) / 2, (1 + level) / 2])
    return float(value + shrink * low), float(value + shrink * high)


def pair_matrix_statistics(matrix: Any, source_Nb: Any, target_Nb: Any, *, unbiased: bool) -> FloatArray:
    """Return ``mean K(x, x') + mean K(y, y') - 2 mean K(x, y)`` for many choices of rows at once, from two matrix products.

    Parameters
    ----------
    matrix : ndarray of shape (N, N)
        Symmetric: a kernel (squared MMD), or the negative distance (energy distance), between all pooled rows.
    source_Nb, target_Nb : ndarray of shape (N, b)
        1 where a row belongs to the source, or the target, in a choice; 0 elsewhere.
    unbiased : bool
        Whether a row's pair with itself is left out.

    Examples
    --------
    >>> rows = np.array([0.0, 0.0, 3.0])
    >>> source = np.array([[1.0], [1.0], [0.0]])
    >>> pair_matrix_statistics(-np.abs(rows[:, None] - rows), source, 1 - source, unbiased=False).tolist()
    [6.0]
    """
    num_source, num_target = source_Nb.sum(axis=0), target_Nb.sum(axis=0)
    source_products, target_products = matrix @ source_Nb, matrix @ target_Nb
    within_source = (source_Nb * source_products).sum(axis=0)
    within_target = (target_Nb * target_products).sum(axis=0)
    between = (source_Nb * target_products).sum(axis=0)
    off = 1 if unbiased else 0
    if unbiased:
        diagonal = np.diag(matrix)
        within_source, within_target = within_source - diagonal @ source_Nb, within_target - diagonal @ target_Nb
    value = within_source / (num_source * (num_source - off)) + within_target / (num_target * (num_target - off))
    return np.asarray(value - 2 * between / (num_source * num_target), dtype=np.float64)


def pair_matrix_test(
    matrix: Any, num_source: int, *, unbiased: bool = True, num_permutations: int = 199, seed: int = 0
) -> PermutationTest:
    """Test MMD or energy distance from one matrix between all pooled rows: permutations are matrix products.

    Parameters
    ----------
    matrix : ndarray of shape (N, N)
        As in `pair_matrix_statistics`; the source's rows first.
    num_source : int
        n.
    unbiased, num_permutations, seed
        As in `pair_matrix_statistics` and `permutation_test`.

    Raises
    ------
    HeadstartError
        If the matrix is not square, or there is no permutation to be made.

    Examples
    --------
    >>> rows = np.array([0.0, 0.1, 0.2, 0.3, 5.0, 5.1, 5.2, 5.3])
    >>> test = pair_matrix_test(-np.abs(rows[:, None] - rows), 4, unbiased=False)
    >>> round(test.value, 4), test.p_value < 0.06
    (9.75, True)
    """
    who = "pair_matrix_test"
    check_matrix(who, "matrix", matrix)
    if matrix.shape[0] != matrix.shape[1]:
        raise ShapeError(f"{who}: matrix must hold every pair of pooled rows; got shape {matrix.shape}.")
    num_target = matrix.shape[0] - num_source
    _check_counts(who, num_source, num_target, num_permutations, least=2 if unbiased else 1)
    random = generator(seed, "permutation")
    chosen = np.zeros((num_source + num_target, 1 + num_permutations), dtype=matrix.dtype)
    chosen[:num_source, 0] = 1
    for number in range(1, 1 + num_permutations):
        chosen[random.permutation(len(chosen))[:num_source], number] = 1
    values = pair_matrix_statistics(matrix, chosen, 1 - chosen, unbiased=unbiased)
    return PermutationTest(float(values[0]), permutation_p_value(float(values[0]), values[1:]), values[1:])


def pair_matrix_half_samples(
    matrix: Any, num_source: int, *, unbiased: bool = True, num_samples: int = 100, seed: int = 0
) -> FloatArray:
    """Return `half_samples` of MMD or energy distance, from one matrix between all pooled rows, shape (b,).

    Raises
    ------
    ConfigError
        If a domain has too few rows to be halved.
    """
    num_target = matrix.shape[0] - num_source
    _check_counts("pair_matrix_half_samples", num_source, num_target, num_samples, least=3 if unbiased else 2)
    random = generator(seed, "halves")
    chosen = np.zeros((2, num_source + num_target, num_samples), dtype=matrix.dtype)
    for number in range(num_samples):
        chosen[0, random.permutation(num_source)[: (num_source + 1) // 2], number] = 1
        chosen[1, num_source + random.permutation(num_target)[: (num_target + 1) // 2], number] = 1
    return pair_matrix_statistics(matrix, chosen[0], chosen[1], unbiased=unbiased)


def _check_counts(who: str, num_source: int, num_target: int, num_draws: int, least: int = 1) -> None:
    if min(num_source, num_target) < least:
        raise ConfigError(f"{who}: each domain needs at least {least} rows; got {num_source} and {num_target}.")
    if num_draws < 1:
        raise ConfigError(f"{who}: at least one draw is needed; got {num_draws}.")
