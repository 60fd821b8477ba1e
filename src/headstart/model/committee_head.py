"""The head of a committee whose members see features each in its own way: the mean of what several heads answer.

    p(row) = sum_i seats_i p_i(row) / sum_i seats_i

`headstart.alignment.Committee` answers where all members take the same rows. A network on features takes them as the base model
gave them, an aligner on one scale; here every head brings its own, and all are handed the same features. A head that is itself
the mean of several members has as many seats. It ignores how sure members are of themselves, and what a member says of rows of no
class: a committee answers with classes.
Shapes: n rows, d features, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from headstart.core.errors import ConfigError, HeadstartError, ModelError
from headstart.heads import Head, NetworkHead, OpenSetHead
from headstart.model.adapted_head import AdaptedHead

if TYPE_CHECKING:
    from torch import nn

__all__ = ["CommitteeHead"]

Array = npt.NDArray[Any]

_LEAST = 1e-300
_MOST_HEADS = 1000
_KEYS = {"kind", "heads", "seats", "report"}
_KINDS: dict[str, type[AdaptedHead] | type[NetworkHead] | type[OpenSetHead]] = {
    AdaptedHead.kind: AdaptedHead,
    NetworkHead.kind: NetworkHead,
    OpenSetHead.kind: OpenSetHead,
}


class CommitteeHead(Head):
    """Several heads that answer together.

    Parameters
    ----------
    heads : sequence of at least two of AdaptedHead, NetworkHead and OpenSetHead
        Who answers, all the same classification task, from the same features.
    seats : sequence of int
        How many voices each has; at least 1.

    Raises
    ------
    ConfigError
        If there are fewer than two heads, tasks differ, or seats are no whole numbers above 0.

    Examples
    --------
    >>> from headstart.core.tasks import Task
    >>> task = Task("classification", ("ant", "bee"))
    >>> heads = [NetworkHead("linear", 3, task, seed=seed) for seed in (0, 1)]
    >>> rows = np.ones((1, 3), np.float32)
    >>> first, second = (head.predict_proba(rows) for head in heads)
    >>> bool(np.allclose(CommitteeHead(heads, [3, 1]).predict_proba(rows), 0.75 * first + 0.25 * second))
    True
    """

    kind: ClassVar[str] = "committee"

    def __init__(self, heads: Sequence[Head], seats: Sequence[int]) -> None:
        if len(heads) < 2 or len(heads) != len(seats):
            raise ConfigError(
                f"CommitteeHead: at least two heads answer, each with its seats; got {len(heads)} heads and {len(seats)} seats."
            )
        if not all(type(seat) is int and seat >= 1 for seat in seats):
            raise ConfigError(f"CommitteeHead: seats are whole numbers of at least 1; got {list(seats)[:5]}.")
        if any(type(head) not in _KINDS.values() for head in heads):
            names = ", ".join(sorted({type(head).__name__ for head in heads}))
            raise ConfigError(f"CommitteeHead: a head is an AdaptedHead, a NetworkHead or an OpenSetHead; got {names}.")
        if heads[0].task.kind != "classification" or any(head.task != heads[0].task for head in heads):
            raise ConfigError("CommitteeHead: heads answer one classification task, all the same; give such heads.")
        self.heads, self.seats, self.task = tuple(heads), tuple(seats), heads[0].task
        self.temperature = 1.0
        self.validation_predictions = None
        self.report: dict[str, Any] = {"head": self.kind}

    def predict_proba(self, features_nd: Array) -> Array:
        """Return the mean of the heads' probabilities, weighted by their seats, shape (n, k)."""
        tables = [np.asarray(head.predict_proba(features_nd), dtype=np.float64) for head in self.heads]
        return np.asarray(np.average(tables, axis=0, weights=np.asarray(self.seats, dtype=np.float64)))

    def decision(self, features_nd: Array) -> Array:
        """Return logarithms of the probabilities, shape (n, k)."""
        return np.log(np.maximum(self.predict_proba(features_nd), _LEAST))

    def to_module(self) -> nn.Module:
        """Refuse: not every head is a network."""
        raise ConfigError(
            "CommitteeHead: its members are not all torch networks, so it can neither be fine-tuned nor exported; predict with "
            "the model as it is, or adapt with a method that trains a network."
        )

    def config(self) -> dict[str, Any]:
        """Return a JSON value from which `from_state` rebuilds the head, given `state`."""
        return {
            "kind": self.kind,
            "heads": [head.config() for head in self.heads],
            "seats": list(self.seats),
            "report": self.report,
        }

    def state(self) -> dict[str, Array]:
        """Return the learned arrays by name."""
        return {
            f"{place}.{name}": array for place, head in enumerate(self.heads) for name, array in head.state().items()
        }

    @classmethod
    def from_state(cls, config: dict[str, Any], state: dict[str, Array]) -> CommitteeHead:
        """Return the head that `config` and `state` describe, after it has answered for a row.

        Raises
        ------
        ModelError
            If anything is unknown, missing or left over, or the heads do not answer together.
        """
        if extra := sorted(set(config) - _KEYS):
            raise ModelError(f"from_state: the committee has {extra[0]!r}, which none has; fetch the model again.")
        try:
            configs, parts = config["heads"], _by_head(state)
            if not isinstance(configs, list) or not len(configs) <= _MOST_HEADS:
                raise ModelError("from_state: the committee lists no heads, or too many; do not trust this model.")
            if left := sorted(set(parts) - {str(place) for place in range(len(configs))}):
                raise ModelError(f"from_state: nothing names the arrays of head {left[0]!r}; fetch the model again.")
            heads = [_member(one, parts.get(str(place), {})) for place, one in enumerate(configs)]
            head = cls(heads, config["seats"])
            head.report = dict(config["report"])
            head.predict_proba(np.zeros((1, _width(heads[0])), np.float32))
        except ModelError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, HeadstartError) as error:
            raise ModelError(f"from_state: the committee is incomplete ({error}); fetch the model again.") from error
        return head


def _by_head(state: dict[str, Array]) -> dict[str, dict[str, Array]]:
    parts: dict[str, dict[str, Array]] = {}
    for name, array in state.items():
        place, _, rest = name.partition(".")
        parts.setdefault(place, {})[rest] = array
    return parts


def _member(config: Any, state: dict[str, Array]) -> Head:
    """Return a head of the committee; committees of committees there are none."""
    kind = _KINDS.get(str(config["kind"]))
    if kind is None:
        raise ModelError(
            f"from_state: the committee holds a {str(config['kind'])[:60]!r} head, which no committee has; do not trust this "
            "model."
        )
    if not all(np.isfinite(array).all() for array in state.values() if array.dtype.kind == "f"):
        raise ModelError("from_state: the committee holds what is no finite number; fetch the model again.")
    return kind.from_state(config, state)


def _width(head: Head) -> int:
    network = head.network if isinstance(head, OpenSetHead) else head
    return int(network.width if isinstance(network, NetworkHead) else network.estimator.n_features_in_)  # type: ignore[attr-defined]
