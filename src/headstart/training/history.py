"""What happened in a training, one entry a check: enough to draw its curves and to say why it ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

__all__ = ["History"]


@dataclass
class History:
    """Losses, measures and rates, one entry a check (at the end of an epoch; under a time budget, less often).

    The measure is accuracy, the mean per-class accuracy of multi-label rows, or R2; that of training rows is taken while they
    train, on the batches as they were trained on.

    Attributes
    ----------
    train_loss, train_measure : list of float
        Mean of the steps since the last check. The loss is the sum of all phases' losses.
    validation_loss, validation_measure : list of float
        Empty without validation rows.
    losses : dict of str to list of float
        Mean of every objective, by ``"phase.Objective"``.
    rates : list of float
        Learning rate at the check, before the groups' own factors.
    check_epochs : list of float
        Epochs done at the check.
    steps : int
        Optimiser steps of the first phase.
    epochs : float
        Passes over the rows.
    cpu_seconds : float
        Spent in steps.
    best : int
        The check whose weights were the best, -1 without validation rows.
    stopped : str
        ``"budget"``, ``"patience"``, ``"epochs"``, or ``"error"``.
    notes : list of str
        What a person should know.
    precision : str
        ``"fp32"``, ``"bf16"`` or ``"fp16"``.
    frozen_digest : str
        Digest of all that must not change, the same before and after; empty where nothing was frozen.
    batch_size : int
        Rows a step.
    kept : str
        Which weights the network has now: ``"best"``, ``"last"`` or ``"average"``.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    train_measure: list[float] = field(default_factory=list)
    validation_measure: list[float] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    check_epochs: list[float] = field(default_factory=list)
    steps: int = 0
    epochs: float = 0.0
    cpu_seconds: float = 0.0
    best: int = -1
    stopped: str = "epochs"
    notes: list[str] = field(default_factory=list)
    precision: str = "fp32"
    frozen_digest: str = ""
    batch_size: int = 0
    kept: str = "last"

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value.

        Examples
        --------
        >>> History.from_dict(History(steps=3).to_dict()).steps
        3
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> History:
        """Return the history that `to_dict` wrote down; what it does not know is left out."""
        known = {item.name for item in fields(cls)}
        return cls(**{name: item for name, item in value.items() if name in known})
