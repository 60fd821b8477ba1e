"""Cut points of a transformers encoder: before each layer of its stack, and after the last.

No architecture is named. The stack is the heaviest list of like modules. A piece between two cuts is a shallow copy of
the encoder that shares its parameters: it keeps some of the layers, is given the hidden state in place of its embeddings,
and its last layer ends the pass. A part outside the stack belongs to the first piece that runs it; the others borrow it.
Every cut is tried when it is discovered, on rows of different length, and offered only if the two halves give exactly
what the whole gives.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from headstart.backbones.cost import count_multiply_adds
from headstart.core.errors import BackboneError

__all__ = ["LayerStack", "StackCut", "shorten"]


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


@functools.cache
def _tapped(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a kind of layer that ends the pass with what it returns."""

    class Tapped(kind):  # type: ignore[misc, valid-type]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            raise _Reached(_first(super().forward(*args, **kwargs)))

    return Tapped


class _StandIn(nn.Module):
    """Takes a part's place without owning its parameters; other attributes are the part's, which some encoders read."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self._original = [original]  # in a list: its parameters do not belong to this piece

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattribute__("_original")[0], name)


class _Wall(_StandIn):
    """Stands in the first layer's place and ends the pass with what it is given."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise _Reached(_hidden(args, kwargs))


class _Borrowed(_StandIn):
    """Runs a part that belongs to another piece."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._original[0](*args, **kwargs)


class _Given(_StandIn):
    """Stands in the embeddings' place and returns what it was given."""

    def __init__(self, original: nn.Module, others: tuple[Any, ...] | None) -> None:
        super().__init__(original)
        self.value: Tensor | None = None
        self.others = others

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.value if self.others is None else (self.value, *self.others)


