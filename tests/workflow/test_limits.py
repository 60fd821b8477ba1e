"""Limits: amounts with units, what breaks them, and measurements that can be checked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import headstart
from headstart.core.errors import ConfigError, GoalError
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.workflow.goal import parse_goal
from headstart.workflow.limits import (
    Limits,
    estimate_size,
    folder_size,
    parse_size,
    parse_time,
    training_memory,
    watch_memory,
)
from small_networks import small_image_backbone

TASK = Task("classification", ("a", "b"))


@pytest.mark.parametrize("text", ["", "20", "MB", "-3MB", "0MB", "1.2.3GB", "20 apples", "nan GB", "infMB"])
def test_amounts_without_meaning_are_refused(text: str) -> None:
    with pytest.raises(GoalError, match="max_size"):
        parse_size(text, "max_size")
    with pytest.raises(GoalError):
        parse_time(text)


def test_limits_are_part_of_a_goal() -> None:
    goal = parse_goal("accuracy >= 90 % and size <= 20MB, memory <= 4 GB; latency <= 20 ms", TASK)
    assert [r.metric for r in goal.requirements] == ["accuracy"]
    assert goal.limits == Limits(size=2e7, memory=4e9, latency=0.02)
    assert parse_goal("accuracy >= 0.9 and size <= 20MB and size <= 5MB", TASK).limits.size == 5e6


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("size <= 20MB", "names no metric"),
        ("accuracy >= 0.9 and size >= 20MB", "turn the sign round"),
        ("accuracy >= 0.9 and size <= 20", "no amount with its unit"),
        ("accuracy >= 0.9 and latency <= 20MB", "no amount with its unit"),
        ("accuracy >= 0.9 and weight <= 20", "weight"),
    ],
)
def test_goals_whose_limits_make_no_sense(text: str, reason: str) -> None:
    with pytest.raises(GoalError, match=reason):
        parse_goal(text, TASK)


def test_the_stricter_limit_holds_and_nan_breaks_it() -> None:
    both = Limits(size=10, memory=math.inf).tightened(Limits(size=20, memory=5))
    assert both == Limits(size=10, memory=5)
    assert both.broken_by(size=10.0, memory=5.0, latency=None) == ()
    assert len(both.broken_by(size=math.nan, memory=6.0)) == 2
    assert not Limits() and Limits(latency=1)


@pytest.mark.golden
def test_the_estimate_of_a_saved_model_is_near_the_real_one(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 90)
    vectors = (random.normal(size=(90, 64)) + 3 * np.eye(64)[labels]).astype(np.float32)
    run = headstart.fit(vectors, labels=labels, out=tmp_path / "run", progress=Progress(quiet=True))
    real = folder_size(tmp_path / "run" / "model")
    assert run.report.size_bytes == real
    assert abs(estimate_size(run.model.backbone, 3, 72) - real) < 30_000


def test_training_needs_more_memory_the_more_trains() -> None:
    backbone, _ = small_image_backbone("resnet")
    weights = sum(p.numel() * 4 for p in backbone.module.parameters())
    none, half, whole = (training_memory(backbone, 8, share) for share in (0.0, 0.5, 1.0))
    assert 2 * weights < none < half < whole
    assert training_memory(backbone, 16) - whole == pytest.approx(whole - 5 * weights)


def test_a_peak_is_seen_though_it_is_gone_at_the_end() -> None:
    with watch_memory() as watch:
        before = watch.peak
        block = np.ones(60_000_000 // 8)
        watch.sample()
        block = block[:1].copy()
    assert watch.peak >= before + 50_000_000 and block.size == 1


def test_a_limit_nothing_fits_is_refused_with_the_sizes(tmp_path: Path) -> None:
    labels = np.arange(40) % 2
    with pytest.raises(GoalError, match=r"no base model fits the limits \(size <= 1\.0 kB\).*size .* kB"):
        headstart.fit(
            np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32),
            labels=labels,
            out=tmp_path / "run",
            max_size="1kB",
            progress=Progress(quiet=True),
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [{"max_size": "big"}, {"max_memory": "4"}])
def test_limits_are_read_before_any_row(options: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(GoalError):
        headstart.fit(tmp_path / "nowhere", out=tmp_path / "run", **options)


def test_a_strategy_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'last-stages'"):
        headstart.fit(tmp_path / "nowhere", strategy="last-stage")
