"""Every rule of choice on the evidence of every pair of domains, with all constants chosen on the other data sets.

    python benchmarks/adaptation_evidence.py [--folder FOLDER]
    python benchmarks/selection_rules.py [--folder FOLDER]

Gain: points of accuracy over "do not adapt"; the mean of a data set's pairs, then of the data sets. A loss or a win is more than
one point. "Left out" means: for each data set the candidates (added one by one, greedily) and the standard errors z, or the
margin, are those with the highest utility on the *other* data sets, and it is judged with them; in the utility a loss counts
double. Target labels judge and never choose. The way back of a candidate is read from the folder, not fitted again.
One thread, seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score

from adaptation_evidence import FOLDER
from headstart.core.errors import HeadstartError
from headstart.evaluation.selecting.rule import rank_shares
from headstart.evaluation.selecting.source_risk import control_variate_risk
from headstart.evaluation.selection import (
    BatchNuclearNorm,
    CandidateEvidence,
    CircularTest,
    CircularValidation,
    EnsembleAgreement,
    InfoMax,
    PredictionEntropy,
    Score,
    SelectionRule,
    SoftNeighbourhoodDensity,
    SourceAccuracy,
    committee_evidence,
    select,
)
from headstart.workflow.adaptations import COMMITTEE, DEFAULT_CANDIDATES, NO_ADAPTATION
from record import ROOT, store_result

Matrix = NDArray[Any]
ERRORS = (0.5, 1.0, 1.5, 2.0, 2.5)
RULES: tuple[SelectionRule, ...] = (
    CircularValidation(),
    SourceAccuracy(),
    PredictionEntropy(),
    BatchNuclearNorm(),
    InfoMax(),
    SoftNeighbourhoodDensity(),
    EnsembleAgreement(),
)
MARGINS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2)
LOSS_COUNTS = 2.0


@dataclass
class Pair:
    """One ordered pair of domains with what was gathered of every candidate."""

    data_set: str
    name: str
    labels: Matrix
    learn: Matrix
    judge: Matrix
    truth: Matrix
    rows: tuple[Matrix, Matrix]
    candidates: dict[str, dict[str, Matrix]]
    known: dict[Any, Any] = field(default_factory=dict)

    def accuracy(self, table: Matrix) -> float:
        """Return the share of target rows named rightly."""
        return float((table.argmax(axis=1) == self.truth).mean())

    def single(self, name: str) -> tuple[float, Matrix]:
        """Return a candidate's accuracy, and which source labels returned."""
        return self._once((name,))

    def committee(self, names: Sequence[str]) -> tuple[float, Matrix] | None:
        """Return the same of the committee of "do not adapt" and those of the names that came through."""
        here = [name for name in names if "back" in self.candidates.get(name, {})]
        return self._once((NO_ADAPTATION, *sorted(here))) if len(here) >= 2 else None

    def _once(self, names: tuple[str, ...]) -> tuple[float, Matrix]:
        if names not in self.known:
            target, back = (
                np.mean([self.candidates[name][part] for name in names], axis=0) for part in ("target", "back")
            )
            self.known[names] = (self.accuracy(target), (back.argmax(axis=1) == self.labels).astype(np.float64))
        return self.known[names]

    def evidence(self, name: str) -> CandidateEvidence:
        """Return a candidate as rules see it; its way back reads what was gathered."""
        part = self.candidates[name]
        source, target = self.rows
        given: dict[str, Any] = {
            "target_probabilities_mk": part["target"],
            "source_rows_vd": source[self.judge],
            "source_labels_v": self.labels[self.judge],
            "source_training_nd": source[self.learn],
            "source_training_labels_n": self.labels[self.learn],
            "target_rows_md": target,
        }
        if "source" in part:
            given["source_probabilities_vk"] = part["source"]
        if "back" in part:
            back = part["back"]
            tables = {len(self.judge): back[self.judge], len(back): back[np.r_[self.judge, self.learn]]}
            given["refit"] = lambda *_: Returned(tables)
        return CandidateEvidence(**given)


class Returned:
    """A predictor that answers for held-out rows, or for these and those trained on, as it once did."""

    def __init__(self, tables: dict[int, Matrix]) -> None:
        self.tables = tables
        self.classes_ = np.arange(next(iter(tables.values())).shape[1])

    def predict_proba(self, rows: Matrix) -> Matrix:
        """Return what was gathered for that many rows."""
        return self.tables[len(rows)]

    def predict(self, rows: Matrix) -> Matrix:
        """Return the likeliest classes."""
        return np.asarray(self.tables[len(rows)].argmax(axis=1))


