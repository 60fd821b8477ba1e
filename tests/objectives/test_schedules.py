"""Schedules against the published formula, at the start, half way and at the end."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.core.errors import ConfigError
from headstart.objectives.schedules import linear, ramp

SHARES = st.floats(0.0, 1.0)


@pytest.mark.parametrize(("share", "value"), [(0.0, 0.0), (0.5, 0.986614298151430), (1.0, 0.999909204262595)])
def test_the_ramp_at_start_half_and_end(share: float, value: float) -> None:
    assert ramp(share) == pytest.approx(value, abs=1e-15)
    assert ramp(share) == pytest.approx(2 / (1 + math.exp(-10 * share)) - 1, abs=1e-15)


@given(SHARES, st.floats(0.1, 30.0))
def test_the_ramp_is_the_published_formula(share: float, steepness: float) -> None:
    assert ramp(share, steepness) == pytest.approx(2 / (1 + math.exp(-steepness * share)) - 1, abs=1e-14)


@given(SHARES, SHARES)
def test_the_ramp_never_falls_and_stays_in_bounds(first: float, second: float) -> None:
    low, high = sorted((ramp(first), ramp(second)))
    assert (ramp(first) <= ramp(second)) == (first <= second or low == high)
    assert 0 <= low <= high < 1


def test_linear_at_start_half_and_end() -> None:
    assert [linear(share, 2.0, 6.0) for share in (0.0, 0.5, 1.0)] == [2.0, 4.0, 6.0]
    assert [linear(share, 1.0, 0.0, reach=0.25) for share in (0.0, 0.125, 0.25, 1.0)] == [1.0, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_outside_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="share of training done"):
        ramp(share)
    with pytest.raises(ConfigError, match="share of training done"):
        linear(share)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="steepness is above 0; got 0"):
        ramp(0.5, 0.0)
    with pytest.raises(ConfigError, match="reach is above 0"):
        linear(0.5, reach=0.0)
