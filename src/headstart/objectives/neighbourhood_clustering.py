"""Neighbourhood clustering: each target row lies near few others, either target rows or one of the known classes.

    s_ij = f_i' g_j / temperature       g: every other target row's features, from memory, and the weights of every class
    loss = mean over target rows i of the entropy of softmax_j(s_ij)              features and weights of length 1

Source: Saito, Kim, Sclaroff & Saenko, "Universal Domain Adaptation through Self Supervision" (DANCE), NeurIPS 2020
(arXiv:2002.07953), equations 3 to 5, temperature 0.05. Rows of the batch stand in the memory as they are now, with their
gradient. The paper's classifier has features and weights of length 1 itself; here the head stays as it is, and only this term
looks at directions.
Use it where nobody knows whether all source classes occur in the target, or further ones do: it pulls no domain onto the other.
It ignores labels; a single linear layer has to end the head. Memory grows with the target: m rows of d numbers.
Shapes: b target rows of a batch, m target rows in all, d features, k classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core.checks import check_same_rows, check_same_width
from headstart.core.errors import ConfigError
from headstart.objectives.objective import Batch, Objective, Setup, check_positive
from headstart.objectives.precision import full_precision, widen

__all__ = ["NeighbourhoodClustering", "neighbourhood_entropy"]


@full_precision
def neighbourhood_entropy(
    features_bd: Tensor, rows_b: Tensor, memory_md: Tensor, prototypes_kd: Tensor, temperature: float = 0.05
) -> Tensor:
    """Return the mean entropy of each row's likeness to all other rows and all classes.

    Parameters
    ----------
    features_bd : Tensor of shape (b, d)
        Features of the rows of a batch. Half precision is computed in float32.
    rows_b : Tensor of shape (b,)
        int64 place of each of them in the memory.
    memory_md : Tensor of shape (m, d)
        Features of all rows, of length 1.
    prototypes_kd : Tensor of shape (k, d)
        A direction for each class.
    temperature : float
        Likeness is divided by it.

    Returns
    -------
    Tensor of shape ()
        Nats, from 0 to log(m - 1 + k).

    Raises
    ------
    ShapeError
        If widths or rows do not fit.

    Examples
    --------
    >>> features, prototypes = torch.tensor([[1.0, 0.0]]), torch.eye(2)
    >>> neighbourhood_entropy(features, torch.tensor([0]), torch.eye(2), prototypes, 1e-3)       # alone with the first class
    tensor(0.)
    >>> neighbourhood_entropy(features, torch.tensor([0]), torch.eye(2).flip(1), prototypes, 1e-3)   # and with one row: log 2
    tensor(0.6931)
    """
    check_same_width("neighbourhood_entropy", memory_md, features_bd)
    check_same_width("neighbourhood_entropy", prototypes_kd, features_bd)
    check_same_rows("neighbourhood_entropy", "features", features_bd, "rows", rows_b)
    directions_bd = functional.normalize(widen(features_bd))
    others_md = memory_md.to(directions_bd.dtype).index_copy(0, rows_b, directions_bd)
    classes_kd = functional.normalize(prototypes_kd.to(directions_bd.dtype))
    likeness = directions_bd @ torch.cat([others_md, classes_kd]).T / temperature
    itself = functional.one_hot(rows_b, likeness.shape[1]).bool()
    logs = functional.log_softmax(likeness.masked_fill(itself, -torch.inf), dim=1).masked_fill(itself, 0.0)
    shares = logs.exp().masked_fill(itself, 0.0)
    return (shares * -logs).sum(1).mean()


class NeighbourhoodClustering(Objective):
    """`neighbourhood_entropy` of the target rows; remembers the features of all of them.

    Parameters
    ----------
    temperature : float
        Likeness is divided by it.
    head : str
        Whose last linear layer gives a direction for each class.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If ``temperature`` is not above 0.

    Examples
    --------
    >>> NeighbourhoodClustering().config()
    {'temperature': 0.05, 'head': 'main', 'weight': 0.05}
    """

    needs = frozenset({"features"})
    reads_classes = True
    memory: Tensor

    def __init__(self, temperature: float = 0.05, head: str = "main", weight: float = 0.05) -> None:
        super().__init__()
        check_positive("NeighbourhoodClustering", "temperature", temperature)
        self.temperature, self.head, self.weight = temperature, head, weight
        self.register_buffer("memory", torch.zeros(0, 0))
        self._classes: list[nn.Linear] = []  # in a list, so that it stays the network's and not this objective's
        self._seen: list[tuple[Tensor, Tensor]] = []

    def prepare(self, setup: Setup) -> None:
        """Find the layer of the classes, and remember every target row as it is at the start.

        Raises
        ------
        ConfigError
            If there are no target rows, or the head does not end in a linear layer on the features.
        """
        if setup.target_outputs is None:
            raise ConfigError("NeighbourhoodClustering: needs a second stream of rows; give rows of the target domain.")
        head: Any = setup.heads().get(self.head)
        layers = [] if head is None else [part for part in head.modules() if isinstance(part, nn.Linear)]
        if len(layers) != 1 or layers[0].in_features != setup.known_width("NeighbourhoodClustering"):
            raise ConfigError(
                f"NeighbourhoodClustering: the head {self.head!r} must be one linear layer on the features, whose weights are "
                "the directions of the classes; move other layers into the network's last segment."
            )
        self._classes = layers
        features_md = torch.from_numpy(setup.target_outputs()[0]).to(self.memory.device)
        self.memory = functional.normalize(features_md)

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the mean entropy.

        Raises
        ------
        ConfigError
            If `prepare` has not been called.
        """
        (batch,) = self.chosen("target", source, target)
        features_bd, rows_b = self.take(batch, "features"), self.take(batch, "rows")
        if not self._classes:
            raise ConfigError("NeighbourhoodClustering: remembers no rows yet; call prepare before the first step.")
        self._seen.append((rows_b, functional.normalize(widen(features_bd.detach()))))
        prototypes_kd = self._classes[0].weight
        return self.weight * neighbourhood_entropy(features_bd, rows_b, self.memory, prototypes_kd, self.temperature)

    def after_step(self) -> None:
        """Remember the rows of this step as they were in it."""
        for seen in self._seen:
            rows_b, directions_bd = self.together.rows(*seen)
            self.memory.index_copy_(0, rows_b, directions_bd.to(self.memory.dtype))
        self._seen.clear()
