"""Stochastic normalisation: in training, each channel is normalised by the batch's or by the moving statistics, at random.

    z = gamma ((1 - s) (x - m~) / sqrt(v~ + eps) + s (x - m) / sqrt(v + eps)) + beta        s ~ Bernoulli(p), one draw a channel

Source: Kou, You, Long & Wang, "Stochastic Normalization", NeurIPS 2020, section 3: m and v of the batch, m~ and v~ the moving
statistics before this batch, which goes on updating them. In evaluation the moving statistics alone are used.
Use it when a network with batch normalisation is fine-tuned on few rows. It adds no term: it changes the network.
It ignores layers that do not train, and networks without batch normalisation.
A published conversion (Transfer-Learning-Library) passes p in the place of another argument, so that it always is 0.5. Here p
counts, and the backward pass reads the statistics that the forward pass used, not those updated since.
Shapes: b rows, c channels, then any positions.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core.errors import ConfigError
from headstart.objectives.objective import Batch, Objective, Setup

__all__ = [
    "StochasticBatchNorm",
    "StochasticNormalisation",
    "with_stochastic_normalisation",
    "without_stochastic_normalisation",
]

_PLAIN = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "BatchNormAct2d")


class StochasticBatchNorm(nn.Module):
    """What a batch normalisation becomes; mixed into the layer's own class, so that parameters, buffers and their names stay.

    Attributes
    ----------
    probability : float in [0, 1]
        Of the batch's own statistics, for each channel.
    """

    probability: float

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each channel by one of the two statistics; in evaluation as the plain layer does."""
        if not self.training:
            plain: Tensor = super().forward(input)
            return plain
        layer = cast(Any, self)
        mean_c, variance_c = (
            layer.running_mean.clone(),
            layer.running_var.clone(),
        )  # the update below must not reach them
        moving = functional.batch_norm(input, mean_c, variance_c, layer.weight, layer.bias, False, 0.0, layer.eps)
        layer.num_batches_tracked.add_(1)
        momentum = 1.0 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
        own = functional.batch_norm(
            input, layer.running_mean, layer.running_var, layer.weight, layer.bias, True, momentum, layer.eps
        )
        chosen_c = torch.rand(input.shape[1], device=input.device) < self.probability
        output = torch.where(chosen_c.view(-1, *[1] * (input.ndim - 2)), own, moving)
        if hasattr(layer, "act"):  # timm's layer normalises, drops and activates
            output = layer.act(layer.drop(output))
        return output


def with_stochastic_normalisation(network: nn.Module, probability: float = 0.5) -> nn.Module:
    """Change in place every batch normalisation that trains, and return the network.

    Weights, moving statistics, their names and the network in evaluation mode stay the same. Layers whose parameters need no
    gradient, and those that keep no moving statistics, are left alone.

    Parameters
    ----------
    network : nn.Module
        Changed in place.
    probability : float in [0, 1]
        Of the batch's own statistics; 1 is plain batch normalisation.

    Returns
    -------
    nn.Module
        The network given.

    Raises
    ------
    ConfigError
        If the probability lies outside [0, 1].

    Examples
    --------
    >>> layer = with_stochastic_normalisation(nn.BatchNorm1d(1), probability=0.0)
    >>> layer(torch.tensor([[3.0], [5.0]])).round().tolist()          # moving mean 0, moving variance 1
    [[3.0], [5.0]]
    >>> layer.running_mean.tolist()                                   # 0.9 * 0 + 0.1 * 4
    [0.4000000059604645]
    """
    _check_probability(probability)
    for layer in network.modules():
        if isinstance(layer, StochasticBatchNorm):
            layer.probability = probability
        elif type(layer).__name__ in _PLAIN and _trains(layer):
            layer.__class__ = _stochastic(type(layer))
            cast(Any, layer).probability = probability
    return network


def without_stochastic_normalisation(network: nn.Module) -> nn.Module:
    """Undo `with_stochastic_normalisation` in place, and return the network.

    Examples
    --------
    >>> type(without_stochastic_normalisation(with_stochastic_normalisation(nn.BatchNorm1d(1)))).__name__
    'BatchNorm1d'
    """
    for layer in network.modules():
        if isinstance(layer, StochasticBatchNorm):
            del layer.probability
            layer.__class__ = type(layer).__mro__[2]
    return network


class StochasticNormalisation(Objective):
    """`with_stochastic_normalisation` as part of a joint loss: a term of value 0 that prepares the network.

    Parameters
    ----------
    probability : float in [0, 1]
        Of the batch's own statistics; 1 is plain batch normalisation.

    Raises
    ------
    ConfigError
        If the probability lies outside [0, 1], or no layer of the network can be changed.

    Examples
    --------
    >>> StochasticNormalisation()(Batch())
    tensor(0.)
    """

    weight = 1.0

    def __init__(self, probability: float = 0.5) -> None:
        super().__init__()
        _check_probability(probability)
        self.probability = probability

    def prepare(self, setup: Setup) -> None:
        """Change the batch normalisations of the segments that may train."""
        segments = list(setup.segments().values())
        for segment in segments:
            with_stochastic_normalisation(segment, self.probability)
        if not any(isinstance(layer, StochasticBatchNorm) for segment in segments for layer in segment.modules()):
            raise ConfigError(
                "StochasticNormalisation: the part of the network that trains has no batch normalisation; leave it out."
            )

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return 0."""
        return torch.zeros(())


_CHANGED: dict[type[nn.Module], type[nn.Module]] = {}


def _stochastic(plain: type[nn.Module]) -> type[nn.Module]:
    if plain not in _CHANGED:
        place = {
            "__module__": plain.__module__
        }  # so that what traces a network takes it for the leaf that the plain layer is
        _CHANGED[plain] = type(f"Stochastic{plain.__name__}", (StochasticBatchNorm, plain), place)
    return _CHANGED[plain]


def _trains(layer: Any) -> bool:
    affine = [parameter for parameter in (layer.weight, layer.bias) if parameter is not None]
    return layer.running_mean is not None and (not affine or any(parameter.requires_grad for parameter in affine))


def _check_probability(probability: float) -> None:
    if not 0 <= probability <= 1:
        raise ConfigError(f"StochasticNormalisation: probability lies between 0 and 1; got {probability}.")
