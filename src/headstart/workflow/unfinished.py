"""What a run that has not ended keeps in its folder, so that the same command goes on after it was killed.

    unfinished/run.json          the command, digests of the rows, seconds spent so far
    unfinished/RUNG/recipe.json  what the rung began with
    unfinished/RUNG/...          checkpoints of its training
    unfinished/RUNG/done.json    its curves, cost, and digest; beside scores.npy and model/

Solved heads and features need nothing here: the cache has them. The folder goes when the run is finished. A folder that cannot
be written costs the chance to go on, not the run.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core.digests import digest_array, digest_json, digest_many
from headstart.core.errors import CheckpointError, HeadstartError
from headstart.core.files import atomic_path, write_json
from headstart.core.progress import Progress
from headstart.data import Dataset
from headstart.model import load_model, save_model
from headstart.workflow.recipes import Recipe, Tuned

if TYPE_CHECKING:
    from headstart.backbones import Backbone

__all__ = ["Done", "Key", "Unfinished", "is_unfinished"]

FOLDER = "unfinished"


@dataclass(frozen=True)
class Key:
    """A rung's name, and the digest of all that determines its result."""

    name: str
    digest: str


@dataclass(frozen=True)
class Done:
    """A finished recipe; ``costs`` are CPU and wall-clock seconds where it was finished in an earlier process."""

    tuned: Tuned
    costs: tuple[float, float] | None = None


def is_unfinished(run: Path, command: dict[str, Any] | None = None) -> bool:
    """Return whether a folder holds a run that was broken off; of this very command, where one is given."""
    stored = _read(run / FOLDER / "run.json")
    return stored is not None and (command is None or stored.get("command") == command)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


