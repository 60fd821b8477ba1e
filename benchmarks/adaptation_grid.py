"""Which aligner helps on which data: the grid over the shared data, and where it hurts.

    python benchmarks/adaptation_grid.py [--only surf,pacs] [--methods coral,tca] [--rows 300] [--seeds 1] [--again] [--summary]

For every ordered pair of domains of every data set: at most ``--rows`` rows a domain, features on one scale as `headstart adapt`
makes them, logistic regression whose penalty the source's folds choose, every aligner of the catalog at its defaults beside
"do not adapt". Target labels are used for the last column alone, after every choice. A method's gain is its accuracy less that of
"do not adapt" on the same pair; a win or a loss is more than one point. Which rule chooses among them is `selection_rules`.
Each pair is kept as it comes; aligners that a pair lacks, or that failed there, are added to it if "do not adapt" still answers
as it did, else all are fitted again. The summary is made from what is there.
Needs the shared data (HEADSTART_SHARED). One thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import open_backbone
from headstart.catalog import entries
from headstart.core.files import write_text
from headstart.core.progress import Progress
from headstart.data import open_dataset
from headstart.evaluation.selection import FailedCandidate
from headstart.features import extract_features
from headstart.workflow.adaptations import NO_ADAPTATION, base_classifier, make_candidates, try_candidates
from record import ROOT, store_result

DATA = Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared")) / "data"
RESULTS = ROOT / "benchmarks" / "results" / "adaptation_grid.json"
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


Pair = tuple[str, Matrix, Matrix, Matrix, Matrix]


def measure(pair: Pair, methods: list[str], seed: int) -> dict[str, Any]:
    """Fit every candidate on one pair; then look at the target's labels."""
    _, source, codes, target, truth = pair
    base = base_classifier(source, codes, seed=seed)
    rivals = try_candidates(make_candidates(methods, base), source, codes, target, needs=frozenset(), seed=seed)
    found: dict[str, Any] = {"accuracy": {}, "cpu_seconds": {}, "failed": {}, "penalty": base.C}
    present = np.unique(codes)
    for rival in rivals:
        found["cpu_seconds"][rival.name] = round(rival.cpu_seconds, 2)
        if isinstance(rival.evidence, FailedCandidate):
            found["failed"][rival.name] = rival.evidence.reason[:200]
        else:
            answers = present[rival.evidence.target_probabilities_mk.argmax(axis=1)]
            found["accuracy"][rival.name] = float((answers == truth).mean())
    return found


def completed(known: dict[str, Any], pair: Pair, methods: list[str], seed: int) -> dict[str, Any]:
    """Return a pair's entry with the aligners it lacks, or with all anew where "do not adapt" answers otherwise than it did."""
    found = measure(pair, [name for name in methods if name not in known["accuracy"]], seed)
    before, now = known["accuracy"][NO_ADAPTATION], found["accuracy"][NO_ADAPTATION]
    if abs(before - now) > 1e-4:
        every = dict.fromkeys((*methods, *known["accuracy"]))
        return measure(pair, [name for name in every if name != NO_ADAPTATION], seed)
    failed = {name: reason for name, reason in known["failed"].items() if name not in found["accuracy"]}
    return {
        "accuracy": {**known["accuracy"], **found["accuracy"]},
        "cpu_seconds": {**known["cpu_seconds"], **found["cpu_seconds"]},
        "failed": {**failed, **found["failed"]},
        "penalty": found["penalty"],
    }


def one_pair(key: str, pair: Pair, methods: list[str], seed: int, again: bool) -> None:
    """Measure a pair, or what it lacks, and store it."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")).get(key) if RESULTS.exists() else None
    if known is not None and not again and set(methods) <= {*known["accuracy"], *known["failed"]}:
        return
    found = measure(pair, methods, seed) if known is None or again else completed(known, pair, methods, seed)
    store_result(RESULTS, key, {**found, "rows": [len(pair[1]), len(pair[3])]})
    best = max(found["accuracy"], key=found["accuracy"].get)
    print(
        f"{key:34s} source only {100 * found['accuracy'][NO_ADAPTATION]:5.1f}  best {best} "
        f"{100 * found['accuracy'][best]:.1f}  failed {sorted(found['failed'])}",
        flush=True,
    )


def summary(stored: dict[str, Any]) -> dict[str, Any]:
    """Return what the grid says of every aligner: gains by data set, shares of pairs it wins and loses, its worst pair."""
    cells = [(key.split("|")[0], entry) for key, entry in stored.items() if "|" in key]
    sets = sorted({name for name, _ in cells})
    methods = sorted({method for _, entry in cells for method in entry["accuracy"]} - {NO_ADAPTATION})
    table: dict[str, Any] = {"pairs": {name: sum(n == name for n, _ in cells) for name in sets}, "methods": {}}
    stay = {name: [entry["accuracy"][NO_ADAPTATION] for n, entry in cells if n == name] for name in sets}
    table["source_only"] = {name: float(np.mean(values)) for name, values in stay.items()}
    for method in methods:
        gains = [(n, e["accuracy"][method] - e["accuracy"][NO_ADAPTATION]) for n, e in cells if method in e["accuracy"]]
        values = np.array([gain for _, gain in gains])
        by_set = {name: [gain for n, gain in gains if n == name] for name in sets}
        means = {name: float(np.mean(part)) for name, part in by_set.items() if part}
        table["methods"][method] = {
            "gain": float(np.mean(list(means.values()))),
            "by_set": means,
            "wins": float((values > 0.01).mean()),
            "losses": float((values < -0.01).mean()),
            "worst": float(values.min()),
            "pairs": len(values),
            "failed": sum(method in entry["failed"] for _, entry in cells),
        }
    return table


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
    print(f"\n{'':24s} gain   " + "  ".join(f"{name[:9]:>9s}" for name in sets) + "    wins  losses  worst  pairs")
    for name, line in sorted(table["methods"].items(), key=lambda item: -item[1]["gain"]):
        gains = [line["by_set"].get(one) for one in sets]
        cells = "  ".join("        –" if value is None else f"{100 * value:+9.1f}" for value in gains)
        shares = f"{100 * line['wins']:4.0f} % {100 * line['losses']:4.0f} % {100 * line['worst']:+6.1f}"
        print(f"{name:24s} {100 * line['gain']:+5.1f}  {cells}   {shares}  {line['pairs']}")


def main() -> None:
    """Run what is asked for, then the summary."""
    parser = argparse.ArgumentParser(description="Aligners over the shared data.")
    parser.add_argument("--only", default="")
    parser.add_argument("--methods", default="")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure pairs that are stored already")
    parser.add_argument("--summary", action="store_true", help="only summarise what is stored")
    arguments = parser.parse_args()
    methods = [name for name in arguments.methods.split(",") if name] or [
        entry.name for entry in entries("aligner") if entry.installed and not entry.details
    ]
    for name in [] if arguments.summary else [name for name in arguments.only.split(",") if name] or list(SETS):
        for seed in range(arguments.seeds):
            for pair in pairs(name, SETS[name](), arguments.rows, seed):
                one_pair(f"{name}|{pair[0]}|{seed}", pair, methods, seed, arguments.again)
    stored = {key: slim(entry) for key, entry in json.loads(RESULTS.read_text(encoding="utf-8")).items()}
    write_text(RESULTS, json.dumps(stored).replace('}, "', '},\n"') + "\n")
    table = summary(stored)
    show(table)
    store_result(RESULTS.with_name("adaptation_grid_summary.json"), "summary", table)


if __name__ == "__main__":
    main()
