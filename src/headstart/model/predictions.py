"""What a model says of some rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.files import atomic_path
from headstart.core.tasks import Task
from headstart.data import Finding

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["UNKNOWN", "Predictions", "entropy_above", "last_is_largest", "likeliest_classes"]

UNKNOWN = "unknown"


def entropy_above(scores_nk: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Return which rows have probabilities whose entropy is above a share of the largest, log k.

    Source: Saito et al., DANCE (arXiv:2002.07953), section 3.3, with a share of one half.

    Parameters
    ----------
    scores_nk : float64 array of shape (n, k)
        Probabilities.
    share : float in (0, 1)
        Of log k.

    Examples
    --------
    >>> entropy_above(np.array([[0.5, 0.5, 0.0], [0.9, 0.05, 0.05]]), 0.5)          # 0.69 and 0.39 nats; log(3) / 2 is 0.55
    array([ True, False])
    """
    logs_nk = np.log(np.where(scores_nk > 0, scores_nk, 1.0))
    return np.asarray(-(scores_nk * logs_nk).sum(1) > share * np.log(scores_nk.shape[1]))


def last_is_largest(scores_no: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Return which rows score higher in their last column, which stands for none of the classes, than in any other.

    Source: Saito et al., "Open Set Domain Adaptation by Backpropagation" (arXiv:1804.10427), section 3.

    Parameters
    ----------
    scores_no : float array of shape (n, k + 1)
        Probabilities or logits.

    Examples
    --------
    >>> last_is_largest(np.array([[0.4, 0.2, 0.4], [0.3, 0.3, 0.4]]))
    array([False,  True])
    """
    return np.asarray(scores_no[:, -1] > scores_no[:, :-1].max(axis=1))


def likeliest_classes(
    scores_nk: NDArray[np.floating[Any]], unknown_n: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Return the class number of each row; the number of classes for rows of none of them.

    Parameters
    ----------
    scores_nk : float array of shape (n, k)
        Probabilities or logits.
    unknown_n : bool array of shape (n,), optional
        Which rows are of none of the classes; none of them when left out.

    Examples
    --------
    >>> likeliest_classes(np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([True, False]))
    array([2, 1])
    """
    likeliest = np.asarray(scores_nk.argmax(axis=1))
    return likeliest if unknown_n is None else np.where(unknown_n, scores_nk.shape[1], likeliest)


@dataclass(frozen=True)
class Predictions:
    """Answers for rows, in the order the rows came.

    Parameters
    ----------
    task : Task
        What was predicted.
    ids : list of str, length n
        What a person finds each row by.
    scores : float64 array of shape (n, k), or (n,) for regression
        Probability of every class, or the predicted number.
    novelty_n : float64 array of shape (n,)
        How unlike the training rows a row is; 1 is the threshold.
    unusual_n : bool array of shape (n,)
        Rows unlike the training data: do not rely on their answers.
    kept : int64 array of shape (n,)
        Which of the rows asked for these are.
    failures : tuple of Finding
        Rows that could not be read and have no answer.
    unknown_n : bool array of shape (n,), optional
        Rows that the model takes for none of its classes, where it was trained to tell; they are labelled ``"unknown"``.
    """

    task: Task
    ids: list[str]
    scores: NDArray[np.float64]
    novelty_n: NDArray[np.float64]
    unusual_n: NDArray[np.bool_]
    kept: NDArray[np.int64]
    failures: tuple[Finding, ...] = ()
    unknown_n: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> list[Any]:
        """The answers for each row: a class name (or ``"unknown"``), a tuple of class names (those at least as likely as not), or
        a number.
        """
        classes = self.task.classes
        if self.task.kind == "regression":
            return [float(value) for value in self.scores]
        if self.task.kind == "classification":
            answers = [classes[i] for i in self.scores.argmax(1)]
            if self.unknown_n is None:
                return answers
            return [UNKNOWN if unknown else answer for answer, unknown in zip(answers, self.unknown_n, strict=True)]
        return [tuple(classes[i] for i in np.flatnonzero(row >= 0.5)) for row in self.scores]

    def to_frame(self) -> pd.DataFrame:
        """Return a table: row, prediction, confidence, one probability column a class, novelty, unusual, problem.

        Rows that could not be read come last, with their reason under ``problem`` and nothing else.
        """
        import pandas as pd

        columns: dict[str, Any] = {"row": list(self.ids)}
        if self.task.kind == "multilabel":
            columns["prediction"] = ["|".join(names) for names in self.labels]
        else:
            columns["prediction"] = self.labels
        if self.task.kind == "classification":
            columns["confidence"] = self.scores.max(1) if len(self) else []
        if self.task.kind != "regression":
            columns |= {f"p({name})": self.scores[:, i] for i, name in enumerate(self.task.classes)}
        columns |= {"novelty": self.novelty_n, "unusual": self.unusual_n, "problem": [""] * len(self)}
        frame = pd.DataFrame(columns)
        lost = [(row, finding.message) for finding in self.failures for row in finding.rows]
        if lost:
            unread = pd.DataFrame({"row": [row for row, _ in lost], "problem": [why for _, why in lost]})
            frame = pd.concat([frame, unread], ignore_index=True)
        return frame

    def to_csv(self, path: str | Path) -> Path:
        """Write `to_frame` as CSV, atomically, and return its path."""
        target = Path(path)
        with atomic_path(target) as temporary:
            self.to_frame().to_csv(temporary, index=False)
        return target
