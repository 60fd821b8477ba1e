"""What a model may need: the size of the saved model, memory, time for one row. Limits are requirements like any other.

    size      bytes of the model folder: weights, head, reference rows of the novelty score, tokenizer
    memory    peak resident memory of the process while a rung runs, Python and its libraries included
    latency   median wall-clock time from one row's bytes to its scores: decoding, network (fp32), head; without start-up

Each is estimated before a rung starts, so that a candidate that cannot fit is never started, and measured afterwards.
Memory is sampled twenty times a second where ``/proc`` tells it (Linux); elsewhere it is the process's highest so far.
"""

from __future__ import annotations

import contextlib
import math
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core.errors import GoalError

if TYPE_CHECKING:
    from headstart.backbones import Backbone
    from headstart.data import Dataset
    from headstart.model import Model

__all__ = [
    "LIMITS",
    "Limits",
    "MemoryWatch",
    "bytes_text",
    "estimate_size",
    "folder_size",
    "limit_text",
    "measure_latency",
    "parse_size",
    "parse_time",
    "training_memory",
    "watch_memory",
]

_SIZES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZES |= {"k": 10**3, "m": 10**6, "g": 10**9}
_TIMES = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0}
_REFERENCE_ROWS = 2000  # the novelty score keeps at most so many
_INTERVAL = 0.05
_FOLDER_BYTES = 20_000  # description, card and head of a model folder beside its tensors

LIMITS = {"size": "bytes", "memory": "bytes", "latency": "seconds"}
"""Names a goal may limit, and the unit each is kept in."""


@dataclass(frozen=True)
class Limits:
    """The most a model may need; infinity where nothing was asked.

    Parameters
    ----------
    size, memory : float
        Bytes.
    latency : float
        Seconds a row.

    Examples
    --------
    >>> Limits(size=20e6).broken_by(size=30e6, memory=1e9)
    ('size 30.0 MB, the limit is 20.0 MB',)
    """

    size: float = math.inf
    memory: float = math.inf
    latency: float = math.inf

    def __bool__(self) -> bool:
        return any(math.isfinite(getattr(self, field.name)) for field in fields(self))

    def tightened(self, other: Limits) -> Limits:
        """Return the stricter of two limits, one by one."""
        return Limits(*(min(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)))

    def broken_by(self, **needs: float | None) -> tuple[str, ...]:
        """Return a line for each need (``size``, ``memory``, ``latency``) above its limit; None is not judged."""
        lines = []
        for name, need in needs.items():
            most = getattr(self, name)
            if need is not None and not need <= most:
                lines.append(f"{name} {limit_text(name, need)}, the limit is {limit_text(name, most)}")
        return tuple(lines)

    def __str__(self) -> str:
        known = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return ", ".join(f"{name} <= {limit_text(name, most)}" for name, most in known if math.isfinite(most))


def limit_text(name: str, amount: float) -> str:
    """Return what a model needs, or may need, with its unit.

    Examples
    --------
    >>> limit_text("size", 2e7), limit_text("latency", 0.0125)
    ('20.0 MB', '12.5 ms')
    """
    return bytes_text(amount) if LIMITS[name] == "bytes" else f"{1000 * amount:.3g} ms"


def bytes_text(size: float) -> str:
    """Return a size for people.

    Examples
    --------
    >>> bytes_text(18_600_000), bytes_text(4e9), bytes_text(900)
    ('18.6 MB', '4.0 GB', '0.9 kB')
    """
    for name, unit in (("GB", 1e9), ("MB", 1e6)):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1e3:.1f} kB"


def parse_size(text: str | float, what: str = "size") -> float:
    """Return bytes.

    Raises
    ------
    GoalError
        If it is no positive size.

    Examples
    --------
    >>> parse_size("20MB"), parse_size("1.5 GiB"), parse_size("500kB")
    (20000000.0, 1610612736.0, 500000.0)
    """
    return _parse(text, what, _SIZES, 'write "20MB", "500kB" or "4GB"', unit_needed=True)


def parse_time(text: str | float, what: str = "latency") -> float:
    """Return seconds.

    Examples
    --------
    >>> parse_time("20ms"), parse_time("0.5 s")
    (0.02, 0.5)
    """
    return _parse(text, what, _TIMES, 'write "20ms" or "0.5s"', unit_needed=True)


