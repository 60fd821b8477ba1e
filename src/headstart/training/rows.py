"""What the loop trains on: network inputs by row number, their targets, and which of them a purpose may use.

Shapes: b rows of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from headstart.core.errors import DataError, ShapeError
from headstart.core.tasks import Task

__all__ = ["Rows", "TrainingRows", "absent_classes", "check_rows"]


class Rows(Protocol):
    """Network inputs by row number: raw rows (`InputRows`), or activations that were computed before."""

    @property
    def num_views(self) -> int:
        """How many fixed views a row has; 1 where there is only the plain one, or views are drawn freely."""
        ...

    def __len__(self) -> int: ...

    def batch(self, indices: NDArray[np.int64], draws: NDArray[np.uint64] | None = None) -> tuple[Tensor, ...]:
        """Return the network's arguments for some rows.

        Parameters
        ----------
        indices : int64 array of shape (b,)
            Row numbers.
        draws : uint64 array of shape (b,), optional
            One random number a row, which chooses its view: fixed views by ``draw % num_views``. The plain view when left out
            (validation, prediction).
        """
        ...

    def close(self) -> None:
        """Let go of threads and memory."""
        ...


@dataclass(frozen=True)
class TrainingRows:
    """Inputs, their targets, and which of them this purpose may use.

    Parameters
    ----------
    inputs : Rows
        Where inputs come from.
    targets : array of shape (len(inputs),) or (len(inputs), k), optional
        In the task's own type; ``None`` for rows without labels.
    indices : int64 array
        Row numbers; all when left out.
    domains : int64 array of shape (len(inputs),), optional
        Number of the domain of each row, from 0 on; all of one domain when left out.

    Raises
    ------
    DataError
        If a row number does not exist, or domains are not numbered from 0 on.
    ShapeError
        If there is not one target, or domain, for each row of ``inputs``.
    """

    inputs: Rows
    targets: NDArray[Any] | None
    indices: NDArray[np.int64] = None  # type: ignore[assignment]  # all rows; filled below
    domains: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        num_rows = len(self.inputs)
        indices = np.arange(num_rows) if self.indices is None else np.asarray(self.indices, np.int64)
        object.__setattr__(self, "indices", indices)
        if self.targets is not None and len(self.targets) != num_rows:
            raise ShapeError(
                f"TrainingRows: targets has {len(self.targets)} entries for {num_rows} rows; give one for each row."
            )
        if self.domains is not None:
            object.__setattr__(self, "domains", np.asarray(self.domains, np.int64))
            if len(self.domains) != num_rows:
                raise ShapeError(
                    f"TrainingRows: domains has {len(self.domains)} entries for {num_rows} rows; give one for each row."
                )
            if num_rows and self.domains.min() < 0:
                raise DataError(f"TrainingRows: domains are numbered from 0 on; got {self.domains.min()}.")
        if len(indices) and not (indices.min() >= 0 and indices.max() < num_rows):
            raise DataError(
                f"TrainingRows: row numbers lie in 0..{num_rows - 1}; got {indices.min()} to {indices.max()}."
            )

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def chosen(self) -> NDArray[Any] | None:
        """Targets of the rows this purpose may use, in their order."""
        return None if self.targets is None else self.targets[self.indices]

    @property
    def chosen_domains(self) -> NDArray[np.int64]:
        """Domain of each row this purpose may use, in their order; 0 where nobody said."""
        return np.zeros(len(self), np.int64) if self.domains is None else self.domains[self.indices]

    def name(self, index: int) -> str:
        """Return what a person finds a row by."""
        ids = getattr(getattr(self.inputs, "dataset", None), "ids", None)
        return f"row {index + 1}" if ids is None else str(ids[index])


def check_rows(task: Task, training: TrainingRows, validation: TrainingRows | None, labelled: bool) -> list[str]:
    """Refuse rows that nothing can be learned from, and return what a person should know about the others.

    Parameters
    ----------
    task : Task
        What targets mean.
    training, validation : TrainingRows
        Rows to learn from, and to choose weights by.
    labelled : bool
        Whether learning needs labels.

    Raises
    ------
    DataError
        If there are no rows, no labels where they are needed, or labels of one class only.
    """
    if not len(training):
        raise DataError("train: there are no rows to learn from; give at least one.")
    if validation is not None and (not len(validation) or validation.targets is None):
        raise DataError("train: validation rows need to exist and to have labels; leave them out instead.")
    targets = training.chosen
    if targets is None:
        if labelled:
            raise DataError("train: the rows to learn from have no labels; give those without as the second stream.")
        return []
    if task.kind == "regression":
        return []
    if task.kind == "multilabel":
        return absent_classes(task, targets.astype(np.int64).sum(0))
    if targets.min() < 0 or targets.max() >= task.num_outputs:
        raise DataError(
            f"train: class numbers lie in 0..{task.num_outputs - 1}; got {targets.min()} to {targets.max()}."
        )
    counts = np.bincount(targets.astype(np.int64), minlength=task.num_outputs)
    if (counts > 0).sum() < 2:
        raise DataError("train: needs rows of at least two classes to tell apart; add rows of another class.")
    return absent_classes(task, counts)


def absent_classes(task: Task, counts: NDArray[np.int64]) -> list[str]:
    """Return what to say of classes that no training row has; nothing where there is none.

    Examples
    --------
    >>> absent_classes(Task("classification", ("a", "b", "c")), np.array([3, 0, 2]))
    ['no training row has the class b: it cannot be learned and will not be predicted']
    """
    absent = [name for name, count in zip(task.classes, counts, strict=True) if not count]
    if not absent:
        return []
    shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
    return [f"no training row has the class {shown}: it cannot be learned and will not be predicted"]
