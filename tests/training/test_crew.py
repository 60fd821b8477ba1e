"""A crew: who calls, who answers, and that an error in either leaves nobody waiting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.core.errors import ConfigError, TrainingError
from headstart.training.crew import Crew
from headstart.training.distributed import World

WORKER = Path(__file__).with_name("crew_worker.py")


def test_alone_a_crew_is_one_process() -> None:
    with Crew.assembled() as crew:
        assert crew.first and crew.size == 1 and list(crew.calls()) == []
        with crew.call() as world:
            assert world.size == 1
        with pytest.raises(ConfigError, match="as it is"), crew.call():
            raise ConfigError("as it is")
    assert Crew.current().size == 1


def test_a_store_that_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="start all with torchrun"), Crew.assembled():
        pass


@pytest.mark.golden
def test_every_call_is_of_all_and_an_error_in_either_ends_that_call_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    finished = subprocess.run(
        [*command, str(WORKER), str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first[0] == [3.0, 2] and first[1] == 1  # gradients 1 + 2; of both processes within the call only
    assert first[2] == "the budget is spent"
    assert first[3] == "train: process 1: sees other rows"
    assert first[4] == 3.0
    assert second == [3.0, "OthersGone", "ConfigError", 3.0]
    assert (tmp_path / "0-error.txt").read_text() == "at the end" and not (tmp_path / "1-error.txt").exists()
    assert World.current().size == 1
