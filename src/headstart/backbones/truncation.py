"""Networks that end at a stage inside: what is there, flattened or averaged over places, becomes the features.

Use it for heads that want places and not their mean (VGG-16, then Flatten and a dense layer), for features that are less
of the source task than the last ones, and for weights that end early.
It ignores what comes after the stage: those weights are neither kept nor saved.
"""

from __future__ import annotations

from torch import Tensor, nn

from headstart.backbones.architecture import Source, Truncation
from headstart.backbones.blocks import place_dimensions
from headstart.backbones.graph import CutPoint, NetworkGraph
from headstart.core.errors import BackboneError, did_you_mean

__all__ = ["find_point", "pooled", "truncate"]


class MeanVector(nn.Module):
    """The mean of the word vectors of a text's real tokens: all that a recurrent encoder is before its recurrent unit."""

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return features (n, d)."""
        return _token_mean(*self.embedding(input_ids, attention_mask))


def truncate(network: nn.Module, source: Source, until: Truncation) -> nn.Module:
    """Return a network that ends early and shares the parameters of the one given.

    Raises
    ------
    BackboneError
        If the network has no such stage.
    """
    if source == "recurrent":
        return MeanVector(network.get_submodule("embedding")).eval()
    if source == "transformers":
        from headstart.backbones.stack import shorten

        return shorten(network, until.stage, until.without, until.pool).eval()
    graph = NetworkGraph(network.eval(), until.row_shape)
    return graph.until(find_point(graph, until.stage), until.pool == "mean")


def pooled(activation: Tensor | tuple[Tensor, Tensor], until: Truncation) -> Tensor:
    """Return one vector a row from the activations at the stage; of a text, ``(hidden, attention_mask)``.

    Examples
    --------
    >>> import torch
    >>> activation = torch.tensor([[[[1.0, 3.0]], [[5.0, 5.0]]]])  # one row, two channels, one by two places
    >>> pooled(activation, Truncation("stage", "mean", (3, 1, 2)))
    tensor([[2., 5.]])
    >>> pooled(activation, Truncation("stage", "flatten", (3, 1, 2)))
    tensor([[1., 3., 5., 5.]])
    """
    if isinstance(activation, tuple):
        return _token_mean(*activation)
    if until.pool == "flatten":
        return activation.flatten(1)
    places = place_dimensions(tuple(activation.shape[1:]), until.row_shape)
    return activation.mean(places) if places else activation


def _token_mean(hidden_ntd: Tensor, mask_nt: Tensor) -> Tensor:
    weights_nt = mask_nt.to(hidden_ntd.dtype)
    features: Tensor = (hidden_ntd * weights_nt.unsqueeze(-1)).sum(1) / weights_nt.sum(1, keepdim=True).clamp(min=1)
    return features


def find_point(graph: NetworkGraph, stage: str) -> CutPoint:
    """Return the cut point of this name.

    Raises
    ------
    BackboneError
        If there is none.
    """
    for point in graph.points:
        if point.name == stage:
            return point
    names = [point.name for point in graph.points]
    raise BackboneError(
        f"Backbone.until: {type(graph.module).__name__} has no stage {stage!r}; it has {', '.join(names) or 'none'}."
        + did_you_mean(stage, names)
    )
