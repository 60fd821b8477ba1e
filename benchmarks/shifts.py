"""Synthetic shifts of photos, and digits on photo patches: target domains whose labels are known and whose shift is understood.

    python benchmarks/shifts.py SOURCE TARGET --shift sketch|night|blur         a folder of photos, shifted file by file
    python benchmarks/shifts.py --digits PICTURES.png                           a look at both kinds of digits

    sketch   grey / (1 - blurred (1 - grey)): a pencil drawing, without colour or flat shade
    night    a third of the light, bluish, with the noise of a short exposure
    blur     a Gaussian of 2 % of the short side: out of focus
    digits   |patch - digit| channel by channel, patches cut from photos: Ganin et al., JMLR 2016 (arXiv:1505.07818), section
             5.2.4, MNIST-M; their patches are of BSDS500, these of the photos given, so figures compare in order, not in value

Each picture depends on its own pixels and a number, so it is the same on every machine and in every order.
Shapes: h x w pixels, n digits of s x s pixels.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from headstart.core.digests import digest_bytes
from headstart.core.seeds import generator
from record import ROOT

__all__ = ["SHIFTS", "blur", "digits_on_photos", "night", "photos", "shift_folder", "sketch"]

Pixels = NDArray[np.uint8]
DATA = Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared")) / "data"
_ENDINGS = (".jpg", ".jpeg", ".png")


def sketch(pixels_hwc: Pixels) -> Pixels:
    """Return a pencil drawing of a photo, three equal channels.

    Examples
    --------
    >>> sketch(np.full((8, 8, 3), 90, np.uint8))[0, 0].tolist()          # a flat area is white paper
    [255, 255, 255]
    """
    grey = pixels_hwc.astype(np.float64) @ [0.299, 0.587, 0.114] / 255
    around = gaussian_filter(grey, 0.02 * min(grey.shape))
    drawn = np.clip(grey / np.maximum(around, 1e-3), 0, 1) ** 2
    return np.repeat(_eight_bits(255 * drawn)[:, :, None], 3, axis=2)


def night(pixels_hwc: Pixels) -> Pixels:
    """Return a photo as taken at night: dark, bluish, noisy. The noise is a function of the pixels.

    Examples
    --------
    >>> photo = np.full((64, 64, 3), 200, np.uint8)
    >>> dark = night(photo)
    >>> bool((dark == night(photo)).all()), bool(dark.mean() < 60), bool(dark[..., 2].mean() > dark[..., 0].mean())
    (True, True, True)
    """
    light = (pixels_hwc / 255.0) ** 1.5 * [0.22, 0.26, 0.36]
    random = np.random.default_rng(int(digest_bytes(np.ascontiguousarray(pixels_hwc).tobytes())[:16], 16))
    noisy = light + (0.015 + 0.06 * np.sqrt(light)) * random.standard_normal(light.shape)
    return _eight_bits(255 * noisy)


def blur(pixels_hwc: Pixels) -> Pixels:
    """Return a photo out of focus.

    Examples
    --------
    >>> photo = np.zeros((100, 100, 3), np.uint8)
    >>> photo[50:] = 200
    >>> blur(photo)[50, 0].tolist()[0] in range(110, 130)              # soft where the edge was
    True
    """
    width = 0.02 * min(pixels_hwc.shape[:2])
    return _eight_bits(gaussian_filter(pixels_hwc.astype(np.float64), (width, width, 0)))


SHIFTS: dict[str, Callable[[Pixels], Pixels]] = {"sketch": sketch, "night": night, "blur": blur}


def shift_folder(source: Path, target: Path, shift: str) -> int:
    """Write a folder of photos anew, every photo shifted, names and folders kept; return how many.

    Parameters
    ----------
    source : Path
        Photos at any depth (JPEG, PNG); other files are left out.
    target : Path
        Made where it is missing; a photo that is there already is not made again.
    shift : {"sketch", "night", "blur"}
        Which.
    """
    change = SHIFTS[shift]
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in _ENDINGS)
    for path in files:
        place = (target / path.relative_to(source)).with_suffix(".png")
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            unfinished = place.with_suffix(".unfinished")
            Image.fromarray(change(_read(path))).save(unfinished, format="png")
            unfinished.replace(place)
    return len(files)


def digits_on_photos(digits_nss: Pixels, pictures: Sequence[Pixels], seed: int = 0) -> Pixels:
    """Return digits blended with patches of photos, as MNIST-M is made.

    Parameters
    ----------
    digits_nss : uint8 array of shape (n, s, s)
        White on black.
    pictures : sequence of uint8 array of shape (h, w, 3)
        Photos of at least s x s pixels.
    seed : int
        Of the patches; which patch a digit gets depends on its number as well.

    Returns
    -------
    uint8 array of shape (n, s, s, 3)

    Examples
    --------
    >>> digits = np.zeros((1, 2, 2), np.uint8)
    >>> digits[0, 0, 0] = 255
    >>> digits_on_photos(digits, [np.full((4, 4, 3), 55, np.uint8)])[0, :, :, 0].tolist()       # |55 - 255| and 55
    [[200, 55], [55, 55]]
    """
    size = digits_nss.shape[1]
    result = np.empty((*digits_nss.shape, 3), np.uint8)
    for number, digit in enumerate(digits_nss):
        random = generator(seed, "digits on photos", number)
        picture = pictures[int(random.integers(len(pictures)))]
        top, left = (int(random.integers(extent - size + 1)) for extent in picture.shape[:2])
        patch = picture[top : top + size, left : left + size].astype(np.int16)
        result[number] = np.abs(patch - digit[:, :, None].astype(np.int16))
    return result


def photos(folder: Path = DATA / "pets_oxford37" / "train", count: int = 100) -> list[Pixels]:
    """Return photos evenly from a folder, for patches.

    Parameters
    ----------
    folder : Path
        Photos at any depth.
    count : int
        How many at most.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS)
    chosen = np.linspace(0, len(files) - 1, min(count, len(files))).astype(int)
    return [_read(files[place]) for place in chosen]


def _read(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _eight_bits(values: NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _show_digits(place: Path) -> None:
    digits = np.load(DATA / "digits" / "mnist_t10k.npz")["images"][:40]
    changed = digits_on_photos(digits, photos())
    plain = np.repeat(digits[..., None], 3, axis=3)
    rows = [np.concatenate(list(part[start : start + 20]), axis=1) for part in (plain, changed) for start in (0, 20)]
    Image.fromarray(np.concatenate(rows)).save(place)


def main() -> None:
    """Read the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("target", type=Path, nargs="?")
    parser.add_argument("--shift", choices=sorted(SHIFTS), default="sketch")
    parser.add_argument("--digits", type=Path)
    options = parser.parse_args()
    if options.digits:
        _show_digits(options.digits)
    elif options.source and options.target:
        print(f"{shift_folder(options.source, options.target, options.shift)} photos, {options.shift}")
    else:
        parser.error("give SOURCE and TARGET, or --digits")


if __name__ == "__main__":
    main()
