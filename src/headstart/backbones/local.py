"""Weights in a file or folder of the user's: which library they belong to, and everything said beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NoReturn

from headstart.backbones.architecture import Architecture, Until
from headstart.backbones.backbone import Backbone
from headstart.backbones.timm_models import parse_architecture, timm_backbone
from headstart.backbones.transformers_models import open_transformers_folder, read_json
from headstart.backbones.weights import read_safetensors
from headstart.core.errors import BackboneError

__all__ = ["open_local"]

InputSize = int | tuple[int, int] | None
_CODECS = {".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle", ".h5", ".keras", ".onnx", ".tflite", ".gguf"}


def open_local(
    path: Path,
    *,
    name: str | None = None,
    origin: str | None = None,
    architecture: Architecture | None = None,
    config: dict[str, Any] | None = None,
    input_size: InputSize = None,
    modality: Literal["image", "text"] | None = None,
    until: Until | None = None,
) -> Backbone:
    """Return the backbone of a ``.safetensors`` file, or of a folder in timm's or transformers' format.

    Parameters
    ----------
    architecture : Architecture, optional
        For a file that names none: neither in a ``.json`` of its name, nor in ``config.json`` beside it, nor in its
        own header.
    config : dict, optional
        Preprocessing in timm's words, where nothing beside the file says otherwise.
    modality : {"image", "text"}, optional
        Which half of a transformers network that has both.
    until : (stage, pool), optional
        Where the network ends; of timm's and torchvision's, weights behind that may be missing. See `Backbone.until`.

    Raises
    ------
    BackboneError
        If the path holds no weights, the architecture is not named, or any tensor does not fit.
    """
    name, origin = name or str(path), origin or str(path)
    if path.is_dir():
        return _open_folder(path, name, origin, architecture, input_size, modality, until)
    if path.suffix != ".safetensors":
        reason = "such files can run code when read" if path.suffix in _CODECS else "it is not a file of weights"
        raise BackboneError(f"open_backbone: weights are read from .safetensors files only; got {path} ({reason}).")
    weights, header = read_safetensors(path)
    if (sidecar := path.with_suffix(".json")).is_file():
        said = read_json(sidecar)
    elif (beside := path.with_name("config.json")).is_file():
        said = read_json(beside)
    else:
        said = {}
    if "model_type" in said and "architecture" not in said and "arch" not in said:
        return _open_folder(path.parent, name, origin, architecture, input_size, modality, until)
    architecture = _architecture(said, header) or architecture
    if architecture is None:
        _refuse_nameless(path)
    settings = {**_config(config or {}), **_config(said)}
    if architecture.source == "torchvision":
        from headstart.backbones.torchvision_models import torchvision_backbone

        return torchvision_backbone(
            architecture,
            weights,
            name=name,
            origin=origin,
            licence=_licence(said),
            config=config,
            input_size=input_size,
            until=until,
        )
    return timm_backbone(
        architecture,
        weights,
        name=name,
        origin=origin,
        licence=_licence(said),
        config=settings,
        input_size=input_size,
        until=until,
    )


def _open_folder(
    path: Path,
    name: str,
    origin: str,
    architecture: Architecture | None,
    input_size: InputSize,
    modality: Literal["image", "text"] | None,
    until: Until | None,
) -> Backbone:
    if (path / "config.json").is_file():
        said = read_json(path / "config.json")
        if "model_type" in said:
            if input_size is not None:
                raise BackboneError(
                    "open_backbone: input_size can be chosen for timm's and torchvision's networks only; "
                    f"{path} is transformers' {said['model_type']}."
                )
            backbone = open_transformers_folder(path, name=name, origin=origin, modality=modality)
            return backbone if until is None else backbone.until(*until)
    for file in ("model.safetensors", *sorted(item.name for item in path.glob("*.safetensors"))):
        if (path / file).is_file():
            return open_local(
                path / file, name=name, origin=origin, architecture=architecture, input_size=input_size, until=until
            )
    found = ", ".join(sorted(item.name for item in path.iterdir())[:8]) or "nothing"
    raise BackboneError(
        f"open_backbone: {path} must hold config.json and model.safetensors, as hubs lay them out; it holds {found}."
    )


def _architecture(said: dict[str, Any], header: dict[str, str]) -> Architecture | None:
    """Return the architecture the sidecar names, else the header's."""
    arguments = said.get("model_args") or {}
    for key in ("architecture", "arch", "timm_arch"):
        if isinstance(expression := said.get(key) or header.get(key), str):
            parsed = parse_architecture(expression)
            return Architecture(parsed.source, parsed.name, {**arguments, **parsed.arguments})
    return None


def _refuse_nameless(path: Path) -> NoReturn:
    raise BackboneError(
        f"open_backbone: {path} does not say which network it fills; write "
        f'{{"architecture": "resnet50"}} (a timm name) into {path.with_suffix(".json").name} beside it.'
    )


def _config(said: dict[str, Any]) -> dict[str, Any]:
    """Return preprocessing and head names, from timm's ``pretrained_cfg`` or from the top level."""
    keys = ("input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std", "classifier")
    inner = said.get("pretrained_cfg") or {}
    return {key: inner.get(key, said.get(key)) for key in keys if inner.get(key, said.get(key)) is not None}


def _licence(said: dict[str, Any]) -> str:
    inner = said.get("pretrained_cfg") or {}
    return str(said.get("licence") or said.get("license") or inner.get("license") or "unknown")
