"""Aligners beside the toolkits a user would pick instead: CPU seconds on one thread, one run, and whether the answers agree.

    python benchmarks/alignment_speed.py [--peers PATH] [--rows 2000] [--width 512] [--only coral,tca] [--growth] [--large]

PATH is a Python interpreter with skada, adapt and POT installed; without it only headstart is measured. Every side of every job
runs in a process of its own on the same rows, after a small run that pays for imports. ``--growth`` measures how CORAL and
subspace alignment grow with rows and features (and draws it), ``--large`` the peak memory of 100,000 + 100,000 rows.
A job is one entry of JOBS: functions of the two domains, each returning what to time; headstart's side is called "headstart".
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transport_jobs import kmm_headstart, kmm_skada, same_objective, sinkhorn_headstart, sinkhorn_pot

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "alignment_speed.json"
Timed = Callable[[], dict[str, np.ndarray]]
Side = Callable[[np.ndarray, np.ndarray], Timed]
Arrays = dict[str, np.ndarray]
COMPONENTS, MU = 30, 1.0


@dataclass(frozen=True)
class Job:
    """What is timed on each side, and how a peer's answer is compared with headstart's.

    Parameters
    ----------
    sides : dict of str to callable
        Name of the toolkit to a function of source and target that prepares and returns the timed call.
    compare : callable
        From source, target, headstart's arrays and the peer's to what is printed and stored.
    """

    sides: dict[str, Side]
    compare: Callable[[np.ndarray, np.ndarray, Arrays, Arrays], dict[str, Any]]


def skada_sides(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return skada's form: stacked rows and domain numbers, source first (it returns them so whatever the order)."""
    return np.concatenate([source, target]), np.repeat([1, -1], [len(source), len(target)])


def coral_headstart(source: np.ndarray, target: np.ndarray) -> Timed:
    from headstart.alignment import CORAL

    return lambda: {"source": CORAL(0.0).fit_transform(source, None, target)}


def coral_skada(source: np.ndarray, target: np.ndarray) -> Timed:
    from skada import CORALAdapter

    rows, domains = skada_sides(source, target)
    return lambda: {"source": CORALAdapter(reg=0.0).fit_transform(rows, sample_domain=domains)[: len(source)]}


def coral_adapt(source: np.ndarray, target: np.ndarray) -> Timed:
    from adapt.feature_based import CORAL

    return lambda: {"source": CORAL(lambda_=1e-12, verbose=0).fit_transform(source, target)}


def moved_alike(_: np.ndarray, __: np.ndarray, ours: Arrays, theirs: Arrays) -> dict[str, Any]:
    """Compare aligned source rows around their mean (adapt does not match means)."""
    one, other = (part["source"] - part["source"].mean(axis=0) for part in (ours, theirs))
    gap = np.abs(one - other).max() / np.abs(one).max()
    return {"largest_difference": float(gap), "agrees": bool(gap < 1e-4)}


def linear_ot_headstart(source: np.ndarray, target: np.ndarray) -> Timed:
    from headstart.alignment import LinearOT

    return lambda: {"source": LinearOT(0.0).fit_transform(source, None, target)}


def linear_ot_skada(source: np.ndarray, target: np.ndarray) -> Timed:
    from skada import LinearOTMappingAdapter

    rows, domains = skada_sides(source, target)
    return lambda: {
        "source": LinearOTMappingAdapter(reg=1e-12).fit_transform(rows, sample_domain=domains)[: len(source)]
    }


def linear_ot_pot(source: np.ndarray, target: np.ndarray) -> Timed:
    from ot.da import LinearTransport

    def timed() -> Arrays:
        return {"source": LinearTransport(reg=1e-12).fit(Xs=source, Xt=target).transform(Xs=source)}

    return timed