def load(folder: Path) -> list[Pair]:
    """Read every pair of which "do not adapt" went there and back."""
    pairs = []
    for place in sorted(folder.glob("*/*")):
        stored = {path.stem: dict(np.load(path)) for path in sorted(place.glob("*.npz"))}
        about = stored.pop("pair", None)
        candidates = {name: part for name, part in stored.items() if "cpu" in part}
        if about is None or "back" not in candidates.get(NO_ADAPTATION, {}):
            continue
        pairs.append(
            Pair(
                place.parent.name,
                place.name,
                about["codes"],
                about["learn"],
                about["judge"],
                about["truth"],
                (about["source"], about["target"]),
                candidates,
            )
        )
    return pairs


def circular_test(pair: Pair, pool: Sequence[str], num_errors: float, with_committee: bool = True) -> float:
    """Return the gain of what the paired circular test chooses (the same as `select`, on arrays)."""
    stay, returned = pair.single(NO_ADAPTATION)

    def passes(other: Matrix) -> bool:
        gap = other - returned
        return float(gap.sum()) > num_errors * float(np.sqrt(np.square(gap).sum())) + 1e-9 * len(gap)

    committee = pair.committee(pool) if with_committee else None
    if committee is not None and passes(committee[1]):
        return committee[0] - stay
    singles = [pair.single(name) for name in pool if "back" in pair.candidates.get(name, {})]
    passing = [single for single in singles if passes(single[1])]
    return max(passing, key=lambda single: single[1].mean())[0] - stay if passing else 0.0


def circular_margin(pair: Pair, pool: Sequence[str], margin: float) -> float:
    """Return the gain of circular validation on held-out rows with a margin in points."""
    stay, returned = pair.single(NO_ADAPTATION)
    singles = [pair.single(name) for name in pool if "back" in pair.candidates.get(name, {})]
    best = max(singles, key=lambda single: single[1][pair.judge].mean(), default=None)
    if best is None or best[1][pair.judge].mean() <= returned[pair.judge].mean() + margin + 1e-9:
        return 0.0
    return best[0] - stay


Gain = Callable[[Pair], float]


def by_set(pairs: Sequence[Pair], gain: Gain) -> dict[str, list[float]]:
    """Return every pair's gain by data set."""
    found: dict[str, list[float]] = {}
    for pair in pairs:
        found.setdefault(pair.data_set, []).append(gain(pair))
    return found


def utility(pairs: Sequence[Pair], gain: Gain) -> float:
    """Return the mean gain over data sets, losses counted double."""
    values = [
        np.mean([one if one >= 0 else LOSS_COUNTS * one for one in part]) for part in by_set(pairs, gain).values()
    ]
    return float(np.mean(values))


Rule = Callable[[Pair, Sequence[str], float], float]


def greedy(
    pairs: Sequence[Pair], names: Sequence[str], rule: Rule, grid: Sequence[float]
) -> tuple[tuple[str, ...], float]:
    """Return the candidates, in the order they were added, and the constant of highest utility."""
    found = [(*grow(pairs, names, rule, constant), constant) for constant in grid]
    _, pool, constant = max(found, key=lambda one: one[0])
    return pool, constant


def grow(pairs: Sequence[Pair], names: Sequence[str], rule: Rule, constant: float) -> tuple[float, tuple[str, ...]]:
    """Return the highest utility with this constant, and the candidates: each the one that adds most, until none adds."""

    def worth(pool: tuple[str, ...]) -> float:
        return utility(pairs, lambda pair: rule(pair, pool, constant))

    pool: tuple[str, ...] = ()
    best = 0.0
    while len(pool) < len(names):
        trials = {name: worth((*pool, name)) for name in names if name not in pool}
        name = max(trials, key=lambda one: trials[one])
        if trials[name] <= best + 1e-12 and len(pool) >= 2:
            break
        pool, best = (*pool, name), max(best, trials[name])
    return worth(pool), pool


def left_out(
    pairs: Sequence[Pair], choose: Callable[[Sequence[Pair]], Any], gain: Callable[[Pair, Any], float]
) -> dict[str, Any]:
    """Return gains where each data set is judged by what was chosen on the others, and what that was."""
    chosen = {name: choose([pair for pair in pairs if pair.data_set != name]) for name in {p.data_set for p in pairs}}
    return {
        **line(pairs, lambda pair: gain(pair, chosen[pair.data_set])),
        "chosen": {k: chosen[k] for k in sorted(chosen)},
    }


