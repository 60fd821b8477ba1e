"""Which aligners compete where labels are numbers, and the ridge regression they share.

Shapes: n source rows, d features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.linear_model import Ridge, RidgeCV

from headstart.alignment import AdaptedRegressor, Aligner, DomainRegressor, FeatureAligner, Reweighter
from headstart.catalog import entries, find
from headstart.core.errors import ConfigError
from headstart.workflow.adaptations import NO_ADAPTATION

__all__ = ["base_regressor", "default_value_candidates", "make_value_candidates", "value_aligners"]

VALUE_CANDIDATES = ("moment-matching", "coral", "linear-ot", "subspace-alignment", "tca", "discriminator-ratio")
_QUADRATIC = {"tca"}  # holds a number for every pair of rows
_MOST_PAIRED_ROWS = 8000
_PENALTIES = np.logspace(-3, 4, 15)

Array = NDArray[Any]


def base_regressor(source_nd: Array, values_n: Array) -> Ridge:
    """Return the regressor every aligner shares: ridge regression whose penalty the source rows choose, each left out once.

    Examples
    --------
    >>> rows = np.arange(10.0)[:, None]
    >>> bool(base_regressor(rows, 3 * rows[:, 0]).alpha <= 1e-2)
    True
    """
    search = RidgeCV(_PENALTIES).fit(source_nd.astype(np.float64), values_n)
    return Ridge(alpha=float(search.alpha_))


def default_value_candidates(num_rows: int) -> tuple[str, ...]:
    """Return the aligners that compete for numbers when nobody names any, by the number of rows of both domains together.

    Their mean gains on the 24 pairs of docs/benchmarks.md are between -1.4 and +3.4 points of R2.

    Examples
    --------
    >>> "tca" in default_value_candidates(1_000), "tca" in default_value_candidates(100_000)
    (True, False)
    """
    small = num_rows <= _MOST_PAIRED_ROWS
    return tuple(name for name in VALUE_CANDIDATES if small or name not in _QUADRATIC)


def value_aligners(*, few: bool = False) -> tuple[str, ...]:
    """Return the names of all aligners that serve a regressor.

    Parameters
    ----------
    few : bool
        Whether there are labelled target rows; without, those that learn from them are none.

    Examples
    --------
    >>> names = value_aligners()
    >>> "coral" in names, "jdot-regression" in names, "jda" in names, "tradaboost-r2" in names
    (True, True, False, False)
    >>> "tradaboost-r2" in value_aligners(few=True)
    True
    """
    return tuple(entry.name for entry in entries("aligner") if _serves(entry.load(), few))


def _serves(kind: type, few: bool) -> bool:
    if not issubclass(kind, Aligner) or (kind.uses_target_labels and not few):
        return False
    return issubclass(kind, DomainRegressor) or (
        issubclass(kind, FeatureAligner | Reweighter) and not kind.requires_labels
    )


def make_value_candidates(names: Sequence[str], base: Any, *, few: bool = False) -> dict[str, Aligner]:
    """Return estimators by name, "do not adapt" first.

    Parameters
    ----------
    names : sequence of str
        Of aligners.
    base : scikit-learn regressor
        What learns behind those that move or weigh rows, unfitted.
    few : bool
        Whether there are labelled target rows.

    Raises
    ------
    ConfigError
        If there is no such aligner, it serves no regressor, or it needs labelled target rows and there are none.
    """
    found: dict[str, Aligner] = {NO_ADAPTATION: AdaptedRegressor(None, clone(base))}
    for name in names:
        entry = find(name, "aligner")
        kind = entry.load()
        if not _serves(kind, few):
            has_no_few = issubclass(kind, DomainRegressor) and not few
            why = "learns from labelled target rows, and there are none" if has_no_few else "reads classes"
            raise ConfigError(
                f"adapt: {entry.name} {why}, and the source's labels are numbers; choose from "
                f"{', '.join(value_aligners(few=few))}."
            )
        found[entry.name] = kind() if issubclass(kind, DomainRegressor) else AdaptedRegressor(kind(), clone(base))
    return found
