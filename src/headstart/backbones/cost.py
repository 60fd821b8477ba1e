"""Counting multiply-adds by running a network and watching every operation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

__all__ = ["MultiplyAdds", "count_multiply_adds"]


class MultiplyAdds(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, adds up the multiply-adds of convolutions, matrix products and attention in ``total``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += int(count(*args, **(kwargs or {}), out_val=result)) // 2  # a multiply and an add are one
        return result


def count_multiply_adds(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Return the multiply-adds of convolutions, matrix products and attention for these inputs.

    Element-wise work (activations, normalisation) is left out, as everyone does.

    Examples
    --------
    >>> count_multiply_adds(nn.Linear(3, 5), (torch.zeros(1, 3),))
    15
    """
    with torch.no_grad(), MultiplyAdds() as counter:
        module(*inputs)
    return int(counter.total)
