"""What is wrong, or worth saying, about some rows: one `Finding` for each kind, never a silent repair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Finding", "Severity", "row_list"]

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing found while opening or checking rows.

    Parameters
    ----------
    kind : str
        Stable short name: ``"unreadable"``, ``"truncated"``, ``"bomb"``, ``"empty-file"``, ``"not-an-image"``,
        ``"missing-file"``, ``"permission"``, ``"symlink-loop"``, ``"no-class"``, ``"missing-label"``,
        ``"missing-text"``, ``"missing-value"``, ``"ragged-row"``, ``"empty-class"``, ``"single-row-class"``,
        ``"one-class"``, ``"conflicting-labels"``, ``"exact-duplicates"``, ``"near-duplicates"``, ``"split-leak"``,
        ``"column-name"``, ``"column-choice"``, ``"class-name"``, ``"label-rule"``, ``"encoding"``, ``"left-out"`` or
        ``"layout"``.
    severity : {"error", "warning", "note"}
        An error costs rows or makes training meaningless, a warning may mislead, a note says what was decided.
    rows : tuple of str
        Ids of the rows concerned; empty where the finding is about the whole data set.
    message : str
        What was found, for people.

    Examples
    --------
    >>> print(Finding("empty-file", "error", ("cat/1.jpg",), "the file holds no bytes"))
    error    empty-file: the file holds no bytes [cat/1.jpg]
    """

    kind: str
    severity: Severity
    rows: tuple[str, ...]
    message: str

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value."""
        return {"kind": self.kind, "severity": self.severity, "rows": list(self.rows), "message": self.message}

    def __str__(self) -> str:
        tail = f" [{row_list(self.rows)}]" if self.rows else ""
        return f"{self.severity:<8} {self.kind}: {self.message}{tail}"


def row_list(rows: tuple[str, ...] | list[str], most: int = 3) -> str:
    """Return the first few ids, and how many more there are.

    Examples
    --------
    >>> row_list(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(rows[:most])
    return shown if len(rows) <= most else f"{shown} and {len(rows) - most:,} more"
