"""How many threads linear algebra may take for a problem of some size.

Threads of a BLAS library wait for each other by spinning: on small problems, or on a machine that does other work too, two of
them burn several times the processor time of one and finish later. Small problems are therefore solved on one thread.
"""

from __future__ import annotations

import contextlib
import math
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

__all__ = ["threads_for"]

_SMALL = 300_000_000


@cache
def _controller() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401 - scipy brings a BLAS of its own, which must be loaded to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def threads_for(shape: tuple[int, ...], num_outputs: int) -> contextlib.AbstractContextManager[object]:
    """Return a context in which small problems are computed on one thread, large ones on as many as there are."""
    if math.prod(shape) * num_outputs > _SMALL:
        return contextlib.nullcontext()
    limits: contextlib.AbstractContextManager[object] = _controller().limit(limits=1, user_api="blas")
    return limits
