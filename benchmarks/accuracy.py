"""`fit` with its defaults on real data sets, beside majority, raw input, from scratch, and published figures.

    python benchmarks/accuracy.py [--only pets_breeds,sst2] [--out benchmarks/results/accuracy.json]

Needs the shared data (HEADSTART_SHARED, default ../shared). Every figure is on sealed test rows: the data's own test part where
it has one, a seeded fifth otherwise. CPU seconds are of the whole run, the baselines' training included.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import headstart
from headstart.core.progress import Progress
from record import ROOT, store_result

DATA = Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared")) / "data"
Job = Callable[[], tuple[Any, dict[str, Any]]]


def _folder(name: str, **options: Any) -> Job:
    return lambda: (DATA / name, options)


def _frame(path: str, text: str, label: str, split: str | None = None, keep: str | None = None) -> Job:
    def make() -> tuple[Any, dict[str, Any]]:
        frame = pd.read_parquet(DATA / path)
        if keep is not None:
            frame = frame.query(keep)
        options = {"text": text, "label": label} | ({"split": split} if split else {})
        return frame.astype({label: str}), options

    return make


def _cats_or_dogs() -> tuple[Any, dict[str, Any]]:
    frame = pd.read_csv(DATA / "pets_oxford37" / "labels.csv")
    frame["file"] = [str(DATA / "pets_oxford37" / name) for name in frame["file"]]
    return frame, {"image": "file", "label": "species", "split": "split"}


def _mnist() -> tuple[Any, dict[str, Any]]:
    with np.load(DATA / "digits" / "mnist_t10k.npz") as digits:
        rows = np.random.default_rng(0).permutation(len(digits["images"]))[:3000]
        return digits["images"][rows], {"labels": digits["labels"][rows], "test": 2 / 3}


JOBS: dict[str, tuple[Job, str]] = {
    "pets_breeds": (_folder("pets_oxford37"), "probe of EfficientNet-Lite0 88.4"),
    "pets_species": (_cats_or_dogs, "MobileNetV2 trained on cats_vs_dogs 98.1"),
    "cats_vs_dogs": (_folder("cats_vs_dogs"), "MobileNetV2 probe 97.0"),
    "hymenoptera": (_folder("hymenoptera"), "PyTorch tutorial about 95; probes 85.6 to 96.7"),
    "pacs_photo": (_folder("pacs_subset/photo"), "none in the domain"),
    "pacs_sketch": (_folder("pacs_subset/sketch"), "none in the domain"),
    "digits_mnist": (_mnist, "pixels with a linear model 90.7 (all rows)"),
    "sst2": (
        _frame("text_sentence_cls/sst2.parquet", "text", "label", "split"),
        "MiniLM probe 81.7; Kim 2014 87.2; BERT 93.5",
    ),
    "trec": (_frame("text_sentence_cls/trec.parquet", "text", "coarse", "split"), "MiniLM probe 90.4; Kim 2014 93.6"),
    "sms_spam": (_frame("text_sms_spam/sms_spam.parquet", "text", "label"), "MiniLM probe 98.4; published 97.64"),
    "clinc150": (
        _frame("text_clinc150/clinc150.parquet", "text", "intent", "split", "in_scope"),
        "MiniLM probe 95.5; BERT 96.9 in scope",
    ),
}


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Run one job and return its figures."""
    job, published = JOBS[name]
    source, options = job()
    run = headstart.fit(source, out=folder / name, progress=Progress(), **options)
    report = run.report
    accuracy = report.evaluation.metrics["accuracy"]
    print(f"{name}: {run.verdict}", flush=True)
    return {
        "rows": {"train": report.rows.train, "test": report.rows.test, "quarantined": report.rows.quarantined},
        "classes": len(report.task.classes),
        "accuracy": accuracy.to_dict(),
        "baselines": {item.name: item.evaluation.metrics["accuracy"].value for item in report.baselines},
        "scratch_budget": next((item.budget for item in report.baselines if item.name == "scratch"), ""),
        "published": published,
        "verdict": report.verdict.text,
        "head": run.model.head.kind,
        "runtime": run.model.runtime,
        "cpu_seconds": report.cost.cpu_seconds,
    }


def main() -> None:
    """Measure all, or those named."""
    parser = argparse.ArgumentParser(description="Accuracy of fit with defaults on real data.")
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "accuracy.json")
    arguments = parser.parse_args()
    names = [name for name in arguments.only.split(",") if name] or list(JOBS)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            store_result(arguments.out, name, measure(name, Path(folder)))


if __name__ == "__main__":
    main()
