"""Every rule of choice on the evidence of every pair of domains, with all constants chosen on the other data sets.

    python benchmarks/adaptation_evidence.py [--folder FOLDER]
    python benchmarks/selection_rules.py [--folder FOLDER]

Gain: points of accuracy over "do not adapt"; the mean of a data set's pairs, then of the data sets. A loss or a win is more than
one point. "Left out" means: for each data set the candidates (added one by one, greedily) and whatever constant is named are
those with the highest utility on the *other* data sets, and it is judged with them; in the utility a loss counts double. Target
labels judge and never choose. The z of the paired circular test is not tuned: it is the one-sided 5 % point of the normal
distribution. The data sets in ``FRESH`` were gathered after the rule, its constants and the default candidates stood, and take no
part in any choice. The way back of a candidate is read from the folder, not fitted again. Rules that look at features are judged
on the pairs for which that was gathered.
One thread, seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score

from adaptation_evidence import FOLDER
from headstart.core.errors import HeadstartError
from headstart.evaluation.selecting.source_risk import control_variate_risk
from headstart.evaluation.selection import (
    BatchNuclearNorm,
    CandidateEvidence,
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
from headstart.workflow.adaptations import DEFAULT_CANDIDATES, NO_ADAPTATION
from headstart.workflow.committee import COMMITTEE
from record import ROOT, store_result

Matrix = NDArray[Any]
ERRORS = (0.5, 1.0, 1.5, 2.0, 2.5)
RULES: dict[str, CandidateRule] = {
    "source accuracy": SourceAccuracy(),
    "entropy": PredictionEntropy(),
    "batch nuclear norm": BatchNuclearNorm(),
    "information maximisation": InfoMax(),
    "soft neighbourhood density": SoftNeighbourhoodDensity(),
}
MARGINS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2)
LOSS_COUNTS = 2.0
FRESH = ("sentences", "nusax", "office_caltech")


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

    def single(self, name: str, way: str = "back") -> tuple[float, Matrix]:
        """Return a candidate's accuracy, and which source labels returned: by its own recipe, or by a ridge on features."""
        return self._once((name,), way)

    def committee(self, names: Sequence[str], way: str = "back") -> tuple[float, Matrix] | None:
        """Return the same of the committee of "do not adapt" and those of the names that came through."""
        here = self.returning(names)
        return self._once((NO_ADAPTATION, *sorted(here)), way) if len(here) >= 2 else None

    def returning(self, names: Sequence[str]) -> list[str]:
        """Return the names that went there and back."""
        return [name for name in names if "back" in self.candidates.get(name, {})]

    def _once(self, names: tuple[str, ...], way: str) -> tuple[float, Matrix]:
        if (names, way) not in self.known:
            target = np.mean([self.candidates[name]["target"] for name in names], axis=0)
            back = np.mean([self._returned(name, way) for name in names], axis=0)
            labels = self.labels if way == "back" else self.labels[self.judge]
            self.known[names, way] = (self.accuracy(target), (back.argmax(axis=1) == labels).astype(np.float64))
        return self.known[names, way]

    def _returned(self, name: str, way: str) -> Matrix:
        if way == "back":
            return self.candidates[name]["back"]
        if (name, "table") not in self.known:
            self.known[name, "table"] = CircularTest().returned(
                CandidateEvidence(
                    target_probabilities_mk=self.candidates[name]["target"],
                    source_labels_v=self.labels[self.judge],
                    source_features_vr=self.rows[0][self.judge],
                    target_features_mr=self.rows[1],
                )
            )
        return self.known[name, "table"]

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


def circular_test(
    pair: Pair, pool: Sequence[str], num_errors: float, with_committee: bool = True, way: str = "back"
) -> float:
    """Return the gain of what the paired circular test chooses (the same as `select`, on arrays)."""
    stay, returned = pair.single(NO_ADAPTATION, way)

    def passes(other: Matrix) -> bool:
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
    """Return a rule's score of one candidate, worked out once; NaN where what it needs was not gathered."""
    if (kind, name) not in pair.known:
        part = pair.candidates[name]
        if kind == "DEV":
            right = pair.labels[pair.judge]
            losses = (part["source"].argmax(axis=1) != right).astype(float) if "weights" in part else None
            found = float("nan") if losses is None else -control_variate_risk(losses, part["weights"])
        elif kind == "ClassAMI":
            answers = part["target"].argmax(axis=1)
            found = float(adjusted_mutual_info_score(answers, part["clusters"])) if "clusters" in part else float("nan")
        else:
            found = RULES[kind].judge(pair.evidence(name)).value
        pair.known[kind, name] = found
    return float(pair.known[kind, name])


