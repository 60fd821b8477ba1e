"""The target's labels, opened once after the choice: figures of every candidate, and the best of them in hindsight.

    classes     accuracy; a row of a class the source does not have is answered rightly by "unknown", where a candidate says so
    numbers     root mean squared error, which decides, with MAE and R2 beside it

Shapes: m target rows, k classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.tasks import Task
from headstart.data import Dataset
from headstart.evaluation import Interval, bootstrap_intervals, paired_test
from headstart.evaluation.selection import Selection
from headstart.metrics import METRICS
from headstart.report.adapted import Hindsight
from headstart.workflow.adaptations import NO_ADAPTATION
from headstart.workflow.domains import TwoDomains
from headstart.workflow.rivals import FittedCandidate, Rival

__all__ = ["open_truth"]

Array = NDArray[Any]

_NONE_OF_THEM = "none of the classes"


@dataclass(frozen=True)
class _Truth:
    """What the labelled target rows say, how an answer to them is read, and what it is judged by, the decisive figure first."""

    task: Task
    labels: Array
    words: tuple[str, ...]
    scores: Callable[[FittedCandidate], Array]
    metrics: tuple[str, ...]
    num_unknown: int = 0


def open_truth(
    two: TwoDomains, rivals: Sequence[Rival], selection: Selection, classes: tuple[str, ...], seed: int
) -> tuple[Hindsight | None, dict[str, dict[str, Interval]], tuple[str | None, ...] | None]:
    """Return what the target's labels say of the choice, every candidate's figures, and the labels in words, where it has any.

    Parameters
    ----------
    two : TwoDomains
        Whose seal is broken.
    rivals : sequence of Rival
        Every candidate.
    selection : Selection
        The choice, which has been made.
    classes : tuple of str
        Of the source; none where labels are numbers.
    seed : int
        Of the bootstrap.
    """
    if two.truth is None:
        return None, {}, None
    truth = _read(two.truth.open("figures of candidates that were chosen without it"), classes)
    if truth is None:
        return None, {}, None
    fitted = {rival.name: rival.fitted for rival in rivals if rival.fitted is not None}
    scores = {name: truth.scores(item)[two.truth_rows] for name, item in fitted.items()}
    measured = {
        name: bootstrap_intervals(truth.task, truth.labels, values, truth.metrics, seed=seed)
        for name, values in scores.items()
    }
    decisive, *others = truth.metrics
    sign = 1 if METRICS[decisive].higher_is_better else -1
    best = max(measured, key=lambda name: sign * measured[name][decisive].value)
    stays, chosen, test = measured[NO_ADAPTATION], measured[selection.chosen], None
    if selection.adapts:
        rows = scores[selection.chosen], scores[NO_ADAPTATION]
        test = paired_test(truth.task, truth.labels, *rows, decisive, seed=seed)
    hindsight = Hindsight(
        len(truth.labels),
        truth.num_unknown,
        stays[decisive],
        chosen[decisive],
        measured[best][decisive],
        best,
        test,
        decisive,
        {name: (stays[name], chosen[name]) for name in others},
    )
    known = dict(zip(two.truth_rows.tolist(), truth.words, strict=True))
    return hindsight, measured, tuple(known.get(row) for row in range(len(two.target)))


def _read(labelled: Dataset, classes: tuple[str, ...]) -> _Truth | None:
    """Return the labels as the source's are; None where they are of another kind."""
    task, targets = labelled.task, labelled.targets
    if task is None or targets is None or task.kind != ("classification" if classes else "regression"):
        return None
    if not classes:
        values = np.asarray(targets, dtype=np.float64)
        words = tuple(f"{value:g}" for value in values)
        return _Truth(Task("regression"), values, words, lambda item: item.target_scores, ("rmse", "mae", "r2"))
    names = tuple(task.classes[int(value)] for value in targets)
    places = {name: place for place, name in enumerate(classes)}
    codes = np.array([places.get(name, len(classes)) for name in names], dtype=np.int64)
    named = Task("classification", (*classes, _NONE_OF_THEM))
    return _Truth(named, codes, names, _with_none, ("accuracy",), int((codes == len(classes)).sum()))


def _with_none(fitted: FittedCandidate) -> Array:
    """Return probabilities with a column more, which has all of a row that is answered "unknown"."""
    table = np.pad(fitted.target_scores, ((0, 0), (0, 1)))
    if fitted.target_unknown_m is not None:
        table[fitted.target_unknown_m] = np.eye(table.shape[1])[-1]
    return table
