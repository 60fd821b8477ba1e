"""What a run was made with, and when."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform

from headstart.core.version import VERSION

__all__ = ["now", "versions"]

_LIBRARIES = ("torch", "timm", "transformers", "openvino", "numpy", "scikit-learn", "pillow", "simplejpeg")


def versions() -> dict[str, str]:
    """Return versions of headstart, Python and the libraries a result depends on; those not installed are left out."""
    found = {"headstart": VERSION, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def now() -> str:
    """Return the time in UTC, to the second, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
