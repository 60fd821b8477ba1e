"""Several ways to learn one task, set side by side on the same test rows: what every worked example ends with.

A table for the terminal (accuracy with its 95 % interval, CPU seconds, a paired test against the first way), and a
report whose curves show loss and accuracy on training and validation rows. The first way added is the one that is
asked about; ``"scratch"``, ``"raw"`` and ``"majority"`` are the baselines without transfer that the verdict is given
by.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones import Backbone, open_backbone
from headstart.core.progress import Progress, format_seconds
from headstart.data import Dataset, split_dataset
from headstart.evaluation import (
    Evaluation,
    RawBaseline,
    baseline_title,
    evaluate,
    format_interval,
    format_metric,
    format_p_value,
    judge,
    majority_scores,
    paired_test,
)
from headstart.features import extract_features
from headstart.methods import FeatureExtraction, FineTuning
from headstart.report import Baseline, Cost, ReportData, RowCounts, TrainingCurves, write_report
from headstart.training import History, TrainingConfig
from headstart.training.strategies import FRESH_HEAD
from headstart.workflow.candidates import stratified_rows
from headstart.workflow.tables import text_table
from headstart.workflow.versions import now, versions

__all__ = ["SideBySide", "frozen_and_from_scratch", "some_rows"]

METRIC = "accuracy"
_CHECKED = 64  # validation rows that a network from scratch is checked on; a check costs it as much as a step
WITHOUT_TRANSFER = ("scratch", "raw", "majority")


def some_rows(rows: Dataset, most: int | None, seed: int = 0) -> Dataset:
    """Return at most so many rows, every class in its share; all of them for None."""
    assert rows.task is not None and rows.targets is not None
    if most is None or most >= len(rows):
        return rows
    return rows.subset(np.sort(stratified_rows(rows.targets, rows.task, most, seed)))


@dataclass(frozen=True)
class Way:
    """One way of learning the task, and what it reached."""

    name: str
    scores: np.ndarray[Any, Any]
    evaluation: Evaluation
    cpu_seconds: float
    trained: str
    curves: TrainingCurves | None


class SideBySide:
    """Rows in three parts, and the ways of learning from them that have been tried.

    Parameters
    ----------
    title : str
        What the report is called.
    rows : Dataset
        Labelled rows; test rows that are marked as such stay the test rows.
    most : int, optional
        At most so many rows to learn from; test rows are all kept unless ``most_test`` says otherwise.
    seed : int
        Of the parts and of everything trained here.
    """

    def __init__(
        self, title: str, rows: Dataset, *, most: int | None = None, most_test: int | None = None, seed: int = 0
    ) -> None:
        parts = split_dataset(rows, test=0.25, seed=seed)
        learning = some_rows(rows.subset(np.concatenate([parts.train, parts.validation])), most, seed)
        learning.given_split = None  # the test rows are out already
        inner = split_dataset(learning, test=0.15, seed=seed)
        self.title, self.seed = title, seed
        self.train, self.validation = learning.subset(inner.train), learning.subset(inner.test)
        self.test = some_rows(rows.subset(parts.test), most_test, seed)
        self.ways: list[Way] = []
        self.started = time.perf_counter()
        self.progress = Progress()

    def fine_tune(self, name: str, backbone: Backbone, method: FineTuning, trained: str = "") -> Any:
        """Train by a method, try the result on the test rows, and return what was trained."""
        started = time.process_time()
        tuned = method.fit(self.train, backbone, validation_rows=self.validation, progress=self.progress)
        seconds = time.process_time() - started
        frozen = tuned.model.backbone.weights_digest == backbone.weights_digest
        scores = tuned.model.predict(self.test, runtime="auto" if frozen else "torch").scores
        self.add(name, scores, cpu_seconds=seconds, trained=trained or tuned.plan_reason, history=tuned.history)
        return tuned

    def solve_head(self, name: str, backbone: Backbone) -> None:
        """Add the cheapest transfer: the backbone frozen, a head solved on its features of training and validation rows."""
        started = time.process_time()
        features = [extract_features(rows, backbone, progress=self.progress) for rows in (self.train, self.validation)]
        targets = np.concatenate([np.asarray(rows.targets) for rows in (self.train, self.validation)])
        assert self.train.task is not None
        head = FeatureExtraction(seed=self.seed).solve(
            np.concatenate([part.values_nd for part in features]), targets, self.train.task
        )
        seconds = time.process_time() - started
        scores = head.predict_scores(extract_features(self.test, backbone, progress=self.progress).values_nd)
        self.add(name, scores, cpu_seconds=seconds, trained=f"{backbone.name} frozen, {head.kind} head")

    def add_baselines(self) -> None:
        """Add a linear model on the raw input, and the majority class."""
        raw = RawBaseline(self.seed).fit(self.train)
        self.add("raw", raw.scores(self.test), cpu_seconds=raw.cpu_seconds, trained=raw.trained)
        assert self.test.task is not None
        majority = majority_scores(self.test.task, np.asarray(self.train.targets), len(self.test))
        self.add("majority", majority, cpu_seconds=0.0, trained="the most frequent class, whatever the row")

    def add(
        self,
        name: str,
        scores: np.ndarray[Any, Any],
        *,
        cpu_seconds: float,
        trained: str = "",
        history: History | None = None,
    ) -> None:
        """Add what some way said of the test rows, and how its training went."""
        assert self.test.task is not None and self.test.targets is not None
        evaluation = evaluate(self.test.task, self.test.targets, scores, groups=self.test.groups, seed=self.seed)
        curves = None
        if history is not None and history.train_loss:
            curves = TrainingCurves(
                baseline_title(name, self.test.task),
                history.train_loss,
                history.validation_loss,
                history.train_measure,
                history.validation_measure,
                step="check",
            )
        self.ways.append(Way(name, scores, evaluation, cpu_seconds, trained, curves))

    def accuracy(self, name: str) -> float:
        """Return the accuracy of one way on the test rows."""
        return next(way.evaluation.metrics[METRIC].value for way in self.ways if way.name == name)

    def __str__(self) -> str:
        """Return the verdict and the table."""
        lines = []
        for way in self.ways:
            interval = way.evaluation.metrics[METRIC]
            gap = self._paired(way)
            lines.append(
                [
                    baseline_title(way.name, way.evaluation.task),
                    format_metric(METRIC, interval.value),
                    format_interval(METRIC, interval),
                    "" if gap is None else f"{100 * gap.difference:+.1f} ({format_p_value(gap.p_value)})",
                    format_seconds(way.cpu_seconds),
                ]
            )
        header = ["", METRIC, "95 % interval", f"{self.ways[0].name} is better by", "CPU time"]
        counts = f"{len(self.train):,} training, {len(self.validation):,} validation, {len(self.test):,} test rows"
        return "\n".join([f"{self.title} ({counts})", self._verdict().text, text_table(header, lines)])

    def write(self, folder: Path) -> Path:
        """Write ``report.html`` and ``report.json`` and return the page's path."""
        first, *others = self.ways
        assert self.train.task is not None and self.train.targets is not None
        counts = np.bincount(self.train.targets, minlength=len(self.train.task.classes))
        data = ReportData(
            title=self.title,
            task=self.train.task,
            modality=self.train.modality,
            verdict=self._verdict(),
            rows=RowCounts(len(self.train), len(self.validation), len(self.test)),
            evaluation=first.evaluation,
            cost=Cost(sum(way.cpu_seconds for way in self.ways), time.perf_counter() - self.started),
            backbone=first.name,
            baselines=[
                Baseline(way.name, way.evaluation, way.trained, "", way.cpu_seconds, self._paired(way))
                for way in others
            ],
            class_rows={name: int(n) for name, n in zip(self.train.task.classes, counts, strict=True)},
            training_curves=[way.curves for way in self.ways if way.curves is not None],
            versions=versions(),
            created=now(),
            notes=[f"{first.name}: {first.trained}"] if first.trained else [],
        )
        folder.mkdir(parents=True, exist_ok=True)
        return write_report(data, folder)

    def _paired(self, way: Way) -> Any:
        if way is self.ways[0]:
            return None
        assert self.test.task is not None and self.test.targets is not None
        return paired_test(
            self.test.task, self.test.targets, self.ways[0].scores, way.scores, METRIC, groups=self.test.groups
        )

    def _verdict(self) -> Any:
        without = [way for way in self.ways[1:] if way.name in WITHOUT_TRANSFER]
        return judge(
            self.ways[0].evaluation,
            {way.name: way.evaluation for way in without},
            {way.name: self._paired(way) for way in without},
            metric=METRIC,
        )


