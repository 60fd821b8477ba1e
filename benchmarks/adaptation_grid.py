"""Which aligner, chosen by which rule, helps on which data: the grid over the shared data, and where it hurts.

    python benchmarks/adaptation_grid.py [--only surf,pacs] [--methods coral,tca] [--rows 500] [--seeds 1]

For every ordered pair of domains of every data set: at most ``--rows`` rows a domain, features on one scale as `headstart adapt`
makes them, logistic regression whose penalty the source's folds choose, every aligner of the catalog at its defaults beside
"do not adapt". Target labels are used for the last column alone, after every choice. A method's gain is its accuracy less that of
"do not adapt" on the same pair; a win or a loss is more than one point. A rule's line is the gain of what it would have chosen
among the default candidates, and among all. Each pair is kept as it comes; the summary is made from what is there.
Needs the shared data (HEADSTART_SHARED). One thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import open_backbone
from headstart.catalog import entries, find
from headstart.core.errors import HeadstartError
from headstart.core.files import write_text
from headstart.core.progress import Progress
from headstart.data import open_dataset
from headstart.evaluation.selection import CandidateEvidence, CandidateRule, FailedCandidate, select
from headstart.features import extract_features
from headstart.workflow.adaptations import (
    DEFAULT_CANDIDATES,
    NO_ADAPTATION,
    base_classifier,
    make_candidates,
    try_candidates,
)
from record import ROOT, store_result

DATA = Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared")) / "data"
RESULTS = ROOT / "benchmarks" / "results" / "adaptation_grid.json"
MARGINS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2)
Matrix = NDArray[Any]
Domains = dict[str, tuple[Matrix, Matrix]]


def surf() -> Domains:
    """SURF-800, four domains, ten classes: rows of sum 1, then standardised by each pair's source."""
    return _npz("surf", ("amazon", "caltech10", "dslr", "webcam"), rows_sum_to_one=True)


def googlenet() -> Domains:
    """GoogLeNet-1024, three domains."""
    return _npz("googlenet1024", ("amazon", "dslr", "webcam"), rows_sum_to_one=False)


def _npz(kind: str, names: tuple[str, ...], *, rows_sum_to_one: bool) -> Domains:
    found = {}
    for name in names:
        with np.load(DATA / "office_caltech10" / "features" / f"{kind}_{name}.npz") as stored:
            rows, labels = stored["fts"].astype(np.float64), stored["labels"].ravel()
        found[name] = (rows / rows.sum(axis=1, keepdims=True) if rows_sum_to_one else rows, labels)
    return found


def digits() -> Domains:
    """Grey values of MNIST and USPS at 16 x 16."""
    from PIL import Image

    with np.load(DATA / "digits" / "mnist_t10k.npz") as mnist, np.load(DATA / "digits" / "usps.npz") as usps:
        small = [np.asarray(Image.fromarray(image[4:24, 4:24]).resize((16, 16))) for image in mnist["images"]]
        return {
            "mnist": (np.stack(small).reshape(len(small), -1).astype(np.float64), mnist["labels"].copy()),
            "usps": (usps["images"].reshape(-1, 256).astype(np.float64), usps["labels"].copy()),
        }


def heart() -> Domains:
    """Ten columns that all four hospitals measured; missing values are the hospital's own median."""
    import pandas as pd

    table = pd.read_csv(DATA / "tab_heart4" / "heart4.csv")
    columns = ["age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak"]
    found = {}
    for name, part in table.groupby("hospital"):
        rows = part[columns].fillna(part[columns].median()).fillna(0.0)
        found[str(name)] = (rows.to_numpy(float), part["disease"].to_numpy())
    return found


def reviews() -> Domains:
    """Amazon reviews embedded by MiniLM."""
    import pandas as pd

    table = pd.read_parquet(DATA / "text_amazon_reviews" / "amazon_reviews.parquet")
    found = {}
    for name, part in table.groupby("domain"):
        some_rows = part.sample(600, random_state=0)
        texts = [str(text)[:1000] for text in some_rows["text"]]
        found[str(name)] = (_embed(texts, "minilm-l6"), some_rows["label"].to_numpy())
    return found


