"""Content digests: blake3 of bytes, files, arrays and canonical JSON.

A digest names content, never a place: equal bytes have equal digests on every machine.
blake3 because it hashes five times as fast as sha256 and is as hard to forge.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

__all__ = ["digest_array", "digest_bytes", "digest_file", "digest_json", "digest_many"]

_BLOCK = 1 << 20


def digest_bytes(content: bytes | memoryview) -> str:
    """Return the blake3 digest of some bytes as 64 hexadecimal digits.

    Examples
    --------
    >>> digest_bytes(b"")[:16]
    'af1349b9f5f9a1a6'
    """
    return blake3(content).hexdigest()


def digest_file(path: Path) -> str:
    """Return the blake3 digest of a file, read in blocks so that its size does not matter."""
    hasher = blake3()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest()


def digest_array(array: np.ndarray[Any, Any]) -> str:
    """Return the digest of an array: its type, its shape and its bytes in C order.

    Examples
    --------
    >>> digest_array(np.zeros((2, 3))) == digest_array(np.zeros((3, 2)))
    False
    """
    contiguous = np.ascontiguousarray(array)
    hasher = blake3(f"{contiguous.dtype.str}{contiguous.shape}".encode())
    hasher.update(contiguous.tobytes())
    return hasher.hexdigest()


def digest_json(value: Any) -> str:
    """Return the digest of a JSON value, whatever the order of its keys.

    Examples
    --------
    >>> digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
    True
    """
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode())


def digest_many(digests: list[str]) -> str:
    """Return one digest for an ordered list of digests.

    Examples
    --------
    >>> digest_many(["a", "b"]) == digest_many(["b", "a"])
    False
    """
    return digest_bytes("\n".join(digests).encode())
