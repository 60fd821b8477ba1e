"""Novelty of target rows: how far each lies from the source, against how far source rows lie from each other.

    d(x)  = distance to the k-th nearest source row
    p(x)  = (1 + #{source rows whose own leave-one-out d >= d(x)}) / (1 + r)
    share = (share of target rows with p <= a  -  a) / (1 - a),  at least 0:  rows unlike the source beyond what chance gives

Source: conformal p-values, Vovk, Gammerman & Shafer, "Algorithmic learning in a random world", 2005; the score is Sun et al.,
"Out-of-distribution detection with deep nearest neighbors", ICML 2022 (arXiv:2204.06507). Unit: shares of rows.
Use it to see new classes and missing support. It ignores how many rows lie where: a place with one source row is known.
In many features distances concentrate, and a slight change of every feature makes every row novel: that too is missing support.
Shapes: n source rows, m target rows, r reference rows kept of the source, d features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from headstart.core.errors import ConfigError
from headstart.core.seeds import generator
from headstart.distances.pairs import squared_distances
from headstart.distances.rows import as_numpy, read_domains

__all__ = ["Novelty", "novelty_of_rows"]

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
Metric = Literal["standardised", "cosine"]
_BLOCK = 2048
_NOT_ALONE, _BY_CHANCE, _BEYOND = 0.17, 1.25, 0.62


@dataclass(frozen=True)
class Novelty:
    """How unlike the source each row is.

    Parameters
    ----------
    source_p_values_r : float64 array of shape (r,)
        Leave-one-out p-values of the source rows that serve as reference.
    source_rows_r : int64 array of shape (r,)
        Which source rows those are.
    target_p_values_m : float64 array of shape (m,)
        p-values of the target rows: uniform where nothing is novel, near 0 for novel rows.
    target_rows_r : int64 array
        Target rows that were also compared with the target: all, or as many as are kept of the source.
    target_own_p_values_r : float64 array
        Their leave-one-out p-values among themselves: near 0 for rows that are alone there too.
    level : float
        A row is novel where its p-value is at most this.
    """

    source_p_values_r: FloatArray
    source_rows_r: npt.NDArray[np.int64]
    target_p_values_m: FloatArray
    target_rows_r: npt.NDArray[np.int64]
    target_own_p_values_r: FloatArray
    level: float

    @property
    def novel_m(self) -> npt.NDArray[np.bool_]:
        """Which target rows are novel, shape (m,)."""
        return np.asarray(self.target_p_values_m <= self.level)

    @property
    def share(self) -> float:
        """Share of target rows that are novel beyond chance, in [0, 1]."""
        return float(max(0.0, (self.novel_m.mean() - self.level) / (1 - self.level)))

    @property
    def lie_together(self) -> bool:
        """Whether the novel rows are a group of their own rather than the edge of a wider target.

        Two of three signs: half of them are not alone in the target either; rows just short of novel are as rare as by chance;
        most lie beyond nearly every source row. Thresholds come from simulations with 150 to 2000 rows and 4 to 100 features.
        """
        novel_r = self.novel_m[self.target_rows_r]
        if not novel_r.any():
            return False
        p_values = self.target_p_values_m
        nearly = ((p_values > self.level) & (p_values <= 5 * self.level)).mean() / (4 * self.level)
        signs = (
            float(np.median(self.target_own_p_values_r[novel_r])) >= _NOT_ALONE,
            nearly <= _BY_CHANCE * (1 - self.share),
            float((p_values[self.novel_m] <= self.level / 5).mean()) >= _BEYOND,
        )
        return sum(map(bool, signs)) >= 2


def novelty_of_rows(
    source_nd: Any,
    target_md: Any,
    *,
    num_neighbours: int = 3,
    metric: Metric = "standardised",
    level: float = 0.05,
    max_reference: int = 2000,
    seed: int = 0,
) -> Novelty:
    """Return conformal p-values of the target rows against the source.

    Parameters
    ----------
    source_nd, target_md : array or tensor of shape (n, d) and (m, d); n at least ``num_neighbours + 1``
        Features.
    num_neighbours : int, at least 1
        k: the distance to the k-th nearest source row is looked at.
    metric : {"standardised", "cosine"}
        "standardised" for columns with units, over the source's deviations; "cosine" for a network's features.
    level : float in (0, 1)
        Share of ordinary rows that may count as novel.
    max_reference : int, above ``num_neighbours``
        Source rows kept, drawn under ``seed`` where there are more.
    seed : int
        Draws them.

    Raises
    ------
    HeadstartError
        If the rows cannot be compared, or an option breaks its rule.

    Examples
    --------
    >>> source = np.linspace(0, 1, 99)[:, None]
    >>> found = novelty_of_rows(source, np.array([[0.505], [9.0]]))
    >>> found.novel_m.tolist(), float(found.target_p_values_m[1])
    ([False, True], 0.01)
    """
    if metric not in ("standardised", "cosine") or num_neighbours < 1 or not 0 < level < 1:
        raise ConfigError(
            "novelty_of_rows: metric is 'standardised' or 'cosine', num_neighbours at least 1 and level between 0 and 1; "
            f"got {metric!r}, {num_neighbours}, {level}."
        )
    if max_reference <= num_neighbours:
        raise ConfigError(f"novelty_of_rows: max_reference must be above num_neighbours; got {max_reference}.")
    _, source, target = read_domains("novelty_of_rows", source_nd, target_md)
    if source.shape[0] <= num_neighbours:
        raise ConfigError(f"novelty_of_rows: source needs more than {num_neighbours} rows; got {source.shape[0]}.")
    source, target = as_numpy(source), as_numpy(target)
    source_rows, target_rows = (
        _kept(len(source), max_reference, seed, "s"),
        _kept(len(target), max_reference, seed, "t"),
    )
    centre, scale = _standards(source, target) if metric == "standardised" else (0.0, 1.0)

    def place(part: Array) -> Array:
        placed = (part - centre) * scale
        if metric == "cosine":
            placed = placed / np.maximum(np.linalg.norm(placed, axis=1, keepdims=True), 1e-300)
        return np.asarray(placed, dtype=np.float64)

    reference = place(source[source_rows])
    own = _kth_distance(reference, reference, num_neighbours, leave_one_out=True)
    blocks = [
        _kth_distance(place(target[start : start + _BLOCK]), reference, num_neighbours)
        for start in range(0, len(target), _BLOCK)
    ]
    ranks = np.searchsorted(np.sort(own), np.concatenate(blocks), side="left")
    among_m = np.ones(len(target_rows))
    if len(target_rows) > num_neighbours:
        drawn = place(target[target_rows])
        among_m = _own_p_values(_kth_distance(drawn, drawn, num_neighbours, leave_one_out=True))
    return Novelty(
        _own_p_values(own), source_rows, (1 + len(own) - ranks) / (1 + len(own)), target_rows, among_m, level
    )


def _kept(num_rows: int, most: int, seed: int, part: str) -> npt.NDArray[np.int64]:
    rows = np.arange(num_rows)
    return rows if num_rows <= most else np.sort(generator(seed, "novelty", part).choice(rows, most, replace=False))


def _own_p_values(distances_r: FloatArray) -> FloatArray:
    """Return each row's p-value among the rows it belongs to: it counts itself once."""
    ordered = np.sort(distances_r)
    return np.asarray((len(ordered) - np.searchsorted(ordered, distances_r, side="left")) / len(ordered))


def _kth_distance(rows: Array, reference: Array, k: int, *, leave_one_out: bool = False) -> FloatArray:
    """Return the squared distance of each row to its k-th nearest reference row."""
    nearest = []
    for start in range(0, len(rows), _BLOCK):
        squared = squared_distances(np, rows[start : start + _BLOCK], reference)
        if leave_one_out:
            squared[np.arange(len(squared)), start + np.arange(len(squared))] = np.inf
        nearest.append(np.partition(squared, k - 1, axis=1)[:, k - 1])
    return np.concatenate(nearest)


def _standards(source: Array, target: Array) -> tuple[FloatArray, FloatArray]:
    """Return the source's mean and one over its deviations; a feature (nearly) constant there is measured by the target's."""
    centre = source.mean(axis=0, dtype=np.float64)
    own = source.std(axis=0, dtype=np.float64)
    other = np.abs(target.mean(axis=0, dtype=np.float64) - centre) + target.std(axis=0, dtype=np.float64)
    deviation = np.maximum(own, 0.01 * other)
    constant = deviation <= 4 * np.finfo(source.dtype).eps * np.abs(centre)
    return centre, np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, deviation))
