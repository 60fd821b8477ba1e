"""Objectives in two processes that torchrun starts: what they remember is the same in both, and where they can, as in one."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

WORKER = Path(__file__).with_name("objectives_worker.py")
OF_DOMAINS = ("groupdro", "vrex", "irm", "dg-coral", "m3sda", "mdan")
EXACT = (*OF_DOMAINS, "bi-tuning", "flexmatch", "self-training", "pada", "partial", "fixmatch", "dann")
OF_THE_BATCH = ("atdoc", "shot", "nrc", "dance")  # a row's loss looks at other rows of its process


def two_processes(folder: Path) -> list[dict[str, Any]]:
    """Return what each process wrote."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    finished = subprocess.run(
        [sys.executable, *launcher, str(WORKER), str(folder), *EXACT, *OF_THE_BATCH],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=240,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return [json.loads((folder / f"2-{rank}.json").read_text()) for rank in range(2)]


def one_process(names: tuple[str, ...]) -> dict[str, Any]:
    """Return the same of a single process: this one."""
    found = importlib.util.spec_from_file_location("objectives_worker", WORKER)
    assert found is not None and found.loader is not None
    worker = importlib.util.module_from_spec(found)
    found.loader.exec_module(worker)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {name: worker.learn(name) for name in names}
    finally:
        torch.set_num_threads(threads)


@pytest.mark.golden
def test_two_processes_remember_the_same_and_learn_as_one(tmp_path: Path) -> None:
    alone = one_process(EXACT)
    first, second = two_processes(tmp_path)
    for name in (*EXACT, *OF_THE_BATCH):
        assert first[name]["memory"] == second[name]["memory"], name  # the same bits
        assert first[name]["weights"] == second[name]["weights"], name
    for name in EXACT:
        np.testing.assert_allclose(first[name]["losses"], alone[name]["losses"], atol=1e-5, err_msg=name)
        for part in ("weights", "memory"):
            for key, value in alone[name][part].items():
                np.testing.assert_allclose(first[name][part][key], value, atol=1e-5, err_msg=f"{name} {key}")
    (weights,) = alone["groupdro"]["memory"].values()
    assert max(weights) - min(weights) > 0.01  # they have moved, and nothing above was compared with its start
    assert max(alone["flexmatch"]["memory"]["FlexMatch.answers_m"]) >= 0
