"""Strongly changed views of rows: far from what was photographed, written or measured, but of the same class.

    images        two operations of RandAugment at a drawn strength, then a grey square over a quarter of the picture
    texts         a fifth of the words left out
    numbers       noise of half a standard deviation, and a fifth of the numbers replaced by their means
    activations   half of the channels left out, the others doubled

Source: Cubuk et al., "RandAugment" (arXiv:1909.13719), the operations; DeVries & Taylor, "Cutout" (arXiv:1708.04552); Sohn et
al., "FixMatch" (arXiv:2001.07685), both in turn; Yang et al., "UniMatch" (arXiv:2208.09910), the channels. Words, numbers: ours.
Use them where an objective asks that a network answers alike however a row is changed.
It ignores labels. What is drawn is a function of one number a row.
Shapes: b rows, h x w pixels, d numbers of a row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional

__all__ = ["strong_activations", "strong_numbers", "strong_pixels", "strong_tokens"]

_GREY = 127
_LEFT_OUT = 0.2
_NOISE = 0.5
_KEPT_CHANNELS = 0.5

Operation = Callable[[Tensor, float], Tensor]


def _geometric(angle: float = 0.0, move: float = 0.0, shear: float = 0.0) -> Operation:
    def carry_out(image: Tensor, strength: float) -> Tensor:
        height, width = image.shape[-2:]
        shift = [round(strength * move * width), round(strength * move * height)]
        changed: Tensor = functional.affine(
            image, angle=strength * angle, translate=shift, scale=1.0, shear=[strength * shear, 0.0], fill=[_GREY] * 3
        )
        return changed

    return carry_out


# strength lies in [-1, 1]
_OPERATIONS: tuple[Operation, ...] = (
    lambda image, strength: image,
    lambda image, strength: functional.adjust_brightness(image, 1 + 0.9 * strength),
    lambda image, strength: functional.adjust_contrast(image, 1 + 0.9 * strength),
    lambda image, strength: functional.adjust_saturation(image, 1 + 0.9 * strength),
    lambda image, strength: functional.adjust_sharpness(image, 1 + 0.9 * strength),
    lambda image, strength: functional.autocontrast(image),
    lambda image, strength: functional.equalize(image),
    lambda image, strength: functional.posterize(image, 8 - round(4 * abs(strength))),
    lambda image, strength: functional.solarize(image, 256 * (1 - abs(strength))),
    _geometric(angle=30.0),
    _geometric(move=0.3),
    _geometric(shear=17.0),
)


def strong_pixels(pixels_hwc: NDArray[np.uint8], draw: int) -> NDArray[np.uint8]:
    """Return what a draw makes of an image.

    Parameters
    ----------
    pixels_hwc : uint8 array of shape (h, w, 3)
        The image.
    draw : int
        Random number of this row and look.

    Examples
    --------
    >>> image = np.zeros((8, 8, 3), np.uint8)
    >>> changed = strong_pixels(image, draw=3)
    >>> changed.shape, bool((changed == strong_pixels(image, draw=3)).all())
    ((8, 8, 3), True)
    """
    random = np.random.default_rng(draw)
    image = torch.from_numpy(np.ascontiguousarray(pixels_hwc)).permute(2, 0, 1)
    for number in random.integers(len(_OPERATIONS), size=2):
        image = _OPERATIONS[number](image, float(random.uniform(-1, 1)))
    changed = image.permute(1, 2, 0).numpy().copy()
    height, width = changed.shape[:2]
    top, left = (int(random.integers(-(size // 4), size - size // 4 + 1)) for size in (height, width))
    changed[max(0, top) : top + height // 2, max(0, left) : left + width // 2] = _GREY
    return changed


def strong_tokens(tokens: list[int], draw: int) -> list[int]:
    """Return a text with a fifth of its tokens left out; the first and the last, which mark its ends, stay.

    Examples
    --------
    >>> strong_tokens([1, 2], draw=0)
    [1, 2]
    >>> len(strong_tokens(list(range(100)), draw=0)) < 90
    True
    """
    stay = np.random.default_rng(draw).random(len(tokens)) >= _LEFT_OUT
    if len(stay):
        stay[[0, -1]] = True
    return [token for token, stays in zip(tokens, stay, strict=True) if stays]


def strong_numbers(
    rows_bd: NDArray[np.float32],
    draws: NDArray[np.uint64],
    mean_d: NDArray[np.float32],
    deviation_d: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return rows of numbers with noise, some of them replaced by their column's mean.

    Parameters
    ----------
    rows_bd : float32 array of shape (b, d)
        The rows.
    draws : uint64 array of shape (b,)
        One random number a row.
    mean_d, deviation_d : float32 array of shape (d,)
        Of every column, over all rows.

    Examples
    --------
    >>> rows, draws = np.ones((1, 4), np.float32), np.array([5], np.uint64)
    >>> strong_numbers(rows, draws, np.zeros(4, np.float32), np.zeros(4, np.float32)).tolist()
    [[0.0, 1.0, 1.0, 0.0]]
    """
    changed = rows_bd.copy()
    for place, draw in enumerate(np.asarray(draws).tolist()):
        random = np.random.default_rng(int(draw))
        changed[place] += (_NOISE * deviation_d * random.standard_normal(len(mean_d))).astype(np.float32)
        away = random.random(len(mean_d)) < _LEFT_OUT
        changed[place, away] = mean_d[away]
    return changed


def strong_activations(hidden: tuple[Tensor, ...], draws: NDArray[np.uint64]) -> tuple[Tensor, ...]:
    """Return activations with half of the channels left out and the others doubled, the same over all places of a row.

    Parameters
    ----------
    hidden : tuple of Tensor
        Floats (b, d), (b, channels, h, w) or (b, tokens, d) first; what follows (masks) stays.
    draws : uint64 array of shape (b,)
        One random number a row.

    Examples
    --------
    >>> changed, = strong_activations((torch.ones(1, 6),), np.array([1], np.uint64))
    >>> sorted(set(changed[0].tolist()))
    [0.0, 2.0]
    """
    first = hidden[0]
    channels = first.shape[2] if first.ndim == 3 else first.shape[1]
    kept = np.stack([np.random.default_rng(int(draw)).random(channels) < _KEPT_CHANNELS for draw in draws])
    factors = torch.from_numpy(kept).to(first.device, first.dtype) / _KEPT_CHANNELS
    shape = (len(kept), 1, channels) if first.ndim == 3 else (len(kept), channels, *([1] * (first.ndim - 2)))
    return (first * factors.view(shape), *hidden[1:])
