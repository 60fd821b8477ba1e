"""The head of an adapted model: features on one scale, then the estimator that learnt from both domains.

    features of target rows -> FeatureScale -> estimator of headstart.alignment -> probabilities, or numbers

The estimator's own probabilities are the answers; without target labels there is nothing to calibrate them by.
Shapes: n rows, d features, k classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from headstart.core.checks import check_matrix
from headstart.core.errors import ConfigError, HeadstartError, ModelError
from headstart.core.tasks import Task
from headstart.features.scale import FeatureScale
from headstart.heads import Head
from headstart.model.estimator_file import read_estimator, write_estimator

if TYPE_CHECKING:
    from torch import nn

__all__ = ["AdaptedHead"]

Array = npt.NDArray[Any]

_LEAST = 1e-300
_MOST_WIDTH = 10_000_000
_KEYS = {"kind", "estimator", "scale", "task", "report"}
_FAILURES = (
    HeadstartError, TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError, MemoryError, RuntimeError
)  # fmt: skip


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
        """Return a JSON value from which `from_state` rebuilds the head, given `state`.

        Raises
        ------
        ModelError
            If the estimator holds what has no form in a model folder.
        """
        return {
            "kind": self.kind,
            "estimator": write_estimator(self.estimator)[0],
            "scale": self.scale.kind,
            "task": self.task.to_dict(),
            "report": self.report,
        }

    def state(self) -> dict[str, Array]:
        """Return the learned arrays by name."""
        arrays = {f"estimator.{name}": array for name, array in write_estimator(self.estimator)[1].items()}
        return {**arrays, **{f"scale.{name}": array for name, array in self.scale.state().items()}}

    @classmethod
    def from_state(cls, config: dict[str, Any], state: dict[str, Array]) -> AdaptedHead:
        """Return the head that `config` and `state` describe, after it has answered for a few rows.

        Raises
        ------
        ModelError
            If anything is unknown, missing or left over, or the parts do not answer together.
        """
        parts: dict[str, dict[str, Array]] = {"estimator": {}, "scale": {}}
        for name, array in state.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = array
        if extra := sorted(set(parts) - {"estimator", "scale"} | set(config) - _KEYS):
            raise ModelError(f"from_state: the adapted head has {extra[0]!r}, which none has; fetch the model again.")
        try:
            task, scale = Task.from_dict(config["task"]), FeatureScale(config["scale"], **_named(parts["scale"]))
            head = cls(read_estimator(config["estimator"], parts["estimator"]), scale, task)
            head.report = dict(config["report"])
            head._try()
        except ModelError:
            raise
        except _FAILURES as error:
            raise ModelError(f"from_state: the adapted head is incomplete ({error}); fetch the model again.") from error
        return head

    def _try(self) -> None:
        """Ask for two rows: parts of a damaged file that fit each other by name may still not answer."""
        width = self.estimator.n_features_in_
        if type(width) is not int or not 0 < width <= _MOST_WIDTH:
            raise ModelError(f"from_state: {width!r} is no number of features; fetch the model again.")
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            answers = self.predict_scores(np.stack([np.zeros(width, np.float32), np.full(width, 0.5, np.float32)]))
        is_table = self.task.kind == "classification"
        wanted = (2, self.task.num_outputs) if is_table else (2,)
        sums_up = not is_table or bool(np.allclose(answers.sum(axis=1), 1, atol=1e-6) and (answers >= -1e-9).all())
        if answers.shape != wanted or not np.isfinite(answers).all() or not sums_up:
            raise ModelError(
                f"from_state: the adapted head answers {answers.shape} for two rows where {wanted} finite "
                f"{'probabilities' if is_table else 'numbers'} are due; fetch the model again."
            )

    def to_module(self) -> nn.Module:
        """Refuse: the estimator is no network."""
        raise ConfigError(
            f"AdaptedHead: {type(self.estimator).__name__} is no torch network, so it can neither be fine-tuned nor exported; "
            "predict with the model as it is, or adapt with a method that trains a network."
        )


def _named(arrays: dict[str, Array]) -> dict[str, Array]:
    """Return the arrays of a scale by the names its constructor has."""
    if set(arrays) not in (set(), {"centre", "scale"}) or not all(np.isfinite(item).all() for item in arrays.values()):
        raise ModelError("from_state: the scale of the adapted head is damaged; fetch the model again.")
    return {f"{name}_d": array for name, array in arrays.items()}