def _parse(text: str | float, what: str, units: Mapping[str, float], example: str, *, unit_needed: bool) -> float:
    match = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([a-zµ]*)\s*", str(text).lower())
    try:
        if match is None or (unit_needed and not match[2]):
            raise ValueError(text)
        value = float(match[1]) * units[match[2]]
    except (ValueError, KeyError) as error:
        raise GoalError(f"{what}: {str(text)!r} is no amount with its unit; {example}.") from error
    if not (math.isfinite(value) and value > 0):
        raise GoalError(f"{what}: {str(text)!r} must be more than nothing; {example}.")
    return value


def estimate_size(backbone: Backbone, num_outputs: int, num_rows: int) -> int:
    """Return about how many bytes a saved model of this base model takes.

    Parameters
    ----------
    backbone : Backbone
        Its tensors are counted as they are stored.
    num_outputs, num_rows : int
        Outputs of the head; training rows, of which the novelty score keeps some.
    """
    weights = sum(tensor.numel() * tensor.element_size() for tensor in backbone.state_dict().values())
    head = 4 * num_outputs * (backbone.width + 1)
    reference = 2 * min(num_rows, _REFERENCE_ROWS) * backbone.width
    return int(weights + head + reference + _FOLDER_BYTES)


def folder_size(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure_latency(model: Model, rows: Dataset, *, num_rows: int = 12) -> float:
    """Return the median wall-clock seconds from one row's bytes to its scores: decode, network in fp32, head.

    Parameters
    ----------
    model : Model
        What would be deployed; only its first view is timed for each view it takes.
    rows : Dataset
        Rows to time, at most ``num_rows`` and one more to warm up.
    """
    import torch

    from headstart.training import InputRows

    part = rows.subset(range(min(len(rows), num_rows + 1)))
    inputs = InputRows(part, model.backbone, max_bytes=0)
    spent = []
    try:
        with torch.inference_mode():
            for i in range(len(part)):
                started = time.perf_counter()
                tensors = inputs.batch(np.array([i]))
                for _ in model.views:
                    features_nd = model.backbone.module(*tensors).float().numpy()
                    model.head.predict_scores(features_nd)
                spent.append(time.perf_counter() - started)
    finally:
        inputs.close()
    return float(np.median(spent[1:] or spent))


def training_memory(backbone: Backbone, batch_size: int, trained: float = 1.0) -> float:
    """Return about how many bytes training a network adds to what the process holds.

    The trained share of the weights four times over (weights, gradients, two moments), the rest once, a frozen copy for
    comparison, and every operation's output kept for the backward pass, counted on two rows and scaled to the batch.

    Parameters
    ----------
    backbone : Backbone
        The network.
    batch_size : int
        Rows a step.
    trained : float in [0, 1]
        Share of the network that trains.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class _Outputs(TorchDispatchMode):  # type: ignore[no-untyped-call]
        total = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            for item in result if isinstance(result, (tuple, list)) else (result,):
                if isinstance(item, torch.Tensor):
                    self.total += item.numel() * item.element_size()
            return result

    with torch.no_grad(), _Outputs() as outputs:  # type: ignore[no-untyped-call]
        backbone.module(*backbone.example_input(2))
    weights = sum(tensor.numel() * tensor.element_size() for tensor in backbone.module.parameters())
    kept = outputs.total / 2 * batch_size * (0.25 + 0.75 * trained)
    return float(weights * (2 + 3 * trained) + kept)


class MemoryWatch:
    """The highest resident memory seen while it ran; see `watch_memory`."""

    def __init__(self) -> None:
        self.peak = float(resident_memory())
        self._ended = threading.Event()

    def sample(self) -> None:
        """Look once."""
        self.peak = max(self.peak, float(resident_memory()))

    def _run(self) -> None:
        while not self._ended.wait(_INTERVAL):
            self.sample()


@contextlib.contextmanager
def watch_memory() -> Iterator[MemoryWatch]:
    """Yield a watch whose ``peak`` holds, when the block ends, the most memory the process had meanwhile."""
    watch = MemoryWatch()
    thread = threading.Thread(target=watch._run, name="headstart-memory", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch._ended.set()
        thread.join()
        watch.sample()


def resident_memory() -> int:
    """Return the bytes of memory the process holds; its highest so far where the system tells no more."""
    try:
        with Path("/proc/self/statm").open("rb") as stream:
            pages = int(stream.read().split()[1])
        import resource

        return pages * resource.getpagesize()
    except (OSError, ValueError, IndexError, ImportError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(highest if sys.platform == "darwin" else highest * 1024)
