"""Decoding: every colour mode, orientation and kind of damage, against Pillow and against numbers worked out by hand."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from headstart.core.errors import DataError
from headstart.core.preprocessing import ImageTransform, View
from headstart.data.images import MAX_JPEG_PIXELS, UnreadableImage, decode_image, load_grey, sniff, thumbnail
from headstart.data.jpeg import read_jpeg_header


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """A smooth random picture, which JPEG keeps well."""
    rough = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC))


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def exact(width: int, height: int) -> ImageTransform:
    """A transform that changes nothing of an image of this size."""
    return ImageTransform(height, width)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_always_applied(orientation: int, file_format: str) -> None:
    image = Image.fromarray(smooth(40, 60))
    exif = image.getexif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"quality": 95, "exif": exif} if file_format == "JPEG" else {"exif": exif}
    if file_format == "WEBP":
        options["lossless"] = True
    content = encode(image, file_format, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))
    height, width = expected.shape[:2]
    np.testing.assert_array_equal(decode_image(content, exact(width, height)), expected)


def test_orientation_written_big_endian_after_other_tags() -> None:
    tiff = (
        b"MM\0*"
        + struct.pack(">IH", 8, 2)
        + struct.pack(">HHII", 0x010F, 3, 1, 0)
        + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    )
    plain = encode(Image.fromarray(smooth(8, 16)), "JPEG")
    block = b"Exif\0\0" + tiff
    content = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]
    header = read_jpeg_header(content)
    assert header is not None
    assert header.orientation == 6
    assert decode_image(content, ImageTransform(16, 8)).shape == (16, 8, 3)


def test_a_hostile_exif_block_costs_nothing() -> None:
    plain = encode(Image.fromarray(smooth(8, 16)), "JPEG")
    for tiff in (b"", b"MM\0*", b"II*\0" + b"\xff" * 4, b"II*\0" + struct.pack("<IH", 8, 65535), b"XX" + bytes(40)):
        block = b"Exif\0\0" + tiff
        content = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]
        np.testing.assert_array_equal(decode_image(content, exact(16, 8)), decode_image(plain, exact(16, 8)))


@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 90, (90, 90, 90)),
        ("LA", (90, 0), (255, 255, 255)),
        ("LA", (90, 255), (90, 90, 90)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),  # one fifth of black over white
    ],
)
def test_png_modes(mode: str, pixel: Any, expected: tuple[int, int, int]) -> None:
    content = encode(Image.new(mode, (6, 4), pixel), "PNG")
    np.testing.assert_array_equal(decode_image(content, exact(6, 4)), np.full((4, 6, 3), expected))


def test_palettes_with_and_without_a_transparent_colour() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 10, 20])
    assert decode_image(encode(image, "PNG"), exact(4, 4))[0, 0].tolist() == [200, 10, 20]
    assert decode_image(encode(image, "PNG", transparency=1), exact(4, 4))[0, 0].tolist() == [255, 255, 255]
    assert decode_image(encode(image, "GIF"), exact(4, 4))[0, 0].tolist() == [200, 10, 20]
    rgb = encode(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert decode_image(rgb, exact(4, 4))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(file_format: str) -> None:
    deep = np.array([[0, 257, 32896, 65535]], np.uint16)
    grey = decode_image(encode(Image.fromarray(deep), file_format), exact(4, 1))[0, :, 0]
    assert grey.tolist() == [0, 1, 128, 255]


def test_float_and_integer_greyscale() -> None:
    unit = np.array([[0, 0.5, 1, np.nan]], np.float32)
    assert decode_image(encode(Image.fromarray(unit), "TIFF"), exact(4, 1))[0, :, 0].tolist() == [0, 128, 255, 0]
    signed = np.array([[-100, 0, 100]], np.int32)
    assert decode_image(encode(Image.fromarray(signed), "TIFF"), exact(3, 1))[0, :, 0].tolist() == [0, 128, 255]
    constant = np.full((1, 3), -5, np.int32)
    assert decode_image(encode(Image.fromarray(constant), "TIFF"), exact(3, 1))[0, :, 0].tolist() == [0, 0, 0]


def test_cmyk_jpegs_keep_their_colours_at_every_scale() -> None:
    red = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    for size in (64, 8):
        pixels = decode_image(encode(red, "JPEG", quality=95), ImageTransform(size, size))
        np.testing.assert_allclose(pixels.reshape(-1, 3).mean(0), [255, 0, 0], atol=3)
    black = decode_image(encode(Image.new("CMYK", (16, 16), (0, 0, 0, 255)), "JPEG"), exact(16, 16))
    assert black.max() <= 3


def test_greyscale_jpeg_is_repeated() -> None:
    pixels = decode_image(encode(Image.new("L", (16, 16), 77), "JPEG"), exact(16, 16))
    np.testing.assert_array_equal(pixels, np.full((16, 16, 3), 77))


def test_progressive_and_mpo_and_animated_files_give_the_first_picture() -> None:
    one, two = Image.fromarray(smooth(32, 48, 1)), Image.fromarray(smooth(32, 48, 2))
    plain = decode_image(encode(one, "JPEG", quality=95), exact(48, 32)).astype(int)
    for content in (
        encode(one, "JPEG", quality=95, progressive=True),
        encode(one, "MPO", quality=95, save_all=True, append_images=[two]),
    ):
        assert np.abs(decode_image(content, exact(48, 32)) - plain).max() <= 2
    gif = encode(Image.new("L", (4, 4), 9), "GIF", save_all=True, append_images=[Image.new("L", (4, 4), 99)])
    assert decode_image(gif, exact(4, 4)).max() == 9


@pytest.mark.parametrize("size", [(200, 300), (300, 200), (224, 224), (50, 90)])
@pytest.mark.parametrize("crop_fraction", [1.0, 0.875])
def test_crop_agrees_with_resizing_the_whole_then_cutting(size: tuple[int, int], crop_fraction: float) -> None:
    height, width = size
    pixels = smooth(height, width)
    transform = ImageTransform(112, 96, crop_fraction)
    scale = max(transform.resize_height / height, transform.resize_width / width)
    whole = Image.fromarray(pixels).resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    top, left = round((whole.height - 112) / 2), round((whole.width - 96) / 2)
    expected = np.asarray(whole)[top : top + 112, left : left + 96].astype(int)
    assert np.abs(decode_image(encode(Image.fromarray(pixels), "PNG"), transform) - expected).max() <= 1


def test_scaled_jpeg_decoding_stays_near_the_full_decode() -> None:
    content = encode(Image.fromarray(smooth(1200, 1600)), "JPEG", quality=95)
    full = np.asarray(Image.open(io.BytesIO(content)).resize((299, 224), Image.Resampling.BICUBIC))[:, 38:262].astype(
        int
    )
    assert np.abs(decode_image(content, ImageTransform(224, 224)) - full).mean() < 1.0


def test_squash_pad_zoom_and_views() -> None:
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, 10:] = 255
    squashed = decode_image(pixels, ImageTransform(10, 10, fit="squash", interpolation="box"))
    np.testing.assert_array_equal(squashed, np.repeat(pixels[:, ::2], 1, axis=1))
    padded = decode_image(np.full((10, 20, 3), 200, np.uint8), ImageTransform(10, 10, fit="pad"))
    assert padded[:2].max() == 0 and padded[3:7].min() == 200 and padded[8:].max() == 0
    left = decode_image(pixels, ImageTransform(10, 10), View(crop_x=0))
    right = decode_image(pixels, ImageTransform(10, 10), View(crop_x=1))
    assert left.max() == 0 and right.min() == 255
    flipped = decode_image(pixels, exact(20, 10), View(flip=True))
    np.testing.assert_array_equal(flipped, pixels[:, ::-1])
    zoomed = decode_image(smooth(64, 64), ImageTransform(32, 32), View(zoom=2))
    np.testing.assert_array_equal(zoomed, smooth(64, 64)[16:48, 16:48])


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    out=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    crop_fraction=st.sampled_from([1.0, 0.875, 0.5]),
    fit=st.sampled_from(["crop", "squash", "pad"]),
    view=st.builds(View, flip=st.booleans(), crop_x=st.floats(0, 1), crop_y=st.floats(0, 1), zoom=st.floats(1, 3)),
    jpeg=st.booleans(),
)
def test_every_size_gives_the_size_asked_for(
    height: int, width: int, out: tuple[int, int], crop_fraction: float, fit: Any, view: View, jpeg: bool
) -> None:
    transform = ImageTransform(*out, crop_fraction=crop_fraction, fit=fit)
    pixels = np.full((height, width, 3), 128, np.uint8)
    content: Any = encode(Image.fromarray(pixels), "JPEG") if jpeg else pixels
    result = decode_image(content, transform, view)
    assert result.shape == (*out, 3) and result.dtype == np.uint8 and result.flags.writeable
    if fit != "pad":
        np.testing.assert_array_equal(result, np.full((*out, 3), 128))


def kind_of(content: bytes) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode_image(content, ImageTransform(8, 8))
    with pytest.raises(UnreadableImage) as scanned:
        load_grey(content, 64)
    assert caught.value.kind == scanned.value.kind
    return caught.value.kind


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_truncated_jpegs_are_refused(share: float, options: dict[str, Any]) -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encode(Image.fromarray(noisy), "JPEG", **options)
    assert kind_of(content[: int(len(content) * share)]) == "truncated"


def test_damage_in_the_middle_is_refused_and_harmless_oddities_are_not() -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encode(Image.fromarray(noisy), "JPEG")
    middle = len(content) // 2
    assert kind_of(content[:middle] + b"\xff\xd9" + content[middle + 600 :]) == "truncated"
    whole = decode_image(content, exact(64, 64))
    np.testing.assert_array_equal(decode_image(content[:-2], exact(64, 64)), whole)  # only the end marker is missing
    np.testing.assert_array_equal(decode_image(content + b"\0" * 50, exact(64, 64)), whole)
    np.testing.assert_array_equal(decode_image(content[:20] + b"\0\1\2" + content[20:], exact(64, 64)), whole)


def test_kinds_of_unreadable_files() -> None:
    png = encode(Image.fromarray(smooth(64, 64)), "PNG")
    assert kind_of(b"") == "empty-file"
    assert kind_of(b"this is not a picture, whatever its name") == "not-an-image"
    assert kind_of(b"\xff\xd8\xff") == "truncated"
    assert kind_of(png[: len(png) // 2]) == "truncated"
    assert kind_of(b"\xff\xd8" + b"\xff" * 40) == "truncated"


def bomb(side: int) -> bytes:
    """A valid PNG of side x side black pixels in a few hundred kilobytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj(1)
    row = bytes(1 + (side + 7) // 8) * 1000
    body = b"".join(packer.compress(row) for _ in range(side // 1000)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.golden
def test_a_bomb_is_refused_from_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> None:
        pytest.fail("the bomb was decoded")

    content = bomb(30_000)
    assert len(content) < 2_000_000
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    assert kind_of(content) == "bomb"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kind_of(bomb(11_000)) == "bomb"  # over our limit, under the one of Pillow's error


def test_a_jpeg_that_claims_too_much_is_refused() -> None:
    content = encode(Image.fromarray(smooth(16, 16)), "JPEG")
    at = content.index(b"\xff\xc0") + 5
    assert MAX_JPEG_PIXELS < 60_000 * 60_000
    assert kind_of(content[:at] + struct.pack(">HH", 60_000, 60_000) + content[at + 4 :]) == "bomb"


def test_arrays_of_the_wrong_kind_are_refused() -> None:
    for wrong in (np.zeros((4, 4)), np.zeros(4, np.uint8), np.zeros((4, 4, 2), np.uint8)):
        with pytest.raises(DataError, match="uint8"):
            decode_image(wrong, exact(4, 4))
    with pytest.raises(UnreadableImage):
        decode_image(np.zeros((0, 4), np.uint8), exact(4, 4))


def test_sniff_and_thumbnail() -> None:
    image = Image.fromarray(smooth(30, 60))
    for file_format in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"):
        found = sniff(encode(image, file_format))
        assert (found.format, found.width, found.height) == (file_format, 60, 30)
        assert thumbnail(encode(image, file_format), 20).shape == (10, 20, 3)
    assert thumbnail(encode(image, "PNG"), 500).shape == (30, 60, 3)


def test_grey_pixels_agree_with_pillow() -> None:
    image = Image.fromarray(smooth(30, 60))
    for file_format in ("JPEG", "PNG"):
        content = encode(image, file_format)
        expected = np.asarray(Image.open(io.BytesIO(content)).convert("L")).astype(int)
        assert np.abs(load_grey(content, 64) - expected).max() <= 2
