"""Averages of the weights along the training, in a copy of the network that never trains.

    EMA:   a <- a + (1 - d_t) (w - a)          after every step, d_t = min(decay, (1 + t) / (10 + t))
    SWA:   a <- a + (w - a) / (m + 1)          after every epoch late in the training, m averaged so far

Source: Tarvainen & Valpola, "Mean teachers are better role models", NeurIPS 2017 (arXiv:1703.01780); Izmailov et al., "Averaging
Weights Leads to Wider Optima and Better Generalization", UAI 2018 (arXiv:1803.05407).
Running statistics are averaged like weights, counters are copied. Statistics belong to weights: after SWA they are taken anew.
Tensors that never change are shared with the network, not copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.training.network import Network

__all__ = ["Average", "moving_tensors", "recompute_statistics"]


def moving_tensors(network: Network) -> dict[str, Tensor]:
    """Return the network's own tensors that training may change, each once, by name: everything but what is frozen."""
    frozen, seen = network.frozen_names, set[int]()
    moving = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if name not in frozen and id(tensor) not in seen:
            seen.add(id(tensor))  # a part that is used twice must not be averaged twice
            moving[name] = tensor.detach()
    return moving


class Average:
    """A copy of a network that follows it.

    Parameters
    ----------
    network : Network
        The one in training; the average begins with its weights.

    Examples
    --------
    >>> network = Network({"features": nn.Identity()}, {"main": nn.Linear(1, 1, bias=False)})
    >>> _ = nn.init.zeros_(network.heads["main"].weight)
    >>> average = Average(network)
    >>> _ = nn.init.ones_(network.heads["main"].weight)
    >>> average.follow(0.9, step=1)                                   # decay min(0.9, 2 / 11)
    >>> round(average.network.heads["main"].weight.item(), 3) == round(9 / 11, 3)
    True
    """

    def __init__(self, network: Network) -> None:
        self.network = network.twin()
        self.count = 0
        self.tensors = moving_tensors(self.network)
        current = moving_tensors(network)
        self._pairs = [
            (self.tensors[name], current[name]) for name in self.tensors if self.tensors[name].is_floating_point()
        ]
        self._copied = [
            (self.tensors[name], current[name]) for name in self.tensors if not current[name].is_floating_point()
        ]

    def follow(self, decay: float, step: int) -> None:
        """Move towards the network after a step, counting from 1."""
        self._move(1 - min(decay, (1 + step) / (10 + step)))

    def include(self) -> None:
        """Take the network's present weights into an equal average."""
        self._move(1 / (self.count + 1))
        self.count += 1

    @torch.no_grad()
    def _move(self, share: float) -> None:
        if self._pairs:
            torch._foreach_lerp_([pair[0] for pair in self._pairs], [pair[1] for pair in self._pairs], share)
        for mine, theirs in self._copied:
            mine.copy_(theirs)


def recompute_statistics(network: Network, batches: Callable[[], Iterable[tuple[Tensor, ...]]]) -> int:
    """Take the running statistics of all trained batch normalisation anew, as plain means over some batches.

    Parameters
    ----------
    network : Network
        Left in evaluation mode.
    batches : callable
        Gives the inputs to run; called only where there is something to take.

    Returns
    -------
    int
        Number of layers whose statistics were taken.
    """
    resting = set(map(id, network.still))
    layers = [
        module
        for segment in [*network.segments[network.num_resting :], *network.heads.values()]
        for module in segment.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None and id(module) not in resting
    ]
    network.eval()
    if not layers:
        return 0
    with _cumulative(layers), torch.no_grad():
        for inputs in batches():
            network(*inputs)
    return len(layers)


@contextmanager
def _cumulative(layers: list[_BatchNorm]) -> Iterator[None]:
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        nn.Module.train(layer)
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()
