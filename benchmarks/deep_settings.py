"""Networks for other problems: several sources, an unseen target, a few target labels, absent and unknown classes.

    python benchmarks/deep_settings.py [--settings several,unseen,few,partial,open,universal] [--only pacs,heart]
                                       [--turns 3] [--cells 4] [--rows 300] [--steps 200] [--folder FOLDER] [--summary]
                                       [--no-store]

The same layers, steps and rates as in `deep_adaptation` (`adaptation_evidence.network`), defaults throughout, answers after the
last step. ``several``: each domain in turn is the unlabelled target of all others. ``unseen``: the same, and no row of the target
is there while networks learn; a quarter of each source is held out and says how the sources themselves are answered. ``few``:
ordered pairs with three labelled target rows a class. ``partial``: the target has half of the classes. ``open``: the source lacks
half of them; ``universal``: either side has classes of its own; rows of no source class are to be called unknown (OS*, UNK and
HOS of `headstart.evaluation.open_set`).
What chooses, none of it by target labels: for several sources the paired circular test among "do not adapt", the networks and
their committee, going there and back as `headstart adapt` does; for an unseen target the accuracy on held-out source rows, as is
usual there; for a few labels and absent classes the paired circular test between source-only and one method, by a ridge from the
answers back to the source; for unknown classes nothing does.
With ``--turns 1`` every pair is measured with one of three seeds, each domain being source and target once in each seed; with
``--turns 3``, the default, with all three. Each cell is kept as it comes, and what is there is left. Intervals are bootstraps of
pairs (targets), each drawn with all its seeds.
Needs the shared data (HEADSTART_SHARED). One thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adaptation_evidence import network
from adaptation_grid import Domains
from deep_adaptation import interval
from headstart.alignment import AdaptedClassifier
from headstart.core.errors import HeadstartError
from headstart.core.files import write_json
from headstart.core.places import cache_folder
from headstart.evaluation.open_set import open_set_scores
from headstart.evaluation.selection import CandidateEvidence, CircularTest, select
from headstart.methods import AdaptedNetwork
from headstart.model.predictions import entropy_above
from headstart.workflow.adaptations import NO_ADAPTATION, base_classifier, hold_out, try_entrants
from headstart.workflow.committee import add_committee
from headstart.workflow.entrants import Entrant
from headstart.workflow.network_rivals import FittedNetwork
from headstart.workflow.several_sources import ApartClassifier, FittedApart, SourceNumbers, tells_sources_apart
from record import ROOT, store_result
from settings_cells import Cell, left_out, open_set, partial, universal, with_few
from shifted_sets import ALL

Matrix = NDArray[Any]
Figures = dict[str, dict[str, float]]
RESULTS = ROOT / "benchmarks" / "results" / "deep_settings.json"
FOLDER = cache_folder() / "deep_settings"
SEEDS = 3
SOURCE_ONLY, THRESHOLD, SELECTED = "source-only", "source-only, threshold", "selected"
SEVERAL = ("multi-domain-dann", "m3sda", "mdan", "deep-coral", "deep-jdot")
UNSEEN = (SOURCE_ONLY, "erm", "dg-coral", "groupdro", "irm", "vrex")
PARTIAL = ("dann", "pada", "partial", "deep-jdot", "mcc")
CERTAIN = 0.95  # of held-out source rows that keep their answer under a threshold
FAILURES = (HeadstartError, ValueError, ArithmeticError, np.linalg.LinAlgError)


def accuracy(table: Matrix, truth: Matrix) -> float:
    """Return the share of rows named rightly."""
    return float((table.argmax(axis=1) == truth).mean())


def apart(one: AdaptedNetwork, rows: Matrix, codes: Matrix, domains: Matrix, target: Matrix) -> AdaptedNetwork:
    """Return a network fitted on labelled rows of several domains, which it is told, and target rows."""
    labels = np.concatenate([codes, np.repeat(codes[:1], len(target))])
    where = np.concatenate([domains, np.full(len(target), -1)])
    fitted: AdaptedNetwork = one.fit(np.concatenate([rows, target]), labels, sample_domain=where)
    return fitted


def several_sources(cell: Cell, steps: int) -> tuple[Figures, dict[str, float]]:
    """Return figures on the target of several sources; candidates go there and back as in `headstart adapt`."""
    rows, rule = (cell.source, cell.target), CircularTest()
    numbers, base = SourceNumbers(cell.source, cell.domains), base_classifier(cell.source, cell.codes, seed=cell.seed)
    entrants = [Entrant(NO_ADAPTATION, AdaptedClassifier(None, base), *rows)]
    for method in SEVERAL:
        one = network(method, cell.data_set, steps, cell.seed)
        told = tells_sources_apart(one)
        kind = FittedApart if told else FittedNetwork
        entrants.append(Entrant(method, ApartClassifier(one, numbers) if told else one, *rows, kind))
    rivals = add_committee(try_entrants(entrants, cell.codes, needs=rule.wants, seed=cell.seed))
    chosen = select({rival.name: rival.evidence for rival in rivals}, rule, no_adaptation=NO_ADAPTATION).chosen
    alone = network(SOURCE_ONLY, cell.data_set, steps, cell.seed).fit(cell.source, cell.codes, cell.target)
    tables = {SOURCE_ONLY: alone.predict_proba(cell.target)}
    tables |= {rival.name: rival.fitted.target_scores for rival in rivals if rival.fitted is not None}
    found = {name: {"accuracy": accuracy(table, cell.truth)} for name, table in tables.items()}
    best = max(one["accuracy"] for one in found.values())
    found |= {SELECTED: found[chosen], "oracle": {"accuracy": best}}
    return found, {rival.name: rival.cpu_seconds for rival in rivals}


def unseen_target(cell: Cell, steps: int) -> tuple[Figures, dict[str, float]]:
    """Return figures on a target that no network has seen a row of, and on the sources' rows held out."""
    learn, judge = [], []
    for number in np.unique(cell.domains):
        places = np.flatnonzero(cell.domains == number)
        first, second = hold_out(cell.codes[places], cell.seed)
        learn, judge = [*learn, places[first]], [*judge, places[second]]
    taught, found, seconds = np.concatenate(learn), Figures(), {}
    for method in UNSEEN:
        one, started = network(method, cell.data_set, steps, cell.seed), time.process_time()
        rows = cell.source[taught], cell.codes[taught], cell.domains[taught]
        try:
            fitted = apart(one, *rows, rows[0])  # the sources stand in the place of the target
        except FAILURES:
            continue
        seconds[method] = time.process_time() - started
        sources = [accuracy(fitted.predict_proba(cell.source[part]), cell.codes[part]) for part in judge]
        found[method] = {
            "accuracy": accuracy(fitted.predict_proba(cell.target), cell.truth),
            "sources held out": float(np.mean(sources)),
            "worst source held out": float(np.min(sources)),
        }
    chosen = max(found, key=lambda name: found[name]["sources held out"])
    best = max(found.values(), key=lambda one: one["accuracy"])
    return {**found, SELECTED: found[chosen], "oracle": best}, seconds


