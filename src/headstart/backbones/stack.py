"""Cut points of a transformers encoder: before each layer of its stack, and after the last.

No architecture is named. The stack is the heaviest list of like modules. Each half is a shallow copy of the encoder
that shares its parameters: the prefix keeps the first layers and taps what the next one would have been given; the
suffix keeps the other layers and is given that in place of its embeddings. Every cut is tried when it is discovered,
on rows of different length, and offered only if the two halves give exactly what the whole gives.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from headstart.backbones.cost import count_multiply_adds
from headstart.core.errors import BackboneError

__all__ = ["LayerStack", "StackCut"]


_Replaced = dict[str, tuple[nn.Module, tuple[Any, ...] | None]]  # path: the part, and what it returns besides


@dataclass(frozen=True)
class StackCut:
    """A cut before layer ``layer`` of the stack."""

    layer: int
    name: str
    shape: tuple[int, ...]
    multiply_adds: int


class _Reached(Exception):
    """Carries the hidden state out of a forward pass that has come far enough."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__("reached the cut")
        self.hidden = hidden


class _Tap(nn.Module):
    """Stands in a layer's place and ends the pass with what the layer returns; as the first, with what it is given.

    Other attributes are the layer's, which some encoders read.
    """

    def __init__(self, layer: nn.Module, runs: bool) -> None:
        super().__init__()
        self.runs = runs
        self._original = [layer]  # in a list: a layer that does not run is no part of the prefix
        if runs:
            self.layer = layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattribute__("_original")[0], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not self.runs:
            raise _Reached(_hidden(args, kwargs))
        output = self.layer(*args, **kwargs)
        raise _Reached(output[0] if isinstance(output, tuple) else output)


class _Given(nn.Module):
    """Stands in the embeddings' place and returns what it was given; other attributes are the embeddings'."""

    def __init__(self, original: nn.Module, others: tuple[Any, ...] | None) -> None:
        super().__init__()
        self.value: Tensor | None = None
        self.others = others
        self._original = [original]  # in a list: its parameters do not belong to the suffix

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattribute__("_original")[0], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.value if self.others is None else (self.value, *self.others)


