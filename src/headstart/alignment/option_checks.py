"""Checks of constructor options, made when `fit` is called: one sentence for each rule."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from headstart.core.errors import ConfigError

__all__ = ["check_choice", "check_count", "check_number"]


def check_count(who: str, name: str, value: Any, least: int = 1) -> int:
    """Return ``value`` where it is a whole number of at least ``least``.

    Raises
    ------
    ConfigError
        Otherwise.

    Examples
    --------
    >>> check_count("TrAdaBoost", "num_rounds", 10)
    10
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral) or value < least:
        raise ConfigError(f"{who}: {name} must be a whole number of at least {least}; got {value!r}.")
    return int(value)


def check_number(
    who: str,
    name: str,
    value: Any,
    low: float = 0.0,
    high: float = float("inf"),
    *,
    low_included: bool = True,
    high_included: bool = True,
) -> float:
    """Return ``value`` where it is a number between ``low`` and ``high``.

    Raises
    ------
    ConfigError
        Otherwise; NaN is never a number here.

    Examples
    --------
    >>> check_number("BalancedWeighting", "gamma", 0.5, 0.0, 1.0)
    0.5
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    inside = is_number and (value > low or (low_included and value == low))
    inside = inside and (value < high or (high_included and value == high))
    if not inside:
        above, below = "at least" if low_included else "above", "at most" if high_included else "below"
        rule = f"{above} {low:g}" + ("" if high == float("inf") else f" and {below} {high:g}")
        raise ConfigError(f"{who}: {name} must be a number {rule}; got {value!r}.")
    return float(value)


def check_choice(who: str, name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return ``value`` where it is one of ``choices``.

    Raises
    ------
    ConfigError
        Otherwise.

    Examples
    --------
    >>> check_choice("LabelPropagation", "form", "harmonic", ("harmonic", "spreading"))
    'harmonic'
    """
    if value not in choices:
        raise ConfigError(f"{who}: {name} must be one of {', '.join(choices)}; got {value!r}.")
    return str(value)
