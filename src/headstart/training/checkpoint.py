"""Checkpoints: a training that was stopped at any moment goes on from one, bit for bit.

    newest.safetensors      tensors, and in the header the rest of the state as JSON, who it belongs to, and a digest of it all
    previous.safetensors    the one before

A checkpoint is written beside, synced to disk, and takes the name at once; only then is there a newer one than before. Nothing is
pickled. What cannot be believed (truncated, flipped bits) is set aside and the previous one is used. A full disk costs a
checkpoint, not the training.
Use it for every training longer than a minute. It ignores who else reads the folder: one training owns it, others are refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from safetensors import SafetensorError
from torch import Tensor, nn

from headstart.core.digests import digest_array, digest_many
from headstart.core.errors import CheckpointError
from headstart.core.files import follow_umask
from headstart.core.version import VERSION
from headstart.data import Dataset
from headstart.features.locks import try_lock
from headstart.training.checkpoint_file import read_state, tensors_digest, write_state
from headstart.training.distributed import World

__all__ = ["Checkpoint", "network_identity", "rows_identity"]

State = tuple[dict[str, Tensor], dict[str, Any]]

_MOST_SHARE = 0.05  # of the time between two checkpoints may go into writing them
_LOCK_SECONDS = 5.0  # a killed process may need a moment to be gone


class Checkpoint:
    """The place a training is saved to, and what says when.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.
    every_seconds : float
        Wall-clock seconds between two checkpoints; more where writing one would take over 5 % of them.
    every_steps : int, optional
        Steps between two checkpoints, instead of seconds.
    identity : mapping
        What the training is of: nested JSON (data, backbone, config, network); the versions of headstart and of the libraries
        that compute are added. Going on with another is refused.
    say : callable, optional
        Gets one line for a person; printed to standard error when left out.
    world : World, optional
        The processes that train together, of which only the first writes; those that were joined, when left out.

    Raises
    ------
    CheckpointError
        When entered as a context: if the folder cannot be written, or another process trains in it.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> place = Path(tempfile.mkdtemp())
    >>> with Checkpoint(place, identity={"data": "a"}) as checkpoint:
    ...     checkpoint.load() is None, checkpoint.save({"weight": torch.ones(2)}, {"epoch": 1}, step=7)
    (True, True)
    >>> with Checkpoint(place, identity={"data": "a"}) as checkpoint:
    ...     checkpoint.load()
    ({'weight': tensor([1., 1.])}, {'epoch': 1})
    """

    def __init__(
        self,
        folder: Path,
        *,
        every_seconds: float = 60.0,
        every_steps: int | None = None,
        identity: Mapping[str, Any] | None = None,
        say: Callable[[str], None] | None = None,
        world: World | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.every_seconds, self.every_steps = every_seconds, every_steps
        versions = {"headstart": VERSION, "torch": metadata.version("torch"), "numpy": np.__version__}
        self.identity: dict[str, Any] = json.loads(json.dumps({**(identity or {}), "versions": versions}))
        self.world = world or World.current()
        self._say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        self._inside = contextlib.ExitStack()
        self._signal = 0
        self._last_step = 0
        self._last_time = time.monotonic()
        self._cost = 0.0
        self._failing = False

    @property
    def newest(self) -> Path:
        """File of the last checkpoint."""
        return self.folder / "newest.safetensors"

    @property
    def previous(self) -> Path:
        """File of the one before."""
        return self.folder / "previous.safetensors"

    @property
    def _writing(self) -> Path:
        return self.folder / "writing"

    def __enter__(self) -> Checkpoint:
        """Take the folder, and let Ctrl-C and SIGTERM end the training after a step instead of within one."""
        with contextlib.ExitStack() as stack:
            if self.world.first:
                self._take_folder(stack)
            stack.enter_context(_signals(self._on_signal, say=self.world.first))
            self._inside = stack.pop_all()
        self._last_time = time.monotonic()
        return self

    def __exit__(self, *exception: object) -> None:
        self._inside.close()

    def due(self, step: int) -> bool:
        """Return whether it is time to save: the interval has passed, or the training was asked to stop.

        Parameters
        ----------
        step : int
            Steps done, those before a resume included.
        """
        if self.stopping:
            return True
        if not self.world.first:
            return False
        if self.every_steps is not None:
            return step - self._last_step >= self.every_steps
        return time.monotonic() - self._last_time >= max(self.every_seconds, self._cost / _MOST_SHARE)

    @property
    def stopping(self) -> bool:
        """Whether Ctrl-C or SIGTERM came; of several processes, whether all know by now that one of them got it."""
        return bool(self._signal) if self.world.size == 1 else self.world.stopping

    def after_step(self, step: int, state: Callable[[], State]) -> None:
        """Save if it is `due`; where the training was asked to stop, say how to go on and stop it.

        Parameters
        ----------
        step : int
            Steps done.
        state : callable
            Gives the tensors and the JSON state; called only where needed.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C, once all is saved.
        SystemExit
            After SIGTERM, with status 143.
        """
        if not self.due(step):
            return
        stopping = self.stopping
        saved = self.world.first and self.save(*state(), step=step)
        if not stopping:
            return
        if self.world.first:
            where = f"saved in {self.folder}; run the same again to go on" if saved else "the state could not be saved"
            self._say(f"training stopped after step {step:,}: {where}")
        if self._signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt(f"training stopped after step {step:,}")

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, step: int) -> bool:
        """Write a checkpoint; the one before stays beside it. Returns whether it was written.

        A disk that refuses is said once, and nothing is lost but this checkpoint.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            Any dtype, device and memory layout; layouts are kept.
        state : mapping
            JSON; NaN and infinity may occur.
        step : int
            Steps done.
        """
        if not self.world.first:
            return False
        started = time.monotonic()
        try:
            # in a folder of its own: safetensors writes to a temporary name there, which a kill would leave behind
            written = self._writing / "checkpoint.safetensors"
            self._writing.mkdir(parents=True, exist_ok=True)
            write_state(written, tensors, {"state": dict(state), "identity": self.identity, "step": step})
            follow_umask(written)
            _sync(written)  # the whole new one lies on disk; from here on, renaming is all that happens
            if self.newest.exists():
                self.newest.replace(self.previous)
            written.replace(self.newest)
            _sync(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(self._writing, ignore_errors=True)
            if not self._failing:
                reason = getattr(error, "strerror", None) or error
                self._say(
                    f"checkpoint of step {step:,} not written to {self.folder}: {reason}; training goes on, the last one stays"
                )
            self._failing = True
            return False
        else:
            if self._failing:
                self._say(f"checkpoint written again, of step {step:,}")
            self._failing = False
            return True
        finally:
            self._last_step, self._last_time = step, time.monotonic()
            self._cost = self._last_time - started

    def load(self) -> State | None:
        """Return the state of the last good checkpoint of this training, None where there is none.

        Several processes that train together all get what the first one read.

        Raises
        ------
        CheckpointError
            If it belongs to another training (says what changed), or was written by a newer headstart.
        """
        return self.world.hand_out(self._load)

    def _load(self) -> State | None:
        for path in (self.newest, self.previous):
            if not path.exists():
                continue
            try:
                tensors, header = read_state(path)
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
                aside = path.with_name(f"damaged-{path.name}")
                with contextlib.suppress(OSError):
                    path.replace(aside)
                self._say(
                    f"checkpoint {path} is damaged ({error}) and set aside as {aside.name}; {self._instead(path)}"
                )
                continue
            self._check_identity(header["identity"])
            self._last_step, self._last_time = header["step"], time.monotonic()
            return tensors, header["state"]
        return None

    def clear(self) -> None:
        """Remove the checkpoints, and the folder if nothing else is in it; for when the training's result is kept."""
        if not self.world.first:
            return
        for path in (self.newest, self.previous, *self.folder.glob("damaged-*"), self.folder / ".lock"):
            path.unlink(missing_ok=True)
        shutil.rmtree(self._writing, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _instead(self, damaged: Path) -> str:
        if damaged == self.newest and self.previous.exists():
            return "the one before it is used"
        return "no other is left: training begins anew"

    def _check_identity(self, stored: dict[str, Any]) -> None:
        changes = list(_changes(stored, self.identity))
        if changes:
            raise CheckpointError(
                f"checkpoint: {self.folder} belongs to another training: {'; '.join(changes)}; "
                "go on with what it began with, or remove the folder to begin anew."
            )

    def _take_folder(self, stack: contextlib.ExitStack) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            until = time.monotonic() + _LOCK_SECONDS
            while not stack.enter_context(try_lock(self.folder / ".lock")):
                if time.monotonic() > until:
                    raise CheckpointError(
                        f"checkpoint: one training at a time may use {self.folder}, and another process does; "
                        "wait for it, or choose another folder."
                    )
                time.sleep(0.05)
            if self._writing.exists():  # left by a kill
                shutil.rmtree(self._writing)
        except OSError as error:
            raise CheckpointError(
                f"checkpoint: {self.folder} cannot be written: {error.strerror or error}; choose another folder."
            ) from error

    def _on_signal(self, number: int) -> None:
        self._signal = number
        self.world.stop_requested = True


def rows_identity(rows: Dataset) -> dict[str, Any]:
    """Return what says that two data sets hold the same rows and labels in the same order, for `Checkpoint.identity`.

    Examples
    --------
    >>> from headstart.data.rows import TextRows
    >>> rows_identity(Dataset(TextRows(["good", "bad"]), ids=["a", "b"]))["num_rows"]
    2
    """
    identity: dict[str, Any] = {"num_rows": len(rows), "rows": digest_many(rows.digests())}
    if rows.task is not None and rows.targets is not None:
        identity |= {"labels": digest_array(np.asarray(rows.targets)), "classes": digest_many(list(rows.task.classes))}
    return identity


def network_identity(network: nn.Module) -> dict[str, Any]:
    """Return what says that two networks are built alike and hold the same numbers, for `Checkpoint.identity`.

    To be taken before the first step.

    Examples
    --------
    >>> network = nn.Linear(2, 1)
    >>> before = network_identity(network)
    >>> _ = nn.init.zeros_(network.weight)
    >>> after = network_identity(network)
    >>> before["parts"] == after["parts"], before["weights"] == after["weights"]
    (True, False)
    """
    parts = [f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in network.state_dict().items()]
    return {"parts": digest_many(parts), "weights": tensors_digest(network.state_dict())}


@contextlib.contextmanager
def _signals(handle: Callable[[int], None], say: bool) -> Iterator[None]:
    """Give the first SIGINT or SIGTERM to ``handle``; a second SIGINT breaks off at once. Only the main thread may do so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def caught(number: int, frame: FrameType | None) -> None:
        handle(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if say and number == signal.SIGINT:  # not print: the signal may have come in the middle of one
            os.write(2, b"\nstopping after this step; Ctrl-C again stops at once, without saving\n")

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, caught)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _changes(was: Any, is_now: Any, name: str = "") -> Iterator[str]:
    """Yield what differs between two nested JSON values, one line a leaf.

    Examples
    --------
    >>> list(_changes({"config": {"seed": 0, "rate": 0.1}}, {"config": {"seed": 1, "rate": 0.1}}))
    ['config.seed was 0, is 1']
    """
    if isinstance(was, dict) and isinstance(is_now, dict):
        for key in [*was, *(key for key in is_now if key not in was)]:
            place = f"{name}.{key}" if name else key
            if key not in was or key not in is_now:
                yield f"{place} was {_short(was.get(key))}, is {_short(is_now.get(key))}"
            else:
                yield from _changes(was[key], is_now[key], place)
    elif json.dumps(was) != json.dumps(is_now):  # as text, so that NaN equals itself
        yield f"{name} was {_short(was)}, is {_short(is_now)}"


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) >= 32 and set(value) <= set("0123456789abcdef"):
        return value[:12]
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, lie on disk; not every platform syncs folders."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(handle)
    finally:
        os.close(handle)