class _Prefix(nn.Module):
    """Runs the layers before a cut. Texts: ``(input_ids, attention_mask)`` to ``(hidden, attention_mask)``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Any:
        try:
            self.network(*inputs)
        except _Reached as reached:
            hidden = reached.hidden
        return (hidden, *inputs[1:]) if len(inputs) > 1 else hidden


class _Suffix(nn.Module):
    """Runs the layers after a cut. Texts: ``(hidden, attention_mask)`` to features; images: ``hidden`` to features."""

    def __init__(self, network: nn.Module, given: list[_Given], input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.given = given  # a plain list: they are inside the network already
        self.input_shape = input_shape
        self.takes_embeds = "inputs_embeds" in inspect.signature(network.get_submodule("encoder").forward).parameters

    def forward(self, hidden: Tensor, *inputs: Tensor) -> Any:
        for stand_in in self.given:
            stand_in.value = hidden
        try:
            return self._run(hidden, inputs)
        finally:
            for stand_in in self.given:
                stand_in.value = None

    def _run(self, hidden: Tensor, inputs: tuple[Tensor, ...]) -> Any:
        network: Any = self.network
        if not inputs:  # some encoders read the size of the image, none its pixels
            pixels = hidden.new_zeros((1,) * (len(self.input_shape) + 1)).expand(hidden.shape[0], *self.input_shape)
            return network.pool(network.encoder(pixel_values=pixels))
        if self.takes_embeds:
            output = network.encoder(inputs_embeds=hidden, attention_mask=inputs[0])
        else:
            output = network.encoder(input_ids=torch.zeros_like(inputs[0]), attention_mask=inputs[0])
        return network.pool(output, inputs[0])


class LayerStack:
    """The cut points of a `TextEncoder` or `ImageEncoder`.

    Parameters
    ----------
    network : nn.Module
        Has ``encoder`` and ``pool``.
    inputs : tuple of Tensor
        Two rows; of a text, with a mask that differs between them.

    Raises
    ------
    BackboneError
        If the encoder has no stack of layers.
    """

    def __init__(self, network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.network = network
        self.path = _heaviest_list(network.get_submodule("encoder"))
        self.layers = cast(nn.ModuleList, network.get_submodule(f"encoder.{self.path}"))
        self._input_shape = tuple(inputs[0].shape[1:])
        self._replaced: _Replaced = {}
        self.points: list[StackCut] = []
        with torch.no_grad():
            whole = network(*inputs)
            for replaced in self._observe(inputs):
                self._replaced = replaced
                points = [self._try(layer, inputs, whole) for layer in range(len(self.layers) + 1)]
                self.points = [point for point in points if point is not None]
                if self.points:
                    break

    def cut(self, point: StackCut) -> tuple[nn.Module, nn.Module]:
        """Return the two halves; their parameters are the network's own, not copies."""
        last = max(0, point.layer - 1)
        tap = _Tap(self.layers[last], runs=point.layer > 0)
        before = self._skeleton([*self.layers[:last], tap], {})
        given = {path: _Given(part, others) for path, (part, others) in self._replaced.items()}
        after = self._skeleton(list(self.layers[point.layer :]), given)
        return _Prefix(before).eval(), _Suffix(after, list(given.values()), self._input_shape).eval()

    def _observe(self, inputs: tuple[Tensor, ...]) -> Iterator[_Replaced]:
        """Run once; yield two guesses at the parts that make the first layer's input, which a suffix must not run.

        First, every part off the way to the stack that ended before the first layer and has parameters or returned
        the very tensor the first layer was given; second, only the latter (position biases are made before, too).
        """
        ended: dict[str, tuple[nn.Module, Any]] = {}
        first: list[Tensor] = []

        def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            first.append(_hidden(args, kwargs))

        handles = [self.layers[0].register_forward_pre_hook(begin, with_kwargs=True)]
        for path, part in _beside(self.network.get_submodule("encoder"), self.path):

            def note(module: nn.Module, _: Any, output: Any, path: str = path) -> None:
                if not first:
                    ended[path] = (module, output)

            handles.append(part.register_forward_hook(note))
        try:
            self.network(*inputs)
        finally:
            for handle in handles:
                handle.remove()
        makers = {path for path, (_, output) in ended.items() if _first(output) is first[0]}
        holders = {path for path, (part, _) in ended.items() if next(part.parameters(), None) is not None}
        for paths in (makers | holders, makers):
            yield {
                path: (ended[path][0], tuple(ended[path][1][1:]) if isinstance(ended[path][1], tuple) else None)
                for path in ended
                if path in paths
            }

    def _skeleton(self, layers: list[nn.Module], replaced: dict[str, _Given]) -> nn.Module:
        """Return a copy of the network with other layers; every other part is shared."""
        root: nn.Module = _shallow(self.network)
        root.encoder = parent = _shallow(self.network.get_submodule("encoder"))
        *way, last = self.path.split(".")
        here = ""
        for step in ["", *way]:
            if step:
                here = f"{here}.{step}".lstrip(".")
                child = _shallow(getattr(parent, step))
                setattr(parent, step, child)
                parent = child
            for path, stand_in in replaced.items():
                if path.rpartition(".")[0] == here:
                    setattr(parent, path.rpartition(".")[2], stand_in)
        setattr(parent, last, nn.ModuleList(layers))
        return root

    def _try(self, layer: int, inputs: tuple[Tensor, ...], whole: Tensor) -> StackCut | None:
        draft = StackCut(layer, f"{self.path}.{layer - 1}" if layer else "embeddings", (), 0)
        prefix, suffix = self.cut(draft)
        try:
            halfway = prefix(*inputs)
            parts = halfway if isinstance(halfway, tuple) else (halfway,)
            if parts[0].shape[0] != whole.shape[0] or not torch.equal(suffix(*parts), whole):
                return None
        except Exception:  # an encoder that cannot be cut here: whatever it raises, this cut is not offered
            return None
        shape = tuple(parts[0].shape[1:])
        single = tuple(item[:1] for item in inputs)
        return StackCut(
            layer, draft.name, (-1, *shape[1:]) if len(inputs) > 1 else shape, count_multiply_adds(prefix, single)
        )


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the hidden state among a layer's arguments: the first."""
    hidden: Tensor = args[0] if args else next(iter(kwargs.values()))
    return hidden


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) and output else output


def _heaviest_list(encoder: nn.Module) -> str:
    """Return the path of the list of like modules that holds most parameters."""
    heaviest, path = 0, ""
    for name, part in encoder.named_modules():
        if isinstance(part, nn.ModuleList) and len({type(item) for item in part}) == 1:
            weight = sum(parameter.numel() for parameter in part.parameters())
            if weight > heaviest:
                heaviest, path = weight, name
    if not path:
        raise BackboneError(f"Backbone.stages: {type(encoder).__name__} has no stack of like layers.")
    return path


def _beside(encoder: nn.Module, path: str) -> list[tuple[str, nn.Module]]:
    """Return the parts that hang off the way from the encoder to its stack, the stack left out."""
    parts: list[tuple[str, nn.Module]] = []
    parent, here = encoder, ""
    for step in path.split("."):
        parts += [(f"{here}.{name}".lstrip("."), child) for name, child in parent.named_children() if name != step]
        here = f"{here}.{step}".lstrip(".")
        parent = getattr(parent, step)
    return parts


def _shallow(module: nn.Module) -> Any:
    """Return a module with the same parts, whose list of parts is its own."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin
