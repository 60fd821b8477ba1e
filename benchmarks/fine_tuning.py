"""Fine-tuning against the solved head and from scratch on real data, over seeds: does it beat what it starts from?

    python benchmarks/fine_tuning.py [--only pets_breeds,trec] [--seeds 3] [--strategy auto] [--scratch-seconds 60]
                                     [--no-refit] [--keep FOLDER] [--first-seed 0]

With ``--keep`` the answers of every seed are kept in a folder, and a seed that is there is read and not run: a long run can be
broken off, or shared by processes. ``--no-refit`` judges the network that learnt without the rows set aside, which costs half.

Needs the shared data (HEADSTART_SHARED, default ../shared). Each seed draws its own split where the data has no test part, its
own folds, order of rows and starting weights. All three methods learn from the same training rows and answer the same test rows;
the recipe is the default one for the modality and number of rows. Intervals are bootstraps of the test rows, pooled over seeds,
each row of the data drawn with all its answers; "difference" is that of fine-tuned minus solved. From scratch gets as much CPU
time as fine-tuning took, at most ``--scratch-seconds``.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from accuracy import DATA, JOBS, Job
from headstart.backbones import Backbone, open_backbone
from headstart.catalog import entries
from headstart.core.progress import Progress
from headstart.data import Dataset, check_dataset, open_dataset, split_dataset
from headstart.features import extract_features
from headstart.methods import FeatureExtraction, FineTuning, FromScratch
from record import ROOT, store_result

RESULTS = ROOT / "benchmarks" / "results" / "fine_tuning.json"


def _office_caltech() -> tuple[Any, dict[str, Any]]:
    """All four domains pooled."""
    import pandas as pd

    folder = DATA / "office_caltech10" / "images"
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    frame = pd.DataFrame({"image": [str(path) for path in files], "label": [path.parent.name for path in files]})
    return frame, {"image": "image", "label": "label"}


CHOSEN: dict[str, Job] = {
    **{name: JOBS[name][0] for name in ("pets_breeds", "hymenoptera", "pacs_photo")},
    "office_caltech": _office_caltech,
    **{name: JOBS[name][0] for name in ("trec", "sst2")},
}


@dataclass
class Tally:
    """Whether each method was right on each test row, seed by seed."""

    rows: list[NDArray[np.int64]] = field(default_factory=list)
    right: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)
    cpu_seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, method: str, right_n: NDArray[np.bool_], cpu_seconds: float) -> None:
        self.right.setdefault(method, []).append(right_n.astype(np.float64))
        self.cpu_seconds.setdefault(method, []).append(round(cpu_seconds, 1))

    def figures(self) -> dict[str, Any]:
        """Return every method's mean accuracy with its interval, and the differences from the solved head."""
        values = {name: self._interval(parts) for name, parts in self.right.items()}
        gaps = {
            f"{name} - solved": self._interval([a - b for a, b in zip(parts, self.right["solved"], strict=True)])
            for name, parts in self.right.items()
            if name != "solved"
        }
        each = {name: [float(part.mean()) for part in parts] for name, parts in self.right.items()}
        return {"accuracy": values, "difference": gaps, "by_seed": each, "cpu_seconds": self.cpu_seconds}

    def _interval(self, parts: list[NDArray[np.float64]], draws: int = 2000) -> dict[str, float]:
        """Draw rows of the data, not answers: the same row asked under several seeds is one row."""
        rows, answers = np.concatenate(self.rows), np.concatenate(parts)
        _, place = np.unique(rows, return_inverse=True)
        sums, counts = np.bincount(place, answers), np.bincount(place)
        weights_bn = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=draws)
        drawn = (weights_bn @ sums) / (weights_bn @ counts)
        low, high = np.quantile(drawn, [0.025, 0.975])
        return {"value": float(answers.mean()), "low": float(low), "high": float(high)}


