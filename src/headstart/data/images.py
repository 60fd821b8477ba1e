"""Bytes of an image file to the pixels a network is given.

One path for training and prediction: orientation from EXIF, then (for JPEG) a decode at the smallest eighth that still
covers the wanted size, then one antialiased resize of only the part that the crop keeps. Decoders and the resize
release the interpreter lock, so a pool of threads scales.

Colour: greyscale is repeated, alpha is laid on white, CMYK and YCCK are converted (Adobe's inversion undone), 16-bit
greyscale is divided by 257 (so that full scale stays full scale). Animations and multi-page files give their first
picture. Refused with `UnreadableImage`: no image, truncated or damaged data, and more pixels than `MAX_PIXELS`.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any, Final, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from headstart.core.errors import DataError, UnreadableRow
from headstart.core.preprocessing import ImageTransform, View
from headstart.data.jpeg import JpegHeader, read_jpeg_header

__all__ = [
    "MAX_JPEG_PIXELS",
    "MAX_PIXELS",
    "Sniffed",
    "UnreadableImage",
    "decode_image",
    "load_grey",
    "sniff",
    "thumbnail",
]

MAX_PIXELS: Final = 100_000_000
"""Most pixels of an image that must be decoded in full: everything but a baseline JPEG."""

MAX_JPEG_PIXELS: Final = 300_000_000
"""Most pixels of a baseline JPEG, which is decoded at a reduced scale and never held in full."""

_FILTERS: Final = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Messages of libjpeg after which pixels are missing or wrong, and those that cost nothing; Pillow judges the rest.
_DAMAGE: Final = (
    "bad huffman",
    "premature end of data segment",
    "corrupt progressive",
    "arithmetic code",
    "inconsistent",
)
_HARMLESS: Final = ("extraneous bytes", "jfif", "adobe")
_WHITE: Final = (255, 255, 255, 255)


class UnreadableImage(UnreadableRow):
    """An image that cannot be decoded; ``kind`` is the kind of `Finding` it becomes."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Sniffed(NamedTuple):
    """Format name as Pillow spells it, and size in pixels as stored (before the EXIF orientation)."""

    format: str
    width: int
    height: int


def sniff(content: bytes) -> Sniffed:
    """Read format and size from an image's header, without decoding.

    Raises
    ------
    UnreadableImage
        If the bytes are empty or are no image.

    Examples
    --------
    >>> sniff(b"P6 2 1 255 " + bytes(6))
    Sniffed(format='PPM', width=2, height=1)
    """
    if content[:2] == b"\xff\xd8":
        header = _jpeg_header(content)
        return Sniffed("JPEG", header.width, header.height)
    image = _open(content)
    return Sniffed(image.format or "?", *image.size)


