"""Floor 8: every name a user may type. Importing it imports neither torch nor any library that is slow to load."""

from headstart.catalog.catalog import add, describe, entries, find, resolve
from headstart.catalog.entry import Entry, Kind
from headstart.catalog.expressions import JointLoss, read_objectives, read_recipe

__all__ = [
    "Entry",
    "JointLoss",
    "Kind",
    "add",
    "describe",
    "entries",
    "find",
    "read_objectives",
    "read_recipe",
    "resolve",
]
