"""Adapted networks beside published tables whose protocol can be followed: Amazon reviews, and digits by a small network.

    python benchmarks/deep_published.py amazon [--seeds 3] [--steps 200]
    python benchmarks/deep_published.py digits [--seeds 3] [--steps 560] [--only usps]
    python benchmarks/deep_published.py summary                     of what is stored

Amazon: Ganin et al., JMLR 2016, table 1: 5,000 counts, 2,000 labelled source reviews, the target's 2,000 training reviews without
labels, its test reviews (3,586 to 5,945) judged. One hidden layer of 50 sigmoid units, as in the authors' own example. The number
of steps was set by source reviews held out (books and kitchen), before any target label was looked at. The authors' code stops by
source reviews held out; how their paper chose further settings was not read again. Here every method keeps its defaults.
Digits: the table of criteo-research/pytorch-ada (docs/benchmarks.rst, five runs) and its network from random weights: three
convolutions of 64, 64 and 128 channels with BatchNorm, a classifier with two hidden layers of 100, a critic with one that learns
at the network's rate, 32 x 32 pixels. Theirs learns from 60,000 digits of MNIST for 120 epochs by SGD; here there are the 10,000
of its test part, 4 epochs (USPS) and 9 (MNIST-M), and AdamW. USPS, which fills its 16 x 16 pixels, is framed as MNIST is, whose
digits fill 20 x 20 of 28 x 28; MNIST-M is made of patches of other photographs (`benchmarks/shifts.py`).
One setting, the last step, all seeds; nothing is tuned but the frame of USPS, which was changed after target accuracies without
it had been seen (source-only 25.1). "Selected" is what the paired circular test takes without target
labels, among all methods and their committee: of reviews by going there and back, of digits by the features of source rows set
aside. Needs the shared data (HEADSTART_SHARED). One thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import clone
from torch import nn

from adaptation_grid import DATA as SHARED
from amazon_reviews import DATA, DOMAINS, PUBLISHED, rows
from headstart.catalog import read_recipe
from headstart.core.errors import HeadstartError
from headstart.evaluation.selection import CandidateEvidence, CircularTest, committee_evidence, select
from headstart.methods import AdaptedNetwork, adapt_module
from headstart.methods.adaptations import AdaptationRecipe, LossOf
from headstart.methods.adaptations.adversarial import cdan, dann
from headstart.methods.adaptations.heads import steps_to_epochs
from headstart.training import Phase, TrainingConfig
from headstart.workflow.adaptations import hold_out
from record import ROOT, store_result
from shifts import digits_on_photos, photos

Matrix = NDArray[Any]
Run = dict[str, float | str]
RESULTS = ROOT / "benchmarks" / "results" / "deep_published.json"
SOURCE_ONLY, COMMITTEE, SELECTED = "source-only", "committee", "selected"
BOTH_STATISTICS = "source-only, statistics of both"
REVIEW_METHODS = (SOURCE_ONLY, "dann", "cdan", "deep-coral", "deep-jdot", "mcc")
LAYERS = "dense50-sigmoid-softmax"
HELD_OUT = 1000  # digits of MNIST that no network learns from
_BORDER = 4  # pixels of 28 that MNIST leaves free around its digits, and USPS does not
PUBLISHED_DIGITS = {
    "mnist>usps": {BOTH_STATISTICS: 0.942, "dann": 0.938, "cdan": 0.907, "dan": 0.950, "jan": 0.895},
    "mnist>mnist-m": {BOTH_STATISTICS: 0.340, "dann": 0.375, "cdan": 0.684, "dan": 0.470, "jan": 0.529},
}


def right(probabilities_mk: Matrix, truth_m: Matrix) -> float:
    """Return the share of rows named rightly."""
    return float((probabilities_mk.argmax(axis=1) == truth_m).mean())


def judged(evidence: Mapping[str, CandidateEvidence], answers: Mapping[str, Matrix], truth: Matrix) -> Run:
    """Return the accuracy of every candidate, of their committee and of what the rule takes, which sees evidence alone."""
    candidates = {**evidence, COMMITTEE: committee_evidence(list(evidence.values()))}
    tables = {**answers, COMMITTEE: np.mean([answers[name] for name in evidence], axis=0)}
    chosen = select(candidates, CircularTest(), no_adaptation=SOURCE_ONLY).chosen
    found: Run = {name: right(table, truth) for name, table in tables.items()}
    return {**found, SELECTED: right(tables[chosen], truth), "chosen": chosen}


def review_pair(stored: Any, source: str, target: str, steps: int, seed: int) -> Run:
    """Train every network from one domain of reviews to another."""
    parts = [rows(stored, source, "train"), rows(stored, target, "train"), rows(stored, target, "test")]
    (learn, codes), (unlabelled, _), (test, truth) = ((matrix.toarray(), labels) for matrix, labels in parts)
    training, judging = hold_out(codes, seed)
    evidence, answers = dict[str, CandidateEvidence](), dict[str, Matrix]()
    for name in REVIEW_METHODS:
        estimator = AdaptedNetwork(read_recipe(name), layers=LAYERS, num_steps=steps, seed=seed)
        try:
            fitted = clone(estimator).fit(learn, codes, unlabelled)
        except HeadstartError as error:
            print(f"{source}>{target} {name}: broke off: {str(error)[:100]}", flush=True)
            continue
        answers[name] = fitted.predict_proba(test)
        evidence[name] = CandidateEvidence(
            target_probabilities_mk=fitted.predict_proba(unlabelled),
            target_rows_md=unlabelled,
            source_rows_vd=learn[judging],
            source_labels_v=codes[judging],
            source_training_nd=learn[training],
            source_training_labels_n=codes[training],
            refit=lambda there, labels, here, one=estimator: clone(one).fit(there, labels, here),
        )
    return judged(evidence, answers, truth)


def amazon(seeds: int, steps: int) -> None:
    """Run the twelve pairs, and store each as it comes."""
    runs = dict[str, list[Run]]()
    with np.load(DATA) as stored:
        for source, target in itertools.permutations(DOMAINS, 2):
            name = f"{source}>{target}"
            runs[name] = [review_pair(stored, source, target, steps, seed) for seed in range(seeds)]
            store_result(RESULTS, "amazon_runs", {"runs": runs, "steps": steps, "layers": LAYERS})
            print(name, shown(runs[name]), flush=True)


def small_network(channels: int) -> tuple[nn.Module, nn.Module]:
    """Return the convolutions and the classifier of the published table, from random weights."""
    convolutions = nn.Sequential(
        nn.Conv2d(channels, 64, 5), nn.BatchNorm2d(64), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(64, 64, 5), nn.BatchNorm2d(64), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(64, 128, 5), nn.BatchNorm2d(128), nn.Sigmoid(), nn.Flatten(),
    )  # fmt: skip
    classifier = nn.Sequential(
        nn.Linear(128, 100), nn.BatchNorm1d(100), nn.ReLU(), nn.Dropout(),
        nn.Linear(100, 100), nn.BatchNorm1d(100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip
    return convolutions, classifier


def both_statistics(loss: LossOf) -> AdaptationRecipe:
    """Return the published table's "Source": target rows add no loss, but run along and move BatchNorm's statistics."""
    return AdaptationRecipe((Phase((loss("main"),)),))


DIGIT_METHODS: dict[str, Callable[[LossOf], AdaptationRecipe]] = {
    SOURCE_ONLY: read_recipe(SOURCE_ONLY),
    BOTH_STATISTICS: both_statistics,
    "dann": lambda loss: replace(dann(loss, widths=(100,)), own_rate=1.0),
    "cdan": lambda loss: replace(cdan(loss, widths=(100,)), own_rate=1.0),
    "dan": read_recipe("dan"),
    "jan": read_recipe("jan"),
}


def pictures(pixels: Matrix, border: int = 0) -> Matrix:
    """Return pictures of 32 x 32 pixels, channels first, from -1 to 1; with a border of so many of 28 pixels around."""
    inner = 32 - round(32 * 2 * border / 28)
    enlarged = np.stack(
        [np.asarray(Image.fromarray(one).resize((inner, inner), Image.Resampling.BILINEAR)) for one in pixels]
    )
    rows = enlarged[:, None] if enlarged.ndim == 3 else enlarged.transpose(0, 3, 1, 2)
    around = (32 - inner) // 2
    framed = np.pad(rows, ((0, 0), (0, 0), (around, 32 - inner - around), (around, 32 - inner - around)))
    return np.asarray((framed.astype(np.float32) / 255 - 0.5) / 0.5)


def digit_domains(name: str) -> dict[str, tuple[Matrix, Matrix]]:
    """Return labelled source rows, source rows set aside, target rows to adapt to and target rows to answer for."""
    with np.load(SHARED / "digits" / "mnist_t10k.npz") as stored:
        mnist, labels = stored["images"], stored["labels"].astype(np.int64)
    if name == "mnist>usps":
        with np.load(SHARED / "digits" / "usps.npz") as stored:
            usps, codes, test = stored["images"], stored["labels"].astype(np.int64), stored["split"] == 1
        source = pictures(mnist)
        learn, aside = (source[HELD_OUT:], labels[HELD_OUT:]), (source[:HELD_OUT], labels[:HELD_OUT])
        here, there = (pictures(usps[part], _BORDER) for part in (~test, test))
        return {"learn": learn, "aside": aside, "adapt": (here, codes[~test]), "test": (there, codes[test])}
    source = pictures(np.repeat(mnist[: 5 * HELD_OUT, ..., None], 3, axis=3))
    patched = pictures(digits_on_photos(mnist[5 * HELD_OUT :], photos()))  # no digit is in two of the four parts
    return {
        "learn": (source[HELD_OUT:], labels[HELD_OUT : 5 * HELD_OUT]),
        "aside": (source[:HELD_OUT], labels[:HELD_OUT]),
        "adapt": (patched[:-HELD_OUT], labels[5 * HELD_OUT : -HELD_OUT]),
        "test": (patched[-HELD_OUT:], labels[-HELD_OUT:]),
    }


def digit_pair(name: str, domains: Mapping[str, tuple[Matrix, Matrix]], steps: int, seed: int) -> Run:
    """Train every network from MNIST to another domain of digits."""
    (learn, codes), (aside, known) = domains["learn"], domains["aside"]
    (adapt, _), (test, truth) = domains["adapt"], domains["test"]
    config = TrainingConfig(
        weight_decay=0.01,
        batch_size=64,
        max_epochs=steps_to_epochs(steps, len(learn), len(adapt), 64),
        precision="fp32",
        restore_best=False,
        seed=seed,
        threads=1,
    )
    torch.manual_seed(seed)
    body, head = small_network(learn.shape[1])
    evidence, answers, on_source = dict[str, CandidateEvidence](), dict[str, Matrix](), Run()
    for method, recipe in DIGIT_METHODS.items():
        started = time.process_time()
        try:
            fitted = adapt_module(body, learn, codes, adapt, recipe=recipe, head=head, config=config)
        except HeadstartError as error:
            print(f"{name} {method}: broke off: {str(error)[:100]}", flush=True)
            continue
        on_source[f"{method} on the source"] = right(fitted.predict_proba(aside), known)
        answers[method] = fitted.predict_proba(test)
        if method != BOTH_STATISTICS:
            evidence[method] = CandidateEvidence(
                target_probabilities_mk=fitted.predict_proba(adapt[:2000]),
                target_features_mr=fitted.features(adapt[:2000]),
                source_features_vr=fitted.features(aside),
                source_labels_v=known,
            )
        accuracy, spent = right(answers[method], truth), time.process_time() - started
        print(f"{name} seed {seed} {method}: {100 * accuracy:.1f} %, {spent:.0f} CPU s", flush=True)
    return {**judged(evidence, answers, truth), **on_source}


def digits(seeds: int, steps: int, only: str) -> None:
    """Run the pairs asked for, and store each run as it comes, beside those of the other pair."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8")).get("digits_runs", {}) if RESULTS.exists() else {}
    runs, taken = dict(kept.get("runs", {})), dict(kept.get("steps", {}))
    for name in [name for name in PUBLISHED_DIGITS if only in name]:
        domains, runs[name], taken[name] = digit_domains(name), [], steps
        for seed in range(seeds):
            runs[name].append(digit_pair(name, domains, steps, seed))
            store_result(RESULTS, "digits_runs", {"runs": runs, "steps": taken})
            print(name, shown(runs[name][-1:]), flush=True)