def subspace_headstart(source: np.ndarray, target: np.ndarray) -> Timed:
    from headstart.alignment import SubspaceAlignment

    def timed() -> Arrays:
        aligner = SubspaceAlignment(COMPONENTS).fit(source, None, target)
        ones = np.ones(len(source), dtype=int)
        return {"source": aligner.transform(source, sample_domain=ones), "target": aligner.transform(target)}

    return timed


def subspace_skada(source: np.ndarray, target: np.ndarray) -> Timed:
    from skada import SubspaceAlignmentAdapter

    rows, domains = skada_sides(source, target)
    wanted = min(COMPONENTS, source.shape[1])

    def timed() -> Arrays:
        moved = SubspaceAlignmentAdapter(n_components=wanted).fit_transform(rows, sample_domain=domains)
        return {"source": moved[: len(source)], "target": moved[len(source) :]}

    return timed


def subspace_adapt(source: np.ndarray, target: np.ndarray) -> Timed:
    from adapt.feature_based import SA

    wanted = min(COMPONENTS, source.shape[1])

    def timed() -> Arrays:
        aligner = SA(n_components=wanted, verbose=0)
        moved = aligner.fit_transform(source, target)
        return {"source": moved, "target": aligner.transform(target)}

    return timed


def same_products(source: np.ndarray, target: np.ndarray, ours: Arrays, theirs: Arrays) -> dict[str, Any]:
    """Compare inner products between source and target rows, which do not depend on signs of axes, with full decompositions.

    The peers take scikit-learn's randomised PCA here, which is an approximation.
    """
    centred = [rows - rows.mean(axis=0) for rows in (source, target)]
    axes = [np.linalg.svd(rows, full_matrices=False)[2][: ours["source"].shape[1]].T for rows in centred]
    exact = centred[0] @ axes[0] @ axes[0].T @ axes[1] @ (centred[1] @ axes[1]).T
    found = [part["source"] @ part["target"].T for part in (ours, theirs)]
    gaps = [float(np.abs(part - exact).max() / np.abs(exact).max()) for part in found]
    return {"ours_from_exact": gaps[0], "theirs_from_exact": gaps[1], "agrees": bool(gaps[1] < 1e-4)}


def tca_headstart(source: np.ndarray, target: np.ndarray) -> Timed:
    from headstart.alignment import TCA

    stacked = np.concatenate([source, target])
    spread = np.sqrt(np.square(stacked - stacked.mean(axis=0)).sum(axis=1).mean())
    options: dict[str, Any] = {
        "regularisation": MU / (1 / len(source) + 1 / len(target)),
        "bandwidth": np.sqrt(source.shape[1] / 2) / spread,  # the peers' kernel: exp(-|x - z|^2 / d)
        "normalise_rows": False,
    }

    def timed() -> Arrays:
        aligner = TCA(COMPONENTS, kernel="rbf", **options)
        aligner.fit_transform(source, None, target)
        return {"vectors": aligner.map_}

    return timed


def tca_skada(source: np.ndarray, target: np.ndarray) -> Timed:
    from skada import TransferComponentAnalysisAdapter

    rows, domains = skada_sides(source, target)

    def timed() -> Arrays:
        adapter = TransferComponentAnalysisAdapter(n_components=COMPONENTS, mu=1 / MU)
        adapter.fit_transform(rows, sample_domain=domains)
        return {"vectors": adapter.eigvects_}

    return timed


def tca_adapt(source: np.ndarray, target: np.ndarray) -> Timed:
    from adapt.feature_based import TCA

    def timed() -> Arrays:
        aligner = TCA(n_components=COMPONENTS, mu=1 / MU, kernel="rbf", verbose=0)
        aligner.fit_transform(source, target)
        return {"vectors": aligner.vectors_}

    return timed