def line(pairs: Sequence[Pair], gain: Gain) -> dict[str, Any]:
    """Return a rule's mean gain, gains by data set, and shares of pairs it wins and loses."""
    gains = by_set(pairs, gain)
    values = np.concatenate([gains[name] for name in sorted(gains)])
    return {
        "gain": float(np.mean([np.mean(part) for part in gains.values()])),
        "by_set": {name: float(np.mean(gains[name])) for name in sorted(gains)},
        "wins": float((values > 0.01).mean()),
        "losses": float((values < -0.01).mean()),
        "worst": float(values.min()),
        "pairs": len(values),
    }


def choose_by(pair: Pair, rule: SelectionRule, pool: Sequence[str], with_committee: bool) -> float:
    """Return the gain of what `select` chooses by a rule."""
    names = [name for name in (NO_ADAPTATION, *pool) if name in pair.candidates]
    named = {name: pair.evidence(name) for name in names}
    tables = {name: pair.candidates[name]["target"] for name in names}
    voters = [name for name in names if "back" in pair.candidates[name]]
    if with_committee and len(voters) >= 3:
        named[COMMITTEE] = committee_evidence([named[name] for name in voters])
        tables[COMMITTEE] = np.mean([tables[name] for name in voters], axis=0)
    try:
        chosen = select(named, rule, no_adaptation=NO_ADAPTATION).chosen
    except HeadstartError:
        chosen = NO_ADAPTATION  # what the rule needs was not gathered for this pair
    return pair.accuracy(tables[chosen]) - pair.accuracy(tables[NO_ADAPTATION])


class Gathered(SelectionRule):
    """A rule whose scores were gathered with the evidence: it looks at features, which are not kept."""

    facts, needs = InfoMax.facts, InfoMax.needs

    def __init__(self, scores: Mapping[str, float]) -> None:
        self.values = scores

    def scores(self, candidates: Any) -> dict[str, Score]:
        """Return what was gathered; NaN for the committee, which has no features."""
        return {name: Score(self.values.get(name, float("nan"))) for name in candidates}


def gathered(pair: Pair, kind: str, pool: Sequence[str]) -> Gathered:
    """Return DEV, ClassAMI or MixVal over the candidates that have what it needs."""
    parts = {name: pair.candidates[name] for name in (NO_ADAPTATION, *pool) if name in pair.candidates}
    right = pair.labels[pair.judge]
    if kind == "DEV":
        return Gathered(
            {
                name: -control_variate_risk((part["source"].argmax(axis=1) != right).astype(float), part["weights"])
                for name, part in parts.items()
                if "weights" in part
            }
        )
    if kind == "ClassAMI":
        return Gathered(
            {
                name: float(adjusted_mutual_info_score(part["target"].argmax(axis=1), part["clusters"]))
                for name, part in parts.items()
                if "clusters" in part
            }
        )
    probes = {name: part["mixval"] for name, part in parts.items() if "mixval" in part}
    ranks = [rank_shares({name: Score(float(probe[place])) for name, probe in probes.items()}) for place in (0, 1)]
    return Gathered({name: (ranks[0][name] + ranks[1][name]) / 2 for name in probes})


def oracle(pair: Pair, pool: Sequence[str]) -> float:
    """Return the gain of the best single candidate, which only target labels can name."""
    values = [
        pair.accuracy(pair.candidates[name]["target"]) for name in (NO_ADAPTATION, *pool) if name in pair.candidates
    ]
    return max(values) - pair.accuracy(pair.candidates[NO_ADAPTATION]["target"])


