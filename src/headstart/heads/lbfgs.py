"""L-BFGS for a convex function whose variables are scaled so that its Hessian is near the identity.

    direction = -B gradient,   B from the last pairs (step, change of gradient) by the two-loop recursion
    gradient . gradient / 2 then estimates how far the value lies above its minimum: the rule for stopping

Source: Nocedal & Wright, "Numerical Optimization", 2nd edition, algorithms 7.4 and 3.1.
Use it for smooth, strictly convex objectives; a full step is tried first and halved until the value falls enough.
It works in the precision of its variables: single precision halves the memory traffic of wide problems.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["minimise"]

Array = npt.NDArray[Any]
MEMORY = 8


def minimise(
    objective: Callable[[Array], tuple[float, Array]], start: Array, tolerance: float, max_steps: int = 1000
) -> Array:
    """Return the variables at which a convex objective is smallest.

    Parameters
    ----------
    objective : callable (variables) -> (value, gradient)
        At least 0; the gradient is a new array in the precision of the variables.
    start : ndarray of shape (p,)
        Where to begin.
    tolerance : float
        It stops when the estimated distance to the minimum is below this share of the value.
    max_steps : int
        It stops here in any case.

    Examples
    --------
    >>> minimise(lambda x: (float((x - 3) @ (x - 3)) + 1, 2 * (x - 3)), np.zeros(2), 1e-9).round(4)
    array([3., 3.])
    """
    place = start
    value, gradient = objective(place)
    pairs: deque[tuple[Array, Array, float]] = deque(maxlen=MEMORY)
    noise = 4 * float(np.finfo(place.dtype).eps)
    for _ in range(max_steps):
        if 0.5 * float(gradient @ gradient) <= tolerance * value:
            break
        direction = _direction(gradient, pairs)
        slope = float(direction @ gradient)
        step = 1.0
        while True:
            following = place + np.asarray(step, place.dtype) * direction
            new_value, new_gradient = objective(following)
            if new_value <= value + 1e-4 * step * slope + noise * abs(value) or step < 1e-6:
                break
            step /= 2
        if not new_value <= value + noise * abs(value):
            break  # as low as this precision can tell
        moved, change = following - place, new_gradient - gradient
        curvature = float(moved @ change)
        if curvature > 1e-12 * float(change @ change):
            pairs.append((moved, change, curvature))
        settled = value - new_value <= 0.1 * tolerance * value
        place, value, gradient = following, new_value, new_gradient
        if settled:
            break
    return place


def _direction(gradient: Array, pairs: deque[tuple[Array, Array, float]]) -> Array:
    """Return minus the inverse Hessian's estimate times the gradient."""
    direction = -gradient
    shares = []
    for moved, change, curvature in reversed(pairs):
        share = float(moved @ direction) / curvature
        direction -= np.asarray(share, direction.dtype) * change
        shares.append(share)
    if pairs:
        moved, change, curvature = pairs[-1]
        direction *= np.asarray(curvature / float(change @ change), direction.dtype)
    for (moved, change, curvature), share in zip(pairs, reversed(shares), strict=True):
        direction += np.asarray(share - float(change @ direction) / curvature, direction.dtype) * moved
    return direction
