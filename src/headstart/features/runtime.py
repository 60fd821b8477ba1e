"""What runs a frozen network: a library, a precision and a device, chosen by a short measured probe and remembered.

The fastest runtime differs by network and by processor, so it is measured: a few rows through each candidate, CPU seconds counted
(wall-clock seconds on a GPU). Every candidate must agree with plain float32 on those rows, or it is refused by name.
The choice is remembered for this network, processor and these library versions, so it is made once.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import time
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, cast, get_args

from headstart.core.digests import digest_json
from headstart.core.errors import ConfigError, did_you_mean
from headstart.core.files import write_json
from headstart.core.places import cache_folder
from headstart.features.locks import wait_lock

__all__ = ["Runtime", "RuntimeChoice", "default_threads", "has_bf16_unit", "machine", "recall", "remember"]

Library = Literal["torch", "openvino", "none"]
Precision = Literal["fp32", "bf16"]
Device = Literal["cpu", "cuda"]
_MOST_REMEMBERED = 500
_A_DAY = 86_400.0
# in this process too: on a full disk, training and test rows must not be computed by different runtimes
_chosen: dict[tuple[Path, str], RuntimeChoice] = {}


@dataclass(frozen=True)
class Runtime:
    """A way to run a network.

    Parameters
    ----------
    name : {"torch", "openvino", "none"}
        The library; "none" where rows are features already.
    precision : {"fp32", "bf16"}
        Of the arithmetic; what comes out is float32 always.
    device : {"cpu", "cuda"}
        Where it runs.

    Examples
    --------
    >>> Runtime("openvino", "bf16").label, Runtime("torch", "fp32", "cuda").label
    ('openvino-bf16', 'torch-fp32-cuda')
    """

    name: Library = "torch"
    precision: Precision = "fp32"
    device: Device = "cpu"

    @property
    def label(self) -> str:
        """Short text that stands for this runtime in a cache key and in reports."""
        if self.name == "none":
            return "none"
        return f"{self.name}-{self.precision}" + ("-cuda" if self.device == "cuda" else "")

    @classmethod
    def parse(cls, label: str) -> Runtime:
        """Return the runtime of a label.

        Raises
        ------
        ConfigError
            If it is not one.

        Examples
        --------
        >>> Runtime.parse("torch-bf16")
        Runtime(name='torch', precision='bf16', device='cpu')
        """
        known = {runtime.label: runtime for runtime in all_runtimes()}
        if label not in known:
            names = ["auto", "torch", "openvino", *known]
            raise ConfigError(f"runtime: one of {', '.join(names)}; got {label!r}.{did_you_mean(label, names)}")
        return known[label]


def all_runtimes() -> list[Runtime]:
    """Return every runtime there is, whether or not it works here."""
    pairs: list[tuple[Library, Device]] = [("torch", "cpu"), ("torch", "cuda"), ("openvino", "cpu")]
    return [Runtime(name, precision, device) for name, device in pairs for precision in get_args(Precision)]


@dataclass(frozen=True)
class RuntimeChoice:
    """Which runtime was chosen, and why.

    Parameters
    ----------
    runtime : Runtime
        The choice.
    timings : dict of str to float
        Rows per CPU second (per second on a GPU) of each candidate that was timed.
    cosine : float
        Mean cosine between the chosen runtime's rows and float32's on the probe's rows.
    relative_error : float
        Norm of their difference over the norm of float32's.
    refused : dict of str to str
        Candidates that failed or disagreed, and how.
    dtype : {"float16", "float32"}
        Number type features are kept in: float16 where bf16 computed them and their range allows.
    seconds : float
        CPU seconds the probe took.
    remembered : bool
        Whether the choice was made by an earlier run.
    """

    runtime: Runtime
    timings: dict[str, float] = field(default_factory=dict)
    cosine: float = 1.0
    relative_error: float = 0.0
    refused: dict[str, str] = field(default_factory=dict)
    dtype: Literal["float16", "float32"] = "float32"
    seconds: float = 0.0
    remembered: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value that `from_dict` reads back."""
        return {**asdict(self), "runtime": self.runtime.label}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> RuntimeChoice:
        """Return the choice that `to_dict` wrote down."""
        return cls(**{**value, "runtime": Runtime.parse(value["runtime"])})


def default_threads() -> int:
    """Return how many threads to use: the processors this process may run on, at most ``OMP_NUM_THREADS``."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "").strip()
    return max(1, min(available, int(limit))) if limit.isdigit() and int(limit) else available


@cache
def machine() -> dict[str, str]:
    """Return what a measured choice depends on: processor, GPU, and versions of the libraries that compute."""
    value = {"cpu": _cpu_name(), "gpu": _gpu_name()}
    for library in ("torch", "openvino"):
        try:
            value[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            value[library] = ""
    return value


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        facts = dict(line.split(":", 1) for line in lines if ":" in line)
        named = {key.strip(): item.strip() for key, item in facts.items()}
        flags = named.get("flags", "").split()
        units = sorted(flag for flag in flags if flag.startswith(("amx", "avx512_bf16", "avx512_fp16")))
        return " ".join([named.get("model name", platform.processor()), *units])
    return platform.processor() or platform.machine()


@cache
def has_bf16_unit() -> bool:
    """Return whether this processor has instructions for bf16 that torch uses.

    torch calls bf16 supported on any processor with AVX-512, where it imitates it at a fraction of float32's speed.
    """
    import torch

    able = getattr(getattr(torch.ops, "mkldnn", None), "_is_mkldnn_bf16_supported", None)
    if able is None or not able():
        return False
    units = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")]
    told = [bool(unit()) for unit in units if unit is not None]
    return any(told) if platform.machine().lower() in {"x86_64", "amd64"} and told else True


def _gpu_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def _place(key: dict[str, Any]) -> tuple[Path, str]:
    return cache_folder() / "runtimes.json", digest_json({**key, "machine": machine()})[:32]


def recall(key: dict[str, Any]) -> RuntimeChoice | None:
    """Return the choice remembered for ``key`` on this machine; None where there is none, or it cannot be read."""
    place = path, name = _place(key)
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, ConfigError):
        value = cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))[name]
        if time.time() < value.pop("until", math.inf):
            return RuntimeChoice.from_dict({**value, "remembered": True})
    return replace(_chosen[place], remembered=True) if place in _chosen else None


def remember(key: dict[str, Any], choice: RuntimeChoice, *, lasting: bool = True) -> None:
    """Remember a choice for ``key`` on this machine; a disk that refuses costs the next process a probe and nothing else.

    One that is not ``lasting`` is kept for a day: a runtime that broke may work again tomorrow.
    """
    place = path, name = _place(key)
    _chosen[place] = choice
    with contextlib.suppress(OSError), wait_lock(path.with_name(".runtimes.lock")):
        known: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            read = json.loads(path.read_text(encoding="utf-8"))
            known = read if isinstance(read, dict) else {}
        known.pop(name, None)
        kept = dict(list(known.items())[-(_MOST_REMEMBERED - 1) :])
        limit = {} if lasting else {"until": time.time() + _A_DAY}
        write_json(path, {**kept, name: {**choice.to_dict(), **limit}})
