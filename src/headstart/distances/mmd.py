"""Maximum mean discrepancy: how far apart the two domains' mean embeddings are under several Gaussian kernels at once.

    k(x, y)   = mean_f exp(-|x - y|^2 / (2 f m))          m: median squared distance of the pooled rows, f: a ladder of factors
    MMD^2     = E k(x, x') + E k(y, y') - 2 E k(x, y)
    biased    : means over all pairs (at least 0)          unbiased: without the pairs (x, x) (0 on average when P = Q)
    linear    : mean over i of h_i = k(x1, x2) + k(y1, y2) - k(x1, y2) - k(x2, y1), over floor(n/2) disjoint pairs of rows

Source: Gretton et al., "A kernel two-sample test", JMLR 2012, equations 3 and 5 and lemma 14; Gretton et al., "Optimal kernel
choice for large-scale two-sample tests", NeurIPS 2012, and Long et al., "Learning transferable features with deep adaptation
networks", ICML 2015 (arXiv:1502.02791), for the sum of kernels. Unit: none (a kernel of 1 on itself: MMD^2 lies below 2).
Use it as the first test of whether two domains differ at all: with Gaussian kernels it is 0 for equal distributions only.
It ignores what is much finer or much coarser than the ladder, and says nothing of where the difference lies. In many
dimensions all pairs are about equally far apart, and small shifts of few features drown.
Memory is one block of rows against another, never (n, m, d). Bandwidths are constants: no gradient flows through the median.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from headstart.core.errors import ConfigError
from headstart.core.seeds import generator
from headstart.distances.pairs import (
    MEDIAN_ROWS,
    centre_together,
    median_apart,
    median_squared_distance,
    pair_blocks,
    squared_distances,
)
from headstart.distances.rows import as_numpy, constant, finish, read_domains, take_rows

__all__ = [
    "FACTORS",
    "kernel_variances",
    "linear_time_mmd",
    "linear_time_mmd_error",
    "mean_kernel",
    "mk_mmd",
    "pooled_kernel",
]

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


def mk_mmd(
    source_nd: Any,
    target_md: Any,
    *,
    factors: Sequence[float] = FACTORS,
    variances: Sequence[float] | None = None,
    unbiased: bool = True,
    block_rows: int = 2048,
) -> Any:
    """Return the squared maximum mean discrepancy under the mean of several Gaussian kernels.

    Parameters
    ----------
    source_nd : array or tensor of shape (n, d)
        Source features; n >= 2 where ``unbiased``.
    target_md : array or tensor of shape (m, d)
        Target features; m need not equal n.
    factors : sequence of float, each above 0
        Variances of the kernels, as multiples of the median squared distance.
    variances : sequence of float, each above 0, optional
        The kernels' variances themselves, in squared feature units; ``factors`` are then not used.
    unbiased : bool
        Whether pairs of a row with itself are left out; the value is then 0 on average for equal domains, and may be below.
    block_rows : int
        Rows of a block; memory is about ``block_rows ** 2`` numbers. Under autograd all blocks are kept.

    Returns
    -------
    float or Tensor of shape ()
        Below 2; 0 for equal distributions; at least 0 where not ``unbiased``. No unit.

    Raises
    ------
    HeadstartError
        If the rows cannot be compared, or a factor, variance or block size is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> mk_mmd(np.zeros((2, 1)), np.ones((3, 1)), variances=[0.5])     # 1 + 1 - 2 exp(-1)
    1.2642411176571153
    """
    xp, source, target = read_domains("mk_mmd", source_nd, target_md, min_rows=2 if unbiased else 1)
    if block_rows < 1:
        raise ConfigError(f"mk_mmd: block_rows must be at least 1; got {block_rows}.")
    source, target = centre_together(xp, source, target)
    num_source, num_target = source.shape[0], target.shape[0]
    if max(num_source, num_target) <= MEDIAN_ROWS and num_source + num_target <= block_rows:
        # batches: one matrix product serves the median and all three sums
        kernel = _centred_kernel("mk_mmd", xp, source, target, factors, variances)
        typical = float(xp.mean(constant(kernel)))
        kernel = kernel - typical
        parts = (kernel[:num_source, :num_source], kernel[num_source:, num_source:], kernel[:num_source, num_source:])
        sums = [xp.sum(part) for part in parts]
    else:
        widths = kernel_variances("mk_mmd", xp, source, target, factors, variances)
        pairs = ((source, source), (target, target), (source, target))
        few = squared_distances(xp, constant(source[:256]), constant(target[:256]))
        typical = float(xp.mean(mean_kernel(xp, few, widths)))
        sums = [_sum_kernel(xp, first, second, widths, block_rows, typical) for first, second in pairs]

    def mean_within(total: Any, num: int) -> Any:
        return (total - num * (1 - typical)) / (num * (num - 1)) if unbiased else total / num**2

    between = sums[2] / (num_source * num_target)
    return finish(mean_within(sums[0], num_source) + mean_within(sums[1], num_target) - 2 * between)


def pooled_kernel(
    source_nd: Any, target_md: Any, *, factors: Sequence[float] = FACTORS, variances: Sequence[float] | None = None
) -> Any:
    """Return the mean Gaussian kernel between all rows of both domains, for batches: what weighted and joint forms are made of.

    Parameters
    ----------
    source_nd, target_md : array or tensor of shape (n, d) and (m, d)
        Features.
    factors, variances
        As in `mk_mmd`.

    Returns
    -------
    array or tensor of shape (n + m, n + m)
        In (0, 1], 1 on the diagonal; source rows come first.

    Raises
    ------
    HeadstartError
        As `mk_mmd`.

    Examples
    --------
    >>> import numpy as np
    >>> pooled_kernel(np.zeros((1, 1)), np.ones((1, 1)), variances=[0.5]).round(4).tolist()     # exp(-1)
    [[1.0, 0.3679], [0.3679, 1.0]]
    """
    xp, source, target = read_domains("pooled_kernel", source_nd, target_md)
    source, target = centre_together(xp, source, target)
    return _centred_kernel("pooled_kernel", xp, source, target, factors, variances)


def linear_time_mmd(
    source_nd: Any,
    target_md: Any,
    *,
    factors: Sequence[float] = FACTORS,
    variances: Sequence[float] | None = None,
    seed: int = 0,
) -> Any:
    """Return the linear-time estimate of the squared maximum mean discrepancy, for domains of any size.

    Parameters
    ----------
    source_nd, target_md : array or tensor of shape (n, d) and (m, d), n and m at least 2
        Features. The first ``2 floor(min(n, m) / 2)`` rows in an order drawn under ``seed`` are used.
    factors, variances
        As in `mk_mmd`.
    seed : int
        Draws the order, so that rows sorted by class do no harm, and the rows whose median distance is taken.

    Returns
    -------
    float or Tensor of shape ()
        0 on average for equal domains, may be below 0. No unit. Its noise falls with the root of the number of rows, which is
        slower than `mk_mmd`'s: use it where `mk_mmd` is too slow.

    Raises
    ------
    HeadstartError
        As `mk_mmd`.

    Examples
    --------
    >>> import numpy as np
    >>> linear_time_mmd(np.zeros((2, 1)), np.ones((3, 1)), variances=[0.5])     # one pair: 1 + 1 - 2 exp(-1)
    1.2642411176571153
    """
    xp, values = _linear_values("linear_time_mmd", source_nd, target_md, factors, variances, seed)
    total, num_pairs = 0.0, 0
    for block in values:
        total, num_pairs = total + xp.sum(block), num_pairs + block.shape[0]
    return finish(total / num_pairs)


def linear_time_mmd_error(
    source_nd: Any,
    target_md: Any,
    *,
    factors: Sequence[float] = FACTORS,
    variances: Sequence[float] | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """Return `linear_time_mmd` and its standard error, the root of ``variance(h_i) / number of pairs``.

    Their ratio is about standard normal for equal domains: a test without permutations.

    Raises
    ------
    HeadstartError
        As `mk_mmd`; four rows a domain are needed.
    """
    who = "linear_time_mmd_error"
    _, values = _linear_values(who, source_nd, target_md, factors, variances, seed, min_rows=4)
    total = squares = 0.0
    num_pairs = 0
    for block in values:
        total += float(block.sum())
        squares += float((block * block).sum())
        num_pairs += block.shape[0]
    mean = total / num_pairs
    variance = max(squares - num_pairs * mean**2, 0.0) / (num_pairs - 1)
    return mean, (variance / num_pairs) ** 0.5


def kernel_variances(
    who: str,
    xp: Any,
    source: Any,
    target: Any,
    factors: Sequence[float],
    variances: Sequence[float] | None,
    seed: int = 0,
) -> list[float]:
    """Return the kernels' variances, widest first."""
    return _variances(who, lambda: median_squared_distance(xp, source, target, seed=seed), factors, variances)