def shown(runs: list[Run]) -> list[Run]:
    """Return runs in percent."""
    return [{k: v if isinstance(v, str) else round(100 * v, 1) for k, v in run.items()} for run in runs]


def table(runs: Mapping[str, list[Run]], name: str) -> Matrix:
    """Return one column of all pairs and seeds; NaN where a network broke off."""
    return np.array([[float(run.get(name, np.nan)) for run in line] for line in runs.values()])


def interval(units: Matrix, draws: int = 2000) -> list[float]:
    """Return the mean, and a 95 % bootstrap interval over what is drawn: pairs with all their seeds, or seeds of one pair."""
    random = np.random.default_rng(0)
    drawn = units[random.integers(len(units), size=(draws, len(units)))].mean(axis=1)
    return [float(units.mean()), float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))]


def review_summary(runs: Mapping[str, list[Run]]) -> dict[str, Any]:
    """Return means of all pairs, gains over source-only with intervals over pairs, and better and worse pairs."""
    base, found = np.nanmean(table(runs, SOURCE_ONLY), axis=1), dict[str, Any]()
    for name in (*REVIEW_METHODS, COMMITTEE, SELECTED):
        means = np.nanmean(table(runs, name), axis=1)
        gains = means - base
        found[name] = {
            "mean": interval(means),
            "gain": interval(gains),
            "wins": int((gains > 0.01).sum()),
            "losses": int((gains < -0.01).sum()),
            "worst": float(gains.min()),
            "by_pair": dict(zip(runs, means.tolist(), strict=True)),
            "broke_off": int(np.isnan(table(runs, name)).sum()),
        }
    chosen = [str(run["chosen"]) for line in runs.values() for run in line]
    return {
        "methods": found,
        "chosen": {name: chosen.count(name) for name in sorted(set(chosen))},
        "published": PUBLISHED,
    }


