"""Encoders that transformers defines, for texts and for images, opened from folders in the hub's format."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from headstart.backbones.architecture import Architecture
from headstart.backbones.backbone import Backbone
from headstart.backbones.tokens import TOKENIZER_FILE, Tokenizer
from headstart.core.errors import BackboneError, MissingExtra
from headstart.core.preprocessing import ImageTransform, TextTransform

__all__ = ["ImageEncoder", "TextEncoder", "build_transformers", "open_transformers_folder", "read_json"]

Pooling = Literal["mean", "first", "last", "pooler"]
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}
_NOT_ARCHITECTURE = {"model_type", "auto_map", "transformers_version", "_name_or_path"}
_TOKENIZER_FILES = (TOKENIZER_FILE, "vocab.txt", "vocab.json", "*.model")
_LONGEST = 512  # of a text, where neither tokenizer nor network says less


class TextEncoder(nn.Module):
    """An encoder and its pooling: ``(input_ids, attention_mask)`` to one vector a row."""

    def __init__(self, encoder: nn.Module, pooling: Pooling) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return features (n, width)."""
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        return self.pool(output, attention_mask)

    def pool(self, output: Any, attention_mask: Tensor) -> Tensor:
        """Return one vector a row from an encoder's output; masked tokens count for nothing."""
        if self.pooling == "pooler":
            return output.pooler_output  # type: ignore[no-any-return]
        hidden_ntd: Tensor = output.last_hidden_state
        if self.pooling == "first":
            return hidden_ntd[:, 0]
        mask_nt = attention_mask.to(hidden_ntd.dtype)
        if self.pooling == "last":
            last_n = attention_mask.sum(1) - 1
            return hidden_ntd[torch.arange(hidden_ntd.shape[0], device=hidden_ntd.device), last_n]
        return (hidden_ntd * mask_nt.unsqueeze(-1)).sum(1) / mask_nt.sum(1, keepdim=True).clamp(min=1)


class ImageEncoder(nn.Module):
    """An image encoder: normalised pixels to one vector a row.

    The network's own pooling where it has one without weights; else the class token, or the mean over places.
    """

    def __init__(self, encoder: nn.Module, pooling: Literal["own", "first", "mean", "flatten"]) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling

    def forward(self, pixels: Tensor) -> Tensor:
        """Return features (n, width)."""
        return self.pool(self.encoder(pixel_values=pixels))

    def pool(self, output: Any) -> Tensor:
        """Return one vector a row from an encoder's output."""
        if self.pooling == "own":
            return output.pooler_output.flatten(1)  # type: ignore[no-any-return]
        hidden: Tensor = output.last_hidden_state
        if self.pooling == "flatten":
            return hidden.flatten(1)
        if self.pooling == "mean":
            return hidden.mean((2, 3)) if hidden.ndim == 4 else hidden.mean(1)
        return hidden[:, 0]


def build_transformers(architecture: Architecture) -> nn.Module:
    """Return the headless network with random weights."""
    transformers = _transformers()
    config = _config(architecture)
    with _silence(transformers):
        return _wrap(transformers.AutoModel.from_config(config), architecture)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("open_backbone", "transformers", "text") from error
    return transformers


def _config(architecture: Architecture) -> Any:
    transformers = _transformers()
    values = dict(architecture.arguments["config"])
    values.pop("auto_map", None)  # code from a repository is never run
    try:
        return transformers.AutoConfig.for_model(architecture.name, **values)
    except (ValueError, TypeError, KeyError) as error:
        raise BackboneError(
            f"open_backbone: the transformers installed here cannot build {architecture.name!r} ({error})."
        ) from error


@contextlib.contextmanager
def _silence(transformers: Any) -> Iterator[None]:
    """Keep transformers' progress bars and advice out of the user's terminal."""
    logging = transformers.utils.logging
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _wrap(model: nn.Module, architecture: Architecture) -> nn.Module:
    """Take the tower that is asked for and put its pooling on top."""
    modality, pooling = architecture.arguments["modality"], architecture.arguments["pooling"]
    tower = getattr(model, "vision_model" if modality == "image" else "text_model", None)
    encoder: Any = model if tower is None else tower
    if modality == "text" and getattr(encoder.config, "is_encoder_decoder", False):
        encoder = encoder.get_encoder()
    if pooling not in {"pooler", "own"} and isinstance(getattr(encoder, "pooler", None), nn.Module):
        encoder.pooler = None
    return ImageEncoder(encoder, pooling) if modality == "image" else TextEncoder(encoder, pooling)


