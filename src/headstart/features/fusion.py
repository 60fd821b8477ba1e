"""Batch normalisation folded into the convolution before it: the same function, one pass over memory less.

    W' = W * g / sqrt(v + e)        b' = (b - m) * g / sqrt(v + e) + beta

Pairs are found by running one row: a normalisation that is given the very tensor a convolution has just returned. A fused copy
is kept only if it gives what the network gives, so a network in which a convolution's output is also used elsewhere stays whole.
"""

from __future__ import annotations

import copy
import weakref
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["fuse_normalisation"]

_TOLERANCE = 1e-3


def fuse_normalisation(network: nn.Module, example: tuple[Tensor, ...]) -> nn.Module:
    """Return a copy of an evaluation-mode network with every such pair fused, or the network itself where none can be.

    Parameters
    ----------
    network : nn.Module
        Stays as it is.
    example : tuple of Tensor
        Its arguments for a row or two, float32.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).eval()
    >>> fuse_normalisation(network, (torch.ones(1, 1, 2, 2),))
    Sequential(
      (0): Conv2d(1, 1, kernel_size=(1, 1), stride=(1, 1))
      (1): Identity()
    )
    """
    pairs = _pairs(network, example)
    if not pairs:
        return network
    fused = copy.deepcopy(network)
    for convolution_name, normalisation_name in pairs:
        convolution, normalisation = fused.get_submodule(convolution_name), fused.get_submodule(normalisation_name)
        assert isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d)
        _fold(convolution, normalisation)
        parent, _, own = normalisation_name.rpartition(".")
        setattr(fused.get_submodule(parent), own, _rest(normalisation))
    with torch.no_grad():
        wanted, got = network(*example), fused(*example)
    gap = float((wanted - got).norm() / wanted.norm().clamp_min(1e-12))
    return fused if gap <= _TOLERANCE else network


def _pairs(network: nn.Module, example: tuple[Tensor, ...]) -> list[tuple[str, str]]:
    """Return the names of every convolution and the normalisation that is given its output; each is met once."""
    returned: dict[int, tuple[str, weakref.ref[Tensor]]] = {}
    pairs: list[tuple[str, str]] = []
    calls: dict[str, int] = {}

    def hook(name: str, module: nn.Module) -> Any:
        def note(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if isinstance(module, nn.Conv2d):
                returned[id(output)] = name, weakref.ref(output)
            elif inputs and id(inputs[0]) in returned:
                source, alive = returned[id(inputs[0])]
                if alive() is inputs[0]:
                    pairs.append((source, name))

        return module.register_forward_hook(note)

    parts = [(name, part) for name, part in network.named_modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d)]
    hooks = [hook(name, part) for name, part in parts]
    try:
        with torch.no_grad():
            network(*example)
    finally:
        for item in hooks:
            item.remove()
    return [(first, second) for first, second in pairs if calls[first] == calls[second] == 1]


def _fold(convolution: nn.Conv2d, normalisation: nn.BatchNorm2d) -> None:
    mean, variance = normalisation.running_mean, normalisation.running_var
    assert mean is not None and variance is not None
    with torch.no_grad():
        scale = torch.rsqrt(variance + normalisation.eps)
        if normalisation.weight is not None:
            scale = scale * normalisation.weight
        old_bias = convolution.bias if convolution.bias is not None else torch.zeros_like(mean)
        new_bias = (old_bias - mean) * scale + (normalisation.bias if normalisation.bias is not None else 0)
        convolution.weight.mul_(scale.view(-1, 1, 1, 1))
        convolution.bias = nn.Parameter(new_bias, requires_grad=False)


def _rest(normalisation: nn.BatchNorm2d) -> nn.Module:
    """Return what is left of a normalisation: nothing, or the activation that timm puts inside it."""
    inside = [part for name in ("drop", "act") if isinstance(part := getattr(normalisation, name, None), nn.Module)]
    return nn.Sequential(*inside) if inside else nn.Identity()
