"""A trained head with one output more than there are classes: a row of none of them is answered "unknown".

    z(x) = network(x) of k + 1 scores;   p(c | known) = softmax over the first k of z / T;   unknown: z_k+1 is above all others

Use it where training has taught the last output what belongs to no class (`headstart.objectives.OSBP`). Probabilities are those
of the classes, as if the row were of one of them; whether it is stands beside them.
It ignores how many unknown classes there are: all of them are one answer.
Shapes: n rows, d features, k classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy.typing as npt

from headstart.core.errors import ConfigError, ModelError
from headstart.core.tasks import Task
from headstart.heads.network_head import NetworkHead
from headstart.heads.scoring import Head
from headstart.heads.temperature import to_probabilities

if TYPE_CHECKING:
    from torch import nn

__all__ = ["OpenSetHead"]

Array = npt.NDArray[Any]


class OpenSetHead(Head):
    """A network on features whose last output is for rows of no class.

    Parameters
    ----------
    network : NetworkHead
        Of k + 1 classes, the last of them for everything else; its temperature is kept.
    task : Task
        Classification into the k known classes.

    Raises
    ------
    ConfigError
        If the task has no classes, or the network not one output more.

    Examples
    --------
    >>> import numpy as np
    >>> network = NetworkHead("linear", 1, Task("classification", ("ant", "bee", "neither")))
    >>> weight, bias = network.module[0].weight.data, network.module[0].bias.data
    >>> _ = weight.copy_(weight.new_tensor([[-4.0], [4.0], [0.0]])), bias.copy_(bias.new_tensor([0.0, 0.0, 1.0]))
    >>> head = OpenSetHead(network, Task("classification", ("ant", "bee")))
    >>> rows = np.array([[-1.0], [0.1], [1.0]])
    >>> head.predict(rows).tolist(), head.open_probabilities(rows).argmax(1).tolist()
    ([0, 1, 1], [0, 2, 1])
    """

    kind: ClassVar[str] = "open-set"

    def __init__(self, network: NetworkHead, task: Task) -> None:
        if task.kind != "classification" or network.task.num_outputs != task.num_outputs + 1:
            raise ConfigError(
                f"OpenSetHead: needs one output for each class and one more; the task is {task.kind} with "
                f"{len(task.classes)} classes, the network has {network.task.num_outputs} outputs."
            )
        self.network, self.task = network, task
        self.validation_predictions = None
        self.report: dict[str, Any] = {"head": self.kind}

    @classmethod
    def beside(cls, head: NetworkHead, unknown: nn.Linear) -> OpenSetHead:
        """Return a head of known classes with an output more, which reads what the head's last layer reads.

        Parameters
        ----------
        head : NetworkHead
            Of the known classes; ends in a linear layer.
        unknown : nn.Linear
            One output.
        """
        import torch

        widened = Task("classification", (*head.task.classes, _free_name(head.task.classes)))
        words = [word for word in head.layers.split("-")[:-2] if word]
        network = NetworkHead(
            "-".join([*words, f"dense{widened.num_outputs}", "linear"]), head.width, widened, seed=head.seed
        )
        *hidden, last = head.module.children()
        *copies, wide = network.module.children()
        for copied, layer in zip(copies, hidden, strict=True):
            copied.load_state_dict(layer.state_dict())
        ends: list[Any] = [last, unknown]
        with torch.no_grad():
            for name in ("weight", "bias"):
                getattr(wide, name).copy_(torch.cat([getattr(end, name).detach().cpu() for end in ends]))
        network.temperature = head.temperature
        network.module.eval()
        opened = cls(network, head.task)
        opened.report = {**head.report, "head": cls.kind}
        return opened

    @property
    def temperature(self) -> float:
        """The network's."""
        return self.network.temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self.network.temperature = value

    @property
    def layers(self) -> str:
        """The network in words."""
        return self.network.layers

    def decision(self, features_nd: Array) -> Array:
        """Return raw scores of the known classes, shape (n, k)."""
        return self.network.decision(features_nd)[:, :-1]

    def open_probabilities(self, features_nd: Array) -> Array:
        """Return probabilities (n, k + 1), the last of them of no class."""
        return to_probabilities(self.network.task, self.network.decision(features_nd), self.temperature)

    def to_module(self) -> nn.Module:
        """Return a module whose outputs, after a softmax, are the answers for known classes; it cannot say "unknown"."""
        import torch
        from torch import nn

        known = nn.Linear(self.network.task.num_outputs, self.task.num_outputs, bias=False)
        with torch.no_grad():
            known.weight.copy_(torch.eye(*known.weight.shape))
        return nn.Sequential(self.network.to_module(), known)

    def config(self) -> dict[str, Any]:
        """Return a JSON value from which `from_state` rebuilds the head, given `state`."""
        return {
            "kind": self.kind,
            "network": self.network.config(),
            "task": self.task.to_dict(),
            "report": self.report,
        }

    def state(self) -> dict[str, Array]:
        """Return the learned arrays by name."""
        return self.network.state()

    @classmethod
    def from_state(cls, config: dict[str, Any], state: dict[str, Array]) -> OpenSetHead:
        """Return the head that `config` and `state` describe.

        Raises
        ------
        ModelError
            If anything is missing or does not fit.
        """
        try:
            head = cls(NetworkHead.from_state(config["network"], state), Task.from_dict(config["task"]))
            head.report = dict(config["report"])
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise ModelError(
                f"from_state: the open-set head is incomplete ({error}); fetch the model again."
            ) from error
        return head


def _free_name(classes: tuple[str, ...]) -> str:
    """Return a name that no class has."""
    name = "unknown"
    while name in classes:
        name += "?"
    return name
