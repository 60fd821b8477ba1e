"""Office-Caltech-10 under the protocol of the geodesic flow kernel's paper: 20 draws of a few source rows, all target rows.

    python benchmarks/office_caltech_splits.py

Gong et al. (CVPR 2012): 20 source rows a class, 8 where the source is webcam or dslr, drawn 20 times; one nearest neighbour.
Rows as in `office_caltech.py`. Needs the shared data (HEADSTART_SHARED). One thread.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from headstart.alignment import GFK, AdaptedClassifier
from office_caltech import RESULTS, TASKS, accuracy, load, nearest
from record import ROOT, store_result

NUM_SPLITS = 20


def draw(labels: np.ndarray, each: int, seed: int) -> np.ndarray:
    """Return places of ``each`` rows of every class."""
    draws = np.random.default_rng(seed)
    return np.concatenate([draws.permutation(np.flatnonzero(labels == label))[:each] for label in np.unique(labels)])


def main() -> None:
    """Measure, print, store."""
    shared = Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared"))
    domains = load(shared / "data" / "surf_office_caltech10")
    aligners = {"1NN": None, "GFK, 10 dimensions": GFK(10), "GFK, 20 dimensions": GFK(20)}
    results: dict[str, Any] = {name: {} for name in aligners}
    with threadpool_limits(1):
        for task in TASKS:
            (source, labels), target = domains[task[0]], domains[task[1]]
            for name, aligner in aligners.items():
                found = []
                for seed in range(NUM_SPLITS):
                    rows = draw(labels, 8 if task[0] in "WD" else 20, seed)
                    model = AdaptedClassifier(aligner, nearest()).fit(source[rows], labels[rows], target[0])
                    found.append(accuracy(model, *target))
                error = float(np.std(found) / np.sqrt(NUM_SPLITS))
                results[name][task] = [round(float(np.mean(found)), 1), round(error, 1)]
            print(task, {name: tasks[task] for name, tasks in results.items()}, flush=True)
    for tasks in results.values():
        tasks["mean"] = round(float(np.mean([tasks[task][0] for task in TASKS])), 1)
    store_result(RESULTS, "splits_protocol", results)


if __name__ == "__main__":
    main()
