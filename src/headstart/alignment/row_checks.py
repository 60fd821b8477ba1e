"""What is wrong with rows or labels that an aligner is given, in words: no rows, numbers that are none, one class only."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from headstart.core.errors import DomainError

__all__ = ["in_our_words", "source_classes"]

Array = npt.NDArray[Any]


def source_classes(who: str, labels_n: Array) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return the classes of the source's labels, sorted, and each label's place among them.

    Raises
    ------
    DomainError
        If there is one class only: nothing to tell apart.

    Examples
    --------
    >>> [part.tolist() for part in source_classes("CORAL", np.array(["no", "yes", "no"]))]
    [['no', 'yes'], [0, 1, 0]]
    """
    classes, codes = np.unique(labels_n, return_inverse=True)
    if len(classes) < 2:
        raise DomainError(f"{who}: the source needs at least two classes; it has one class, {classes.tolist()[0]!r}.")
    return classes, codes.reshape(-1).astype(np.int64)


def in_our_words(who: str, name: str, rows: Any, error: ValueError) -> ValueError:
    """Return what is wrong with rows: none of them, or numbers that are none; any other error as it came."""
    is_sparse: bool = sparse.issparse(rows)
    try:
        values: Any = rows.tocoo() if is_sparse else np.asarray(rows)
        numbers = np.asarray(values.data if is_sparse else values)
        broken = np.zeros(0, bool) if numbers.dtype.kind == "c" else ~np.isfinite(numbers.astype(np.float64))
    except (TypeError, ValueError):
        return error
    if values.ndim == 2 and values.shape[0] == 0:
        return DomainError(f"{who}: {name} has no rows (0 sample(s)); give at least one row of each domain.")
    if values.ndim != 2 or not broken.any():
        return error
    row_of, column_of = (values.row[broken], values.col[broken]) if is_sparse else np.nonzero(broken)
    return DomainError(
        f"{who}: {len(np.unique(row_of))} of {values.shape[0]} rows of {name} hold NaN or infinity, the first is row "
        f"{int(row_of[0])}, column {int(column_of[0])}; leave such rows out or fill them in first."
    )
