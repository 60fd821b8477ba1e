"""The default head: the cheap solvers compete on the same folds, and the winner says why it won.

The rule: among all heads whose held-out accuracy is not clearly below the best (within two standard errors of the paired
difference), the one with the lowest calibrated log loss; for numbers, the lowest squared error.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.core.checks import check_matrix
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.heads.head import LinearHead
from headstart.heads.logistic import LogisticHead
from headstart.heads.nearest_mean import NearestMeanHead
from headstart.heads.ridge import LinearRegressionHead, RidgeHead
from headstart.heads.rows import ClassWeight, TrainingRows
from headstart.heads.search import HeldOut, score_held_out
from headstart.heads.threads import threads_for

__all__ = ["solve_head"]

Array = npt.NDArray[Any]
MANY_ROWS = 5000  # from here on three folds do as well as five


@dataclass(frozen=True)
class _Entry:
    head: LinearHead
    held_out: HeldOut
    right_n: npt.NDArray[np.float64]


def solve_head(
    features_nd: Array,
    targets: Array,
    task: Task,
    *,
    seed: int = 0,
    groups: Array | None = None,
    class_weight: ClassWeight | None = None,
    progress: Progress | None = None,
) -> LinearHead:
    """Return the best head for frozen features.

    Parameters
    ----------
    features_nd : ndarray of shape (n, d), n >= 2
        Raw features of the training rows.
    targets : ndarray of shape (n,) or (n, k)
        Class numbers, 0/1 indicators or numbers, as the task says.
    task : Task
    seed : int
        Of the folds.
    groups : ndarray of shape (n,), optional
        Rows of one group are held out together.
    class_weight : "balanced", optional
        Make every class count alike, in the fits and in the comparison.
    progress : Progress, optional
        Gets a stage ``head``.

    Returns
    -------
    LinearHead
        Fitted. ``report["competition"]`` lists every candidate's held-out loss and accuracy, ``report["why"]`` says in
        words why this one won.

    Raises
    ------
    HeadstartError
        If the rows do not fit the task; see `TrainingRows.of`.

    Examples
    --------
    >>> features, labels = np.array([[0.0], [1.0], [9.0], [10.0]]), np.array([0, 0, 1, 1])
    >>> head = solve_head(features, labels, Task("classification", ("low", "high")))
    >>> head.predict(np.array([[2.0], [8.0]]))
    array([0, 1])
    """
    check_matrix("solve_head", "features", np.asarray(features_nd), min_rows=2)
    stage = progress.stage("head", len(targets)) if progress is not None else contextlib.nullcontext()
    with stage as running, threads_for(np.shape(features_nd), task.num_outputs):
        num_folds = 5 if len(targets) < MANY_ROWS else 3
        rows = TrainingRows.of(features_nd, targets, task, groups=groups, num_folds=num_folds, seed=seed)
        weighted = rows.weighted("solve_head", class_weight)
        entries = [_enter(head, rows, weighted.weights) for head in _candidates(rows, class_weight, num_folds, seed)]
        winner, why = _choose(entries, weighted)
        winner.head.report |= {"competition": [_line(entry, weighted) for entry in entries], "why": why}
        if running is not None:
            running.note = why
            running.advance(len(targets))
    return winner.head


def _candidates(rows: TrainingRows, class_weight: ClassWeight | None, num_folds: int, seed: int) -> list[LinearHead]:
    if rows.task.kind == "regression":
        ridge = RidgeHead(num_folds=num_folds, seed=seed)
        plain = len(rows.targets) > 2 * rows.space.rotated.shape[1]
        return [ridge, *([LinearRegressionHead(num_folds=num_folds, seed=seed)] if plain else [])]
    ridge = RidgeHead(class_weight=class_weight, num_folds=num_folds, seed=seed)
    logistic = LogisticHead(class_weight=class_weight, num_folds=num_folds, seed=seed)
    return [ridge, NearestMeanHead(), logistic]


def _enter(head: LinearHead, rows: TrainingRows, weights_n: Array) -> _Entry:
    """Fit a head, and score it on the same folds as all others: leaving out one row would be an unfair advantage."""
    head.fit_rows(rows)
    held_out = score_held_out(rows.task, head.fold_scores(rows), rows.targets, weights_n)
    if rows.task.kind == "regression":
        return _Entry(head, held_out, -held_out.losses_n)
    if rows.task.kind == "multilabel":
        return _Entry(head, held_out, ((held_out.scores_nk > 0) == rows.targets).mean(axis=1))
    return _Entry(head, held_out, (held_out.scores_nk.argmax(axis=1) == rows.targets).astype(np.float64))


def _choose(entries: list[_Entry], rows: TrainingRows) -> tuple[_Entry, str]:
    shares = rows.weights / rows.weights.sum()
    most_right = max(entries, key=lambda entry: float(shares @ entry.right_n))

    def clearly_worse(entry: _Entry) -> bool:
        gap = most_right.right_n - entry.right_n
        mean = float(shares @ gap)
        error = float(np.sqrt(shares**2 @ (gap - mean) ** 2))
        return mean > 2 * error

    fair = [entry for entry in entries if not clearly_worse(entry)]
    winner = min(fair, key=lambda entry: entry.held_out.loss)
    if rows.task.kind == "regression":
        words = [f"{entry.head.kind} {np.sqrt(entry.held_out.loss):.4g}" for entry in entries]
        return winner, f"{winner.head.kind}: held-out RMSE {', '.join(words)}"
    words = [
        f"{entry.head.kind} {100 * float(shares @ entry.right_n):.1f} % / {entry.held_out.loss:.3f}"
        for entry in entries
    ]
    return winner, f"{winner.head.kind}: held-out accuracy / log loss {', '.join(words)}"


def _line(entry: _Entry, rows: TrainingRows) -> dict[str, Any]:
    line: dict[str, Any] = {"head": entry.head.kind, "loss": entry.held_out.loss}
    if rows.task.kind != "regression":
        line["accuracy"] = float(rows.weights @ entry.right_n / rows.weights.sum())
    return line