def decode_image(
    content: bytes | np.ndarray[Any, Any], transform: ImageTransform, view: View | None = None
) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Decode one image into the pixels a network is given, before normalisation.

    Parameters
    ----------
    content : bytes or uint8 array of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4)
        A file's bytes, or pixels; the fourth channel is alpha.
    transform : ImageTransform
        Size, resize rule and filter.
    view : View, optional
        Flip, place of the crop and zoom; the plain centre crop when left out.

    Returns
    -------
    uint8 array of shape (transform.height, transform.width, 3)
        RGB.

    Raises
    ------
    UnreadableImage
        If the image cannot be decoded; ``kind`` and the message say why.

    Examples
    --------
    >>> decode_image(np.full((4, 8), 7, np.uint8), ImageTransform(2, 2)).tolist()
    [[[7, 7, 7], [7, 7, 7]], [[7, 7, 7], [7, 7, 7]]]
    """
    view = view or View()
    goal_height, goal_width = transform.resize_height * view.zoom, transform.resize_width * view.zoom
    whole = transform.fit == "pad"
    pixels = _load(content, goal_height, goal_width, cover=not whole)
    height, width = pixels.shape[:2]
    if transform.fit == "squash":
        resized_height, resized_width = round(goal_height), round(goal_width)
    else:
        pick = min if whole else max
        scale = pick(goal_height / height, goal_width / width)
        resized_height, resized_width = max(1, round(height * scale)), max(1, round(width * scale))
        if not whole:
            resized_height, resized_width = max(resized_height, transform.height), max(resized_width, transform.width)
    out_height, out_width = min(transform.height, resized_height), min(transform.width, resized_width)
    top, left = round((resized_height - out_height) * view.crop_y), round((resized_width - out_width) * view.crop_x)
    if (resized_height, resized_width) == (height, width):
        part = pixels[top : top + out_height, left : left + out_width]
    else:
        across, down = width / resized_width, height / resized_height
        box = (left * across, top * down, (left + out_width) * across, (top + out_height) * down)
        part = np.asarray(
            Image.fromarray(pixels).resize((out_width, out_height), _FILTERS[transform.interpolation], box)
        )
    if view.flip:
        part = part[:, ::-1]
    if part.shape[:2] == (transform.height, transform.width):
        return np.array(part)
    padded = np.zeros((transform.height, transform.width, 3), np.uint8)
    above, before = (transform.height - out_height) // 2, (transform.width - out_width) // 2
    padded[above : above + out_height, before : before + out_width] = part
    return padded


def thumbnail(
    content: bytes | np.ndarray[Any, Any], size: int = 96
) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Return an RGB picture of at most ``size`` x ``size`` pixels, in the image's own proportions.

    Raises
    ------
    UnreadableImage
        If the image cannot be decoded.

    Examples
    --------
    >>> thumbnail(np.zeros((40, 80), np.uint8), 20).shape
    (10, 20, 3)
    """
    pixels = _load(content, size, size, cover=False)
    height, width = pixels.shape[:2]
    scale = min(1.0, size / height, size / width)
    wanted = max(1, round(width * scale)), max(1, round(height * scale))
    if wanted == (width, height):
        return np.array(pixels)
    return np.array(Image.fromarray(pixels).resize(wanted, Image.Resampling.BICUBIC, reducing_gap=2.0))


