"""All that a rule of choice may read of every candidate on every pair of domains, gathered once: rules are then tried in seconds.

    python benchmarks/adaptation_evidence.py [--folder FOLDER] [--only surf,pacs] [--methods coral,tca] [--only-return]
                                             [--seeds 3] [--from-seed 1] [--rows 500] [--steps 200] [--no-return]

One folder a pair with ``pair.npz`` (rows, source labels, which source rows are held out, and the target's labels, which only
judge) and one file a candidate: probabilities of target rows, of held-out source rows and of the source rows on the way back, and
what the rules need that look at features: density ratio, clusters, effective rank, consistency of mixed rows.
``--only-return`` keeps probabilities of target rows and of the way back alone: two fits a candidate instead of three;
``--no-return`` those of target rows alone. Methods are aligners or recipes of networks (`deep_adaptation.network`: the same
layers, steps and rates for all). What is there already is left and what a file lacks is added to it, if the candidate still gives
the same answers; else the file is made anew. Pairs gathered with other rows are left. `benchmarks/gathered_pairs.py` and
`benchmarks/deep_adaptation.py` read this.
Needs the shared data (HEADSTART_SHARED). One thread.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone

from adaptation_grid import pairs
from headstart.alignment import AdaptedClassifier, FeatureAligner
from headstart.catalog import entries, read_recipe
from headstart.core.errors import HeadstartError
from headstart.core.places import cache_folder
from headstart.evaluation.selecting.row_order import canonical_order
from headstart.evaluation.selecting.structure import effective_rank
from headstart.evaluation.selection import CandidateEvidence, ClassAMI, MixVal, density_ratio
from headstart.methods import AdaptedNetwork
from headstart.workflow.adaptations import NO_ADAPTATION, base_classifier, hold_out, make_candidates
from shifted_sets import ALL

Matrix = NDArray[Any]
SEEDS = {"heart": 2, "digits": 3, "wine": 3}
TABLES = {"heart", "wine"}
NETWORKS = [entry.name for entry in entries("adaptation")]
FOLDER = cache_folder() / "adaptation_evidence"
ANSWERS = frozenset({"target"})
RETURN = ANSWERS | {"back"}
EXTENTS = {
    "answers": ANSWERS,
    "return": RETURN,
    "all": RETURN | {"source", "target_partial", "weights", "clusters", "mixval", "rank", "width"},
}


class Shared:
    """What every candidate of a pair has in common, worked out once."""

    def __init__(self, source: Matrix, codes: Matrix, target: Matrix, seed: int) -> None:
        self.source, self.codes, self.target = source, np.unique(codes, return_inverse=True)[1], target
        self.num_classes = int(self.codes.max()) + 1
        self.learn, self.judge = hold_out(self.codes, seed)
        self.base = base_classifier(source, self.codes, seed=seed)
        self._unchanged: dict[str, Any] = {}

    def once(self, name: str, work: Any, unchanged: bool) -> Any:
        """Return a result over rows as they came from memory; over changed rows work it out."""
        if not unchanged:
            return work()
        if name not in self._unchanged:
            self._unchanged[name] = work()
        return self._unchanged[name]


def seen(fitted: Any, rows: Matrix, sample_domain: Matrix | None) -> Matrix:
    """Return rows as the adapted classifier sees them."""
    aligner = getattr(fitted, "aligner_", None)
    if isinstance(aligner, FeatureAligner):
        return np.asarray(aligner.transform(rows, sample_domain=sample_domain))
    return rows


def spread(probabilities: Matrix, classes: Matrix, num_classes: int) -> Matrix:
    """Return probabilities with a column for every class, also those the classifier never met."""
    table = np.zeros((len(probabilities), num_classes), dtype=np.float32)
    table[:, np.asarray(classes, dtype=int)] = probabilities
    return table


def network(method: str, name: str, steps: int, seed: int) -> AdaptedNetwork:
    """Return the network of one recipe on a data set; the same for all but what it minimises."""
    table = name in TABLES
    return AdaptedNetwork(
        read_recipe(method),
        layers="dense64-relu-dense64-relu" if table else "dense256-relu",
        scaling="columns" if table else "whole",
        num_steps=steps,
        seed=seed,
    )


def lacks(place: Path, extent: str) -> bool:
    """Return whether a candidate's file is not there or holds less than is asked for; one that failed holds all it can."""
    if not place.exists():
        return True
    with np.load(place) as stored:
        held = {"back" if name == "back_failed" else name for name in stored.files}
    return "failed" not in held and not EXTENTS[extent] <= held


def gather(estimator: Any, shared: Shared, extent: str, known: dict[str, Any]) -> dict[str, Any]:
    """Fit a candidate and return what rules read of it: what is known, where it still gives these answers, and what lacks."""
    started = time.process_time()
    fitted = clone(estimator).fit(shared.source, shared.codes, shared.target)
    target = fitted.predict_proba(shared.target).astype(np.float32)
    same = "target" in known and np.array_equal(known["target"].argmax(axis=1), target.argmax(axis=1))
    found: dict[str, Any] = dict(known) if same else {"target": target}
    wanted = EXTENTS[extent]
    if wanted >= RETURN and not {"back", "back_failed"} & set(found):
        found |= back(estimator, shared, target.argmax(axis=1))
    if wanted == EXTENTS["all"]:
        found |= looks(estimator, fitted, shared, found)
    return {**found, "cpu": float(found.get("cpu", 0.0)) + time.process_time() - started}


