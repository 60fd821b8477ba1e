"""SIGKILL at random moments of extraction, again and again: what is stored stays right, and a repeat gives the same bits."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import headstart
from headstart.data import open_dataset

KILLS = 18  # for each of two runtimes
IMAGES = 160
SERVER = Path(__file__).with_name("extraction_server.py")
RUNTIMES = ["torch-fp32", *(["openvino-fp32"] if importlib.util.find_spec("openvino") else [])]

pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="children are made by fork, which this platform does not have"),
]


class Server:
    """The process whose children are killed."""

    def __init__(self, cache: Path, errors: IO[bytes]) -> None:
        source = str(Path(headstart.__file__).parents[1])
        environment = {**os.environ, "HEADSTART_CACHE": str(cache), "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment
        )

    def run(self, order: dict[str, Any], kill_when: Callable[[], bool] | None = None) -> int:
        """Return how a child ended: 0, or minus the signal that killed it once ``kill_when()`` was true."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        while kill_when is not None and not select.select([self.process.stdout], [], [], 0.001)[0]:
            if kill_when():
                with contextlib.suppress(ProcessLookupError):  # it may have ended by itself a moment ago
                    os.kill(child, signal.SIGKILL)
                break
        return int(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with (tmp_path / "errors.txt").open("wb") as errors:
        started = Server(tmp_path / "killed", errors)
        yield started
        started.close()


def stored_rows(cache: Path) -> dict[str, np.ndarray]:
    """Return everything in the store by digest, read by another library; a file that it cannot read fails the test."""
    rows: dict[str, np.ndarray] = {}
    for path in (cache / "features").glob("*/*.safetensors"):
        tensors = load_file(path)
        rows |= {bytes(key).hex(): values for key, values in zip(tensors["keys"], tensors["values"], strict=True)}
    return rows


def random_moment(random: np.random.Generator, cache: Path, whole: float) -> Callable[[], bool]:
    """Return a moment to kill at: any, or one soon after a few more segments have been written."""
    started = time.perf_counter()
    if random.random() < 0.3:
        seconds = float(random.uniform(0, whole))
        return lambda: time.perf_counter() - started > seconds
    before = len(list((cache / "features").glob("*/*.safetensors")))
    more, jitter = int(random.integers(1, 6)), float(random.uniform(0, 0.02))

    def written() -> bool:
        if len(list((cache / "features").glob("*/*.safetensors"))) < before + more:
            return False
        time.sleep(jitter)
        return True

    return written


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_killed_at_random_moments(runtime: str, server: Server, tmp_path: Path, make_images: Any) -> None:
    images = make_images(tmp_path / "photos", IMAGES)
    cache, out = tmp_path / "killed", tmp_path / "out.npy"
    order = {"images": str(images), "runtime": runtime, "out": str(out)}
    assert server.run(order) == 0
    wanted = np.load(out)
    by_digest = dict(zip(open_dataset(images).digests(), wanted, strict=True))
    shutil.rmtree(cache)
    started = time.perf_counter()
    assert server.run(order) == 0
    whole = time.perf_counter() - started
    random = np.random.default_rng(0)
    kills = partial = 0
    for _ in range(10 * KILLS):
        if kills == KILLS:
            break
        if len(stored_rows(cache)) == IMAGES:
            shutil.rmtree(cache)  # remembered choice, compiled network and digests too
        out.unlink(missing_ok=True)
        status = server.run(order, random_moment(random, cache, whole))
        assert status in {0, -signal.SIGKILL}
        kills += status != 0
        rows = stored_rows(cache)
        partial += 0 < len(rows) < IMAGES
        for digest, values in rows.items():
            np.testing.assert_array_equal(values, by_digest[digest])
        if status == 0:
            np.testing.assert_array_equal(np.load(out), wanted)
    assert kills == KILLS
    assert partial >= KILLS // 2  # most kills hit while rows were being computed and written
    assert server.run(order) == 0
    np.testing.assert_array_equal(np.load(out), wanted)
    assert len(stored_rows(cache)) == IMAGES


def test_two_processes_on_one_store(server: Server, tmp_path: Path, make_images: Any) -> None:
    """Both extract the same rows at the same time; both get the bits of an undisturbed run."""
    images = make_images(tmp_path / "photos", IMAGES)
    cache = tmp_path / "killed"
    orders = [{"images": str(images), "runtime": RUNTIMES[-1], "out": str(tmp_path / f"{at}.npy")} for at in range(3)]
    assert server.run(orders[0]) == 0
    wanted = np.load(orders[0]["out"])
    shutil.rmtree(cache)
    with (tmp_path / "more.txt").open("wb") as errors, ThreadPoolExecutor(2) as pool:
        other = Server(cache, errors)
        statuses = list(pool.map(lambda pair: pair[0].run(pair[1]), [(server, orders[1]), (other, orders[2])]))
        other.close()
    assert statuses == [0, 0]
    for order in orders[1:]:
        np.testing.assert_array_equal(np.load(order["out"]), wanted)
    assert len(stored_rows(cache)) == IMAGES
