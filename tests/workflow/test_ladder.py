"""The ladder with made-up rungs: when it goes on, why it stops, what it keeps, and what it writes down."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from headstart.core.errors import BackboneError, GoalError, TrainingError
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.metrics import compute_metrics
from headstart.report.contract import rungs_json
from headstart.workflow.clock import Clock
from headstart.workflow.expectation import Expectation
from headstart.workflow.goal import Goal, parse_goal
from headstart.workflow.judging import Judging
from headstart.workflow.ladder import Climbed, Ladder, Needs, Standing, Tried
from headstart.workflow.limits import Limits

TASK = Task("classification", ("a", "b"))
TRUTH = np.arange(100) % 2


def _scores(right: int) -> np.ndarray:
    answers = TRUTH.copy()
    answers[right:] = 1 - answers[right:]
    return np.eye(2)[answers]


@dataclass
class FakeRung:
    """Has so many of 100 rows right."""

    name: str
    right: int
    gain: float = 0.1
    seconds: float = 0.0
    size: float = 1e6
    forced: bool = False
    problem: Exception | None = None
    backbone: str = "net"
    ran: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"rung {self.name}"

    def expect(self, standing: Standing) -> Expectation:
        return Expectation(self.gain, "made up")

    def needs(self, standing: Standing) -> Needs:
        return Needs(self.seconds, size=self.size)

    def run(self, standing: Standing) -> Tried:
        self.ran.append(self.name)
        if self.problem is not None:
            raise self.problem
        scores = _scores(self.right)
        features: Any = "features" if self.name in {"head", "base-model"} else None
        model: Any = self.name
        return Tried(
            model, scores, self.backbone, compute_metrics(TASK, TRUTH, scores), features=features, size=self.size
        )


def _climb(
    rungs: list[FakeRung], goal: str | None = "accuracy >= 0.99", budget: float = math.inf, **options: Any
) -> Climbed:
    judging = Judging(TASK, "accuracy", TRUTH, np.arange(100), np.arange(0))
    standing = Standing(judging, Clock(budget), Progress(quiet=True))
    wanted: Goal | None = None if goal is None else parse_goal(goal, TASK)
    return Ladder(standing, wanted, options.pop("limits", Limits()), **options).climb(rungs)  # type: ignore[arg-type]


def _story(climbed: Climbed) -> list[tuple[str, str]]:
    return [(line.name, line.status) for line in climbed.climb.rungs]


def test_it_climbs_until_the_goal_is_met_and_keeps_that_rung() -> None:
    rungs = [FakeRung("head", 80), FakeRung("partial", 99), FakeRung("full", 100)]
    climbed = _climb(rungs)
    assert climbed.climb.stopped == "goal"
    assert _story(climbed) == [("head", "tried"), ("partial", "tried")]
    assert not rungs[2].ran
    first, second = climbed.climb.rungs
    assert (first.decision, second.decision) == ("go", "stop")
    assert "is expected to bring +10.0 points" in first.reason and "goal is met" in second.reason
    assert (first.kept, second.kept) == (False, True)
    assert second.paired is not None and second.paired.difference == pytest.approx(0.19)
    assert second.value == 0.99 and second.low is not None and second.low < 0.99


def test_the_best_figure_wins_and_a_tie_goes_to_the_cheaper_rung() -> None:
    climbed = _climb([FakeRung("head", 80), FakeRung("partial", 80), FakeRung("full", 70)])
    assert str(climbed.best.model) == "head" and climbed.climb.stopped == "last-rung"
    assert climbed.climb.rungs[0].kept
    better = _climb([FakeRung("head", 80), FakeRung("base-model", 85), FakeRung("partial", 84)])
    assert str(better.best.model) == "base-model" == str(better.head.model)


def test_a_rung_not_worth_it_is_skipped_with_its_numbers() -> None:
    rungs = [FakeRung("head", 90), FakeRung("partial", 99, gain=0.001), FakeRung("full", 99, gain=0.05)]
    climbed = _climb(rungs)
    assert _story(climbed) == [("head", "tried"), ("partial", "skipped"), ("full", "tried")]
    skipped = climbed.climb.rungs[1]
    assert skipped.expected == 0.001 and skipped.worth == pytest.approx(0.002)
    assert "not worth it" in skipped.reason and not rungs[1].ran
    only = _climb([FakeRung("head", 90), FakeRung("partial", 99, gain=0.001)])
    assert only.climb.stopped == "not-worth-it"


def test_a_budget_too_small_for_one_rung_says_so_and_delivers_the_head() -> None:
    climbed = _climb([FakeRung("head", 80), FakeRung("partial", 99, seconds=500)], budget=60.0)
    assert str(climbed.best.model) == "head" and climbed.climb.stopped == "budget"
    assert "too small for a rung beyond the solved head" in climbed.climb.reason
    assert "8 min 20 s needed" in climbed.climb.rungs[1].reason
    spent = _climb([FakeRung("head", 80), FakeRung("partial", 99)], budget=1e-9)
    assert spent.climb.rungs[1].reason == "the budget was spent"


def test_a_rung_is_broken_off_when_the_budget_ends() -> None:
    class Slow(FakeRung):
        def run(self, standing: Standing) -> Tried:
            with standing.progress.stage("train") as stage:
                for _ in range(1000):
                    time.sleep(0.002)
                    stage.advance(1)
            raise AssertionError("it was not broken off")

    climbed = _climb([FakeRung("head", 80), Slow("partial", 99)], budget=0.1)
    assert _story(climbed) == [("head", "tried"), ("partial", "cut-off")]
    assert climbed.climb.rungs[1].wall_seconds > 0 and climbed.climb.stopped == "budget"


def test_a_rung_that_fails_is_told_and_the_next_is_tried() -> None:
    bad = FakeRung("partial", 0, problem=TrainingError("train: the loss is not finite at step 3."))
    climbed = _climb([FakeRung("head", 80), bad, FakeRung("full", 99)])
    assert _story(climbed) == [("head", "tried"), ("partial", "failed"), ("full", "tried")]
    assert "not finite at step 3" in climbed.climb.rungs[1].reason
    with pytest.raises(BackboneError):
        _climb([FakeRung("head", 0, problem=BackboneError("no weights"))])


def test_what_is_too_large_is_never_started() -> None:
    rungs = [FakeRung("head", 95, size=9e6), FakeRung("base-model", 80, size=1e6), FakeRung("partial", 90, size=9e6)]
    climbed = _climb(rungs, limits=Limits(size=2e6))
    assert str(climbed.best.model) == "base-model"
    assert not rungs[0].ran and not rungs[2].ran
    assert "never started: size 9.0 MB, the limit is 2.0 MB" in climbed.climb.rungs[0].reason
    assert climbed.climb.stopped == "limits"
    with pytest.raises(GoalError, match="no base model fits"):
        _climb([FakeRung("head", 95, size=9e6)], limits=Limits(size=2e6))
    tuned = FakeRung("partial", 90, size=1e6)
    with pytest.raises(GoalError, match="no base model fits"):  # without a head there is nothing to fine-tune
        _climb([FakeRung("head", 95, size=9e6), tuned], limits=Limits(size=2e6))
    assert not tuned.ran


def test_without_a_goal_later_rungs_only_say_what_they_would_bring() -> None:
    rungs = [FakeRung("head", 80), FakeRung("partial", 99, gain=0.03), FakeRung("full", 99, gain=0.0001)]
    climbed = _climb(rungs, goal=None)
    assert climbed.climb.stopped == "no-goal" and not rungs[1].ran
    assert "+3.0 points, worth a try" in climbed.climb.rungs[1].reason
    assert "not worth it" in climbed.climb.rungs[2].reason


def test_what_was_asked_for_is_tried_and_kept_though_worse() -> None:
    climbed = _climb([FakeRung("head", 90), FakeRung("asked", 80, gain=0.0, forced=True)], goal=None)
    assert str(climbed.best.model) == "asked" and climbed.climb.stopped == "asked"
    assert climbed.climb.rungs[1].paired is not None and climbed.climb.rungs[1].paired.difference < 0


def test_evidence_of_a_fine_tuned_rung_reaches_the_next() -> None:
    seen: list[Any] = []

    class Watching(FakeRung):
        def expect(self, standing: Standing) -> Expectation:
            seen.append(standing.tuned)
            return super().expect(standing)

    _climb([FakeRung("head", 80), FakeRung("partial", 85, gain=0.1), Watching("full", 85)])
    assert seen == [(0.1, pytest.approx(0.05))]


def test_many_base_models_not_worth_it_share_one_line() -> None:
    others = [FakeRung("base-model", 90, gain=0.0, backbone=f"net {n}") for n in range(5)]
    climbed = _climb([FakeRung("head", 80), *others])
    assert [line.title for line in climbed.climb.rungs] == ["rung head", "5 more base models"]
    assert climbed.climb.rungs[1].settings["base_models"] == [f"net {n}" for n in range(5)]


def test_the_account_is_written_after_every_rung_and_fits_its_schema() -> None:
    from headstart.report.contract import RUNGS_SCHEMA

    written: list[dict[str, Any]] = []
    climbed = _climb(
        [FakeRung("head", 80), FakeRung("partial", 85), FakeRung("full", 0, problem=TrainingError("no"))],
        on_change=lambda climb: written.append(rungs_json(climb, finished=False)),
    )
    assert [len(item["rungs"]) for item in written] == [1, 2, 3]
    final = rungs_json(climbed.climb, finished=True)
    for item in (*written, final):
        assert set(RUNGS_SCHEMA["required"]) <= set(item)
        for rung in item["rungs"]:
            assert set(RUNGS_SCHEMA["properties"]["rungs"]["items"]["required"]) <= set(rung)
            assert rung["status"] in RUNGS_SCHEMA["properties"]["rungs"]["items"]["properties"]["status"]["enum"]
    assert sum(rung["kept"] for rung in final["rungs"]) == 1
    assert final["optimism"] >= 0