def pacs() -> Domains:
    """Photos, paintings, cartoons and sketches embedded by EfficientNet-Lite0."""
    return images(DATA / "pacs_subset", ("photo", "art_painting", "cartoon", "sketch"))


def office_caltech() -> Domains:
    """The photographs of Office-Caltech-10 embedded by EfficientNet-Lite0."""
    return images(DATA / "office_caltech10" / "images", ("amazon", "caltech10", "dslr", "webcam"))


def sentences() -> Domains:
    """Film reviews, product reviews and news phrases with a good or bad opinion, embedded by MiniLM."""
    import pandas as pd

    found = {}
    for name in ("mr", "cr", "mpqa"):
        table = pd.read_parquet(DATA / "text_sentence_cls" / f"{name}.parquet")
        part = table.sample(min(1000, len(table)), random_state=0)
        found[name] = (_embed([str(text)[:1000] for text in part["text"]], "minilm-l6"), part["label"].to_numpy())
    return found


def nusax() -> Domains:
    """English opinions with three labels, and the test sentences of eleven other languages, embedded by an English MiniLM."""
    import pandas as pd

    table = pd.read_parquet(DATA / "text_nusax_senti" / "nusax_senti.parquet")
    found = {}
    for name in sorted(table["lang"].unique(), key=lambda name: name != "english"):
        part = table[(table["lang"] == name) & (table["split"] == ("train" if name == "english" else "test"))]
        found[str(name)] = (_embed(list(part["text"].astype(str)), "minilm-l6"), part["label"].astype(str).to_numpy())
    return found


def amazon() -> Domains:
    """Amazon reviews as 5,000 counts on 200 directions of a truncated SVD of log(1 + count), rows of length 1."""
    from scipy import sparse
    from sklearn.decomposition import TruncatedSVD

    rows, labels = {}, {}
    with np.load(DATA / "text_amazon_dann" / "amazon_dann.npz") as stored:
        for name in ("books", "dvd", "electronics", "kitchen"):
            parts = [stored[f"{name}_train_{part}"] for part in ("data", "indices", "indptr")]
            rows[name] = sparse.csr_matrix(tuple(parts), shape=(len(parts[2]) - 1, 5000)).astype(np.float64).log1p()
            labels[name] = stored[f"{name}_train_labels"]
    reduce = TruncatedSVD(200, random_state=0).fit(sparse.vstack(list(rows.values())))
    return {name: (_unit(reduce.transform(part)), labels[name]) for name, part in rows.items()}


def wine() -> Domains:
    """Eleven measurements of red and of white wines; good ones (6 or more) against the rest."""
    import pandas as pd

    table = pd.read_parquet(DATA / "tab_wine_quality" / "wine_quality.parquet")
    columns = [name for name in table.columns if name not in {"quality", "color"}]
    return {
        str(name): (part[columns].to_numpy(float), (part["quality"] >= 6).to_numpy().astype(int))
        for name, part in table.groupby("color")
    }


def images(folder: Path, names: tuple[str, ...]) -> Domains:
    found = {}
    for name in names:
        data = open_dataset(folder / name)
        assert data.targets is not None
        found[name] = (_embed(data, "efficientnet-lite0"), data.targets)
    return found


def _embed(rows: Any, name: str) -> Matrix:
    data = open_dataset(rows, unlabelled=True)
    values = extract_features(data, open_backbone(name), progress=Progress(quiet=True)).values_nd
    return _unit(values)


def _unit(values: Matrix) -> Matrix:
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), dtype=np.float32)


SETS = {
    "surf": surf,
    "googlenet": googlenet,
    "office_caltech": office_caltech,
    "pacs": pacs,
    "digits": digits,
    "reviews": reviews,
    "heart": heart,
    "amazon": amazon,
    "sentences": sentences,
    "nusax": nusax,
    "wine": wine,
}
EMBEDDED = {"office_caltech", "pacs", "reviews", "amazon", "sentences", "nusax", "pets_shifts"}
SOURCES = {"nusax": {"english"}, "pets_shifts": {"photo"}, "mnist_m": {"mnist"}}


