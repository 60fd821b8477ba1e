"""Where things lie on the user's machine, and whether the network may be used."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["cache_folder", "offline", "weights_folder"]


def cache_folder() -> Path:
    """Return the folder of all that can be computed again: ``HEADSTART_CACHE``, or the platform's cache folder."""
    if value := os.environ.get("HEADSTART_CACHE"):
        return Path(value).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "headstart"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "headstart" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "headstart"


def weights_folder() -> Path:
    """Return the folder for weights put there by hand: ``HEADSTART_WEIGHTS``, or ``weights`` in the cache folder."""
    if value := os.environ.get("HEADSTART_WEIGHTS"):
        return Path(value).expanduser()
    return cache_folder() / "weights"


def offline() -> bool:
    """Return whether no hub may be asked: ``HEADSTART_OFFLINE`` or a hub library's own switch is set."""
    switches = ("HEADSTART_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").strip().lower() in {"1", "true", "yes", "on"} for name in switches)