def load_grey(content: bytes | np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Return upright grey pixels (h, w), both sides at least ``size`` where the image is that large.

    The cheapest full pass over an image: colour is not decoded where the format allows that, damage is found all the same.

    Raises
    ------
    UnreadableImage
        If the image cannot be decoded.
    """
    pixels = _load(content, size, size, cover=True, colours="GRAY")
    if pixels.shape[2] == 1:
        return np.ascontiguousarray(pixels[:, :, 0])
    if (pixels[:, :, 0] == pixels[:, :, 1]).all() and (pixels[:, :, 1] == pixels[:, :, 2]).all():
        return np.ascontiguousarray(pixels[:, :, 0])
    return np.asarray(Image.fromarray(pixels).convert("L"))


def _load(
    content: bytes | np.ndarray[Any, Any], goal_height: float, goal_width: float, cover: bool, colours: str = "RGB"
) -> Any:
    """Return upright pixels, large enough to cover (or to fit inside) the goal if the image is.

    They have three channels, or one where ``colours`` is ``"GRAY"`` and the decoder can leave colour out.
    """
    if not isinstance(content, bytes):
        pixels = _checked_array(np.asarray(content))
        return pixels if colours == "GRAY" and pixels.shape[2] == 1 else _rgb_from_array(pixels)
    if content[:2] != b"\xff\xd8":
        return _load_with_pillow(content)
    header = _jpeg_header(content)
    turned = header.orientation >= 5
    height, width = (header.width, header.height) if turned else (header.height, header.width)
    scale = (max if cover else min)(goal_height / height, goal_width / width)
    least_height = min(header.height, int(header.height * scale + 0.999999))
    least_width = min(header.width, int(header.width * scale + 0.999999))
    if header.components == 4:
        return _load_with_pillow(content, (least_width, least_height))
    try:
        pixels = simplejpeg.decode_jpeg(content, colours, min_height=least_height, min_width=least_width)
    except ValueError as error:
        pixels = _decode_damaged_jpeg(content, str(error), colours, least_height, least_width)
    return _upright(pixels, header.orientation)


def _jpeg_header(content: bytes) -> JpegHeader:
    header = read_jpeg_header(content)
    if header is None or header.width == 0 or header.height == 0:
        raise UnreadableImage("truncated", "the JPEG ends, or is damaged, before its picture begins")
    limit = MAX_PIXELS if header.progressive or header.components == 4 else MAX_JPEG_PIXELS
    _check_pixels(header.width, header.height, limit)
    return header


def _check_pixels(width: int, height: int, limit: int) -> None:
    if width * height > limit:
        raise UnreadableImage(
            "bomb", f"{width} x {height} pixels are more than the limit of {limit:,}; make the image smaller"
        )


def _decode_damaged_jpeg(content: bytes, complaint: str, colours: str, least_height: int, least_width: int) -> Any:
    """Decode a JPEG that libjpeg complained about; refuse it if pixels are missing or wrong."""
    if "premature end of jpeg" in complaint.lower():
        content += b"\xff\xd9"  # tells a file that only lacks its end marker from one that lacks pixels
        try:
            return simplejpeg.decode_jpeg(content, colours, min_height=least_height, min_width=least_width)
        except ValueError as error:
            complaint = str(error)
    if any(word in complaint.lower() for word in _DAMAGE):
        raise UnreadableImage("truncated", f"JPEG data is damaged: {complaint}")
    if any(word in complaint.lower() for word in _HARMLESS):
        with contextlib.suppress(ValueError):
            return simplejpeg.decode_jpeg(
                content, colours, min_height=least_height, min_width=least_width, strict=False
            )
    # A variant that TurboJPEG refuses, or damage that Pillow will name.
    return _load_with_pillow(content, (least_width, least_height), upright=False)


def _open(content: bytes) -> Image.Image:
    if not content:
        raise UnreadableImage("empty-file", "the file holds no bytes")
    try:
        return Image.open(io.BytesIO(content))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage("bomb", f"{error}; make the image smaller") from None
    except UnidentifiedImageError:
        raise UnreadableImage("not-an-image", f"no image format begins with {content[:12]!r}") from None
    except Exception as error:  # Pillow's readers raise whatever a damaged header leads them into
        raise UnreadableImage("unreadable", f"damaged header: {error}") from None


def _load_with_pillow(content: bytes, draft: tuple[int, int] | None = None, upright: bool = True) -> Any:
    image = _open(content)
    _check_pixels(*image.size, MAX_PIXELS)
    try:
        if draft is not None:
            image.draft(None, draft)
        image.load()
        orientation = int(image.getexif().get(0x0112, 1)) if upright else 1
        return _upright(_rgb_from_pillow(image), orientation)
    except MemoryError:
        raise UnreadableImage("bomb", f"{image.size[0]} x {image.size[1]} pixels do not fit into memory") from None
    except Exception as error:  # Pillow's decoders raise whatever damaged data leads them into
        kind = (
            "truncated"
            if any(word in str(error).lower() for word in ("truncated", "broken", "incomplete"))
            else "unreadable"
        )
        raise UnreadableImage(kind, f"{image.format} data is damaged: {error}") from None


def _rgb_from_pillow(image: Image.Image) -> np.ndarray[Any, Any]:
    if image.mode.startswith("I") or image.mode == "F":
        grey = _eight_bits(np.asarray(image), "16" in image.mode or image.format == "PNG")
        return _rgb_from_array(grey[:, :, None])
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
    return np.asarray(image.convert("RGB"))


def _eight_bits(values: np.ndarray[Any, Any], sixteen: bool) -> np.ndarray[Any, Any]:
    """Scale deep greyscale to 0..255: by its depth where that is known, else by the range that its values fit."""
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if sixteen:
        values = values / 257
    elif low >= 0 and high <= 1:
        values = values * 255
    elif low >= 0 and 255 < high <= 65535:
        values = values / 257
    elif low < 0 or high > 65535:
        values = (values - low) * 255 / max(high - low, 1e-12)
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _checked_array(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an image array as (h, w, channels), or refuse it."""
    if pixels.dtype != np.uint8 or pixels.ndim not in {2, 3} or (pixels.ndim == 3 and pixels.shape[2] not in {1, 3, 4}):
        raise DataError(
            "decode_image: an image array is uint8 of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4); "
            f"got {pixels.dtype} of shape {pixels.shape}."
        )
    if min(pixels.shape[:2]) == 0:
        raise UnreadableImage("unreadable", f"an image of {pixels.shape[1]} x {pixels.shape[0]} pixels")
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _rgb_from_array(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 3:
        return np.ascontiguousarray(pixels)
    return _rgb_from_pillow(Image.fromarray(np.ascontiguousarray(pixels), "RGBA"))


def _upright(pixels: np.ndarray[Any, Any], orientation: int) -> np.ndarray[Any, Any]:
    """Undo the camera's rotation (EXIF orientations 2 to 8)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
