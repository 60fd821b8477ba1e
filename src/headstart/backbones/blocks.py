"""The natural coarse units of an image network, found in its traced graph; nothing is listed per architecture.

A unit is a part of the network (``layer1``) that halves its places at most once (or does next to nothing) and does less
than four fifths of the work; a part that does more is looked into, as is the heaviest where there would be few units.
So a ResNet falls into its layers and a vision transformer, whose stack does nearly all the work at one resolution, into
every layer of the stack. Units then become blocks:

- what does no work (normalisation, activation, dropout) belongs to the unit before it; in front of all, to the first;
- a pooling ends its block, and what only leads to one (DenseNet's transitions) belongs to it;
- single layers next to each other at one resolution are one block (VGG);
- a light unit that only lowers the resolution belongs to the unit after it (the merging of patches in torchvision's Swin);
- of more than twelve units, those of one resolution are one block, unless that would do most of the work (ViT).

A block ends where the network can be cut, and no two blocks share a parameter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby, pairwise

from headstart.backbones.graph import CutPoint, NetworkGraph, Step, module_paths
from headstart.core.errors import BackboneError

__all__ = ["channels_last", "find_blocks", "num_places", "place_dimensions"]

_WHOLE = 0.8  # a part that does more of the work than this is looked into
_LIGHT = 0.1  # a part that does less is not looked into, however often it halves its places
_LIGHTEST = 0.03
_FEW = 4
_FALL = 1.9  # so many times fewer places are a change of resolution
_MANY = 12
_MOST = 0.6  # no block of many units does more of the work


def channels_last(shape: tuple[int, ...], row_shape: tuple[int, ...]) -> bool:
    """Return whether a row's activations are (height, width, channels) and not (channels, height, width).

    Told by which two of its numbers have the proportion of the image.

    Examples
    --------
    >>> channels_last((7, 7, 768), (3, 224, 224)), channels_last((768, 7, 7), (3, 224, 224))
    (True, False)
    """
    if len(shape) != 3 or len(row_shape) != 3:
        return False
    image = math.log(row_shape[1] / row_shape[2])
    first, last = (abs(math.log(shape[at] / shape[at + 1]) - image) for at in (1, 0))
    return last < first


def num_places(shape: tuple[int, ...], row_shape: tuple[int, ...]) -> int | None:
    """Return the number of places (pixels, tokens) of a row's activations; None for shapes that only lead to others.

    Examples
    --------
    >>> num_places((64, 56, 56), (3, 224, 224)), num_places((197, 192), (3, 224, 224)), num_places((512,), (3, 8, 8))
    (3136, 197, 1)
    """
    if len(shape) == 3:
        return shape[0] * shape[1] if channels_last(shape, row_shape) else shape[1] * shape[2]
    if len(shape) in (1, 2):
        return 1 if len(shape) == 1 else shape[0]
    return None


def place_dimensions(shape: tuple[int, ...], row_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the dimensions of a batch of activations that count places and not channels.

    Raises
    ------
    BackboneError
        If they cannot be told apart.

    Examples
    --------
    >>> place_dimensions((512, 7, 7), (3, 224, 224)), place_dimensions((7, 7, 768), (3, 224, 224))
    ((2, 3), (1, 2))
    >>> place_dimensions((197, 192), (3, 224, 224)), place_dimensions((512,), (3, 224, 224))
    ((1,), ())
    """
    if len(shape) > 3:
        raise BackboneError(
            f"Backbone.until: which of {shape} are places cannot be told; take another stage, or pool='flatten'."
        )
    if len(shape) == 3:
        return (1, 2) if channels_last(shape, row_shape) else (2, 3)
    return (1,) if len(shape) == 2 else ()


@dataclass
class _Run:
    """Consecutive steps inside one part of the network; later, one block."""

    path: str
    steps: list[Step]
    places_before: int
    row_shape: tuple[int, ...]

    def points(self) -> list[tuple[int, int]]:
        """Return the position of every cut point whose places are known, and these places."""
        found = []
        for position, step in enumerate(self.steps):
            places = num_places(step.point.shape, self.row_shape) if step.point is not None else None
            if places is not None:
                found.append((position, places))
        return found

    def falls(self) -> list[int]:
        """Return the positions of the points that end at a lower resolution than the point before them."""
        known = [(-1, self.places_before), *self.points()]
        return [position for (_, before), (position, after) in pairwise(known) if before >= _FALL * after]

    @property
    def work(self) -> int:
        return sum(step.work for step in self.steps)

    @property
    def places(self) -> int:
        """Places after the run."""
        known = self.points()
        return known[-1][1] if known else self.places_before

    def _pooling(self) -> int | None:
        """Return the position after which the run only pools: its last fall of resolution costs no work, nor what follows."""
        falls = self.falls()
        if not falls:
            return None
        start = 1 + max((position for position, _ in self.points() if position < falls[-1]), default=-1)
        return None if any(step.work for step in self.steps[start:]) else start

    @property
    def pools_last(self) -> bool:
        """Whether the run ends with a pooling."""
        return self._pooling() is not None

    @property
    def places_worked(self) -> int:
        """Places at which the run did its work: before its pooling."""
        start = self._pooling()
        if start is None:
            return self.places
        return next((places for position, places in reversed(self.points()) if position < start), self.places_before)

    @property
    def plain(self) -> bool:
        """Whether the run is single layers and no part with an inner structure."""
        return all(
            path == self.path or step.node.op != "call_module"
            for step in self.steps
            for path in module_paths(step.node)[-1:]
        )

    def end(self) -> CutPoint | None:
        """Return the last point after which nothing in the run matters."""
        for step in reversed(self.steps):
            if step.point is not None:
                return step.point
            if step.work or step.holds:
                return None
        return None


