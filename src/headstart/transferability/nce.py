"""NCE: minus the uncertainty about the target's class that is left once the source model's class is known.

    NCE = -H(Y | Z) = sum_{y, z} P(y, z) log (P(y, z) / P(z))           P: shares of rows

Source: Tran, Nguyen & Hassner, "Transferability and hardness of supervised classification tasks", ICCV 2019
(arXiv:1908.08142).
Use it when only the source model's predicted classes, or other labels of the same rows, are known.
It ignores how sure the source model was, and is too kind when source classes are as many as rows.
Shapes: n rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.checks import check_same_rows
from headstart.core.errors import ShapeError
from headstart.transferability.targets import class_numbers

__all__ = ["nce"]

Array = npt.NDArray[Any]


def nce(source_labels_n: Array, targets_n: Array) -> float:
    """Return the negative conditional entropy of the targets given source labels; the larger the better.

    Parameters
    ----------
    source_labels_n : ndarray of shape (n,)
        Any labels: the source model's predicted classes, as numbers or text.
    targets_n : ndarray of shape (n,)
        Target classes as whole numbers; at least two occur.

    Returns
    -------
    float
        At most 0; in nats per row.

    Raises
    ------
    HeadstartError
        If the shapes do not fit each other, or there is only one class.

    Examples
    --------
    >>> nce(np.array([3, 3, 8, 8]), np.array([0, 0, 1, 1]))
    0.0
    >>> round(nce(np.array([3, 3, 8, 8]), np.array([0, 1, 1, 1])), 4)      # 1/2 log 1/2
    -0.3466
    """
    source_labels_n = np.asarray(source_labels_n)
    if source_labels_n.ndim != 1:
        raise ShapeError(f"nce: needs one source label for each row, shape (n,); got {source_labels_n.shape}.")
    check_same_rows("nce", "source labels", source_labels_n, "targets", np.asarray(targets_n))
    numbers, num_classes = class_numbers("nce", targets_n)
    names, sources = np.unique(source_labels_n, return_inverse=True)
    joint = np.bincount(sources * num_classes + numbers, minlength=len(names) * num_classes).astype(np.float64)
    joint_zk = joint.reshape(len(names), num_classes) / len(numbers)
    share_zk = joint_zk / joint_zk.sum(axis=1, keepdims=True)
    return float((joint_zk * np.log(np.where(share_zk > 0, share_zk, 1.0))).sum()) + 0.0