def few_labels(cell: Cell, steps: int) -> tuple[Figures, dict[str, float]]:
    """Return figures where three target rows of each class have labels, which teach and do not choose."""
    rows = np.concatenate([cell.source, cell.few.astype(cell.source.dtype)])
    codes = np.concatenate([cell.codes, cell.few_codes])
    where = np.concatenate([cell.domains, np.full(len(cell.few), 2)])

    def made(method: str, balanced: bool = False) -> AdaptedNetwork:
        one = network(method, cell.data_set, steps, cell.seed)
        recipe = one.recipe
        settings = {"balance": "domains"}
        return one.set_params(recipe=lambda loss: replace(recipe(loss), settings=settings)) if balanced else one

    fits: dict[str, Callable[[], Any]] = {
        SOURCE_ONLY: lambda: made(SOURCE_ONLY).fit(cell.source, cell.codes, cell.target),
        "few labels alone": lambda: AdaptedClassifier(None, base_classifier(cell.few, cell.few_codes)).fit(
            cell.few, cell.few_codes
        ),
        "source and few as one": lambda: made(SOURCE_ONLY).fit(rows, codes, cell.target),
        "source and few equally often": lambda: apart(made("erm"), rows, codes, where, cell.target),
        "entropy, equally often": lambda: apart(made("entropy", True), rows, codes, where, cell.target),
        "mme": lambda: apart(made("mme"), rows, codes, where, cell.target),
        "deep-jdot, few as one": lambda: made("deep-jdot").fit(rows, codes, cell.target),
    }
    return _taken_or_left(cell, fits)


def absent_classes(cell: Cell, steps: int) -> tuple[Figures, dict[str, float]]:
    """Return figures where the target has half of the source's classes; how much is given to the others, too."""

    def fit(method: str) -> Callable[[], Any]:
        return lambda: network(method, cell.data_set, steps, cell.seed).fit(cell.source, cell.codes, cell.target)

    return _taken_or_left(cell, {method: fit(method) for method in (SOURCE_ONLY, *PARTIAL)})