class _Layers(nn.ModuleList):
    """Some layers of a stack under their own numbers, so that parameters keep their names."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def __getitem__(self, place: Any) -> Any:
        layers = list(self._modules.values())
        return nn.ModuleList(layers[place]) if isinstance(place, slice) else layers[place]


class _Piece(nn.Module):
    """Runs the layers between two cuts.

    Texts: ``(input_ids, attention_mask)`` or ``(hidden, attention_mask)`` to ``(hidden, attention_mask)`` or features;
    images: pixels or ``hidden`` to ``hidden`` or features.
    """

    def __init__(self, network: nn.Module, given: list[_Given], input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = network.get_submodule("encoder")
        self._network = [network]  # in a list: all its parameters are the encoder's
        self.given = given  # a plain list: they are inside the network already
        self.input_shape = input_shape
        self.takes_embeds = "inputs_embeds" in inspect.signature(self.encoder.forward).parameters

    def forward(self, first: Tensor, *inputs: Tensor) -> Any:
        for stand_in in self.given:
            stand_in.value = first
        try:
            return self._run(first, inputs) if self.given else self._network[0](first, *inputs)
        except _Reached as reached:
            return (reached.hidden, *inputs) if inputs else reached.hidden
        finally:
            for stand_in in self.given:
                stand_in.value = None

    def _run(self, hidden: Tensor, inputs: tuple[Tensor, ...]) -> Any:
        network: Any = self._network[0]
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
        self._inputs = inputs
        self._input_shape = tuple(inputs[0].shape[1:])
        self._beside = dict(_beside(network.get_submodule("encoder"), self.path))
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
        prefix, suffix = self.segments([point])
        return prefix, suffix

    def segments(self, points: Sequence[StackCut]) -> list[nn.Module]:
        """Return the network cut at all of these points, which come in order; parameters keep their names."""
        places = [None, *(point.layer for point in points), None]
        pieces = [self._piece(start, end, {}) for start, end in pairwise(places)]
        owners = self._first_runs(pieces)
        last = len(pieces) - 1  # which has what none runs
        return [
            self._piece(start, end, {key: part for key, part in self._beside.items() if owners.get(key, last) != place})
            for place, (start, end) in enumerate(pairwise(places))
        ]

    def blocks(self) -> list[StackCut]:
        """Return the ends of all blocks but the last: embeddings and layers.

        The last layer has the end of the network with it, unless nothing there has parameters.
        """
        whole = self.segments([*self.points])[-1]
        closes = self.points[-1].layer == len(self.layers) and next(whole.parameters(), None) is not None
        return self.points[:-1] if closes else list(self.points)

    def closing(self) -> tuple[str, ...]:
        """Return the parts outside the stack that do not run until its last layer has ended."""
        before = self._first_runs([self._piece(None, len(self.layers), {})])
        return tuple(path for path in self._beside if path not in before)

    def _piece(self, start: int | None, end: int | None, borrowed: dict[str, nn.Module]) -> nn.Module:
        """Return the layers from ``start`` (None: the input) to ``end`` (None: the features)."""
        layers: dict[str, nn.Module] = dict(list(self.layers.named_children())[start:end])
        if end == 0:
            layers = {"0": _Wall(self.layers[0])}
        elif end is not None:
            name, last = next(reversed(layers.items()))
            layers[name] = tapped = _shallow(last)
            tapped.__class__ = _tapped(type(last))  # type: ignore[arg-type]
        replaced: dict[str, nn.Module] = {path: _Borrowed(part) for path, part in borrowed.items()}
        given: list[_Given] = []
        if start is not None:
            given = [_Given(part, others) for part, others in self._replaced.values()]
            replaced |= dict(zip(self._replaced, given, strict=True))
        skeleton = _skeleton(self.network, self.path, _Layers(layers), replaced, owns=start is None)
        return _Piece(skeleton, given, self._input_shape).eval()

    def _first_runs(self, pieces: list[nn.Module]) -> dict[str, int]:
        """Return, for each part outside the stack, the first of the pieces that runs it."""
        owners: dict[str, int] = {}
        running = 0
        handles = []
        for path, part in self._beside.items():

            def note(*_: Any, path: str = path) -> None:
                owners.setdefault(path, running)

            handles.append(part.register_forward_hook(note))
        try:
            with torch.no_grad():
                values: Any = self._inputs
                for running, piece in enumerate(pieces):  # noqa: B007 (read by the hooks)
                    values = piece(*(values if isinstance(values, tuple) else (values,)))
        finally:
            for handle in handles:
                handle.remove()
        return owners

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
        for path, part in self._beside.items():

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

    def _try(self, layer: int, inputs: tuple[Tensor, ...], whole: Tensor) -> StackCut | None:
        draft = StackCut(layer, f"{self.path}.{layer - 1}" if layer else "embeddings", (), 0)
        prefix, suffix = self._piece(None, layer, {}), self._piece(layer, None, {})
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


def shorten(network: nn.Module, stage: str, without: Sequence[str], pooling: str) -> nn.Module:
    """Return a `TextEncoder` or `ImageEncoder` that ends after a layer; its parameters are the network's own.

    Parameters
    ----------
    stage : str
        Name of a cut.
    without : sequence of str
        Parts after the stack that are left out; see `LayerStack.closing`.
    pooling : str
        How it makes one vector of what the last layer returns.

    Raises
    ------
    BackboneError
        If the stack has no such layer.
    """
    path = _heaviest_list(network.get_submodule("encoder"))
    layers = list(network.get_submodule(f"encoder.{path}").children())
    name, _, number = stage.rpartition(".")
    kept = 0 if stage == "embeddings" else int(number) + 1 if name == path and number.isdigit() else -1
    if not 0 <= kept <= len(layers):
        raise BackboneError(
            f"Backbone.until: {stage!r} is no stage of this network; it has embeddings and {path}.0 to {path}.{len(layers) - 1}."
        )
    replaced: dict[str, nn.Module] = {part: nn.Identity() for part in without}
    short = _skeleton(network, path, nn.ModuleList(layers[:kept]), replaced, owns=True)
    short.pooling = pooling  # type: ignore[assignment]
    return short


def _skeleton(
    network: nn.Module, path: str, layers: nn.Module, replaced: dict[str, nn.Module], owns: bool
) -> nn.Module:
    """Return a copy of a network with other layers in its stack; every part that is not replaced is shared.

    Parameters
    ----------
    owns : bool
        Whether parameters that lie on the way to the stack belong to this copy.
    """
    root: nn.Module = _shallow(network)
    root.encoder = parent = _shallow(network.get_submodule("encoder"), owns)
    *way, last = path.split(".")
    here = ""
    for step in ["", *way]:
        if step:
            here = f"{here}.{step}".lstrip(".")
            child = _shallow(getattr(parent, step), owns)
            setattr(parent, step, child)
            parent = child
        for part, stand_in in replaced.items():
            if part.rpartition(".")[0] == here:
                setattr(parent, part.rpartition(".")[2], stand_in)
    setattr(parent, last, layers)
    return root


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


def _shallow(module: nn.Module, owns: bool = True) -> Any:
    """Return a module with the same parts, whose list of parts is its own; its own parameters may be left to another."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    if not owns:
        twin.__dict__.update(twin._parameters)
        twin._parameters = {}
    return twin
