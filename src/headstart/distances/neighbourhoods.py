"""Soft neighbourhood density: how many other rows each row has near it, as the entropy of its similarities to them.

    density = 1/m sum_i H(q_i)        q_ij ~ exp(cos(z_i, z_j) / T) over the other rows j

Source: Saito, Kim, Teterwak, Sclaroff, Darrell & Saenko, "Tune it the Right Way: Unsupervised Validation of Domain Adaptation via
Soft Neighborhood Density", ICCV 2021 (arXiv:2108.10860), section 3: z are predicted probabilities, T 0.05.
Use it of target rows: to choose between models (`headstart.evaluation.selection`) or, with gradients, as a loss
(`headstart.objectives.NeighbourhoodDensity`).
It ignores classes: rows that all get one answer are as dense as can be.
Memory is one block of rows against all, time grows with their square. Shapes: m rows, r numbers of a row.
"""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import array_namespace

from headstart.core.checks import check_matrix
from headstart.core.errors import ConfigError
from headstart.distances.rows import as_floats, constant, finish, root

__all__ = ["soft_neighbourhood_density"]


def soft_neighbourhood_density(rows_mr: Any, temperature: float = 0.05, *, block_numbers: int = 4_000_000) -> Any:
    """Return the mean entropy of each row's similarities to all others.

    Parameters
    ----------
    rows_mr : array or tensor of shape (m, r), m >= 2
        Predicted probabilities, or features.
    temperature : float, above 0
        The lower, the nearer a neighbour must be to count.
    block_numbers : int
        Similarities held at a time. Under autograd all blocks are kept.

    Returns
    -------
    float or Tensor of shape ()
        Nats, from 0 to ``log(m - 1)``.

    Raises
    ------
    HeadstartError
        If there are fewer than two rows, or ``temperature`` or ``block_numbers`` is not above 0.

    Examples
    --------
    >>> round(soft_neighbourhood_density([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), 4)      # two neighbours alike: log(2)
    0.6931
    >>> soft_neighbourhood_density([[1.0, 0.0], [0.0, 1.0]])                            # one neighbour
    0.0
    """
    who = "soft_neighbourhood_density"
    for name, value in (("temperature", temperature), ("block_numbers", block_numbers)):
        if not value > 0:
            raise ConfigError(f"{who}: {name} is above 0; got {value}.")
    rows_mr = as_floats(who, "rows", rows_mr)
    check_matrix(who, "rows", rows_mr, min_rows=2)
    xp = array_namespace(rows_mr)
    lengths_m1 = root(xp, xp.sum(rows_mr * rows_mr, axis=1))[:, None]
    unit_mr = rows_mr / xp.where(lengths_m1 > 0, lengths_m1, xp.ones_like(lengths_m1))
    num_rows = rows_mr.shape[0]
    places = xp.arange(num_rows, device=unit_mr.device)
    total, step = 0.0, max(1, int(block_numbers) // num_rows)
    for start in range(0, num_rows, step):
        total = total + xp.sum(_entropies(xp, unit_mr, places, slice(start, start + step), temperature))
    return finish(total / num_rows)


def _entropies(xp: Any, unit_mr: Any, places: Any, block: slice, temperature: float) -> Any:
    """Return H = log Z - sum_j q_j x_j for the rows of a block, the largest x of each row taken off; its own x is left out."""
    logits = unit_mr[block] @ unit_mr.T / temperature
    own = places[block][:, None] == places[None, :]
    largest = xp.max(xp.where(own, xp.full_like(logits, -math.inf), constant(logits)), axis=1)
    logits = xp.where(own, xp.zeros_like(logits), logits - largest[:, None])
    shares = xp.where(own, xp.zeros_like(logits), xp.exp(logits))
    sums = xp.sum(shares, axis=1)
    return xp.log(sums) - xp.sum(shares * logits, axis=1) / sums
