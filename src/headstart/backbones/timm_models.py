"""Networks that timm defines: building them, taking their head off, reading their preprocessing."""

from __future__ import annotations

import ast
import math
from typing import Any, get_args

from torch import Tensor, nn

from headstart.backbones.architecture import Architecture, Until
from headstart.backbones.backbone import Backbone
from headstart.backbones.weights import build_unset, fill, fill_until
from headstart.core.errors import BackboneError, did_you_mean
from headstart.core.preprocessing import ImageTransform, Interpolation

__all__ = ["build_timm", "is_timm_name", "parse_architecture", "pretrained_config", "timm_backbone"]

# Families that timm defines without giving each width a public name.
_FAMILIES = {"timm.models.efficientnet._gen_mobilenet_v1": "_gen_mobilenet_v1"}
_FIT = {"center": "crop", "squash": "squash", "border": "pad"}


def is_timm_name(name: str) -> bool:
    """Return whether timm knows a network of this name, with or without a ``.tag``."""
    import timm

    return bool(timm.is_model(name.split(".", maxsplit=1)[0]))


def parse_architecture(expression: str) -> Architecture:
    """Return the architecture a weights file names: a plain timm name, or one call or path of an allow-list.

    The expression is read as syntax, never run.

    Raises
    ------
    BackboneError
        If it is anything else.

    Examples
    --------
    >>> parse_architecture("resnet18").name
    'resnet18'
    >>> parse_architecture("timm.create_model('mobilenetv2_100', pad_type='same')").arguments
    {'pad_type': 'same'}
    >>> parse_architecture("torchvision.models.squeezenet1_0").source
    'torchvision'
    """
    refusal = BackboneError(
        f"open_backbone: the weights name the architecture {expression!r}, which is not understood; use a timm name, "
        '"timm.create_model(\'NAME\', ...)" or "torchvision.models.NAME", with plain values as arguments.'
    )
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
        if isinstance(tree, ast.Call):
            path = ast.unparse(tree.func)
            positional = [ast.literal_eval(value) for value in tree.args]
            named = {str(item.arg): ast.literal_eval(item.value) for item in tree.keywords}
            if "None" in named:  # ** hides its names
                raise refusal
        else:
            path, positional, named = ast.unparse(tree), [], {}
    except (SyntaxError, ValueError) as error:
        raise refusal from error
    if path.startswith("torchvision.models."):
        return Architecture("torchvision", path.rsplit(".", 1)[1], named)
    if path == "timm.create_model" and len(positional) == 1:
        return Architecture("timm", str(positional[0]), named)
    if path in _FAMILIES and len(positional) == 1:
        return Architecture("timm", str(positional[0]), {"family": _FAMILIES[path], **named})
    if path.replace(".", "").isidentifier() and not positional and is_timm_name(path):
        return Architecture("timm", path, named)
    raise refusal


def create(architecture: Architecture, num_classes: int) -> nn.Module:
    """Return timm's network with random weights and a head of ``num_classes`` outputs; 0 means without a head."""
    import timm
    from timm.models import efficientnet

    arguments: dict[str, Any] = {
        key: tuple(item) if isinstance(item, list) else item for key, item in architecture.arguments.items()
    }
    arguments["num_classes"] = num_classes
    family: str | None = arguments.pop("family", None)
    if family is not None and family not in _FAMILIES.values():
        raise BackboneError(f"open_backbone: family is one of {', '.join(_FAMILIES.values())}; got {family!r}.")
    if family is None and not is_timm_name(architecture.name):
        raise BackboneError(
            f"open_backbone: timm knows no network {architecture.name!r}; `timm.list_models()` lists them."
            + did_you_mean(architecture.name, timm.list_models())
        )
    try:
        if family is not None:
            network: nn.Module = getattr(efficientnet, family)(architecture.name, **arguments)
        else:
            network = timm.create_model(architecture.name, pretrained=False, **arguments)
    except (TypeError, ValueError, RuntimeError, KeyError, AssertionError) as error:
        raise BackboneError(
            f"open_backbone: timm cannot build {architecture.name} with {architecture.arguments} ({error})."
        ) from error
    return network


def build_timm(architecture: Architecture) -> nn.Module:
    """Return the headless network with random weights."""
    return create(architecture, 0)


