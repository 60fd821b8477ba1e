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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from headstart.backbones.cost import MultiplyAdds
from headstart.core.errors import BackboneError

__all__ = ["CutPoint", "NetworkGraph"]

_BATCHES = (2, 3)


@dataclass(frozen=True)
class CutPoint:
    """A node after which the network can be cut: its name, the shape of one row there, the work done so far."""

    node: fx.Node
    name: str
    shape: tuple[int, ...]
    multiply_adds: int


class NetworkGraph:
    """A traced network that can be cut.

    Parameters
    ----------
    module : nn.Module
        Takes one tensor (n, ...) and returns one.
    row_shape : tuple of int
        Shape of one row of its input.

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
        self.graph = _trace(module)
        self._nodes = list(self.graph.nodes)
        self._place = {node: index for index, node in enumerate(self._nodes)}
        small, large = (_probe(module, self.graph, (rows, *row_shape)) for rows in _BATCHES)
        self._small, self._large = small, large
        self._carries = self._row_dependent()
        self.multiply_adds = small.work_after[self._nodes[-1]] // _BATCHES[0]
        self.points = list(self._find_points())

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
        place = self._place[point.node]
        prefix = fx.Graph()
        known: dict[fx.Node, Any] = {}
        for node in self._nodes[: place + 1]:
            known[node] = prefix.node_copy(node, lambda source: known[source])
        prefix.output(known[point.node])
        return self._module(prefix, "Prefix"), self._module(self._suffix(point, place), "Suffix")

    def _suffix(self, point: CutPoint, place: int) -> fx.Graph:
        suffix = fx.Graph()
        known: dict[fx.Node, Any] = {point.node: suffix.placeholder("activation")}
        rows: list[fx.Node] = []

        def recompute(node: fx.Node) -> Any:
            if node in known:
                return known[node]
            if node in self._small.numbers:
                if not rows:
                    rows.append(suffix.call_method("size", (known[point.node], 0)))
                known[node] = self._number(suffix, rows[0], self._small.numbers[node], self._large.numbers[node])
            else:
                for source in node.all_input_nodes:
                    recompute(source)
                known[node] = suffix.node_copy(node, lambda source: known[source])
            return known[node]

        for node in self._nodes[place + 1 :]:
            if self._carries[node] or node.op == "output":
                for source in node.all_input_nodes:
                    recompute(source)
                known[node] = suffix.node_copy(node, lambda source: known[source])
        return suffix

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

    def _module(self, graph: fx.Graph, name: str) -> nn.Module:
        graph.lint()
        return fx.GraphModule(self.module, graph, class_name=name).eval()


class _Tracer(fx.Tracer):
    """Leaves whole what timm marks as untraceable, and every module without parts of its own.

    The latter keeps dropout, drop-path and normalisation layers as they are, so that they go on to behave differently
    in training.
    """

    def __init__(self) -> None:
        functions: list[Any] = []
        self._leaves: tuple[type[nn.Module], ...] = (nn.modules.batchnorm._NormBase,)
        with contextlib.suppress(ImportError):
            from timm import layers

            functions = list(layers.get_notrace_functions())  # type: ignore[attr-defined, no-untyped-call]
            self._leaves = (*self._leaves, *layers.get_notrace_modules())  # type: ignore[attr-defined, no-untyped-call]
        super().__init__(autowrap_functions=tuple(functions))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = isinstance(m, self._leaves) or next(m.children(), None) is None
        return whole or super().is_leaf_module(m, module_qualified_name)


def _trace(module: nn.Module) -> fx.Graph:
    """Return the graph of the network's first argument; the others keep their defaults."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    fixed = {item.name: item.default for item in parameters[1:] if item.default is not inspect.Parameter.empty}
    try:
        graph = _Tracer().trace(module, concrete_args=fixed)
    except Exception as error:  # torch.fx raises whatever the traced code raises
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
    inside = {node: _modules(node) for node in nodes}
    for node in nodes:
        for path in inside[node]:
            last[path] = node
    names: dict[fx.Node, str] = {}
    taken: set[str] = {"input", "features"}
    for node in nodes:
        ended = [path for path in inside[node] if last[path] is node]
        name = min(ended, key=len) if ended else ".".join([*inside[node][-1:], node.name])
        while name in taken:
            name = f"{name}.{node.name}"
        taken.add(name)
        names[node] = name
    return names


def _modules(node: fx.Node) -> list[str]:
    """Return the paths of the modules a node belongs to, outermost first, without the network itself."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    if node.op == "call_module":
        paths.append(str(node.target))
    return [path for path in dict.fromkeys(paths) if path]
