"""Rows to parts: train, validation and test, or folds.

Every part gets its share of every class (of every tenth of the range in regression; of the rarest class of each row in
multi-label tasks). Rows that share a group, or are duplicates of each other, form one unit and stay together. Before
anything is dealt, each class puts one unit into the training rows, so that a class of two rows can be learnt.

Dealing is greedy: units of several rows first, largest first, each to the part that lacks its classes most; then
single rows, class by class, by largest remainder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core.errors import ConfigError, DataError, ShapeError
from headstart.core.seeds import generator
from headstart.data.dataset import Dataset

__all__ = ["Split", "folds", "joined_units", "split_dataset"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Split:
    """Row numbers of each part, ascending; ``notes`` say what was decided on the way."""

    train: Array
    validation: Array
    test: Array
    notes: tuple[str, ...] = ()


def split_dataset(
    dataset: Dataset,
    *,
    test: float = 0.2,
    validation: float = 0.0,
    seed: int = 0,
    duplicate_group: Array | None = None,
) -> Split:
    """Divide rows into training, validation and test rows.

    A split that came with the data is kept: its test rows (or its validation rows where it has no test rows) are the
    test rows, rows without a part train. Only what is missing is dealt, from the training rows.

    Parameters
    ----------
    dataset : Dataset
        Labelled rows; without labels all rows count as one class.
    test, validation : float in [0, 1)
        Shares of all rows. A share of 0 makes an empty part.
    seed : int
        Another seed, another split; the same seed, the same split on every machine.
    duplicate_group : int array of shape (n,), optional
        Rows with equal numbers stay together, as `DataCheck.duplicate_group` says; ``dataset.groups`` count as well.

    Raises
    ------
    ConfigError
        If the shares leave nothing to train on.

    Examples
    --------
    >>> from headstart.data.opening import open_dataset
    >>> split = split_dataset(open_dataset(list("abcdefghij"), labels=[0, 1] * 5), test=0.4)
    >>> len(split.train), len(split.validation), len(split.test)
    (6, 0, 4)
    """
    if not (0 <= test < 1 and 0 <= validation < 1 and test + validation < 1):
        raise ConfigError(
            f"split_dataset: test and validation are shares in [0, 1) and leave rows to train; "
            f"got {test}, {validation}."
        )
    units = joined_units(len(dataset), dataset.groups, duplicate_group)
    given, notes = _given_parts(dataset)
    part = np.zeros(len(dataset), np.int64)
    shares = {1: validation, 2: test}
    if given is not None:
        part = given
        shares = {number: share for number, share in shares.items() if not (part == number).any()}
        if 2 not in shares and validation == 0:
            shares.pop(1, None)
    wanted = {number: share for number, share in shares.items() if share > 0}
    if wanted:
        free = np.flatnonzero(part == 0)
        scale = len(dataset) / max(len(free), 1)
        portions = np.array([0.0, *(min(share * scale, 0.9) for share in wanted.values())])
        portions[0] = max(1 - portions.sum(), 0.05)
        strata = _strata(dataset)[free]
        dealt = _deal(strata, units[free], portions / portions.sum(), generator(seed, "split"), reserve=True)
        for place, number in enumerate(wanted, start=1):
            part[free[dealt == place]] = number
    if not (part == 0).any():
        raise DataError("split_dataset: no row is left to train on; give fewer test rows.")
    return Split(np.flatnonzero(part == 0), np.flatnonzero(part == 1), np.flatnonzero(part == 2), tuple(notes))


def folds(
    dataset_or_targets: Dataset | Array, num_folds: int = 5, seed: int = 0, groups: Array | None = None
) -> list[tuple[Array, Array]]:
    """Divide rows into folds for cross-validation.

    Parameters
    ----------
    dataset_or_targets : Dataset, or array of shape (n,) or (n, k)
        Where the classes come from; a data set's own groups count as well.
    num_folds : int, at least 2
        Fewer are made where there are fewer units.
    seed : int
        Another seed, another division.
    groups : array of shape (n,), optional
        Rows with equal values stay together.

    Returns
    -------
    list of (train, test)
        Row numbers, ascending; every row is in exactly one test part.

    Examples
    --------
    >>> [test.tolist() for train, test in folds(np.array([0, 0, 0, 0]), 2, groups=np.array([1, 1, 2, 2]))] in (
    ...     [[0, 1], [2, 3]], [[2, 3], [0, 1]])
    True
    """
    if num_folds < 2:
        raise ConfigError(f"folds: num_folds is at least 2; got {num_folds}.")
    if isinstance(dataset_or_targets, Dataset):
        strata = _strata(dataset_or_targets)
        units = joined_units(len(strata), dataset_or_targets.groups, groups)
    else:
        strata = _strata_of_targets(np.asarray(dataset_or_targets))
        units = joined_units(len(strata), groups)
    num_folds = min(num_folds, int(units.max(initial=-1)) + 1)
    if num_folds < 2:
        raise DataError("folds: all rows belong together (one group, or one row); nothing can be held out.")
    part = _deal(strata, units, np.full(num_folds, 1 / num_folds), generator(seed, "folds"), reserve=False)
    found = [number for number in range(num_folds) if (part == number).any()]
    return [(np.flatnonzero(part != number), np.flatnonzero(part == number)) for number in found]


def joined_units(num_rows: int, *labellings: Array | None) -> Array:
    """Return for each row the number of its unit: rows equal in any labelling are in one unit, directly or through
    others.

    A blank text in a labelling belongs to nothing.

    Examples
    --------
    >>> joined_units(4, np.array(["a", "a", "", ""]), np.array([0, 1, 1, 2])).tolist()
    [0, 0, 0, 1]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    starts, ends = [], []
    for labels in labellings:
        if labels is None:
            continue
        if len(labels) != num_rows:
            raise ShapeError(
                f"joined_units: groups have {len(labels):,} entries for {num_rows:,} rows; give one for each row."
            )
        _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
        rows = np.arange(num_rows)
        named = np.asarray(labels) != "" if np.asarray(labels).dtype.kind == "U" else np.ones(num_rows, bool)
        starts.append(rows[named])
        ends.append(first[inverse][named])
    if not starts:
        return np.arange(num_rows)
    start, end = np.concatenate(starts), np.concatenate(ends)
    graph = coo_array((np.ones(len(start), np.int8), (start, end)), shape=(num_rows, num_rows))
    units: Array = connected_components(graph, directed=False)[1].astype(np.int64)
    return units


