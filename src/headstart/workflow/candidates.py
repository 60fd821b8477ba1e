"""Which base models are at hand for some rows: packaged ones that are installed, and files in the weights folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone, open_backbone, vector_backbone
from headstart.catalog import entries
from headstart.core.errors import BackboneError, HeadstartError, MissingExtra
from headstart.core.places import weights_folder
from headstart.core.progress import Progress
from headstart.core.seeds import generator
from headstart.core.tasks import Modality, Task
from headstart.data import Dataset

__all__ = ["candidate_names", "open_candidates", "stratified_rows"]


def candidate_names(modality: Modality, folder: Path | None = None) -> list[str]:
    """Return the names of base models that need no download, the default first."""
    if modality == "vector":
        return ["vector"]
    names = [
        entry.name
        for entry in entries("backbone")
        if entry.modality == modality and entry.installed and not entry.is_family
    ]
    folder = weights_folder() if folder is None else folder
    if folder.is_dir():
        folders = [path.parent for path in sorted(folder.rglob("config.json"))]
        files = [path for path in sorted(folder.rglob("*.safetensors")) if path.parent not in folders]
        names += [str(path) for path in [*files, *folders]]
    return names


def open_candidates(
    who: str, wanted: Sequence[str | Path | Backbone], rows: Dataset, progress: Progress
) -> tuple[list[Backbone], dict[str, str]]:
    """Return the base models for some rows, and the reason for each that was left out.

    Parameters
    ----------
    who : str
        The command, for messages.
    wanted : sequence of names, paths or Backbones
        Asked for by the user: one that cannot be opened is an error. Empty: all that are at hand, and one that
        cannot be opened or reads other rows is left out with its reason.

    Raises
    ------
    BackboneError
        If one asked for reads other rows, or the rows are features already and need none; or none is at hand.
    """
    if rows.modality == "vector":
        for name in wanted:
            if name != "vector" and getattr(name, "modality", "") != "vector":
                raise BackboneError(
                    f"{who}: {getattr(name, 'name', name)} embeds images or texts, and the rows of {rows.root or 'the data'} are "
                    "features already; leave --backbone out, or name the column to embed with --text or --image."
                )
        return [vector_backbone(rows.matrix().shape[1])], {}
    if wanted:
        opened = [open_backbone(name) for name in wanted]
        for backbone in opened:
            if backbone.modality != rows.modality:
                raise BackboneError(
                    f"{who}: {backbone.name} reads {backbone.modality} rows, but {rows.root or 'the data'} holds "
                    f"{rows.modality} rows; choose another base model (see `headstart backbones`)."
                )
        return opened, {}
    found: list[Backbone] = []
    left_out: dict[str, str] = {}
    for name in candidate_names(rows.modality):
        try:
            backbone = open_backbone(name)
        except HeadstartError as error:
            left_out[name] = str(error)
            progress.say(f"left out: {error}")
            continue
        if backbone.modality == rows.modality:
            found.append(backbone)
    if not found:
        if rows.modality == "text":
            raise MissingExtra(who, "transformers", "text")
        raise BackboneError(f"{who}: no base model for {rows.modality} rows is at hand; {'; '.join(left_out.values())}")
    return found, left_out


def stratified_rows(targets: NDArray[np.generic], task: Task, num_rows: int, seed: int) -> NDArray[np.int64]:
    """Return at most about ``num_rows`` row numbers, ascending, that keep every class: at least 3 rows of each where it has them.

    Examples
    --------
    >>> rows = stratified_rows(np.array([0] * 90 + [1] * 10), Task("classification", ("a", "b")), 20, 0)
    >>> (rows < 90).sum(), (rows >= 90).sum()
    (np.int64(18), np.int64(3))
    """
    random = generator(seed, "subset")
    if len(targets) <= num_rows:
        return np.arange(len(targets))
    if task.kind != "classification":
        return np.sort(random.permutation(len(targets))[:num_rows])
    chosen = []
    for label in range(len(task.classes)):
        rows = np.flatnonzero(targets == label)
        share = max(3, round(num_rows * len(rows) / len(targets)))
        chosen.append(random.permutation(rows)[:share])
    return np.sort(np.concatenate(chosen))
