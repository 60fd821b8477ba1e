"""Networks trained for another domain, every method beside source-only, "do not adapt" and what is chosen without labels.

    python benchmarks/adaptation_evidence.py --folder FOLDER --rows 300 --seeds 3 --steps 200 --only-return --methods ...
    python benchmarks/deep_adaptation.py [--folder FOLDER] [--first-seed] [--no-store]

Reads what `adaptation_evidence.py` gathered: for every ordered pair of domains and every seed (which draws the rows, the
starting weights and the order) the answers after the last step of `AdaptedNetwork` on the same features, with the same
layers, steps and rates for every method at its defaults, and those of the aligners among the default candidates. "Selected"
is what the default rule of `headstart adapt` chooses among "do not adapt", the default candidates and their committee, by
going there and back, without target labels. The oracle, the best of all methods on the labels, is unreachable. Which networks
are worth a seat among the default candidates is chosen one by one, and judged on each data set with those chosen on the
others. Intervals are bootstraps of pairs, each drawn with all its seeds. A method counts where every pair and seed has it:
with ``--first-seed`` only the first is read, which may have more. Target labels judge and never choose. One thread, seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptation_evidence import FOLDER, NETWORKS
from gathered_pairs import Pair, load
from headstart.evaluation.selection import CircularTest
from headstart.workflow.adaptations import DEFAULT_CANDIDATES, DEFAULT_NETWORKS, NO_ADAPTATION
from record import ROOT, store_result
from selection_rules import circular_test, line, utility

RESULTS = ROOT / "benchmarks" / "results" / "deep_adaptation.json"
SOURCE_ONLY = "source-only"
Z = CircularTest().num_errors


def answers(pair: Pair, name: str) -> float:
    """Return a candidate's accuracy; NaN where it broke off."""
    part = pair.candidates.get(name)
    return pair.accuracy(part["target"]) if part is not None and "target" in part else float("nan")


def selected(pair: Pair, pool: Sequence[str]) -> float:
    """Return the accuracy of what the default rule chooses, the committee among the candidates."""
    return answers(pair, NO_ADAPTATION) + circular_test(pair, pool, Z)


def interval(pairs: Sequence[Pair], values: Sequence[float], draws: int = 2000) -> tuple[float, float, float]:
    """Return the mean over data sets of the means of pairs, and a 95 % bootstrap interval; pairs are drawn within data sets."""
    random = np.random.default_rng(0)
    groups: dict[str, dict[str, list[float]]] = {}
    for pair, value in zip(pairs, values, strict=True):
        groups.setdefault(pair.data_set, {}).setdefault(pair.name.split("@")[0], []).append(value)
    tables = [np.array([np.nanmean(seeds) for seeds in group.values()]) for group in groups.values()]
    drawn = [
        np.mean([np.nanmean(table[random.integers(len(table), size=len(table))]) for table in tables])
        for _ in range(draws)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.mean([np.nanmean(table) for table in tables])), float(low), float(high)


def side_by_side(pairs: Sequence[Pair], pool: Sequence[str], methods: Sequence[str]) -> dict[str, Any]:
    """Return accuracies: source-only, "do not adapt", selected, the best method at its last step on average, the oracle."""
    best = max(methods, key=lambda name: float(np.nanmean([answers(pair, name) for pair in pairs])))
    columns: dict[str, list[float]] = {
        "source-only network": [answers(pair, SOURCE_ONLY) for pair in pairs],
        "do not adapt": [answers(pair, NO_ADAPTATION) for pair in pairs],
        "selected": [selected(pair, pool) for pair in pairs],
        "selected, aligners alone": [selected(pair, DEFAULT_CANDIDATES) for pair in pairs],
        "oracle": [np.nanmax([answers(pair, name) for name in (NO_ADAPTATION, *pool, *methods)]) for pair in pairs],
    }
    gains = {
        f"{name} - {base}": interval(pairs, [a - b for a, b in zip(columns[name], columns[base], strict=True)])
        for name, base in (
            ("selected", "do not adapt"),
            ("selected", "source-only network"),
            ("selected, aligners alone", "do not adapt"),
            ("oracle", "do not adapt"),
        )
    }
    found = {name: interval(pairs, values) for name, values in columns.items()}
    seeds = len({pair.name.split("@")[1] for pair in pairs})
    return {**found, "best method (in hindsight)": best, "gains": gains, "pairs": len(pairs), "seeds": seeds}


def every_method(pairs: Sequence[Pair], methods: Sequence[str]) -> dict[str, Any]:
    """Return each method's gain over the network that learnt from the source alone, and what the rule makes of it.

    "Selected" is the gain over "do not adapt" where the paired circular test takes the method or leaves it, by the way back that
    needs no second fit of it (a ridge from its answers back to the source), so that all methods are judged alike.
    """
    table = {}
    for name in methods:
        here = [pair for pair in pairs if np.isfinite(answers(pair, name)) and np.isfinite(answers(pair, SOURCE_ONLY))]
        if not here:
            continue
        found = line(here, lambda pair, name=name: answers(pair, name) - answers(pair, SOURCE_ONLY))  # type: ignore[misc]
        parts = [pair.candidates[name] for pair in here]
        seconds = [float(part["cpu"]) / (1 + bool({"back", "back_failed"} & set(part))) for part in parts]  # of one fit
        gains = [answers(pair, name) - answers(pair, SOURCE_ONLY) for pair in here]
        chosen = line(here, lambda pair, name=name: circular_test(pair, (name,), Z, False, "features"))  # type: ignore[misc]
        table[name] = {
            **found,
            "interval": interval(here, gains)[1:],
            "broke_off": len(pairs) - len(here),
            "selected": {key: chosen[key] for key in ("gain", "losses", "worst")},
            "cpu_seconds": float(np.median(seconds)),
        }
    return dict(sorted(table.items(), key=lambda one: -one[1]["gain"]))


