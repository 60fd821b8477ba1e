"""LogME against the per-class loop of its published algorithm, on one thread: CPU seconds, ratio, difference.

    python benchmarks/logme.py [--rows 2000] [--width 1024] [--classes 50] [--repeats 5] [--out benchmarks/results/logme.json]

The loop is written here from the paper (arXiv:2102.11005, algorithm 1, with its optimisation of one decomposition for all
classes): for each class the posterior mean is formed, multiplied back, and alpha and beta are updated, at most 11 times or
until their ratio moves by less than 1 %. Ours is measured with the same rule, and once more with its own default. Runs of the
three alternate; the median of each counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from headstart.transferability import logme
from record import ROOT, store_result

STEPS, MOVES = 11, 0.01


def per_class_loop(
    features: np.ndarray, classes: np.ndarray, steps: int = STEPS, moves: float = MOVES, by_eigh: bool = False
) -> float:
    """Return LogME as algorithm 1 describes it, one class after the other."""
    num_rows, width = features.shape
    if by_eigh:  # kinder to the loop than the paper, which takes a singular value decomposition
        squared, basis = np.linalg.eigh(features.T @ features)
        squared = np.clip(squared, 0, None)
    else:
        basis, squared, _ = np.linalg.svd(features.T @ features, full_matrices=True)
    evidences = []
    for label in range(int(classes.max()) + 1):
        target = (classes == label).astype(np.float64)
        projected = basis.T @ (features.T @ target)
        alpha = beta = 1.0
        for _ in range(steps):
            before = alpha / beta
            mean = basis @ (beta * projected / (alpha + beta * squared))
            gamma = (beta * squared / (alpha + beta * squared)).sum()
            length = mean @ mean
            error = features @ mean - target
            residual = error @ error
            alpha, beta = gamma / length, (num_rows - gamma) / residual
            if abs(alpha / beta - before) / before <= moves:
                break
        evidence = width / 2 * np.log(alpha) + num_rows / 2 * np.log(beta) - num_rows / 2 * np.log(2 * np.pi)
        evidence -= 0.5 * np.log(alpha + beta * squared).sum() + beta / 2 * residual + alpha / 2 * length
        evidences.append(evidence / num_rows)
    return float(np.mean(evidences))


def rows(num_rows: int, width: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features shaped like a network's last layer: at least 0, correlated, some of their spread between classes."""
    random = np.random.default_rng(0)
    classes = random.permutation(np.arange(num_rows) % num_classes)
    hidden = random.normal(size=(num_classes, 64))[classes] + random.normal(size=(num_rows, 64))
    mixed = hidden @ random.normal(size=(64, width)) / 8 + 0.5 * random.normal(size=(num_rows, width))
    return np.maximum(mixed, 0.0), classes


def cpu_seconds(function: Callable[[], float]) -> float:
    """Return the CPU seconds of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def measure(num_rows: int, width: int, num_classes: int, repeats: int) -> dict[str, Any]:
    """Return CPU seconds, values and their differences."""
    features, classes = rows(num_rows, width, num_classes)
    runs: dict[str, Callable[[], float]] = {
        "loop_svd": lambda: per_class_loop(features, classes),
        "loop_eigh": lambda: per_class_loop(features, classes, by_eigh=True),
        "headstart_same_rule": lambda: logme(features, classes, tolerance=MOVES, max_steps=STEPS),
        "headstart_default": lambda: logme(features, classes),
    }
    values = {name: run() for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            seconds[name].append(cpu_seconds(run))
    median = {name: statistics.median(times) for name, times in seconds.items()}
    to_the_end = per_class_loop(features, classes, 10_000, 1e-10, by_eigh=True)
    ours_to_the_end = logme(features, classes, tolerance=1e-10, max_steps=10_000)
    return {
        "rows": num_rows,
        "width": width,
        "classes": num_classes,
        "threads": 1,
        "repeats": repeats,
        "cpu_seconds": median,
        "ratio_to_loop_svd": median["loop_svd"] / median["headstart_default"],
        "ratio_to_loop_eigh": median["loop_eigh"] / median["headstart_default"],
        "value": values,
        "difference_same_rule": abs(values["loop_svd"] - values["headstart_same_rule"]),
        "difference_converged": abs(to_the_end - ours_to_the_end),
        "difference_default_to_converged": abs(to_the_end - values["headstart_default"]),
    }


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "logme.json")
    options = parser.parse_args()
    with threadpool_limits(1):
        result = measure(options.rows, options.width, options.classes, options.repeats)
    for key, value in result.items():
        print(f"{key}: {value}")
    store_result(options.out, f"n{options.rows}_d{options.width}_k{options.classes}", result)


if __name__ == "__main__":
    main()