def open_transformers_folder(
    folder: Path,
    *,
    name: str,
    origin: str,
    licence: str = "unknown",
    modality: Literal["image", "text"] | None = None,
) -> Backbone:
    """Return the encoder of a folder in the hub's format: ``config.json``, safetensors, tokenizer or preprocessor.

    Tensors of a task head in the file are left out; a tensor of the encoder that is not in the file is an error.

    Raises
    ------
    BackboneError
        If a file is missing or damaged, or a tensor of the network is not in the weights.
    MissingExtra
        If transformers is not installed.
    """
    config = read_json(folder / "config.json")
    transformers = _transformers()
    kind = str(config.get("model_type"))
    if modality is None:
        modality = "image" if _sees(folder, config) else "text"
    values = {
        key: item for key, item in config.items() if key not in {"model_type", "auto_map", "transformers_version"}
    }
    pooling = _text_pooling(folder, config) if modality == "text" else "own"
    architecture = Architecture("transformers", kind, {"modality": modality, "pooling": pooling, "config": values})
    model, missing = _read(folder, _config(architecture), transformers)
    if modality == "image":
        architecture.arguments["pooling"] = _image_pooling(model, missing)
    network = _wrap(model, architecture)
    _refuse_missing(network, model, missing, folder)
    shared: dict[str, Any] = {"name": name, "origin": origin, "licence": _licence(folder, licence)}
    if modality == "image":
        transform = image_transform(folder, config)
        width = _width(network, torch.zeros(1, 3, transform.height, transform.width))
        return Backbone(architecture, network, transform, width=width, **shared)
    tokenizer = _tokenizer(folder, transformers)
    rows = int(network.get_submodule("encoder").get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    if tokenizer.vocabulary_size > rows:
        raise BackboneError(
            f"open_backbone: the tokenizer of {folder} has {tokenizer.vocabulary_size} tokens, the network {rows}; "
            "they do not belong together."
        )
    text = TextTransform(_max_tokens(folder, config), pooling, tokenizer.digest)  # type: ignore[arg-type]
    ids = torch.full((1, 2), tokenizer.pad_id)
    width = _width(network, ids, torch.ones_like(ids))
    return Backbone(architecture, network, text, width=width, tokenizer=tokenizer, **shared)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object, or refuse with the path."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackboneError(f"open_backbone: {path} cannot be read as JSON ({error}).") from error
    if not isinstance(value, dict):
        raise BackboneError(f"open_backbone: {path} must hold a JSON object; got {type(value).__name__}.")
    return value


def _read(folder: Path, config: Any, transformers: Any) -> tuple[Any, list[str]]:
    """Return the whole model, and the names of its tensors that the folder's weights lack."""
    if not any(folder.glob("*.safetensors")):
        raise BackboneError(
            f"open_backbone: {folder} holds no .safetensors file; other formats can run code when read: "
            "convert the weights to safetensors first."
        )
    try:
        with _silence(transformers):
            model, loading = transformers.AutoModel.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                dtype=torch.float32,
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise BackboneError(f"open_backbone: transformers cannot open {folder} ({error}).") from error
    except Exception as error:  # safetensors raises its own for a damaged file
        if type(error).__name__ != "SafetensorError":
            raise
        raise BackboneError(f"open_backbone: the weights in {folder} are damaged ({error}).") from error
    mismatched = [str(item[0] if isinstance(item, tuple) else item) for item in loading["mismatched_keys"]]
    return model, [*loading["missing_keys"], *mismatched]


def _refuse_missing(network: nn.Module, model: nn.Module, missing: list[str], folder: Path) -> None:
    """Refuse when a tensor that the features depend on was not in the file."""
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    used = {id(tensor) for tensor in network.state_dict(keep_vars=True).values()}
    lacking = sorted(name for name in missing if name in named and id(named[name]) in used)
    if lacking:
        shown = ", ".join(lacking[:5]) + (f", and {len(lacking) - 5} more" if len(lacking) > 5 else "")
        raise BackboneError(
            f"open_backbone: the weights in {folder} do not fill the network: {len(lacking)} "
            f"tensor{'s' * (len(lacking) > 1)} missing or of another shape ({shown}); "
            "give the weights of this very configuration."
        )


def _sees(folder: Path, config: dict[str, Any]) -> bool:
    vision = {"image_size", "num_channels", "vision_config", "patch_size"}
    return (folder / "preprocessor_config.json").is_file() or bool(vision & config.keys())


def _text_pooling(folder: Path, config: dict[str, Any]) -> Pooling:
    """Return what the folder says about pooling, else mean over tokens; the last token of a decoder."""
    path = folder / "1_Pooling" / "config.json"
    if path.is_file():
        said = read_json(path)
        if said.get("pooling_mode_cls_token"):
            return "first"
        if said.get("pooling_mode_lasttoken"):
            return "last"
        return "mean"
    architectures = " ".join(config.get("architectures") or [])
    return "last" if "CausalLM" in architectures or "LMHeadModel" in architectures else "mean"


def _image_pooling(model: Any, missing: list[str]) -> Literal["own", "first", "mean"]:
    """Return the network's own pooling unless that is a dense layer of its pretraining task."""
    tower = getattr(model, "vision_model", model)
    pooler = getattr(tower, "pooler", None)
    dense = isinstance(pooler, nn.Module) and any(isinstance(part, nn.Linear) for part in pooler.modules())
    if not dense and not any("pooler" in name for name in missing):
        size = getattr(tower.config, "image_size", None) or 224
        height, width = (size, size) if isinstance(size, int) else size
        with torch.no_grad():
            output = tower.eval()(pixel_values=torch.zeros(1, 3, height, width))
        if getattr(output, "pooler_output", None) is not None:
            return "own"
        return "mean" if output.last_hidden_state.ndim == 4 else "first"
    return "first"


def _width(network: nn.Module, *inputs: Tensor) -> int:
    with torch.no_grad():
        features = network.eval()(*inputs)
    if features.ndim != 2:
        raise BackboneError(f"open_backbone: the network returns shape {tuple(features.shape)}, not one vector a row.")
    return int(features.shape[1])


def _licence(folder: Path, known: str) -> str:
    """Return the licence a model card's front matter states."""
    card = folder / "README.md"
    if known != "unknown" or not card.is_file():
        return known
    for line in card.read_text(encoding="utf-8", errors="replace").splitlines()[:60]:
        if line.startswith("license:"):
            return line.split(":", 1)[1].strip() or known
    return known


def _tokenizer(folder: Path, transformers: Any) -> Tokenizer:
    """Return the folder's tokenizer as transformers completes it; its special tokens may live in Python code."""
    known = [path.name for pattern in _TOKENIZER_FILES for path in folder.glob(pattern)]
    if not known:  # transformers would make an empty one up
        raise BackboneError(
            f"open_backbone: {folder} holds no tokenizer ({', '.join(_TOKENIZER_FILES)}); put the model's own beside it."
        )
    try:
        with _silence(transformers):
            loaded = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_fast=True
            )
    except Exception as error:  # whatever a tokenizer class raises, the user needs the folder's name
        raise BackboneError(f"open_backbone: {folder} holds no usable tokenizer ({error}).") from error
    engine = getattr(loaded, "backend_tokenizer", None) or getattr(loaded, "_tokenizer", None)
    if engine is None:
        raise BackboneError(
            f"open_backbone: the tokenizer of {folder} has no {TOKENIZER_FILE} and cannot be turned into one; "
            "save it with a fast tokenizer first."
        )
    pad_id = loaded.pad_token_id if loaded.pad_token_id is not None else (loaded.eos_token_id or 0)
    return Tokenizer(engine.to_str(), int(pad_id))


