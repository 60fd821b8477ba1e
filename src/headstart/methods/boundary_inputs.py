"""Rows for a network of which a part is frozen, opened and closed in one place for every method that trains one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from headstart.backbones import Backbone
from headstart.core.preprocessing import View
from headstart.core.progress import Progress
from headstart.data import Dataset
from headstart.features import FeatureStore
from headstart.training import InputRows, Network, Plan
from headstart.training.boundary import boundary_rows
from headstart.training.rows import Rows

__all__ = ["OpenRows", "open_inputs"]

OpenRows = Callable[[Dataset, tuple[View, ...]], Rows]


@contextlib.contextmanager
def open_inputs(
    network: Network,
    tuned: Backbone,
    base: Backbone,
    plan: Plan,
    *,
    epochs: int,
    boundary: str,
    runtime: str,
    store: FeatureStore | bool | None,
    progress: Progress | None,
) -> Iterator[OpenRows]:
    """Give what opens rows: as activations of what is frozen, which is the base model's, or as they are where nothing is.

    At the end all that were opened are closed, and the network is back on the processor.

    Parameters
    ----------
    network : Network
        Begins after what is frozen, once rows of it are opened.
    tuned : Backbone
        The copy that trains, whose preprocessing rows go through.
    base : Backbone
        As it was: computes activations.
    plan : Plan
        What is frozen.
    epochs : int
        How often rows will be looked at.
    boundary : str
        ``"cached"``, ``"computed"`` or ``"auto"``.
    runtime, store, progress
        As for `headstart.training.boundary.boundary_rows`.
    """
    opened: list[Rows] = []

    def inputs(rows: Dataset, views: tuple[View, ...]) -> Rows:
        if plan.num_frozen == 0 or tuned.modality == "vector":
            found: Rows = InputRows(rows, tuned, views=views)
        else:
            network.start = plan.num_frozen
            found = boundary_rows(
                rows,
                base,
                network.names[plan.num_frozen - 1],
                views,
                epochs=epochs,
                cached={"auto": None, "cached": True, "computed": False}[boundary],
                runtime=runtime,
                store=store,
                progress=progress,
            )
        opened.append(found)
        return found

    try:
        yield inputs
    finally:
        network.cpu()
        for rows in opened:
            rows.close()
