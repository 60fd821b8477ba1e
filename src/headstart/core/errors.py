"""Every error a user can meet, in one tree.

    HeadstartError
    |-- DataError           rows, files, columns, labels
    |   |-- UnreadableRow   one row that cannot be decoded; collected, never fatal by itself
    |   `-- DomainError     two domains that an aligner or a measure cannot bring together
    |-- ShapeError          arrays that do not fit each other
    |-- BackboneError       a base model that cannot be found, built or filled with weights
    |   `-- OfflineError    weights that only a hub has, and no hub within reach
    |-- StoreError          the feature cache cannot be written or read
    |-- ModelError          a model folder that is damaged, incomplete or hostile
    |-- TrainingError       a training that breaks off: a loss that is not finite, a process that is gone
    |-- CheckpointError     a stopped training that cannot go on as it was
    |-- GoalError           a goal or budget that cannot be understood
    |-- ConfigError         an option or configuration value that breaks its rule
    `-- MissingExtra        an optional library that is not installed

A message says who refuses, the rule, what came, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = [
    "BackboneError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DomainError",
    "GoalError",
    "HeadstartError",
    "MissingExtra",
    "ModelError",
    "OfflineError",
    "ShapeError",
    "StoreError",
    "TrainingError",
    "UnreadableRow",
    "did_you_mean",
]


class HeadstartError(Exception):
    """Base of every error headstart raises on purpose; the command line prints it without a traceback."""


class DataError(HeadstartError):
    """Rows, files, columns or labels that break a rule."""


class UnreadableRow(DataError):
    """One row that cannot be decoded. The message says why; the caller adds it to the quarantine list."""


class DomainError(DataError, ValueError):
    """Two domains that an aligner or a measure cannot bring together: empty, of different widths, without overlap."""


class ShapeError(HeadstartError, ValueError):
    """Arrays whose shapes do not fit each other."""


class BackboneError(HeadstartError):
    """A base model that cannot be found, built, cut or filled with its weights."""


class OfflineError(BackboneError):
    """Weights that only a hub has, while no hub may or can be reached."""


class StoreError(HeadstartError):
    """The feature cache cannot be written or read."""


class ModelError(HeadstartError):
    """A model folder that is damaged, incomplete or hostile."""


class TrainingError(HeadstartError):
    """A training that breaks off: a loss that is not finite, a process that is gone.

    ``history`` is what was written down until then, where the training loop raised it.
    """

    history: Any = None


class CheckpointError(HeadstartError):
    """A stopped training that cannot go on: other data, weights or options than it began with, or nowhere to write."""


class GoalError(HeadstartError):
    """A goal or a budget that cannot be understood."""


class ConfigError(HeadstartError, ValueError):
    """An option or configuration value that breaks its rule."""


class MissingExtra(HeadstartError, ImportError):
    """An optional library is needed and not installed.

    Examples
    --------
    >>> print(MissingExtra("open_backbone", "transformers", "text"))
    open_backbone: needs the library 'transformers', which is not installed; run: pip install "headstart[text]"
    """

    def __init__(self, who: str, library: str, extra: str) -> None:
        super().__init__(
            f"{who}: needs the library '{library}', which is not installed; run: pip install \"headstart[{extra}]\""
        )
        self.library = library
        self.extra = extra


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known word, or an empty string.

    Examples
    --------
    >>> did_you_mean("lable", ["text", "label"])
    " Did you mean 'label'?"
    >>> did_you_mean(" label ", ["label"])
    " Did you mean 'label'?"
    >>> did_you_mean("zzz", ["text"])
    ''
    """
    folded: dict[str, str] = {}
    for name in known:
        folded.setdefault(name.strip().lower(), name)
    near = difflib.get_close_matches(word.strip().lower(), folded, n=1, cutoff=0.6)
    return f" Did you mean {folded[near[0]]!r}?" if near else ""
