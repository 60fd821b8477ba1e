"""Cut points of an image network, discovered from its traced graph; nothing is listed by hand per architecture.

The network is traced with torch.fx and run once on two batch sizes without computing anything (fake tensors). A node is
a cut point when, after it, exactly one tensor that depends on the rows is still needed, it has one entry a row, and
nothing later writes into it. Numbers (shapes) may cross a cut: the suffix recomputes them from the number of its rows.
Tensors that depend on parameters and numbers only (a class token repeated for each row) are recomputed too.
"""

from __future__ import annotations

import contextlib
import inspect
import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Any

import torch
from torch import Tensor, fx, nn

from headstart.backbones.cost import MultiplyAdds
from headstart.core.errors import BackboneError

__all__ = ["CutPoint", "NetworkGraph", "Step", "module_paths"]

_BATCHES = (2, 3)
_CONSTANT = re.compile(r"(?<=_tensor_constant)\d+")  # torch.fx goes on counting at the next trace


@dataclass(frozen=True)
class CutPoint:
    """A node after which the network can be cut: its name, the shape of one row there, the work done so far."""

    node: fx.Node
    name: str
    shape: tuple[int, ...]
    multiply_adds: int


@dataclass(frozen=True)
class Step:
    """A node, the cut point after it if there is one, its work, and whether it has parameters."""

    node: fx.Node
    point: CutPoint | None
    work: int
    holds: bool


