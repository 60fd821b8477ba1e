"""Adapting regressors: every aligner that serves one, every rule that judges numbers, on pairs of domains of four data sets.

    python benchmarks/adaptation_of_numbers.py

R2 on all target rows, ridge regression (penalty by the source's own rows) behind every aligner. Gains are against "do not adapt",
in points of R2 clipped at -1, since a runaway candidate would outweigh the rest. A rule's gain is that of its choice among the
candidates named; its margin is what a candidate must score more than "do not adapt". At most 200 rows a domain, one draw.
Pairs: highest heart rate across 4 hospitals; quality and alcohol of red and white wines; oil temperature of two transformers and
of summer and winter; weekly hours of women and men.
Needs the shared data (HEADSTART_SHARED). One thread.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headstart.catalog import entries
from headstart.core.errors import HeadstartError
from headstart.evaluation.selection import FailedCandidate, select
from headstart.features.scale import FeatureScale
from headstart.metrics import r2
from headstart.workflow.adaptations import NO_ADAPTATION
from headstart.workflow.value_adaptations import try_value_candidates
from headstart.workflow.value_candidates import (
    VALUE_CANDIDATES,
    base_regressor,
    make_value_candidates,
    value_aligners,
)
from record import ROOT, store_result

DATA = Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared")) / "data"
RESULTS = ROOT / "benchmarks" / "results" / "adaptation_of_numbers.json"
MOST_ROWS = 200
MARGINS = (0.0, 0.02, 0.05, 0.1, 0.2)
Pair = tuple[str, NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


def some(table: pd.DataFrame, label: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return features and numbers of at most 200 rows."""
    table = table.dropna(subset=[label])
    rows = np.sort(np.random.default_rng(0).permutation(len(table))[:MOST_ROWS])
    table = table.iloc[rows]
    return table.drop(columns=label).to_numpy(float), table[label].to_numpy(float)


def both_ways(name: str, tables: dict[str, pd.DataFrame], label: str) -> Iterator[Pair]:
    for one, other in itertools.permutations(tables, 2):
        (source, values), (target, truth) = some(tables[one], label), some(tables[other], label)
        yield f"{name}|{one}>{other}", source, values, target, truth


def pairs() -> Iterator[Pair]:
    """Yield name, source rows, their numbers, target rows, and the numbers that choose nothing."""
    heart = pd.read_csv(DATA / "tab_heart4" / "heart4.csv").drop(columns=["num", "ca", "thal", "chol", "slope", "fbs"])
    hospitals = {str(name): part.drop(columns="hospital") for name, part in heart.groupby("hospital")}
    hospitals = {name: part.fillna(part.median()) for name, part in hospitals.items()}
    yield from both_ways("heart", hospitals, "thalach")
    wine = pd.read_parquet(DATA / "tab_wine_quality" / "wine_quality.parquet")
    colours = {str(name): part.drop(columns="color") for name, part in wine.groupby("color")}
    for label in ("quality", "alcohol"):
        yield from both_ways(f"wine {label}", colours, label)
    transformers = {name: pd.read_csv(DATA / "ts_ett" / f"{name}.csv.gz") for name in ("ETTh1", "ETTh2")}
    yield from both_ways("ett", {name: part.drop(columns="date") for name, part in transformers.items()}, "OT")
    for name, table in transformers.items():
        month = pd.to_datetime(table["date"]).dt.month
        seasons = {"summer": table[month.between(5, 9)], "winter": table[~month.between(4, 10)]}
        yield from both_ways(f"ett {name}", {key: part.drop(columns="date") for key, part in seasons.items()}, "OT")
    adult = pd.read_parquet(DATA / "tab_adult" / "adult.parquet").select_dtypes("number").dropna()
    sexes = pd.read_parquet(DATA / "tab_adult" / "adult.parquet").loc[adult.index, "sex"]
    hours = next(name for name in adult.columns if "hours" in name)
    yield from both_ways("adult", {str(name): part for name, part in adult.groupby(sexes)}, hours)


