"""Whether transfer helped, in one sentence that the figures bear out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Helped", "Verdict"]

Helped = Literal[True, False, "unclear"]


@dataclass(frozen=True)
class Verdict:
    """The answer to "did transfer help?".

    Parameters
    ----------
    text : str
        One sentence with the figures, for the first line of a run.
    transfer_helped : True, False or "unclear"
        True: better than every baseline without transfer, beyond chance. False: worse than one of them, beyond chance.
    metric : str
        The metric it was judged by.
    reasons : tuple of str
        One line for each comparison, for whoever asks why.
    """

    text: str
    transfer_helped: Helped
    metric: str
    reasons: tuple[str, ...] = ()
