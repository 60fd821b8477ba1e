"""Floor 7: every name a user may type. Importing it imports neither torch nor any library that is slow to load."""

from headstart.catalog.catalog import Entry, Kind, describe, entries, find, resolve

__all__ = ["Entry", "Kind", "describe", "entries", "find", "resolve"]
