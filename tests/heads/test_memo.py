"""Solved heads are read back exactly, for exactly the same problem, and a damaged memo costs nothing but time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.core.places import cache_folder
from headstart.core.tasks import Task
from headstart.heads import LogisticHead, head_key, recall_head, remember_head

TASK = Task("classification", ("a", "b"))
FEATURES = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
TARGETS = (FEATURES[:, 0] > 0).astype(np.int64)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))


def test_a_head_comes_back_as_it_was() -> None:
    head = LogisticHead().fit(FEATURES, TARGETS, TASK)
    assert recall_head("k") is None
    remember_head("k", head)
    again = recall_head("k")
    assert again is not None and again.report == head.report and again.temperature == head.temperature
    np.testing.assert_array_equal(again.predict_proba(FEATURES), head.predict_proba(FEATURES))
    assert head.validation_predictions is not None and again.validation_predictions is not None
    np.testing.assert_array_equal(again.validation_predictions, head.validation_predictions)


def test_every_part_of_the_problem_is_in_its_name() -> None:
    groups = np.arange(40)
    base = head_key(FEATURES, TARGETS, TASK, groups, {"seed": 0})
    others = [
        head_key(FEATURES + 1, TARGETS, TASK, groups, {"seed": 0}),
        head_key(FEATURES, 1 - TARGETS, TASK, groups, {"seed": 0}),
        head_key(FEATURES, TARGETS, Task("classification", ("a", "c")), groups, {"seed": 0}),
        head_key(FEATURES, TARGETS, TASK, groups // 2, {"seed": 0}),
        head_key(FEATURES, TARGETS, TASK, None, {"seed": 0}),
        head_key(FEATURES, TARGETS, TASK, groups, {"seed": 1}),
    ]
    assert len({base, *others}) == 7
    assert base == head_key(FEATURES.copy(), TARGETS.copy(), TASK, groups + 5, {"seed": 0})


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64])
def test_a_damaged_memo_counts_as_unknown(content: bytes) -> None:
    remember_head("k", LogisticHead().fit(FEATURES, TARGETS, TASK))
    (path,) = (cache_folder() / "heads").glob("*.safetensors")
    path.write_bytes(content)
    assert recall_head("k") is None
