"""Problems other than one source with the same classes, cut out of the shared data: several sources, a few labels, other classes.

from settings_cells import left_out, with_few, partial, open_set, universal

Each gives cells of one data set and one seed, which draws the rows as `adaptation_grid.pairs` does, the labelled target rows, and
the classes of either side (the same for all pairs of a data set). Labels of target rows judge and go nowhere else.
Shapes: n source rows, m target rows, l labelled target rows, d features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptation_grid import EMBEDDED, Domains, pairs, some

__all__ = ["Cell", "left_out", "open_set", "partial", "universal", "with_few"]

Matrix = NDArray[Any]
A_CLASS = 3


@dataclass(frozen=True)
class Cell:
    """One target, what it may learn from, and the labels that judge.

    Parameters
    ----------
    data_set, name : str
        Its place; the name ends with ``@`` and the seed.
    seed : int
        Of everything that is drawn.
    source, codes, domains : arrays of shapes (n, d), (n,), (n,)
        Labelled rows, their class numbers from 0, the number of each row's source from 1.
    target, truth : arrays of shapes (m, d), (m,)
        Rows to answer for and their class numbers; the number of source classes for rows of none of them.
    few, few_codes : arrays of shapes (l, d), (l,)
        Labelled rows of the target's domain that are not among those to answer for.
    """

    data_set: str
    name: str
    seed: int
    source: Matrix
    codes: Matrix
    domains: Matrix
    target: Matrix
    truth: Matrix
    few: Matrix = field(default_factory=lambda: np.zeros((0, 0)))
    few_codes: Matrix = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def num_classes(self) -> int:
        """How many classes the source has."""
        return int(self.codes.max()) + 1


def left_out(name: str, domains: Domains, most: int, seed: int) -> Iterator[Cell]:
    """Give each domain as the target and all others, pooled, as its sources."""
    classes = np.unique(np.concatenate([labels for _, labels in domains.values()]))
    for held in domains:
        drawn = [some(*domains[other], most, seed) for other in domains if other != held]
        source = np.concatenate([rows for rows, _ in drawn])
        target, truth = some(*domains[held], most, seed + 1)
        if name not in EMBEDDED:
            centre, scale = source.mean(axis=0), source.std(axis=0)
            scale = np.where(scale > 0, scale, 1.0)
            source, target = (source - centre) / scale, (target - centre) / scale
        codes = np.searchsorted(classes, np.concatenate([labels for _, labels in drawn]))
        where = np.repeat(np.arange(1, len(drawn) + 1), [len(labels) for _, labels in drawn])
        yield Cell(name, f"{held}@{seed}", seed, source, codes, where, target, np.searchsorted(classes, truth))


def with_few(name: str, domains: Domains, most: int, seed: int) -> Iterator[Cell]:
    """Give every ordered pair with three labelled target rows of each class, which are not judged."""
    for key, source, codes, target, truth in pairs(name, domains, most, seed):
        random = np.random.default_rng(seed)
        own = [random.permutation(np.flatnonzero(truth == label))[:A_CLASS] for label in np.unique(codes)]
        few = np.concatenate(own)
        rest = np.setdiff1d(np.arange(len(truth)), few)
        rows = (target[rest], truth[rest], target[few], truth[few])
        yield Cell(name, f"{key}@{seed}", seed, source, codes, np.ones(len(codes), np.int64), *rows)


def partial(name: str, domains: Domains, most: int, seed: int) -> Iterator[Cell]:
    """Give every ordered pair whose target keeps half of the classes (of seven three)."""

    def split(classes: Matrix) -> tuple[Matrix, Matrix]:
        return classes, classes[: len(classes) // 2]

    yield from _by_classes(name, domains, most, seed, split)


def open_set(name: str, domains: Domains, most: int, seed: int) -> Iterator[Cell]:
    """Give every ordered pair whose source lacks half of the classes (of seven three); the target has them all."""

    def split(classes: Matrix) -> tuple[Matrix, Matrix]:
        return classes[len(classes) // 2 :], classes

    yield from _by_classes(name, domains, most, seed, split)


def universal(name: str, domains: Domains, most: int, seed: int) -> Iterator[Cell]:
    """Give every ordered pair in which either side has a third of the classes for itself (of seven two, of ten three)."""

    def split(classes: Matrix) -> tuple[Matrix, Matrix]:
        own = round(len(classes) / 3)
        return classes[own:], classes[: len(classes) - own]

    yield from _by_classes(name, domains, most, seed, split)


def _by_classes(name: str, domains: Domains, most: int, seed: int, split: Any) -> Iterator[Cell]:
    """Give pairs with the source's and the target's classes alone; ``split`` names them, of all classes in a drawn order."""
    for key, source, codes, target, truth in pairs(name, domains, most, seed):
        ours, theirs = split(np.random.default_rng(seed).permutation(np.unique(codes)))
        known, kept = np.isin(codes, ours), np.isin(truth, theirs)
        numbers = np.full(int(max(codes.max(), truth.max())) + 1, len(ours))  # rows of no source class
        numbers[np.sort(ours)] = np.arange(len(ours))
        where = np.ones(int(known.sum()), np.int64)
        rows = (source[known], numbers[codes[known]], where, target[kept], numbers[truth[kept]])
        yield Cell(name, f"{key}@{seed}", seed, *rows)
