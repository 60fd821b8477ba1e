"""How well each transferability score orders base models: rank correlation with the probe's and the fine-tuned accuracy.

    python benchmarks/ranking.py [--tuning-seconds 240] [--only resnet18_pqf,mobilenetv2_100] [--skip-tuning]

On the pets (37 breeds), for every image base model of the shared weights: the scores see 500 training rows, "probe" is the
accuracy on the test rows of a head solved on all training rows, "tuned" that of the whole network fine-tuned from the solved
head for a fixed CPU budget (AdamW, 1e-4, mirroring, one thread). Spearman's correlation over base models.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from headstart.backbones import Backbone, open_backbone
from headstart.core.progress import Progress
from headstart.data import Dataset, folds, open_dataset
from headstart.features import extract_features
from headstart.methods import FeatureExtraction
from headstart.training import InputRows, Network, TrainingConfig, TrainingRows, train
from headstart.workflow.candidates import stratified_rows
from headstart.workflow.ranking import score_features
from record import ROOT, store_result

SHARED = Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared"))
RESULTS = ROOT / "benchmarks" / "results" / "ranking.json"


def weights(folder: Path) -> dict[str, Path]:
    """Return every image base model of the shared weights by name; quantised ones are decoded into ``folder``."""
    sys.path.insert(0, str(ROOT / "tests"))
    from pq_weights import decode_pq

    found = {}
    for path in sorted((SHARED / "weights" / "imagenet").glob("*.safetensors")):
        quantised = path.name.endswith(".pq.safetensors")
        found[path.name.split(".")[0]] = decode_pq(path, folder) if quantised else path
    return found


def measure(path: Path, training: Dataset, testing: Dataset, tuning_seconds: float) -> dict[str, Any]:
    """Return scores, probe and tuned accuracy, and what they cost."""
    backbone = open_backbone(path)
    assert training.targets is not None and training.task is not None and testing.targets is not None
    chosen = stratified_rows(training.targets, training.task, 500, 0)
    features = extract_features(training, backbone, progress=Progress())
    subset = training.subset(chosen)
    scored = score_features(backbone, extract_features(subset, backbone, progress=Progress(quiet=True)), subset)
    model = FeatureExtraction().fit(backbone, features, training.targets, training.task)
    answers = model.predict(testing.unlabelled(), progress=Progress(quiet=True))
    result = {
        "scores": dict(scored.candidate.scores),
        "probe": float(np.mean(answers.scores.argmax(1) == testing.targets)),
        "parameters": scored.candidate.parameters,
        "multiply_adds": scored.candidate.multiply_adds,
        "size_bytes": scored.candidate.size_bytes,
        "embedding_cpu_seconds": features.cpu_seconds,
        "runtime": features.runtime.label,
    }
    if tuning_seconds > 0:
        result |= tune(backbone, model.head.to_linear(), training, testing, tuning_seconds)
    return result


def tune(backbone: Backbone, head: nn.Linear, training: Dataset, testing: Dataset, seconds: float) -> dict[str, Any]:
    """Fine-tune every parameter and return the accuracy on the test rows."""
    torch.set_num_threads(1)
    assert training.targets is not None and training.task is not None and testing.targets is not None
    network = Network.of(backbone, {"main": head}, stages=())
    learning, choosing = folds(training, 8, seed=0)[0]
    inputs = InputRows(training, backbone, augment="flips")
    parts = [TrainingRows(inputs, training.targets, rows) for rows in (learning, choosing)]
    config = TrainingConfig(
        cpu_seconds=seconds, learning_rate=1e-4, max_epochs=30, precision="fp32", validation_rows=128
    )
    history = train(network, training.task, parts[0], parts[1], config, progress=Progress())
    inputs.close()
    features = extract_features(testing.unlabelled(), backbone, store=False, progress=Progress(quiet=True))
    with torch.no_grad():
        answers = head(torch.from_numpy(features.values_nd)).argmax(1).numpy()
    return {
        "tuned": float(np.mean(answers == testing.targets)),
        "tuned_epochs": history.epochs,
        "tuned_cpu_seconds": history.cpu_seconds,
    }


def correlations(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return Spearman's correlation of every score with the probe's and the tuned order, over the models that have it."""
    table: dict[str, dict[str, float]] = {}
    for goal in ("probe", "tuned"):
        for name in sorted({name for entry in results.values() for name in entry["scores"]}):
            both = [entry for entry in results.values() if name in entry["scores"] and goal in entry]
            if len(both) > 2:
                order = spearmanr([entry["scores"][name] for entry in both], [entry[goal] for entry in both])
                table.setdefault(name, {}).update({goal: float(order.statistic), "base_models": len(both)})
    return table


def main() -> None:
    """Measure every base model, keep each result as it comes, then the correlations."""
    parser = argparse.ArgumentParser(description="Rank correlation of transferability scores.")
    parser.add_argument("--tuning-seconds", type=float, default=240)
    parser.add_argument("--skip-tuning", action="store_true")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    data = open_dataset(SHARED / "data" / "pets_oxford37")
    assert data.given_split is not None
    training, testing = data.subset(data.given_split == "train"), data.subset(data.given_split == "test")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in weights(Path(folder)).items():
            if arguments.only and name not in arguments.only.split(","):
                continue
            results[name] = measure(path, training, testing, 0 if arguments.skip_tuning else arguments.tuning_seconds)
            print(name, json.dumps(results[name]), flush=True)
    table = correlations(results)
    for name, row in table.items():
        print(f"{name:10s}", "  ".join(f"{goal} {value:+.2f}" for goal, value in row.items()))
    store_result(RESULTS, "pets", {"base_models": results, "spearman": table})


if __name__ == "__main__":
    main()
