"""Rows as network inputs, in any order and as often as training asks, decoded once while memory allows.

Images are kept as uint8 (height, width, 3) up to a byte limit; beyond it they are decoded again each time. Texts are kept as
token numbers. Preprocessing is the backbone's own, the same that prediction uses. What a row looks like this time follows from
one number a row: one of the fixed views, or a free crop and flip.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.backbones import Backbone
from headstart.core.errors import ConfigError, DataError, UnreadableRow
from headstart.core.preprocessing import ImageTransform, TextTransform, View
from headstart.data import Dataset, decode_image
from headstart.training.strong_views import strong_numbers, strong_pixels, strong_tokens

__all__ = ["Augment", "InputRows"]

Augment = Literal["none", "flips", "crops"]

_MARGIN = 8 / 7  # free crops are cut from an image decoded this much larger: 256 for a network of 224 pixels


class InputRows:
    """Network inputs of a data set's rows.

    Parameters
    ----------
    dataset : Dataset
        The rows; labels are not looked at.
    backbone : Backbone
        Whose preprocessing applies.
    views : sequence of View
        Images: fixed looks, of which training draws one each time. The first is the plain one wherever nothing is drawn.
    augment : {"none", "flips", "crops"}
        Images, instead of fixed views: mirror half of them; or also cut them anywhere from a picture one seventh larger.
    max_bytes : int
        Decoded pixels kept in memory.
    threads : int
        Threads that decode.

    Raises
    ------
    ConfigError
        If views or augmentation are asked for where rows are no images, or both at once.

    Examples
    --------
    >>> from headstart.backbones import vector_backbone
    >>> from headstart.data import open_dataset
    >>> rows = InputRows(open_dataset(np.eye(3, dtype=np.float32), unlabelled=True), vector_backbone(3))
    >>> rows.batch(np.array([2]))
    (tensor([[0., 0., 1.]]),)
    """

    def __init__(
        self,
        dataset: Dataset,
        backbone: Backbone,
        *,
        views: Sequence[View] = (View(),),
        augment: Augment = "none",
        max_bytes: int = 1 << 30,
        threads: int = 2,
    ) -> None:
        self.dataset = dataset
        self.backbone = backbone
        self.views = tuple(views)
        self.augment = augment
        self._check()
        self._max_bytes = max_bytes
        self._kept: dict[tuple[int, View, bool], NDArray[np.uint8]] = {}
        self._kept_bytes = 0
        self._pool = ThreadPoolExecutor(max(1, threads)) if backbone.modality == "image" else None
        self._tokens: list[list[int]] = []
        self._matrix: NDArray[np.float32] | None = None
        self._columns: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        transform = backbone.transform
        if isinstance(transform, TextTransform):
            self._tokens = backbone.tokenize([str(dataset.read(i)) for i in range(len(dataset))])
        elif isinstance(transform, ImageTransform):
            self._mean, self._std = (
                torch.tensor(values).view(1, 3, 1, 1) for values in (transform.mean, transform.std)
            )
            self._larger = _enlarged(transform)
        else:
            self._matrix = dataset.matrix()

    def _check(self) -> None:
        if self.augment not in get_args(Augment):
            raise ConfigError(f"InputRows: augment is one of {', '.join(get_args(Augment))}; got {self.augment!r}.")
        if not self.views:
            raise ConfigError("InputRows: needs at least one view; got none.")
        plain = self.views == (View(),)
        if self.backbone.modality != "image" and not (plain and self.augment == "none"):
            raise ConfigError(
                f"InputRows: flips and crops are for images; {self.backbone.modality} rows have one view."
            )
        if not plain and self.augment != "none":
            raise ConfigError(
                f"InputRows: either fixed views or free augmentation; got {len(self.views)} views and {self.augment!r}."
            )

    @property
    def num_views(self) -> int:
        """How many fixed views a row has."""
        return len(self.views)

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices: NDArray[np.int64], draws: NDArray[np.uint64] | None = None) -> tuple[Tensor, ...]:
        """Return the network's arguments for some rows.

        Parameters
        ----------
        indices : int64 array of shape (b,)
            Row numbers.
        draws : uint64 array of shape (b,), optional
            One random number a row: it chooses the view, or the crop and the flip. The first view when left out.

        Raises
        ------
        DataError
            If a row cannot be read.
        """
        if self._matrix is not None:
            return (torch.from_numpy(self._matrix[indices]),)
        numbers = np.asarray(indices).tolist()
        if self._pool is None:
            return self.backbone.collate([self._tokens[i] for i in numbers])
        drawn = [None] * len(numbers) if draws is None else np.asarray(draws, np.uint64).tolist()
        return self._images(list(self._pool.map(self._pixels, numbers, drawn)))

    def strong(self, indices: NDArray[np.int64], draws: NDArray[np.uint64]) -> tuple[Tensor, ...]:
        """Return the network's arguments for strongly changed views of some rows (`headstart.training.strong_views`).

        Parameters
        ----------
        indices : int64 array of shape (b,)
            Row numbers.
        draws : uint64 array of shape (b,)
            One random number a row.

        Raises
        ------
        DataError
            If a row cannot be read.
        """
        numbers, drawn = np.asarray(indices).tolist(), np.asarray(draws, np.uint64).tolist()
        if self._matrix is not None:
            if self._columns is None:
                self._columns = self._matrix.mean(axis=0), self._matrix.std(axis=0)
            return (torch.from_numpy(strong_numbers(self._matrix[indices], draws, *self._columns)),)
        if self._pool is None:
            texts = [strong_tokens(self._tokens[i], draw) for i, draw in zip(numbers, drawn, strict=True)]
            return self.backbone.collate(texts)
        return self._images(
            list(self._pool.map(lambda i, draw: strong_pixels(self._pixels(i, draw), draw), numbers, drawn))
        )

    def _images(self, pixels: list[NDArray[np.uint8]]) -> tuple[Tensor, ...]:
        rows = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
        rows = rows.float().div_(255).sub_(self._mean).div_(self._std)
        return (rows.contiguous(memory_format=torch.channels_last),)

    def _pixels(self, index: int, draw: int | None) -> NDArray[np.uint8]:
        """Return what a draw makes of an image."""
        if draw is None or (self.augment == "none" and self.num_views == 1):
            return self._view(index, self.views[0])
        if self.augment == "none":
            return self._view(index, self.views[draw % self.num_views])
        if self.augment == "flips":
            return self._view(index, View(flip=bool(draw >> 63)))
        transform = cast(ImageTransform, self.backbone.transform)
        whole = self._decoded(index, View(), larger=True)
        top = ((draw >> 32) & 0xFFFF) * (whole.shape[0] - transform.height + 1) >> 16
        left = (draw & 0xFFFF) * (whole.shape[1] - transform.width + 1) >> 16
        part = whole[top : top + transform.height, left : left + transform.width]
        return part[:, ::-1] if draw >> 63 else part

    def _view(self, index: int, view: View) -> NDArray[np.uint8]:
        pixels = self._decoded(index, replace(view, flip=False))
        return pixels[:, ::-1] if view.flip else pixels

    def _decoded(self, index: int, view: View, larger: bool = False) -> NDArray[np.uint8]:
        known = self._kept.get((index, view, larger))
        if known is not None:
            return known
        transform = self._larger if larger else cast(ImageTransform, self.backbone.transform)
        try:
            content: Any = self.dataset.read(index)
            pixels: NDArray[np.uint8] = decode_image(content, transform, view)
        except UnreadableRow as error:
            raise DataError(
                f"InputRows: {self.dataset.ids[index]} cannot be read ({error}); leave it out first."
            ) from error
        if self._kept_bytes + pixels.nbytes <= self._max_bytes:
            self._kept_bytes += pixels.nbytes
            self._kept[index, view, larger] = pixels
        return pixels

    def close(self) -> None:
        """Stop the decoding threads and let the pixels go."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._kept.clear()


def _enlarged(transform: ImageTransform) -> ImageTransform:
    """Return the transform whose output is a seventh larger at the same or a larger scale, to cut freely from."""
    height, width = round(transform.height * _MARGIN), round(transform.width * _MARGIN)
    return replace(
        transform,
        height=height,
        width=width,
        crop_fraction=min(1.0, max(height / transform.resize_height, width / transform.resize_width)),
    )
