"""Which rows a step takes, and how each looks: functions of the seed, the step and the row, so nothing has to be remembered.

A stream passes over its rows again and again, each pass in an order of its own, dealt into batches whose sizes differ by one at
most (no tiny last batch). Balanced sampling shows every class equally often in a pass of the same length: rows of large classes
are left out in turn, those of small ones come again, in another view. Groups other than classes (domains) are balanced alike.
Shapes: b rows of a batch, n rows of the stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.core.seeds import derive_seed, generator
from headstart.training.rows import TrainingRows

__all__ = ["Sample", "Stream", "row_draws"]


@dataclass(frozen=True)
class Sample:
    """Rows of one step.

    Parameters
    ----------
    positions : int64 array of shape (b,)
        Places in the stream, 0 to n - 1.
    turn : int
        Which pass over the stream.
    slots : int64 array of shape (b,)
        Places in the order of that pass.
    """

    positions: NDArray[np.int64]
    turn: int
    slots: NDArray[np.int64]

    def take(self, part: NDArray[np.int64]) -> Sample:
        """Return some of these rows."""
        return Sample(self.positions[part], self.turn, self.slots[part])

    def __len__(self) -> int:
        return len(self.positions)


class Stream:
    """Batches of some rows, by step.

    Parameters
    ----------
    rows : TrainingRows
        At least one row.
    batch_size : int
        Rows of a batch; at most as many as there are.
    seed : int
        Of the order and the draws.
    purpose : str
        Keeps this stream's order apart from that of another one.
    groups : int64 array of shape (n,), optional
        Show every group (class, domain) equally often.
    changed : bool
        Whether strongly changed views of this stream are looked at.

    Examples
    --------
    >>> class Numbers:
    ...     def __len__(self):
    ...         return 5
    >>> stream = Stream(TrainingRows(Numbers(), None), 2, seed=0, purpose="order")
    >>> stream.num_batches, sorted([*stream.at(0).positions, *stream.at(1).positions]) == [0, 1, 2, 3, 4]
    (2, True)
    """

    def __init__(
        self,
        rows: TrainingRows,
        batch_size: int,
        *,
        seed: int,
        purpose: str,
        groups: NDArray[np.int64] | None = None,
        changed: bool = False,
    ) -> None:
        self.rows, self.seed, self.purpose, self.changed = rows, seed, purpose, changed
        self.batch_size = min(batch_size, len(rows))
        self.num_batches = max(1, len(rows) // self.batch_size)
        self._groups: list[NDArray[np.int64]] | None = None
        if groups is not None:
            self._groups = [np.flatnonzero(groups == value) for value in np.unique(groups)]
        self._turn = -1
        self._order = np.empty(0, np.int64)
        self._batches: list[Sample] = []
        self._drawn: dict[str, NDArray[np.uint64]] = {}

    def at(self, step: int) -> Sample:
        """Return the rows of a step, counting from 0."""
        turn, number = divmod(step, self.num_batches)
        self._turn_to(turn)
        return self._batches[number]

    def _turn_to(self, turn: int) -> None:
        if turn != self._turn:
            self._turn, self._order, self._drawn = turn, self._shuffled(turn), {}
            parts = np.array_split(np.arange(len(self._order)), self.num_batches)
            self._batches = [Sample(self._order[part], turn, part) for part in parts]

    def indices(self, sample: Sample) -> NDArray[np.int64]:
        """Return the numbers by which `Rows` knows these rows."""
        return self.rows.indices[sample.positions]

    def domains(self, sample: Sample) -> NDArray[np.int64]:
        """Return the number of the domain each of these rows comes from."""
        return self.rows.chosen_domains[sample.positions]

    def draws(self, sample: Sample, look: str = "view") -> NDArray[np.uint64]:
        """Return one random number a row, another for every pass, stream and look."""
        self._turn_to(sample.turn)
        if look not in self._drawn:
            times = 0 if self._groups is None else _times(self._order)
            rows = self.rows.indices[self._order]
            self._drawn[look] = row_draws(self.seed, (self.purpose, look, sample.turn), rows, times)
        return self._drawn[look][sample.slots]

    def _shuffled(self, turn: int) -> NDArray[np.int64]:
        random = generator(self.seed, self.purpose, turn)
        if self._groups is None:
            return random.permutation(len(self.rows))
        slots = np.array_split(np.arange(len(self.rows)), len(self._groups))
        sizes = random.permutation([len(part) for part in slots])
        chosen = [
            np.resize(random.permutation(members), size)
            for members, size in zip(self._groups, sizes, strict=True)
            if size
        ]
        return random.permutation(np.concatenate(chosen))


def _times(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for every entry how often its value came before.

    Examples
    --------
    >>> _times(np.array([3, 1, 3, 3, 1])).tolist()
    [0, 0, 1, 2, 1]
    """
    ranked = np.argsort(order, kind="stable")
    values = order[ranked]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    counts = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    times = np.empty(len(order), np.int64)
    times[ranked] = counts
    return times


def row_draws(
    seed: int, purpose: tuple[str | int, ...], rows: NDArray[np.int64], times: NDArray[np.int64] | int = 0
) -> NDArray[np.uint64]:
    """Return one 64-bit random number a row: a function of the seed, the purpose and the row alone (splitmix64).

    Parameters
    ----------
    seed : int
        The user's seed.
    purpose : tuple of str or int
        What the numbers are for, the pass over the data included.
    rows : int64 array of shape (b,)
        Row numbers.
    times : int64 array of shape (b,), or int
        How often the row came before.

    Examples
    --------
    >>> first = row_draws(0, ("view", 0), np.array([4, 5]))
    >>> bool((first == row_draws(0, ("view", 0), np.array([5, 4]))[::-1]).all())
    True
    """
    key = (derive_seed(seed, *purpose, "high") << 32) | derive_seed(seed, *purpose, "low")
    with np.errstate(over="ignore"):
        mixed = np.uint64(key) + (np.asarray(rows).astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = mixed + np.asarray(times).astype(np.uint64) * np.uint64(0xD1342543DE82EF95)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        drawn: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return drawn
