"""What stands behind a name: text only, nothing is imported until it is loaded."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Entry", "Kind"]

Kind = Literal[
    "backbone",
    "method",
    "score",
    "head",
    "strategy",
    "objective",
    "adaptation",
    "translation",
    "test-time",
    "metric",
    "distance",
    "aligner",
    "rule",
]


@dataclass(frozen=True)
class Entry:
    """One name.

    Parameters
    ----------
    name : str
        What a user types; ``"timm:NAME"`` stands for a whole family.
    kind : str
        What it names, one of `Kind`.
    target : str
        ``"module:attribute"``, or ``"module:attribute[key]"``.
    summary : str
        One line for people.
    modality : {"image", "text", ""}
        What a row is, for a base model; empty where that depends.
    needs : str
        Python module that must be there besides headstart's core; empty for none.
    install : str
        What to install when it is not there.
    details : dict of str to str
        Facts for a table: features, parameters, licence.
    """

    name: str
    kind: Kind
    target: str
    summary: str
    modality: Literal["image", "text", ""] = ""
    needs: str = ""
    install: str = ""
    details: dict[str, str] = field(default_factory=dict)

    @property
    def installed(self) -> bool:
        """Whether what it needs is there; nothing is imported to find out."""
        return all(importlib.util.find_spec(module) is not None for module in self.needs.split())

    @property
    def is_family(self) -> bool:
        """Whether it stands for many names."""
        return self.name.endswith(":NAME")

    def matches(self, name: str) -> bool:
        """Return whether a user who types ``name`` means this.

        Examples
        --------
        >>> Entry("timm:NAME", "backbone", "a:b", "a family").matches("timm:resnet18")
        True
        """
        return name == self.name or (self.is_family and name.startswith(self.name.removesuffix("NAME")))

    def load(self) -> Any:
        """Import and return what the entry names."""
        module, _, attribute = self.target.partition(":")
        attribute, _, key = attribute.removesuffix("]").partition("[")
        value = getattr(importlib.import_module(module), attribute)
        return value[key] if key else value
