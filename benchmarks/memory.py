"""Peak memory of feature extraction: 500 images against 20,000.

    python benchmarks/memory.py [--images 20000] [--backbone efficientnet-lite0]

Each size runs in a process of its own with an empty store; the peak is the resident set the kernel saw. What may grow is the
result itself: 20,000 rows of 1,280 float32 features are 102 MB. The images are JPEGs of 320 x 240 pixels, no two with the same
bytes; the runtime is chosen beforehand, so that neither process compiles.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from extraction import open_network
from record import ROOT, store_result

RESULTS = ROOT / "benchmarks" / "results" / "memory.json"
_KINDS = 50


def write_images(folder: Path, count: int) -> None:
    """Write ``count`` JPEGs: a few pictures, each copy with a different tail after the end of its picture."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    pictures = []
    for _ in range(_KINDS):
        small = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        small.resize((320, 240), Image.Resampling.BICUBIC).save(folder / "picture.jpg", quality=90)
        pictures.append((folder / "picture.jpg").read_bytes())
    (folder / "picture.jpg").unlink()
    for at in range(count):
        (folder / f"{at:06d}.jpg").write_bytes(pictures[at % _KINDS] + at.to_bytes(4, "big"))


def extract(folder: Path, name: str) -> dict[str, Any]:
    """Extract in this process; return its peak memory in MB and what it took."""
    from headstart.data import open_dataset
    from headstart.features import extract_features

    cpu, wall = time.process_time(), time.perf_counter()
    features = extract_features(open_dataset(folder, unlabelled=True), open_network(name))
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "rows": len(features.kept),
        "computed": features.computed,
        "runtime": features.runtime.label,
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1),
        "result_mb": round(features.values_nd.nbytes / 1e6, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "wall_seconds": round(time.perf_counter() - wall, 1),
    }


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description="Peak memory of feature extraction.")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(extract(options.folder, options.backbone)))
        return
    with tempfile.TemporaryDirectory() as name:
        os.environ["HEADSTART_CACHE"] = str(Path(name) / "cache")
        os.environ["HEADSTART_OFFLINE"] = "1"
        results = []
        for count in (8, 500, options.images):  # the first chooses and compiles
            folder = Path(name) / f"photos-{count}"
            write_images(folder, count)
            subprocess.run(
                [sys.executable, "-m", "headstart", "cache", "clear", "--yes"], check=True, capture_output=True
            )
            command = [sys.executable, __file__, "--folder", str(folder), "--backbone", options.backbone]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results.append(json.loads(answer))
            print(results[-1], flush=True)
    growth = results[2]["peak_mb"] - results[1]["peak_mb"]
    print(f"peak grew by {growth:.0f} MB")
    store_result(RESULTS, options.backbone, {"small": results[1], "large": results[2], "growth_mb": round(growth, 1)})


if __name__ == "__main__":
    main()