def frozen_and_from_scratch(ways: SideBySide, head: str, arguments: argparse.Namespace) -> None:
    """Add a frozen network under a head of dense layers, and the same network and head from random weights.

    Parameters
    ----------
    ways : SideBySide
        Where both are added, and the baselines.
    head : str
        The head in words.
    arguments : Namespace
        ``base_model``, ``stage`` and ``pool`` (what is frozen), ``epochs``, ``learning_rate``, ``seed``.
    """
    stage = arguments.stage
    if stage is None:
        maps = [
            one for one in open_backbone(arguments.base_model).stages if len(one.shape) == 3 and min(one.shape[1:]) > 1
        ]
        stage = maps[-1].name
    frozen = open_backbone(arguments.base_model, until=stage, pool=arguments.pool)
    config = TrainingConfig(
        learning_rate=arguments.learning_rate / FRESH_HEAD, max_epochs=arguments.epochs, seed=arguments.seed
    )
    method = FineTuning(strategy="head-only", head=head, config=config, seed=arguments.seed)
    ways.fine_tune("frozen network", frozen, method, f"{frozen.name} up to {frozen.width:,} features, frozen; {head}")
    spent = ways.ways[-1].cpu_seconds
    random = frozen.with_random_weights(arguments.seed)
    config = replace(
        config, learning_rate=1e-3 / FRESH_HEAD, max_epochs=50, cpu_seconds=spent, validation_rows=_CHECKED
    )
    ways.fine_tune(
        "scratch",
        random,
        replace(method, strategy="full", config=config),
        f"same network, everything trained, {spent:.0f} s of CPU time in training steps; checks are not counted",
    )
    ways.add_baselines()
