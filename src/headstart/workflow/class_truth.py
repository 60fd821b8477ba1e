"""The target's classes, opened once after the choice: accuracy of every candidate.

A row of a class the source does not have is answered rightly by "unknown", where a candidate has learned to say so.
Shapes: m target rows, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.core.tasks import Task
from headstart.evaluation import Interval, bootstrap_interval, paired_test
from headstart.evaluation.selection import Selection
from headstart.report.adapted import Hindsight
from headstart.workflow.adaptations import NO_ADAPTATION
from headstart.workflow.domains import TwoDomains
from headstart.workflow.rivals import FittedCandidate, Rival

__all__ = ["open_class_truth"]

_NONE_OF_THEM = "none of the classes"


def open_class_truth(
    two: TwoDomains, rivals: Sequence[Rival], selection: Selection, classes: tuple[str, ...], seed: int
) -> tuple[Hindsight | None, dict[str, Interval], tuple[str | None, ...] | None]:
    """Return what the target's labels say of the choice, every candidate's accuracy, and the labels, where it has any.

    Parameters
    ----------
    two : TwoDomains
        Whose seal is broken.
    rivals : sequence of Rival
        Every candidate.
    selection : Selection
        The choice, which has been made.
    classes : tuple of str
        Of the source.
    seed : int
        Of the bootstrap.
    """
    if two.truth is None:
        return None, {}, None
    labelled = two.truth.open("accuracy of candidates that were chosen without it")
    task, targets = labelled.task, labelled.targets
    if task is None or task.kind != "classification" or targets is None:
        return None, {}, None
    names = [task.classes[int(value)] for value in targets]
    places = {name: place for place, name in enumerate(classes)}
    truth = np.array([places.get(name, len(classes)) for name in names], dtype=np.int64)
    fitted = {rival.name: rival.fitted for rival in rivals if rival.fitted is not None}
    named = Task("classification", (*classes, _NONE_OF_THEM))
    scores = {name: _with_none(item)[two.truth_rows] for name, item in fitted.items()}
    intervals = {name: bootstrap_interval("accuracy", named, truth, table, seed=seed) for name, table in scores.items()}
    best = max(intervals, key=lambda name: intervals[name].value)
    test = None
    if selection.adapts:
        test = paired_test(named, truth, scores[selection.chosen], scores[NO_ADAPTATION], "accuracy", seed=seed)
    hindsight = Hindsight(
        len(truth),
        int((truth == len(classes)).sum()),
        intervals[NO_ADAPTATION],
        intervals[selection.chosen],
        intervals[best],
        best,
        test,
    )
    known = dict(zip(two.truth_rows.tolist(), names, strict=True))
    return hindsight, intervals, tuple(known.get(row) for row in range(len(two.target)))


def _with_none(fitted: FittedCandidate) -> NDArray[np.float64]:
    """Return probabilities with a column more, which has all of a row that is answered "unknown"."""
    table = np.pad(fitted.target_scores, ((0, 0), (0, 1)))
    if fitted.target_unknown_m is not None:
        table[fitted.target_unknown_m] = np.eye(table.shape[1])[-1]
    return table