def looks(estimator: Any, fitted: Any, shared: Shared, found: dict[str, Any]) -> dict[str, Any]:
    """Return what rules need beside the way back, as far as it is not found yet."""
    more: dict[str, Any] = {}
    as_source = np.ones(len(shared.judge), dtype=np.int64)
    if not {"source", "target_partial"} <= set(found):
        partial = clone(estimator).fit(shared.source[shared.learn], shared.codes[shared.learn], shared.target)
        options = {"sample_domain": as_source} if isinstance(partial, AdaptedClassifier) else {}
        more["source"] = partial.predict_proba(shared.source[shared.judge], **options).astype(np.float32)
        more["target_partial"] = partial.predict_proba(shared.target).astype(np.float32)
    features, source_features = seen(fitted, shared.target, None), seen(fitted, shared.source[shared.judge], as_source)
    unchanged = features is shared.target
    evidence = CandidateEvidence(
        target_probabilities_mk=found["target"],
        target_features_mr=features,
        target_rows_md=shared.target,
        predict_target=fitted.predict_proba,
    )
    if "weights" not in found:
        more["weights"] = shared.once("ratio", lambda: density_ratio(source_features, features), unchanged)
    if "clusters" not in found:
        more["clusters"] = shared.once("clusters", lambda: ClassAMI().clusters(evidence), unchanged)
    if "mixval" not in found:
        more["mixval"] = MixVal().consistency(evidence)
    rank = shared.once("rank", lambda: effective_rank(features), unchanged)
    return {**more, "rank": rank, "width": features.shape[1]}


def back(estimator: Any, shared: Shared, pseudo: Matrix) -> dict[str, Any]:
    """Return probabilities of all source rows after adapting back from the target's answers to the rows learnt from."""
    if (pseudo == pseudo[0]).all():
        table = np.zeros((len(shared.source), shared.num_classes), dtype=np.float32)
        table[:, pseudo[0]] = 1.0
    else:
        try:
            model = clone(estimator).fit(shared.target, pseudo, shared.source[shared.learn])
            table = spread(model.predict_proba(shared.source), np.unique(pseudo), shared.num_classes)
        except (HeadstartError, ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            return {"back_failed": str(error)[:200]}
    return {"back": table}


def main() -> None:
    """Gather what is asked for and not there yet."""
    parser = argparse.ArgumentParser(description="Evidence for rules of choice.")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--only", default="")
    parser.add_argument("--methods", default="")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--from-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200)
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--only-return", dest="extent", action="store_const", const="return", default="all")
    extent.add_argument("--no-return", dest="extent", action="store_const", const="answers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    methods = [name for name in arguments.methods.split(",") if name] or [
        entry.name for entry in entries("aligner") if entry.installed and not entry.details
    ]
    warnings.simplefilter("ignore")
    for name in [name for name in arguments.only.split(",") if name] or list(ALL):
        domains = ALL[name]()
        for seed in range(arguments.from_seed, arguments.seeds or SEEDS.get(name, 1)):
            for pair in pairs(name, domains, arguments.rows, seed):
                one_pair(arguments.folder / name / f"{pair[0]}@{seed}", pair, methods, seed, arguments)


def one_pair(folder: Path, pair: Any, methods: list[str], seed: int, arguments: argparse.Namespace) -> None:
    """Gather one pair's candidates that are not there yet, or not in full."""
    _, source, codes, target, truth = pair
    wanted = [name for name in (NO_ADAPTATION, *methods) if lacks(folder / f"{name}.npz", arguments.extent)]
    if not wanted:
        return
    if (folder / "pair.npz").exists():
        with np.load(folder / "pair.npz") as stored:
            gathered = stored["source"], stored["target"]
        both = zip(gathered, (source, target), strict=True)
        if any(old.shape != new.shape or not np.allclose(old, new, rtol=1e-5, atol=1e-4) for old, new in both):
            print(f"{folder.parent.name} {folder.name} left: gathered with other rows", flush=True)
            return
    folder.mkdir(parents=True, exist_ok=True)
    started, shared = time.process_time(), Shared(source, codes, target, seed)
    present = np.unique(codes)
    np.savez(
        folder / "pair.npz",
        source=source.astype(np.float32),
        codes=shared.codes,
        target=target.astype(np.float32),
        truth=np.where(np.isin(truth, present), np.searchsorted(present, truth), -1),
        learn=shared.learn,
        judge=shared.judge,
        order=canonical_order(target),
        penalty=shared.base.C,
    )
    trained = [name for name in wanted if name in NETWORKS]
    candidates: dict[str, Any] = dict(
        make_candidates([name for name in wanted if name not in (NO_ADAPTATION, *trained)], shared.base)
    )
    candidates |= {name: network(name, folder.parent.name, arguments.steps, seed) for name in trained}
    failed, stale = 0, list[str]()
    for name, estimator in candidates.items():
        if name not in wanted:
            continue
        place = folder / f"{name}.npz"
        known = dict(np.load(place)) if place.exists() else {}
        try:
            found = gather(estimator, shared, arguments.extent, known)
        except (HeadstartError, ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            found, failed = {"failed": str(error)[:200]}, failed + 1
        before, now = (part.get("target", np.zeros((0, 1))).argmax(axis=1) for part in (known, found))
        stale += [name] if known and not np.array_equal(before, now) else []
        np.savez(place, **found)
    spent = time.process_time() - started
    print(f"{folder.parent.name} {folder.name} {spent:.1f} s, {failed} failed, made anew: {stale}", flush=True)


if __name__ == "__main__":
    main()