def find_blocks(graph: NetworkGraph) -> list[CutPoint]:
    """Return the ends of all blocks but the last, which ends with the features.

    Parameters
    ----------
    graph : NetworkGraph
        Of an image network.

    Examples
    --------
    >>> from torch import nn
    >>> layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    >>> graph = NetworkGraph(nn.Sequential(*layers).eval(), (3, 16, 16))
    >>> [point.name for point in find_blocks(graph)]
    ['2', '3']
    """
    runs = _units(graph)
    blocks = _join(runs, by_resolution=False)
    if len(blocks) > _MANY:
        joined = _join(runs, by_resolution=True)
        if max(block.work for block in joined) <= _MOST * sum(block.work for block in joined):
            blocks = joined
    ends = _ends(blocks)
    return _disjoint(graph, ends)


def _units(graph: NetworkGraph) -> list[_Run]:
    """Return the network's units in order; a part is looked into until it halves its places once at most."""
    steps = list(graph.steps())
    total = sum(step.work for step in steps)
    expanded: set[str] = set()
    while True:
        runs = _runs(steps, expanded, graph.row_shape)
        few = sum(run.work > 0 for run in runs) < _FEW
        for run in runs:
            big = run.work > (0.5 if few else _WHOLE) * total or (len(run.falls()) > 1 and run.work > _LIGHT * total)
            inner = sum(step.point is not None for step in run.steps[:-1])
            if run.path and big and inner > 1 and not run.plain:
                expanded.add(run.path)
                break
        else:
            return runs


def _runs(steps: list[Step], expanded: set[str], row_shape: tuple[int, ...]) -> list[_Run]:
    def unit(step: Step) -> str:
        return next((path for path in module_paths(step.node) if path not in expanded), "")

    runs: list[_Run] = []
    places = num_places(row_shape, row_shape) or 1
    for path, group in groupby(steps, unit):
        runs.append(_Run(path, list(group), places, row_shape))
        places = runs[-1].places
    return runs


def _join(runs: list[_Run], by_resolution: bool) -> list[_Run]:
    total = sum(run.work for run in runs)
    blocks: list[_Run] = []
    plain: list[bool] = []  # of each block, whether all its work is done by single layers
    for run in runs:
        last = blocks[-1] if blocks else None
        bridge = last is not None and len(blocks) > 1 and last.work < _LIGHTEST * total and bool(last.falls())
        if last is None or not (bridge or _belongs(run, last, by_resolution or (plain[-1] and run.plain))):
            blocks.append(_Run(run.path, list(run.steps), run.places_before, run.row_shape))
            plain.append(run.plain)
        else:
            plain[-1] = (plain[-1] or not last.work) and (run.plain or not run.work)
            last.steps += run.steps
    return blocks


def _belongs(run: _Run, block: _Run, alike: bool) -> bool:
    """Return whether a unit belongs to the block before it."""
    if not run.work or not block.work:
        return True
    if block.pools_last:
        return False
    same = run.places_worked <= _FALL * block.places_worked and block.places_worked <= _FALL * run.places_worked
    return same and (alike or run.pools_last)


def _ends(blocks: list[_Run]) -> list[CutPoint]:
    """Return where blocks end; what follows the last parameter is a block of its own where it is a pooling."""
    ends = [end for block in blocks[:-1] if (end := block.end()) is not None]
    tail: list[Step] = []
    for step in reversed(blocks[-1].steps):
        tail.insert(0, step)
        if step.work or step.holds:
            break
    points = [step.point for step in tail if step.point is not None]
    spatial = [point for point in points if (num_places(point.shape, blocks[-1].row_shape) or 1) > 1]
    return [*ends, *spatial[-1:]]


def _disjoint(graph: NetworkGraph, ends: list[CutPoint]) -> list[CutPoint]:
    """Leave out the ends between two blocks that use one parameter."""
    kept = list(ends)
    while True:
        used = [graph.parameters_of(start, end) for start, end in pairwise([None, *kept, None])]
        shared = [(i, j) for j in range(len(used)) for i in range(j) if used[i] & used[j]]
        if not shared:
            return kept
        first, last = shared[0]
        del kept[first:last]