def same_criterion(source: np.ndarray, target: np.ndarray, ours: Arrays, theirs: Arrays) -> dict[str, Any]:
    """Compare TCA's criterion, tr((W'(KLK + mu I)W)^-1 W'KHKW): the larger is the better answer, and the largest is unique.

    Both peers hand (I + KLK/mu)^-1 KHK, which is not symmetric, to a solver for symmetric matrices.
    """
    rows = np.concatenate([source, target])
    squares = np.square(rows).sum(axis=1)
    kernel = np.exp(-np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0) / rows.shape[1])
    means = kernel @ np.repeat([1 / len(source), -1 / len(target)], [len(source), len(target)])
    found, gaps = [], []
    for vectors in (ours["vectors"], theirs["vectors"]):
        projected = kernel @ vectors
        centred = projected - projected.mean(axis=0)
        moved = vectors.T @ means
        below = MU * vectors.T @ vectors + np.outer(moved, moved)
        found.append(float(np.trace(np.linalg.solve(below, centred.T @ centred))))
        gaps.append(float(moved @ moved * len(rows) / np.square(centred).sum()))
    return {
        "criterion_ours": found[0],
        "criterion_theirs": found[1],
        "share": found[1] / found[0],
        "squared_gap_of_means_over_variance": gaps,
        "agrees": bool(abs(found[1] / found[0] - 1) < 1e-6),
    }


JOBS: dict[str, Job] = {
    "coral": Job({"headstart": coral_headstart, "skada": coral_skada, "adapt": coral_adapt}, moved_alike),
    "linear_ot": Job({"headstart": linear_ot_headstart, "skada": linear_ot_skada, "POT": linear_ot_pot}, moved_alike),
    "subspace": Job({"headstart": subspace_headstart, "skada": subspace_skada, "adapt": subspace_adapt}, same_products),
    "tca": Job({"headstart": tca_headstart, "skada": tca_skada, "adapt": tca_adapt}, same_criterion),
    "kmm": Job({"headstart": kmm_headstart, "skada": kmm_skada}, same_objective),
    "sinkhorn": Job({"headstart": sinkhorn_headstart, "POT": sinkhorn_pot}, moved_alike),
    # further jobs: one entry each
}


