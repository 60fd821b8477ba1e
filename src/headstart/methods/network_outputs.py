"""What a network says of rows as they are: features and logits of each row once, by the plain view, in evaluation mode.

Shapes: n rows, d features, k outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.training import Network, TrainingRows

__all__ = ["network_outputs"]

_ROWS_AT_ONCE = 64


def network_outputs(
    network: Network, rows: TrainingRows, *, activation: str | None = None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return features (n, d) and logits (n, k), float32.

    Parameters
    ----------
    network : Network
        Left in evaluation mode.
    rows : TrainingRows
        Labels are not looked at.
    activation : str, optional
        Name of a segment whose output stands in the place of the features.

    Examples
    --------
    >>> from headstart.backbones import vector_backbone
    >>> from headstart.data import open_dataset
    >>> from headstart.training import InputRows
    >>> rows = InputRows(open_dataset(np.eye(2, dtype=np.float32), unlabelled=True), vector_backbone(2))
    >>> network = Network({"features": torch.nn.Identity()}, {"main": torch.nn.Linear(2, 3)})
    >>> features, logits = network_outputs(network, TrainingRows(rows, None))
    >>> features.tolist(), logits.shape
    ([[1.0, 0.0], [0.0, 1.0]], (2, 3))
    """
    network.eval()
    device = next((item.device for item in network.parameters()), torch.device("cpu"))
    features, logits = [], []
    with torch.no_grad():
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            inputs = rows.inputs.batch(rows.indices[start : start + _ROWS_AT_ONCE], None)
            output = network(*(tensor.to(device) for tensor in inputs), activations=activation is not None)
            seen = output.features if activation is None else output.activations[activation]
            features.append(seen.float().cpu().numpy())
            logits.append(output.logits.float().cpu().numpy())
    return np.concatenate(features), np.concatenate(logits)
