"""The straight way between two states of a network: the weights before training, those after it, and all that lie between.

    theta(a) = theta_0 + a (theta_1 - theta_0)          0 <= a <= 1

Source: Wortsman et al., "Robust fine-tuning of zero-shot models" (WiSE-FT), CVPR 2022 (arXiv:2109.01903): between a pretrained
network with a head that suits it and the same network fine-tuned, the loss has no barrier, and a point on the way is often better
than both ends, most of all where the rows were few. It ignores networks whose head began at random: there the way leads through
bad places.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from headstart.core.errors import ConfigError

__all__ = ["WeightPath"]


class WeightPath:
    """Moves tensors of a network between where they were and where they are now.

    Parameters
    ----------
    pairs : iterable of (Tensor, Tensor)
        A tensor of the network as it is now, which will be moved, and its value at the start. Counters and tensors that are equal
        stay as they are.

    Attributes
    ----------
    length : float
        Distance between the two ends.

    Examples
    --------
    >>> weight = torch.tensor([3.0, 4.0])
    >>> path = WeightPath([(weight, torch.zeros(2))])
    >>> path.length
    5.0
    >>> path.go(0.5)
    >>> weight
    tensor([1.5000, 2.0000])
    """

    def __init__(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        self._moved: list[tuple[Tensor, Tensor, Tensor]] = []
        squares = 0.0
        for now, start in pairs:
            first = start.detach().to(now.device)
            if now.is_floating_point() and not torch.equal(now, first):
                self._moved.append((now.detach(), first.clone(), now.detach().clone()))
                squares += float((now.detach().double() - first.double()).square().sum())
        self.length = squares**0.5

    def go(self, share: float) -> None:
        """Put the network at a share of the way: 0 where it began, 1 where training ended, both to the last bit.

        Raises
        ------
        ConfigError
            If the share lies outside [0, 1].
        """
        if not 0 <= share <= 1:
            raise ConfigError(f"WeightPath: a share of the way lies in [0, 1]; got {share}.")
        with torch.no_grad():
            for now, first, last in self._moved:
                now.copy_(last if share == 1 else torch.lerp(first, last, share))