def some(rows_nd: Matrix, labels_n: Matrix, most: int, seed: int) -> tuple[Matrix, Matrix]:
    """Return at most so many rows, of every class in proportion."""
    if len(labels_n) <= most:
        return rows_nd, labels_n
    random = np.random.default_rng(seed)
    share = most / len(labels_n)
    parts = [
        random.permutation(np.flatnonzero(labels_n == label))[: max(3, round(share * (labels_n == label).sum()))]
        for label in np.unique(labels_n)
    ]
    places = np.sort(np.concatenate(parts))
    return rows_nd[places], labels_n[places]


def pairs(name: str, domains: Domains, most: int, seed: int) -> Iterator[tuple[str, Matrix, Matrix, Matrix, Matrix]]:
    """Give every ordered pair on one scale: source rows, class numbers, target rows, target's class numbers."""
    classes = np.unique(np.concatenate([labels for _, labels in domains.values()]))
    for first, second in itertools.permutations(domains, 2):
        if first not in SOURCES.get(name, domains):
            continue
        source, labels = some(*domains[first], most, seed)
        target, truth = some(*domains[second], most, seed + 1)
        if name not in EMBEDDED:
            centre, scale = source.mean(axis=0), source.std(axis=0)
            scale = np.where(scale > 0, scale, 1.0)
            source, target = (source - centre) / scale, (target - centre) / scale
        codes = np.searchsorted(classes, labels), np.searchsorted(classes, truth)
        yield f"{first}>{second}", source, codes[0], target, codes[1]


def measure(pair: tuple[str, Matrix, Matrix, Matrix, Matrix], methods: list[str], seed: int) -> dict[str, Any]:
    """Fit every candidate on one pair; let every rule choose; then look at the target's labels."""
    _, source, codes, target, truth = pair
    rules = {entry.name: entry.load()() for entry in entries("rule")}
    needs = frozenset[str]().union(*(need for rule in rules.values() for need in rule.needs))
    base = base_classifier(source, codes, seed=seed)
    rivals = try_candidates(make_candidates(methods, base), source, codes, target, needs=needs, seed=seed)
    found: dict[str, Any] = {"accuracy": {}, "cpu_seconds": {}, "failed": {}, "chosen": {}, "penalty": base.C}
    present = np.unique(codes)
    for rival in rivals:
        found["cpu_seconds"][rival.name] = round(rival.cpu_seconds, 2)
        if isinstance(rival.evidence, FailedCandidate):
            found["failed"][rival.name] = rival.evidence.reason[:200]
        else:
            answers = present[rival.evidence.target_probabilities_mk.argmax(axis=1)]
            found["accuracy"][rival.name] = float((answers == truth).mean())
    pools = {"default": {NO_ADAPTATION, *DEFAULT_CANDIDATES}, "all": {rival.name for rival in rivals}}
    for name, rule in rules.items():
        for pool, allowed in pools.items():
            evidence: dict[str, CandidateEvidence | FailedCandidate] = {
                rival.name: rival.evidence for rival in rivals if rival.name in allowed
            }
            started = time.process_time()
            try:
                choice = select(evidence, rule, no_adaptation=NO_ADAPTATION)
            except HeadstartError as error:
                found["failed"][f"rule {name}"] = str(error)[:200]
                continue
            found["chosen"].setdefault(pool, {})[name] = choice.chosen
            scores = {key: score.value if score.is_judged else None for key, score in choice.scores.items()}
            found.setdefault("scores", {})[name] = scores
            found.setdefault("rule_cpu_seconds", {})[name] = round(time.process_time() - started, 2)
    return found


