"""Feature extraction end to end against its parts: files on disk to rows in the store, CPU seconds.

    python benchmarks/extraction.py [--images 500] [--rounds 3] [--backbones resnet50,efficientnet-lite0]

For each base model: decoding alone (one thread, file to pixels), the bare forward pass alone (the chosen runtime, pixels
already in memory), and the whole. "efficiency" is images per CPU second of the whole over 1 / (t_decode + t_forward); 1 means
that overlapping, hashing, keys and the store cost nothing. "busy cores" is CPU seconds over wall-clock seconds, to be read
beside the load of the machine. Rounds alternate the three, so that a busy moment hits them alike; the median round is quoted.
"first" includes the runtime probe, conversion and compilation; "second process" is a new process with the store emptied,
"cached" one with the store full (imports not counted). ResNet-50 has random weights: its speed is the same.

Images are 500 x 375 JPEGs of quality 90: photos of the shared data enlarged with a little noise, or noise clouds where there
are none.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from record import ROOT, store_result

SHARED = Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared"))
RESULTS = ROOT / "benchmarks" / "results" / "extraction.json"


def write_images(folder: Path, count: int) -> None:
    """Write ``count`` JPEGs of 500 x 375 pixels."""
    photos = sorted((SHARED / "data" / "pets_oxford37").glob("*/*/*.jpg"))
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for at in range(count):
        if photos:
            small = Image.open(photos[at % len(photos)]).convert("RGB")
        else:
            small = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        pixels = np.asarray(small.resize((500, 375), Image.Resampling.BICUBIC), np.float32)
        noisy = (pixels + random.normal(0, 5, pixels.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{at:05d}.jpg", quality=90)


def open_network(name: str) -> Any:
    """Return the backbone; ResNet-50 as timm builds it, with random weights."""
    from headstart.backbones import open_backbone

    if name != "resnet50":
        return open_backbone(name)
    import timm
    import torch

    torch.manual_seed(0)
    return open_backbone(timm.create_model("resnet50", pretrained=False))


def seconds_of(action: Any) -> tuple[float, float]:
    """Return CPU and wall-clock seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    action()
    return time.process_time() - cpu, time.perf_counter() - wall


def extract(folder: Path, name: str) -> dict[str, Any]:
    """Extract once in this process with what the cache folder holds; what a child process is asked for."""
    import torch  # noqa: F401 - imports are not counted

    from headstart.data import open_dataset
    from headstart.features import extract_features
    from headstart.features.openvino_engine import import_openvino

    import_openvino()
    backbone = open_network(name)
    _ = backbone.weights_digest
    found: dict[str, Any] = {}

    def work() -> None:
        found["features"] = extract_features(open_dataset(folder, unlabelled=True), backbone)

    cpu, wall = seconds_of(work)
    features = found["features"]
    return {
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "runtime": features.runtime.label,
        "computed": features.computed,
        "timings": features.choice.timings,
        "refused": features.choice.refused,
        "cosine": features.choice.cosine,
        "probe_cpu_seconds": features.choice.seconds,
    }


def in_child(folder: Path, name: str) -> dict[str, Any]:
    """Return what `extract` says in a process of its own."""
    command = [sys.executable, __file__, "--child", name, "--folder", str(folder)]
    answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer


def measure(folder: Path, name: str, rounds: int) -> dict[str, Any]:
    """Return all figures of one base model."""
    from headstart.data import decode_image, open_dataset
    from headstart.features import FeatureStore, extract_features
    from headstart.features.engine import Batch, FrozenPart, borrowed_engine, rows_per_batch
    from headstart.features.runtime import default_threads

    first = in_child(folder, name)
    FeatureStore().clear()
    second = in_child(folder, name)
    cached = in_child(folder, name)
    backbone = open_network(name)
    rows = open_dataset(folder, unlabelled=True)
    choice = extract_features(rows, backbone).choice
    assert choice is not None
    part = FrozenPart(backbone)
    size = rows_per_batch(part, choice.runtime)
    count = len(rows)
    pixels = [decode_image(rows.read(at), backbone.transform) for at in range(count)]
    batches = [Batch((np.stack(pixels[at : at + size]),), list(range(size))) for at in range(0, count - size + 1, size)]
    del pixels

    def decode() -> None:
        for at in range(count):
            decode_image(rows.read(at), backbone.transform)

    def forward() -> None:
        options = {"threads": default_threads(), "batch_rows": size, "keep": True}
        with borrowed_engine(part, choice.runtime, **options) as engine:  # the engine that the whole uses
            for _ in engine.run(batches):
                pass

    found = []
    for _ in range(rounds):
        FeatureStore().clear()
        t_decode = seconds_of(decode)[0]
        t_forward = seconds_of(forward)[0] * count / (len(batches) * size)
        whole, wall = seconds_of(lambda: extract_features(open_dataset(folder, unlabelled=True), backbone))
        found.append(((t_decode + t_forward) / whole, t_decode, t_forward, whole, wall))
    efficiency, t_decode, t_forward, whole, wall = sorted(found)[len(found) // 2]
    return {
        "images": count,
        "runtime": choice.runtime.label,
        "efficiency": round(efficiency, 3),
        "efficiency_of_rounds": [round(item[0], 3) for item in found],
        "decode_images_per_cpu_second": round(count / t_decode, 1),
        "forward_images_per_cpu_second": round(count / t_forward, 1),
        "whole_images_per_cpu_second": round(count / whole, 1),
        "busy_cores": round(statistics.median(item[3] / item[4] for item in found), 2),
        "load_before": [round(item, 2) for item in os.getloadavg()],
        "first_cpu_seconds": round(first["cpu_seconds"], 2),
        "probe_cpu_seconds": round(first["probe_cpu_seconds"], 2),
        "second_process_cpu_seconds": round(second["cpu_seconds"], 2),
        "cached_cpu_seconds": round(cached["cpu_seconds"], 3),
        "cached_over_first": round(first["cpu_seconds"] / cached["cpu_seconds"], 1),
        "probe_rows_per_cpu_second": first["timings"],
        "refused": first["refused"],
        "cosine_with_float32": first["cosine"],
    }


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description="Feature extraction against its parts.")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbones", default="resnet50,efficientnet-lite0")
    parser.add_argument("--child")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(extract(options.folder, options.child)))
        return
    with tempfile.TemporaryDirectory() as name:
        os.environ["HEADSTART_CACHE"] = str(Path(name) / "cache")
        os.environ["HEADSTART_OFFLINE"] = "1"
        write_images(Path(name) / "photos", options.images)
        for backbone in options.backbones.split(","):
            result = measure(Path(name) / "photos", backbone, options.rounds)
            print(backbone, json.dumps(result, indent=2))
            store_result(RESULTS, backbone, result)


if __name__ == "__main__":
    main()
