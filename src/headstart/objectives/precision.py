"""Formulas are computed in float32 at least, whatever precision the network runs in.

A loss is a sum of small differences; float16 and bfloat16 lose them. Inside `torch.autocast` even float32 matrix products would
be done in half precision, so a formula that multiplies matrices switches it off for itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["full_precision", "widen"]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def widen(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or unchanged where it is float32 or float64.

    Examples
    --------
    >>> widen(torch.ones(1, dtype=torch.bfloat16)).dtype, widen(torch.ones(1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def full_precision(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Make a formula the same inside `torch.autocast` and outside.

    Examples
    --------
    >>> product = full_precision(lambda a, b: a @ b)
    >>> with torch.autocast("cpu", dtype=torch.bfloat16):
    ...     product(torch.ones(1, 1), torch.ones(1, 1)).dtype
    torch.float32
    """

    @functools.wraps(function)
    def outside_autocast(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        given = (*args, *kwargs.values())
        device = next((value.device.type for value in given if isinstance(value, Tensor)), "cpu")
        with torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return outside_autocast
