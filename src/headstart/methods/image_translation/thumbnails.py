"""Small images in memory for generators, and the scales of pixels.

    bytes 0..255  <->  a batch of one image from 0 to 1  ->  small images from -1 to 1        one channel where all are grey

That generators of grey images see one channel is ours: three, each changed a little otherwise, would give grey digits colour.
Use them where a translation trains on the images of a base model made small. They ignore where the images come from.
Shapes: n images, h x w pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from headstart.core.preprocessing import ImageTransform
from headstart.data import Dataset, decode_image

__all__ = ["LEAST_SIDE", "Thumbnails", "are_grey", "resized", "small_size", "thumbnails", "to_bytes", "to_unit"]

Pixels = NDArray[np.uint8]

LEAST_SIDE = 8


class Thumbnails:
    """Small images in memory, as training rows."""

    num_views = 1

    def __init__(self, images_nchw: Tensor) -> None:
        self.images = images_nchw

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: NDArray[np.int64], draws: NDArray[np.uint64] | None = None) -> tuple[Tensor, ...]:
        """Return some rows."""
        del draws
        return (self.images[torch.from_numpy(np.asarray(indices, np.int64))],)

    def close(self) -> None:
        """Nothing to let go."""


def thumbnails(rows: Dataset, transform: ImageTransform, small: tuple[int, int]) -> Tensor:
    """Return images from -1 to 1, float32 (n, 3, *small)."""
    contents: Iterator[Any] = (rows.read(place) for place in range(len(rows)))
    return torch.cat([resized(2 * to_unit(decode_image(content, transform)) - 1, small) for content in contents])


def are_grey(parts: Sequence[Tensor]) -> bool:
    """Return whether the channels of all images (n, 3, h, w) are one.

    Examples
    --------
    >>> grey = torch.rand(2, 1, 8, 8).expand(-1, 3, -1, -1)
    >>> are_grey([grey, grey]), are_grey([grey, torch.rand(2, 3, 8, 8)])
    (True, False)
    """
    return all(torch.equal(images[:, :1].expand_as(images), images) for images in parts)


def small_size(transform: ImageTransform, side: int) -> tuple[int, int]:
    """Return height and width whose longer one is at most ``side``, both multiples of 4.

    Examples
    --------
    >>> small_size(ImageTransform(224, 112), 32), small_size(ImageTransform(16, 16), 32)
    ((32, 16), (16, 16))
    """
    share = min(1.0, side / max(transform.height, transform.width))
    height, width = (max(LEAST_SIDE, round(share * length / 4) * 4) for length in (transform.height, transform.width))
    return height, width


def resized(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return images of a size, smoothed where they get smaller."""
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    return interpolate(images, size=tuple(size), mode="bilinear", antialias=True, align_corners=False)


def to_unit(pixels: Pixels) -> Tensor:
    """Return pixels (h, w, 3) as a batch of one image from 0 to 1, (1, 3, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 255


def to_bytes(image: Tensor) -> Pixels:
    """Return a batch of one image from 0 to 1 as pixels (h, w, 3)."""
    return np.asarray((255 * image[0]).round().permute(1, 2, 0).contiguous().to(torch.uint8).numpy())
