"""The rule that chooses a strategy: its borders, and that its words hold its numbers."""

from __future__ import annotations

import pytest

from headstart.core.errors import ConfigError
from headstart.training.adapters import LowRankAdapters
from headstart.training.choose import choose_strategy
from headstart.training.strategies import HeadOnly, LastStages, LayerwiseDecay, LinearProbeThenFineTune, Strategy

SOME = LinearProbeThenFineTune(LastStages(2))
MANY = LinearProbeThenFineTune(LayerwiseDecay())
HUGE = LinearProbeThenFineTune(LowRankAdapters())


@pytest.mark.parametrize(
    ("num_rows", "num_classes", "parameters", "num_stages", "expected"),
    [
        (5000, 2, 0, 0, HeadOnly()),
        (39, 2, 10**7, 5, HeadOnly()),
        (40, 2, 10**7, 5, SOME),
        (184, 37, 10**7, 5, HeadOnly()),  # not 5 a class
        (185, 37, 10**7, 5, SOME),
        (40, 1, 10**7, 5, SOME),  # regression has no classes to count
        (999, 2, 10**7, 5, SOME),
        (999, 2, 10**7, 1, MANY),  # one stage cannot be divided
        (1000, 2, 10**7, 5, MANY),
        (1000, 2, 300_000_001, 30, HUGE),
        (999, 2, 300_000_001, 30, LinearProbeThenFineTune(LastStages(10))),
    ],
)
def test_the_borders_of_the_rule(
    num_rows: int, num_classes: int, parameters: int, num_stages: int, expected: Strategy
) -> None:
    choice = choose_strategy(num_rows, num_classes, parameters=parameters, num_stages=num_stages)
    assert choice.strategy == expected
    assert parameters == 0 or f"{num_rows:,} rows" in choice.reason


@pytest.mark.parametrize(
    ("cpu_seconds", "num_stages", "parameters", "expected"),
    [
        (600.0, 6, 10**7, MANY),
        (601.0, 6, 10**7, SOME),
        (601.0, 1, 10**7, MANY),  # nothing to divide
        (
            601.0,
            6,
            300_000_001,
            HUGE,
        ),  # adapters need the whole network, but so little memory that nothing else may fit
    ],
)
def test_what_takes_long_without_a_gpu_trains_the_last_third(
    cpu_seconds: float, num_stages: int, parameters: int, expected: Strategy
) -> None:
    choice = choose_strategy(5000, 2, parameters=parameters, num_stages=num_stages, cpu_seconds=cpu_seconds)
    assert choice.strategy == expected
    assert ("10 min 1 s of one core" in choice.reason) == (expected == SOME)


def test_no_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one row; got 0"):
        choose_strategy(0, 2, parameters=1, num_stages=1)
