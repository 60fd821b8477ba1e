"""Every rule of choice on the evidence of every pair of domains, with all constants chosen on the other data sets.

    python benchmarks/adaptation_evidence.py [--folder FOLDER]
    python benchmarks/selection_rules.py [--folder FOLDER]

Gain: points of accuracy over "do not adapt"; the mean of a data set's pairs, then of the data sets. A loss or a win is more than
one point. "Left out" means: for each data set the candidates (added one by one, greedily) and whatever constant is named are
those with the highest utility on the *other* data sets, and it is judged with them; in the utility a loss counts double. Target
labels judge and never choose. The z of the paired circular test is not tuned: it is the one-sided 5 % point of the normal
distribution. The data sets in ``FRESH`` were gathered after the rule, its constants and the default candidates stood, and take no
part in any choice: each rule is judged on them with the candidates and constants of highest utility on all the others. ``LEFT``
are the candidates that an earlier look had left; ``UNPAIRED`` hold no number for every pair of rows, and the candidates for many
rows are judged among them in the same way. A rule is judged on the pairs for which what it reads was gathered for all candidates.
RankMe can only compare candidates whose features are as wide as the rows; others it passes over.
One thread, seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_mutual_info_score

from adaptation_evidence import FOLDER
from gathered_pairs import Pair, load
from headstart.core.errors import HeadstartError
from headstart.evaluation.selecting.rule import Score, rank_shares
from headstart.evaluation.selecting.source_risk import control_variate_risk
from headstart.evaluation.selection import (
    BatchNuclearNorm,
    CandidateRule,
    CircularTest,
    CircularValidation,
    EnsembleAgreement,
    InfoMax,
    PredictionEntropy,
    SelectionRule,
    SoftNeighbourhoodDensity,
    SourceAccuracy,
    committee_evidence,
    select,
)
from headstart.workflow.adaptations import DEFAULT_CANDIDATES, NO_ADAPTATION, default_candidates
from headstart.workflow.committee import COMMITTEE
from record import ROOT, store_result

ERRORS = (0.5, 1.0, 1.5, 2.0, 2.5)
RULES: dict[str, CandidateRule] = {
    "source accuracy": SourceAccuracy(),
    "entropy": PredictionEntropy(),
    "batch nuclear norm": BatchNuclearNorm(),
    "information maximisation": InfoMax(),
    "soft neighbourhood density": SoftNeighbourhoodDensity(),
}
RESULTS = ROOT / "benchmarks" / "results" / "selection_rules.json"
MARGINS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2)
LOSS_COUNTS = 2.0
FRESH = ("sentences", "nusax", "office_caltech")
LEFT = (*DEFAULT_CANDIDATES, "moment-matching", "prototypes", "source-free")
UNPAIRED = (
    "moment-matching",
    "jda",
    "gradual-co-training",
    "source-free",
    "prototypes",
    "coral",
    "linear-ot",
    "subspace-alignment",
    "tca",
    "selective-labelling",
    "self-training",
    "lame",
)
# what a rule reads of every candidate beside its answers on the target
READS: dict[str, set[str]] = {
    "source accuracy": {"source"},
    "importance weighting": {"source"},
    "DEV": {"source", "weights"},
    "ClassAMI": {"clusters"},
    "MixVal": {"mixval"},
    "RankMe": {"rank", "width"},
}


def circular_test(
    pair: Pair, pool: Sequence[str], num_errors: float, with_committee: bool = True, way: str = "back"
) -> float:
    """Return the gain of what the paired circular test chooses (the same as `select`, on arrays)."""
    stay, returned = pair.single(NO_ADAPTATION, way)

    def passes(other: Any) -> bool:
        gap = other - returned
        return float(gap.sum()) > num_errors * float(np.sqrt(np.square(gap).sum())) + 1e-9 * len(gap)

    committee = pair.committee(pool, way) if with_committee else None
    if committee is not None and passes(committee[1]):
        return committee[0] - stay
    singles = [pair.single(name, way) for name in pair.returning(pool)]
    passing = [single for single in singles if passes(single[1])]
    return max(passing, key=lambda single: single[1].mean())[0] - stay if passing else 0.0


def circular_margin(pair: Pair, pool: Sequence[str], margin: float) -> float:
    """Return the gain of circular validation on held-out rows with a margin in points."""
    stay, returned = pair.single(NO_ADAPTATION)
    singles = [pair.single(name) for name in pair.returning(pool)]
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
    voters = pair.returning(names)
    if with_committee and len(voters) >= 3:
        named[COMMITTEE] = committee_evidence([named[name] for name in voters])
        tables[COMMITTEE] = np.mean([tables[name] for name in voters], axis=0)
    try:
        chosen = select(named, rule, no_adaptation=NO_ADAPTATION).chosen
    except HeadstartError:
        chosen = NO_ADAPTATION  # what the rule needs was not gathered for this pair
    return pair.accuracy(tables[chosen]) - pair.accuracy(tables[NO_ADAPTATION])


def value(pair: Pair, kind: str, name: str) -> float:
    """Return a rule's score of one candidate, worked out once; NaN where it cannot be set against "do not adapt"."""
    if (kind, name) not in pair.known:
        pair.known[kind, name] = judged(pair, kind, name)
    return float(pair.known[kind, name])


