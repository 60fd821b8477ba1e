"""Distances between domains: MK-MMD against an (n, n, d) tensor for each kernel, growth with n and d, peak memory of streams.

    OMP_NUM_THREADS=1 python benchmarks/distances.py [--part mmd] [--part growth] [--part memory] [--rows 100000]

The baseline is written here: for each of five kernels every pair of rows is subtracted feature by feature, as libraries for
adversarial adaptation do it. Both are given the same torch tensors and compute their own bandwidths; the median of alternating
runs counts, in CPU seconds of one thread. Memory is the peak resident set of a process of its own for each measure, the two
domains (float32, made in place) and every imported library included.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from headstart.distances import (
    coral_distance,
    energy_distance,
    gaussian_frechet_distance,
    linear_time_mmd,
    mk_mmd,
    proxy_a_distance,
    sinkhorn_divergence,
    sliced_wasserstein,
)
from record import ROOT, store_result

RESULTS = ROOT / "benchmarks" / "results" / "distances.json"
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
STREAMS: dict[str, Callable[[Any, Any], float]] = {
    "coral": coral_distance,
    "linear_mmd": linear_time_mmd,
    "sliced_wasserstein": sliced_wasserstein,
    "proxy_a": proxy_a_distance,
    "frechet": gaussian_frechet_distance,
}
GROWTH: dict[str, Callable[[Any, Any], float]] = {
    **STREAMS,
    "mk_mmd": mk_mmd,
    "energy": energy_distance,
    "sinkhorn": sinkhorn_divergence,
}


def every_pair(source: Any, target: Any) -> Any:
    """Return biased MK-MMD from an (n, n, d) tensor for each kernel."""
    import torch

    rows = torch.cat([source, target])
    num = len(source)
    off = ~torch.eye(len(rows), dtype=torch.bool)
    kernels = []
    for factor in FACTORS:
        squared = (rows.unsqueeze(0) - rows.unsqueeze(1)).pow(2).sum(2)
        kernels.append(torch.exp(-squared / (2 * factor * squared[off].detach().quantile(0.5))))
    kernel = sum(kernels) / len(kernels)
    return kernel[:num, :num].mean() + kernel[num:, num:].mean() - 2 * kernel[:num, num:].mean()


def domains(num_rows: int, width: int) -> tuple[Any, Any]:
    """Return two float32 domains, the second moved by 0.1 and spread 1.1 times as wide."""
    random = np.random.default_rng(0)
    source = random.standard_normal((num_rows, width), dtype=np.float32)
    target = random.standard_normal((num_rows, width), dtype=np.float32)
    target *= 1.1
    target += 0.1
    return source, target


def cpu_seconds(function: Callable[[], Any]) -> float:
    """Return the CPU seconds of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def compare_mmd(batch: int, width: int, repeats: int) -> dict[str, Any]:
    """Return CPU seconds of both formulations, forward alone and with the gradient, and their values."""
    import torch

    torch.set_num_threads(1)
    source, target = (torch.from_numpy(rows) for rows in domains(batch, width))

    def ours(source: Any, target: Any) -> Any:
        return mk_mmd(source, target, factors=FACTORS, unbiased=False)

    def gradient(function: Callable[[Any, Any], Any]) -> Callable[[], Any]:
        leaf = source.clone().requires_grad_()
        return lambda: torch.autograd.grad(function(leaf, target), leaf)

    runs = {
        "every_pair": lambda: every_pair(source, target),
        "headstart": lambda: ours(source, target),
        "every_pair_with_gradient": gradient(every_pair),
        "headstart_with_gradient": gradient(ours),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            inner = 20 if name.startswith("headstart") else 1
            seconds[name].append(cpu_seconds(lambda run=run, inner=inner: [run() for _ in range(inner)]) / inner)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    theirs, mine = every_pair(source.double(), target.double()), ours(source.double(), target.double())
    return {
        "batch": batch,
        "width": width,
        "kernels": len(FACTORS),
        "threads": 1,
        "repeats": repeats,
        "cpu_seconds": median,
        "ratio": median["every_pair"] / median["headstart"],
        "ratio_with_gradient": median["every_pair_with_gradient"] / median["headstart_with_gradient"],
        "relative_difference_float64": abs(float(theirs - mine)) / abs(float(theirs)),
        "value": float(mine),
        "relative_error_float32": {
            "every_pair": abs(float(every_pair(source, target)) - float(theirs)) / abs(float(theirs)),
            "headstart": abs(float(ours(source, target)) - float(theirs)) / abs(float(theirs)),
        },
    }


def growth() -> dict[str, Any]:
    """Return CPU seconds of each measure for growing n at d = 128, and growing d at n = 1000."""
    table: dict[str, Any] = {}
    for name, function in GROWTH.items():
        seconds = {}
        for num_rows, width in [(n, 128) for n in (500, 1000, 2000, 4000)] + [(1000, 32), (1000, 512)]:
            source, target = domains(num_rows, width)
            seconds[f"n{num_rows}_d{width}"] = round(cpu_seconds(partial(function, source, target)), 4)
        table[name] = seconds
        print(name, table[name], flush=True)
    plot_growth(table)
    return table


def plot_growth(table: dict[str, dict[str, float]]) -> None:
    """Draw CPU seconds over rows and over features, both on logarithmic axes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    over_rows, over_features = figure.subplots(1, 2, sharey=True)
    for name, seconds in table.items():
        cells = {tuple(int(part[1:]) for part in key.split("_")): value for key, value in seconds.items()}
        for axes, place, fixed in ((over_rows, 0, (1, 128)), (over_features, 1, (0, 1000))):
            line = sorted((key[place], value) for key, value in cells.items() if key[fixed[0]] == fixed[1])
            axes.loglog(*zip(*line, strict=True), "o-", markersize=3.5, linewidth=1.3, label=name.replace("_", "-"))
    for axes in (over_rows, over_features):
        axes.xaxis.set_minor_formatter(NullFormatter())
    over_rows.set(xlabel="rows in each domain (128 features)", ylabel="CPU seconds")
    over_features.set(xlabel="features (1,000 rows in each domain)")
    over_features.legend(frameon=False, fontsize=8, ncols=2)
    figure.savefig(RESULTS.with_name("distances_growth.svg"))


def peak_bytes() -> int:
    """Return this process's peak resident set; Linux hands getrusage's figure down from the parent, so /proc is read there."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def stream(name: str, num_rows: int, width: int) -> dict[str, Any]:
    """Run one measure in this process; return its value, CPU seconds, and peak memory in MB, data included."""
    source, target = domains(num_rows, width)
    before = peak_bytes()
    cpu = time.process_time()
    value = STREAMS[name](source, target)
    cpu = time.process_time() - cpu
    peak = peak_bytes()
    return {
        "value": value,
        "cpu_seconds": round(cpu, 2),
        "peak_mb_data_included": round(peak / 1e6, 1),
        "before_mb": round(before / 1e6, 1),
        "data_mb": round((source.nbytes + target.nbytes) / 1e6, 1),
    }


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=("mmd", "growth", "memory"))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--stream", choices=tuple(STREAMS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with threadpool_limits(1):
        if options.stream:
            print(json.dumps(stream(options.stream, options.rows, options.width)))
            return
        parts = options.part or ["mmd", "growth", "memory"]
        if "mmd" in parts:
            result = compare_mmd(128, 512, options.repeats)
            print(result)
            store_result(options.out, "mk_mmd_b128_d512_k5", result)
        if "growth" in parts:
            store_result(options.out, "growth", growth())
    if "memory" in parts:
        peaks = {}
        for name in STREAMS:
            command = [
                sys.executable,
                __file__,
                "--stream",
                name,
                "--rows",
                str(options.rows),
                "--width",
                str(options.width),
            ]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peaks[name] = json.loads(answer)
            print(name, peaks[name], flush=True)
        store_result(options.out, f"memory_n{options.rows}_d{options.width}", peaks)


if __name__ == "__main__":
    main()
