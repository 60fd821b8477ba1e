"""The file of a checkpoint: tensors as safetensors, everything else as JSON in its header, one digest over both.

Tensors come back with their bits *and* their memory layout: arithmetic on another layout may take other instructions (vectors
or single numbers, with or without fused multiply-add) and so end in other last bits.
`flatten_state` turns nested state (of an optimiser, say) into tensors by name and JSON; `unflatten_state` puts it together again.
It ignores Python objects: only tensors, NumPy arrays, numbers, texts, None, lists, tuples and dicts can be state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from headstart.core.errors import CheckpointError

__all__ = ["flatten_state", "read_state", "tensors_digest", "unflatten_state", "write_state"]

_FORMAT = 1


def flatten_state(value: Any, name: str = "") -> tuple[dict[str, Tensor], Any]:
    """Return the tensors of a nested value by their place in it, and the rest as JSON.

    Parameters
    ----------
    value : nested dict, list or tuple
        Of tensors, NumPy arrays, numbers, texts and None; keys are texts or numbers.
    name : str
        What the tensors' names begin with.

    Raises
    ------
    TypeError
        If something else is in it.

    Examples
    --------
    >>> tensors, rest = flatten_state({"rate": 0.1, "moments": {0: torch.ones(2)}}, "optimiser")
    >>> tensors
    {'optimiser/moments/0': tensor([1., 1.])}
    >>> unflatten_state(tensors, rest)
    {'rate': 0.1, 'moments': {0: tensor([1., 1.])}}
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _flatten(value, name, tensors)


def _flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor | np.ndarray):
        tensors[name] = value if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))
        return {"$": "tensor" if isinstance(value, Tensor) else "array", "of": name}
    if isinstance(value, Mapping):
        inner = {key: _flatten(item, f"{name}/{key}" if name else str(key), tensors) for key, item in value.items()}
        if all(isinstance(key, str) for key in inner) and "$" not in inner:
            return inner
        return {"$": "items", "of": [[key, item] for key, item in inner.items()]}
    if isinstance(value, list | tuple):
        items = [_flatten(item, f"{name}/{at}" if name else str(at), tensors) for at, item in enumerate(value)]
        return items if isinstance(value, list) else {"$": "tuple", "of": items}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"flatten_state: {name} is of type {type(value).__name__}; state is tensors, numbers and texts.")


def unflatten_state(tensors: Mapping[str, Tensor], value: Any) -> Any:
    """Return the nested value that `flatten_state` took apart."""
    if isinstance(value, list):
        return [unflatten_state(tensors, item) for item in value]
    if not isinstance(value, dict):
        return value
    kind, of = value.get("$"), value.get("of")
    if kind == "tensor":
        return tensors[str(of)]
    if kind == "array":
        return tensors[str(of)].numpy()
    if kind == "tuple":
        return tuple(unflatten_state(tensors, of))
    if kind == "items":
        return {key: unflatten_state(tensors, item) for key, item in of or []}
    return {key: unflatten_state(tensors, item) for key, item in value.items()}


def write_state(path: Path, tensors: Mapping[str, Tensor], header: dict[str, Any]) -> None:
    packed, strides = _pack(tensors)
    header = {"format": _FORMAT, **header, "strides": strides}
    text = json.dumps(header)
    save_file(packed, path, metadata={"header": text, "digest": tensors_digest(packed, text)})


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and header of a file, each tensor in memory of its own with the layout it had."""
    with safe_open(path, "pt") as stored:
        metadata = stored.metadata() or {}
        packed = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
    text = metadata["header"]
    if tensors_digest(packed, text) != metadata["digest"]:
        raise ValueError("its content does not have the digest it was written with")
    header = json.loads(text)
    if header["format"] > _FORMAT:
        raise CheckpointError(f"checkpoint: {path} was written by a newer headstart; update headstart, or begin anew.")
    strides = header["strides"]
    return {name: _unpack(tensor, strides.get(name)) for name, tensor in packed.items()}, header


def _pack(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Return the tensors contiguous, on the CPU, none sharing memory; and the strides of those laid out otherwise."""
    packed, strides, seen = {}, {}, set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu()
        if plain.stride() != _plain_stride(plain) and _fills_its_memory(plain):
            strides[name] = list(plain.stride())
        plain = plain.contiguous()
        storage = plain.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != plain.nbytes:
            plain = plain.clone()
        seen.add(plain.untyped_storage().data_ptr())
        packed[name] = plain
    return packed, strides


def _unpack(plain: Tensor, strides: list[int] | None) -> Tensor:
    if strides is None:
        return plain.clone()
    return torch.empty_strided(plain.shape, strides, dtype=plain.dtype).copy_(plain)


def _plain_stride(tensor: Tensor) -> tuple[int, ...]:
    return torch.empty(tensor.shape, device="meta").stride()


def _fills_its_memory(tensor: Tensor) -> bool:
    """Return whether every element has a place of its own and no place is left out (a permuted contiguous tensor)."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride != expected:
                return False
            expected *= size
    return True


def tensors_digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """Return the digest of a text and of every tensor's name, type, shape and bytes, whatever their order."""
    hasher = blake3(text.encode())
    for name, tensor in sorted(tensors.items()):
        hasher.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hasher.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()
