"""What a network is apart from its weights: who defines it, its name there, and its arguments.

An `Architecture` is plain JSON, so a saved model can rebuild its network without the source it first came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import nn

from headstart.core.errors import BackboneError, did_you_mean

__all__ = ["Architecture", "Source", "build_network"]

Source = Literal["timm", "transformers", "torchvision", "recurrent", "vector"]


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

    Examples
    --------
    >>> Architecture("timm", "resnet18").to_dict()
    {'source': 'timm', 'name': 'resnet18', 'arguments': {}}
    """

    source: Source
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value that `from_dict` reads back."""
        return {"source": self.source, "name": self.name, "arguments": self.arguments}

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
        return cls(source, str(value["name"]), dict(value.get("arguments", {})))


def build_network(architecture: Architecture) -> nn.Module:
    """Return the headless network with fresh random weights, in evaluation mode.

    Examples
    --------
    >>> network = build_network(Architecture("vector", "identity", {"width": 3}))
    >>> sum(parameter.numel() for parameter in network.parameters())
    0
    """
    if architecture.source == "timm":
        from headstart.backbones.timm_models import build_timm

        network = build_timm(architecture)
    elif architecture.source == "torchvision":
        from headstart.backbones.torchvision_models import build_torchvision

        network = build_torchvision(architecture)
    elif architecture.source == "transformers":
        from headstart.backbones.transformers_models import build_transformers

        network = build_transformers(architecture)
    elif architecture.source == "recurrent":
        from headstart.backbones.recurrent import build_recurrent

        network = build_recurrent(architecture)
    else:
        network = nn.Identity()
    return network.eval()
