"""What the network said of every target row when it last saw it: the memory that neighbourhoods and pseudo-labels are read from.

    row i:   features f_i and probabilities softmax(z_i), at first by the network at the start, then those of its last step

It is filled from `Setup.target_outputs` and kept in buffers of the objective, so that a killed run goes on with it.
Source: the memory banks of ATDOC (arXiv:2007.04171) and NRC (arXiv:2110.04202), which begin at random or by one pass.
Use it for objectives that look beyond the batch. It ignores that rows seen long ago were seen by an older network.
Shapes: m rows of the target stream, d features, k classes, q neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core.errors import ConfigError
from headstart.objectives.objective import Setup

__all__ = ["first_outputs", "nearest_rows"]


def first_outputs(who: str, setup: Setup) -> tuple[Tensor, Tensor]:
    """Return features (m, d) and logits (m, k) of all target rows, float32, where the network is.

    Parameters
    ----------
    who : str
        The objective, for the error.
    setup : Setup
        Gives them.

    Raises
    ------
    ConfigError
        If there is no second stream.

    Examples
    --------
    >>> import numpy as np
    >>> outputs = lambda: (np.ones((3, 2), np.float32), np.zeros((3, 4), np.float32))
    >>> setup = Setup(torch.nn.Module(), task=None, num_target=3, target_outputs=outputs)
    >>> [tuple(tensor.shape) for tensor in first_outputs("NRC", setup)]
    [(3, 2), (3, 4)]
    """
    if setup.target_outputs is None or not setup.num_target:
        raise ConfigError(f"{who}: needs a second stream of rows; give rows of the target domain.")
    device = next((item.device for item in setup.network.parameters()), torch.device("cpu"))
    features, logits = setup.target_outputs()
    return torch.from_numpy(features).float().to(device), torch.from_numpy(logits).float().to(device)


def nearest_rows(features_bd: Tensor, memory_md: Tensor, rows_b: Tensor, num_neighbours: int) -> Tensor:
    """Return which rows of the memory are nearest by cosine, nearest first; no row is its own neighbour.

    Parameters
    ----------
    features_bd : Tensor of shape (b, d)
        Rows that look for neighbours.
    memory_md : Tensor of shape (m, d)
        Rows to be found; a row of zeros is near nobody.
    rows_b : Tensor of shape (b,)
        int64, which rows of the memory those that look are.
    num_neighbours : int
        How many; fewer where the memory has fewer others.

    Returns
    -------
    Tensor of shape (b, q)
        int64 places in the memory.

    Examples
    --------
    >>> memory = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> nearest_rows(memory[:1], memory, torch.tensor([0]), 2).tolist()
    [[1, 2]]
    """
    similarity_bm = functional.normalize(features_bd, dim=1) @ functional.normalize(memory_md, dim=1).T
    similarity_bm.scatter_(1, rows_b[:, None], -torch.inf)
    return similarity_bm.topk(max(0, min(num_neighbours, len(memory_md) - 1)), dim=1).indices