def _given_parts(dataset: Dataset) -> tuple[Array | None, list[str]]:
    """Return the parts that came with the data (0 train, 1 validation, 2 test), if they leave something to test on."""
    given = dataset.given_split
    if given is None or not np.isin(given, ["val", "test"]).any():
        return None, []
    part = np.select([given == "val", given == "test"], [1, 2], 0).astype(np.int64)
    notes = ["the split that came with the data is kept"]
    if not (part == 2).any():
        part[part == 1] = 2
        notes.append("it has no test rows: its validation rows are the test rows")
    if blank := int((given == "").sum()):
        notes.append(f"{blank:,} rows without a part train")
    return part, notes


def _strata(dataset: Dataset) -> Array:
    return np.zeros(len(dataset), np.int64) if dataset.targets is None else _strata_of_targets(dataset.targets)


def _strata_of_targets(targets: Array) -> Array:
    """Return what to balance: the class, the tenth of the range, or the rarest class of each row."""
    if targets.ndim == 2:
        counts = targets.sum(0, dtype=np.int64)
        rarity = np.where(targets > 0, counts[None, :], np.iinfo(np.int64).max)
        rarest: Array = np.where(targets.any(1), rarity.argmin(1), targets.shape[1]).astype(np.int64)
        return rarest
    if targets.dtype.kind == "f":
        edges = np.quantile(targets, np.linspace(0, 1, 11)[1:-1])
        tenths: Array = np.searchsorted(edges, targets).astype(np.int64)
        return tenths
    strata: Array = np.unique(targets, return_inverse=True)[1].astype(np.int64)
    return strata


def _deal(strata: Array, units: Array, portions: Array, random: np.random.Generator, reserve: bool) -> Array:
    """Return the part of each row. ``reserve``: part 0 gets one unit of every class before the rest is dealt."""
    num_strata = int(strata.max(initial=-1)) + 1
    part = np.full(len(strata), -1, np.int64)
    sizes = np.bincount(strata, minlength=num_strata).astype(np.float64)
    lack = portions[:, None] * sizes[None, :]
    order = random.permutation(len(strata))
    if reserve:
        units = units.copy()
        for row in order[np.unique(strata[order], return_index=True)[1]]:
            if part[row] < 0:
                _give(np.flatnonzero(units == units[row]), 0, part, strata, lack)
    rest = order[part[order] < 0]
    _, unit_of_rest, unit_sizes = np.unique(units[rest], return_inverse=True, return_counts=True)
    large = np.flatnonzero(unit_sizes > 1)
    members = np.split(np.argsort(unit_of_rest, kind="stable"), np.cumsum(unit_sizes)[:-1])
    for unit in sorted(large, key=lambda unit: (-unit_sizes[unit], members[unit][0])):
        rows = rest[members[unit]]
        classes, counts = np.unique(strata[rows], return_counts=True)
        need = (np.minimum(lack[:, classes], counts) / counts).sum(1) + 1e-3 * lack.sum(1) / len(strata)
        _give(rows, int(need.argmax()), part, strata, lack)
    _deal_singles(rest[unit_sizes[unit_of_rest] == 1], part, strata, lack)
    return part


def _give(rows: Array, number: int, part: Array, strata: Array, lack: Array) -> None:
    part[rows] = number
    np.subtract.at(lack[number], strata[rows], 1)


def _deal_singles(rows: Array, part: Array, strata: Array, lack: Array) -> None:
    """Give single rows, in the order they come, to the parts that still lack rows of their class."""
    total = lack.clip(min=0).sum(1)
    by_class = rows[np.argsort(strata[rows], kind="stable")]
    for mine in np.split(by_class, np.flatnonzero(np.diff(strata[by_class])) + 1):
        if not len(mine):
            continue
        number = strata[mine[0]]
        want = lack[:, number].clip(min=0)
        want = want * (len(mine) / want.sum()) if want.sum() > 0 else np.full(len(want), len(mine) / len(want))
        counts = np.floor(want + 1e-9).astype(np.int64)
        remainder = np.round(want - counts, 9)
        short = np.lexsort((-total, -remainder))[: len(mine) - counts.sum()]
        counts[short] += 1
        part[mine] = np.repeat(np.arange(len(counts)), counts)
        total -= counts
