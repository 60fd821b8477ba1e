"""The model folder: written whole or not at all, checked byte by byte before anything in it is believed.

    model.json            what the model is and where it came from, with the digest of every other file
    model.safetensors     backbone, head and novelty tensors
    tokenizer/            texts only
    README.md             model card

Nothing in the folder is code and nothing is unpickled. `load_model` refuses a file that is missing, changed or
named outside the folder, and a ``model.json`` that is not byte for byte what headstart writes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.digests import digest_file, digest_json
from headstart.core.errors import ModelError
from headstart.core.files import atomic_path, own_folder, remove_leftovers, write_text
from headstart.core.preprocessing import TextTransform, View
from headstart.core.tasks import Task
from headstart.core.version import VERSION
from headstart.model.card import model_card
from headstart.model.model import Model
from headstart.model.model_heads import load_model_head

__all__ = ["FORMAT", "find_model", "load_model", "save_model"]

FORMAT = 1
_ASIDE = ".headstart.old"
_LONGEST_PATH = 4096
_LIMIT = 64 << 20  # a model.json larger than this is not ours


def save_model(model: Model, folder: Path) -> Path:
    """Write a model folder; an older model of the same name is replaced only when the new one is complete.

    Raises
    ------
    ModelError
        If the folder exists and is not a model folder, or cannot be written (full disk, no permission).
    """
    from safetensors.numpy import save_file

    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / "model.json").is_file():
        raise ModelError(f"save_model: {folder} exists and is not a model folder; choose another name or remove it.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with own_folder(folder) as own:
            building = own / "model"
            building.mkdir()
            with atomic_path(building / "model.safetensors") as temporary:
                save_file(_tensors(model), temporary)
            if isinstance(model.backbone.transform, TextTransform):
                (building / "tokenizer").mkdir()
                model.backbone.save_tokenizer(building / "tokenizer")
            write_text(building / "README.md", model_card(model))
            files = sorted(path for path in building.rglob("*") if path.is_file())
            content = _description(model)
            content["files"] = {path.relative_to(building).as_posix(): digest_file(path) for path in files}
            content["digest"] = digest_json(content)
            write_text(building / "model.json", _as_text(content))
            _take_the_place(building, folder)
    except OSError as error:
        raise ModelError(
            f"save_model: {folder} cannot be written: {error.strerror or error}; free space or choose another place."
        ) from error
    model.folder = folder
    return folder


def _take_the_place(building: Path, folder: Path) -> None:
    """Put the finished folder under its name; the old one moves aside first and goes only when the new one stands.

    A process that is killed between the two leaves the old one aside; it goes when a later model stands.
    """
    if not folder.exists():
        building.rename(folder)
        remove_leftovers(folder.parent, f".{folder.name}.", _ASIDE)
        return
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=_ASIDE))
    folder.replace(aside / "old")
    try:
        building.rename(folder)
    except OSError:
        (aside / "old").replace(folder)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    remove_leftovers(folder.parent, f".{folder.name}.", _ASIDE)


def find_model(source: Any) -> Path | None:
    """Return the model folder that a path names, a run's folder standing for the model it holds; None for anything else.

    It is known by its ``model.json``, as `save_model` writes it last.

    Examples
    --------
    >>> find_model("no such folder") is None, find_model([1.0]) is None
    (True, True)
    """
    if not isinstance(source, str | Path) or len(str(source)) >= _LONGEST_PATH or "\0" in str(source):
        return None
    for folder in (Path(source), Path(source) / "model"):
        if folder.is_dir() and (folder / "model.json").is_file():
            return folder
    return None


def load_model(folder: str | Path) -> Model:
    """Read a model folder back.

    Parameters
    ----------
    folder : str or Path
        What `save_model` wrote, or a run folder that holds it under ``model``.

    Raises
    ------
    ModelError
        If anything is missing, damaged, made by a newer format, or names a file outside the folder.
    """
    from safetensors.torch import load_file

    from headstart.backbones import build_backbone

    folder = find_model(folder) or Path(folder)
    content = _read_description(folder)
    _check_files(folder, content)
    tensors = load_file(folder / "model.safetensors")
    try:
        weights = {name.removeprefix("backbone."): t for name, t in tensors.items() if name.startswith("backbone.")}
        tokenizer = folder / "tokenizer" if (folder / "tokenizer").is_dir() else None
        backbone = build_backbone(content["backbone"], weights, tokenizer)
        head = load_model_head(content["head"], _part(tensors, "head."))
        novelty = _load_novelty(content.get("novelty"), _part(tensors, "novelty."))
        return Model(
            backbone=backbone,
            head=head,
            task=Task.from_dict(content["task"]),
            novelty=novelty,
            views=tuple(View(**view) for view in content["views"]),
            runtime=content["runtime"],
            provenance=content["provenance"],
            folder=folder,
            unknown_above=_share(content.get("unknown_above")),
            feature_names=tuple(str(name) for name in content.get("feature_names", ())),
            content_column=str(content.get("content_column", "")),
        )
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"load_model: {folder}/model.json lacks or misstates {error}; save the model again."
        ) from error


def _share(value: Any) -> float | None:
    if value is not None and not (isinstance(value, float) and 0 < value < 1):
        raise TypeError(f"unknown_above {value!r}")
    return value


def _tensors(model: Model) -> dict[str, NDArray[Any]]:
    tensors = {f"backbone.{name}": tensor.numpy() for name, tensor in model.backbone.state_dict().items()}
    tensors |= {f"head.{name}": np.ascontiguousarray(array) for name, array in model.head.state().items()}
    if model.novelty is not None:
        tensors |= {f"novelty.{name}": np.ascontiguousarray(array) for name, array in model.novelty.state().items()}
    return tensors


def _description(model: Model) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "headstart": VERSION,
        "task": model.task.to_dict(),
        "backbone": model.backbone.spec(),
        "weights_digest": model.backbone.weights_digest,
        "head": model.head.config(),
        "novelty": None if model.novelty is None else model.novelty.config(),
        "views": [vars(view) for view in model.views],
        "runtime": model.runtime,
        **({} if model.unknown_above is None else {"unknown_above": model.unknown_above}),
        "feature_names": list(model.feature_names),
        **({"content_column": model.content_column} if model.content_column else {}),
        "provenance": model.provenance,
    }


def _as_text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    if not path.is_file():
        raise ModelError(f"load_model: {folder} holds no model.json; give the folder that `fit` wrote.")
    if path.stat().st_size > _LIMIT:
        raise ModelError(f"load_model: {path} is larger than {_LIMIT >> 20} MB; this is not a model headstart wrote.")
    text = path.read_bytes()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"load_model: {path} is damaged ({error}); restore it from a copy.") from error
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise ModelError(f"load_model: {path} is not a model description; give the folder that `fit` wrote.")
    if content["format"] > FORMAT:
        raise ModelError(
            f"load_model: {path} has format {content['format']}, this headstart reads up to {FORMAT}; upgrade headstart."
        )
    stated = content.pop("digest", None)
    again = {**content, "digest": digest_json(content)}
    if stated != again["digest"] or _as_text(again).encode() != text:
        raise ModelError(f"load_model: {path} was changed after it was written; restore it from a copy.")
    return content


def _check_files(folder: Path, content: dict[str, Any]) -> None:
    files = content.get("files")
    if not isinstance(files, dict) or "model.safetensors" not in files:
        raise ModelError(f"load_model: {folder}/model.json lists no model.safetensors; save the model again.")
    for name, stated in files.items():
        relative = PurePosixPath(name)
        inside = folder.resolve() / relative
        if (
            relative.is_absolute()
            or ".." in relative.parts
            or "\\" in name
            or not inside.resolve().is_relative_to(folder.resolve())
        ):
            raise ModelError(
                f"load_model: {folder}/model.json names {name!r}, outside the folder; do not trust this model."
            )
        if not inside.is_file():
            raise ModelError(f"load_model: {folder} lacks {name}; restore it from a copy.")
        if digest_file(inside) != stated:
            raise ModelError(
                f"load_model: {folder / relative} was changed after it was written; restore it from a copy."
            )


def _part(tensors: dict[str, Any], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): tensor.numpy() for name, tensor in tensors.items() if name.startswith(prefix)}


def _load_novelty(config: dict[str, Any] | None, state: dict[str, NDArray[Any]]) -> Any:
    from headstart.model.novelty import NoveltyScorer

    return None if config is None else NoveltyScorer.from_state(config, state)
