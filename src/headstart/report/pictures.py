"""Pictures inside the page: small copies of rows, and the confusion matrix of many classes, as data addresses."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["heatmap_uri", "picture_uri"]

_LONGEST_SIDE = 200
_TINY_SIDE = 64
# Blue that stands out on white and on black alike; opacity carries the figure.
_RIGHT, _WRONG = (66, 133, 214), (219, 94, 66)


def picture_uri(image: NDArray[Any]) -> tuple[str, bool]:
    """Return an image as a data address, and whether it is so small that its pixels should stay visible.

    Parameters
    ----------
    image : uint8 array of shape (height, width), (height, width, 1), (height, width, 3) or (height, width, 4)
        Longer sides than 200 pixels are scaled down.

    Examples
    --------
    >>> uri, tiny = picture_uri(np.zeros((28, 28, 3), dtype=np.uint8))
    >>> uri[:22], tiny
    ('data:image/png;base64,', True)
    """
    pixels = np.ascontiguousarray(np.asarray(image, dtype=np.uint8))
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    picture = Image.fromarray(pixels).convert("RGB")
    if max(picture.size) <= _TINY_SIDE:
        return _uri(picture, "png"), True
    if max(picture.size) > _LONGEST_SIDE:
        picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return _uri(picture, "jpeg"), False


def heatmap_uri(confusion_kk: NDArray[Any]) -> str:
    """Return a confusion matrix as a see-through picture, one pixel a cell: blue on the diagonal, red beside it.

    Opacity is the cell's share of its true class, raised so that a single mistake can be seen.
    """
    counts_kk = np.asarray(confusion_kk, dtype=np.float64)
    share_kk = counts_kk / np.maximum(counts_kk.sum(axis=1, keepdims=True), 1)
    pixels = np.empty((*counts_kk.shape, 4), dtype=np.uint8)
    pixels[..., :3] = np.where(np.eye(len(counts_kk), dtype=bool)[..., None], _RIGHT, _WRONG)
    pixels[..., 3] = np.where(counts_kk > 0, np.round(255 * (0.4 + 0.6 * share_kk**0.5)), 0).astype(np.uint8)
    return _uri(Image.fromarray(pixels), "png")


def _uri(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": 82} if kind == "jpeg" else {"optimize": True}
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