def two_domains(num_rows: int, width: int, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """Return rows shaped like a network's last layer, correlated; the target has another mixture and another mean."""
    draws = np.random.default_rng(0)
    domains = []
    for _ in range(2):
        mixing = draws.normal(size=(64, width)) / 8
        rows = draws.standard_normal((num_rows, width), dtype=np.float32).astype(dtype, copy=False)
        rows *= 0.5
        for start in range(0, num_rows, 10_000):
            block = rows[start : start + 10_000]
            block += (draws.normal(size=(len(block), 64)) @ mixing).astype(dtype)
        rows += draws.normal(size=width).astype(dtype) / 4
        domains.append(rows)
    return domains[0], domains[1]


def run_side(job: str, side: str, folder: Path) -> None:
    """Child process: time one side and leave its arrays in ``folder``."""
    rows = np.load(folder / "rows.npz")
    source, target = rows["source"], rows["target"]
    JOBS[job].sides[side](source[:100, :40], target[:100, :40])()
    timed = JOBS[job].sides[side](source, target)
    start = time.process_time()
    answer = timed()
    seconds = time.process_time() - start
    np.savez(folder / f"{side}.npz", **answer)
    print(json.dumps({"cpu_seconds": seconds}))


def child(arguments: list[str], interpreter: str = sys.executable) -> dict[str, Any]:
    """Run this script once more on one thread and return the last line it prints."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [interpreter, __file__, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message"}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def beside_peers(job: str, num_rows: int, width: int, peers: str | None) -> dict[str, Any]:
    """Return CPU seconds of every side of a job, ratios to headstart's and comparisons of answers."""
    source, target = two_domains(num_rows, width)
    result: dict[str, Any] = {"rows": [num_rows, num_rows], "width": width, "threads": 1, "runs": 1, "sides": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "rows.npz", source=source, target=target)
        for side in JOBS[job].sides:
            if side != "headstart" and peers is None:
                continue
            interpreter = sys.executable if side == "headstart" else str(peers)
            result["sides"][side] = child(["--child", job, side, name], interpreter)
        ours = dict(np.load(folder / "headstart.npz"))
        for side, measured in result["sides"].items():
            if side != "headstart" and "cpu_seconds" in measured:
                measured["times_headstart"] = measured["cpu_seconds"] / result["sides"]["headstart"]["cpu_seconds"]
                measured.update(JOBS[job].compare(source, target, ours, dict(np.load(folder / f"{side}.npz"))))
    return result


def time_growth(name: str, num_rows: int, width: int) -> float:
    """Return CPU seconds of one fit and both transforms."""
    from headstart.alignment import CORAL, SubspaceAlignment

    source, target = two_domains(num_rows, width)
    aligner = CORAL() if name == "coral" else SubspaceAlignment(COMPONENTS)
    start = time.process_time()
    aligner.fit(source, None, target).transform(source, sample_domain=np.ones(num_rows, dtype=int))
    aligner.transform(target)
    return time.process_time() - start


def growth() -> dict[str, Any]:
    """Return CPU seconds over rows (512 features) and over features (2,000 rows), and draw them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows, widths = [1000, 2000, 4000, 8000, 16_000, 32_000], [64, 128, 256, 512, 1024, 2048]
    result: dict[str, Any] = {"threads": 1, "rows": rows, "widths": widths}
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    time_growth("coral", 200, 20)
    for name in ("coral", "subspace"):
        by_rows = [time_growth(name, count, 512) for count in rows]
        by_width = [time_growth(name, 2000, width) for width in widths]
        result[name] = {"over_rows": by_rows, "over_width": by_width}
        axes[0].loglog(rows, by_rows, "o-", label=name)
        axes[1].loglog(widths, by_width, "o-", label=name)
    axes[0].set(xlabel="rows in each domain (512 features)", ylabel="CPU seconds")
    axes[1].set(xlabel="features (2,000 rows in each domain)")
    axes[0].legend(frameon=False)
    figure.savefig(HERE / "results" / "alignment_growth.svg")
    return result


def resident() -> int:
    """Return the resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def run_large(name: str, num_rows: int, width: int) -> None:
    """Child process: peak memory above the data, and CPU seconds, of one fit and both transforms."""
    from headstart.alignment import CORAL, SubspaceAlignment

    aligner = CORAL() if name == "coral" else SubspaceAlignment(COMPONENTS)
    source, target = two_domains(num_rows, width, np.float32)
    with_data, start = resident(), time.process_time()
    aligner.fit(source, None, target)
    moved = aligner.transform(source, sample_domain=np.ones(num_rows, dtype=int)), aligner.transform(target)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    data, answer = source.nbytes + target.nbytes, sum(part.nbytes for part in moved if part is not target)
    summary = {"cpu_seconds": seconds, "peak_above_data_mb": (peak - with_data) / 1e6, "answer_mb": answer / 1e6}
    print(json.dumps({**summary, "data_mb": data / 1e6, "rows": [num_rows, num_rows], "width": width}))


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="interpreter with skada, adapt and POT")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--only", default=",".join(JOBS))
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--large-child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_side(options.child[0], options.child[1], Path(options.child[2]))
        return
    if options.large_child:
        run_large(options.large_child, 100_000, 512)
        return
    from threadpoolctl import threadpool_limits

    from record import store_result

    for job in filter(None, options.only.split(",")):
        result = beside_peers(job, options.rows, options.width, options.peers)
        for side, measured in result["sides"].items():
            print(f"{job:10} {side:10} {measured}", flush=True)
        store_result(RESULTS, f"{job}_n{options.rows}_d{options.width}", result)
    if options.growth:
        with threadpool_limits(1):
            result = growth()
        print(json.dumps(result, indent=1))
        store_result(RESULTS, "growth", result)
    if options.large:
        for name in ("coral", "subspace"):
            result = child(["--large-child", name])
            print(f"{name:10} {result}", flush=True)
            store_result(RESULTS, f"large_{name}", result)


if __name__ == "__main__":
    main()