def by_score(pair: Pair, pool: Sequence[str], margin: float, *, kind: str) -> float:
    """Return the gain of the candidate with the best score, if it beats "do not adapt" by more than the margin."""
    stay = value(pair, kind, NO_ADAPTATION)
    scores = {name: value(pair, kind, name) for name in pool if name in pair.candidates}
    scores = {name: one for name, one in scores.items() if np.isfinite(one)}
    best = max(scores, key=lambda name: scores[name], default=NO_ADAPTATION)
    return always(pair, best) if best in scores and scores[best] > stay + margin + 1e-9 else 0.0


def oracle(pair: Pair, pool: Sequence[str]) -> float:
    """Return the gain of the best single candidate, which only target labels can name."""
    values = [
        pair.accuracy(pair.candidates[name]["target"]) for name in (NO_ADAPTATION, *pool) if name in pair.candidates
    ]
    return max(values) - pair.accuracy(pair.candidates[NO_ADAPTATION]["target"])


def table(pairs: Sequence[Pair], names: Sequence[str]) -> dict[str, Any]:
    """Return a line for every rule, with what was chosen on the other data sets."""
    pool, z = DEFAULT_CANDIDATES, CircularTest().num_errors

    def grown(rule: Rule, grid: Sequence[float], here: Sequence[Pair] = pairs) -> dict[str, Any]:
        return left_out(here, lambda others: greedy(others, names, rule, grid), lambda pair, it: rule(pair, *it))

    found: dict[str, Any] = {
        "circular test, left out": grown(circular_test, (z,)),
        "circular test, z left out too": grown(circular_test, ERRORS),
        "circular test without committee, left out": grown(without_committee, (z,)),
        "circular test on features, left out": grown(on_features, (z,)),
        "circular validation, margin left out too": grown(circular_margin, MARGINS),
    }
    for kind in (*RULES, "DEV", "ClassAMI"):
        rule = partial(by_score, kind=kind)
        here = [pair for pair in pairs if all(np.isfinite(value(pair, kind, name)) for name in pair.candidates)]
        found[f"{kind}, left out"] = grown(rule, (0.0,), here)
    found |= defaults(pairs)
    for name in names:
        found[f"always {name}"] = line(pairs, partial(always, name=name))
    for errors in (0.0, 0.5, 1.0, 2.0, 3.0):
        found[f"circular test, z = {errors:g}"] = line(pairs, partial(circular_test, pool=pool, num_errors=errors))
    found["source_only"] = source_only(pairs)
    found["chosen_on_all"] = greedy(pairs, names, circular_test, (z,))[0]
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
        if "gain" not in one:
            continue
        gains = [one["by_set"].get(data_set) for data_set in sets]
        cells = "  ".join("       –" if gain is None else f"{100 * gain:+8.1f}" for gain in gains)
        shares = f"{100 * one['wins']:4.0f} %{100 * one['losses']:4.0f} % {100 * one['worst']:+6.1f}"
        print(f"{name:44s} {100 * one['gain']:+5.1f}  {cells}  {shares}")
    for name, one in found.items():
        if "chosen" in one and name.startswith("circular"):
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
    tried = [
        {name for pair in pairs if pair.data_set == one for name in pair.candidates} for one in sets if one not in FRESH
    ]
    names = sorted(set.intersection(*tried) - {NO_ADAPTATION})
    for pair in gathered:  # the arrays here choose as the rule itself does
        gain = choose_by(pair, CircularTest(), DEFAULT_CANDIDATES, True)
        assert abs(gain - circular_test(pair, DEFAULT_CANDIDATES, CircularTest().num_errors)) < 1e-9
    found = table(pairs, names)
    show(found)
    sizes = [{(len(pair.labels), len(pair.truth)) for pair in gathered if pair.data_set == one} for one in sets]
    about = {
        "pairs": {one: sum(pair.data_set == one for pair in gathered) for one in sets},
        "most_rows": {
            one: [max(size) for size in zip(*part, strict=True)] for one, part in zip(sets, sizes, strict=True)
        },
        "candidates": names,
    }
    if fresh:
        about["fresh"] = {**defaults(fresh), "source_only": source_only(fresh)}
        show(about["fresh"])
    store_result(ROOT / "benchmarks" / "results" / "selection_rules.json", "rules", {**found, **about})


if __name__ == "__main__":
    main()
