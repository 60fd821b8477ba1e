"""Run every benchmark that needs nothing but headstart's own environment and the shared data, one after the other.

    make bench        or        python benchmarks/run_all.py [--only startup,logme]

frozen_training.py measures Keras too where it is told of an environment with Keras; see there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    "startup",
    "logme",
    "extraction",
    "memory",
    "frozen_training",
    "loop_overhead",
    "ranking",
    "accuracy",
    "kills",
    "last_stage",
    "fine_tuning",
    "distances",
    "alignment_speed",
    "coda_speed",
    "office_caltech",
    "amazon_reviews",
    "adaptation_grid",
    "adaptation_evidence",
    "selection_rules",
)


def main() -> None:
    """Run them; the first failure ends it."""
    parser = argparse.ArgumentParser(description="Run every benchmark.")
    parser.add_argument("--only", default=",".join(SCRIPTS))
    wanted = parser.parse_args().only.split(",")
    here = Path(__file__).resolve().parent
    for name in wanted:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, str(here / f"{name}.py")], check=True, cwd=here)


if __name__ == "__main__":
    main()
