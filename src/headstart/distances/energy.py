"""Energy distance: twice the mean distance between the domains, less the mean distance within each.

    E(S, T) = 2 E|x - y| - E|x - x'| - E|y - y'|        means over all pairs, those of a row with itself among them

Source: Székely & Rizzo, "Energy statistics: a class of statistics based on distances", Journal of Statistical Planning and
Inference 2013. Unit: feature unit.
Use it as a test of any difference that needs no bandwidth; it is 0 for equal distributions only. Standardise features of
different units first.
It ignores nothing in principle, but is led by the features with the largest spread and by differences of location.
Memory is one block of rows against another. Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from typing import Any

from headstart.core.errors import ConfigError
from headstart.distances.pairs import centre_together, pair_blocks
from headstart.distances.rows import finish, read_domains, root

__all__ = ["energy_distance"]


def energy_distance(source_nd: Any, target_md: Any, *, block_rows: int = 2048) -> Any:
    """Return the energy distance of two domains.

    Parameters
    ----------
    source_nd, target_md : array or tensor of shape (n, d) and (m, d)
        Features.
    block_rows : int
        Rows of a block; memory is about ``block_rows ** 2`` numbers. Under autograd all blocks are kept.

    Returns
    -------
    float or Tensor of shape ()
        At least 0 up to rounding; 0 when the domains hold the same rows. Unit: feature unit.

    Raises
    ------
    HeadstartError
        If the rows cannot be compared, or ``block_rows`` is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> energy_distance(np.array([[0.0], [0.0]]), np.array([[3.0]]))     # 2 * 3 - 0 - 0
    6.0
    """
    if block_rows < 1:
        raise ConfigError(f"energy_distance: block_rows must be at least 1; got {block_rows}.")
    xp, source, target = read_domains("energy_distance", source_nd, target_md)
    source, target = centre_together(xp, source, target)

    def mean_distance(first: Any, second: Any) -> Any:
        total = 0.0
        for squared, times in pair_blocks(xp, first, second, block_rows):
            total = total + times * xp.sum(root(xp, squared))
        return total / (first.shape[0] * second.shape[0])

    return finish(2 * mean_distance(source, target) - mean_distance(source, source) - mean_distance(target, target))
