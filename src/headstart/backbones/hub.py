"""Weights by name: the user's weights folder first, then what a hub library has kept on this machine, then the hub.

A hub is asked only when nothing local answers and no switch says offline. What a user puts by hand lies in
``weights_folder()/<library>/<name>``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NoReturn

import torch

from headstart.backbones.architecture import Architecture, Until
from headstart.backbones.backbone import Backbone
from headstart.backbones.local import open_local
from headstart.backbones.torchvision_models import preset
from headstart.core.errors import BackboneError, OfflineError, did_you_mean
from headstart.core.files import atomic_path, write_json
from headstart.core.places import offline, weights_folder

__all__ = ["open_timm", "open_torchvision", "open_transformers"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_WANTED = ["*.json", "*.txt", "*.model", "*.safetensors", "README.md", "1_Pooling/config.json"]
_UNWANTED = ["onnx/*", "openvino/*", "*.msgpack", "*.h5", "*.bin", "*.pth", "*.pt"]


def open_timm(name: str, input_size: int | tuple[int, int] | None = None, until: Until | None = None) -> Backbone:
    """Return timm's network of this name, such as ``"resnet50"`` or ``"resnet50.a1_in1k"``, with its weights.

    With ``until``, a stage and a pooling, it ends there; see `Backbone.until`.
    """
    import timm

    _check_name("timm", name)
    base = name.split(".", maxsplit=1)[0]
    if not timm.is_model(base):
        raise BackboneError(
            f"open_backbone: timm knows no network {name!r}; `timm.list_models()` lists them."
            + did_you_mean(name, timm.list_models())
        )
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    repository = getattr(config, "hf_hub_id", None)
    tag = getattr(config, "tag", None)
    aliases = [name, *([f"{base}.{tag}"] if tag else [])]
    path = _by_hand("timm", aliases) or _from_hub("timm", name, repository, "config.json and model.safetensors")
    said: dict[str, Any] = config.to_dict() if path.is_file() and config is not None else {}  # type: ignore[no-untyped-call]
    return open_local(
        path,
        name=f"timm:{name}",
        origin=f"timm's {repository or name}" if path.is_dir() else str(path),
        architecture=None if (path / "config.json").is_file() else Architecture("timm", base),
        config=said,
        input_size=input_size,
        until=until,
    )


def open_transformers(name: str, part: str = "") -> Backbone:
    """Return the encoder of a repository of this name, such as ``"google-bert/bert-base-uncased"``, or of a folder.

    Parameters
    ----------
    part : {"", "text", "image"}
        Which half of a network that has both.
    """
    if part not in {"", "text", "image"}:
        raise BackboneError(f"open_backbone: after '#' comes text or image; got {part!r}.")
    path = Path(name).expanduser()
    if not path.is_dir():
        _check_name("transformers", name)
        files = "config.json, model.safetensors and the tokenizer's or preprocessor's files"
        path = _by_hand("transformers", [name]) or _from_hub("transformers", name, name, files)
    return open_local(
        path,
        name=f"transformers:{name}" + (f"#{part}" if part else ""),
        origin=f"the hub's {name}" if str(path) != name else name,
        modality=part or None,  # type: ignore[arg-type]
    )


def open_torchvision(
    name: str, input_size: int | tuple[int, int] | None = None, until: Until | None = None
) -> Backbone:
    """Return torchvision's network of this name, such as ``"resnet50"``, with its default weights.

    With ``until``, a stage and a pooling, it ends there; see `Backbone.until`.
    """
    from torchvision import models

    _check_name("torchvision", name)
    known = models.list_models(module=models)
    if name not in known:
        raise BackboneError(
            f"open_backbone: torchvision knows no classification network {name!r}." + did_you_mean(name, known)
        )
    path = _by_hand("torchvision", [name]) or _from_torchvision(name)
    return open_local(
        path,
        name=f"torchvision:{name}",
        origin=f"torchvision's {name}",
        architecture=Architecture("torchvision", name),
        input_size=input_size,
        until=until,
    )


def _check_name(library: str, name: str) -> None:
    if not _NAME.fullmatch(name) or ".." in name:
        raise BackboneError(
            f"open_backbone: a name in {library} holds letters, digits, '.', '_', '-' and at most one '/'; got {name!r}."
        )


def _by_hand(library: str, names: list[str]) -> Path | None:
    """Return what the user put into the weights folder under one of these names."""
    for name in names:
        folder = weights_folder() / library / name
        if folder.is_dir():
            return folder
        if (file := folder.with_name(folder.name + ".safetensors")).is_file():
            return file
    return None


def _from_hub(library: str, name: str, repository: str | None, files: str) -> Path:
    """Return the folder of a repository: kept on this machine by an earlier download, or downloaded now."""
    if repository is None:
        _unreachable(library, name, "no hub has them in a safe format", files)
    import huggingface_hub
    from huggingface_hub import errors

    def snapshot(local: bool) -> Path | None:
        folder = Path(
            huggingface_hub.snapshot_download(
                repository, allow_patterns=_WANTED, ignore_patterns=_UNWANTED, local_files_only=local
            )
        )
        return folder if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")) else None

    try:
        if (kept := snapshot(local=True)) is not None:
            return kept
    except (errors.LocalEntryNotFoundError, OSError, ValueError):
        pass  # not on this machine yet
    if offline():
        _unreachable(library, name, "the machine is set to work offline", f"{files} of {repository}")
    try:
        fetched = snapshot(local=False)
    except (errors.RepositoryNotFoundError, errors.GatedRepoError) as error:
        raise BackboneError(
            f"open_backbone: the hub has no repository {repository!r} that anyone may read; "
            "check the name, or put its files into " + str(weights_folder() / library / name) + "."
        ) from error
    except Exception as error:  # whatever the network library raises
        _unreachable(library, name, f"the hub cannot be reached ({type(error).__name__})", f"{files} of {repository}")
    if fetched is None:
        raise BackboneError(
            f"open_backbone: the repository {repository!r} holds no config.json or no .safetensors; other formats can "
            "run code when read: choose a repository that has safetensors."
        )
    return fetched


def _from_torchvision(name: str) -> Path:
    """Return torchvision's default weights as safetensors, read once with torch's restricted loader."""
    from safetensors.torch import save_file
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    kept = weights_folder() / "torchvision" / f"{name}.safetensors"
    downloaded = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[1]
    if not downloaded.is_file() and offline():
        _unreachable("torchvision", name, "the machine is set to work offline", f"its weights as {name}.safetensors")
    try:
        tensors = torch.hub.load_state_dict_from_url(weights.url, progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # whatever the network library raises
        why = f"they cannot be fetched ({type(error).__name__})"
        _unreachable("torchvision", name, why, f"its weights as {name}.safetensors")
    with atomic_path(kept) as temporary:
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, temporary)
    said = {"arch": f"torchvision.models.{name}", "licence": "BSD-3-Clause", **preset(weights)}
    write_json(kept.with_suffix(".json"), said)
    return kept


def _unreachable(library: str, name: str, why: str, files: str) -> NoReturn:
    folder = weights_folder() / library / (Path(name).parent if library == "torchvision" else name)
    raise OfflineError(
        f"open_backbone: the weights of {library}:{name} are not on this machine and {why}; "
        f"put {files} into {folder}, or set HEADSTART_WEIGHTS to another folder."
    )
