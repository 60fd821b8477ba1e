"""OpenVINO as an engine: pixels in as uint8, normalisation inside the graph, several requests in flight.

A network is traced by torch, converted and compiled once. The compiled form is kept in the cache folder, from where another
process loads it in a fraction of a second without building the network at all. A row's features were seen to be the same bits
wherever in a batch it stood.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.core.digests import digest_json
from headstart.core.errors import BackboneError, MissingExtra
from headstart.core.files import write_bytes
from headstart.core.places import cache_folder
from headstart.core.preprocessing import ImageTransform
from headstart.features.engine import Batch, FrozenPart, first_tensor
from headstart.features.runtime import Runtime, machine
from headstart.features.torch_engine import num_threads

__all__ = ["EngineError", "OpenVINOEngine", "import_openvino", "openvino_precisions", "traced_features"]

_FORMAT = 1
_MOST_KEPT_BYTES = 4_000_000_000


class EngineError(BackboneError):
    """A network that a runtime cannot run."""


class OpenVINOEngine:
    """Runs a frozen network in OpenVINO on the processor.

    Parameters
    ----------
    part : FrozenPart
        The network; asked for only where no compiled form is kept.
    runtime : Runtime
        Precision.
    threads : int
        Processor threads; OpenVINO makes as many streams of them as suit the network.
    batch_rows : int
        Rows of an image batch; the compiled network takes no other number.
    keep : bool
        Keep the compiled form on disk.

    Raises
    ------
    MissingExtra
        If OpenVINO is not installed.
    EngineError
        If it cannot convert or compile the network.
    """

    def __init__(self, part: FrozenPart, runtime: Runtime, threads: int, batch_rows: int, keep: bool) -> None:
        self.runtime = runtime
        self.from_disk = False
        transform = part.backbone.transform
        shape = [batch_rows, transform.height, transform.width, 3] if isinstance(transform, ImageTransform) else None
        settings = _settings(runtime, threads)
        key = {**part.key(), "shape": shape, "settings": settings, "machine": machine(), "format": _FORMAT}
        path = cache_folder() / "openvino" / f"{digest_json(key)[:32]}.blob"
        core = _core()
        try:
            self._network = _load(core, path, settings)
            self.from_disk = self._network is not None
            if self._network is None:
                self._network = core.compile_model(_convert(part, shape), "CPU", settings)
                if keep:
                    _keep(self._network, path)
        except EngineError:
            raise
        except Exception as error:  # OpenVINO raises RuntimeError and its own classes for whatever it cannot convert
            raise EngineError(f"openvino: cannot run {part.backbone.name} ({_first_line(error)}).") from error
        streams = int(self._network.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._free = [self._network.create_infer_request() for _ in range(streams + 1)]

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, NDArray[Any]]]:
        """Yield each batch with its features; one request more than there are streams keeps every stream busy."""
        free, running = list(self._free), collections.deque[tuple[Any, Batch]]()
        try:
            for batch in batches:
                if not free:
                    request, done = running.popleft()
                    values = _result(request, done)
                    free.append(request)
                    _start(free.pop(), batch, running)
                    yield done, values
                else:
                    _start(free.pop(), batch, running)
            while running:
                request, done = running.popleft()
                yield done, _result(request, done)
        finally:
            for request, _ in running:  # a caller that stops early must not leave requests that read its arrays
                request.wait()


def _start(request: Any, batch: Batch, running: collections.deque[tuple[Any, Batch]]) -> None:
    request.start_async(dict(enumerate(batch.arrays)), share_inputs=True)
    running.append((request, batch))


def _result(request: Any, batch: Batch) -> NDArray[np.float32]:
    request.wait()
    return np.array(request.get_output_tensor(0).data[: len(batch.tags)], np.float32)


def import_openvino() -> Any:
    """Return the openvino module, imported so that it reports nothing to anyone.

    Left to itself it sends usage statistics over the network when it is imported and at every conversion, from processes it
    forks for that; without the package that does this it uses an empty stand-in of its own.

    Raises
    ------
    MissingExtra
        If OpenVINO is not installed.
    """
    with _hidden("openvino_telemetry"):
        try:
            import openvino
            import openvino.tools.ovc.convert_impl  # what it imports late must be imported without the reporter, too
        except ImportError as error:
            raise MissingExtra("extract_features", "openvino", "fast") from error
    return openvino


@contextlib.contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Make a package, and what is in it, impossible to import inside the block."""
    inside = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == package}
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
        sys.modules.update(inside)


@cache
def _core() -> Any:
    return import_openvino().Core()


def openvino_precisions() -> list[str]:
    """Return the precisions this processor runs well in OpenVINO, fastest first; none where it is not installed."""
    try:
        able = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except MissingExtra:
        return []
    except Exception:  # a processor that OpenVINO has no plugin for
        return []
    return ["bf16", "fp32"] if "BF16" in able else ["fp32"]


