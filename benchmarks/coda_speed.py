"""CODA on wide rows: CPU seconds of one fit on one thread, and what it answers.

    python benchmarks/coda_speed.py [--name NAME] [--only made,surf,reviews]

made      300 + 300 rows of 1,280 features at least 0, seven classes; a tenth of the features tells each class apart, twenty
          directions mix all of them, the target is moved
surf      Office-Caltech-10, amazon (958 rows) to webcam (295), 800 SURF counts prepared as in `office_caltech.py`, ten classes
reviews   Amazon, books to electronics, 2,000 + 2,000 sparse rows of 5,000 words, log(1 + count), two classes

Entries are stored under NAME, so that two versions of the library stand beside each other.
Needs the shared data (HEADSTART_SHARED). One thread.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from amazon_reviews import rows
from headstart.alignment import CODA
from office_caltech import load
from record import ROOT, store_result

RESULTS = ROOT / "benchmarks" / "results" / "coda_speed.json"
SHARED = Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared")) / "data"
Job = tuple[Any, np.ndarray, Any, np.ndarray]


def made() -> Job:
    """Return rows shaped like a network's last layer."""
    draws = np.random.default_rng(0)
    num_rows, width, num_classes = 300, 1280, 7
    labels, truth = draws.integers(0, num_classes, num_rows), draws.integers(0, num_classes, num_rows)
    centres = draws.normal(size=(num_classes, width)) * (draws.random((num_classes, width)) < 0.1) * 0.8
    mixing = draws.normal(size=(20, width)) * 0.5
    source, target = (
        centres[codes] + draws.normal(size=(num_rows, width)) + draws.normal(size=(num_rows, 20)) @ mixing
        for codes in (labels, truth)
    )
    return np.maximum(source, 0), labels, np.maximum(target + 0.5 * draws.normal(size=width), 0), truth


def surf() -> Job:
    """Return amazon and webcam."""
    domains = load(SHARED / "surf_office_caltech10")
    return *domains["A"], *domains["W"]


def reviews() -> Job:
    """Return books and electronics."""
    stored = np.load(SHARED / "text_amazon_dann" / "amazon_dann.npz")
    return *rows(stored, "books", "train"), *rows(stored, "electronics", "train")


JOBS: dict[str, Callable[[], Job]] = {"made": made, "surf": surf, "reviews": reviews}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="now")
    parser.add_argument("--only", default=",".join(JOBS))
    options = parser.parse_args()
    results = {}
    with threadpool_limits(1):
        for job in options.only.split(","):
            source, labels, target, truth = JOBS[job]()
            start = time.process_time()
            model = CODA().fit(source, labels, target)
            results[job] = {
                "cpu_seconds": round(time.process_time() - start, 2),
                "accuracy": round(100 * float(model.score(target, truth)), 2),
                "features_of_both_views": model.num_features_,
                "features_of_the_answer": int(np.any(model.coef_, axis=1).sum()),
                "constraints_after_the_last_round": [round(value, 6) for value in model.constraints_[-1]],
            }
            print(job, results[job], flush=True)
    store_result(RESULTS, options.name, {"threads": 1, "runs": 1, "jobs": results})


if __name__ == "__main__":
    main()