def seats(pairs: Sequence[Pair], methods: Sequence[str]) -> tuple[str, ...]:
    """Return the networks that join the default aligners: each the one that adds most to the choice, until none adds."""
    taken: tuple[str, ...] = ()

    def worth(names: tuple[str, ...]) -> float:
        return utility(pairs, lambda pair: circular_test(pair, (*DEFAULT_CANDIDATES, *names), Z))

    best = worth(taken)
    while len(taken) < len(methods):
        trials = {name: worth((*taken, name)) for name in methods if name not in taken}
        name = max(trials, key=lambda one: trials[one])
        if trials[name] <= best + 1e-12:
            break
        taken, best = (*taken, name), trials[name]
    return taken


def seats_left_out(pairs: Sequence[Pair], methods: Sequence[str]) -> dict[str, Any]:
    """Return what the choice gains where each data set is judged with the networks that the others chose."""
    sets = sorted({pair.data_set for pair in pairs})
    chosen = {one: seats([pair for pair in pairs if pair.data_set != one], methods) for one in sets}

    def gain(pair: Pair) -> float:
        return circular_test(pair, (*DEFAULT_CANDIDATES, *chosen[pair.data_set]), Z)

    return {**line(pairs, gain), "chosen": chosen, "chosen on all": seats(pairs, methods)}


def show(found: dict[str, Any]) -> None:
    """Print the tables in points."""
    for name, one in found["sets"].items():
        cells = [f"{key} {100 * one[key][0]:.1f}" for key in one if isinstance(one[key], tuple)]
        gain = one["gains"]["selected - do not adapt"]
        print(
            f"{name:16s}"
            + "  ".join(cells)
            + f"  gain {100 * gain[0]:+.1f} ({100 * gain[1]:+.1f} to {100 * gain[2]:+.1f})"
        )
    sets = [name for name in found["sets"] if name != "all"]
    print(f"{'':20s} gain  " + " ".join(f"{name[:9]:>9s}" for name in sets) + "  wins losses worst  CPU s")
    for name, one in found["methods"].items():
        cells = " ".join(f"{100 * one['by_set'].get(key, np.nan):+9.1f}" for key in sets)
        print(
            f"{name:20s} {100 * one['gain']:+5.1f}  {cells}  {100 * one['wins']:3.0f} % {100 * one['losses']:3.0f} % "
            f"{100 * one['worst']:+6.1f} {one['cpu_seconds']:6.1f}  selected {100 * one['selected']['gain']:+.1f}, "
            f"losses {100 * one['selected']['losses']:.0f} %; broke off {one['broke_off']}"
        )
    for name in ("aligners alone", "with the default networks", "seats left out"):
        one = found[name]
        by_set = " ".join(f"{key} {100 * value:+.1f}" for key, value in one["by_set"].items())
        print(
            f"{name}: {100 * one['gain']:+.1f}, losses {100 * one['losses']:.0f} %, worst {100 * one['worst']:+.1f}; {by_set}"
        )
    print("seats:", found["seats left out"]["chosen"], "on all:", found["seats left out"]["chosen on all"])


def main() -> None:
    """Make the tables."""
    parser = argparse.ArgumentParser(description="Deep adaptation on frozen features.")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--first-seed", action="store_true")
    parser.add_argument("--store", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    pairs = [pair for pair in load(arguments.folder) if {SOURCE_ONLY, *DEFAULT_CANDIDATES} <= pair.candidates.keys()]
    if arguments.first_seed:
        pairs = [pair for pair in pairs if pair.name.endswith("@0")]
    tried = [{path.stem for path in (arguments.folder / pair.data_set / pair.name).glob("*.npz")} for pair in pairs]
    every = [name for name in NETWORKS if all(name in names for names in tried)]
    pool = (*DEFAULT_CANDIDATES, *DEFAULT_NETWORKS)
    sets = sorted({pair.data_set for pair in pairs})
    parts = {name: [pair for pair in pairs if pair.data_set == name] for name in sets} | {"all": pairs}
    found: dict[str, Any] = {
        "sets": {name: side_by_side(part, pool, every) for name, part in parts.items()},
        "methods": every_method(pairs, [name for name in every if name != SOURCE_ONLY]),
        "aligners alone": line(pairs, lambda pair: circular_test(pair, DEFAULT_CANDIDATES, Z)),
        "with the default networks": line(pairs, lambda pair: circular_test(pair, pool, Z)),
        "seats left out": seats_left_out(pairs, [name for name in every if name != SOURCE_ONLY]),
    }
    show(found)
    if arguments.store:
        rows: list[NDArray[Any]] = [pair.labels for pair in pairs]
        name = "first seed" if arguments.first_seed else "all seeds"
        store_result(RESULTS, name, {**found, "most_rows": max(len(part) for part in rows)})


if __name__ == "__main__":
    main()
