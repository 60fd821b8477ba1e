"""What every head answers, however it was found: raw scores become classes, labels, numbers and calibrated probabilities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from headstart.core.errors import ConfigError
from headstart.core.tasks import Task
from headstart.heads.temperature import to_probabilities

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Head"]

Array = npt.NDArray[Any]


class Head(ABC):
    """Scores of features, and what they mean.

    Attributes
    ----------
    task : Task
    temperature : float
        Scores are divided by it before they become probabilities; 1 for regression.
    validation_predictions : ndarray of shape (n, k) or (n,), or None
        Of the training rows, each made without that row: probabilities, or numbers for regression. None where there
        are none.
    report : dict
        How it was found, as a JSON value.
    """

    kind: ClassVar[str]

    task: Task
    temperature: float
    validation_predictions: Array | None
    report: dict[str, Any]

    @abstractmethod
    def decision(self, features_nd: Array) -> Array:
        """Return raw scores, shape (n, k); for regression (n, 1), the predicted numbers."""

    @abstractmethod
    def to_module(self) -> nn.Module:
        """Return a torch module whose outputs, after a softmax (or sigmoid), are this head's answers."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return a JSON value from which the head is rebuilt, given `state`."""

    @abstractmethod
    def state(self) -> dict[str, Array]:
        """Return the learned arrays by name."""

    def predict_proba(self, features_nd: Array) -> Array:
        """Return calibrated probabilities, shape (n, k): rows add up to 1, or each label has its own."""
        if self.task.kind == "regression":
            raise ConfigError("predict_proba: a regression head has no probabilities; call predict.")
        return to_probabilities(self.task, self.decision(features_nd), self.temperature)

    def open_probabilities(self, features_nd: Array) -> Array | None:
        """Return probabilities (n, k + 1) with a last one for rows of no class; None for a head that knows no such rows."""
        del features_nd
        return None

    def predict(self, features_nd: Array) -> Array:
        """Return class numbers (n,) int64, indicators (n, k) uint8, or numbers (n,) float64, as the task says."""
        scores = self.decision(features_nd)
        if self.task.kind == "regression":
            return np.asarray(scores[:, 0], dtype=np.float64)
        if self.task.kind == "multilabel":
            return (scores > 0).astype(np.uint8)
        return np.asarray(scores.argmax(axis=1), dtype=np.int64)

    def predict_scores(self, features_nd: Array) -> Array:
        """Return what metrics take: probabilities (n, k), or numbers (n,) for regression."""
        return self.predict(features_nd) if self.task.kind == "regression" else self.predict_proba(features_nd)