def pretrained_config(network: nn.Module) -> dict[str, Any]:
    """Return the preprocessing and head names timm keeps with a network."""
    return dict(getattr(network, "pretrained_cfg", None) or {})


def image_transform(config: dict[str, Any], size: int | tuple[int, int] | None = None) -> ImageTransform:
    """Return a timm configuration's preprocessing, at another size when one is given.

    Examples
    --------
    >>> image_transform({"input_size": (3, 64, 64), "crop_pct": 0.5, "interpolation": "bilinear"}).resize_height
    128
    """
    channels, height, width = config.get("input_size") or (3, 224, 224)
    if channels != 3:
        raise BackboneError(
            f"open_backbone: images have 3 channels here, the network wants {channels}; choose another."
        )
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
    return ImageTransform(
        height=int(height),
        width=int(width),
        crop_fraction=float(config.get("crop_pct") or 0.875),
        interpolation=_filter(config.get("interpolation")),
        mean=_triple(config.get("mean"), (0.485, 0.456, 0.406)),
        std=_triple(config.get("std"), (0.229, 0.224, 0.225)),
        fit=_FIT.get(str(config.get("crop_mode") or "center"), "crop"),  # type: ignore[arg-type]
    )


def _filter(said: Any) -> Interpolation:
    """Return the resize filter; a network trained with several at random gets bicubic, as timm does."""
    return said if said in get_args(Interpolation) else "bicubic"


def _triple(values: Any, default: tuple[float, float, float]) -> tuple[float, float, float]:
    numbers = [float(value) for value in values] if values else list(default)
    if len(numbers) not in (1, 3) or not all(math.isfinite(number) for number in numbers):
        raise BackboneError(f"open_backbone: mean and std have one finite number for each channel; got {values!r}.")
    first, second, third = numbers * 3 if len(numbers) == 1 else numbers
    return first, second, third


def timm_backbone(
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
    """Return a timm network filled with ``weights``, its source head taken off and kept beside it.

    Parameters
    ----------
    config : dict, optional
        Preprocessing and head names that go before timm's own for this network.
    input_size : int or (height, width), optional
        Another input size than the network's own; networks with position tables are resampled to it.
    until : (stage, pool), optional
        Where it ends; weights behind that may be missing. See `Backbone.until`.
    """
    arguments = {key: value for key, value in architecture.arguments.items() if key != "num_classes"}
    architecture = Architecture("timm", architecture.name, arguments)
    given = {key: item for key, item in (config or {}).items() if item is not None}
    num_classes = _source_classes(weights, given.get("classifier") or _classifier_names(architecture.name))
    network = build_unset(lambda: create(architecture, num_classes))
    settings = {**pretrained_config(network), **given}
    names = set(network.state_dict())
    if until is None:
        fill(network, weights, origin)
    source_head = None
    if num_classes:
        classifier = network.get_classifier()  # type: ignore[operator]
        whole = len(network.state_dict())
        network.reset_classifier(0)  # type: ignore[operator]
        if isinstance(classifier, nn.Linear) and whole - len(network.state_dict()) == len(classifier.state_dict()):
            source_head = classifier  # the only head there was
    if until is not None:
        native = image_transform(settings)
        fill_until(network, weights, origin, until[0], (3, native.height, native.width), names)
    transform = image_transform(settings, input_size)
    if input_size is not None and hasattr(network, "set_input_size"):
        network.set_input_size((transform.height, transform.width))  # type: ignore[operator]
        architecture = Architecture(
            "timm", architecture.name, {**arguments, "img_size": [transform.height, transform.width]}
        )
    width = int(getattr(network, "head_hidden_size", None) or network.num_features)  # type: ignore[arg-type]
    backbone = Backbone(
        architecture,
        network,
        transform,
        name=name,
        width=width,
        licence=licence,
        origin=origin,
        source_head=source_head,
    )
    return backbone if until is None else backbone.until(*until)


def _classifier_names(name: str) -> str | tuple[str, ...]:
    """Return what timm calls the source head of a network, without building it."""
    import timm

    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return getattr(config, "classifier", None) or ()


def _source_classes(weights: dict[str, Tensor], names: str | tuple[str, ...]) -> int:
    """Return the number of outputs of the source head among ``weights``; 0 when they hold no head."""
    for name in (names,) if isinstance(names, str) else names:
        for key in (f"{name}.bias", f"{name}.weight"):
            if key in weights:
                return int(weights[key].shape[0])
    return 0