def judged(pair: Pair, kind: str, name: str) -> float:
    """Return a rule's score of one candidate, as its class works it out from what was gathered."""
    part = pair.candidates[name]
    if kind in RULES:
        return RULES[kind].judge(pair.evidence(name)).value
    if kind == "ClassAMI":
        return float(adjusted_mutual_info_score(part["target"].argmax(axis=1), part["clusters"]))
    if kind == "RankMe":
        return float(part["rank"]) if int(part["width"]) == pair.rows[1].shape[1] else float("nan")
    losses = (part["source"].argmax(axis=1) != pair.labels[pair.judge]).astype(np.float64)
    if kind == "DEV":
        return -control_variate_risk(losses, part["weights"])
    before = pair.candidates[NO_ADAPTATION][
        "weights"
    ]  # "do not adapt" leaves rows as they came: the ratio before adapting
    return -float(np.mean(before * losses))


def by_score(pair: Pair, pool: Sequence[str], margin: float, *, kind: str) -> float:
    """Return the gain of the candidate with the best score, if it beats "do not adapt" by more than the margin."""
    stay = value(pair, kind, NO_ADAPTATION)
    scores = {name: value(pair, kind, name) for name in pool if name in pair.candidates}
    scores = {name: one for name, one in scores.items() if np.isfinite(one)}
    best = max(scores, key=lambda name: scores[name], default=NO_ADAPTATION)
    return always(pair, best) if best in scores and scores[best] > stay + margin + 1e-9 else 0.0


def mixing(pair: Pair, pool: Sequence[str], margin: float) -> float:
    """Return the gain of what MixVal ranks first among "do not adapt" and the candidates."""
    names = [NO_ADAPTATION, *(name for name in pool if name in pair.candidates)]
    probes = {name: pair.candidates[name]["mixval"] for name in names}
    ranks = [rank_shares({name: Score(float(probe[place])) for name, probe in probes.items()}) for place in (0, 1)]
    means = {name: (ranks[0][name] + ranks[1][name]) / 2 for name in names}
    best = max(names, key=lambda name: means[name])
    return always(pair, best) if means[best] > means[NO_ADAPTATION] + margin + 1e-9 else 0.0


def oracle(pair: Pair, pool: Sequence[str]) -> float:
    """Return the gain of the best single candidate, which only target labels can name."""
    values = [
        pair.accuracy(pair.candidates[name]["target"]) for name in (NO_ADAPTATION, *pool) if name in pair.candidates
    ]
    return max(values) - pair.accuracy(pair.candidates[NO_ADAPTATION]["target"])


def contenders() -> dict[str, tuple[Rule, Sequence[float], set[str]]]:
    """Return every rule with the constants it may choose from and what it reads of each candidate."""
    z = (CircularTest().num_errors,)
    found: dict[str, tuple[Rule, Sequence[float], set[str]]] = {
        "circular test, left out": (circular_test, z, set()),
        "circular test, z left out too": (circular_test, ERRORS, set()),
        "circular test without committee, left out": (without_committee, z, set()),
        "circular test on features, left out": (on_features, z, set()),
        "circular validation, margin left out too": (circular_margin, MARGINS, set()),
        "MixVal, left out": (mixing, (0.0,), READS["MixVal"]),
    }
    for kind in (*RULES, "importance weighting", "DEV", "ClassAMI", "RankMe"):
        found[f"{kind}, left out"] = (partial(by_score, kind=kind), (0.0,), READS.get(kind, set()))
    return found


