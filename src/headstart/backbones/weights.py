"""Reading weights, filling a network with them to the last tensor, and naming them by digest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor, nn

from headstart.core.digests import digest_json
from headstart.core.errors import BackboneError

__all__ = ["digest_tensors", "digest_weights", "fill", "is_counter", "read_safetensors"]


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a file's tensors and the text metadata of its header.

    Raises
    ------
    BackboneError
        If the file is not safetensors, or is cut short.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            metadata = dict(stream.metadata() or {})
            return {name: stream.get_tensor(name) for name in stream.keys()}, metadata  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise BackboneError(f"open_backbone: {path} is not a readable safetensors file ({error}).") from error


def is_counter(name: str) -> bool:
    """Return whether a tensor only counts batches seen, which no output depends on."""
    return name.endswith("num_batches_tracked")


def fill(network: nn.Module, weights: Mapping[str, Tensor], origin: str, who: str = "open_backbone") -> None:
    """Copy ``weights`` into ``network``; every tensor of either must have its counterpart in the other.

    Raises
    ------
    BackboneError
        Listing what is missing, what is left over, what has another shape, and what is not finite.

    Examples
    --------
    >>> fill(nn.Linear(2, 1), {"weight": torch.ones(1, 2)}, "example.safetensors")
    Traceback (most recent call last):
        ...
    headstart.core.errors.BackboneError: open_backbone: the weights of example.safetensors do not fit the network: 1 \
tensor missing (bias); give the weights of this very architecture.
    """
    wanted = {name: tensor for name, tensor in network.state_dict().items() if not is_counter(name)}
    given = {name: tensor for name, tensor in weights.items() if not is_counter(name)}
    shared = wanted.keys() & given.keys()
    problems = [
        *_listing("missing", sorted(wanted.keys() - given.keys())),
        *_listing("left over", sorted(given.keys() - wanted.keys())),
        *_listing(
            "of another shape",
            [
                f"{name}: file {tuple(given[name].shape)}, network {tuple(wanted[name].shape)}"
                for name in sorted(shared)
                if given[name].shape != wanted[name].shape
            ],
        ),
        *_listing("with values that are not finite", [name for name in sorted(shared) if not _finite(given[name])]),
    ]
    if problems:
        raise BackboneError(
            f"{who}: the weights of {origin} do not fit the network: {'; '.join(problems)}; "
            "give the weights of this very architecture."
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # copies of many small tensors: threads would mostly wait for each other
    try:
        network.load_state_dict(given, strict=False)
    finally:
        torch.set_num_threads(threads)


def _listing(what: str, names: list[str], shown: int = 5) -> Iterable[str]:
    if names:
        more = f", and {len(names) - shown} more" if len(names) > shown else ""
        yield f"{len(names)} tensor{'s' * (len(names) > 1)} {what} ({', '.join(names[:shown])}{more})"


def _finite(tensor: Tensor) -> bool:
    """Return whether every value is finite; a finite sum says so at a tenth of the cost, only a doubtful one is looked into."""
    if not tensor.is_floating_point():
        return True
    if tensor.dtype == torch.float32 and np.isfinite(tensor.detach().cpu().numpy().sum()):
        return True
    return bool(torch.isfinite(tensor).all())


def digest_tensors(weights: Mapping[str, Tensor]) -> str:
    """Return the digest of named tensors, whatever their order; batch counters are left out.

    Examples
    --------
    >>> digest_tensors({"a": torch.ones(2)}) == digest_tensors({"b": torch.ones(2)})
    False
    """
    hasher = blake3()
    for name in sorted(name for name in weights if not is_counter(name)):
        tensor = weights[name].detach().cpu().contiguous()
        hasher.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def digest_weights(architecture: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """Return the digest that names a network's function: its definition and every tensor."""
    return digest_json({"architecture": dict(architecture), "tensors": digest_tensors(weights)})
