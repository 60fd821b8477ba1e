"""The end of a run: the sealed test rows are opened, everything is judged on them, and the folder is written."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.digests import digest_many
from headstart.core.files import write_json, write_text
from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.data import Dataset
from headstart.evaluation import (
    CurvePoint,
    Evaluation,
    PairedTest,
    default_metric,
    evaluate,
    judge,
    learning_curve,
    paired_test,
)
from headstart.features import Features
from headstart.heads import LinearHead, LinearRegressionHead, NearestMeanHead, RidgeHead
from headstart.model import Model, Predictions, save_model
from headstart.report import Baseline, Candidate, Cost, Goal, ReportData, RowCounts, write_report
from headstart.workflow import goal as goals
from headstart.workflow.baselines import BaselineScores
from headstart.workflow.config import FitConfig
from headstart.workflow.examples import head_summary, mistakes, novelty_summary, suspects
from headstart.workflow.preflight import Prepared
from headstart.workflow.ranking import SCORE, runtime_summary
from headstart.workflow.run import Run
from headstart.workflow.versions import now, versions

__all__ = ["Finished", "finish"]

_CURVE_ROWS = 4000


@dataclass(frozen=True)
class Finished:
    """Everything a run has produced before its test rows are opened."""

    source: str
    title: str
    config: FitConfig
    goal: goals.Goal | None
    prepared: Prepared
    model: Model
    train_features: Features
    test_features: Features
    candidates: Sequence[Candidate]
    baselines: Sequence[BaselineScores]
    cpu_seconds: float
    wall_seconds: float
    progress: Progress
    notes: tuple[str, ...] = ()


def finish(done: Finished, folder: Path) -> Run:
    """Open the test rows, evaluate the model and every baseline on them, write the run folder, return the run."""
    with done.progress.stage("evaluate", len(done.test_features.kept)) as stage:
        test = done.prepared.test.open("final evaluation")
        kept = done.test_features.kept
        rows = test.subset(kept)
        predictions = done.model.predict_features(done.test_features, rows.ids)
        data = _judge(done, rows, predictions, folder)
        stage.advance(len(kept))
    done.model.provenance = _provenance(done, data)
    _write(done, data, rows, predictions, folder)
    return Run(done.model, data, predictions, folder)


def _judge(done: Finished, rows: Dataset, predictions: Predictions, folder: Path) -> ReportData:
    task, targets = done.model.task, rows.targets
    assert targets is not None
    seed, kept = done.config.seed, done.test_features.kept
    metric = done.goal.metric if done.goal is not None else default_metric(task)
    evaluation = evaluate(task, targets, predictions.scores, groups=rows.groups, seed=seed)
    baselines = [
        _baseline(item, task, targets, kept, predictions.scores, metric, rows.groups, seed) for item in done.baselines
    ]
    paired: dict[str, PairedTest] = {item.name: item.paired for item in baselines if item.paired is not None}
    verdict = judge(evaluation, {item.name: item.evaluation for item in baselines}, paired, metric=metric)
    train = done.prepared.train
    quarantine = (*done.prepared.quarantine, *done.train_features.failures, *done.test_features.failures)
    costs = done.progress.costs
    return ReportData(
        title=done.title,
        task=task,
        modality=train.modality,
        verdict=verdict,
        rows=RowCounts(
            train=len(done.train_features.kept),
            test=len(rows),
            quarantined=sum(len(finding.rows) for finding in quarantine),
        ),
        evaluation=evaluation,
        cost=Cost(done.cpu_seconds, done.wall_seconds, sum(cost.from_cache for cost in costs if cost.name == "embed")),
        backbone=done.model.backbone.name,
        baselines=baselines,
        goal=_goal(done, evaluation),
        class_rows=_class_rows(train),
        preflight=done.prepared.lines,
        findings=(*done.prepared.check.findings, *quarantine),
        learning_curve=_learning_curve(done, metric),
        training_curves=[item.curves for item in done.baselines if item.curves is not None],
        candidates=done.candidates,
        score_name=SCORE,
        order_confidence=next((item.share_best for item in done.candidates if item.chosen), None),
        head=head_summary(done.model.head),
        mistakes=mistakes(rows, predictions),
        suspects=suspects(train, done.train_features, done.model),
        novelty=novelty_summary(rows, predictions, done.model),
        targets_n=np.asarray(targets, np.float64) if task.kind == "regression" else None,
        predictions_n=predictions.scores if task.kind == "regression" else None,
        stages=costs,
        runtime=runtime_summary(done.train_features),
        versions=versions(),
        command=_command(done, folder),
        config_toml=done.config.to_toml(done.source),
        created=now(),
        notes=done.notes,
    )


def _baseline(
    item: BaselineScores,
    task: Task,
    targets: Any,
    kept: Any,
    scores: Any,
    metric: str,
    groups: Any,
    seed: int,
) -> Baseline:
    theirs = item.scores[kept]
    return Baseline(
        item.name,
        evaluate(task, targets, theirs, groups=groups, seed=seed),
        trained=item.trained,
        budget=item.budget,
        cpu_seconds=item.cpu_seconds,
        paired=paired_test(task, targets, scores, theirs, metric, seed=seed, groups=groups),
    )


def _goal(done: Finished, evaluation: Evaluation) -> Goal | None:
    if done.goal is None:
        return None
    values = {name: interval.value for name, interval in evaluation.metrics.items()}
    met = done.goal.met_by(values)
    shown = ", ".join(f"{r.metric} {values.get(r.metric, float('nan')):.4g}" for r in done.goal.requirements)
    note = f"On the sealed test rows: {shown}."
    if not met:
        untried = [item.backbone for item in done.candidates if not item.chosen and item.score is not None]
        note += " To try next: more labelled rows, a stronger base model (--backbone), two views (--views 2)."
        note += f" Other base models considered: {', '.join(untried)}." if untried else ""
    return Goal(done.goal.text, met, note)


def _class_rows(train: Dataset) -> dict[str, int]:
    task, targets = train.task, train.targets
    assert task is not None and targets is not None
    if task.kind == "regression":
        return {}
    counts = targets.sum(0) if task.kind == "multilabel" else np.bincount(targets, minlength=len(task.classes))
    return {name: int(count) for name, count in zip(task.classes, counts, strict=True)}


def _learning_curve(done: Finished, metric: str) -> list[CurvePoint]:
    """Return the curve of the head's own kind at its own penalty, or of the ridge head where there is none to fix."""
    task, train = done.model.task, done.prepared.train
    assert train.targets is not None
    values = done.train_features.values_nd
    values = values if values.ndim == 2 else values[:, 0]
    targets, groups = train.targets[done.train_features.kept], done.prepared.train_groups
    groups = None if groups is None else groups[done.train_features.kept]
    if len(values) > _CURVE_ROWS:
        from headstart.workflow.candidates import stratified_rows

        places = stratified_rows(targets, task, _CURVE_ROWS, done.config.seed)
        values, targets, groups = values[places], targets[places], None if groups is None else groups[places]
    if len(values) < 20:
        return []
    template = done.model.head

    def solve(features_nd: Any, some_targets: Any) -> Any:
        return _same_kind(template).fit(features_nd, some_targets, task).predict_scores

    with done.progress.stage("curve", len(values)) as stage:
        points = learning_curve(values, targets, task, solve, metric=metric, seed=done.config.seed, groups=groups)
        stage.advance(len(values))
    return points