def readable(pairs: Sequence[Pair], names: Sequence[str], reads: set[str]) -> list[Pair]:
    """Return the pairs for which what a rule reads was gathered for "do not adapt" and all candidates that came through."""
    ways = [(pair, [pair.candidates[n] for n in (NO_ADAPTATION, *names) if n in pair.candidates]) for pair in pairs]
    return [pair for pair, parts in ways if all(reads <= set(part) for part in parts)]


def grown(pairs: Sequence[Pair], names: Sequence[str], rule: Rule, grid: Sequence[float]) -> dict[str, Any]:
    """Return a rule's line where candidates and constant are those of the other data sets."""
    return left_out(pairs, lambda others: greedy(others, names, rule, grid), lambda pair, it: rule(pair, *it))


def table(pairs: Sequence[Pair], fresh: Sequence[Pair]) -> dict[str, Any]:
    """Return a line for every rule, with what was chosen on the other data sets; and for the fresh data sets."""
    z, found, later = CircularTest().num_errors, dict[str, Any](), dict[str, Any]()
    for name, (rule, grid, reads) in contenders().items():
        here, there = readable(pairs, LEFT, reads), readable(fresh, LEFT, reads)
        if here:
            found[name] = grown(here, LEFT, rule, grid)
        if here and there:
            pool, constant = greedy(here, LEFT, rule, grid)
            later[name] = line(there, partial(rule_with, rule=rule, pool=pool, constant=constant))
    found |= defaults(pairs)
    for name in LEFT:
        found[f"always {name}"] = line(pairs, partial(always, name=name))
    for errors in (0.0, 0.5, 1.0, 2.0, 3.0):
        one = partial(circular_test, pool=DEFAULT_CANDIDATES, num_errors=errors)
        found[f"circular test, z = {errors:g}"] = line(pairs, one)
    found |= {"source_only": source_only(pairs), "chosen_on_all": greedy(pairs, LEFT, circular_test, (z,))[0]}
    if fresh:
        found["fresh"] = {**later, **defaults(fresh), "source_only": source_only(fresh)}
    return found


def rule_with(pair: Pair, rule: Rule, pool: Sequence[str], constant: float) -> float:
    """Return the gain of a rule with these candidates and this constant."""
    return rule(pair, pool, constant)


def many_rows(pairs: Sequence[Pair], fresh: Sequence[Pair]) -> dict[str, Any]:
    """Return what the candidates for many rows gain by the default rule, and what others that hold no pairs would."""
    z, today = CircularTest().num_errors, default_candidates(100_000)
    every = tuple(dict.fromkeys((*LEFT, *UNPAIRED)))
    as_today = partial(rule_with, rule=circular_test, pool=today, constant=z)
    best = greedy(pairs, UNPAIRED, circular_test, (z,))[0]
    chosen = partial(rule_with, rule=circular_test, pool=best, constant=z)
    found = {
        "many rows, today's candidates": {**line(pairs, as_today), "candidates": today},
        "many rows, left out": grown(pairs, UNPAIRED, circular_test, (z,)),
        "many rows, chosen on all": {**line(pairs, chosen), "candidates": best},
        "many rows, oracle (unreachable)": line(pairs, lambda pair: oracle(pair, today)),
        "any number of rows, out of all gathered, left out": grown(pairs, every, circular_test, (z,)),
        "any number of rows, chosen on all": greedy(pairs, every, circular_test, (z,))[0],
        "source_only": source_only(pairs),
    }
    for name in UNPAIRED:
        found[f"always {name}"] = line(pairs, partial(always, name=name))
    if fresh:
        both = {"many rows, today's candidates": line(fresh, as_today), "many rows, chosen on all": line(fresh, chosen)}
        found["fresh"] = {**both, "source_only": source_only(fresh)}
    return found


