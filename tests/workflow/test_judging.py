"""Judging rows and expectations: literal twins, hand values, and rows that must not cross over."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.core.tasks import Task
from headstart.data import open_dataset
from headstart.evaluation import CurvePoint
from headstart.workflow.expectation import (
    base_model_gain,
    evidence_of,
    search_gain,
    share_that_stays,
    tuning_gain,
    worth_of,
)
from headstart.workflow.judging import Judging, choose_rows

TASK = Task("classification", ("a", "b"))


def _judging(n: int, seed: int = 0, groups: np.ndarray | None = None) -> Judging:
    targets = np.random.default_rng(seed).integers(0, 2, n)
    return Judging(TASK, "accuracy", targets, np.arange(n), np.arange(0), groups, seed)


def test_judging_rows_are_a_fifth_stratified_and_never_learnt_from() -> None:
    labels = ["a"] * 80 + ["b"] * 20
    rows = open_dataset([f"row {n}" for n in range(100)], labels=labels)
    judging = choose_rows(rows, None, "accuracy")
    assert len(judging) == 20 and (judging.targets == 1).sum() == 4
    np.testing.assert_array_equal(np.sort(np.concatenate([judging.rows, judging.learning])), np.arange(100))
    other = choose_rows(rows, None, "accuracy", seed=1)
    assert set(other.rows) != set(judging.rows)


def test_groups_stay_on_one_side_and_no_class_judges_alone() -> None:
    labels = ["a"] * 45 + ["b"] * 44 + ["c"]
    rows = open_dataset([f"row {n}" for n in range(90)], labels=labels)
    groups = np.arange(90) // 3
    for seed in range(6):
        judging = choose_rows(rows, groups, "accuracy", seed=seed)
        assert rows.targets is not None
        assert not set(groups[judging.rows]) & set(groups[judging.learning]) or 2 not in judging.targets
        assert 2 in rows.targets[judging.learning]
        assert judging.groups is not None
        np.testing.assert_array_equal(judging.groups, groups[judging.rows])


def test_optimism_against_a_literal_loop() -> None:
    n, random = 60, np.random.default_rng(3)
    judging = _judging(n)
    scores = [np.eye(2)[np.where(random.random(n) < 0.7, judging.targets, 1 - judging.targets)] for _ in range(4)]
    from headstart.core.seeds import generator

    right = np.stack([one.argmax(1) == judging.targets for one in scores]).astype(float)
    gaps = []
    for counts in generator(0, "optimism").multinomial(n, np.full(n, 1 / n), size=200):
        inside = [(r * counts).sum() / counts.sum() for r in right]
        best = int(np.argmax(inside))
        gaps.append(inside[best] - right[best][counts == 0].mean())
    assert judging.optimism(scores) == pytest.approx(np.mean(gaps), abs=1e-6)
    assert judging.optimism(scores) > 0.01  # four equally good ones: the best of them is luck
    assert judging.optimism(scores[:1]) == 0.0


def test_a_clear_winner_is_hardly_flattered() -> None:
    n = 200
    judging = _judging(n)
    perfect, coin = np.eye(2)[judging.targets], np.eye(2)[np.random.default_rng(0).integers(0, 2, n)]
    assert judging.optimism([perfect, coin]) < 0.001


def test_what_stays_follows_the_power_law() -> None:
    curve = [CurvePoint(n, 1 - 0.9 * n**-0.5, 0, 1) for n in (25, 50, 100, 200)]
    assert share_that_stays("accuracy", curve) == pytest.approx(8**-0.5)
    rising = [CurvePoint(n, 0.9 - n / 1000, 0, 1) for n in (10, 50, 100)]
    assert share_that_stays("accuracy", rising) == 1.0
    assert share_that_stays("rmse", [CurvePoint(n, 4 / n, 0, 9) for n in (10, 20, 40)]) == pytest.approx(1 / 8)
    assert share_that_stays("accuracy", []) == share_that_stays("accuracy", curve[:1]) == 1.0


def test_more_rows_and_better_evidence_raise_what_is_expected() -> None:
    def gain(rows: int, kind: str = "full", evidence: float = 1.0) -> float:
        return tuning_gain(kind, "accuracy", 0.8, TASK, rows, [], evidence).gain

    assert gain(20) < gain(200) < gain(20_000) < 0.5 * 0.2
    assert gain(500) == pytest.approx(0.2 * 250 / (250 + 250) * 0.5)
    assert gain(200, evidence=0.0) == 0.0
    assert gain(60, "partial") > gain(60, "full")  # few rows: the last stages first
    assert search_gain("accuracy", 0.8, TASK, 500, [], 1).gain == 0.0
    assert search_gain("accuracy", 0.8, TASK, 500, [], 10).gain == pytest.approx(
        0.2 * 0.5 * 0.05 * np.sqrt(2 * np.log(10))
    )
    assert "0.20" in search_gain("rmse", 0.2, Task("regression"), 100, [], 5).why


@pytest.mark.parametrize(
    ("brought", "factor"), [(0.04, 1.5), (0.1, 1.5), (0.02, 1.0), (0.0, 0.5), (-0.02, 0.0), (-1, 0.0)]
)
def test_evidence_is_clipped(brought: float, factor: float) -> None:
    assert evidence_of(0.02, brought) == pytest.approx(factor)


def test_a_base_model_gain_against_its_twin() -> None:
    random = np.random.default_rng(0)
    best, other = (random.random(80) < 0.8).astype(float), (random.random(80) < 0.85).astype(float)
    from headstart.core.seeds import generator

    draws = generator(4, "base model gain").multinomial(80, np.full(80, 1 / 80), 1000)
    ahead = np.mean([max(0.0, float(((other - best) * draw).sum() / 80)) for draw in draws])
    found = base_model_gain("accuracy", 0.9, best, other, 4)
    assert found.gain == pytest.approx(0.1 * ahead / (1 - best.mean()))
    assert 0 < worth_of("accuracy", 0.9) == pytest.approx(0.002)
