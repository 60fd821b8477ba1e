"""What is said of a base model: what it is and costs, and the points at which it can be cut."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from headstart.backbones.architecture import Source
from headstart.core.tasks import Modality

__all__ = ["BackboneInfo", "Stage"]


@dataclass(frozen=True)
class BackboneInfo:
    """What a person wants to know about a base model before using it.

    Parameters
    ----------
    name : str
        The name it was opened by.
    source, architecture, arguments
        The library that defines the network, its name there, and its arguments.
    modality : {"image", "text", "vector"}
        What a row is.
    licence : str
        Terms of the weights as their origin states them; "unknown" where it states none.
    origin : str
        Where the weights came from.
    parameters : int
        Number of trainable numbers.
    multiply_adds : int
        Multiply-adds for one row at the network's own size; for a text of 32 tokens.
    width : int
        Number of features.
    size_bytes : int
        Size of all tensors in memory.
    weights_digest : str
        Names the network's function: definition and every tensor.
    """

    name: str
    source: Source
    architecture: str
    arguments: dict[str, Any]
    modality: Modality
    licence: str
    origin: str
    parameters: int
    multiply_adds: int
    width: int
    size_bytes: int
    weights_digest: str

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value."""
        return asdict(self)


@dataclass(frozen=True)
class Stage:
    """A point at which the network can be cut.

    Parameters
    ----------
    name : str
        The part of the network that has just ended; ``"input"`` before everything, ``"features"`` after it.
    index : int
        Place in the order, from 0.
    fraction : float in [0, 1]
        Share of all multiply-adds spent before this point.
    shape : tuple of int
        Shape of one row here.
    """

    name: str
    index: int
    fraction: float
    shape: tuple[int, ...]
