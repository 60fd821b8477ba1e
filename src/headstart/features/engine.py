"""What every engine is: batches of raw rows in, float32 features out, in order.

An image batch is one uint8 array (b, height, width, 3); the engine normalises. A text batch is ``(input_ids, attention_mask)``,
int64 (b, t). A batch may be padded with rows that mean nothing, so that its shape is always the same and a row's features do not
depend on how many rows there happened to be: torch takes other kernels, with other rounding, for other numbers of rows, but a row
has the same bits wherever in a batch of a given shape it stands.
Shapes: b rows of a batch, t tokens, n rows that mean something, d numbers a token.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from headstart.core.digests import digest_json
from headstart.core.errors import ConfigError
from headstart.core.preprocessing import ImageTransform
from headstart.features.runtime import Runtime

if TYPE_CHECKING:
    from torch import nn

    from headstart.backbones import Backbone, Stage

__all__ = [
    "Batch",
    "Engine",
    "FrozenPart",
    "borrowed_engine",
    "first_tensor",
    "lend_engine",
    "open_engine",
    "rows_per_batch",
]

_NATIVE_PIXELS = 224 * 224
_EXACT_IMAGES = 8
_idle: dict[
    str, Engine
] = {}  # at most one engine, kept for the next call: predicting rows one by one must not compile each time
_guard = threading.Lock()


@dataclass(frozen=True)
class Batch:
    """Rows on their way through an engine.

    Parameters
    ----------
    arrays : tuple of array
        The network's arguments; the first axis counts b >= n rows.
    tags : list
        One for each of the n rows that mean something, whatever the caller wants back beside the features.
    """

    arrays: tuple[NDArray[Any], ...]
    tags: list[Any]


class Engine(Protocol):
    """Runs batches; yields each with its float32 features (n, ...), in the order they came; inside a text encoder (n, t, d)."""

    runtime: Runtime

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, NDArray[Any]]]: ...


class FrozenPart:
    """The part of a backbone before a stage. The network itself is asked for only when something must be computed.

    Parameters
    ----------
    backbone : Backbone
        Of images or texts.
    stage : str, int or Stage
        Where it is cut.
    exact : bool
        Run the untouched network in float32, always on the same number of rows: a row's activations are then a function of
        that row alone, to the last bit.

    Raises
    ------
    ConfigError
        If rows are to be kept where nothing has been computed yet.
    """

    def __init__(self, backbone: Backbone, stage: str | int | Stage = "features", *, exact: bool = False) -> None:
        self.backbone = backbone
        self.stage = stage if isinstance(stage, str) else backbone.stage(stage).name
        self.exact = exact
        self.graphs: dict[str, Any] = {}  # converted for one runtime, of use to the next one that is tried
        if backbone.modality == "vector" and self.stage != "features":
            raise ConfigError(
                f"extract_features: there is no stage inside {backbone.name}, whose rows are features; use stage='features'."
            )
        if backbone.modality == "text" and self.stage == "input":
            raise ConfigError("extract_features: token numbers are no activations; choose a stage after 'input'.")

    @property
    def ragged(self) -> bool:
        """Whether a row has as many vectors as it has tokens."""
        return self.backbone.modality == "text" and self.stage != "features"

    @cached_property
    def module(self) -> nn.Module:
        """The network up to the stage."""
        return self.backbone.module if self.stage == "features" else self.backbone.cut(self.stage)[0]

    def key(self) -> dict[str, Any]:
        """Return what the function computed depends on, as a JSON value."""
        return {
            "weights": self.backbone.weights_digest,
            "stage": self.stage,
            "transform": self.backbone.transform.digest(),
            **({"exact": True} if self.exact else {}),
        }

    def label(self, runtime: Runtime) -> str:
        """Return what stands for this way of computing in the store."""
        return f"{runtime.label}-exact" if self.exact else runtime.label


def first_tensor(output: Any) -> Any:
    """Return the activations a part gives: the hidden state, where it hands a mask on beside it."""
    return output[0] if isinstance(output, tuple) else output


def rows_per_batch(part: FrozenPart, runtime: Runtime) -> int:
    """Return how many images go through the network at once.

    Small batches stay in the processor's caches: OpenVINO was fastest at 4 images of 224 pixels, alike from 4 to 16 in torch.
    """
    transform = part.backbone.transform
    if not isinstance(transform, ImageTransform):
        return 32
    if part.exact:
        return _EXACT_IMAGES
    most = {"openvino": 4, "torch": 16 if runtime.device == "cpu" else 64}[runtime.name]
    scaled = most * _NATIVE_PIXELS // (transform.height * transform.width)
    return max(1, min(scaled, 8 * most))


def open_engine(
    part: FrozenPart, runtime: Runtime, *, threads: int, batch_rows: int | None = None, keep: bool = True
) -> Engine:
    """Return an engine.

    Parameters
    ----------
    part : FrozenPart
        What to run.
    runtime : Runtime
        How.
    threads : int
        Processor threads for the computing.
    batch_rows : int, optional
        Rows of an image batch, which compiled networks are made for.
    keep : bool
        Keep the compiled network on disk, so that the next process starts without compiling.

    Raises
    ------
    MissingExtra
        If the runtime's library is not installed.
    EngineError
        If this network cannot be run so.
    """
    if runtime.name == "openvino":
        from headstart.features.openvino_engine import OpenVINOEngine

        return OpenVINOEngine(part, runtime, threads, batch_rows or rows_per_batch(part, runtime), keep)
    from headstart.features.torch_engine import TorchEngine

    return TorchEngine(part, runtime, threads)


@contextlib.contextmanager
def borrowed_engine(
    part: FrozenPart, runtime: Runtime, *, threads: int, batch_rows: int, keep: bool
) -> Iterator[Engine]:
    """Yield the engine that the last call left behind if it is the right one, else a new one; leave it for the next call.

    While it is borrowed nobody else has it, so threads may extract at the same time. After an error it is not kept.
    """
    name = _engine_name(part, runtime, threads, batch_rows)
    with _guard:
        engine = _idle.pop(name, None)
        _idle.clear()
    if engine is None:
        engine = open_engine(part, runtime, threads=threads, batch_rows=batch_rows, keep=keep)
    yield engine
    lend_engine(part, engine, threads=threads, batch_rows=batch_rows)


def lend_engine(part: FrozenPart, engine: Engine, *, threads: int, batch_rows: int) -> None:
    """Leave an engine for `borrowed_engine`."""
    with _guard:
        _idle.clear()
        _idle[_engine_name(part, engine.runtime, threads, batch_rows)] = engine


def _engine_name(part: FrozenPart, runtime: Runtime, threads: int, batch_rows: int) -> str:
    return digest_json([part.key(), runtime.label, threads, batch_rows])
