"""Confident learning: rows whose given label the model, which never saw it, is confident is another.

    t_j = mean of p_j over the rows labelled j            a class's own average confidence
    row i is confidently j      when p_ij >= t_j, and j has the largest p_ij among such classes
    suspect                     when the confident class differs from the given one and is the model's answer
    margin = p_i,suggested - p_i,given                    in (0, 1]; suspects are listed by it

Source: Northcutt, Jiang & Chuang, "Confident Learning", JAIR 70 (2021), equations 1 and 2.
Give it out-of-fold or leave-one-out probabilities: a model that has seen a wrong label defends it.
It cannot tell a wrong label from a row that is hard; a person must look.
Shapes: n rows, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import ShapeError

__all__ = ["SuspectLabel", "suspect_labels"]


@dataclass(frozen=True)
class SuspectLabel:
    """A row whose label deserves a second look.

    Parameters
    ----------
    index : int
        Position among the rows given.
    given, suggested : str
        The label it has, and the one the model believes. For several labels a row, ``"not x"`` means absence of x.
    given_probability, suggested_probability : float in [0, 1]
        The model's probabilities of both.
    """

    index: int
    given: str
    suggested: str
    given_probability: float
    suggested_probability: float

    @property
    def margin(self) -> float:
        """How much more the model believes in the suggested label, in (0, 1]."""
        return self.suggested_probability - self.given_probability


def suspect_labels(
    targets: NDArray[Any],
    validation_probabilities_nk: NDArray[np.floating[Any]],
    classes: Sequence[str],
    *,
    max_rows: int | None = None,
) -> list[SuspectLabel]:
    """Return rows whose label is probably wrong, the most doubtful first.

    Parameters
    ----------
    targets : int array of shape (n,), or 0/1 array of shape (n, k)
        Given labels: class indices, or indicators where a row may have several classes.
    validation_probabilities_nk : float array of shape (n, k)
        Probabilities for each row by a model that was not trained on that row. Rows with NaN are passed over.
    classes : sequence of k str
        Class names.
    max_rows : int, optional
        Return no more than this many.

    Returns
    -------
    list of SuspectLabel
        For several labels a row, a row appears once for each doubtful class.

    Raises
    ------
    ShapeError
        If the probabilities do not have one row for each target and one column for each class.

    Examples
    --------
    >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.02, 0.98]])
    >>> [suspect] = suspect_labels(np.array([0, 0, 1, 1, 0]), probabilities, ["cat", "dog"])
    >>> suspect.index, suspect.given, suspect.suggested
    (4, 'cat', 'dog')
    """
    targets = np.asarray(targets)
    probabilities_nk = np.asarray(validation_probabilities_nk, dtype=np.float64)
    if probabilities_nk.shape != (len(targets), len(classes)):
        raise ShapeError(
            f"suspect_labels: probabilities need shape ({len(targets)}, {len(classes)}), rows by classes; "
            f"got {probabilities_nk.shape}."
        )
    if targets.ndim == 2:
        found = _suspects_of_indicators(targets, probabilities_nk, classes)
    else:
        found = [
            SuspectLabel(
                index,
                classes[targets[index]],
                classes[suggested],
                float(probabilities_nk[index, targets[index]]),
                float(probabilities_nk[index, suggested]),
            )
            for index, suggested in _confident_disagreements(targets, probabilities_nk)
        ]
    found.sort(key=lambda suspect: (-suspect.margin, suspect.index))
    return found[:max_rows]


def _confident_disagreements(targets_n: NDArray[Any], probabilities_nk: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return (row, suggested class) wherever the confident class is not the given one."""
    num_classes = probabilities_nk.shape[1]
    usable_n: NDArray[np.bool_] = np.asarray(np.isfinite(probabilities_nk).all(axis=1))
    targets_n = np.asarray(targets_n, dtype=np.int64)
    thresholds_k = np.full(num_classes, np.inf)
    for label in range(num_classes):
        rows = np.flatnonzero(usable_n & np.equal(targets_n, label))
        if len(rows):
            thresholds_k[label] = probabilities_nk[rows, label].mean()
    safe_nk = np.where(usable_n.reshape(-1, 1), probabilities_nk, -np.inf)
    confident_nk = np.where(safe_nk >= thresholds_k, safe_nk, -np.inf)
    suggested_n = confident_nk.argmax(axis=1)
    doubtful_n = (
        np.isfinite(confident_nk.max(axis=1))
        & (suggested_n != targets_n)
        & (suggested_n == safe_nk.argmax(axis=1))
        & (safe_nk.max(axis=1) > safe_nk[np.arange(len(targets_n)), targets_n])
    )
    return [(int(index), int(suggested_n[index])) for index in np.flatnonzero(doubtful_n)]


def _suspects_of_indicators(
    targets_nk: NDArray[Any], probabilities_nk: NDArray[np.float64], classes: Sequence[str]
) -> list[SuspectLabel]:
    """Treat every class as a question of its own: present or absent."""
    found: list[SuspectLabel] = []
    for column, name in enumerate(classes):
        present_n = probabilities_nk[:, column]
        two_sided_n2 = np.stack([1 - present_n, present_n], axis=1)
        words = (f"not {name}", name)
        given_n = targets_nk[:, column].astype(np.int64)
        for index, suggested in _confident_disagreements(given_n, two_sided_n2):
            found.append(
                SuspectLabel(
                    index,
                    words[1 - suggested],
                    words[suggested],
                    float(two_sided_n2[index, 1 - suggested]),
                    float(two_sided_n2[index, suggested]),
                )
            )
    return found
