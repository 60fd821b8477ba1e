"""Whether to keep the activations at the freeze boundary or to compute them for every batch: arithmetic, printed.

    kept      (n v - h) (decode + prefix + write) + h load  +  e n read
    computed  n min(v, e) decode  +  e n prefix                             (decode each time where pixels do not fit)

n rows, v views, h of n v held by the store already, e epochs. The prefix's seconds are those the runtime was measured with, else
an estimate from its share of the multiply-adds; a row on disk takes shape x 2 or 4 bytes a view, twice while it is in use: once
in the store, once in the private copy that training reads.
It ignores how many cores share the work, which is the same for both, and a step's own cost, too.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headstart.backbones import Backbone, Stage
from headstart.core.errors import ConfigError
from headstart.core.places import cache_folder
from headstart.features import RuntimeChoice

__all__ = ["MULTIPLY_ADDS", "BoundaryPlan", "plan_boundary"]

# CPU seconds on one core of a server processor of 2023; only their size matters
_DECODE = 2.5e-3  # an image of half a megapixel
_TOKENISE = 1e-4
_WRITE = 1e-9  # a byte, into the store and the private copy
_LOAD = 1.2e-9  # a byte, out of the store into the private copy
_READ = 2e-9  # a number, out of the private copy into a float32 batch
MULTIPLY_ADDS = {"float16": 300e9, "float32": 40e9}  # a second, by the number type that goes with the arithmetic
_TOKENS = 32  # of a text whose length is not known
_FREE_SHARE = 0.9  # of the free disk that may be filled


@dataclass(frozen=True)
class BoundaryPlan:
    """How rows get to the freeze boundary.

    Parameters
    ----------
    stage : str
        The last stage of the frozen part.
    cached : bool
        Whether activations are kept.
    bytes : int
        What keeping them takes on disk while training runs.
    cpu_seconds_cached, cpu_seconds_uncached : float
        What getting them costs in the whole training, kept and computed each time.
    reason : str
        The arithmetic, for a person.
    suggestion : str
        What would make keeping them possible, where they do not fit.
    """

    stage: str
    cached: bool
    bytes: int
    cpu_seconds_cached: float
    cpu_seconds_uncached: float
    reason: str
    suggestion: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value."""
        return {key: getattr(self, key) for key in self.__dataclass_fields__}


@dataclass(frozen=True)
class _Costs:
    """The quantities of the formula above; seconds a row."""

    rows: int
    views: int
    epochs: int
    held: int
    numbers: int
    itemsize: int
    prefix: float
    decode: float
    decode_again: bool
    copies: int

    @property
    def row_bytes(self) -> int:
        return self.numbers * self.itemsize

    @property
    def bytes(self) -> int:
        """Space that is not taken yet: the store's copy of what it does not hold, and the private copy of all."""
        every = self.rows * self.views
        return self.row_bytes * (every + (self.copies - 1) * (every - self.held))

    @property
    def cached(self) -> float:
        new = self.rows * self.views - self.held
        write = self.row_bytes * _WRITE
        once = new * (self.decode + self.prefix + write) + self.held * self.row_bytes * _LOAD
        return once + self.epochs * self.rows * self.numbers * _READ

    @property
    def uncached(self) -> float:
        times = self.epochs if self.decode_again else min(self.views, self.epochs)
        return self.rows * (times * self.decode + self.epochs * self.prefix)


def plan_boundary(
    backbone: Backbone,
    stage: str | int | Stage,
    num_rows: int,
    num_views: int = 1,
    epochs: int = 10,
    *,
    disk_budget: float = 20e9,
    free_disk: float | None = None,
    choice: RuntimeChoice | None = None,
    row_seconds: float | None = None,
    tokens: float | None = None,
    num_held: int = 0,
    store: bool = True,
    exact: bool = False,
    max_pixel_bytes: float = 1e9,
) -> BoundaryPlan:
    """Decide whether activations at a stage are kept.

    Parameters
    ----------
    backbone : Backbone
        Of images or texts.
    stage : str, int or Stage
        Where the frozen part ends.
    num_rows, num_views, epochs : int
        How many rows, looks at each, and passes over them.
    disk_budget : float
        Bytes that may be taken.
    free_disk : float, optional
        Bytes that are free; looked up in the cache folder when left out.
    choice : RuntimeChoice, optional
        How the frozen part was measured to run fastest; gives its speed and the number type.
    row_seconds : float, optional
        CPU seconds of the frozen part for one row, if known better than ``choice`` or the multiply-adds tell.
    tokens : float, optional
        Mean length of the texts.
    num_held : int
        Rows (times views) that the store holds already.
    store : bool
        Whether rows are also kept for other runs.
    exact : bool
        Whether the untouched network runs in float32.
    max_pixel_bytes : float
        Memory for decoded images where activations are computed each time.

    Raises
    ------
    ConfigError
        If a count is not positive.
    BackboneError
        If there is no such stage.

    Examples
    --------
    >>> from headstart.backbones import vector_backbone
    >>> plan = plan_boundary(vector_backbone(100), "features", 50, epochs=4, row_seconds=0.01, free_disk=1e9)
    >>> plan.cached, plan.bytes  # 50 rows x 100 numbers x 4 bytes, twice
    (True, 40000)
    >>> round(plan.cpu_seconds_uncached, 3)  # 4 epochs x 50 rows x 10 ms, and the rows themselves
    2.0
    """
    for name, value in (("num_rows", num_rows), ("num_views", num_views), ("epochs", epochs)):
        if value < 1:
            raise ConfigError(f"plan_boundary: {name} is at least 1; got {value}.")
    place = backbone.stage(stage)
    dtype = choice.dtype if choice is not None and not exact else "float32"
    prefix, how = _prefix_seconds(backbone, place, choice, row_seconds, dtype, tokens)
    pixels = math.prod(backbone.stages[0].shape) if backbone.modality == "image" else 0
    costs = _Costs(
        rows=num_rows,
        views=num_views,
        epochs=epochs,
        held=min(num_held, num_rows * num_views),
        numbers=_numbers(place, tokens),
        itemsize=4 if place.name == "features" or dtype == "float32" else 2,
        prefix=prefix,
        decode={"image": _DECODE, "text": _TOKENISE}.get(backbone.modality, 0.0),
        decode_again=backbone.modality == "text" or pixels * num_rows * num_views > max_pixel_bytes,
        copies=2 if store else 1,
    )
    room = min(disk_budget, _FREE_SHARE * (_free(cache_folder()) if free_disk is None else free_disk))
    pays, fits = costs.cached < costs.uncached, costs.bytes <= room
    suggestion = "" if fits or not pays else _suggest(backbone, place, costs, room, tokens)
    return BoundaryPlan(
        stage=place.name,
        cached=pays and fits,
        bytes=costs.bytes,
        cpu_seconds_cached=costs.cached,
        cpu_seconds_uncached=costs.uncached,
        reason=_reason(place, costs, room, how, pays, fits) + (f"; {suggestion}" if suggestion else ""),
        suggestion=suggestion,
    )


