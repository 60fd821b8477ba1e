"""Counting multiply-adds by running one row and watching every operation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["count_multiply_adds"]


def count_multiply_adds(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Return the multiply-adds of convolutions, matrix products and attention for these inputs.

    Element-wise work (activations, normalisation) is left out, as everyone does.

    Examples
    --------
    >>> count_multiply_adds(nn.Linear(3, 5), (torch.zeros(1, 3),))
    15
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return int(counter.get_total_flops()) // 2