def defaults(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return what the default candidates gain by the default rule, by others, and at best."""
    pool = DEFAULT_CANDIDATES
    return {
        "circular test (the default)": line(pairs, lambda pair: choose_by(pair, CircularTest(), pool, True)),
        "circular validation, margin 0.08": line(
            pairs, lambda pair: choose_by(pair, CircularValidation(), pool, False)
        ),
        "EnsV": line(pairs, lambda pair: choose_by(pair, EnsembleAgreement(), pool, False)),
        "always the committee": line(pairs, lambda pair: always_committee(pair, pool)),
        "oracle (unreachable)": line(pairs, lambda pair: oracle(pair, pool)),
    }


def source_only(pairs: Sequence[Pair]) -> dict[str, float]:
    """Return the mean accuracy of "do not adapt" by data set."""
    sets = sorted({pair.data_set for pair in pairs})
    kept = {one: [pair.single(NO_ADAPTATION)[0] for pair in pairs if pair.data_set == one] for one in sets}
    return {one: float(np.mean(part)) for one, part in kept.items()}


def without_committee(pair: Pair, pool: Sequence[str], num_errors: float) -> float:
    """Return the gain of the paired circular test among single candidates."""
    return circular_test(pair, pool, num_errors, with_committee=False)


def on_features(pair: Pair, pool: Sequence[str], num_errors: float) -> float:
    """Return the gain of the paired circular test where no candidate can go back by its own recipe."""
    return circular_test(pair, pool, num_errors, way="features")


def always(pair: Pair, name: str) -> float:
    """Return the gain of a candidate that is always taken; 0 where it failed."""
    stay = pair.single(NO_ADAPTATION)[0]
    return pair.single(name)[0] - stay if pair.returning([name]) else 0.0


def always_committee(pair: Pair, pool: Sequence[str]) -> float:
    """Return the gain of the committee where nobody asks whether to adapt."""
    committee = pair.committee(pool)
    return 0.0 if committee is None else committee[0] - pair.single(NO_ADAPTATION)[0]


def show(found: dict[str, Any]) -> None:
    """Print gains in points, and what was chosen on the other data sets."""
    sets = list(found["source_only"])
    print(f"{'':44s} gain  " + "  ".join(f"{name[:8]:>8s}" for name in sets) + "   wins losses  worst")
    for name, one in found.items():
        if not isinstance(one, dict) or "gain" not in one:
            continue
        gains = [one["by_set"].get(data_set) for data_set in sets]
        cells = "  ".join("       –" if gain is None else f"{100 * gain:+8.1f}" for gain in gains)
        shares = f"{100 * one['wins']:4.0f} %{100 * one['losses']:4.0f} % {100 * one['worst']:+6.1f}"
        print(f"{name:44s} {100 * one['gain']:+5.1f}  {cells}  {shares}")
    for name, one in found.items():
        if "chosen" in one:
            print(name, one["chosen"])
    if "chosen_on_all" in found:
        print("on all data sets:", found["chosen_on_all"])


def main() -> None:
    """Judge every rule and store the table."""
    parser = argparse.ArgumentParser(description="Rules of choice on gathered evidence.")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    gathered = load(parser.parse_args().folder)
    pairs = [pair for pair in gathered if pair.data_set not in FRESH]
    fresh = [pair for pair in gathered if pair.data_set in FRESH]
    sets = sorted({pair.data_set for pair in gathered})
    for pair in gathered:  # the arrays here choose as the rule itself does
        gain = choose_by(pair, CircularTest(), DEFAULT_CANDIDATES, True)
        assert abs(gain - circular_test(pair, DEFAULT_CANDIDATES, CircularTest().num_errors)) < 1e-9
    found, many = table(pairs, fresh), many_rows(pairs, fresh)
    for part in (found, found.get("fresh"), many, many.get("fresh")):
        if part:
            show(part)
    sizes = [{(len(pair.labels), len(pair.truth)) for pair in gathered if pair.data_set == one} for one in sets]
    about = {
        "pairs": {one: sum(pair.data_set == one for pair in gathered) for one in sets},
        "most_rows": {
            one: [max(size) for size in zip(*part, strict=True)] for one, part in zip(sets, sizes, strict=True)
        },
        "candidates": LEFT,
    }
    store_result(RESULTS, "rules", {**found, **about})
    store_result(RESULTS, "many rows", many)


if __name__ == "__main__":
    main()
