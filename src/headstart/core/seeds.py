"""One seed from the user, one independent stream for each purpose.

A stream is named, so adding a purpose never shifts the numbers of another.
"""

from __future__ import annotations

import numpy as np

from headstart.core.digests import digest_bytes

__all__ = ["derive_seed", "generator"]


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a 32-bit seed for a named purpose.

    Examples
    --------
    >>> derive_seed(0, "split") == derive_seed(0, "split")
    True
    >>> derive_seed(0, "split") == derive_seed(0, "bootstrap")
    False
    """
    text = "/".join([str(seed), *map(str, purpose)])
    return int(digest_bytes(text.encode())[:8], 16)


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return NumPy's generator for a named purpose."""
    return np.random.default_rng(derive_seed(seed, *purpose))
