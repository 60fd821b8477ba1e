"""From what a user types to a `Backbone`, and from a saved model back to one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from headstart.backbones.architecture import Architecture, Pool, Until, build_network
from headstart.backbones.backbone import Backbone
from headstart.backbones.hub import open_timm, open_torchvision, open_transformers
from headstart.backbones.local import open_local
from headstart.backbones.packages import PACKAGES
from headstart.backbones.timm_models import is_timm_name, timm_backbone
from headstart.backbones.tokens import Tokenizer
from headstart.backbones.weights import fill
from headstart.core.errors import BackboneError, did_you_mean
from headstart.core.preprocessing import TextTransform, VectorTransform, transform_from_dict

__all__ = ["DEFAULT_IMAGE", "DEFAULT_TEXT", "build_backbone", "open_backbone", "vector_backbone"]

DEFAULT_IMAGE = "efficientnet-lite0"
DEFAULT_TEXT = "minilm-l6"


def vector_backbone(width: int) -> Backbone:
    """Return the identity, for rows that are features already.

    Examples
    --------
    >>> vector_backbone(3).width
    3
    """
    architecture = Architecture("vector", "identity", {"width": width})
    return Backbone(
        architecture,
        build_network(architecture),
        VectorTransform(width),
        name="vector",
        width=width,
        licence="none needed",
        origin="the rows themselves",
    )


def open_backbone(
    name: str | Path | Backbone | nn.Module,
    *,
    input_size: int | tuple[int, int] | None = None,
    until: str | None = None,
    pool: Pool = "flatten",
) -> Backbone:
    """Return a base model with real pretrained weights.

    Parameters
    ----------
    name : str, Path, Backbone or nn.Module
        - a packaged name: ``"efficientnet-lite0"`` (the default for images), ``"minilm-l6"`` (for text),
          ``"mobilenetv2-fdet"``;
        - ``"timm:NAME"`` or a plain timm name, ``"torchvision:NAME"``, ``"transformers:NAME"`` (``#text`` or
          ``#image`` after it chooses half of a network that has both);
        - ``"gru:PATH"``: word vectors (see `read_word_vectors`) and a recurrent unit that is still to be trained;
        - a ``.safetensors`` file, or a folder in timm's or transformers' format;
        - a `Backbone`, returned as it is; a network that timm built, whose weights are copied.
    input_size : int or (height, width), optional
        Another input size than the network's own, in pixels.
    until : str, optional
        End the network at this stage, as `Backbone.until` does. Weights that end there are enough: VGG-16 for a head on
        its places is ``open_backbone("timm:vgg16.tv_in1k", until="features.30")``, with or without its dense layers
        in the file.
    pool : {"flatten", "mean"}
        How the activations at ``until`` become features.

    Raises
    ------
    BackboneError
        If the name means nothing, or the weights do not fit the network to the last tensor.
    OfflineError
        If only a hub has the weights and none may or can be asked; it names the folder to put them in.
    MissingExtra
        If an optional library is needed.

    Examples
    --------
    >>> backbone = open_backbone("efficientnet-lite0")
    >>> backbone.width, backbone.modality
    (1280, 'image')
    """
    ends: Until | None = None if until is None else (until, pool)
    backbone = _open(name, input_size, ends)
    ended = backbone.architecture.until is not None and backbone is not name
    return backbone if ends is None or ended else backbone.until(*ends)


def _open(
    name: str | Path | Backbone | nn.Module, input_size: int | tuple[int, int] | None, until: Until | None
) -> Backbone:
    """Return the base model; one that timm or torchvision defines ends at ``until``."""
    if isinstance(name, Backbone):
        return name
    if isinstance(name, nn.Module):
        return _open_module(name, input_size)
    if isinstance(name, str) and name in PACKAGES:
        return PACKAGES[name].open(input_size)
    library, colon, rest = str(name).partition(":")
    if colon and library == "transformers":
        path_or_name, _, part = rest.partition("#")
        return open_transformers(path_or_name, part)
    if colon and library in {"timm", "torchvision"}:
        return (open_timm if library == "timm" else open_torchvision)(rest, input_size, until)
    if colon and library == "gru":
        from headstart.backbones.recurrent import recurrent_backbone

        return recurrent_backbone(rest)
    path = Path(name).expanduser()
    if path.exists() and (_holds_weights(path) or not is_timm_name(str(name))):
        return open_local(path, input_size=input_size, until=until)
    if is_timm_name(str(name)):
        return open_timm(str(name), input_size, until)
    import timm

    known = [*PACKAGES, *timm.list_models()]
    raise BackboneError(
        f"open_backbone: {str(name)!r} is neither a packaged base model, nor a name with timm:, torchvision:, transformers: "
        f"or gru: before it, nor a file or folder.{did_you_mean(str(name), known)}"
    )


def _holds_weights(path: Path) -> bool:
    return path.is_file() or (path / "config.json").is_file() or any(path.glob("*.safetensors"))


def _open_module(module: nn.Module, input_size: int | tuple[int, int] | None) -> Backbone:
    """Return a backbone with the weights of a network that timm built; the network itself stays as it is."""
    config = getattr(module, "pretrained_cfg", None)
    if not isinstance(config, dict) or not is_timm_name(str(config.get("architecture"))):
        raise BackboneError(
            f"open_backbone: a saved model must be able to rebuild its network, which {type(module).__name__} does "
            "not allow: pass a network made by timm, or save its weights as safetensors and open the file."
        )
    skipped = {"num_classes", "pretrained_cfg", "pretrained_cfg_overlay", "global_pool"}
    said = getattr(module, "_model_args", {})
    arguments = {key: item for key, item in said.items() if key not in skipped and item is not None}
    name = str(config["architecture"])
    built_for: Any = arguments.get("img_size")
    if input_size is None and built_for is not None:
        input_size = built_for if isinstance(built_for, int) else (int(built_for[0]), int(built_for[1]))
    return timm_backbone(
        Architecture("timm", name, arguments),
        dict(module.state_dict()),
        name=f"{name} (given)",
        origin="a network given in Python",
        licence=str(config.get("license") or "unknown"),
        config=config,
        input_size=input_size,
    )


def build_backbone(spec: dict[str, Any], weights: dict[str, Tensor], tokenizer_folder: Path | None = None) -> Backbone:
    """Return the backbone that `Backbone.spec`, `Backbone.state_dict` and `Backbone.save_tokenizer` wrote down.

    Raises
    ------
    BackboneError
        If any tensor is missing, left over or of another shape, or the tokenizer is not the one of the spec.
    """
    architecture = Architecture.from_dict(spec["architecture"])
    network = build_network(architecture, unset=True)
    fill(network, weights, "the saved model", who="build_backbone")
    transform = transform_from_dict(spec["transform"])
    tokenizer = None
    if isinstance(transform, TextTransform):
        if tokenizer_folder is None:
            raise BackboneError(f"build_backbone: {spec['name']} reads text; give the folder of its tokenizer.")
        tokenizer = Tokenizer.from_folder(tokenizer_folder, int(spec["pad_id"]))
        if tokenizer.digest != transform.tokenizer_digest:
            raise BackboneError(
                f"build_backbone: the tokenizer in {tokenizer_folder} is not the one {spec['name']} was saved with; "
                "restore the file."
            )
    return Backbone(
        architecture,
        network,
        transform,
        name=str(spec["name"]),
        width=int(spec["width"]),
        licence=str(spec.get("licence", "unknown")),
        origin=str(spec.get("origin", "unknown")),
        tokenizer=tokenizer,
    )