def summary(stored: dict[str, Any]) -> dict[str, Any]:
    """Return what the grid says: methods by gain, rules by the accuracy of what they choose."""
    cells = [(key.split("|")[0], with_default_pool(entry)) for key, entry in stored.items() if "|" in key]
    sets = sorted({name for name, _ in cells})
    methods = sorted({method for _, entry in cells for method in entry["accuracy"]} - {NO_ADAPTATION})
    table: dict[str, Any] = {"pairs": len(cells), "methods": {}, "rules": {}, "source_only": {}}
    for name in sets:
        table["source_only"][name] = _mean([e["accuracy"][NO_ADAPTATION] for n, e in cells if n == name])
    for method in methods:
        gains = [(n, e["accuracy"][method] - e["accuracy"][NO_ADAPTATION]) for n, e in cells if method in e["accuracy"]]
        by_set = {name: _mean([gain for n, gain in gains if n == name]) for name in sets}
        values = np.array([gain for _, gain in gains])
        table["methods"][method] = {
            "gain": _mean([value for value in by_set.values() if value is not None]),
            "by_set": by_set,
            "wins": float((values > 0.01).mean()),
            "losses": float((values < -0.01).mean()),
            "worst": float(values.min()),
            "pairs": len(values),
        }
    first = {NO_ADAPTATION, *DEFAULT_CANDIDATES}
    for pool in ("default", "all"):
        for rule in sorted({rule for _, e in cells for rule in e["chosen"].get(pool, {})}):
            picks = [(n, e, e["chosen"][pool][rule]) for n, e in cells if rule in e["chosen"].get(pool, {})]
            gains = [(n, e["accuracy"][pick] - e["accuracy"][NO_ADAPTATION]) for n, e, pick in picks]
            values = np.array([gain for _, gain in gains])
            by_set = {name: _mean([gain for n, gain in gains if n == name]) for name in sets}
            table["rules"][f"{rule}, {pool}"] = {
                "gain": _mean([value for value in by_set.values() if value is not None]),
                "by_set": by_set,
                "losses": float((values < -0.01).mean()),
                "stays": float(np.mean([pick == NO_ADAPTATION for _, _, pick in picks])),
                "worst": float(values.min()),
            }
        best = [
            (n, max(v for m, v in e["accuracy"].items() if pool == "all" or m in first) - e["accuracy"][NO_ADAPTATION])
            for n, e in cells
        ]
        for rule in ("circular-validation", "rank-consensus"):
            if all(rule in entry.get("scores", {}) for _, entry in cells):
                allowed = first if pool == "default" else None
                table["rules"][f"{rule}, margin of the other sets, {pool}"] = margins(cells, sets, rule, allowed)
        oracle = {name: _mean([gain for n, gain in best if n == name]) for name in sets}
        table["rules"][f"oracle (unreachable), {pool}"] = {"gain": _mean(list(oracle.values())), "by_set": oracle}
    return table


