"""fp32 or bf16 for training, whichever a measured step says; remembered for this network, machine and these versions.

    |L_16 - L_32| <= 0.02 max(1, |L_32|)        cos(g_16, g_32) = <g_16, g_32> / (|g_16| |g_32|) >= 0.99

L is the loss of a real batch, g its gradient for all trained parameters together, dropout left out of both. bf16 is taken where
it agrees and takes at most 0.95 of the time of fp32: CPU seconds on a processor, wall-clock seconds on a GPU.
Use it before the first step. Weights and optimiser stay fp32 either way; bf16 is the arithmetic of convolutions and products.
It ignores later training: gradients that shrink below bf16's digits at the end of a long one. Deep networks with random weights
and batch normalisation seldom agree, and train in fp32; the same networks pretrained do (ResNet-50: cosine 0.999).
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from headstart.core.digests import digest_json
from headstart.core.files import write_json
from headstart.core.places import cache_folder
from headstart.features.locks import wait_lock
from headstart.features.runtime import default_threads, has_bf16_unit, machine

__all__ = ["PrecisionChoice", "autocast", "choose_precision", "supports_bf16"]

Precision = Literal["fp32", "bf16"]
LEAST_COSINE = 0.99
MOST_LOSS_GAP = 0.02
_MOST_TIME = 0.95
_ROUNDS = 3
_PROBE_SECONDS = 10.0
_MOST_REMEMBERED = 500


@dataclass(frozen=True)
class PrecisionChoice:
    """What was chosen, and why.

    Parameters
    ----------
    precision : {"fp32", "bf16"}
        The choice.
    reason : str
        One line for a person.
    seconds : dict of str to float
        The least time of a step in each precision; empty where nothing was measured.
    loss_gap : float
        |L_16 - L_32| / max(1, |L_32|).
    cosine : float
        Between the two gradients.
    remembered : bool
        Whether an earlier run measured it.
    """

    precision: Precision
    reason: str
    seconds: dict[str, float] = field(default_factory=dict)
    loss_gap: float = 0.0
    cosine: float = 1.0
    remembered: bool = False


def supports_bf16(device: torch.device) -> bool:
    """Return whether a device has instructions made for bf16; without, it would be slower and is not tried."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and has_bf16_unit()


@contextlib.contextmanager
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    """Compute what is within in a precision: the forward pass and the loss; the backward pass follows by itself.

    Parameters
    ----------
    precision : {"fp32", "bf16", "fp16"}
        fp32 changes nothing.
    device : torch.device
        Where it is computed.

    Examples
    --------
    >>> with autocast("bf16", torch.device("cpu")):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.bfloat16
    """
    if precision == "fp32":
        yield
        return
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    with torch.autocast(device.type, dtype=dtype):
        yield


def choose_precision(
    network: nn.Module,
    step: Callable[[], Tensor],
    *,
    key: Mapping[str, Any],
    device: torch.device | None = None,
) -> PrecisionChoice:
    """Measure a training step in fp32 and in bf16, and choose.

    Parameters
    ----------
    network : nn.Module
        What trains: its parameters that require a gradient. Left as it was: weights, buffers, gradients, random numbers.
    step : callable
        Returns the loss of one batch, always the same one; called about ten times, the backward pass is done here.
    key : mapping
        JSON that the step's cost depends on besides network, machine and threads: the batch's size and shape, the method.
    device : torch.device, optional
        Where the step computes; that of the network's first parameter when left out.

    Returns
    -------
    PrecisionChoice
        Remembered from an earlier run where there was one.

    Examples
    --------
    >>> network = nn.Linear(2, 1)
    >>> choose_precision(network, lambda: network(torch.ones(4, 2)).sum(), key={"rows": 4}).precision in {"fp32", "bf16"}
    True
    """
    device = device or next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    if not supports_bf16(device):
        return PrecisionChoice("fp32", f"this {device.type} has no instructions for bf16")
    name = _name(network, key, device)
    if (known := _recall(name)) is not None:
        return known
    with _left_as_it_was(network):
        choice = _measure(network, step, device)
    _remember(name, choice)
    return choice


def _measure(network: nn.Module, step: Callable[[], Tensor], device: torch.device) -> PrecisionChoice:
    losses: dict[str, float] = {}
    gradients: dict[str, Tensor] = {}
    with _without_dropout(network):
        for precision in ("fp32", "bf16"):
            try:
                losses[precision], gradients[precision] = _gradient(network, step, precision, device)
            except RuntimeError as error:
                if precision == "fp32":
                    raise
                reason = f"bf16 fails: {str(error).splitlines()[0][:120]}"
                return PrecisionChoice("fp32", reason, loss_gap=1.0, cosine=0.0)
    gap = abs(losses["bf16"] - losses["fp32"]) / max(1.0, abs(losses["fp32"]))
    cosine = _cosine(gradients["bf16"], gradients["fp32"])
    if not (gap <= MOST_LOSS_GAP and cosine >= LEAST_COSINE):  # NaN too
        return PrecisionChoice(
            "fp32", f"bf16 disagrees with fp32: loss by {gap:.2%}, gradient cosine {cosine:.4f}", {}, gap, cosine
        )
    seconds = _time(network, step, device)
    ratio = seconds["bf16"] / seconds["fp32"]
    unit = "CPU time" if device.type == "cpu" else "time"
    chosen: Precision = "bf16" if ratio <= _MOST_TIME else "fp32"
    reason = f"a step in bf16 takes {ratio:.2f} of the {unit} of fp32, gradient cosine {cosine:.4f}"
    return PrecisionChoice(chosen, reason, seconds, gap, cosine)


