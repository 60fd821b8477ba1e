"""Data sets whose shift is made: breeds of pets drawn, at night, out of focus; digits on patches of photographs.

Source and target never hold the same photograph or digit. `ALL` are these and those of `adaptation_grid`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adaptation_grid import DATA, SETS, Domains, images
from headstart.core.places import cache_folder
from shifts import SHIFTS, digits_on_photos, photos, shift_folder

__all__ = ["ALL", "mnist_m", "pets_shifts"]


def mnist_m() -> Domains:
    """MNIST in three channels, and other digits of it on patches of photographs, as MNIST-M is made; brought to 14 x 14."""
    with np.load(DATA / "digits" / "mnist_t10k.npz") as stored:
        pixels, labels = stored["images"], stored["labels"].astype(np.int64)
    plain = np.repeat(pixels[:2000, ..., None], 3, axis=3)
    patched = digits_on_photos(pixels[2000:4000], photos())
    return {"mnist": (_halved(plain), labels[:2000]), "mnist-m": (_halved(patched), labels[2000:4000])}


def pets_shifts() -> Domains:
    """Photographs of 37 breeds, and others of them drawn in pencil, at night, out of focus; by EfficientNet-Lite0."""
    folder = cache_folder() / "pets_shifts"
    for shift in SHIFTS:
        shift_folder(DATA / "pets_oxford37" / "test", folder / shift, shift)
    (photo,) = images(DATA / "pets_oxford37", ("train",)).values()
    return {"photo": photo, **images(folder, tuple(SHIFTS))}


def _halved(pixels_nssc: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return means of 2 x 2 pixels as rows of numbers from 0 to 1."""
    count, size, _, channels = pixels_nssc.shape
    blocks = pixels_nssc.reshape(count, size // 2, 2, size // 2, 2, channels)
    return np.asarray(blocks.mean(axis=(2, 4)).reshape(count, -1) / 255.0)


ALL = {**SETS, "mnist_m": mnist_m, "pets_shifts": pets_shifts}
