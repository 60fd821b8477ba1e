"""Floor 8: every name a user may type. Importing it imports neither torch nor any library that is slow to load."""

from headstart.catalog.catalog import describe, entries, find, resolve
from headstart.catalog.entry import Entry, Kind

__all__ = ["Entry", "Kind", "describe", "entries", "find", "resolve"]
