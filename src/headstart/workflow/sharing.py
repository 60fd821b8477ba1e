"""One fine-tuning of a run, shared out to all processes of a crew.

The first process tells the others by numbers and JSON what to train: recipe, base model, rows by their places in the data, the
solved head to start from. The others open the same data and base model themselves, and refuse where those are not the same.
It ignores what the others make: all hold the same weights at the end, and the first one keeps them.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.backbones import Backbone, open_backbone
from headstart.core.errors import ConfigError, DataError
from headstart.core.preprocessing import View
from headstart.core.progress import Progress
from headstart.data import Dataset
from headstart.heads import LinearHead
from headstart.training.checkpoint import rows_identity
from headstart.training.crew import Crew
from headstart.workflow.candidates import candidate_names
from headstart.workflow.config import FitConfig
from headstart.workflow.preflight import prepare
from headstart.workflow.recipes import Recipe, Tune, Tuned, TuningRows, tune

__all__ = ["Helper", "check_called", "shared_out"]

Order = tuple[dict[str, Tensor], dict[str, Any]]


def check_called() -> None:
    """Refuse to do a whole job in each of several processes that torchrun started: all would write the same files.

    Raises
    ------
    ConfigError
        If there are several, and no crew.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1" and Crew.current().size == 1:
        raise ConfigError(
            f"fit: torchrun started {os.environ['WORLD_SIZE']} processes, which would all do the same job; call "
            "headstart.workflow.fit_together(source, config=...), or torchrun --nproc-per-node N -m headstart fit ..."
        )


def shared_out(carry_out: Tune) -> Tune:
    """Return a way to carry a recipe out in which every process of the crew takes part; the same one where there is no crew."""
    crew = Crew.current()
    if crew.size == 1:
        return carry_out

    def together(
        recipe: Recipe,
        rows: Dataset,
        judging: Dataset | None,
        shared: TuningRows,
        folder: Path | None,
        progress: Progress,
    ) -> Tuned:
        with crew.call() as world:
            world.hand_out(lambda: _order(recipe, rows, judging, shared, folder))
            return carry_out(recipe, rows, judging, shared, folder, progress)

    return together


def _order(recipe: Recipe, rows: Dataset, judging: Dataset | None, shared: TuningRows, folder: Path | None) -> Order:
    """Return what another process needs to carry out the same recipe."""
    tensors = {"rows": torch.tensor(rows.content()[1])}
    if judging is not None:
        tensors["judging"] = torch.tensor(judging.content()[1])
    if shared.solved is not None:
        tensors |= {f"solved.{name}": torch.from_numpy(array) for name, array in shared.solved.state().items()}
    return tensors, {
        "recipe": recipe.to_dict(),
        "backbone": shared.backbone.name,
        "weights": shared.backbone.weights_digest,
        "identity": rows_identity(rows),
        "solved": None if shared.solved is None else shared.solved.config(),
        "views": [asdict(view) for view in shared.views],
        "class_weight": shared.class_weight,
        "runtime": shared.runtime,
        "seed": shared.seed,
        "temperature": shared.temperature,
        "mix": shared.mix,
        "folder": None if folder is None else str(folder),
    }


class Helper:
    """Any process but the first: opens data and base models when they are first needed."""

    def __init__(self, source: Any, config: FitConfig, carry_out: Tune = tune) -> None:
        self.source, self.config, self.carry_out = source, config, carry_out
        self._train: Dataset | None = None
        self._opened: dict[str, Backbone] = {}

    def answer(self, crew: Crew) -> None:
        """Take part in a training; what it makes is the first process's to keep."""
        quiet = Progress(quiet=True)
        with crew.answer() as world:
            order = world.hand_out(lambda: None)
            assert order is not None
            tensors, told = order
            rows = self._rows(tensors["rows"])
            if rows_identity(rows) != told["identity"]:
                raise DataError("sees other rows or labels than the first process; give both the same files.")
            judging = self._rows(tensors["judging"]) if "judging" in tensors else None
            shared = self._shared(tensors, told)
            folder = None if told["folder"] is None else Path(told["folder"])
            self.carry_out(Recipe(**told["recipe"]), rows, judging, shared, folder, quiet)

    def _rows(self, places: Tensor) -> Dataset:
        if self._train is None:
            self._train = prepare(self.source, self.config, Progress(quiet=True)).train
        known = {place: number for number, place in enumerate(self._train.content()[1])}
        wanted = places.tolist()
        if not known.keys() >= set(wanted):
            raise DataError("does not see all rows that the first process sees; give both the same files.")
        return self._train.subset(np.array([known[place] for place in wanted]))

    def _shared(self, tensors: dict[str, Tensor], told: dict[str, Any]) -> TuningRows:
        arrays: dict[str, NDArray[Any]] = {
            name.removeprefix("solved."): tensor.numpy()
            for name, tensor in tensors.items()
            if name.startswith("solved.")
        }
        return TuningRows(
            self._backbone(told["backbone"], told["weights"]),
            None if told["solved"] is None else LinearHead.from_state(told["solved"], arrays),
            tuple(View(**view) for view in told["views"]),
            told["class_weight"],
            told["runtime"],
            told["seed"],
            None,
            told["temperature"],
            told["mix"],
        )

    def _backbone(self, name: str, weights: str) -> Backbone:
        """Return the base model of a name: among those asked for, or those at hand."""
        assert self._train is not None
        for candidate in self.config.backbones or candidate_names(self._train.modality):
            if candidate not in self._opened:
                self._opened[candidate] = open_backbone(candidate)
            found = self._opened[candidate]
            if found.name == name and found.weights_digest == weights:
                return found
        raise ConfigError(f"finds no base model {name} with the first process's weights; give both the same files.")
