"""Networks trained for another domain, every method beside source-only and "do not adapt": what each gains, what is chosen.

    python benchmarks/deep_adaptation.py [--only digits,pacs] [--methods mcc,dann] [--rows 500] [--seeds 3] [--steps 300]
                                         [--no-choose] [--summary]

For every ordered pair of domains (`adaptation_grid.SETS`, and MNIST to MNIST on photo patches) and every seed, which draws the
rows, the starting weights and the order: `AdaptedNetwork` on the same features with the same layers, steps and rates for every
method, at its defaults. Accuracies are those of the last step: nothing of the target chose anything. The default rule of
`headstart adapt` chooses among "do not adapt" and the methods by going there and back, without target labels; the oracle, the
best method on the labels, is unreachable. Each pair is kept as it comes, and what is there is not run again; the summary is made
from what is there. Needs the shared data (HEADSTART_SHARED). One thread.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adaptation_grid import DATA, SETS, Domains, pairs
from headstart.catalog import entries, read_recipe
from headstart.evaluation.selection import CandidateEvidence, CircularTest, select
from headstart.methods import AdaptedNetwork
from headstart.workflow.adaptations import NO_ADAPTATION, base_classifier, make_candidates, try_candidates
from headstart.workflow.network_rivals import FittedNetwork
from record import ROOT, store_result

RESULTS = ROOT / "benchmarks" / "results" / "deep_adaptation.json"
SOURCE_ONLY = "source-only"
TABLES = {"heart", "wine"}
LEFT_OUT = {"mnist-m>mnist"}
# recipes that are for several sources, labelled target rows or other sets of classes have no place among pairs
ELSEWHERE = {
    "multi-domain-dann",
    "m3sda",
    "mdan",
    "mme",
    "osbp",
    "erm",
    "dg-coral",
    "groupdro",
    "irm",
    "vrex",
    "mixstyle",
}


def mnist_m() -> Domains:
    """MNIST at 28 x 28 in three channels, and other digits of it on patches of photographs."""
    from shifts import digits_on_photos, photos

    with np.load(DATA / "digits" / "mnist_t10k.npz") as stored:
        images, labels = stored["images"], stored["labels"].astype(np.int64)
    plain = np.repeat(images[:2000, ..., None], 3, axis=3).reshape(2000, -1)
    patched = digits_on_photos(images[2000:4000], photos()).reshape(2000, -1)
    return {"mnist": (plain / 255.0, labels[:2000]), "mnist-m": (patched / 255.0, labels[2000:4000])}


ALL = {**SETS, "mnist_m": mnist_m}


def network(method: str, name: str, steps: int, seed: int) -> AdaptedNetwork:
    """Return the network of one method; the same for all but what it minimises."""
    table = name in TABLES
    return AdaptedNetwork(
        read_recipe(method),
        layers="dense64-relu-dense64-relu" if table else "dense256-relu",
        scaling="columns" if table else "whole",
        num_steps=steps,
        seed=seed,
    )


def one_pair(
    pair: tuple[str, NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]],
    name: str,
    methods: list[str],
    arguments: argparse.Namespace,
    seed: int,
) -> dict[str, Any]:
    """Return accuracies of all methods on one pair, and what the rule chose."""
    _, source, numbers, target, truth = pair
    present, codes = np.unique(numbers, return_inverse=True)
    right = np.where(np.isin(truth, present), np.searchsorted(present, truth), -1)
    needs = CircularTest().wants if arguments.choose else frozenset[str]()
    base = base_classifier(source, codes, seed=seed)
    rivals = try_candidates(make_candidates([], base), source, codes, target, needs=needs, seed=seed)
    candidates = {method: network(method, name, arguments.steps, seed) for method in methods}
    rivals += try_candidates(candidates, source, codes, target, needs=needs, seed=seed, fitted_as=FittedNetwork)
    found: dict[str, Any] = {"accuracy": {}, "cpu_seconds": {}, "failed": {}}
    for rival in rivals:
        if rival.fitted is None:
            found["failed"][rival.name] = getattr(rival.evidence, "reason", "")
            continue
        found["accuracy"][rival.name] = float((rival.fitted.target_scores.argmax(1) == right).mean())
        found["cpu_seconds"][rival.name] = round(rival.cpu_seconds, 2)
    if arguments.choose:
        evidence = {rival.name: rival.evidence for rival in rivals if isinstance(rival.evidence, CandidateEvidence)}
        found["chosen"] = select(evidence, CircularTest(), no_adaptation=NO_ADAPTATION).chosen
    return found


def measure(name: str, methods: list[str], arguments: argparse.Namespace) -> None:
    """Run one data set, keeping each pair and seed as it comes."""
    for seed in range(arguments.seeds):
        for pair in pairs(name, ALL[name](), arguments.rows, seed):
            if pair[0] in LEFT_OUT:
                continue
            key = f"{name}: {pair[0]}, seed {seed}"
            done = (json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}).get(key, {})
            left = [
                method for method in methods if method not in {**done.get("accuracy", {}), **done.get("failed", {})}
            ]
            if not left:
                continue
            started = time.process_time()
            found = one_pair(pair, name, left, arguments, seed)
            for part in ("accuracy", "cpu_seconds", "failed"):
                found[part] = {**done.get(part, {}), **found[part]}
            store_result(RESULTS, key, {"rows": [len(pair[1]), len(pair[3])], "steps": arguments.steps, **found})
            print(f"{key}: {time.process_time() - started:.0f} CPU s", flush=True)


def summary() -> None:
    """Print gains over source-only and over "do not adapt", data set by data set."""
    known = json.loads(RESULTS.read_text())
    sets = sorted({key.split(":")[0] for key in known})
    methods = sorted({method for value in known.values() for method in value["accuracy"]})
    print(f"{'':22s}" + "".join(f"{name:>12s}" for name in (*sets, "mean", "losses")))
    for method in methods:
        means, losses = [], []
        for name in sets:
            parts = [value["accuracy"] for key, value in known.items() if key.startswith(f"{name}:")]
            gains = [part[method] - part[SOURCE_ONLY] for part in parts if method in part and SOURCE_ONLY in part]
            means.append(100 * float(np.mean(gains)) if gains else np.nan)
            losses += [gain < -0.01 for gain in gains]
        shown = "".join(f"{value:+12.1f}" for value in (*means, float(np.nanmean(means))))
        print(f"{method:22s}{shown}{100 * float(np.mean(losses)):11.0f}%")
    chosen = [value for value in known.values() if "chosen" in value]
    if chosen:
        gains = [value["accuracy"][value["chosen"]] - value["accuracy"][NO_ADAPTATION] for value in chosen]
        print(
            f"chosen without target labels over {NO_ADAPTATION}: {100 * float(np.mean(gains)):+.1f} on {len(gains)} runs"
        )


def main() -> None:
    """Measure, or make the summary."""
    parser = argparse.ArgumentParser(description="Deep adaptation on frozen features.")
    parser.add_argument("--only", default="")
    parser.add_argument("--methods", default="")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--choose", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--summary", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.summary:
        every = [entry.name for entry in entries("adaptation") if entry.name not in ELSEWHERE]
        methods = [name for name in arguments.methods.split(",") if name] or every
        for name in [name for name in arguments.only.split(",") if name] or list(ALL):
            measure(name, [SOURCE_ONLY, *(method for method in methods if method != SOURCE_ONLY)], arguments)
    if Path(RESULTS).exists():
        summary()


if __name__ == "__main__":
    main()
