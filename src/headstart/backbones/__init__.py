"""Base models from any source behind one type; see `open_backbone`."""

from headstart.backbones.architecture import Architecture, Truncation
from headstart.backbones.backbone import Backbone
from headstart.backbones.facts import BackboneInfo, Stage
from headstart.backbones.opening import DEFAULT_IMAGE, DEFAULT_TEXT, build_backbone, open_backbone, vector_backbone

__all__ = [
    "DEFAULT_IMAGE",
    "DEFAULT_TEXT",
    "Architecture",
    "Backbone",
    "BackboneInfo",
    "Stage",
    "Truncation",
    "build_backbone",
    "open_backbone",
    "vector_backbone",
]