def _same_kind(head: LinearHead) -> LinearHead:
    """Return an unfitted head of the same kind that need not search for its penalty."""
    if head.kind in {NearestMeanHead.kind, LinearRegressionHead.kind}:
        return type(head)()
    return RidgeHead()


def _provenance(done: Finished, data: ReportData) -> dict[str, Any]:
    train = done.prepared.train
    return {
        "title": done.title,
        "verdict": data.verdict.text,
        "train_rows": data.rows.train,
        "train_digest": digest_many(train.digests()),
        "metrics": {name: interval.to_dict() for name, interval in data.evaluation.metrics.items() if interval.finite},
        "created": data.created,
        "command": data.command,
        "headstart": data.versions.get("headstart", ""),
        "versions": dict(data.versions),
    }


def _command(done: Finished, folder: Path) -> str:
    return (
        done.config.command(done.source, str(folder))
        if done.source != "memory"
        else f"headstart.fit(...)  # {sys.argv[0]}"
    )


def _write(done: Finished, data: ReportData, rows: Dataset, predictions: Predictions, folder: Path) -> None:
    """Write the run folder; ``run.toml`` comes last, so that a folder without it is an unfinished run."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(done.model, folder / "model")
    write_report(data, folder)
    write_json(folder / "quarantine.json", [finding.to_dict() for finding in data.findings])
    frame = predictions.to_frame()
    frame.insert(1, "truth", _truth(rows))
    write_text(folder / "test_predictions.csv", frame.to_csv(index=False))
    write_text(folder / "run.toml", done.config.to_toml(done.source))


def _truth(rows: Dataset) -> list[Any]:
    task, targets = rows.task, rows.targets
    assert task is not None and targets is not None
    if task.kind == "classification":
        return [task.classes[i] for i in targets]
    if task.kind == "regression":
        return [float(value) for value in targets]
    return ["|".join(task.classes[i] for i in np.flatnonzero(row)) for row in targets]