def _prefix_seconds(
    backbone: Backbone,
    place: Stage,
    choice: RuntimeChoice | None,
    row_seconds: float | None,
    dtype: str,
    tokens: float | None,
) -> tuple[float, str]:
    """Return CPU seconds of the frozen part for one row, and how they are known."""
    if row_seconds is not None:
        return row_seconds, "given"
    speed = choice.timings.get(choice.runtime.label) if choice is not None else None
    if speed:
        return 1 / speed, "measured"
    longer = (tokens or _TOKENS) / _TOKENS if backbone.modality == "text" else 1.0
    return longer * place.fraction * backbone.info.multiply_adds / MULTIPLY_ADDS[dtype], "estimated"


def _numbers(place: Stage, tokens: float | None) -> int:
    """Return how many numbers a row has at a stage; -1 in its shape stands for the tokens of a text."""
    return math.ceil(math.prod((tokens or _TOKENS) if size < 0 else size for size in place.shape))


def _free(folder: Path) -> float:
    """Return the free bytes of the disk a folder is or will be on."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return float(shutil.disk_usage(folder).free)


def _suggest(backbone: Backbone, place: Stage, costs: _Costs, room: float, tokens: float | None) -> str:
    """Return what would fit: fewer views, else an earlier or a later stage."""
    for views in range(costs.views - 1, 0, -1):
        fewer = replace(costs, views=views, held=min(costs.held, views * costs.rows))
        if fewer.bytes <= room and fewer.cached < fewer.uncached:
            return f"{views} view{'s' * (views > 1)} would fit"
    fitting = [
        stage
        for stage in backbone.stages[1:]
        if replace(costs, numbers=_numbers(stage, tokens), held=0).bytes <= room and stage.fraction > 0
    ]
    earlier = [stage for stage in fitting if stage.index < place.index]
    later = [stage for stage in fitting if stage.index > place.index]
    if earlier:
        return f"cut at {earlier[-1].name}, {earlier[-1].fraction:.0%} of the network, they would fit"
    return f"frozen up to {later[0].name} they would fit" if later else ""


def _reason(place: Stage, costs: _Costs, room: float, how: str, pays: bool, fits: bool) -> str:
    """Return the arithmetic in words."""
    held = f" ({costs.held:,} held already)" if costs.held else ""
    verdict = "kept" if pays and fits else "computed each time"
    why = "" if pays and fits else (", they do not fit" if pays else ", keeping them does not pay")
    return (
        f"activations at {place.name} ({place.fraction:.0%} of the multiply-adds) {verdict}{why}: "
        f"{costs.rows:,} rows x {costs.views} view{'s' * (costs.views > 1)}{held} x {costs.numbers:,} numbers x "
        f"{costs.itemsize} bytes x {costs.copies} = {_size(costs.bytes)} of {_size(room)}; {costs.prefix * 1e3:.1f} ms a row "
        f"{how}; {costs.epochs} epochs take {costs.cached:,.1f} CPU s kept, {costs.uncached:,.1f} CPU s computed each time"
    )


def _size(value: float) -> str:
    """Return a number of bytes for people.

    Examples
    --------
    >>> _size(40_000), _size(2_500_000_000)
    ('0.04 MB', '2.5 GB')
    """
    return f"{value / 1e9:,.1f} GB" if value >= 1e9 else f"{value / 1e6:,.{2 if value < 1e7 else 0}f} MB"