def split(data: Dataset, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return training and test rows; validation rows the data brings join the training rows."""
    if data.given_split is not None and (data.given_split == "test").any():
        return np.flatnonzero(data.given_split != "test"), np.flatnonzero(data.given_split == "test")
    parts = split_dataset(data, test=0.2, seed=seed, duplicate_group=check_dataset(data).duplicate_group)
    return np.sort(np.concatenate([parts.train, parts.validation])), parts.test


def compare(data: Dataset, backbone: Backbone, seed: int, arguments: argparse.Namespace, tally: Tally) -> str:
    """Let the three methods answer one split; return what was said about the strategy."""
    learning, testing = split(data, seed)
    training, test = data.subset(learning), data.subset(testing)
    assert training.targets is not None and training.task is not None and test.targets is not None
    tally.rows.append(testing)
    quiet = Progress(quiet=True)
    started = time.process_time()
    features = extract_features(training, backbone, progress=quiet)
    solved = FeatureExtraction(seed=seed).fit(backbone, features, training.targets[features.kept], training.task)
    tally.add(
        "solved", _right(solved.predict(test.unlabelled(), progress=quiet).scores, test), time.process_time() - started
    )
    tuned = FineTuning(strategy=arguments.strategy, refit=arguments.refit, seed=seed).fit(
        training, backbone, progress=Progress()
    )
    answers = tuned.model.predict(test.unlabelled(), store=False, progress=quiet)
    tally.add("fine-tuned", _right(answers.scores, test), tuned.cpu_seconds)
    if arguments.scratch_seconds > 0:
        seconds = min(tuned.cpu_seconds, arguments.scratch_seconds)
        scratch = FromScratch(cpu_seconds=seconds, seed=seed).fit(training, backbone, progress=Progress())
        tally.add("scratch", _right(scratch.predict(test.unlabelled(), progress=quiet), test), seconds)
    return tuned.plan_reason


def _kept(key: str, seed: int, arguments: argparse.Namespace, tally: Tally, run: Callable[[Tally], str]) -> str:
    """Add one seed to the tally: from the folder where it is kept, by running it otherwise."""
    name = re.sub(r"\W+", "_", f"{key} {seed} {arguments.refit}")
    file = None if arguments.keep is None else arguments.keep / f"{name}.npz"
    if file is None or not file.is_file():
        alone = Tally()
        reason = run(alone)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            about = json.dumps({"reason": reason, "cpu_seconds": alone.cpu_seconds})
            right = {f"right {method}": parts[0] for method, parts in alone.right.items()}
            np.savez(file, rows=alone.rows[0], about=np.array(about), **right)  # type: ignore[arg-type]
    else:
        alone = Tally()
        with np.load(file) as known:
            about = json.loads(str(known["about"]))
            reason, alone.cpu_seconds = about["reason"], about["cpu_seconds"]
            alone.rows = [known["rows"]]
            alone.right = {part.removeprefix("right "): [known[part]] for part in known if part.startswith("right ")}
    tally.rows += alone.rows
    for method, parts in alone.right.items():
        tally.right.setdefault(method, []).extend(parts)
        tally.cpu_seconds.setdefault(method, []).extend(alone.cpu_seconds[method])
    return str(reason)


def _right(scores_nk: NDArray[Any], rows: Dataset) -> NDArray[np.bool_]:
    return np.asarray(scores_nk.argmax(axis=1) == rows.targets)


def measure(name: str, arguments: argparse.Namespace) -> None:
    """Run one data set over all seeds, keeping the result after each."""
    source, options = CHOSEN[name]()
    data = open_dataset(source, **{key: value for key, value in options.items() if key != "test"})
    assert data.task is not None
    default = next(item.name for item in entries("backbone") if item.modality == data.modality and item.installed)
    backbone, tally = open_backbone(default), Tally()
    about = {"backbone": default, "strategy": arguments.strategy, "rows": len(data)}
    key = name if arguments.strategy == "auto" else f"{name} ({arguments.strategy})"
    about["refit"] = arguments.refit
    for count, seed in enumerate(range(arguments.first_seed, arguments.first_seed + arguments.seeds)):
        reason = _kept(
            key, seed, arguments, tally, lambda one, seed=seed: compare(data, backbone, seed, arguments, one)
        )
        figures = tally.figures()
        store_result(RESULTS, key, {**about, "reason": reason, "seeds": count + 1, **figures})
    for method, value in figures["accuracy"].items():
        shown = " ".join(f"{100 * part:.1f}" for part in figures["by_seed"][method])
        seconds = np.mean(figures["cpu_seconds"][method])
        print(
            f"{name:15s} {method:11s} {100 * value['value']:5.1f} ({100 * value['low']:.1f} to {100 * value['high']:.1f})  "
            f"seeds {shown}  {seconds:.0f} CPU s",
            flush=True,
        )
    for what, value in figures["difference"].items():
        print(
            f"{name:15s} {what}: {100 * value['value']:+.1f} ({100 * value['low']:+.1f} to {100 * value['high']:+.1f})"
        )


def main() -> None:
    """Measure all, or those named."""
    parser = argparse.ArgumentParser(description="Fine-tuning against the solved head and from scratch.")
    parser.add_argument("--only", default="")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--scratch-seconds", type=float, default=60)
    parser.add_argument("--refit", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--first-seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in [name for name in arguments.only.split(",") if name] or list(CHOSEN):
        measure(name, arguments)


if __name__ == "__main__":
    main()