def _centred_kernel(
    who: str, xp: Any, source: Any, target: Any, factors: Sequence[float], variances: Sequence[float] | None
) -> Any:
    """Return the kernel of all pooled rows at once."""
    pooled = xp.concat([source, target], axis=0)
    ((squared, _),) = pair_blocks(xp, pooled, pooled, pooled.shape[0])
    return mean_kernel(xp, squared, _variances(who, lambda: median_apart(as_numpy(squared)), factors, variances))


def _variances(
    who: str, median: Callable[[], float], factors: Sequence[float], variances: Sequence[float] | None
) -> list[float]:
    given = list(factors if variances is None else variances)
    if not given or not all(value > 0 and value < float("inf") for value in given):
        name = "factors" if variances is None else "variances"
        raise ConfigError(f"{who}: {name} must be numbers above 0, at least one; got {given}.")
    scale = median() if variances is None else 1.0
    return sorted((float(value) * scale for value in given), reverse=True)


def mean_kernel(xp: Any, squared: Any, variances: Sequence[float]) -> Any:
    """Return the mean of Gaussian kernels of squared distances; ``variances`` from widest to narrowest.

    A kernel of half the variance is the square of the wider one, which spares an exponential.
    """
    kernels: dict[float, Any] = {}
    total = 0.0
    for variance in variances:
        wider = kernels.get(2 * variance)
        kernels[variance] = xp.exp(squared / (-2 * variance)) if wider is None else wider * wider
        total = total + kernels[variance]
    return total / len(variances)


