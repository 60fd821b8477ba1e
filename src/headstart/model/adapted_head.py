"""The head of an adapted model: features on one scale, then the estimator that learnt from both domains.

    features of target rows -> FeatureScale -> estimator of headstart.alignment -> probabilities, or numbers

The estimator's own probabilities are the answers; without target labels there is nothing to calibrate them by.
Shapes: n rows, d features, k classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from headstart.core.checks import check_matrix
from headstart.core.errors import ConfigError, ModelError
from headstart.core.tasks import Task
from headstart.features.scale import FeatureScale
from headstart.heads import Head

if TYPE_CHECKING:
    from torch import nn

__all__ = ["AdaptedHead"]

Array = npt.NDArray[Any]

_LEAST = 1e-300


class AdaptedHead(Head):
    """A fitted estimator of `headstart.alignment` as the head of a model for the target.

    Parameters
    ----------
    estimator : fitted estimator
        Takes features on the scale; numbers its classes 0 to k-1, as the task orders them.
    scale : FeatureScale
        What both domains' features were brought on before it learnt.
    task : Task
        What the answers mean: classification or regression.

    Raises
    ------
    ConfigError
        If the estimator answers for other classes than the task's.

    Examples
    --------
    >>> from headstart.alignment import AdaptedClassifier
    >>> source, target = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([[-1.0], [1.0]])
    >>> fitted = AdaptedClassifier().fit(source, [0, 0, 1, 1], target)
    >>> head = AdaptedHead(fitted, FeatureScale.standardising(source), Task("classification", ("ant", "bee")))
    >>> head.predict(np.array([[-3.0], [3.0]])).tolist()
    [0, 1]
    """

    kind: ClassVar[str] = "adapted"

    def __init__(self, estimator: Any, scale: FeatureScale, task: Task) -> None:
        if task.kind == "multilabel":
            raise ConfigError("AdaptedHead: one class or one number a row; several labels at once are not adapted.")
        classes = np.asarray(getattr(estimator, "classes_", ()))
        if task.kind == "classification" and not np.array_equal(classes, np.arange(len(task.classes))):
            raise ConfigError(
                f"AdaptedHead: the estimator must number the task's {len(task.classes)} classes 0, 1, ...; "
                f"its classes are {classes[:5].tolist()}."
            )
        self.estimator, self.scale, self.task = estimator, scale, task
        self.temperature = 1.0
        self.validation_predictions = None
        self.report: dict[str, Any] = {"head": self.kind}

    def decision(self, features_nd: Array) -> Array:
        """Return logarithms of the probabilities, shape (n, k); for regression (n, 1), the predicted numbers."""
        if self.task.kind == "regression":
            return self._answers(self.estimator.predict, features_nd).reshape(-1, 1)
        return np.log(np.maximum(self._answers(self.estimator.predict_proba, features_nd), _LEAST))

    def predict_proba(self, features_nd: Array) -> Array:
        """Return the estimator's probabilities, shape (n, k), as they are."""
        if self.task.kind == "regression":
            return super().predict_proba(features_nd)
        return self._answers(self.estimator.predict_proba, features_nd)

    def _answers(self, ask: Callable[[Any], Any], features_nd: Array) -> npt.NDArray[np.float64]:
        """Return answers for all rows at once: some estimators let the rows asked together speak for each other."""
        features = np.asarray(features_nd, dtype=np.float32)
        check_matrix("AdaptedHead", "features", features, min_rows=0)
        if not len(features):
            return np.zeros((0, self.task.num_outputs))
        return np.asarray(ask(self.scale(features)), dtype=np.float64)

    def config(self) -> dict[str, Any]:
        """Refuse: not written yet."""
        raise ModelError(
            "AdaptedHead: an adapted estimator cannot be written to a folder yet; predict with it in memory."
        )

    def state(self) -> dict[str, Array]:
        """Refuse: not written yet."""
        raise ModelError(
            "AdaptedHead: an adapted estimator cannot be written to a folder yet; predict with it in memory."
        )

    def to_module(self) -> nn.Module:
        """Refuse: the estimator is no network."""
        raise ConfigError(
            f"AdaptedHead: {type(self.estimator).__name__} is no torch network, so it can neither be fine-tuned nor exported; "
            "predict with the model as it is, or adapt with a method that trains a network."
        )
