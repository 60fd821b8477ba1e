"""How long ``headstart --help`` takes, against importing torch alone.

    python benchmarks/startup.py

Both are processes of their own, in turn, nine times; the median of CPU seconds counts, and the ratio.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

from record import ROOT, store_result

COMMANDS = {
    "help": [sys.executable, "-m", "headstart", "--help"],
    "backbones": [sys.executable, "-m", "headstart", "backbones"],
    "python": [sys.executable, "-c", "pass"],
    "torch": [sys.executable, "-c", "import torch"],
}


def cpu_seconds(command: list[str]) -> float:
    """Return CPU seconds of one process."""
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Measure in turn and store."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(9):
        for name, command in COMMANDS.items():
            taken[name].append(cpu_seconds(command))
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    ratio = seconds["torch"] / seconds["help"]
    for name, value in seconds.items():
        print(f"{name:10s} {value:.3f} CPU s")
    print(f"importing torch / headstart --help: {ratio:.1f}")
    path = ROOT / "benchmarks" / "results" / "startup.json"
    store_result(path, "startup", {"cpu_seconds": seconds, "torch / help": ratio})


if __name__ == "__main__":
    main()
