"""What every solved head is: a linear map on raw features, a temperature, and an account of how it was found."""

from __future__ import annotations

import copy
import inspect
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from headstart.core.checks import check_matrix
from headstart.core.errors import ConfigError, ModelError, ShapeError
from headstart.core.tasks import Task
from headstart.heads.rows import TrainingRows
from headstart.heads.scoring import Head
from headstart.heads.temperature import to_probabilities
from headstart.heads.threads import threads_for

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LinearHead"]

Array = npt.NDArray[Any]

_NOISE = 1e-5


class LinearHead(Head):
    """A linear classifier or regressor on frozen features. The constructor is the configuration; `fit` learns.

    Attributes
    ----------
    task : Task
    weight : ndarray of shape (k, d)
        On raw features: the standardisation is folded in. float32 unless the features were float64.
    bias : ndarray of shape (k,)
    temperature : float
        Scores are divided by it before they become probabilities; 1 for regression.
    validation_predictions : ndarray of shape (n, k) or (n,), or None
        Of the training rows, each made without that row: probabilities, or numbers for regression. None on a head
        that was loaded.
    report : dict
        How it was found, as a JSON value: ``penalty``, ``criterion``, ``score``, ``nested_score`` (with the penalty
        chosen outside each fold), ``path`` and ``held_out``.
    """

    kinds: ClassVar[dict[str, type[LinearHead]]] = {}

    task: Task
    weight: Array
    bias: Array
    temperature: float
    validation_predictions: Array | None
    report: dict[str, Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "kind" in cls.__dict__:
            LinearHead.kinds[cls.kind] = cls

    def fit(
        self,
        features_nd: Array,
        targets: Array,
        task: Task,
        *,
        groups: Array | None = None,
        sample_weight: Array | None = None,
    ) -> Self:
        """Learn from features and targets.

        Parameters
        ----------
        features_nd : ndarray of shape (n, d), n >= 2
            Raw features; they are standardised here, and the result works on raw ones.
        targets : ndarray of shape (n,) or (n, k)
            Class numbers, 0/1 indicators or numbers, as the task says.
        task : Task
        groups : ndarray of shape (n,), optional
            Rows of one group are held out together.
        sample_weight : ndarray of shape (n,), optional
            Positive.

        Returns
        -------
        The head itself.

        Raises
        ------
        HeadstartError
            If the rows do not fit the task, or the task does not suit the head.
        """
        check_matrix(type(self).__name__, "features", np.asarray(features_nd), min_rows=2)
        with threads_for(np.shape(features_nd), task.num_outputs):
            rows = TrainingRows.of(
                features_nd,
                targets,
                task,
                groups=groups,
                sample_weight=sample_weight,
                num_folds=getattr(self, "num_folds", 5),
                seed=getattr(self, "seed", 0),
            )
            return self.fit_rows(rows)

    @abstractmethod
    def fit_rows(self, rows: TrainingRows) -> Self:
        """Learn from rows that were made ready before; several heads can share them."""

    @abstractmethod
    def fold_scores(self, rows: TrainingRows) -> Array:
        """Return scores (n, k) of every row from a fit without its fold, at the penalty that `fit_rows` chose."""

    def _accept(
        self,
        rows: TrainingRows,
        weight_kr: Array,
        bias_k: Array,
        held_out_nk: Array,
        temperature: float,
        report: dict[str, Any],
    ) -> Self:
        """Take over a solution in rotated coordinates."""
        weight, bias = rows.space.unrotate(weight_kr, bias_k)
        dtype = rows.space.rotated.dtype
        self.task, self.temperature = rows.task, float(temperature)
        self.weight, self.bias = weight.astype(dtype), bias.astype(dtype)
        if rows.task.kind == "regression":
            self.validation_predictions = np.asarray(held_out_nk[:, 0], dtype=np.float64)
        else:
            self.validation_predictions = to_probabilities(rows.task, held_out_nk, temperature)
        self.report = {"head": self.kind, **report}
        return self

    def decision(self, features_nd: Array) -> Array:
        """Return raw scores, shape (n, k); for regression (n, 1), the predicted numbers."""
        if not hasattr(self, "weight"):
            raise ConfigError(f"{type(self).__name__}: not fitted yet; call fit first.")
        features = np.asarray(features_nd, dtype=self.weight.dtype)
        check_matrix("decision", "features", features, min_rows=0)
        if features.shape[1] != self.weight.shape[1]:
            raise ShapeError(
                f"decision: the head was fitted on {self.weight.shape[1]} features but got {features.shape[1]}; "
                "extract them with the same backbone and layer."
            )
        scores: Array = features @ self.weight.T + self.bias
        return scores

    def without_noise(self, features_nd: Array) -> Self:
        """Return a copy that does not look at features which vary by rounding alone.

        For features of one network, which share a scale: one whose spread is below a hundred thousandth of the median spread is
        rounding noise. Standardised it would get an enormous weight, which another runtime, or a body that trains, turns into
        nonsense. Scores of the rows given change by no more than that noise was worth.

        Parameters
        ----------
        features_nd : ndarray of shape (n, d)
            The rows the head was fitted on.

        Examples
        --------
        >>> from headstart.heads import RidgeHead
        >>> rows = np.array([[0.0, 1e-7, 1.0], [1.0, 2e-7, 0.0], [0.0, 1e-7, 0.0], [1.0, 2e-7, 1.0]])
        >>> head = RidgeHead().fit(rows, np.array([0.0, 1.0, 0.0, 1.0]), Task("regression"))
        >>> bool(np.abs(head.weight[0, 1]) > 1e6), head.without_noise(rows).weight[0, 1]
        (True, np.float64(0.0))
        """
        features = np.asarray(features_nd)
        spread_d = features.std(axis=0, dtype=np.float64)
        varying = spread_d[spread_d > 0]
        noise_d = spread_d < _NOISE * np.median(varying) if len(varying) else np.zeros(len(spread_d), bool)
        quiet = copy.copy(self)
        if noise_d.any():
            mean = features[:, noise_d].mean(axis=0, dtype=np.float64)
            lost = self.weight[:, noise_d].astype(np.float64) @ mean
            quiet.weight = np.where(noise_d, 0, self.weight).astype(self.weight.dtype)
            quiet.bias = (self.bias.astype(np.float64) + lost).astype(self.bias.dtype)
        return quiet

    def to_linear(self) -> nn.Linear:
        """Return a torch layer whose outputs, after a softmax (or sigmoid), are this head's probabilities.

        The temperature is folded in, so that fine-tuning starts from calibrated logits.
        """
        import torch
        from torch import nn

        layer = nn.Linear(self.weight.shape[1], self.weight.shape[0])
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(np.asarray(self.weight / self.temperature, dtype=np.float32)))
            layer.bias.copy_(torch.from_numpy(np.asarray(self.bias / self.temperature, dtype=np.float32)))
        return layer

    def to_module(self) -> nn.Module:
        """Return `to_linear`; every head has this under one name."""
        return self.to_linear()

    def parameters(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.parameters().items())})"

    def config(self) -> dict[str, Any]:
        """Return a JSON value from which `from_state` rebuilds the head, given `state`."""
        return {
            "kind": self.kind,
            "parameters": self.parameters(),
            "task": self.task.to_dict(),
            "temperature": self.temperature,
            "report": self.report,
        }

    def state(self) -> dict[str, Array]:
        """Return the learned arrays by name."""
        return {"weight": np.ascontiguousarray(self.weight), "bias": np.ascontiguousarray(self.bias)}

    @staticmethod
    def from_state(config: dict[str, Any], state: dict[str, Array]) -> LinearHead:
        """Return the head that `config` and `state` describe.

        Raises
        ------
        ModelError
            If the kind is unknown, or the arrays are missing or do not fit the task.
        """
        kind = config.get("kind")
        if kind not in LinearHead.kinds:
            raise ModelError(
                f"from_state: no head is called {kind!r}; there are {', '.join(sorted(LinearHead.kinds))}."
            )
        try:
            head = LinearHead.kinds[kind](**config["parameters"])
            head.task = Task.from_dict(config["task"])
            head.temperature, head.report = float(config["temperature"]), dict(config["report"])
            head.weight, head.bias = state["weight"], state["bias"]
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"from_state: the {kind} head is incomplete ({error}); fetch the model again.") from error
        outputs = head.task.num_outputs
        if head.weight.ndim != 2 or len(head.weight) != outputs or head.bias.shape != (outputs,):
            raise ModelError(
                f"from_state: {outputs} outputs need weight ({outputs}, d) and bias ({outputs},); "
                f"got {head.weight.shape} and {head.bias.shape}."
            )
        head.validation_predictions = None
        return head
