"""How well each transferability score orders base models: rank correlation with the probe's and the fine-tuned accuracy.

    python benchmarks/ranking.py [--strategy auto] [--only resnet18_pqf,mobilenetv2_100] [--skip-tuning]

On the pets (37 breeds), for every image base model of the shared weights: the scores see 500 training rows, "probe" is the
accuracy on the test rows of a head solved on all training rows, "tuned" that of the network fine-tuned from the solved head on
same rows: the last stages that the number of rows allows, the default recipe, the trained weights as they are (no way back to
the solved ones, nothing chosen by any row). Spearman's correlation over base models.
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

from headstart.backbones import Backbone, open_backbone
from headstart.core.progress import Progress
from headstart.data import Dataset, open_dataset
from headstart.features import extract_features
from headstart.methods import FeatureExtraction, FineTuning
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


def measure(path: Path, training: Dataset, testing: Dataset, strategy: str) -> dict[str, Any]:
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
    if strategy:
        result |= tune(backbone, training, testing, strategy)
    return result


def tune(backbone: Backbone, training: Dataset, testing: Dataset, strategy: str) -> dict[str, Any]:
    """Fine-tune from the solved head, as long as the default recipe says, and return the accuracy on the test rows."""
    torch.set_num_threads(1)
    done = FineTuning(strategy=strategy, validation=0.0, mix=1.0).fit(training, backbone, progress=Progress())
    answers = done.model.predict(testing.unlabelled(), store=False, progress=Progress(quiet=True))
    return {
        "tuned": float(np.mean(answers.scores.argmax(1) == testing.targets)),
        "tuned_epochs": done.history.epochs,
        "tuned_cpu_seconds": done.cpu_seconds,
        "tuned_plan": done.plan_reason,
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
    parser.add_argument("--strategy", default="auto")
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
            results[name] = measure(path, training, testing, "" if arguments.skip_tuning else arguments.strategy)
            print(name, json.dumps(results[name]), flush=True)
    table = correlations(results)
    for name, row in table.items():
        print(f"{name:10s}", "  ".join(f"{goal} {value:+.2f}" for goal, value in row.items()))
    store_result(RESULTS, "pets", {"base_models": results, "spearman": table})


if __name__ == "__main__":
    main()