def _settings(runtime: Runtime, threads: int) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": "bf16" if runtime.precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        # pinned threads are faster, but two processes that use a part of the machine would be pinned to the same part
        "ENABLE_CPU_PINNING": threads >= (os.cpu_count() or 1),
    }


class _Traced(nn.Module):
    """The network with normalisation in front of it, taking what a `Batch` holds."""

    def __init__(self, part: FrozenPart) -> None:
        super().__init__()
        self.network = part.module
        self.seen: list[tuple[Tensor, float]] = []  # what the network gave, and the CPU seconds it took
        transform = part.backbone.transform
        self.image = isinstance(transform, ImageTransform)
        if isinstance(transform, ImageTransform):
            self.mean = nn.Buffer(torch.tensor(transform.mean).view(1, 3, 1, 1) * 255)
            self.scale = nn.Buffer(1 / (torch.tensor(transform.std).view(1, 3, 1, 1) * 255))

    def forward(self, *inputs: Tensor) -> Any:
        if self.image:
            inputs = ((inputs[0].permute(0, 3, 1, 2).float() - self.mean) * self.scale,)
        started = time.process_time()
        output = first_tensor(self.network(*inputs))
        self.seen.append((output, time.process_time() - started))
        return output


def traced_features(part: FrozenPart, batch: Batch) -> tuple[NDArray[np.float32], float]:
    """Return the features of a batch's images by the untouched network in float32, and CPU seconds a row.

    The pass is recorded, and the engine that is opened next for the same part converts the record: a network that is to be
    converted need not run twice. Recording makes the seconds a little longer than those of `plain_features`.
    """
    traced, script = _trace(part, tuple(torch.from_numpy(array) for array in batch.arrays))
    part.graphs["record"] = script
    output, seconds = traced.seen[0]
    return output[: len(batch.tags)].float().cpu().numpy(), max(seconds / len(output), 1e-6)


def _trace(part: FrozenPart, example: tuple[Tensor, ...]) -> tuple[_Traced, Any]:
    """Run a part once, on one thread, and return it with the record of the pass."""
    device = next((item.device for item in part.module.parameters()), torch.device("cpu"))
    traced = _Traced(part).to(device).eval()
    with warnings.catch_warnings(), _quiet("transformers.modeling_utils"), num_threads(1):
        warnings.simplefilter("ignore")  # the tracer warns of every shape that a network reads as a number
        with torch.inference_mode(False), torch.no_grad():
            inputs = tuple(item.to(device) for item in example)
            script = torch.jit.trace(traced, inputs, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
    return traced, script


def _convert(part: FrozenPart, shape: list[int] | None) -> Any:
    openvino = import_openvino()
    if str(shape) in part.graphs:
        return part.graphs[str(shape)]
    script = part.graphs.pop("record", None)
    if script is None:
        blank = torch.zeros(1, *shape[1:], dtype=torch.uint8) if shape is not None else None
        script = _trace(part, part.backbone.example_input(2) if blank is None else (blank,))[1]
    with warnings.catch_warnings(), _quiet("openvino", "nncf"), num_threads(1):
        warnings.simplefilter("ignore")
        with torch.inference_mode(False), torch.no_grad():
            if shape is not None:  # converts in half the time; text networks keep their types only when not frozen
                script = torch.jit.freeze(script)
            graph = openvino.convert_model(script)
    if len(graph.outputs) != 1:
        raise EngineError(f"openvino: {part.backbone.name} gives {len(graph.outputs)} outputs instead of one.")
    if shape is not None:
        graph.inputs[0].get_node().set_element_type(openvino.Type.u8)  # which a frozen network leaves open
        graph.reshape({graph.inputs[0]: shape})
    part.graphs[str(shape)] = graph
    return graph


def _load(core: Any, path: Path, settings: dict[str, Any]) -> Any:
    """Return the network kept at ``path``, or None; a file that OpenVINO refuses is removed."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    try:
        network = core.import_model(content, "CPU", settings)
    except Exception:  # made by another build of OpenVINO, or damaged: compiled again
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return network


def _keep(network: Any, path: Path) -> None:
    """Write a compiled network; a disk that refuses costs a compilation next time and nothing else."""
    with contextlib.suppress(OSError):
        exported = network.export_model()
        write_bytes(path, exported if isinstance(exported, bytes) else exported.getvalue())
        kept = sorted(((item, item.stat()) for item in path.parent.glob("*.blob")), key=lambda pair: -pair[1].st_mtime)
        total = 0
        for item, facts in kept:
            total += facts.st_size
            if total > _MOST_KEPT_BYTES and item != path:
                item.unlink(missing_ok=True)


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    before = [item.disabled for item in loggers]
    for item in loggers:
        item.disabled = True
    try:
        yield
    finally:
        for item, was in zip(loggers, before, strict=True):
            item.disabled = was


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith("Exception from")]
    return (said[0] if said else type(error).__name__)[:200]