def _time(network: nn.Module, step: Callable[[], Tensor], device: torch.device) -> dict[str, float]:
    """Return the least seconds of a few steps in each precision, taken in turn."""
    taken: dict[str, list[float]] = {"fp32": [], "bf16": []}
    started = time.perf_counter()
    for _ in range(_ROUNDS):
        for precision, seconds in taken.items():
            before = _clock(device)
            _backward(network, step, precision, device)
            seconds.append(max(_clock(device) - before, 1e-9))
        if time.perf_counter() - started > _PROBE_SECONDS:
            break
    return {precision: min(seconds) for precision, seconds in taken.items()}


def _clock(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _backward(network: nn.Module, step: Callable[[], Tensor], precision: str, device: torch.device) -> float:
    network.zero_grad(set_to_none=True)
    with autocast(precision, device):
        loss = step()
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def _gradient(
    network: nn.Module, step: Callable[[], Tensor], precision: str, device: torch.device
) -> tuple[float, Tensor]:
    torch.manual_seed(0)
    loss = _backward(network, step, precision, device)
    parts = [parameter.grad.reshape(-1).float() for parameter in network.parameters() if parameter.grad is not None]
    return loss, torch.cat(parts) if parts else torch.zeros(1)


def _cosine(left_d: Tensor, right_d: Tensor) -> float:
    """Return the cosine, 1 for two zeros and 0 for one.

    Examples
    --------
    >>> _cosine(torch.tensor([3.0, 4.0]), torch.tensor([6.0, 8.0])), _cosine(torch.zeros(2), torch.zeros(2))
    (1.0, 1.0)
    """
    left_d, right_d = left_d.double(), right_d.double()
    lengths = float(left_d.norm() * right_d.norm())
    if lengths == 0:
        return float(bool(left_d.norm() == right_d.norm()))
    return float(left_d @ right_d) / lengths


@contextlib.contextmanager
def _left_as_it_was(network: nn.Module) -> Iterator[None]:
    """Put buffers (running statistics), gradients and random numbers back afterwards; a step moves no weights."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in network.parameters()]
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
            for parameter, gradient in gradients:
                parameter.grad = gradient


@contextlib.contextmanager
def _without_dropout(network: nn.Module) -> Iterator[None]:
    """Turn dropout off: its masks differ between number types, so gradients could not be compared."""
    changed: list[tuple[nn.Module, str, float]] = []
    for module in network.modules():
        for attribute in ("p",) if isinstance(module, _DropoutNd) else ("drop_prob",):
            value = getattr(module, attribute, None)
            if isinstance(value, float) and value > 0:
                changed.append((module, attribute, value))
                setattr(module, attribute, 0.0)
    try:
        yield
    finally:
        for module, attribute, value in changed:
            setattr(module, attribute, value)


def _name(network: nn.Module, key: Mapping[str, Any], device: torch.device) -> str:
    parts = [
        f"{name} {tuple(parameter.shape)} {parameter.dtype} {parameter.requires_grad}"
        for name, parameter in network.named_parameters()
    ]
    threads = [default_threads(), torch.get_num_threads()]
    described = {"key": dict(key), "parts": parts, "device": device.type, "threads": threads, "machine": machine()}
    return digest_json(described)[:32]


def _recall(name: str) -> PrecisionChoice | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        value = json.loads((cache_folder() / "precisions.json").read_text(encoding="utf-8"))[name]
        choice = PrecisionChoice(**{**cast(dict[str, Any], value), "remembered": True})
        if choice.precision in {"fp32", "bf16"}:
            return choice
    return None


def _remember(name: str, choice: PrecisionChoice) -> None:
    """Keep a choice; a disk that refuses costs the next run a probe and nothing else."""
    path = cache_folder() / "precisions.json"
    with contextlib.suppress(OSError, ValueError), wait_lock(path.with_name(".precisions.lock")):
        known: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            read = json.loads(path.read_text(encoding="utf-8"))
            known = read if isinstance(read, dict) else {}
        known.pop(name, None)
        kept = dict(list(known.items())[-(_MOST_REMEMBERED - 1) :])
        write_json(path, {**kept, name: asdict(choice)})
