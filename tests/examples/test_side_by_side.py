"""What every worked example ends with: parts that do not overlap, a table, a report with curves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.data import open_dataset
from headstart.training import History

TEXTS = [f"{word} number {row}" for row in range(30) for word in ("good", "bad", "odd")]
LABELS = ["yes", "no", "perhaps"] * 30


@pytest.fixture
def ways(example: Callable[[str], Any]) -> Any:
    rows = open_dataset(TEXTS, labels=LABELS, split=["test" if row < 24 else "train" for row in range(90)])
    return example("side_by_side").SideBySide("Words", rows, most=36)


def test_parts_do_not_overlap_and_given_test_rows_stay(ways: Any) -> None:
    ids = [set(part.ids) for part in (ways.train, ways.validation, ways.test)]
    assert ids[2] == {f"row {row}" for row in range(1, 25)}
    assert not ids[0] & ids[1]
    assert not (ids[0] | ids[1]) & ids[2]
    assert len(ids[0] | ids[1]) == 36
    assert np.bincount(ways.train.targets).tolist() == [10, 10, 10]


@pytest.mark.golden
def test_the_table_and_the_report_say_what_was_added(ways: Any, tmp_path: Path) -> None:
    truth = np.eye(3)[ways.test.targets]
    half = truth.copy()
    half[::2] = np.roll(half[::2], 1, axis=1)
    history = History(
        train_loss=[1.0, 0.5], validation_loss=[1.1, 0.7], train_measure=[0.3, 0.8], validation_measure=[0.3, 0.7]
    )
    ways.add("transfer", truth, cpu_seconds=3.0, trained="by hand", history=history)
    ways.add("scratch", half, cpu_seconds=4.0, history=history)
    ways.add("half as good", half, cpu_seconds=5.0)
    ways.add_baselines()
    text = str(ways)
    assert "30 training, 6 validation, 24 test rows" in text
    assert "100.0 %" in text
    assert "from scratch    50.0 %" in text
    assert "+50.0 (p < 0.001)" in text
    assert ways.accuracy("majority") == pytest.approx(1 / 3)
    page = ways.write(tmp_path / "report").read_text(encoding="utf-8")
    assert page.count("loss and accuracy after each check") == 2  # curves of the two that trained
    assert "half as good" in page
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["metrics"]["accuracy"]["value"] == 1.0
    assert report["transfer_helped"] == "unclear"  # words alone tell these classes apart


def test_ways_with_transfer_are_no_baselines_of_the_verdict(ways: Any) -> None:
    truth = np.eye(3)[ways.test.targets]
    wrong = np.roll(truth, 1, axis=1)
    ways.add("transfer", wrong, cpu_seconds=1.0)
    ways.add("another transfer", truth, cpu_seconds=1.0)
    assert "Unclear whether transfer helped" in str(ways)
    ways.add("scratch", truth, cpu_seconds=1.0)
    assert "Transfer did not help" in str(ways)
