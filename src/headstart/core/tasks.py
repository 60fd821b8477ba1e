"""What a label means: one class of several, several classes at once, or a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from headstart.core.errors import DataError

__all__ = ["Modality", "Task", "TaskKind"]

TaskKind = Literal["classification", "multilabel", "regression"]
Modality = Literal["image", "text", "vector"]


@dataclass(frozen=True)
class Task:
    """The kind of target, and the class names in the order every model of this data set keeps.

    Parameters
    ----------
    kind : {"classification", "multilabel", "regression"}
        Targets are int64 class indices (n,), uint8 indicators (n, k), or float64 numbers (n,).
    classes : tuple of str
        Class names as text, in model order; empty for regression.
    target_name : str
        The label column, or ``"label"`` where there is none.

    Examples
    --------
    >>> Task("classification", ("ants", "bees")).num_outputs
    2
    >>> Task("regression").num_outputs
    1
    """

    kind: TaskKind
    classes: tuple[str, ...] = ()
    target_name: str = "label"

    def __post_init__(self) -> None:
        if self.kind == "regression" and self.classes:
            raise DataError("Task: a regression task has no classes; leave `classes` empty.")
        if len(set(self.classes)) != len(self.classes):
            raise DataError("Task: class names must differ; merge the classes that share a name.")

    @property
    def num_outputs(self) -> int:
        """Number of outputs a head needs: the number of classes, or 1 for regression."""
        return 1 if self.kind == "regression" else len(self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value that `from_dict` reads back."""
        return {"kind": self.kind, "classes": list(self.classes), "target_name": self.target_name}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Task:
        """Return the task that `to_dict` wrote down."""
        return cls(value["kind"], tuple(value["classes"]), value.get("target_name", "label"))