def _taken_or_left(cell: Cell, fits: dict[str, Callable[[], Any]]) -> tuple[Figures, dict[str, float]]:
    """Return each fit's figures, and what the paired circular test makes of it against source-only."""
    judge, found, seconds = hold_out(cell.codes, cell.seed)[1], Figures(), {}
    evidence: dict[str, CandidateEvidence] = {}
    for name, fit in fits.items():
        started = time.process_time()
        try:
            table = np.asarray(fit().predict_proba(cell.target))
        except FAILURES:
            continue
        seconds[name] = time.process_time() - started
        evidence[name] = CandidateEvidence(
            target_probabilities_mk=table,
            source_labels_v=cell.codes[judge],
            source_features_vr=cell.source[judge],
            target_features_mr=cell.target,
        )
        here = np.unique(cell.truth)
        found[name] = {
            "accuracy": accuracy(table, cell.truth),
            "to absent classes": float((~np.isin(table.argmax(axis=1), here)).mean()),
        }
    for name in found:
        two = {SOURCE_ONLY: evidence[SOURCE_ONLY], name: evidence[name]}
        chosen = select(two, CircularTest(), no_adaptation=SOURCE_ONLY).chosen
        found[name]["taken or left"] = found[chosen]["accuracy"]
    return found, seconds


def unknown_classes(cell: Cell, steps: int) -> tuple[Figures, dict[str, float]]:
    """Return OS*, UNK and HOS where target rows may be of no source class."""
    known, found, seconds = cell.num_classes, Figures(), {}

    def judged(answers: Matrix, unknown: Matrix) -> dict[str, float]:
        figures = open_set_scores(cell.truth, np.where(unknown, known, answers), known)
        return dict(zip(("known", "unknown", "both"), figures, strict=True))

    for method in (SOURCE_ONLY, "osbp", "dance"):
        started = time.process_time()
        try:
            fitted = network(method, cell.data_set, steps, cell.seed).fit(cell.source, cell.codes, cell.target)
        except FAILURES:
            continue
        seconds[method] = time.process_time() - started
        table, unknown = np.asarray(fitted.predict_proba(cell.target)), fitted.unknown(cell.target)
        answers = table.argmax(axis=1)
        found[method] = judged(answers, np.zeros(len(table), bool) if unknown is None else unknown)
        if method != SOURCE_ONLY:
            continue
        found["source-only, entropy above half"] = judged(answers, entropy_above(table, 0.5))
        learn, judge = hold_out(cell.codes, cell.seed)
        part = network(method, cell.data_set, steps, cell.seed).fit(cell.source[learn], cell.codes[learn], cell.target)
        least = np.quantile(part.predict_proba(cell.source[judge]).max(axis=1), 1 - CERTAIN)
        found[THRESHOLD] = judged(answers, table.max(axis=1) < least)
    return found, seconds


@dataclass(frozen=True)
class Setting:
    """A kind of problem: its data sets, its cells, how one is measured, which figures count, the first against whose."""

    sets: tuple[str, ...]
    cells: Callable[..., Iterator[Cell]]
    measure: Callable[[Cell, int], tuple[Figures, dict[str, float]]]
    figures: tuple[str, ...]
    against: str = SOURCE_ONLY


IMAGES = ("pacs", "office_caltech")
SETTINGS = {
    "several": Setting((*IMAGES, "heart", "amazon"), left_out, several_sources, ("accuracy",)),
    "unseen": Setting(
        (*IMAGES, "heart", "amazon"),
        left_out,
        unseen_target,
        ("accuracy", "sources held out", "worst source held out"),
    ),
    "few": Setting(IMAGES, with_few, few_labels, ("accuracy", "taken or left")),
    "partial": Setting(IMAGES, partial, absent_classes, ("accuracy", "to absent classes", "taken or left")),
    "open": Setting(IMAGES, open_set, unknown_classes, ("both", "known", "unknown"), THRESHOLD),
    "universal": Setting(IMAGES, universal, unknown_classes, ("both", "known", "unknown"), THRESHOLD),
}


@dataclass(frozen=True)
class Measured:
    """A cell's figures as they were kept."""

    data_set: str
    name: str
    figures: Figures
    cpu_seconds: dict[str, float]


def load(folder: Path) -> list[Measured]:
    """Read the cells of one setting."""
    found = []
    for place in sorted(folder.glob("*/*.json")):
        stored = json.loads(place.read_text(encoding="utf-8"))
        found.append(Measured(place.parent.name, place.stem, stored["figures"], stored["cpu_seconds"]))
    return found


