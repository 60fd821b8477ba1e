"""The few facts about a JPEG that decide how it is decoded, read from its markers without a decoder.

Walks the segments up to the first scan (ITU-T T.81, annex B): frame header for the size, number of components and
coding process, APP1 for the EXIF orientation (tag 0x0112 of the first directory).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["JpegHeader", "read_jpeg_header"]

_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_ORIENTATION = 0x0112


class JpegHeader(NamedTuple):
    """Size as stored, colour components, whether progressive, and the EXIF orientation (1 where there is none)."""

    width: int
    height: int
    components: int
    progressive: bool
    orientation: int


def read_jpeg_header(content: bytes) -> JpegHeader | None:
    """Return the header of a JPEG, or None where the markers end before a frame header (a truncated or false file).

    Examples
    --------
    >>> read_jpeg_header(b"\\xff\\xd8\\xff\\xc0\\x00\\x11\\x08\\x00\\x02\\x00\\x03\\x03" + bytes(9))
    JpegHeader(width=3, height=2, components=3, progressive=False, orientation=1)
    >>> read_jpeg_header(b"\\xff\\xd8\\xff") is None
    True
    """
    orientation = 1
    place, end = 2, len(content)
    while place + 4 <= end:
        if content[place] != 0xFF:
            place = content.find(b"\xff", place)  # stray bytes between segments are common and harmless
            if place < 0:
                return None
            continue
        marker = content[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker in _STANDALONE or marker == 0:
            place += 2
            continue
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        if marker in _FRAMES:
            if place + 10 > end:
                return None
            height, width, components = struct.unpack(">HHB", content[place + 5 : place + 10])
            return JpegHeader(width, height, components, marker in _PROGRESSIVE, orientation)
        if marker in {0xD9, 0xDA}:
            return None
        if marker == 0xE1 and content[place + 4 : place + 10] == b"Exif\0\0":
            orientation = _exif_orientation(content[place + 10 : place + 2 + length])
        place += 2 + max(length, 2)
    return None


def _exif_orientation(tiff: bytes) -> int:
    """Return the orientation of an EXIF block, 1 where it has none or is damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 10:
        return 1
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    if start + 2 > len(tiff):
        return 1
    (entries,) = struct.unpack_from(order + "H", tiff, start)
    for index in range(entries):
        place = start + 2 + 12 * index
        if place + 12 > len(tiff):
            return 1
        tag, kind = struct.unpack_from(order + "HH", tiff, place)
        if tag == _ORIENTATION:
            (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), tiff, place + 8)
            return value if 1 <= value <= 8 else 1
    return 1
