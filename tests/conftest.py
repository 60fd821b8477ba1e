"""Fixtures every test may use: the shared data and weights, a cache of its own, one thread."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _shared(name: str) -> Path:
    folder = Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared")) / name
    if not folder.is_dir():
        message = f"no folder {name!r} under HEADSTART_SHARED; this test needs it"
        if os.environ.get("HEADSTART_REQUIRE_SHARED") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    """The folder of real pretrained weights."""
    return _shared("weights")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache, and none asks a hub."""
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("HEADSTART_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tests run beside each other; none takes both cores."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    yield
