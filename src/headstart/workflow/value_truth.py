"""The target's numbers, opened once after the choice: root mean squared error of every candidate, with MAE and R2 beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headstart.core.tasks import Task
from headstart.evaluation import Interval, bootstrap_intervals, paired_test
from headstart.evaluation.selection import Selection
from headstart.report.adapted import Hindsight
from headstart.workflow.adaptations import NO_ADAPTATION
from headstart.workflow.domains import TwoDomains
from headstart.workflow.rivals import Rival

__all__ = ["VALUE_METRICS", "open_value_truth"]

VALUE_METRICS = ("rmse", "mae", "r2")  # the first decides who was best in hindsight


def open_value_truth(
    two: TwoDomains, rivals: Sequence[Rival], selection: Selection, seed: int
) -> tuple[Hindsight | None, dict[str, dict[str, Interval]], tuple[str | None, ...] | None]:
    """Return what the target's numbers say of the choice, every candidate's metrics, and the numbers in words, where it has any.

    Parameters
    ----------
    two : TwoDomains
        Whose seal is broken.
    rivals : sequence of Rival
        Every candidate.
    selection : Selection
        The choice, which has been made.
    seed : int
        Of the bootstrap.
    """
    if two.truth is None:
        return None, {}, None
    labelled = two.truth.open("errors of candidates that were chosen without it")
    task, targets = labelled.task, labelled.targets
    if task is None or task.kind != "regression" or targets is None:
        return None, {}, None
    truth, named = np.asarray(targets, dtype=np.float64), Task("regression")
    answers = {rival.name: rival.fitted.target_scores for rival in rivals if rival.fitted is not None}
    metrics = {
        name: bootstrap_intervals(named, truth, values, VALUE_METRICS, seed=seed) for name, values in answers.items()
    }
    decisive, *others = VALUE_METRICS
    best = min(metrics, key=lambda name: metrics[name][decisive].value)
    test = None
    if selection.adapts:
        test = paired_test(named, truth, answers[selection.chosen], answers[NO_ADAPTATION], decisive, seed=seed)
    stays, chosen = metrics[NO_ADAPTATION], metrics[selection.chosen]
    hindsight = Hindsight(
        len(truth),
        0,
        stays[decisive],
        chosen[decisive],
        metrics[best][decisive],
        best,
        test,
        decisive,
        {name: (stays[name], chosen[name]) for name in others},
    )
    return hindsight, metrics, tuple(f"{value:g}" for value in truth)
