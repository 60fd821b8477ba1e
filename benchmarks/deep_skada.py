"""Deep methods of skada beside ours: the same features, rows, layers, steps, batches and rates; accuracy and CPU seconds.

    python benchmarks/deep_skada.py [--only digits,heart,pacs] [--rows 300] [--steps 200] [--seeds 1]

skada and skorch are installed for this script alone (`pip install skada skorch`). Both sides: rows brought on one scale by the
source, one hidden layer of 256 units (tables: two of 64) and a linear head, AdamW (1e-3, decay 0.01), 64 rows of each domain a
step, the method's constants as each library sets them, answers after the last step. skada keeps its rate, ours follows a cosine
after a warm-up, as each does when nothing is said. "Source only" is each library's own network without adaptation.
Needs the shared data (HEADSTART_SHARED). One thread, both sides in one process, in turn.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from adaptation_evidence import TABLES, network
from adaptation_grid import pairs
from record import ROOT, store_result
from shifted_sets import ALL

Matrix = NDArray[Any]
RESULTS = ROOT / "benchmarks" / "results" / "deep_skada.json"
METHODS = {
    "source-only": "SourceOnly",
    "deep-coral": "DeepCoral",
    "dan": "DAN",
    "dann": "DANN",
    "cdan": "CDAN",
    "deep-jdot": "DeepJDOT",
    "mcc": "MCC",
    "mdd": "MDD",
}


class _Layers(nn.Module):
    """Hidden layers and a head, as skada's networks call them."""

    def __init__(self, num_columns: int, width: int, num_classes: int, table: bool) -> None:
        super().__init__()
        second = [nn.Linear(width, width), nn.ReLU()] if table else []
        self.hidden = nn.Sequential(nn.Linear(num_columns, width), nn.ReLU(), *second)
        self.head = nn.Linear(width, num_classes)

    def forward(self, rows: torch.Tensor, sample_weight: Any = None) -> torch.Tensor:
        """Return logits."""
        return torch.as_tensor(self.head(self.hidden(rows)))


def theirs(name: str, table: bool, source: Matrix, codes: Matrix, target: Matrix, steps: int, seed: int) -> Matrix:
    """Train skada's network and return class numbers of the target rows."""
    from skada import deep

    torch.manual_seed(seed)
    num_classes, width = int(codes.max()) + 1, 64 if table else 256
    module = _Layers(source.shape[1], width, num_classes, table)
    more: dict[str, Any] = {"num_features": width} if name in {"DANN", "CDAN", "MDD"} else {}
    if name in {"CDAN", "MDD"}:
        more["n_classes"] = num_classes
    batches = max(1, max(len(source), len(target)) // 64)
    fitted = getattr(deep, name)(
        module,
        layer_name="hidden",
        batch_size=128,  # half of each domain
        max_epochs=math.ceil(steps / batches),
        train_split=None,
        optimizer=torch.optim.AdamW,
        lr=1e-3,
        optimizer__weight_decay=0.01,
        verbose=0,
        **more,
    )
    rows = np.concatenate([source, target]).astype(np.float32)
    labels = np.concatenate([codes, np.full(len(target), -1)]).astype(np.int64)
    domain = np.concatenate([np.ones(len(source)), np.full(len(target), -2)]).astype(np.int64)
    fitted.fit(rows, labels, sample_domain=domain)
    return np.asarray(
        fitted.predict(target.astype(np.float32), sample_domain=np.full(len(target), -2), allow_source=True)
    )


def on_one_scale(source: Matrix, target: Matrix, table: bool) -> tuple[Matrix, Matrix]:
    """Return both domains less the source's mean, over its spread: of each column of a table, one number otherwise."""
    centre = source.mean(axis=0)
    spread = source.std(axis=0) if table else np.sqrt(np.square(source - centre).mean())
    spread = np.where(spread > 0, spread, 1.0)
    return (source - centre) / spread, (target - centre) / spread


def one_pair(pair: Any, name: str, steps: int, seed: int) -> dict[str, dict[str, list[float]]]:
    """Return accuracy and CPU seconds of both sides for every method."""
    _, source, numbers, target, truth = pair
    present, codes = np.unique(numbers, return_inverse=True)
    right = np.where(np.isin(truth, present), np.searchsorted(present, truth), -1)
    scaled = on_one_scale(source, target, name in TABLES)
    found: dict[str, dict[str, list[float]]] = {}
    for method, their_name in METHODS.items():
        started = time.process_time()
        try:
            answers = network(method, name, steps, seed).fit(source, codes, target).predict(target)
            ours = [float((answers == right).mean()), time.process_time() - started]
        except Exception as error:
            print(f"{pair[0]} {method}: ours broke off: {str(error)[:100]}", flush=True)
            ours = [math.nan, math.nan]
        started = time.process_time()
        try:
            answers = theirs(their_name, name in TABLES, scaled[0], codes, scaled[1], steps, seed)
            other = [float((answers == right).mean()), time.process_time() - started]
        except Exception as error:
            print(f"{pair[0]} {method}: skada's broke off: {type(error).__name__} {str(error)[:200]}", flush=True)
            other = [math.nan, math.nan]
        found[method] = {"ours": ours, "skada": other}
    return found


def main() -> None:
    """Measure both, print and store means."""
    parser = argparse.ArgumentParser(description="skada's deep methods and ours.")
    parser.add_argument("--only", default="digits,heart,pacs")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in arguments.only.split(","):
        runs = [
            one_pair(pair, name, arguments.steps, seed)
            for seed in range(arguments.seeds)
            for pair in pairs(name, ALL[name](), arguments.rows, seed)
        ]
        summary = {}
        for method in METHODS:
            sides = {side: np.nanmean([run[method][side] for run in runs], axis=0) for side in ("ours", "skada")}
            broken = {side: sum(math.isnan(run[method][side][0]) for run in runs) for side in sides}
            summary[method] = {
                side: {"accuracy": float(one[0]), "cpu_seconds": float(one[1]), "broke_off": broken[side]}
                for side, one in sides.items()
            }
            line = "   ".join(f"{side} {100 * one[0]:5.1f} % {one[1]:5.2f} CPU s" for side, one in sides.items())
            print(f"{name:12s} {method:12s} {line}   ratio {sides['skada'][1] / sides['ours'][1]:.1f}", flush=True)
        store_result(RESULTS, name, {"methods": summary, "pairs": len(runs), "steps": arguments.steps})


if __name__ == "__main__":
    main()
