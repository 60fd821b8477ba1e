"""The version of headstart, the one place it is written besides pyproject.toml (a test holds them equal)."""

__all__ = ["VERSION"]

VERSION = "0.1.0"
