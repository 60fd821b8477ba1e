"""The target's labels, opened once after the choice: figures of every candidate, and the best of them in hindsight.

    classes     accuracy; a row of a class the source does not have is answered rightly by "unknown", where a candidate says so
    numbers     root mean squared error, which decides, with MAE and R2 beside it
    several     several labels a row: macro F1

Shapes: m target rows, k classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.core.tasks import Task
from headstart.data import Dataset
from headstart.evaluation import Interval, SealedTest, bootstrap_intervals, paired_test
from headstart.evaluation.selection import Selection
from headstart.metrics import METRICS
from headstart.report.adapted import Hindsight
from headstart.workflow.adaptations import NO_ADAPTATION
from headstart.workflow.domains import TwoDomains
from headstart.workflow.rivals import Rival

__all__ = ["Answers", "measure_answers", "open_truth"]

Array = NDArray[Any]

_NONE_OF_THEM = "none of the classes"


class Answers(Protocol):
    """What a candidate says of the target rows, as `FittedCandidate` has it."""

    @property
    def target_scores(self) -> Array:
        """Probabilities (m, k), or numbers (m,)."""

    @property
    def target_unknown_m(self) -> Array | None:
        """Which rows it takes for none of the classes."""


@dataclass(frozen=True)
class _Truth:
    """What the labelled target rows say, how an answer to them is read, and what it is judged by, the decisive figure first."""

    task: Task
    labels: Array
    words: tuple[str, ...]
    scores: Callable[[Answers], Array]
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
    fitted = {rival.name: rival.fitted for rival in rivals if rival.fitted is not None}
    task = Task("classification", classes) if classes else Task("regression")
    return measure_answers(two.truth, two.truth_rows, len(two.target), fitted, selection, task, seed)


def measure_answers(
    sealed: SealedTest[Dataset] | None,
    sealed_rows: Array,
    num_rows: int,
    answered: Mapping[str, Answers],
    selection: Selection,
    task: Task,
    seed: int,
    stays: str = "source only",
) -> tuple[Hindsight | None, dict[str, dict[str, Interval]], tuple[str | None, ...] | None]:
    """Return what `open_truth` returns, of answers by name.

    Parameters
    ----------
    sealed : SealedTest of Dataset, optional
        Target rows with their labels.
    sealed_rows : int64 array
        Which of the target rows these are.
    num_rows : int
        Target rows there are.
    answered : mapping of str to Answers
        Candidates; "do not adapt" is one.
    selection, seed
        As for `open_truth`.
    task : Task
        What they answer.
    stays : str
        What the candidate that does not adapt is called in sentences.
    """
    truth = None if sealed is None else _read(sealed.open("figures of candidates that were chosen without it"), task)
    if truth is None:
        return None, {}, None
    scores = {name: truth.scores(item)[sealed_rows] for name, item in answered.items()}
    measured = {
        name: bootstrap_intervals(truth.task, truth.labels, values, truth.metrics, seed=seed)
        for name, values in scores.items()
    }
    decisive, *others = truth.metrics
    sign = 1 if METRICS[decisive].higher_is_better else -1
    best = max(measured, key=lambda name: sign * measured[name][decisive].value)
    plain, chosen, test = measured[NO_ADAPTATION], measured[selection.chosen], None
    if selection.adapts:
        rows = scores[selection.chosen], scores[NO_ADAPTATION]
        test = paired_test(truth.task, truth.labels, *rows, decisive, seed=seed)
    hindsight = Hindsight(
        len(truth.labels),
        truth.num_unknown,
        plain[decisive],
        chosen[decisive],
        measured[best][decisive],
        best,
        test,
        decisive,
        {name: (plain[name], chosen[name]) for name in others},
        stays,
    )
    known = dict(zip(sealed_rows.tolist(), truth.words, strict=True))
    return hindsight, measured, tuple(known.get(row) for row in range(num_rows))


def _read(labelled: Dataset, wanted: Task) -> _Truth | None:
    """Return the labels as the answers are; None where they are of another kind."""
    task, targets, classes = labelled.task, labelled.targets, wanted.classes
    if task is None or targets is None or task.kind != wanted.kind:
        return None
    if task.kind == "multilabel":
        return _several(task, np.asarray(targets), wanted)
    if task.kind == "regression":
        values = np.asarray(targets, dtype=np.float64)
        words = tuple(f"{value:g}" for value in values)
        return _Truth(Task("regression"), values, words, lambda item: item.target_scores, ("rmse", "mae", "r2"))
    names = tuple(task.classes[int(value)] for value in targets)
    places = {name: place for place, name in enumerate(classes)}
    codes = np.array([places.get(name, len(classes)) for name in names], dtype=np.int64)
    named = Task("classification", (*classes, _NONE_OF_THEM))
    return _Truth(named, codes, names, _with_none, ("accuracy",), int((codes == len(classes)).sum()))


def _several(task: Task, targets: Array, wanted: Task) -> _Truth:
    """Return several labels a row, those that the answers have."""
    places = {name: place for place, name in enumerate(task.classes)}
    has_mk = np.zeros((len(targets), len(wanted.classes)), np.uint8)
    for column, name in enumerate(wanted.classes):
        if name in places:
            has_mk[:, column] = targets[:, places[name]]
    words = tuple("|".join(np.array(task.classes, dtype=object)[row.astype(bool)]) for row in targets)
    return _Truth(wanted, has_mk, words, lambda item: item.target_scores, ("f1_macro",))


def _with_none(fitted: Answers) -> Array:
    """Return probabilities with a column more, which has all of a row that is answered "unknown"."""
    table = np.pad(fitted.target_scores, ((0, 0), (0, 1)))
    if fitted.target_unknown_m is not None:
        table[fitted.target_unknown_m] = np.eye(table.shape[1])[-1]
    return table