def summary(cells: Sequence[Measured], setting: Setting) -> dict[str, Any]:
    """Return each method's figures by data set, and its first figure against source-only (a threshold)."""
    sets = [name for name in setting.sets if any(cell.data_set == name for cell in cells)]
    methods = list(dict.fromkeys(name for cell in cells for name in cell.figures))
    first, table = setting.figures[0], {}
    for method in methods:
        here = [cell for cell in cells if method in cell.figures]
        gains = [cell.figures[method][first] - cell.figures[setting.against][first] for cell in here]
        seconds = [cell.cpu_seconds[method] for cell in here if method in cell.cpu_seconds]
        line: dict[str, Any] = {
            figure: {
                name: float(np.mean([cell.figures[method][figure] for cell in here if cell.data_set == name]))
                for name in sets
                if any(cell.data_set == name for cell in here)
            }
            for figure in setting.figures
        }
        for figure in setting.figures:
            line[figure]["mean"] = interval(here, [cell.figures[method][figure] for cell in here])  # type: ignore[arg-type]
        table[method] = {
            **line,
            "gain": interval(here, gains),  # type: ignore[arg-type]
            "wins": float(np.mean(np.array(gains) > 0.01)),
            "losses": float(np.mean(np.array(gains) < -0.01)),
            "worst": float(np.min(gains)),
            "broke_off": len(cells) - len(here),
            "cpu_seconds": float(np.median(seconds)) if seconds else None,
        }
    counts = {name: sum(cell.data_set == name for cell in cells) for name in sets}
    names = [f"{cell.data_set}: {cell.name}" for cell in cells]
    return {"methods": table, "cells": counts, "names": names, "seeds": len({name.split("@")[1] for name in names})}


def show(name: str, found: dict[str, Any], setting: Setting) -> None:
    """Print a setting's table in points."""
    sets = list(found["cells"])
    print(f"\n{name}: {found['cells']}, {found['seeds']} seeds")
    for method, line in found["methods"].items():
        cells = "  ".join(
            f"{figure} " + " ".join(f"{100 * line[figure].get(one, np.nan):5.1f}" for one in sets)
            + f" mean {100 * line[figure]['mean'][0]:5.1f}"
            for figure in setting.figures
        )  # fmt: skip
        gain, seconds = line["gain"], line["cpu_seconds"] or np.nan
        print(
            f"{method:34s} {cells}  gain {100 * gain[0]:+.1f} ({100 * gain[1]:+.1f} to {100 * gain[2]:+.1f})  "
            f"wins {100 * line['wins']:.0f} % losses {100 * line['losses']:.0f} % worst {100 * line['worst']:+.1f}  "
            f"broke off {line['broke_off']}  {seconds:.1f} s"
        )


def one_cell(place: Path, cell: Cell, setting: Setting, steps: int) -> None:
    """Measure a cell that is not there yet, and keep it."""
    started = time.process_time()
    figures, seconds = setting.measure(cell, steps)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_json(place, {"figures": figures, "cpu_seconds": seconds})
    shown = " ".join(f"{name} {100 * one[setting.figures[0]]:.0f}" for name, one in figures.items())
    print(
        f"{place.parent.parent.name} {cell.data_set} {cell.name} {time.process_time() - started:.1f} s: {shown}",
        flush=True,
    )


def in_turn(cells: Callable[..., Iterator[Cell]], name: str, domains: Domains, most: int, turn: int) -> Iterator[Cell]:
    """Give every pair (target) once, each with the seed whose turn it is."""
    places = {domain: place for place, domain in enumerate(domains)}
    for seed in range(SEEDS):
        for cell in cells(name, domains, most, seed):
            ends = [places[end] for end in cell.name.split("@")[0].split(">")]
            number = (ends[1] - ends[0]) % len(places) - 1 if len(ends) > 1 else ends[0]
            if (number + turn) % SEEDS == seed:
                yield cell


def main() -> None:
    """Measure what is asked for and not there yet, turn by turn, and make the tables."""
    parser = argparse.ArgumentParser(description="Deep adaptation in other settings, on frozen features.")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--only", default="")
    parser.add_argument("--turns", type=int, default=SEEDS)
    parser.add_argument(
        "--cells", type=int, default=None, help="at most so many of a data set in a turn, in their order"
    )
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--summary", action="store_true", help="only summarise what is there")
    parser.add_argument("--store", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    wanted = arguments.settings.split(",")
    only = {name for name in arguments.only.split(",") if name}
    sets = dict.fromkeys(data_set for name in wanted for data_set in SETTINGS[name].sets)
    domains = {name: ALL[name]() for name in sets if (not only or name in only) and not arguments.summary}
    for turn in range(0 if arguments.summary else arguments.turns):
        for name in wanted:
            for data_set in [one for one in SETTINGS[name].sets if one in domains]:
                cells = in_turn(SETTINGS[name].cells, data_set, domains[data_set], arguments.rows, turn)
                for cell in itertools.islice(cells, arguments.cells):
                    place = arguments.folder / name / data_set / f"{cell.name}.json"
                    if not place.exists():
                        one_cell(place, cell, SETTINGS[name], arguments.steps)
    for name in wanted:
        if kept := load(arguments.folder / name):
            found = summary(kept, SETTINGS[name])
            show(name, found, SETTINGS[name])
            if arguments.store:
                store_result(RESULTS, name, {**found, "rows": arguments.rows, "steps": arguments.steps})


if __name__ == "__main__":
    main()
