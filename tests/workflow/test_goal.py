"""Goals and budgets: what is understood, and what is refused with a reason."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.core.errors import GoalError
from headstart.core.tasks import Task
from headstart.workflow.goal import parse_budget, parse_goal

TASK = Task("classification", ("a", "b"))


def test_several_requirements_must_all_be_met() -> None:
    goal = parse_goal("macro_f1 >= 0.9 and log_loss <= 0.3", TASK)
    assert [r.metric for r in goal.requirements] == ["f1_macro", "log_loss"]
    assert goal.met_by({"f1_macro": 0.9, "log_loss": 0.3})
    assert not goal.met_by({"f1_macro": 0.9, "log_loss": 0.31})
    assert not goal.met_by({"f1_macro": 0.9})
    assert not goal.met_by({"f1_macro": math.nan, "log_loss": 0.1})


def test_a_strict_sign_is_strict() -> None:
    assert not parse_goal("accuracy > 0.5", TASK).met_by({"accuracy": 0.5})
    assert parse_goal("accuracy > 50 %", TASK).met_by({"accuracy": 0.51})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "got nothing"),
        ("make it good", "cannot be read"),
        ("accuracy >= lots", "cannot be read"),
        ("accurcy >= 0.9", "Did you mean 'accuracy'"),
        ("accuracy <= 0.9", "turn the sign round"),
        ("log_loss >= 0.1", "turn the sign round"),
        ("rmse <= 1", "not defined for classification"),
        ("accuracy >= 0.9.1", "not a number"),
        ("accuracy >= 0.9 or else", "cannot be read"),
        ("accuracy >= 95", "at most 1; write 95 % or 0.95"),
        ("accuracy >= 101 %", "can never be met, accuracy is at most 1"),
        ("log_loss <= -0.1", "at least 0"),
    ],
)
def test_nonsense_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(GoalError, match=reason):
        parse_goal(text, TASK)


def test_without_a_task_all_but_the_task_is_checked() -> None:
    assert parse_goal("rmse <= 1 and size <= 5MB").metric == "rmse"
    with pytest.raises(GoalError, match=r"^goal: no metric is called 'f2'"):
        parse_goal("f2 >= 0.9")


@pytest.mark.parametrize("text", ["", "soon", "-5m", "0s", "10 parsecs", "1h banana", "m", "nan"])
def test_no_budget_is_refused(text: str) -> None:
    with pytest.raises(GoalError, match="budget"):
        parse_budget(text)


@given(st.integers(0, 50), st.integers(0, 59), st.integers(1, 59))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_budget(f"{hours}h {minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds
