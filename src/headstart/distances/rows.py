"""Reading two domains: arrays or tensors in, finite floating-point matrices of one library out.

NumPy arrays and torch tensors go through the same formulas (`array_api_compat`), so a measure is also a differentiable loss.
Half precision is computed in float32, float32 and float64 are kept, whole numbers become float64.
torch is never imported here; a tensor brings its own library.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace, is_array_api_obj, is_torch_array
from scipy import sparse

from headstart.core.checks import HasShape, check_matrix, check_same_rows, check_same_width
from headstart.core.errors import ConfigError, DomainError

__all__ = [
    "as_floats",
    "as_numpy",
    "check_order",
    "constant",
    "finish",
    "read_domains",
    "read_pairs",
    "root",
    "take_rows",
]

Array = npt.NDArray[Any]
_BLOCK = 65_536


def read_domains(who: str, source: Any, target: Any, *, min_rows: int = 1) -> tuple[Any, Any, Any]:
    """Return the library both domains belong to, and the domains as finite floating-point matrices of one type.

    Parameters
    ----------
    who : str
        Name of the caller, for messages.
    source, target : array-like of shape (n, d) and (m, d)
        NumPy arrays, torch tensors, data frames or lists of rows.
    min_rows : int
        Rows that each domain needs.

    Raises
    ------
    ShapeError
        If a domain is no matrix, has too few rows, or the widths differ.
    DomainError
        If a domain is sparse, holds no numbers or NaN or infinity, or the domains are of two libraries or devices.

    Examples
    --------
    >>> xp, source, target = read_domains("demo", [[1, 2]], np.zeros((3, 2), dtype=np.float32))
    >>> source.dtype, target.shape
    (dtype('float64'), (3, 2))
    """
    source, target = as_floats(who, "source", source), as_floats(who, "target", target)
    check_same_width(who, source, target, min_rows)
    xp = _one_library(who, source, target)
    dtype = xp.result_type(source.dtype, target.dtype)
    source, target = xp.astype(source, dtype, copy=False), xp.astype(target, dtype, copy=False)
    _check_finite(who, "source", xp, source)
    _check_finite(who, "target", xp, target)
    return xp, source, target


def read_pairs(who: str, first: Any, second: Any, *, min_rows: int = 1) -> tuple[Any, Any, Any]:
    """Return the library, and two representations of the same rows; their widths may differ.

    Raises
    ------
    ShapeError
        If one is no matrix, has too few rows, or the numbers of rows differ.
    DomainError
        As `read_domains`.
    """
    first, second = as_floats(who, "first", first), as_floats(who, "second", second)
    check_matrix(who, "first", cast(HasShape, first), min_rows)
    check_matrix(who, "second", cast(HasShape, second), min_rows)
    check_same_rows(who, "first", first, "second", second)
    xp = _one_library(who, first, second)
    dtype = xp.result_type(first.dtype, second.dtype)
    first, second = xp.astype(first, dtype, copy=False), xp.astype(second, dtype, copy=False)
    _check_finite(who, "first", xp, first)
    _check_finite(who, "second", xp, second)
    return xp, first, second


def finish(value: Any) -> Any:
    """Return a NumPy scalar as a Python float, a tensor as it is."""
    return value if is_torch_array(value) else float(value)


def constant(rows: Any) -> Any:
    """Return rows through which no gradient flows."""
    return rows.detach() if is_torch_array(rows) else rows


def as_numpy(rows: Any) -> Array:
    """Return an array or a tensor of any device as a NumPy array."""
    return np.asarray(rows.detach().cpu().numpy() if is_torch_array(rows) else rows)


def root(xp: Any, values: Any) -> Any:
    """Return the square root, 0 below 0; the gradient at 0 is 0 where the root's own is infinite."""
    positive = values > 0
    return xp.where(positive, xp.sqrt(xp.where(positive, values, xp.ones_like(values))), xp.zeros_like(values))


def take_rows(xp: Any, rows: Any, places: Array) -> Any:
    """Return the rows at the given places, on their own device."""
    if isinstance(rows, np.ndarray):
        return rows[places]
    return rows[xp.asarray(places, device=rows.device)]


def check_order(who: str, order: int) -> None:
    """Refuse a Wasserstein order other than 1 and 2."""
    if order not in (1, 2):
        raise ConfigError(f"{who}: order must be 1 or 2; got {order!r}.")


def as_floats(who: str, name: str, rows: Any) -> Any:
    """Return rows as an array or tensor of float32 or float64.

    Raises
    ------
    DomainError
        If they are sparse, or hold no real numbers.

    Examples
    --------
    >>> as_floats("demo", "rows", [[1, 2]]).dtype, as_floats("demo", "rows", np.zeros((1, 1), np.float16)).dtype
    (dtype('float64'), dtype('float32'))
    """
    if sparse.issparse(rows):
        raise DomainError(
            f"{who}: {name} is a sparse matrix, and this measure needs every entry; reduce it first (TruncatedSVD), "
            "or give .toarray() where it fits in memory."
        )
    if not is_array_api_obj(rows):
        rows = np.asarray(rows)
    if isinstance(rows, np.ndarray) and rows.dtype.kind not in "fiub":
        raise DomainError(
            f"{who}: {name} must hold real numbers; got type {rows.dtype}. Encode text and categories first."
        )
    xp = array_namespace(rows)
    if not xp.isdtype(rows.dtype, "real floating"):
        return xp.astype(rows, xp.float64)
    size = rows.dtype.itemsize
    return xp.astype(rows, xp.float32) if size < 4 else xp.astype(rows, xp.float64) if size > 8 else rows


def _one_library(who: str, source: Any, target: Any) -> Any:
    if is_torch_array(source) != is_torch_array(target):
        raise DomainError(f"{who}: one domain is an array and the other a tensor; give two of one kind.")
    if is_torch_array(source) and source.device != target.device:
        raise DomainError(f"{who}: source is on {source.device} but target on {target.device}; move one of them.")
    return array_namespace(source, target)


def _check_finite(who: str, name: str, xp: Any, rows: Any) -> None:
    """Refuse NaN and infinity; a finite sum proves that there are none, and costs no array."""
    rows = constant(rows)
    for start in range(0, rows.shape[0], _BLOCK):
        block = rows[start : start + _BLOCK]
        with np.errstate(over="ignore", invalid="ignore"):
            if bool(xp.isfinite(xp.sum(block))):
                continue
        bad = np.flatnonzero(~as_numpy(xp.all(xp.isfinite(block), axis=1)))
        if len(bad):
            raise DomainError(
                f"{who}: {name} has NaN or infinity in {len(bad)} of rows {start} to {start + block.shape[0] - 1}, the first "
                f"is row {start + bad[0]}; leave such rows out or fill them in."
            )
