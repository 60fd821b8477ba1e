"""Test rows under seal: nothing but their number can be seen until they are opened, once."""

from __future__ import annotations

from typing import Generic, TypeVar

from headstart.core.errors import DataError

__all__ = ["SealedTest"]

Rows = TypeVar("Rows")


class SealedTest(Generic[Rows]):
    """Holds test rows back until everything has been chosen without them.

    Parameters
    ----------
    rows : Dataset, or anything with a length
        The test rows.

    Attributes
    ----------
    opened_for : tuple of str
        The reasons given; empty while sealed, one afterwards.

    Examples
    --------
    >>> test = SealedTest(["a", "b"])
    >>> len(test), test.opened_for
    (2, ())
    >>> test.open("final evaluation")
    ['a', 'b']
    >>> test
    SealedTest(2 rows, opened for 'final evaluation')
    """

    def __init__(self, rows: Rows) -> None:
        self.__rows = rows
        self._num_rows = len(rows)  # type: ignore[arg-type]
        self._reasons: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self._num_rows

    @property
    def opened_for(self) -> tuple[str, ...]:
        """Reasons the rows were opened for."""
        return self._reasons

    def open(self, reason: str) -> Rows:
        """Return the test rows, the first time.

        Parameters
        ----------
        reason : str
            What they are opened for; kept for the report.

        Raises
        ------
        DataError
            When they have been opened before: a second look would let the test rows steer a choice.
        """
        if self._reasons:
            raise DataError(
                f"SealedTest: test rows are opened once; they were opened for {self._reasons[0]!r} and are now asked "
                f"for {reason!r}. Use validation rows for choices, and score every model in one opening."
            )
        self._reasons = (reason,)
        return self.__rows

    def __repr__(self) -> str:
        state = f"opened for {self._reasons[0]!r}" if self._reasons else "sealed"
        return f"SealedTest({self._num_rows} rows, {state})"

    def __reduce__(self) -> str:
        raise TypeError("SealedTest: sealed rows are not copied or pickled.")
