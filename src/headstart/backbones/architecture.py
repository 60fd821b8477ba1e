"""What a network is apart from its weights: who defines it, its name there, and its arguments.

An `Architecture` is plain JSON, so a saved model can rebuild its network without the source it first came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import nn

from headstart.core.errors import BackboneError, did_you_mean

__all__ = ["Architecture", "Pool", "Source", "Truncation", "Until", "build_network"]

Source = Literal["timm", "transformers", "torchvision", "recurrent", "vector"]
Pool = Literal["flatten", "mean"]
Until = tuple[str, Pool]


@dataclass(frozen=True)
class Truncation:
    """Where a network ends early, and how what is there becomes one vector a row; `Backbone.until` makes it.

    Parameters
    ----------
    stage : str
        Name of the stage.
    pool : {"flatten", "mean"}
        All numbers of a row, or their mean over places (over the real tokens of a text).
    row_shape : tuple of int
        Shape of one input row of an image network, for which its stages were found; empty for texts.
    without : tuple of str
        Parts of a transformer that ran after its last layer and no longer do.
    """

    stage: str
    pool: Pool
    row_shape: tuple[int, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Architecture:
    """A network's definition.

    Parameters
    ----------
    source : {"timm", "transformers", "torchvision", "recurrent", "vector"}
        The library that defines the network; "recurrent" is `headstart.backbones.recurrent`, "vector" the identity on rows
        that are features already.
    name : str
        The network's name in that library, such as ``"resnet50"`` or ``"bert"``.
    arguments : dict
        What its constructor is given, as JSON values.
    until : Truncation, optional
        Where the network ends before its own features.

    Examples
    --------
    >>> Architecture("timm", "resnet18").to_dict()
    {'source': 'timm', 'name': 'resnet18', 'arguments': {}}
    """

    source: Source
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    until: Truncation | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value that `from_dict` reads back."""
        value: dict[str, Any] = {"source": self.source, "name": self.name, "arguments": self.arguments}
        if self.until is not None:
            said = self.until
            value["until"] = {
                "stage": said.stage,
                "pool": said.pool,
                "row_shape": list(said.row_shape),
                "without": list(said.without),
            }
        return value

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Architecture:
        """Return the architecture that `to_dict` wrote down.

        Raises
        ------
        BackboneError
            If the source is none of those known.
        """
        source: Any = value.get("source")
        if source not in get_args(Source):
            raise BackboneError(
                f"Architecture: source is one of {', '.join(get_args(Source))}; got {source!r}."
                + did_you_mean(str(source), get_args(Source))
            )
        until = None
        if (said := value.get("until")) is not None:
            row_shape, without = (tuple(said[key]) for key in ("row_shape", "without"))
            until = Truncation(str(said["stage"]), said["pool"], row_shape, without)
        return cls(source, str(value["name"]), dict(value.get("arguments", {})), until)


def build_network(architecture: Architecture, *, unset: bool = False) -> nn.Module:
    """Return the headless network, in evaluation mode.

    Parameters
    ----------
    unset : bool
        Do not draw its random weights, because it is about to be filled; see `headstart.backbones.weights.build_unset`.

    Examples
    --------
    >>> network = build_network(Architecture("vector", "identity", {"width": 3}))
    >>> sum(parameter.numel() for parameter in network.parameters())
    0
    """
    from headstart.backbones.weights import build_unset

    network = build_unset(lambda: _build(architecture)) if unset else _build(architecture)
    if architecture.until is not None:
        from headstart.backbones.truncation import truncate

        network = truncate(network, architecture.source, architecture.until)
    return network.eval()


def _build(architecture: Architecture) -> nn.Module:
    """Return the whole headless network with fresh random weights."""
    if architecture.source == "timm":
        from headstart.backbones.timm_models import build_timm

        return build_timm(architecture)
    if architecture.source == "torchvision":
        from headstart.backbones.torchvision_models import build_torchvision

        return build_torchvision(architecture)
    if architecture.source == "transformers":
        from headstart.backbones.transformers_models import build_transformers

        return build_transformers(architecture)
    if architecture.source == "recurrent":
        from headstart.backbones.recurrent import build_recurrent

        return build_recurrent(architecture)
    return nn.Identity()
