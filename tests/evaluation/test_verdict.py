"""The verdict's sentence and its logic, case by case."""

from __future__ import annotations

import pytest

from headstart.core.errors import ConfigError
from headstart.core.tasks import Task
from headstart.evaluation import Evaluation, Interval, PairedTest, Verdict, default_metric, judge

TASK = Task("classification", ("cat", "dog"))


def at(value: float, low: float | None = None, high: float | None = None, task: Task = TASK) -> Evaluation:
    metric = default_metric(task)
    return Evaluation(task, 1000, {metric: Interval(value, low or value, high or value)})


def gap(difference: float, p_value: float, metric: str = "accuracy") -> PairedTest:
    return PairedTest(metric, "exact McNemar", difference, difference - 0.02, difference + 0.02, p_value)


def verdict(**tests: tuple[float, float, float]) -> Verdict:
    """Judge 0.912 against baselines given as name=(value, difference, p)."""
    return judge(
        at(0.912, 0.889, 0.931),
        {name: at(value) for name, (value, _, _) in tests.items()},
        {name: gap(difference, p_value) for name, (_, difference, p_value) in tests.items()},
    )


def test_the_sentence_is_the_one_promised() -> None:
    found = verdict(majority=(0.169, 0.743, 1e-9), raw=(0.70, 0.21, 1e-9), scratch=(0.63, 0.28, 1e-9))
    assert found.text == (
        "Transfer helped: accuracy 91.2 % (95 % CI 88.9 to 93.1), from scratch 63.0 %, majority 16.9 %; "
        "paired test p < 0.001."
    )
    assert found.transfer_helped is True
    assert found.metric == "accuracy"
    assert len(found.reasons) == 3


def test_not_helped_when_scratch_is_better() -> None:
    found = verdict(majority=(0.5, 0.4, 1e-9), scratch=(0.96, -0.05, 0.001))
    assert found.transfer_helped is False
    assert found.text.startswith("Transfer did not help: accuracy 91.2 %")
    assert found.text.endswith("from scratch 96.0 %, majority 50.0 %; paired test p = 0.001.")
    assert any(reason.startswith("worse than from scratch: by 5 points of accuracy") for reason in found.reasons)


def test_not_helped_when_raw_input_is_better() -> None:
    found = verdict(scratch=(0.63, 0.28, 1e-9), raw=(0.95, -0.04, 0.002))
    assert found.transfer_helped is False
    assert "raw input 95.0 %" in found.text
    assert found.text.endswith("paired test against raw input p = 0.002.")


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        ({"scratch": (0.90, 0.012, 0.2)}, "unclear"),
        ({"scratch": (0.63, 0.28, 1e-9), "raw": (0.911, 0.001, 0.8)}, "unclear"),
        ({"raw": (0.5, 0.4, 1e-9)}, "unclear"),
        ({}, "unclear"),
        ({"scratch": (0.92, -0.008, 0.04), "raw": (0.5, 0.4, 1e-9)}, "unclear"),  # 0.04 of two tests is no proof
        ({"scratch": (0.92, -0.008, 0.04)}, False),
        ({"scratch": (0.88, 0.03, 0.049), "raw": (0.5, 0.4, 1e-9)}, True),
        ({"scratch": (0.912, 0.0, 1.0)}, "unclear"),
    ],
)
def test_the_logic(tests: dict[str, tuple[float, float, float]], expected: object) -> None:
    found = verdict(**tests)
    assert found.transfer_helped is expected or found.transfer_helped == expected
    lead = {True: "Transfer helped:", False: "Transfer did not help:", "unclear": "Unclear whether transfer helped:"}
    assert found.text.startswith(lead[expected])  # type: ignore[index]


def test_without_scratch_it_says_so() -> None:
    found = verdict(majority=(0.5, 0.4, 1e-9))
    assert found.text.endswith("; not compared with training from scratch.")
    assert "no from-scratch run to compare with" in found.reasons


def test_unclear_names_the_baseline_in_the_way() -> None:
    found = verdict(scratch=(0.63, 0.28, 1e-9), raw=(0.911, 0.001, 0.8))
    assert "raw input 91.1 %" in found.text
    assert found.text.endswith("paired test against raw input p = 0.80.")


def test_numbers_have_a_mean_and_no_per_cent() -> None:
    task = Task("regression")
    found = judge(
        at(4.1, 3.8, 4.5, task),
        {"scratch": at(6.2, task=task), "majority": at(7.9, task=task)},
        {"scratch": gap(2.1, 1e-5, "rmse"), "majority": gap(3.8, 1e-5, "rmse")},
    )
    assert found.text == (
        "Transfer helped: RMSE 4.10 (95 % CI 3.80 to 4.50), from scratch 6.20, mean 7.90; paired test p < 0.001."
    )
    assert "by 2.1 RMSE" in found.reasons[0]


def test_significance_is_the_users() -> None:
    arguments = (at(0.9), {"scratch": at(0.8)}, {"scratch": gap(0.1, 0.03)})
    assert judge(*arguments).transfer_helped is True
    assert judge(*arguments, significance=0.01).transfer_helped == "unclear"


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'accuracy'"):
        judge(at(0.9), {}, {}, metric="acuracy")
    with pytest.raises(ConfigError, match="'scratch' needs a paired test in 'accuracy'"):
        judge(at(0.9), {"scratch": at(0.8)}, {})
    with pytest.raises(ConfigError, match="needs a paired test"):
        judge(at(0.9), {"scratch": at(0.8)}, {"scratch": gap(0.1, 0.01, "f1_macro")})


def test_to_dict_is_json() -> None:
    assert verdict().to_dict()["transfer_helped"] == "unclear"
