"""Adapting the last stage of a ResNet-50 to another domain: the freeze boundary against the loop that keeps nothing.

    python benchmarks/last_stage_adapted.py [--images 160] [--epochs 10] [--seeds 0] [--threads 1]

PACS, photographs (labelled) to paintings (unlabelled), so many pictures of each. Both sides: ImageNet weights, layer4 and a
head, cross-entropy on photographs plus minimum class confusion (temperature 2.5) on paintings, AdamW (3e-4, the head 1e-3),
32 rows of each domain a step, warm-up and cosine, batch statistics frozen, half of the images mirrored. Plain PyTorch is
float32 as one writes it: two DataLoaders that decode and transform every image every epoch and the whole forward pass.
headstart is `DeepAdaptation` from an empty cache: solving the head, opening the boundary at layer3, training, calibrating,
answering for all paintings.

Each run is a process of its own; CPU seconds count all threads, from the first file opened to answers for every painting
(both sides), imports left out. Accuracy is on the paintings, whose labels nothing has seen; "source only" is the solved
head's. Needs the shared data and weights (HEADSTART_SHARED).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from last_stage import BATCH, DECAY, NUM_CLASSES, SHARED, Rows, cpu_seconds

RATE, HEAD_FACTOR, TEMPERATURE = 3e-4, 1e-3 / 3e-4, 2.5


def rows(domain: str, num_images: int) -> Rows:
    """Return (path, class) of pictures of one domain, drawn evenly."""
    folder = SHARED / "data" / "pacs_subset" / domain
    files = sorted(folder.glob("*/*.jpg"))
    classes = sorted({path.parent.name for path in files})
    every = [(str(path), classes.index(path.parent.name)) for path in files]
    random.Random(0).shuffle(every)
    return every[:num_images]


def run_headstart(num_images: int, epochs: int, seed: int) -> dict[str, Any]:
    """What a user types in Python."""
    import timm  # noqa: F401 - imported before the clock starts, as the other side imports its libraries

    from headstart.backbones import open_backbone
    from headstart.catalog import read_recipe
    from headstart.data import open_dataset
    from headstart.features import extract_features
    from headstart.features.openvino_engine import import_openvino
    from headstart.methods import DeepAdaptation, FeatureExtraction
    from headstart.training import TrainingConfig

    import_openvino()
    source, target = rows("photo", num_images), rows("art_painting", num_images)
    truth = np.array([label for _, label in target])
    started = cpu_seconds()
    classes = [str(label) for label in range(NUM_CLASSES)]
    labelled = open_dataset([path for path, _ in source], labels=[str(label) for _, label in source], classes=classes)
    unlabelled = open_dataset([path for path, _ in target], unlabelled=True)
    backbone = open_backbone(os.environ["RESNET50"])
    config = TrainingConfig(
        learning_rate=RATE, weight_decay=DECAY, batch_size=BATCH, max_epochs=epochs, patience=epochs, seed=seed
    )
    method = DeepAdaptation(read_recipe("mcc"), "mcc", strategy="last-stages:1", config=config, held_out=0.0, seed=seed)
    found = method.fit(labelled, unlabelled, backbone)
    spent = cpu_seconds() - started
    assert labelled.task is not None and labelled.targets is not None
    features = extract_features(labelled, backbone)
    head = FeatureExtraction(seed=seed).fit(backbone, features, labelled.targets[features.kept], labelled.task)
    answers = head.predict(unlabelled).scores.argmax(axis=1)
    return {
        "cpu_seconds": spent,
        "accuracy": float((found.target_scores.argmax(axis=1) == truth[found.target_kept]).mean()),
        "source_only": float((answers == truth).mean()),
        "steps": found.histories[-1].steps,
        "said": [found.plan_reason, *found.notes],
    }


def class_confusion(logits: Any) -> Any:
    """Return the minimum class confusion loss (Jin et al., arXiv:1912.03699, equations 2 to 6) in plain PyTorch."""
    import torch

    answers = torch.softmax(logits / TEMPERATURE, dim=1)
    doubt = -(answers * torch.log(answers + 1e-5)).sum(dim=1)
    weights = 1 + torch.exp(-doubt.detach())
    weights = len(logits) * weights / weights.sum()
    confusion = (answers * weights[:, None]).T @ answers
    confusion = confusion / confusion.sum(dim=1)
    return (confusion.sum() - confusion.trace()) / logits.shape[1]


def run_plain(num_images: int, epochs: int, seed: int) -> dict[str, Any]:
    """The same in plain PyTorch, float32."""
    import torch
    from PIL import Image
    from timm.data import create_transform
    from torch import nn
    from torchvision.transforms import Compose, RandomHorizontalFlip

    from headstart.backbones import open_backbone

    source, target = rows("photo", num_images), rows("art_painting", num_images)
    described: Any = open_backbone(os.environ["RESNET50"]).transform
    resize = create_transform(
        (3, described.height, described.width),
        is_training=False,
        interpolation=described.interpolation,
        mean=described.mean,
        std=described.std,
        crop_pct=described.crop_fraction,
    )

    class Pictures(torch.utils.data.Dataset[Any]):
        def __init__(self, pictures: Rows, mirrored: bool) -> None:
            self.pictures = pictures
            self.transform = Compose([RandomHorizontalFlip(), resize]) if mirrored else resize

        def __len__(self) -> int:
            return len(self.pictures)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            path, label = self.pictures[index]
            return self.transform(Image.open(path).convert("RGB")), label

    started = cpu_seconds()
    torch.manual_seed(seed)
    backbone = open_backbone(os.environ["RESNET50"])
    network: Any = backbone.module.eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    for parameter in network.layer4.parameters():
        parameter.requires_grad_(True)
    head = nn.Linear(backbone.width, NUM_CLASSES)
    groups = []
    for module, rate in ((network.layer4, RATE), (head, RATE * HEAD_FACTOR)):
        matrices = [parameter for parameter in module.parameters() if parameter.ndim > 1]
        vectors = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
        groups += [{"params": matrices, "lr": rate, "weight_decay": DECAY}]
        groups += [{"params": vectors, "lr": rate, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    loaders = [torch.utils.data.DataLoader(Pictures(part, True), BATCH, shuffle=True) for part in (source, target)]
    total = epochs * len(loaders[0])
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: max(0.02, min(1.0, step / total / 0.05) * 0.5 * (1 + math.cos(math.pi * step / total))),
    )
    for _ in range(epochs):
        for (images, labels), (others, _) in zip(*loaders, strict=True):
            logits = head(network(torch.cat([images, others])))
            loss = nn.functional.cross_entropy(logits[: len(images)], labels) + class_confusion(logits[len(images) :])
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_([item for group in groups for item in group["params"]], 5.0)
            optimiser.step()
            schedule.step()
    right = 0
    with torch.inference_mode():
        for images, labels in torch.utils.data.DataLoader(Pictures(target, False), BATCH):
            right += int((head(network(images)).argmax(1) == labels).sum())
    return {"cpu_seconds": cpu_seconds() - started, "accuracy": right / len(target), "steps": total}


def measure(side: str, seed: int, arguments: argparse.Namespace, environment: dict[str, str]) -> dict[str, Any]:
    """Run one side in a process of its own and return what it reports."""
    size = ["--images", str(arguments.images), "--epochs", str(arguments.epochs)]
    done = subprocess.run(
        [sys.executable, __file__, "--side", side, "--seeds", str(seed), *size],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{side:10s} seed {seed}  {result['cpu_seconds']:8.1f} CPU s   accuracy {result['accuracy']:.4f}", flush=True)
    return {**result, "seed": seed}


def main() -> None:
    """Measure both sides in turn, seed by seed, and store the ratio."""
    parser = argparse.ArgumentParser(description="Adapting the last stage, side by side.")
    parser.add_argument("--side", default="")
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    if arguments.side:
        side = {"headstart": run_headstart, "plain": run_plain}[arguments.side]
        print(json.dumps(side(arguments.images, arguments.epochs, seeds[0])))
        return
    from record import ROOT, store_result

    sys.path.insert(0, str(ROOT / "tests"))
    from pq_weights import decode_pq

    results: dict[str, list[dict[str, Any]]] = {"headstart": [], "plain": []}
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "RESNET50": str(decode_pq(SHARED / "weights" / "imagenet" / "resnet50_pqf.pq.safetensors", Path(folder))),
            "HEADSTART_SHARED": str(SHARED),
            "OMP_NUM_THREADS": str(arguments.threads),
        }
        for seed in seeds:
            for side, runs in results.items():
                environment["HEADSTART_CACHE"] = str(Path(folder) / f"cache-{side}-{seed}")
                runs.append(measure(side, seed, arguments, environment))
    spent = {side: float(np.median([run["cpu_seconds"] for run in runs])) for side, runs in results.items()}
    summary = {"sides": results, "ratio": spent["plain"] / spent["headstart"]}
    print(f"plain / headstart: {summary['ratio']:.1f} x CPU seconds")
    name = f"resnet50_{arguments.images}_images_{arguments.epochs}_epochs"
    store_result(ROOT / "benchmarks" / "results" / "last_stage_adapted.json", name, summary)


if __name__ == "__main__":
    main()