@dataclass
class Unfinished:
    """The work of one run.

    Parameters
    ----------
    run : Path, optional
        The run's folder; None keeps nothing.
    command : dict
        What was asked for, as JSON: the rows' place and every option.
    progress : Progress
        Where lines go.
    """

    run: Path | None
    command: dict[str, Any]
    progress: Progress = field(default_factory=lambda: Progress(quiet=True))
    _begun: dict[str, Any] = field(default_factory=dict, repr=False)

    def begin(self, rows: Dataset) -> tuple[float, float]:
        """Take up the work, and return the wall-clock and CPU seconds that were spent on it before.

        Raises
        ------
        CheckpointError
            If the rows are others than those the run was begun with.
        """
        if self.run is None:
            return 0.0, 0.0
        assert rows.targets is not None
        here = {
            "rows": len(rows),
            "content": digest_many(rows.digests()),
            "labels": digest_array(rows.targets),
        }
        stored = _read(self.run / FOLDER / "run.json")
        if stored is not None and stored.get("command") == self.command:
            _refuse_other_rows(self.run, stored.get("data", {}), here)
            self.progress.say(f"going on with the run that was begun in {self.run}")
            self._begun = here
            return float(stored.get("seconds", 0.0)), float(stored.get("cpu_seconds", 0.0))
        self.clear()
        self._begun = here
        self.spent(0.0, 0.0)
        return 0.0, 0.0

    def spent(self, seconds: float, cpu_seconds: float) -> None:
        """Write down the wall-clock and CPU seconds spent so far; before `begin` there is nothing to write about."""
        if self._begun:
            about = {"command": self.command, "data": self._begun, "seconds": seconds, "cpu_seconds": cpu_seconds}
            self._write("run.json", about)

    def recipe_begun(self, name: str, recipe: Recipe) -> Recipe:
        """Return the recipe a rung was begun with in an earlier process, else the one given, which is written down.

        A budget shortens a recipe, and what is left of it differs after a restart; the training must not.
        """
        if self.run is None:
            return recipe
        stored = _read(self.run / FOLDER / name / "recipe.json")
        if stored is not None and set(stored) == {item.name for item in fields(Recipe)}:
            return Recipe(**stored)
        self._write(f"{name}/recipe.json", recipe.to_dict())
        return recipe

    def key(self, name: str, recipe: Recipe, backbone: Backbone, learning: Dataset) -> Key:
        """Return what names a rung's result."""
        if self.run is None:
            return Key(name, "")
        assert learning.targets is not None
        parts = {
            "recipe": recipe.to_dict(),
            "backbone": backbone.weights_digest,
            "learning": digest_many(learning.digests()),
            "targets": digest_array(learning.targets),
        }
        return Key(name, digest_json(parts))

    def folder(self, key: Key | str) -> Path | None:
        """Return where a rung's checkpoints lie."""
        return (
            None if self.run is None else self.run / FOLDER / (key if isinstance(key, str) else key.name) / "checkpoint"
        )

    def recall(self, key: Key) -> Done | None:
        """Return a rung that was finished before, None where there is none or it cannot be read."""
        if self.run is None:
            return None
        place = self.run / FOLDER / key.name
        stored = _read(place / "done.json")
        if stored is None or stored.get("digest") != key.digest:
            return None
        try:
            from headstart.training import History

            history = None if stored["history"] is None else History(**stored["history"])
            scores = np.load(place / "scores.npy", allow_pickle=False)
            tuned = Tuned(load_model(place / "model"), scores, history, tuple(stored["notes"]), stored["mix"])
            costs = (float(stored["cpu_seconds"]), float(stored["wall_seconds"]))
        except (OSError, ValueError, KeyError, TypeError, HeadstartError):
            return None
        self.progress.say(f"{key.name}: finished before, read back from {place}")
        return Done(tuned, costs)

    def remember(self, key: Key, tuned: Tuned, cpu_seconds: float, wall_seconds: float) -> Done:
        """Write a finished rung down and let its checkpoints go."""
        if self.run is None or tuned.scores is None:
            return Done(tuned)
        place = self.run / FOLDER / key.name
        try:
            save_model(tuned.model, place / "model")
            with atomic_path(place / "scores.npy") as temporary, temporary.open("wb") as stream:
                np.save(stream, tuned.scores, allow_pickle=False)
            about = {
                "digest": key.digest,
                "history": None if tuned.history is None else asdict(tuned.history),
                "notes": list(tuned.notes),
                "mix": tuned.mix,
                "cpu_seconds": cpu_seconds,
                "wall_seconds": wall_seconds,
            }
            write_json(place / "done.json", about)
        except (OSError, ValueError, HeadstartError) as error:
            self.progress.say(f"{key.name}: could not be written down ({error}); a restart would train it again")
            return Done(tuned)
        shutil.rmtree(place / "checkpoint", ignore_errors=True)
        return Done(tuned)

    def tries(self) -> list[dict[str, Any]]:
        """Return the tries of a search that were finished before."""
        stored = None if self.run is None else _read(self.run / FOLDER / "search" / "tries.json")
        return [] if stored is None else [item for item in stored.get("tries", []) if isinstance(item, dict)]

    def write_tries(self, tries: list[dict[str, Any]]) -> None:
        """Write the tries of a search down."""
        self._write("search/tries.json", {"tries": tries})

    def drop(self, name: str) -> None:
        """Remove what one rung or try has kept."""
        if self.run is not None:
            shutil.rmtree(self.run / FOLDER / name, ignore_errors=True)

    def clear(self) -> None:
        """Remove all of it."""
        if self.run is not None:
            shutil.rmtree(self.run / FOLDER, ignore_errors=True)

    def _write(self, name: str, value: dict[str, Any]) -> None:
        if self.run is None:
            return
        try:
            write_json(self.run / FOLDER / name, value)
        except OSError as error:
            self.progress.say(f"the run folder cannot be written ({error}); a restart would begin anew")


def _refuse_other_rows(run: Path, stored: dict[str, Any], here: dict[str, Any]) -> None:
    changed = []
    if stored.get("rows") != here["rows"]:
        changed.append(f"{stored.get('rows'):,} training rows then, {here['rows']:,} now")
    elif stored.get("content") != here["content"]:
        changed.append("the content or the order of training rows")
    if stored.get("labels") != here["labels"]:
        changed.append("their labels")
    if changed:
        raise CheckpointError(
            f"fit: the run in {run} was begun with other rows and cannot go on; changed: {', '.join(changed)}. "
            f"Choose another --out, or remove {run / FOLDER}."
        )
