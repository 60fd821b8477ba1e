"""Extracts features in child processes that may be killed: imports once, then forks a child for every line it reads.

Each line is a JSON object with ``images``, ``runtime`` and ``out`` (an .npy file). For each it prints the child's process
number, then how the child ended. Small flushes make sure that many moments are moments of writing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data import open_dataset
from headstart.features import extract_features, writer


def tiny_backbone() -> Any:
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("conftest.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build_backbone()


def work(order: dict[str, str]) -> None:
    writer._FLUSH_BYTES = 1
    rows = open_dataset(order["images"])
    features = extract_features(rows, tiny_backbone(), runtime=order["runtime"], batch_size=8, threads=2)
    np.save(order["out"], features.values_nd)


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if not child:
            status = 1
            try:
                work(json.loads(line))
                status = 0
            finally:
                os._exit(status)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
