"""One threaded pass over image rows: digest, readability and fingerprint of each, remembered for the next time.

A file that was seen before (same path, size and times) is not opened again; one with known content is not decoded again.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image

from headstart.core.digests import digest_array, digest_bytes
from headstart.core.errors import UnreadableRow
from headstart.data.duplicates import FINGERPRINT_SIZE
from headstart.data.images import UnreadableImage, load_grey
from headstart.data.memo import FileStamp, read_scans, write_digests, write_scans
from headstart.data.rows import FileRows, Rows

__all__ = ["Fingerprints", "fingerprint", "scan_images"]

_VERSION: Final = b"image-1:"
_DECODED_SIDE = (
    2 * FINGERPRINT_SIZE
)  # half the aliasing of decoding straight to the fingerprint's size, for no more time
_BATCH, _SHARE = 512, 8


@dataclass
class Fingerprints:
    """What the pass found, row by row.

    ``problems`` holds kind and message of the rows that cannot be read; their digest may be ``""``, their fingerprint is black.
    """

    digests: list[str]
    grey_nhw: np.ndarray[Any, Any]
    sides_n: np.ndarray[Any, Any]
    problems: dict[int, tuple[str, str]]
    from_memo: int = 0


def fingerprint(content: bytes | np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], int]:
    """Return a 32 x 32 grey picture of an image, and the shorter side of the image as it was decoded.

    Raises
    ------
    UnreadableImage
        If the image cannot be decoded.

    Examples
    --------
    >>> grey, side = fingerprint(np.full((40, 50), 9, np.uint8))
    >>> grey.shape, int(grey.max()), side
    ((32, 32), 9, 40)
    """
    pixels = load_grey(content, _DECODED_SIDE)
    small = Image.fromarray(pixels).resize((FINGERPRINT_SIZE, FINGERPRINT_SIZE), Image.Resampling.BILINEAR)
    return np.asarray(small), min(pixels.shape)


def scan_images(
    rows: Rows, positions: Sequence[int], threads: int, advance: Callable[[int, int], None]
) -> Fingerprints:
    """Scan rows of images.

    Parameters
    ----------
    rows : Rows
        Files or arrays.
    positions : sequence of int of length n
        Which of them.
    threads : int
        Decoding threads.
    advance : callable
        Called with the number of rows done and how many of these were known.
    """
    count = len(positions)
    found = Fingerprints(
        [""] * count, np.zeros((count, FINGERPRINT_SIZE, FINGERPRINT_SIZE), np.uint8), np.zeros(count, np.int64), {}
    )
    stamps: dict[int, FileStamp] = {}
    if isinstance(rows, FileRows):
        stamps = rows.look_up([position for position in positions if position not in rows.known])
        digests = [rows.known.get(position, "") for position in positions]
    else:
        digests = rows.digests(positions)
    known = read_scans([_key(digest) for digest in set(digests) if digest])
    todo = []
    for i, digest in enumerate(digests):
        result = known.get(_key(digest)) if digest else None
        if result is None or not _unpack(found, i, digest, result):
            todo.append(i)
    found.from_memo = count - len(todo)
    advance(found.from_memo, found.from_memo)
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(todo), _BATCH):
            batch = todo[start : start + _BATCH]
            shares = [batch[at : at + _SHARE] for at in range(0, len(batch), _SHARE)]
            done = pool.map(lambda share: [_scan_row(rows, positions[i]) for i in share], shares)
            results = itertools.chain.from_iterable(done)
            fresh: dict[bytes, bytes] = {}
            for i, (digest, result) in zip(batch, results, strict=True):
                _unpack(found, i, digest, result)
                if digest:
                    fresh[_key(digest)] = result
                    if isinstance(rows, FileRows):
                        rows.known[positions[i]] = digest
            write_scans(fresh)
            write_digests(
                (stamps[positions[i]], found.digests[i]) for i in batch if found.digests[i] and positions[i] in stamps
            )
            advance(len(batch), 0)
    return found


def _key(digest: str) -> bytes:
    return _VERSION + bytes.fromhex(digest)


def _scan_row(rows: Rows, position: int) -> tuple[str, bytes]:
    """Return the digest of a row and the packed result; the digest is empty where the row cannot be opened."""
    try:
        content = rows.read(position)
    except UnreadableRow as error:
        kind = "permission" if "permission" in str(error).lower() else "missing-file"
        return "", _pack_problem(kind, str(error))
    assert not isinstance(content, str)
    digest = digest_bytes(content) if isinstance(content, bytes) else digest_array(content)
    try:
        grey, side = fingerprint(content)
    except UnreadableImage as error:
        return digest, _pack_problem(error.kind, str(error))
    return digest, b"+" + struct.pack("<I", side) + grey.tobytes()


def _pack_problem(kind: str, message: str) -> bytes:
    return b"-" + f"{kind}\n{message}".encode("utf-8", errors="replace")


def _unpack(found: Fingerprints, i: int, digest: str, result: bytes) -> bool:
    """Fill in row ``i`` from a packed result; False where the result is damaged."""
    found.digests[i] = digest
    if result[:1] == b"-":
        kind, _, message = result[1:].decode("utf-8", errors="replace").partition("\n")
        found.problems[i] = kind, message
        return True
    if result[:1] != b"+" or len(result) != 5 + FINGERPRINT_SIZE**2:
        return False
    (found.sides_n[i],) = struct.unpack_from("<I", result, 1)
    found.grey_nhw[i] = np.frombuffer(result, np.uint8, offset=5).reshape(FINGERPRINT_SIZE, FINGERPRINT_SIZE)
    return True
