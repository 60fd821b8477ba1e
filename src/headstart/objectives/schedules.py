"""Schedules: how a weight, a reversal or a momentum moves while training goes on. Pure functions of the share that is done.

    ramp(p)     = 2 / (1 + exp(-s p)) - 1             0 at the start, steep at first, level at the end (0.99991 for s = 10)
    linear(p)   = start + (end - start) min(p / reach, 1)

Source: Ganin & Lempitsky, "Unsupervised domain adaptation by backpropagation", ICML 2015 (arXiv:1409.7495), section 4, for the
ramp with s = 10; most methods that came after take it over.
Use them as factors of terms that mislead while the features mean nothing yet.
It ignores how many steps or epochs there are: `Batch.share` runs from 0 to 1 whatever the budget.
"""

from __future__ import annotations

import math

from headstart.core.errors import ConfigError

__all__ = ["linear", "ramp", "rise_factor"]


def ramp(share: float, steepness: float = 10.0) -> float:
    """Return a factor that rises from 0 towards 1, half of a logistic curve.

    Parameters
    ----------
    share : float in [0, 1]
        How much of the training is done.
    steepness : float, above 0
        The larger, the earlier the factor is near 1.

    Returns
    -------
    float
        In [0, 1): 0 where nothing is done.

    Raises
    ------
    ConfigError
        If an argument breaks its rule.

    Examples
    --------
    >>> ramp(0.0)
    0.0
    >>> round(ramp(0.5), 6), round(ramp(1.0), 6)                 # tanh(2.5), tanh(5)
    (0.986614, 0.999909)
    """
    _check_share("ramp", share)
    if not steepness > 0:
        raise ConfigError(f"ramp: steepness is above 0; got {steepness}.")
    return math.tanh(steepness * share / 2)  # the same number, without exp of anything large


def linear(share: float, start: float = 0.0, end: float = 1.0, reach: float = 1.0) -> float:
    """Return a number that moves evenly from ``start`` to ``end`` and then stays.

    Parameters
    ----------
    share : float in [0, 1]
        How much of the training is done.
    start, end : float
        Its first and its last value.
    reach : float in (0, 1]
        The share at which the last value is reached.

    Raises
    ------
    ConfigError
        If an argument breaks its rule.

    Examples
    --------
    >>> linear(0.25), linear(0.25, start=2.0, end=4.0, reach=0.5), linear(0.75, reach=0.5)
    (0.25, 3.0, 1.0)
    """
    _check_share("linear", share)
    if not 0 < reach <= 1:
        raise ConfigError(f"linear: reach is above 0 and at most 1; got {reach}.")
    return start + (end - start) * min(share / reach, 1.0)


def rise_factor(who: str, rise: float, share: float) -> float:
    """Return `ramp` of the share, or 1 for a term that counts in full from the start.

    Parameters
    ----------
    who : str
        Name of the caller, for messages.
    rise : float, at least 0
        Steepness of the ramp; 0 for none.
    share : float in [0, 1]
        How much of the training is done.

    Raises
    ------
    ConfigError
        If an argument breaks its rule.

    Examples
    --------
    >>> rise_factor("demo", 0.0, share=0.0), rise_factor("demo", 10.0, share=0.0)
    (1.0, 0.0)
    """
    if not rise >= 0:
        raise ConfigError(f"{who}: rise is at least 0; got {rise}.")
    return ramp(share, rise) if rise else 1.0


def _check_share(who: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ConfigError(f"{who}: the share of training done lies in [0, 1]; got {share}.")
