"""How a row becomes a network's input, written down so that training and prediction cannot differ.

These are descriptions, not code: `headstart.data` carries out an image transform, a backbone its text transform.
Both are part of the cache key and travel into the saved model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from headstart.core.digests import digest_json
from headstart.core.errors import ConfigError

__all__ = [
    "ImageTransform",
    "Interpolation",
    "TextTransform",
    "Transform",
    "VectorTransform",
    "View",
    "transform_from_dict",
]

Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest", "box"]


@dataclass(frozen=True)
class ImageTransform:
    """Resize the short side (or squash, or pad), crop the centre, then scale to the network's range.

    Parameters
    ----------
    height, width : int
        Size of the network's input in pixels.
    crop_fraction : float in (0, 1]
        The crop's share of the resized image: the short side is resized to ``round(size / crop_fraction)``.
    interpolation : {"bilinear", "bicubic", "lanczos", "nearest", "box"}
        Filter of the (antialiased) resize.
    mean, std : tuple of 3 floats
        Per channel, of pixel values in [0, 1]; the network receives ``(pixel / 255 - mean) / std``.
    fit : {"crop", "squash", "pad"}
        "crop" keeps the aspect ratio and cuts the overhang; "squash" resizes both sides to the input;
        "pad" keeps the aspect ratio and fills with black.
    """

    height: int
    width: int
    crop_fraction: float = 1.0
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    fit: Literal["crop", "squash", "pad"] = "crop"

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1 or not 0 < self.crop_fraction <= 1:
            raise ConfigError(
                "ImageTransform: sizes are at least 1 pixel and crop_fraction lies in (0, 1]; "
                f"got {self.height}x{self.width}, {self.crop_fraction}."
            )

    @property
    def resize_height(self) -> int:
        """Height the image is resized to before the crop, in pixels."""
        return max(self.height, round(self.height / self.crop_fraction))

    @property
    def resize_width(self) -> int:
        """Width the image is resized to before the crop, in pixels."""
        return max(self.width, round(self.width / self.crop_fraction))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value that `transform_from_dict` reads back."""
        return {"kind": "image", **asdict(self), "mean": list(self.mean), "std": list(self.std)}

    def digest(self) -> str:
        """Return the digest that stands for this transform in a cache key."""
        return digest_json(self.to_dict())


@dataclass(frozen=True)
class TextTransform:
    """Tokenise with the backbone's own tokenizer, cut at ``max_tokens``, pool the last layer.

    Parameters
    ----------
    max_tokens : int
        Longest sequence the network is given, special tokens included; longer texts are cut.
    pooling : {"mean", "max", "first", "last", "pooler"}
        How token features become one vector: mean or maximum over real tokens, first token, last real token, or the
        network's own pooler.
    tokenizer_digest : str
        Digest of the tokenizer's files.
    """

    max_tokens: int
    pooling: Literal["mean", "max", "first", "last", "pooler"] = "mean"
    tokenizer_digest: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value that `transform_from_dict` reads back."""
        return {"kind": "text", **asdict(self)}

    def digest(self) -> str:
        """Return the digest that stands for this transform in a cache key."""
        return digest_json(self.to_dict())


@dataclass(frozen=True)
class VectorTransform:
    """Rows that are features already; nothing is done to them but a check of their width."""

    width: int

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value that `transform_from_dict` reads back."""
        return {"kind": "vector", "width": self.width}

    def digest(self) -> str:
        """Return the digest that stands for this transform in a cache key."""
        return digest_json(self.to_dict())


Transform = ImageTransform | TextTransform | VectorTransform


def transform_from_dict(value: dict[str, Any]) -> Transform:
    """Return the transform that `to_dict` wrote down.

    Examples
    --------
    >>> transform = ImageTransform(224, 224, crop_fraction=0.875)
    >>> transform_from_dict(transform.to_dict()) == transform
    True
    """
    fields: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
    kind = fields.pop("kind", None)
    kinds: dict[str, Any] = {"image": ImageTransform, "text": TextTransform, "vector": VectorTransform}
    if kind not in kinds:
        raise ConfigError(f"transform_from_dict: kind is one of {sorted(kinds)}; got {kind!r}.")
    built: Transform = kinds[kind](**fields)
    return built


@dataclass(frozen=True)
class View:
    """One deterministic look at a row: a flip, and where the crop lies.

    Parameters
    ----------
    flip : bool
        Mirror left and right.
    crop_x, crop_y : float in [0, 1]
        Where the crop lies in the overhang: 0 left/top, 0.5 centre, 1 right/bottom.
    zoom : float at least 1
        Resize this much larger before the crop, so that the crop sees less.
    """

    flip: bool = False
    crop_x: float = 0.5
    crop_y: float = 0.5
    zoom: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.crop_x <= 1 and 0 <= self.crop_y <= 1 and self.zoom >= 1):
            raise ConfigError(f"View: crop_x and crop_y lie in [0, 1] and zoom is at least 1; got {self}.")

    @property
    def name(self) -> str:
        """Short text that stands for this view in a cache key; ``"centre"`` for the plain one."""
        if self == View():
            return "centre"
        return f"{'flip' if self.flip else 'plain'}-{self.crop_x:g}-{self.crop_y:g}-{self.zoom:g}"
