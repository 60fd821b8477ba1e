"""A head whose answers near target rows correct: LAME over the head of a trained model, which stays as it is.

    answers = LAME(probabilities of the model, neighbours among the target rows)            (`headstart.alignment.lame`)

The target rows it was fitted on get the answers they got together; any other row takes one step from the model's own answer, with
the fitted rows as its neighbours. Both travel in the saved model. It ignores everything but features and probabilities.
Shapes: m target rows, n rows asked for, d features, k classes, q neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from headstart.alignment.lame import lame_probabilities, neighbour_affinity
from headstart.alignment.neighbour_graph import SeenRows, nearest
from headstart.core.checks import check_matrix, check_same_rows
from headstart.core.errors import ConfigError, ModelError
from headstart.heads import Head
from headstart.model.model_heads import load_model_head

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LAMEHead"]

Array = npt.NDArray[Any]

_LEAST = 1e-300


class LAMEHead(Head):
    """The head of a model, corrected by the target rows it was fitted on.

    Parameters
    ----------
    head : Head
        Of any kind but this; classification.
    features_md : float array of shape (m, d)
        The target rows' features.
    answers_mk : float array of shape (m, k)
        Their corrected probabilities.
    num_neighbours : int
        Target rows that correct a row.
    weight : float
        What agreement with a neighbour is worth.

    Raises
    ------
    ConfigError
        If the head answers another task than classification, or is corrected already.
    ShapeError
        If features and answers do not fit each other.

    Examples
    --------
    >>> from headstart.core.tasks import Task
    >>> from headstart.heads import NetworkHead
    >>> head = NetworkHead("linear", 1, Task("classification", ("ant", "bee")))
    >>> _ = head.module[0].weight.data.copy_(head.module[0].weight.new_tensor([[-1.0], [1.0]]))
    >>> _ = head.module[0].bias.data.zero_()
    >>> target = np.array([[-0.2], [0.3], [0.4], [0.5]])                      # the first is near the others
    >>> corrected = LAMEHead.fitted(head, target, num_neighbours=3)
    >>> head.predict(target).tolist(), corrected.predict(target).tolist()
    ([0, 1, 1, 1], [1, 1, 1, 1])
    """

    kind: ClassVar[str] = "lame"

    def __init__(
        self, head: Head, features_md: Array, answers_mk: Array, *, num_neighbours: int = 5, weight: float = 1.0
    ) -> None:
        if head.task.kind != "classification":
            raise ConfigError(f"LAMEHead: corrects answers of one class a row; this head answers {head.task.kind}.")
        if isinstance(head, LAMEHead):
            raise ConfigError(
                "LAMEHead: the answers of this head are corrected by target rows already; adapt the model it was made from."
            )
        check_matrix("LAMEHead", "features", features_md)
        check_same_rows("LAMEHead", "features", features_md, "answers", answers_mk)
        self.head, self.task = head, head.task
        self.features_md = np.asarray(features_md, np.float32)
        self.answers_mk = np.asarray(answers_mk, np.float64)
        self.num_neighbours, self.weight = num_neighbours, weight
        self.temperature = 1.0
        self.validation_predictions = None
        self.report: dict[str, Any] = {"head": self.kind, "corrects": head.kind}
        self._rows = self.features_md.astype(np.float64)
        self._seen = SeenRows(self._rows, self.answers_mk)

    @classmethod
    def fitted(cls, head: Head, features_md: Array, *, num_neighbours: int = 5, weight: float = 1.0) -> LAMEHead:
        """Return the head corrected by some target rows.

        Parameters
        ----------
        head : Head
            Classification.
        features_md : float array of shape (m, d), m >= 2
            Features of the target rows.
        num_neighbours, weight
            As in `headstart.alignment.LAME`.
        """
        check_matrix("LAMEHead", "features", features_md, min_rows=2)
        features = np.asarray(features_md, np.float32)
        given = np.asarray(head.predict_proba(features), np.float64)
        affinity = neighbour_affinity(features.astype(np.float64), num_neighbours)
        answers = lame_probabilities(given, affinity, weight)
        return cls(head, features, answers, num_neighbours=num_neighbours, weight=weight)

    def predict_proba(self, features_nd: Array) -> Array:
        """Return corrected probabilities, shape (n, k)."""
        features = np.asarray(features_nd, np.float32)
        given = np.asarray(self.head.predict_proba(features), np.float64)
        if not len(features):
            return given
        rows = features.astype(np.float64)
        _, places = nearest(self._rows, self.num_neighbours, rows)
        pull = self.answers_mk[places].sum(axis=1)
        answers: Array = softmax(np.log(np.maximum(given, _LEAST)) + self.weight * pull, axis=1)
        seen, known = self._seen.find(rows)
        answers[seen] = known
        return answers

    def open_probabilities(self, features_nd: Array) -> Array | None:
        """Return what the head within says of rows of no class; neighbours correct only which class it is."""
        return self.head.open_probabilities(features_nd)

    def decision(self, features_nd: Array) -> Array:
        """Return logarithms of the probabilities, shape (n, k)."""
        return np.log(np.maximum(self.predict_proba(features_nd), _LEAST))

    def to_module(self) -> nn.Module:
        """Refuse: neighbours are no network."""
        raise ConfigError(
            "LAMEHead: answers depend on the target rows it was fitted on, so it can neither be fine-tuned nor exported; do that "
            "with the model it corrects."
        )

    def config(self) -> dict[str, Any]:
        """Return a JSON value from which `from_state` rebuilds the head, given `state`."""
        return {
            "kind": self.kind,
            "head": self.head.config(),
            "num_neighbours": self.num_neighbours,
            "weight": self.weight,
            "report": self.report,
        }

    def state(self) -> dict[str, Array]:
        """Return the learned arrays by name."""
        inner = {f"head.{name}": array for name, array in self.head.state().items()}
        return {**inner, "features": self.features_md, "answers": self.answers_mk}

    @classmethod
    def from_state(cls, config: dict[str, Any], state: dict[str, Array]) -> LAMEHead:
        """Return the head that `config` and `state` describe.

        Raises
        ------
        ModelError
            If anything is missing or does not fit.
        """
        inner = {name.removeprefix("head."): array for name, array in state.items() if name.startswith("head.")}
        try:
            if config["head"]["kind"] == cls.kind:
                raise ModelError("from_state: a LAME head within a LAME head is none of ours; do not trust this model.")
            head = load_model_head(config["head"], inner)
            features, answers = np.asarray(state["features"]), np.asarray(state["answers"])
            if answers.ndim != 2 or answers.shape[1] != head.task.num_outputs or not np.isfinite(answers).all():
                raise ModelError("from_state: the answers of the LAME head are damaged; fetch the model again.")
            loaded = cls(
                head,
                features,
                answers,
                num_neighbours=int(config["num_neighbours"]),
                weight=float(config["weight"]),
            )
            loaded.report = dict(config["report"])
            loaded.predict_proba(features[:1])
        except ModelError:
            raise
        except (KeyError, TypeError, ValueError, IndexError, ConfigError) as error:
            raise ModelError(f"from_state: the LAME head is incomplete ({error}); fetch the model again.") from error
        return loaded
