"""Minimax entropy: the head makes target rows as unsure as it can, the features make them as sure as they can.

    mme = - weight / b sum_i H(softmax(head(reversed f_i)))        reversed: the value is f, the gradient is -f's

Source: Saito, Kim, Sclaroff, Darrell & Saenko, "Semi-supervised Domain Adaptation via Minimax Entropy", ICCV 2019
(arXiv:1904.06487), section 3, by one pass with reversed gradient; weight 0.1. The head that seeks the greatest entropy moves its
class weights towards the target; features then gather around them. The paper's head is a cosine between features and weights,
over 0.05; here any head is taken as it is.
Use it where a few target rows have labels: they stand among the labelled rows as a domain of their own, shown as often as the
source's (``balance="domains"``), with the task's loss over both.
It ignores the source rows. Without any labelled target row the paper does not recommend it.
Shapes: b rows, d features, k classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headstart.core.errors import ConfigError
from headstart.objectives.critic import reverse_gradient
from headstart.objectives.entropy import mean_entropy
from headstart.objectives.objective import Batch, Objective, Setup
from headstart.objectives.precision import widen

__all__ = ["MME"]


class MME(Objective):
    """The negative `mean_entropy` of a head on target rows, with reversed gradient between the features and the head.

    Parameters
    ----------
    head : str
        Name of the head.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If there is no such head.

    Examples
    --------
    >>> network = nn.Module()
    >>> network.heads = nn.ModuleDict({"main": nn.Linear(1, 2, bias=False)})
    >>> _ = nn.init.constant_(network.heads["main"].weight, 0.0)
    >>> objective = MME()
    >>> objective.prepare(Setup(network, task=None))
    >>> round(objective(Batch(), Batch(features=torch.ones(1, 1))).item(), 4)          # -0.1 log 2
    -0.0693
    """

    needs = frozenset({"features"})
    reads_classes = True

    def __init__(self, head: str = "main", weight: float = 0.1) -> None:
        super().__init__()
        self.head, self.weight = head, weight
        self._head: list[nn.Module] = []  # in a list: its parameters are the network's, not ours

    def prepare(self, setup: Setup) -> None:
        """Find the head."""
        heads = setup.heads()
        if self.head not in heads:
            raise ConfigError(f"MME: needs a head {self.head!r}; there is {', '.join(heads)}.")
        self._head = [heads[self.head]]

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``-weight`` times the entropy of target rows."""
        if not self._head:
            raise ConfigError("MME: does not know the head; call prepare before the first step.")
        (batch,) = self.chosen("target", source, target)
        features_bd = reverse_gradient(widen(self.take(batch, "features")))
        with torch.autocast(features_bd.device.type, enabled=False):
            return -self.weight * mean_entropy(self._head[0](features_bd))