def measure(pair: Pair) -> dict[str, Any]:
    """Return R2 and seconds of every candidate, and the score every rule gives it."""
    _, source, values, target, truth = pair
    scale = FeatureScale.standardising(source)
    source, target = scale(source.astype(np.float32)), scale(target.astype(np.float32))
    rules = {entry.name: entry.load()().for_values() for entry in entries("rule")}
    rules = {name: rule for name, rule in rules.items() if rule is not None}
    needs = frozenset[str]().union(*(need for rule in rules.values() for need in rule.needs[:1]))
    candidates = make_value_candidates(value_aligners(), base_regressor(source, values))
    rivals = try_value_candidates(candidates, source, values, target, needs=needs)
    evidence = {rival.name: rival.evidence for rival in rivals}
    scores = {
        name: {
            key: score.value
            for key, score in select(evidence, rule, no_adaptation=NO_ADAPTATION).scores.items()
            if score.is_judged
        }
        for name, rule in rules.items()
    }
    return {
        "r2": {rival.name: r2(truth, rival.fitted.target_scores) for rival in rivals if rival.fitted is not None},
        "seconds": {rival.name: round(rival.cpu_seconds, 2) for rival in rivals},
        "failed": {name: item.reason[:120] for name, item in evidence.items() if isinstance(item, FailedCandidate)},
        "scores": scores,
    }


def gains_of(found: dict[str, Any]) -> dict[str, float]:
    kept = {name: max(value, -1.0) for name, value in found["r2"].items()}
    return {name: value - kept[NO_ADAPTATION] for name, value in kept.items()}


def summary(table: dict[str, Any]) -> dict[str, Any]:
    """Return mean gains by candidate, and by rule, margin and set of candidates."""
    gains = {name: gains_of(found) for name, found in table.items()}
    by_candidate = {}
    for candidate in value_aligners():
        of = [gain.get(candidate, 0.0) for gain in gains.values()]
        sets = {part: [] for part in sorted({name.split("|")[0].split()[0] for name in gains})}
        for name, gain in gains.items():
            sets[name.split("|")[0].split()[0]].append(gain.get(candidate, 0.0))
        by_candidate[candidate] = {
            "gain": round(float(np.mean(of)), 4),
            "median": round(float(np.median(of)), 4),
            "better": round(float(np.mean([value > 0.005 for value in of])), 3),
            "worse": round(float(np.mean([value < -0.005 for value in of])), 3),
            "worst": round(float(min(of)), 4),
            "by_set": {part: round(float(np.mean(values)), 4) for part, values in sets.items()},
        }
    by_rule = {}
    for which, names in {"all": value_aligners(), "default": VALUE_CANDIDATES}.items():
        for rule, margin in itertools.product(next(iter(table.values()))["scores"], MARGINS):
            chosen = []
            for pair, found in table.items():
                scores = {name: found["scores"][rule].get(name, -np.inf) for name in (NO_ADAPTATION, *names)}
                best = max(names, key=lambda name: scores[name])
                chosen.append(gains[pair].get(best, 0.0) if scores[best] > scores[NO_ADAPTATION] + margin else 0.0)
            by_rule[f"{which}|{rule}|{margin}"] = {
                "gain": round(float(np.mean(chosen)), 4),
                "better": round(float(np.mean([value > 0.005 for value in chosen])), 3),
                "worse": round(float(np.mean([value < -0.005 for value in chosen])), 3),
                "worst": round(float(min(chosen)), 4),
            }
        oracle = [max(0.0, *(gain.get(name, 0.0) for name in names)) for gain in gains.values()]
        by_rule[f"{which}|oracle"] = {"gain": round(float(np.mean(oracle)), 4)}
    source_only = {name: round(found["r2"][NO_ADAPTATION], 3) for name, found in table.items()}
    return {"pairs": len(table), "source_only": source_only, "candidates": by_candidate, "rules": by_rule}


def main() -> None:
    started, table = time.process_time(), {}
    for pair in pairs():
        try:
            table[pair[0]] = measure(pair)
        except HeadstartError as error:
            print(pair[0], error)
            continue
        best = max(gains_of(table[pair[0]]).items(), key=lambda item: item[1])
        print(f"{pair[0]:32s} {table[pair[0]]['r2'][NO_ADAPTATION]:7.3f}  {best[0]} {best[1]:+.3f}", flush=True)
    found = summary(table)
    for name, line in {**found["candidates"], **found["rules"]}.items():
        print(f"{name:40s} {line}")
    store_result(RESULTS, "grid", {**found, "cpu_seconds": round(time.process_time() - started, 1)})


if __name__ == "__main__":
    main()
