"""Networks that torchvision defines, with their head taken off."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from headstart.backbones.architecture import Architecture, Until
from headstart.backbones.backbone import Backbone
from headstart.backbones.timm_models import image_transform
from headstart.backbones.weights import build_unset, fill, fill_until
from headstart.core.errors import BackboneError, did_you_mean

__all__ = ["build_torchvision", "take_head", "torchvision_backbone"]


def create(architecture: Architecture, num_classes: int) -> nn.Module:
    """Return torchvision's network with random weights and a head of ``num_classes`` outputs."""
    from torchvision import models

    known = models.list_models(module=models)
    if architecture.name not in known:
        raise BackboneError(
            f"open_backbone: torchvision knows no network {architecture.name!r} for classification."
            + did_you_mean(architecture.name, known)
        )
    arguments = {key: item for key, item in architecture.arguments.items() if key != "num_classes"}
    if architecture.name in {"inception_v3", "googlenet"}:
        arguments = {"aux_logits": False, "init_weights": True, **arguments}
    try:
        network: nn.Module = models.get_model(architecture.name, weights=None, num_classes=num_classes, **arguments)
    except (TypeError, ValueError) as error:
        raise BackboneError(
            f"open_backbone: torchvision cannot build {architecture.name} with {arguments} ({error})."
        ) from error
    return network


def take_head(network: nn.Module, name: str) -> nn.Linear | None:
    """Take the classifier off in place; return it when it is linear in the features.

    The last linear layer becomes the identity. A network that classifies by a convolution (SqueezeNet) keeps the mean
    over places of what that convolution saw, and has no linear head.
    """
    for path, layer in reversed(list(network.named_modules())):
        parent = network.get_submodule(path.rpartition(".")[0])
        if isinstance(layer, nn.Linear):
            setattr(parent, path.rpartition(".")[2], nn.Identity())
            return layer
        if isinstance(layer, nn.Conv2d):
            network.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1))
            return None
    raise BackboneError(f"open_backbone: torchvision's {name} has no classifier that can be taken off.")


def build_torchvision(architecture: Architecture) -> nn.Module:
    """Return the headless network with random weights."""
    network = create(architecture, 2)
    take_head(network, architecture.name)
    return network


def torchvision_backbone(
    architecture: Architecture,
    weights: dict[str, Tensor],
    *,
    name: str,
    origin: str,
    licence: str = "unknown",
    config: dict[str, Any] | None = None,
    input_size: int | tuple[int, int] | None = None,
    until: Until | None = None,
) -> Backbone:
    """Return a torchvision network filled with ``weights``, its source head taken off and kept beside it.

    With ``until``, a stage and a pooling, it ends there, and weights behind that may be missing; see `Backbone.until`.
    """
    bare = Architecture("torchvision", architecture.name, _without(architecture.arguments, "num_classes"))
    weights = {key: tensor for key, tensor in weights.items() if not key.lower().startswith("aux")}
    network = build_unset(lambda: build_torchvision(bare))
    transform = image_transform({**_native(bare.name), **(config or {})}, input_size)
    row_shape = (3, transform.height, transform.width)
    head = None
    if until is not None:
        fill_until(network, weights, origin, until[0], row_shape, set(create(bare, 2).state_dict()))
    elif weights.keys() - network.state_dict().keys():  # more than the headless network: a source head is among them
        num_classes = _classes(weights, network)
        network = build_unset(lambda: create(bare, num_classes))
        fill(network, weights, origin)
        head = take_head(network, bare.name)
    else:
        fill(network, weights, origin)
    with torch.no_grad():
        width = network.eval()(torch.zeros(1, *row_shape)).shape[1]
    backbone = Backbone(
        bare, network, transform, name=name, width=int(width), licence=licence, origin=origin, source_head=head
    )
    return backbone if until is None else backbone.until(*until)


def _native(name: str) -> dict[str, Any]:
    """Return the preprocessing torchvision states for the first weights it published for a network."""
    from torchvision import models

    first = next(iter(models.get_model_weights(name)), None)
    return preset(first) if first is not None else {"interpolation": "bilinear"}


def preset(weights: Any) -> dict[str, Any]:
    """Return the preprocessing of one of torchvision's weights in the words of timm's configurations."""
    said = weights.transforms()
    crop, resize = int(said.crop_size[0]), int(said.resize_size[0])
    return {
        "input_size": [3, crop, crop],
        "crop_pct": crop / resize,
        "interpolation": said.interpolation.value,
        "mean": list(said.mean),
        "std": list(said.std),
    }


def _without(arguments: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: item for name, item in arguments.items() if name != key}


def _classes(weights: dict[str, Tensor], headless: nn.Module) -> int:
    """Return the number of outputs of the source head: the rows of the tensors the headless network lacks."""
    for key in reversed(list(weights)):
        if key.endswith("bias") and key not in headless.state_dict():
            return int(weights[key].shape[0])
    return 1000