def _sum_kernel(xp: Any, first: Any, second: Any, variances: Sequence[float], block_rows: int, typical: float) -> Any:
    """Return the sum of the kernel less a typical value of it, which cancels in MMD and spares float32 its rounding."""
    total = 0.0
    for squared, times in pair_blocks(xp, first, second, block_rows):
        total = total + times * xp.sum(mean_kernel(xp, squared, variances) - typical)
    return total


def _linear_values(
    who: str,
    source_nd: Any,
    target_md: Any,
    factors: Sequence[float],
    variances: Sequence[float] | None,
    seed: int,
    min_rows: int = 2,
    block_pairs: int = 4096,
) -> tuple[Any, Iterator[Any]]:
    """Return the library and an iterator of blocks of h_i, one value for each two rows of each domain."""
    xp, source, target = read_domains(who, source_nd, target_md, min_rows=min_rows)
    widths = kernel_variances(who, xp, source, target, factors, variances, seed)
    num_pairs = min(source.shape[0], target.shape[0]) // 2
    orders = [generator(seed, "pairs", name).permutation(rows.shape[0]) for name, rows in
              (("source", source), ("target", target))]  # fmt: skip

    def kernel(first: Any, second: Any) -> Any:
        gap = first - second
        return mean_kernel(xp, xp.sum(gap * gap, axis=1), widths)

    def values() -> Iterator[Any]:
        for start in range(0, num_pairs, block_pairs):
            ends = (start, min(start + block_pairs, num_pairs))
            x1, y1 = (
                take_rows(xp, rows, order[slice(*ends)]) for rows, order in zip((source, target), orders, strict=True)
            )
            x2, y2 = (
                take_rows(xp, rows, order[num_pairs + ends[0] : num_pairs + ends[1]])
                for rows, order in zip((source, target), orders, strict=True)
            )
            yield kernel(x1, x2) + kernel(y1, y2) - kernel(x1, y2) - kernel(x2, y1)

    return xp, values()
