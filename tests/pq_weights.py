"""Decode product-quantised weights (``*.pq.safetensors``) into folders in timm's hub format; a test fixture only.

A compressed layer is stored as ``NAME.codebook`` and ``NAME.codes``; its weight is ``codebook[codes]`` in the shape
the network wants. All other tensors are plain.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from headstart.core.digests import digest_file

__all__ = ["decode_pq", "decode_tensors"]


def decode_tensors(compressed: dict[str, torch.Tensor], shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Return plain float32 tensors by name.

    Parameters
    ----------
    compressed : dict
        Tensors as stored.
    shapes : dict
        Shape of every tensor the network wants.
    """
    plain: dict[str, torch.Tensor] = {}
    for name, tensor in compressed.items():
        layer, _, part = name.rpartition(".")
        if part == "codes":
            weight = f"{layer}.weight"
            plain[weight] = compressed[f"{layer}.codebook"].float()[tensor.long()].reshape(shapes[weight])
        elif part != "codebook":
            plain[name] = tensor.float() if tensor.is_floating_point() else tensor
    return plain


def decode_pq(path: Path, root: Path | None = None) -> Path:
    """Return a folder with ``config.json`` and ``model.safetensors``; decoded once for each content of the file.

    Parameters
    ----------
    path : Path
        ``NAME.pq.safetensors``, with ``NAME.json`` beside it.
    root : Path, optional
        Where decoded folders lie; the system's temporary folder when left out.
    """
    import timm

    name = path.name.removesuffix(".pq.safetensors")
    said = json.loads(path.with_name(f"{name}.json").read_text(encoding="utf-8"))
    root = Path(tempfile.gettempdir()) if root is None else root
    folder = root / f"headstart-decoded-{digest_file(path)[:16]}" / name
    if folder.is_dir():
        return folder
    network = timm.create_model(said["timm_arch"], num_classes=said["num_classes"])
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent))
    save_file(decode_tensors(load_file(path), shapes), draft / "model.safetensors", metadata={"format": "pt"})
    keys = ("input_size", "crop_pct", "interpolation", "mean", "std")
    config = {
        "architecture": said["timm_arch"],
        "num_classes": said["num_classes"],
        "pretrained_cfg": {**{key: said[key] for key in keys}, "license": said["licence"]},
    }
    (draft / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    try:
        os.rename(draft, folder)  # noqa: PTH104 (fails where another process was first)
    except OSError:
        shutil.rmtree(draft)
    return folder