def with_default_pool(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry whose picks among the default candidates are those of today's defaults, as far as scores alone say them."""
    first = {NO_ADAPTATION, *DEFAULT_CANDIDATES}
    picks = {}
    for rule, scores in entry.get("scores", {}).items():
        own = {name: value for name, value in scores.items() if value is not None and name in first}
        kind = find(rule, "rule").load()()
        if NO_ADAPTATION not in own or not isinstance(kind, CandidateRule):
            continue  # rules that set candidates against each other depend on the pool
        best = max(own, key=lambda name: (own[name], name == NO_ADAPTATION))
        picks[rule] = best if own[best] > own[NO_ADAPTATION] + kind.default_margin else NO_ADAPTATION
    return {**entry, "chosen": {**entry["chosen"], "default": picks}}


def margins(
    cells: list[tuple[str, dict[str, Any]]], sets: list[str], rule: str, allowed: set[str] | None
) -> dict[str, Any]:
    """Return a rule's gain at each margin, and at the margin that was best on the *other* data sets."""

    def gain(entry: dict[str, Any], margin: float) -> float:
        scores = {n: v for n, v in entry["scores"][rule].items() if v is not None and (allowed is None or n in allowed)}
        if NO_ADAPTATION not in scores:
            return 0.0
        best = max(scores, key=lambda name: (scores[name], name == NO_ADAPTATION))
        pick = best if scores[best] > scores[NO_ADAPTATION] + margin else NO_ADAPTATION
        return float(entry["accuracy"][pick] - entry["accuracy"][NO_ADAPTATION])

    table = {
        margin: {name: _mean([gain(entry, margin) for n, entry in cells if n == name]) or 0.0 for name in sets}
        for margin in MARGINS
    }
    chosen, held_out = {}, {}
    for name in sets:
        others = {margin: np.mean([line[n] for n in sets if n != name]) for margin, line in table.items()}
        chosen[name] = max(others, key=lambda margin: others[margin]) if len(sets) > 1 else MARGINS[0]
        held_out[name] = table[chosen[name]][name]
    worst = min(gain(entry, chosen[name]) for name, entry in cells)
    losses = float(np.mean([gain(entry, chosen[name]) < -0.01 for name, entry in cells]))
    return {
        "gain_by_margin": {str(margin): _mean(list(line.values())) for margin, line in table.items()},
        "margin_chosen_on_other_sets": chosen,
        "by_set": held_out,
        "gain": _mean(list(held_out.values())),
        "losses": losses,
        "worst": worst,
    }


def _mean(values: list[Any]) -> float | None:
    return float(np.mean(values)) if values else None


def slim(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a pair's entry without what the summary says once, its figures to four places."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(item) for key, item in value.items()}
        return round(value, 4) if isinstance(value, float) else value

    return {key: rounded(value) for key, value in entry.items() if key not in {"versions", "hardware"}}


def show(table: dict[str, Any]) -> None:
    """Print gains in points."""
    sets = list(table["source_only"])
    print("source only  ", "  ".join(f"{name} {100 * table['source_only'][name]:.1f}" for name in sets))
    for kind in ("methods", "rules"):
        print(f"\n{kind:34s} gain   " + "  ".join(f"{name[:9]:>9s}" for name in sets) + "   losses  worst")
        for name, line in sorted(table[kind].items(), key=lambda item: -item[1]["gain"]):
            cells = "  ".join(
                "        –" if value is None else f"{100 * value:+9.1f}" for value in line["by_set"].values()
            )
            more = f"{100 * line['losses']:6.0f} % {100 * line['worst']:+6.1f}" if "losses" in line else ""
            print(f"{name:34s} {100 * (line['gain'] or 0):+5.1f}  {cells}   {more}")


def main() -> None:
    """Run what is asked for, then the summary."""
    parser = argparse.ArgumentParser(description="Aligners and rules over the shared data.")
    parser.add_argument("--only", default="")
    parser.add_argument("--methods", default="")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure pairs that are stored already")
    parser.add_argument("--summary", action="store_true", help="only summarise what is stored")
    arguments = parser.parse_args()
    methods = [name for name in arguments.methods.split(",") if name] or [
        entry.name for entry in entries("aligner") if entry.installed and not entry.details
    ]
    for name in [] if arguments.summary else [name for name in arguments.only.split(",") if name] or list(SETS):
        known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        for seed in range(arguments.seeds):
            for pair in pairs(name, SETS[name](), arguments.rows, seed):
                key = f"{name}|{pair[0]}|{seed}"
                if key in known and not arguments.again:
                    continue
                found = measure(pair, methods, seed)
                store_result(RESULTS, key, {**found, "rows": [len(pair[1]), len(pair[3])]})
                best = max(found["accuracy"], key=found["accuracy"].get)
                print(
                    f"{key:34s} source only {100 * found['accuracy'][NO_ADAPTATION]:5.1f}  best {best} "
                    f"{100 * found['accuracy'][best]:.1f}  failed {sorted(found['failed'])}",
                    flush=True,
                )
    stored = {key: slim(entry) for key, entry in json.loads(RESULTS.read_text(encoding="utf-8")).items()}
    write_text(RESULTS, json.dumps(stored).replace('}, "', '},\n"') + "\n")
    table = summary(stored)
    show(table)
    store_result(RESULTS.with_name("adaptation_grid_summary.json"), "summary", table)


if __name__ == "__main__":
    main()
