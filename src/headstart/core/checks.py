"""Checks of arrays and tensors alike: whatever has a ``shape``."""

from __future__ import annotations

from typing import Protocol

from headstart.core.errors import ShapeError

__all__ = ["HasShape", "check_matrix", "check_same_rows", "check_same_width"]


class HasShape(Protocol):
    """An array or a tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def check_matrix(who: str, name: str, matrix: HasShape, min_rows: int = 1) -> None:
    """Refuse what is not a matrix with at least ``min_rows`` rows and one column."""
    shape = tuple(matrix.shape)
    if len(shape) != 2 or shape[1] < 1:
        raise ShapeError(f"{who}: {name} must be a matrix (rows, features); got shape {shape}.")
    if shape[0] < min_rows:
        raise ShapeError(f"{who}: {name} needs at least {min_rows} rows; got {shape[0]}.")


def check_same_width(who: str, source: HasShape, target: HasShape, min_rows: int = 1) -> None:
    """Refuse two matrices whose numbers of features differ."""
    check_matrix(who, "source", source, min_rows)
    check_matrix(who, "target", target, min_rows)
    if source.shape[1] != target.shape[1]:
        raise ShapeError(
            f"{who}: source has {source.shape[1]} features but target has {target.shape[1]}; "
            "extract both with the same backbone and layer."
        )


def check_same_rows(who: str, first_name: str, first: HasShape, second_name: str, second: HasShape) -> None:
    """Refuse two arrays whose numbers of rows differ."""
    if first.shape[0] != second.shape[0]:
        raise ShapeError(
            f"{who}: {first_name} has {first.shape[0]} rows but {second_name} has {second.shape[0]}; "
            "give one for each row."
        )
