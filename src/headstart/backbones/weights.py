"""Reading weights, filling a network with them to the last tensor, and naming them by digest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

from headstart.core.digests import digest_json
from headstart.core.errors import BackboneError

__all__ = ["build_unset", "digest_tensors", "digest_weights", "fill", "fill_until", "is_counter", "read_safetensors"]

_RANDOM = {
    *(
        getattr(Tensor, f"{name}_")
        for name in ("normal", "uniform", "exponential", "log_normal", "cauchy", "geometric", "bernoulli", "random")
    ),
    *(
        getattr(nn.init, name)
        for name in ("uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_")
    ),
    *(getattr(nn.init, name) for name in ("xavier_uniform_", "xavier_normal_")),
}


class _LeaveUnset(TorchFunctionMode):
    """While active, tensors that would be filled with random numbers keep whatever their memory holds."""

    def __init__(self) -> None:
        super().__init__()
        self._places: set[int] = set()
        self._unset: list[tuple[int, bool, StorageWeakRef]] = []  # where, is it a parameter, is it still there

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensor = args[0] if args else next(iter((kwargs or {}).values()), None)
        if isinstance(tensor, Tensor):
            storage = tensor.untyped_storage()
            place = storage.data_ptr()
            if func in _RANDOM or (func is Tensor.erfinv_ and place in self._places):
                self._places.add(place)
                weak = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._unset.append((place, isinstance(tensor, nn.Parameter), weak))
                return tensor
        return func(*args, **(kwargs or {}))

    def harmless(self, network: nn.Module) -> bool:
        """Return whether all that was left unset is saved by the network, or was a parameter that it no longer has.

        What was neither may have gone into a tensor that is not saved.
        """
        saved = {tensor.untyped_storage().data_ptr() for tensor in network.state_dict().values()}
        return all(
            parameter if storage.expired() else place in saved  # type: ignore[no-untyped-call]
            for place, parameter, storage in self._unset
        )


def build_unset(build: Callable[[], nn.Module]) -> nn.Module:
    """Return a network that is about to be filled, without drawing its random weights first, which takes most of the time.

    Only tensors that the network saves, and `fill` therefore checks, are left unset; a network that draws any other is
    built again in full.

    Examples
    --------
    >>> network = build_unset(lambda: nn.Linear(2, 1))
    >>> fill(network, {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, "example")
    >>> network(torch.ones(1, 2)).item()
    2.0
    """
    with _LeaveUnset() as mode:
        network = build()
    return network if mode.harmless(network) else build()


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


def fill_until(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    origin: str,
    stage: str,
    row_shape: tuple[int, ...],
    known: Collection[str],
) -> None:
    """Copy ``weights`` into an image network up to a stage; what lies behind it may be missing, and is ignored.

    Parameters
    ----------
    row_shape : tuple of int
        Shape of an input row.
    known : collection of str
        Names that weights for the whole network may have; any other is left over.

    Raises
    ------
    BackboneError
        If the network has no such stage, or as `fill`.
    """
    from headstart.backbones.graph import NetworkGraph
    from headstart.backbones.truncation import find_point

    graph = NetworkGraph(network.eval(), row_shape)
    prefix = graph.segments([find_point(graph, stage)])[0]
    wanted = prefix.state_dict()
    fill(prefix, {name: item for name, item in weights.items() if name in wanted or name not in known}, origin)


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
