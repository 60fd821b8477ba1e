"""Rows as network inputs, in any order and as often as training asks, decoded once while memory allows.

Images are kept as uint8 (height, width, 3) up to a byte limit; beyond it they are decoded again each time. Texts are kept as
token numbers. Preprocessing is the backbone's own, the same that prediction uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.backbones import Backbone
from headstart.core.preprocessing import ImageTransform, TextTransform
from headstart.data import Dataset, decode_image

__all__ = ["InputRows"]


class InputRows:
    """Network inputs of a data set's rows.

    Parameters
    ----------
    dataset : Dataset
        The rows; labels are not looked at.
    backbone : Backbone
        Whose preprocessing applies.
    max_bytes : int
        Decoded pixels kept in memory.
    threads : int
        Threads that decode.
    """

    def __init__(self, dataset: Dataset, backbone: Backbone, *, max_bytes: int = 1 << 30, threads: int = 2) -> None:
        self.dataset = dataset
        self.backbone = backbone
        self._max_bytes = max_bytes
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._kept_bytes = 0
        self._pool = ThreadPoolExecutor(max(1, threads)) if backbone.modality == "image" else None
        self._tokens: list[list[int]] = []
        self._matrix: NDArray[np.float32] | None = None
        if isinstance(backbone.transform, TextTransform):
            self._tokens = backbone.tokenize([str(dataset.read(i)) for i in range(len(dataset))])
        elif backbone.modality == "vector":
            self._matrix = dataset.matrix()

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices: Sequence[int], flipped: NDArray[np.bool_] | None = None) -> tuple[Tensor, ...]:
        """Return the network's arguments for some rows.

        Parameters
        ----------
        indices : sequence of int
            Row numbers.
        flipped : bool array, optional
            Which of these images to mirror left and right; ignored for other rows.
        """
        if self._matrix is not None:
            return (torch.from_numpy(self._matrix[np.asarray(indices)]),)
        if self._tokens:
            return self.backbone.collate([self._tokens[i] for i in indices])
        transform = cast(ImageTransform, self.backbone.transform)
        assert self._pool is not None
        pixels = np.stack(list(self._pool.map(self._pixels, indices)))
        if flipped is not None:
            pixels[flipped] = pixels[flipped, :, ::-1]
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (transform.mean, transform.std))
        return (batch.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last),)

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        known = self._kept.get(index)
        if known is not None:
            return known
        content: Any = self.dataset.read(index)
        pixels: NDArray[np.uint8] = decode_image(content, cast(ImageTransform, self.backbone.transform))
        if self._kept_bytes + pixels.nbytes <= self._max_bytes:
            self._kept_bytes += pixels.nbytes
            self._kept[index] = pixels
        return pixels

    def close(self) -> None:
        """Stop the decoding threads and let the pixels go."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._kept.clear()
