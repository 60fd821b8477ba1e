"""A crew: one process does the whole job, and calls the others that torchrun started in for its trainings.

    first process                                     every other
    read, solve heads, judge, write ...               wait for a call, at no cost
    call number N: join group N, say what to train    join group N, hear what to train
    train, as each other step for step                train, and forget the result
    ...                                               wait for call N + 1
    dismiss                                           end

Decisions that look at the clock, files and prints are so made in one place, and need no agreement. Every call has a process group
of its own: whoever leaves it by an error closes it, which ends the step the others wait in, and all are ready for the next call.
Calls go through torchrun's own key-value store, where waiting has no end; only steps have a time limit.
Use it for a job that is more than one training (`headstart.workflow.fit_together`); for a single one, `World.joined` will do.
It ignores the fastest way between GPUs: gradients travel by gloo, which one process alone can close; NCCL cannot be left so.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from headstart.core.errors import HeadstartError, TrainingError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

    from headstart.training.distributed import World

__all__ = ["Crew"]

_LOOK_SECONDS = 0.05  # between two looks for a call
_STEP_SECONDS = 1800.0  # how long a step, or joining a group, waits for the others
_END_SECONDS = 60.0  # how long the first process waits for the others to be through with a call


class Crew:
    """The processes that torchrun started, seen from one of them; alone, every method is free.

    Parameters
    ----------
    rank : int
        Which process this is, from 0.
    size : int
        How many there are.
    store : Store, optional
        Where calls are written; none where there is one process.

    Examples
    --------
    >>> with Crew.assembled() as crew:
    ...     crew.first, crew.size, list(crew.calls())
    (True, 1, [])
    """

    def __init__(self, rank: int = 0, size: int = 1, store: Store | None = None) -> None:
        self.rank, self.size, self._store = rank, size, store
        self._number = 0

    @property
    def first(self) -> bool:
        """Whether this process does the job."""
        return self.rank == 0

    @classmethod
    def current(cls) -> Crew:
        """Return the crew that was assembled, or this process alone."""
        return _assembled[-1] if _assembled else cls()

    @classmethod
    @contextlib.contextmanager
    def assembled(cls) -> Iterator[Crew]:
        """Meet the processes that torchrun started; at the end the first one dismisses the others.

        Raises
        ------
        TrainingError
            If their store cannot be reached.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            yield cls()
            return
        import torch
        from torch.distributed.rendezvous import rendezvous

        local = int(os.environ.get("LOCAL_RANK", "0"))
        if torch.cuda.is_available() and torch.cuda.device_count() > local:
            torch.cuda.set_device(local)
        try:
            store, rank, size = next(rendezvous("env://", timeout=timedelta(seconds=_STEP_SECONDS)))
        except (RuntimeError, ValueError) as error:
            raise TrainingError(
                f"train: the other processes cannot be reached ({error}); start all with torchrun."
            ) from error
        _assembled.append(cls(rank, size, store))
        try:
            yield _assembled[-1]
        finally:
            _assembled.pop().dismiss()

    @contextlib.contextmanager
    def call(self) -> Iterator[World]:
        """Call the others in (the first process); within, all trainings are of all processes.

        Raises
        ------
        TrainingError
            If another process failed, with what it said.
        """
        from headstart.training.distributed import OthersGone, World

        if self.size == 1:
            yield World.current()
            return
        assert self._store is not None
        self._number += 1
        self._store.set(f"call/{self._number}", "train")
        try:
            with self._group() as world:
                yield world
                self._wait_for_ends()
        except OthersGone as error:
            said = self._reports()
            if said:
                raise TrainingError(f"train: {'; '.join(said)}") from error
            raise

    def calls(self) -> Iterator[int]:
        """Yield the number of each call (every process but the first), until the first one dismisses this one."""
        while not self.first:
            assert self._store is not None
            self._number += 1
            while not self._store.check([f"call/{self._number}"]):
                time.sleep(_LOOK_SECONDS)
            if self._store.get(f"call/{self._number}") == b"end":
                return
            yield self._number

    @contextlib.contextmanager
    def answer(self) -> Iterator[World]:
        """Take part in the last call (every process but the first); an error is told to the first, and this process lives on."""
        from headstart.training.distributed import OthersGone

        assert self._store is not None
        with contextlib.suppress(HeadstartError), self._group() as world:
            try:
                yield world
                self._store.set(f"through/{self._number}/{self.rank}", "")
            except OthersGone:
                raise  # not this process's own error
            except HeadstartError as error:
                self._store.set(f"failed/{self._number}/{self.rank}", str(error))
                raise

    def dismiss(self) -> None:
        """Let the others end (the first process)."""
        if self.first and self._store is not None:
            self._number += 1
            with contextlib.suppress(RuntimeError):
                self._store.set(f"call/{self._number}", "end")

    def _group(self) -> contextlib.AbstractContextManager[World]:
        from torch.distributed.distributed_c10d import PrefixStore

        from headstart.training.distributed import World

        assert self._store is not None
        store = PrefixStore(f"group/{self._number}", self._store)
        return World.joined(cuda=False, timeout_seconds=_STEP_SECONDS, store=store)

    def _wait_for_ends(self) -> None:
        """Wait until the others are through, so that no step of theirs still looks for this process."""
        assert self._store is not None
        keys = [f"through/{self._number}/{rank}" for rank in range(1, self.size)]
        with contextlib.suppress(RuntimeError):
            self._store.wait(keys, timedelta(seconds=_END_SECONDS))

    def _reports(self) -> list[str]:
        assert self._store is not None
        keys = {rank: f"failed/{self._number}/{rank}" for rank in range(1, self.size)}
        return [
            f"process {rank}: {self._store.get(key).decode()}" for rank, key in keys.items() if self._store.check([key])
        ]


_assembled: list[Crew] = []
