"""Fine-tuning the last stage and the head of a ResNet-50, 10 epochs, 1,000 images: the freeze boundary against plain PyTorch.

    python benchmarks/last_stage.py [--images 1000] [--test 960] [--epochs 10] [--seeds 0,1,2] [--threads 2] [--sides plain]

1,000 pictures of PACS (photos, paintings, cartoons and sketches, 7 classes, all domains pooled) to learn from, the other 960 to
test on. Both sides: ImageNet weights, layer4 and a new linear head, AdamW (1e-4, the head 1e-3), weight decay 0.05 on matrices,
batch 32, warm-up and cosine, gradients cut at 5, half of the images mirrored. Plain PyTorch is float32 as one writes it: a
DataLoader that decodes and transforms every image every epoch, the whole forward pass, frozen layers in evaluation mode and
without gradients. headstart opens the boundary at layer3 with two views of every image (kept or computed as its arithmetic says,
from an empty cache every time), and trains through the engine; precision is what its probe measures.

Each run is a process of its own; CPU seconds count all threads, from the first file opened to trained weights, building and
compiling networks and every probe included, imports left out. Accuracy is that of the float32 network on the test images.
Needs the shared data and weights (HEADSTART_SHARED).
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

import numpy as np

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("HEADSTART_SHARED", HERE.parent.parent / "shared"))
NUM_CLASSES = 7
BATCH, RATE, HEAD_FACTOR, DECAY = 32, 1e-4, 10.0, 0.05
Rows = list[tuple[str, int]]


def rows(num_images: int, num_test: int) -> tuple[Rows, Rows]:
    """Return (path, class) of the pictures to learn from and of those to test on."""
    folder = SHARED / "data" / "pacs_subset"
    files = sorted(folder.glob("*/*/*.jpg"))
    classes = sorted({path.parent.name for path in files})
    every = [(str(path), classes.index(path.parent.name)) for path in files]
    random.Random(0).shuffle(every)
    return every[:num_images], every[1000:][:num_test]


def cpu_seconds() -> float:
    """Return CPU seconds of this process and its finished children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def accuracy(network: Any, backbone: Any, testing: Rows) -> float:
    """Return the share of test pictures that a function from network inputs to logits names rightly."""
    import torch

    from headstart.data import open_dataset
    from headstart.training import InputRows

    inputs = InputRows(open_dataset([path for path, _ in testing], unlabelled=True), backbone)
    truth = np.array([label for _, label in testing])
    right = 0
    with torch.inference_mode():
        for at in np.array_split(np.arange(len(testing)), max(1, len(testing) // BATCH)):
            right += int((network(*inputs.batch(at)).argmax(1).numpy() == truth[at]).sum())
    return right / len(testing)


def run_headstart(num_images: int, num_test: int, epochs: int, seed: int) -> dict[str, Any]:
    """Open the boundary, train through the engine."""
    import timm  # noqa: F401 - imported before the clock starts, as the other side imports its libraries
    import torch
    from torch import nn

    from headstart.backbones import open_backbone
    from headstart.core.preprocessing import View
    from headstart.core.progress import Progress
    from headstart.data import open_dataset
    from headstart.features.openvino_engine import import_openvino
    from headstart.training import TrainingConfig, TrainingRows, train
    from headstart.training.boundary import boundary_rows
    from headstart.training.network import Network
    from headstart.training.strategies import LastStages

    import_openvino()
    training, testing = rows(num_images, num_test)
    started, progress = cpu_seconds(), Progress()
    labels = [str(label) for _, label in training]
    data = open_dataset(
        [path for path, _ in training], labels=labels, classes=[str(label) for label in range(NUM_CLASSES)]
    )
    assert data.task is not None
    backbone = open_backbone(os.environ["RESNET50"])
    torch.manual_seed(seed)
    network = Network.of(backbone.copy(), {"main": nn.Linear(backbone.width, NUM_CLASSES)})
    plan = LastStages(1).plan(network, len(data))
    network.start = plan.num_frozen
    config = TrainingConfig(
        learning_rate=RATE, weight_decay=DECAY, batch_size=BATCH, max_epochs=epochs, patience=epochs, seed=seed
    )
    boundary = boundary_rows(
        data,
        backbone,
        network.names[plan.num_frozen - 1],
        (View(), View(flip=True)),
        epochs=epochs,
        progress=progress,
    )
    opened = cpu_seconds() - started
    history = train(
        network, data.task, TrainingRows(boundary, data.targets), None, config, plan=plan, progress=progress
    )
    spent = cpu_seconds() - started
    network.start = 0
    network.eval()
    return {
        "cpu_seconds": spent,
        "cpu_seconds_until_the_first_step": opened,
        "accuracy": accuracy(lambda *inputs: network(*inputs).logits, backbone, testing),
        "steps": history.steps,
        "boundary": boundary.plan.to_dict(),
        "runtime": boundary.choice.runtime.label,
        "precision": history.precision,
        "notes": history.notes,
    }


def run_plain(num_images: int, num_test: int, epochs: int, seed: int) -> dict[str, Any]:
    """The same in plain PyTorch, float32."""
    import math

    import torch
    from PIL import Image
    from timm.data import create_transform
    from torch import nn

    from headstart.backbones import open_backbone

    training, testing = rows(num_images, num_test)
    backbone = open_backbone(os.environ["RESNET50"])
    described: Any = backbone.transform

    class Pictures(torch.utils.data.Dataset[Any]):
        def __init__(self) -> None:
            resize = create_transform(
                (3, described.height, described.width),
                is_training=False,
                interpolation=described.interpolation,
                mean=described.mean,
                std=described.std,
                crop_pct=described.crop_fraction,
            )
            from torchvision.transforms import Compose, RandomHorizontalFlip

            self.transform = Compose([RandomHorizontalFlip(), resize])

        def __len__(self) -> int:
            return len(training)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            path, label = training[index]
            return self.transform(Image.open(path).convert("RGB")), label

    started = cpu_seconds()
    torch.manual_seed(seed)
    network: Any = open_backbone(os.environ["RESNET50"]).module.eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    for parameter in network.layer4.parameters():
        parameter.requires_grad_(True)
    network.layer4.train()
    head = nn.Linear(backbone.width, NUM_CLASSES)
    groups = []
    for module, rate in ((network.layer4, RATE), (head, RATE * HEAD_FACTOR)):
        matrices = [parameter for parameter in module.parameters() if parameter.ndim > 1]
        vectors = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
        groups += [{"params": matrices, "lr": rate, "weight_decay": DECAY}]
        groups += [{"params": vectors, "lr": rate, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    loader = torch.utils.data.DataLoader(Pictures(), BATCH, shuffle=True, drop_last=False)
    total = epochs * len(loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: max(0.02, min(1.0, step / total / 0.05) * 0.5 * (1 + math.cos(math.pi * step / total))),
    )
    for epoch in range(epochs):
        losses = []
        for images, labels in loader:
            loss = nn.functional.cross_entropy(head(network(images)), labels)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_([item for group in groups for item in group["params"]], 5.0)
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}", file=sys.stderr, flush=True)
    spent = cpu_seconds() - started
    network.eval()
    return {"cpu_seconds": spent, "accuracy": accuracy(lambda x: head(network(x)), backbone, testing), "steps": total}


def measure(side: str, seed: int, arguments: argparse.Namespace, environment: dict[str, str]) -> dict[str, Any]:
    """Run one side in a process of its own and return what it reports."""
    size = ["--images", str(arguments.images), "--epochs", str(arguments.epochs), "--test", str(arguments.test)]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(HERE / "last_stage.py"), "--side", side, "--seeds", str(seed), *size],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{side:10s} seed {seed}  {result['cpu_seconds']:8.1f} CPU s   accuracy {result['accuracy']:.4f}", flush=True)
    return {**result, "seed": seed, "wall_seconds_of_the_process": time.perf_counter() - started}


def main() -> None:
    """Measure both sides in turn, seed by seed, and store the ratio."""
    parser = argparse.ArgumentParser(description="Fine-tuning the last stage, side by side.")
    parser.add_argument("--side", default="")
    parser.add_argument("--sides", default="headstart,plain")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--test", type=int, default=960)
    parser.add_argument("--threads", type=int, default=0, help="threads of every process; all cores when left out")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    if arguments.side:
        side = {"headstart": run_headstart, "plain": run_plain}[arguments.side]
        print(json.dumps(side(arguments.images, arguments.test, arguments.epochs, seeds[0])))
        return
    sys.path.insert(0, str(HERE.parent / "tests"))
    from pq_weights import decode_pq
    from record import ROOT, store_result

    results: dict[str, list[dict[str, Any]]] = {side: [] for side in arguments.sides.split(",")}
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "RESNET50": str(decode_pq(SHARED / "weights" / "imagenet" / "resnet50_pqf.pq.safetensors", Path(folder))),
            "HEADSTART_SHARED": str(SHARED),
        }
        if arguments.threads:
            environment["OMP_NUM_THREADS"] = str(arguments.threads)
        for seed in seeds:
            for side, runs in results.items():
                environment["HEADSTART_CACHE"] = str(Path(folder) / f"cache-{side}-{seed}")
                runs.append(measure(side, seed, arguments, environment))
    summary: dict[str, Any] = {"sides": results, "images": arguments.images, "epochs": arguments.epochs}
    if len(results) == 2:
        spent = {side: float(np.median([run["cpu_seconds"] for run in runs])) for side, runs in results.items()}
        right = {side: [run["accuracy"] for run in runs] for side, runs in results.items()}
        summary["ratio"] = spent["plain"] / spent["headstart"]
        summary["accuracy"] = {side: [float(np.mean(item)), float(np.std(item))] for side, item in right.items()}
        print(
            f"plain / headstart: {summary['ratio']:.1f} x CPU seconds; accuracy (mean, deviation) {summary['accuracy']}"
        )
    name = f"resnet50_{arguments.images}_images_{arguments.epochs}_epochs"
    store_result(ROOT / "benchmarks" / "results" / "last_stage.json", name, summary)


if __name__ == "__main__":
    main()