def _max_tokens(folder: Path, config: dict[str, Any]) -> int:
    """Return the longest text: the least of what tokenizer, network and sentence model say, at most 512."""
    limits = [_LONGEST]
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if positions:
        # RoBERTa and its kin number positions from pad_token_id + 1
        shift = int(config.get("pad_token_id") or 0) + 1 if "roberta" in str(config.get("model_type")) else 0
        limits.append(int(positions) - shift)
    for file, key in (("tokenizer_config.json", "model_max_length"), ("sentence_bert_config.json", "max_seq_length")):
        if (folder / file).is_file() and isinstance(said := read_json(folder / file).get(key), int):
            limits.append(said)
    return max(1, min(limits))


def image_transform(folder: Path, config: dict[str, Any]) -> ImageTransform:
    """Return the preprocessing that ``preprocessor_config.json`` describes, as one resize and one crop."""
    path = folder / "preprocessor_config.json"
    said = read_json(path) if path.is_file() else {}
    native = config.get("image_size") or (config.get("vision_config") or {}).get("image_size") or 224
    size, crop = _size(said.get("size"), native), _size(said.get("crop_size"), None)
    short = said.get("size", {}).get("shortest_edge") if isinstance(said.get("size"), dict) else None
    normalises = said.get("do_normalize", True)
    scale = float(said.get("rescale_factor", 1 / 255)) * 255 if said.get("do_rescale", True) else 255.0
    mean = said.get("image_mean", [0.5] * 3) if normalises else [0.0] * 3
    std = said.get("image_std", [0.5] * 3) if normalises else [1.0] * 3
    fraction = 1.0
    if crop is not None and said.get("do_center_crop", True):
        fraction = min(1.0, crop[0] / size[0])
        size, short = crop, short or size[0]
    elif short is not None and said.get("crop_pct"):
        fraction = float(said["crop_pct"]) if short < 384 else 1.0
    return ImageTransform(
        height=size[0],
        width=size[1],
        crop_fraction=fraction,
        interpolation=_RESAMPLE.get(int(said.get("resample", 2)), "bilinear"),  # type: ignore[arg-type]
        mean=(mean[0] / scale, mean[1] / scale, mean[2] / scale),
        std=(std[0] / scale, std[1] / scale, std[2] / scale),
        fit="crop" if short is not None or fraction < 1 else "squash",
    )


def _size(said: Any, default: Any) -> Any:
    if isinstance(said, dict):
        said = said.get("shortest_edge") or (said.get("height"), said.get("width"))
    said = said or default
    return (said, said) if isinstance(said, int) else (tuple(said) if said else None)
