"""DELTA: the channels that the base model needs go on saying what they said.

    omega = alpha / b sum_i sum_j sum_c W_jc || FM_jc(x_i) - FM0_jc(x_i) ||^2 + beta || w_new ||^2
    W_j   = softmax over c of ( L(network without channel c of map j) - L(network) )

Source: Li et al., "DELTA: Deep Learning Transfer using Feature Map with Attention", ICLR 2019 (arXiv:1901.09229), section 3: the
behavioural regulariser, the channel weights and the L2 term of what is new. FM: feature maps of the network in training, FM0 of
the base model. The authors' code departs from it (maps divided by their number of pixels and multiplied by half the number of
channels; increases standardised and divided by 5 before the softmax); here the paper's formula holds, and `channel_weights`
offers the latter.
Use it where the base model's task resembles the new one. Its authors use 0.01 for alpha and beta.
It ignores the weights themselves: any network that computes the same maps costs nothing.
Shapes: b rows, c channels, p positions in a map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from headstart.core.errors import ConfigError, ShapeError
from headstart.objectives.l2_sp import check_multiplier, new_parameters, squared_norm
from headstart.objectives.objective import Batch, Objective, Setup
from headstart.objectives.precision import widen
from headstart.objectives.supervised import cross_entropy

__all__ = ["DELTA", "channel_increases", "channel_weights", "feature_map_distance", "probe_channels"]

_ROWS_AT_ONCE = 256


def feature_map_distance(maps: Tensor, base_maps: Tensor, weights_c: Tensor | None = None) -> Tensor:
    """Return the mean over rows of the squared distance between two feature maps, channel by channel weighted.

    Parameters
    ----------
    maps, base_maps : Tensor of shape (b, c, height, width), (b, tokens, c) or (b, c)
        Feature maps. No gradient flows to those of the base model. Half precision is computed in float32.
    weights_c : Tensor of shape (c,), optional
        Weight of each channel; 1 / c without.

    Returns
    -------
    Tensor of shape ()
        At least 0; the squared unit of the maps.

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    Examples
    --------
    >>> maps = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])                     # one row, two channels of two pixels
    >>> feature_map_distance(maps, torch.zeros(1, 2, 1, 2))                     # (5 + 9) / 2
    tensor(7.)
    >>> feature_map_distance(maps, torch.zeros(1, 2, 1, 2), torch.tensor([1.0, 0.0]))
    tensor(5.)
    """
    if maps.shape != base_maps.shape or maps.ndim not in (2, 3, 4):
        raise ShapeError(
            f"feature_map_distance: maps must both be (b, c, height, width), (b, tokens, c) or (b, c); got "
            f"{tuple(maps.shape)} and {tuple(base_maps.shape)}."
        )
    axis = _channel_axis(maps)
    bc = (maps.shape[0], maps.shape[axis])
    squared_bc = (widen(maps) - widen(base_maps.detach())).square().movedim(axis, 1).reshape(*bc, -1).sum(2)
    if weights_c is None:
        return squared_bc.mean(1).mean()
    if tuple(weights_c.shape) != (squared_bc.shape[1],):
        raise ShapeError(
            f"feature_map_distance: needs one weight for each of {squared_bc.shape[1]} channels; got {tuple(weights_c.shape)}."
        )
    return (squared_bc * weights_c.to(squared_bc)).sum(1).mean()


@torch.no_grad()
def channel_increases(
    suffix: Callable[[Tensor], Tensor],
    maps: Tensor,
    labels: Tensor,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
) -> Tensor:
    """Return by how much the loss grows when each channel of a feature map is set to zero.

    Parameters
    ----------
    suffix : callable
        The rest of the network: feature maps in, logits (b, k) out; a network in evaluation mode.
    maps : Tensor of shape (b, c, height, width), (b, tokens, c) or (b, c)
        Feature maps of some rows.
    labels : Tensor
        What ``loss`` expects beside the logits.
    loss : callable
        ``loss(logits, labels)``, a mean over rows.

    Returns
    -------
    Tensor of shape (c,)
        In the unit of the loss; negative where the network does better without the channel.

    Raises
    ------
    ShapeError
        If the maps have another number of dimensions.

    Examples
    --------
    >>> from headstart.objectives.supervised import squared_error
    >>> maps, truth = torch.tensor([[2.0, 3.0]]), torch.tensor([5.0])
    >>> total = lambda maps: maps.sum(1, keepdim=True)
    >>> channel_increases(total, maps, truth, loss=squared_error)              # 3 for 5, 2 for 5
    tensor([4., 9.])
    """
    if maps.ndim not in (2, 3, 4):
        raise ShapeError(f"channel_increases: maps must have 2 to 4 dimensions; got shape {tuple(maps.shape)}.")
    axis, num_rows = _channel_axis(maps), len(maps)
    num_channels, at_once = maps.shape[axis], max(1, _ROWS_AT_ONCE // num_rows)
    whole = loss(suffix(maps), labels)
    increases: list[Tensor] = []
    for first in range(0, num_channels, at_once):
        channels = range(first, min(first + at_once, num_channels))
        removed = []
        for channel in channels:
            without = maps.clone()
            without.select(axis, channel).zero_()
            removed.append(without)
        outputs = torch.split(suffix(torch.cat(removed)), num_rows)
        increases += [loss(output, labels) - whole for output in outputs]
    return torch.stack(increases)


def channel_weights(increases_c: Tensor, *, temperature: float = 1.0, standardise: bool = False) -> Tensor:
    """Return the weight of each channel: the softmax of the increases in loss.

    Parameters
    ----------
    increases_c : Tensor of shape (c,)
        See `channel_increases`.
    temperature : float, above 0
        Divides the increases. The paper has none, the authors' code 5.
    standardise : bool
        Whether mean and standard deviation are taken out first, as in the authors' code.

    Returns
    -------
    Tensor of shape (c,)
        Above 0, summing to 1.

    Raises
    ------
    ShapeError
        If the increases are no vector.

    Examples
    --------
    >>> channel_weights(torch.tensor([0.0, 0.0]))
    tensor([0.5000, 0.5000])
    """
    if increases_c.ndim != 1 or len(increases_c) == 0:
        raise ShapeError(f"channel_weights: increases must be a vector; got shape {tuple(increases_c.shape)}.")
    increases_c = widen(increases_c)
    if standardise:
        spread = increases_c.std(correction=0).clamp_min(torch.finfo(increases_c.dtype).tiny)
        increases_c = (increases_c - increases_c.mean()) / spread
    return torch.softmax(increases_c / temperature, dim=0)


@torch.no_grad()
def probe_channels(
    network: nn.Module,
    inputs: Sequence[Tensor],
    labels: Tensor,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    temperature: float = 1.0,
    standardise: bool = False,
) -> dict[str, list[float]]:
    """Return the channel weights of every segment that may train, for `DELTA`.

    The head ``"main"`` must already know the task (solved on frozen features), for the loss of a removed channel to
    mean anything.
    The cost is one pass of the rest of the network for each channel.

    Parameters
    ----------
    network : nn.Module
        With ``segments``, ``names`` and ``heads``; left in the mode in which it came.
    inputs : sequence of Tensor
        What the first segment takes that is run; a batch of 32 to 64 rows will do.
    labels : Tensor
        Of these rows.
    loss : callable
        ``loss(logits, labels)``, a mean over rows.
    temperature, standardise
        See `channel_weights`.

    Returns
    -------
    dict of str to list of float
        By the segment's name, one weight a channel.

    Examples
    --------
    >>> network = nn.Module()
    >>> network.segments, network.names = nn.ModuleList([nn.Identity()]), ("features",)
    >>> network.heads = nn.ModuleDict({"main": nn.Linear(2, 2)})
    >>> _ = nn.init.zeros_(network.heads["main"].weight)                       # no channel matters
    >>> probe_channels(network, [torch.ones(1, 2)], torch.tensor([0]))
    {'features': [0.5, 0.5]}
    """
    setup = Setup(network, task=cast(Any, None))
    start = int(getattr(network, "start", 0))
    segments, head = list(cast(nn.ModuleList, network.segments))[start:], setup.heads()["main"]
    names = list(cast("tuple[str, ...]", network.names))[start:]
    was_training = network.training
    network.eval()
    found: dict[str, list[float]] = {}
    state: Any = tuple(inputs)
    for number, (name, segment) in enumerate(zip(names, segments, strict=True)):
        state = segment(*state) if isinstance(state, tuple) else segment(state)
        if name in setup.segments():
            suffix = _suffix(segments[number + 1 :], head, state)
            increases_c = channel_increases(suffix, _maps(state), labels, loss=loss)
            weights_c = channel_weights(increases_c, temperature=temperature, standardise=standardise)
            found[name] = weights_c.tolist()
    network.train(was_training)
    return found


class DELTA(Objective):
    """`feature_map_distance` of every segment that may train, and the squared weights of new heads.

    Parameters
    ----------
    alpha : float, at least 0
        Multiplies the distance of the maps.
    beta : float, at least 0
        Multiplies the squared weights of new heads.
    channel_weights : mapping of str to sequence of float, optional
        Weight of each channel by the segment's name, from `probe_channels`; a segment without has uniform ones.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        If a multiplier is negative.

    Examples
    --------
    >>> batch = Batch(activations={"a": torch.tensor([[1.0, 3.0]])}, base_activations={"a": torch.zeros(1, 2)})
    >>> DELTA(alpha=1.0)(batch)                                                # (1 + 9) / 2
    tensor(5.)
    """

    needs = frozenset({"activations", "base_activations"})

    def __init__(
        self,
        alpha: float = 0.01,
        beta: float = 0.01,
        channel_weights: Mapping[str, Sequence[float]] | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_multiplier("DELTA", "alpha", alpha)
        check_multiplier("DELTA", "beta", beta)
        self.alpha, self.beta, self.weight = alpha, beta, weight
        self.channel_weights = (
            None if channel_weights is None else {name: tuple(values) for name, values in channel_weights.items()}
        )
        self._new: list[nn.Parameter] = []
        self._names: frozenset[str] | None = None

    def prepare(self, setup: Setup) -> None:
        """Note which segments may train and which heads are new."""
        self._names, self._new = frozenset(setup.segments()), new_parameters(setup)

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the penalty."""
        names = [name for name in source.activations if self._names is None or name in self._names]
        if not names:
            raise ConfigError("DELTA: needs activations of a segment that trains; the batch holds none.")
        distances = [self._distance(source, name) for name in names]
        grown = squared_norm(parameter for parameter in self._new if parameter.requires_grad)
        distance = torch.stack(distances).sum()
        return self.weight * (self.alpha * distance + self.beta * grown.to(distance.device))

    def _distance(self, batch: Batch, name: str) -> Tensor:
        maps = _maps(self.take(batch, "activations", name))
        base_maps = _maps(self.take(batch, "base_activations", name))
        weights = (self.channel_weights or {}).get(name)
        return feature_map_distance(
            maps, base_maps, None if weights is None else torch.tensor(weights, device=maps.device)
        )


def _channel_axis(maps: Tensor) -> int:
    return 1 if maps.ndim in (2, 4) else 2


def _maps(state: Any) -> Tensor:
    """Return the feature maps of what passes between segments: a tensor, or hidden states before their mask."""
    maps: Tensor = state[0] if isinstance(state, tuple) else state
    return maps


def _suffix(rest: Sequence[nn.Module], head: nn.Module, state: Any) -> Callable[[Tensor], Tensor]:
    """Return the rest of a network as a function of feature maps alone; a mask is repeated for repeated rows."""

    def run(maps: Tensor) -> Tensor:
        current: Any = maps
        if isinstance(state, tuple):
            times = len(maps) // len(state[0])
            current = (maps, *(part.repeat(times, *[1] * (part.ndim - 1)) for part in state[1:]))
        for segment in rest:
            current = segment(*current) if isinstance(current, tuple) else segment(current)
        logits: Tensor = head(_maps(current))
        return logits

    return run