def digit_summary(runs: Mapping[str, list[Run]]) -> dict[str, Any]:
    """Return means and intervals over seeds of each pair, on the target and on the source, beside the published means."""
    found: dict[str, Any] = {}
    for pair, line in runs.items():
        only, names = {pair: line}, (*DIGIT_METHODS, COMMITTEE, SELECTED)
        methods = {name: interval(table(only, name)[0]) for name in names}
        source = {name: float(np.nanmean(table(only, f"{name} on the source"))) for name in DIGIT_METHODS}
        chosen = [str(run["chosen"]) for run in line]
        found[pair] = {"methods": methods, "on_source": source, "chosen": chosen, "published": PUBLISHED_DIGITS[pair]}
    return found


def summary() -> None:
    """Print and store the tables of what is stored."""
    stored = json.loads(RESULTS.read_text(encoding="utf-8"))
    if "amazon_runs" in stored:
        found = review_summary(stored["amazon_runs"]["runs"])
        for name, line in found["methods"].items():
            mean, gain = (
                "{:.1f} ({:.1f} to {:.1f})".format(*(100 * np.array(line[part]))) for part in ("mean", "gain")
            )
            print(f"{name:12s} {mean}   gain {gain}   better {line['wins']} worse {line['losses']} of 12")
        print("chosen", found["chosen"], {name: round(100 * float(np.mean(it)), 1) for name, it in PUBLISHED.items()})
        store_result(RESULTS, "amazon", found)
    if "digits_runs" in stored:
        both = digit_summary(stored["digits_runs"]["runs"])
        for pair, found in both.items():
            for name, line in found["methods"].items():
                said, seen = found["published"].get(name), found["on_source"].get(name, np.nan)
                print(f"{pair} {name:32s}", "{:.1f} ({:.1f} to {:.1f})".format(*(100 * np.array(line))), seen, said)
            print(pair, found["chosen"])
        store_result(RESULTS, "digits", both)


def main() -> None:
    """Run what is asked for, then the tables."""
    parser = argparse.ArgumentParser(description="Adapted networks beside published tables.")
    parser.add_argument("which", choices=("amazon", "digits", "summary"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="pairs of digits whose name contains this")
    parser.add_argument(
        "--steps", type=int, default=0, help="about so many; 200 for reviews and 560 for digits when left out"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.which == "amazon":
        amazon(arguments.seeds, arguments.steps or 200)
    if arguments.which == "digits":
        digits(arguments.seeds, arguments.steps or 560, arguments.only)
    summary()


if __name__ == "__main__":
    main()