def table(pairs: Sequence[Pair], names: Sequence[str]) -> dict[str, Any]:
    """Return a line for every rule, with constants of the other data sets first."""
    pool = DEFAULT_CANDIDATES

    def fixed(rule: Rule, grid: Sequence[float]) -> dict[str, Any]:
        def best(others: Sequence[Pair]) -> float:
            return max(grid, key=lambda constant: utility(others, lambda pair: rule(pair, pool, constant)))

        return left_out(pairs, best, lambda pair, constant: rule(pair, pool, constant))

    def grown(rule: Rule, grid: Sequence[float]) -> dict[str, Any]:
        return left_out(pairs, lambda others: greedy(others, names, rule, grid), lambda pair, it: rule(pair, *it))

    found: dict[str, Any] = {
        "circular test, left out": grown(circular_test, ERRORS),
        "circular test, z left out": fixed(circular_test, ERRORS),
        "circular test without committee, left out": grown(without_committee, ERRORS),
        "circular validation, left out": grown(circular_margin, MARGINS),
        "circular validation, margin left out": fixed(circular_margin, MARGINS),
        "circular test (the default)": line(pairs, lambda pair: choose_by(pair, CircularTest(), pool, True)),
        "always the committee": line(pairs, lambda pair: always_committee(pair, pool)),
        "oracle (unreachable)": line(pairs, lambda pair: oracle(pair, pool)),
    }
    for rule in RULES:
        found[rule.facts.title] = line(pairs, partial(choose_by, rule=rule, pool=pool, with_committee=False))
    for kind in ("DEV", "ClassAMI", "MixVal"):
        found[kind] = line(pairs, lambda pair, kind=kind: choose_by(pair, gathered(pair, kind, pool), pool, False))
    for name in names:
        found[f"always {name}"] = line(pairs, partial(always, name=name))
    found["source_only"] = {
        name: float(np.mean([pair.single(NO_ADAPTATION)[0] for pair in pairs if pair.data_set == name]))
        for name in sorted({pair.data_set for pair in pairs})
    }
    found["chosen_on_all"] = greedy(pairs, names, circular_test, ERRORS)
    return found


def without_committee(pair: Pair, pool: Sequence[str], num_errors: float) -> float:
    """Return the gain of the paired circular test among single candidates."""
    return circular_test(pair, pool, num_errors, with_committee=False)


def always(pair: Pair, name: str) -> float:
    """Return the gain of a candidate that is always taken; 0 where it failed."""
    stay = pair.single(NO_ADAPTATION)[0]
    return pair.single(name)[0] - stay if "back" in pair.candidates.get(name, {}) else 0.0


def always_committee(pair: Pair, pool: Sequence[str]) -> float:
    """Return the gain of the committee where nobody asks whether to adapt."""
    committee = pair.committee(pool)
    return 0.0 if committee is None else committee[0] - pair.single(NO_ADAPTATION)[0]


def show(found: dict[str, Any]) -> None:
    """Print gains in points, and what was chosen on the other data sets."""
    sets = list(found["source_only"])
    heads = "  ".join(f"{name[:8]:>8s}" for name in sets)
    print(f"{'':44s} gain  {heads}   wins losses  worst")
    for name, one in found.items():
        if "gain" not in one:
            continue
        cells = "  ".join(f"{100 * value:+8.1f}" for value in one["by_set"].values())
        shares = f"{100 * one['wins']:4.0f} %{100 * one['losses']:4.0f} % {100 * one['worst']:+6.1f}"
        print(f"{name:44s} {100 * one['gain']:+5.1f}  {cells}  {shares}")
    for name, one in found.items():
        if "chosen" in one:
            print(name, one["chosen"])
    print("on all data sets:", found["chosen_on_all"])


def main() -> None:
    """Judge every rule and store the table."""
    parser = argparse.ArgumentParser(description="Rules of choice on gathered evidence.")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    pairs = load(parser.parse_args().folder)
    sets = sorted({pair.data_set for pair in pairs})
    tried = [{name for pair in pairs if pair.data_set == one for name in pair.candidates} for one in sets]
    names = sorted(set.intersection(*tried) - {NO_ADAPTATION})
    for pair in pairs:  # the arrays here choose as the rule itself does
        gain = choose_by(pair, CircularTest(), DEFAULT_CANDIDATES, True)
        assert abs(gain - circular_test(pair, DEFAULT_CANDIDATES, CircularTest().num_errors)) < 1e-9
    found = table(pairs, names)
    show(found)
    sizes = [{(len(pair.labels), len(pair.truth)) for pair in pairs if pair.data_set == one} for one in sets]
    about = {
        "pairs": {one: sum(pair.data_set == one for pair in pairs) for one in sets},
        "most_rows": {
            one: [max(size) for size in zip(*part, strict=True)] for one, part in zip(sets, sizes, strict=True)
        },
        "candidates": names,
    }
    store_result(ROOT / "benchmarks" / "results" / "selection_rules.json", "rules", {**found, **about})


if __name__ == "__main__":
    main()
