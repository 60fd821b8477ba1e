"""A caution where what was chosen fills classes that "do not adapt" hardly finds among the target rows.

    p_c, q_c    share of target rows that "do not adapt", and what was chosen, call class c
    filled      classes with p_c < 1 / (2k) and q_c - p_c >= 1 / (4k)

Rules that go there and back count source rows that come back, so answers that use all classes score higher. That is right where
the target has every class of the source, and wrong where it lacks some: there they choose what fills the absent classes with rows
of others. Nothing without target labels tells the two apart, so the user is told what the choice rests on.
Use it after a choice that no target label made. It ignores whether the answers are right. The two bounds are ours.
Shapes: m target rows, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["caution", "filled_classes"]

_NAMED = 5


def filled_classes(before_m: NDArray[np.int64], after_m: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """Return the classes that are rare in the first answers and gain in the second.

    Parameters
    ----------
    before_m, after_m : int64 arrays of shape (m,)
        Class numbers; rows of no class have the number ``num_classes``.
    num_classes : int
        How many classes there are.

    Examples
    --------
    >>> before = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    >>> filled_classes(before, np.array([0, 0, 2, 1, 1, 1, 2, 2]), 4).tolist()
    [2]
    """
    shares = [np.bincount(part, minlength=num_classes + 1)[:num_classes] / len(part) for part in (before_m, after_m)]
    even = 1 / num_classes
    return np.flatnonzero((shares[0] < even / 2) & (shares[1] - shares[0] >= even / 4))


def caution(chosen: str, before_m: NDArray[np.int64], after_m: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Return what to know of a choice that fills classes, as a sentence that follows its reason; nothing where it fills none.

    Parameters
    ----------
    chosen : str
        What was chosen.
    before_m, after_m : int64 arrays of shape (m,)
        Class numbers that "do not adapt" and what was chosen give to the target rows.
    classes : sequence of str
        Names.

    Examples
    --------
    >>> caution("coral", np.array([0, 0, 0, 0]), np.array([0, 0, 1, 1]), ("ant", "bee"))[:65]
    ' coral calls more target rows bee, which do not adapt hardly find'
    """
    found = filled_classes(before_m, after_m, len(classes))
    if not len(found):
        return ""
    named = [str(classes[number]) for number in found[:_NAMED]]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return (
        f" {chosen} calls more target rows {', '.join(named)}{more}, which do not adapt hardly finds. That is right where the "
        "target has every class of the source and wrong where it lacks some, and no rule without target labels tells which: if "
        "it may lack them, keep the answers of do not adapt, or take --method partial."
    )