class NetworkGraph:
    """A traced network that can be cut.

    Parameters
    ----------
    module : nn.Module
        Takes one tensor (n, ...) and returns one.
    row_shape : tuple of int
        Shape of one row of its input.

    Attributes
    ----------
    trainable : bool
        Whether the graph is that of training, too; else pieces of the network may only be used as they are.

    Raises
    ------
    BackboneError
        If torch.fx cannot trace the network.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).eval()
    >>> graph = NetworkGraph(network, (2,))
    >>> [(point.name, point.shape, point.multiply_adds) for point in graph.points]
    [('0', (3,), 6), ('1', (3,), 6)]
    >>> prefix, suffix = graph.cut(graph.points[1])
    >>> rows = torch.ones(4, 2)
    >>> bool(torch.equal(suffix(prefix(rows)), network(rows)))
    True
    """

    def __init__(self, module: nn.Module, row_shape: tuple[int, ...]) -> None:
        self.module = module
        self.graph, self.trainable = _trace(module)
        self.row_shape = row_shape
        self._state = set(module.state_dict())
        self._nodes = list(self.graph.nodes)
        self._place = {node: index for index, node in enumerate(self._nodes)}
        small, large = (_probe(module, self.graph, (rows, *row_shape)) for rows in _BATCHES)
        self._small, self._large = small, large
        self._carries = self._row_dependent()
        self.multiply_adds = small.work_after[self._nodes[-1]] // _BATCHES[0]
        self.points = list(self._find_points())

    def steps(self) -> Iterator[Step]:
        """Yield every node that holds something computed from the rows, in order."""
        points = {point.node: point for point in self.points}
        parameters = {name for name, _ in self.module.named_parameters()}
        before = 0
        for node in self._nodes[1:-1]:
            if not self._carries[node]:
                continue
            if node.op == "call_module":
                holds = next(self.module.get_submodule(str(node.target)).parameters(), None) is not None
            else:
                holds = any(source.target in parameters for source in node.all_input_nodes if source.op == "get_attr")
            after = self._small.work_after[node]
            yield Step(node, points.get(node), after - before, holds)
            before = after

    def _row_dependent(self) -> dict[fx.Node, bool]:
        """Return which nodes hold something that must cross a cut: tensors computed from the rows."""
        carries: dict[fx.Node, bool] = {}
        for node in self._nodes:
            inputs = any(carries[source] for source in node.all_input_nodes)
            carries[node] = node.op == "placeholder" or (inputs and node not in self._small.numbers)
        return carries

    def _find_points(self) -> Iterator[CutPoint]:
        last_use = {
            node: max(
                (self._place[user] for user in node.users if self._carries[user] or user.op == "output"), default=-1
            )
            for node in self._nodes
        }
        names = _names(self._nodes)
        live: set[fx.Node] = set()
        for index, node in enumerate(self._nodes[:-1]):
            if self._carries[node]:
                live.add(node)
            live = {item for item in live if last_use[item] > index}
            if live != {node} or node.op == "placeholder" or node not in self._small.shapes:
                continue
            shapes = [probe.shapes[node] for probe in (self._small, self._large)]
            per_row = all(shape[:1] == (rows,) for shape, rows in zip(shapes, _BATCHES, strict=True))
            whole = last_use[node] == len(self._nodes) - 1  # the features themselves
            if per_row and not whole and shapes[0][1:] == shapes[1][1:] and node not in self._small.overwritten:
                yield CutPoint(node, names[node], shapes[0][1:], self._small.work_after[node] // _BATCHES[0])

    def cut(self, point: CutPoint) -> tuple[nn.Module, nn.Module]:
        """Return the two halves; their parameters are the network's own, not copies."""
        prefix, suffix = self.segments([point])
        return prefix, suffix

    def segments(self, points: Sequence[CutPoint]) -> list[nn.Module]:
        """Return the network cut at all of these points, which come in order; parameters keep their names."""
        ends = [None, *points, None]
        return [self._module(self._piece(start, end)) for start, end in pairwise(ends)]

    def until(self, point: CutPoint, mean: bool) -> nn.Module:
        """Return the network up to a point, its activations made one vector a row: all numbers, or means over places."""
        from headstart.backbones.blocks import place_dimensions

        graph = self._piece(None, point)
        end = graph.output_node()
        (activation,) = end.all_input_nodes
        with graph.inserting_before(end):
            if mean and (places := place_dimensions(point.shape, self.row_shape)):
                activation = graph.call_method("mean", (activation, places))
            elif not mean and len(point.shape) > 1:
                activation = graph.call_method("flatten", (activation, 1))
        end.args = (activation,)
        return self._module(graph)

    def blocks(self) -> list[CutPoint]:
        """Return the ends of the network's coarse units but the last; see `headstart.backbones.blocks`."""
        from headstart.backbones.blocks import find_blocks

        return find_blocks(self)

    def parameters_of(self, start: CutPoint | None, end: CutPoint | None) -> set[int]:
        """Return the identities of the parameters that the piece between two points uses."""
        used: set[int] = set()
        for node in self._piece(start, end).nodes:
            if node.op == "call_module":
                used |= {id(parameter) for parameter in self.module.get_submodule(str(node.target)).parameters()}
            elif node.op == "get_attr":
                used.add(id(operator.attrgetter(str(node.target))(self.module)))
        return used & {id(parameter) for parameter in self.module.parameters()}

    def _piece(self, start: CutPoint | None, end: CutPoint | None) -> fx.Graph:
        """Return the graph after ``start`` (None: the input) and up to ``end`` (None: the features)."""
        piece = fx.Graph()
        known: dict[fx.Node, Any] = {}
        rows: list[fx.Node] = []
        first, last = 0, len(self._nodes) - 1
        if start is not None:
            first = self._place[start.node] + 1
            known[start.node] = piece.placeholder("activation")
        if end is not None:
            last = self._place[end.node]

        def recompute(node: fx.Node) -> Any:
            if node in known:
                return known[node]
            if start is not None and node in self._small.numbers:
                if not rows:
                    rows.append(piece.call_method("size", (known[start.node], 0)))
                known[node] = self._number(piece, rows[0], self._small.numbers[node], self._large.numbers[node])
            else:
                for source in node.all_input_nodes:
                    recompute(source)
                known[node] = piece.node_copy(node, lambda source: known[source])
            return known[node]

        for node in self._nodes[first : last + 1]:
            if self._carries[node] or node.op == "output":
                for source in node.all_input_nodes:
                    recompute(source)
                known[node] = piece.node_copy(node, lambda source: known[source])
        if end is not None:
            piece.output(known[end.node])
        return piece

    def _number(self, graph: fx.Graph, rows: fx.Node, small: Any, large: Any) -> Any:
        """Return a number, or a tuple of them, that was seen as ``small`` and ``large``, as a function of the rows."""
        if isinstance(small, tuple):
            return tuple(self._number(graph, rows, *pair) for pair in zip(small, large, strict=True))
        if small == large or isinstance(small, bool):
            return small
        slope = (large - small) // (_BATCHES[1] - _BATCHES[0])
        offset = small - slope * _BATCHES[0]
        value = graph.call_function(operator.mul, (rows, slope)) if slope != 1 else rows
        return graph.call_function(operator.add, (value, offset)) if offset else value

    def _module(self, graph: fx.Graph) -> nn.Module:
        graph.lint()
        piece = fx.GraphModule(self.module, graph, class_name="Segment").eval()
        for name, _ in list(piece.named_buffers()):
            if name not in self._state:  # what the network does not save is not saved of its pieces
                path, _, own = name.rpartition(".")
                piece.get_submodule(path)._non_persistent_buffers_set.add(own)
        return piece


class _Tracer(fx.Tracer):
    """Leaves whole what timm marks as untraceable, every module without parts of its own, and the ``whole`` paths.

    The second keeps dropout, drop-path and normalisation layers as they are, so that they go on to behave differently
    in training.
    """

    def __init__(self, whole: set[str], buffers: bool) -> None:
        functions: list[Any] = []
        self._whole = whole
        self.proxy_buffer_attributes = buffers
        self._leaves: tuple[type[nn.Module], ...] = (nn.modules.batchnorm._NormBase,)
        with contextlib.suppress(ImportError):
            from timm import layers

            functions = list(layers.get_notrace_functions())  # type: ignore[attr-defined, no-untyped-call]
            self._leaves = (*self._leaves, *layers.get_notrace_modules())  # type: ignore[attr-defined, no-untyped-call]
        super().__init__(autowrap_functions=tuple(functions))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = isinstance(m, self._leaves) or next(m.children(), None) is None
        return whole or module_qualified_name in self._whole or super().is_leaf_module(m, module_qualified_name)


def _trace(module: nn.Module) -> tuple[fx.Graph, bool]:
    """Return the network's graph, and whether it is that of training, too.

    A part that computes something else in training without a module for it (a dropout called as a function) is left
    whole, so that it still can. A network cut before is its graph already.
    """
    if isinstance(module, fx.GraphModule):
        return module.graph, True
    whole: set[str] = set()
    modes = {part: part.training for part in module.modules()}
    while True:
        graph = _trace_once(module.eval(), whole)
        try:
            module.train()
            path = _first_difference(graph, _trace_once(module, whole))
        except BackboneError:
            return graph, False
        finally:
            for part, mode in modes.items():
                part.training = mode
        if path is None:
            return graph, True
        if path in {"", *whole}:
            return graph, False
        whole.add(path)


def _first_difference(graph: fx.Graph, other: fx.Graph) -> str | None:
    """Return the innermost module in which two graphs first differ; "" for the network itself, None for no difference."""

    def facts(node: fx.Node | None) -> Any:
        return node and (node.op, *(_CONSTANT.sub("", str(item)) for item in (node.target, node.args, node.kwargs)))

    for node, twin in zip_longest(graph.nodes, other.nodes):
        if facts(node) != facts(twin):
            inside = [paths[-1] for item in (twin, node) if item is not None and (paths := module_paths(item))]
            return max(inside, key=lambda path: path.count("."), default="")
    return None


def _trace_once(module: nn.Module, whole: set[str]) -> fx.Graph:
    """Return the graph of the network's first argument; the others keep their defaults."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    fixed = {item.name: item.default for item in parameters[1:] if item.default is not inspect.Parameter.empty}
    try:
        graph = _Tracer(whole, buffers=True).trace(module, concrete_args=fixed)
    except Exception:  # torch.fx raises whatever the traced code raises; some code asks for the values of a buffer
        try:
            graph = _Tracer(whole, buffers=False).trace(module, concrete_args=fixed)
        except Exception as error:
            raise BackboneError(f"Backbone.stages: {type(module).__name__} cannot be traced ({error}).") from error
    for node in [node for node in graph.nodes if node.op == "placeholder"][1:]:
        for user in list(node.users):  # checks that the argument still has its default
            for check in list(user.users):
                graph.erase_node(check)
            graph.erase_node(user)
        graph.erase_node(node)
    return graph


class _Probe(fx.Interpreter):
    """Runs a graph and notes, for each node, what it returned; the values themselves are let go at the end."""

    def __init__(self, module: fx.GraphModule, counter: MultiplyAdds) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.counter = counter
        self.numbers: dict[fx.Node, Any] = {}
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.work_after: dict[fx.Node, int] = {}
        self.overwritten: set[fx.Node] = set()
        self._versions: dict[fx.Node, tuple[Tensor, int]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if _is_number(result) and n.op not in {"placeholder", "output"}:
            self.numbers[n] = tuple(result) if isinstance(result, tuple | list) else result
        elif isinstance(result, Tensor):
            self.shapes[n] = tuple(result.shape)
            self._versions[n] = (result, result._version)
        self.work_after[n] = self.counter.total
        return result

    def finish(self) -> _Probe:
        """Note which tensors a later node wrote into, and let all of them go."""
        self.overwritten = {node for node, (tensor, version) in self._versions.items() if tensor._version != version}
        self._versions.clear()
        self.env.clear()
        return self


def _is_number(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_number(item) for item in value)
    return isinstance(value, int | float | bool | torch.dtype | torch.device | str | type(None))


def _probe(module: nn.Module, graph: fx.Graph, shape: tuple[int, ...]) -> _Probe:
    from torch._subclasses.fake_tensor import FakeTensorMode

    wrapped = fx.GraphModule(module, graph)
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode, MultiplyAdds() as counter:
        probe = _Probe(wrapped, counter)
        device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
        with mode:
            rows = torch.empty(shape, device=device)
        probe.run(rows)
        return probe.finish()


def _names(nodes: list[fx.Node]) -> dict[fx.Node, str]:
    """Name a node after the outermost part of the network that ends with it, else after itself; no name twice."""
    last: dict[str, fx.Node] = {}
    inside = {node: module_paths(node) for node in nodes}
    for node in nodes:
        for path in inside[node]:
            last[path] = node
    names: dict[fx.Node, str] = {}
    taken: set[str] = {"input", "features"}
    for node in nodes:
        ended = sorted((path for path in inside[node] if last[path] is node and path not in taken), key=len)
        name = ended[0] if ended else ".".join([*inside[node][-1:], node.name])
        while name in taken:
            name = f"{name}.{node.name}"
        taken.add(name)
        names[node] = name
    return names


def module_paths(node: fx.Node) -> list[str]:
    """Return the paths of the modules a node belongs to, outermost first, without the network itself."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    if node.op == "call_module":
        paths.append(str(node.target))
    return [path for path in dict.fromkeys(paths) if path]
