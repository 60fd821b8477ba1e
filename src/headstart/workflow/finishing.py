"""The end of a run: the sealed test rows are opened, everything is judged on them, and the folder is written."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    PairedTest,
    baseline_title,
    evaluate,
    format_p_value,
    judge,
    paired_test,
)
from headstart.features import Features
from headstart.model import Model, Predictions, save_model
from headstart.report import Baseline, Candidate, Cost, Goal, ReportData, RowCounts, TrainingCurves, write_report
from headstart.report.contract import report_json, rungs_json
from headstart.workflow import goal as goals
from headstart.workflow import index
from headstart.workflow.adaptation import Adaptation
from headstart.workflow.adaptation_folder import write_adaptation
from headstart.workflow.baselines import BaselineScores
from headstart.workflow.config import FitConfig
from headstart.workflow.examples import head_summary, mistakes, novelty_summary, suspects
from headstart.workflow.expectation import gain_text
from headstart.workflow.ladder import Climbed
from headstart.workflow.limits import Limits, folder_size, limit_text, measure_latency
from headstart.workflow.preflight import Prepared
from headstart.workflow.ranking import SCORE, runtime_summary
from headstart.workflow.run import Run
from headstart.workflow.unlabelled_rung import ADAPTED
from headstart.workflow.versions import now, versions

__all__ = ["Finished", "finish", "negative_transfer"]

HARM = "Transfer did not help (negative transfer)"


@dataclass(frozen=True)
class Finished:
    """Everything a run has produced before its test rows are opened; ``climbed`` holds the rung kept and the best solved head."""

    source: str
    title: str
    config: FitConfig
    goal: goals.Goal | None
    limits: Limits
    prepared: Prepared
    model: Model
    climbed: Climbed
    curve: Sequence[CurvePoint]
    test_features: Features
    candidates: Sequence[Candidate]
    baselines: Sequence[BaselineScores]
    cpu_seconds: float
    wall_seconds: float
    progress: Progress
    notes: tuple[str, ...] = ()
    adaptation: Adaptation | None = None


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
    done.model.feature_names = done.prepared.train.feature_names
    done.model.content_column = done.prepared.train.content_column
    adaptation = _write_adaptation(done, data, folder / ADAPTED)
    data = replace(data, notes=[*data.notes, *_above_limits(done, adaptation)])
    data = _write(done, data, rows, predictions, folder)
    index.remember(folder, report_json(data), done.progress)
    return Run(done.model, data, predictions, folder, adaptation)


def _judge(done: Finished, rows: Dataset, predictions: Predictions, folder: Path) -> ReportData:
    task, targets = done.model.task, rows.targets
    assert targets is not None
    seed, kept = done.config.seed, done.test_features.kept
    metric = done.climbed.climb.metric
    evaluation = evaluate(task, targets, predictions.scores, groups=rows.groups, seed=seed)
    baselines = [
        _baseline(item, task, targets, kept, predictions.scores, metric, rows.groups, seed) for item in done.baselines
    ]
    paired: dict[str, PairedTest] = {item.name: item.paired for item in baselines if item.paired is not None}
    verdict = judge(evaluation, {item.name: item.evaluation for item in baselines}, paired, metric=metric)
    harm = negative_transfer(task, paired)
    if harm:
        verdict = replace(verdict, text=verdict.text.replace("Transfer did not help:", f"{HARM}:", 1))
    train, head = done.prepared.train, done.climbed.head
    assert head.features is not None
    quarantine = (*done.prepared.quarantine, *head.features.failures, *done.test_features.failures)
    costs = done.progress.costs
    return ReportData(
        title=done.title,
        task=task,
        modality=train.modality,
        verdict=verdict,
        rows=RowCounts(
            train=len(train),
            test=len(rows),
            quarantined=sum(len(finding.rows) for finding in quarantine),
        ),
        evaluation=evaluation,
        cost=Cost(done.cpu_seconds, done.wall_seconds, sum(cost.from_cache for cost in costs if cost.name == "embed")),
        backbone=done.climbed.best.backbone,
        baselines=baselines,
        class_rows=_class_rows(train),
        preflight=done.prepared.lines,
        findings=(*done.prepared.check.findings, *quarantine),
        learning_curve=done.curve,
        training_curves=_curves(done),
        candidates=done.candidates,
        score_name=SCORE,
        order_confidence=next((item.share_best for item in done.candidates if item.chosen), None),
        head=head_summary(head.model.head),
        mistakes=mistakes(rows, predictions),
        suspects=suspects(train, head.features, head.model),
        novelty=novelty_summary(rows, predictions, done.model),
        targets_n=np.asarray(targets, np.float64) if task.kind == "regression" else None,
        predictions_n=predictions.scores if task.kind == "regression" else None,
        stages=costs,
        runtime=runtime_summary(head.features if done.climbed.best.features is not None else done.test_features),
        versions=versions(),
        command=_command(done, folder),
        config_toml=done.config.to_toml(done.source),
        created=now(),
        notes=(*done.notes, *_notes(done.climbed)),
        climb=done.climbed.climb,
        negative_transfer=harm,
        memory_bytes=max((line.memory_bytes or 0.0 for line in done.climbed.climb.rungs), default=0.0) or None,
        latency_seconds=measure_latency(done.model, train) if math.isfinite(done.limits.latency) else None,
        test_digest=digest_many(sorted(rows.digests())),
    )


def negative_transfer(task: Task, paired: Mapping[str, PairedTest], significance: float = 0.05) -> str:
    """Return a sentence that says what beats the model without transfer, beyond chance; empty where nothing does.

    From scratch and raw input count; each p-value is multiplied by their number (Bonferroni).

    Examples
    --------
    >>> test = PairedTest("accuracy", "exact McNemar", -0.05, -0.08, -0.02, 0.001)
    >>> negative_transfer(Task("classification", ("a", "b")), {"scratch": test})
    'Negative transfer: from scratch is better by 5.0 points (exact McNemar, p = 0.001); use it, or another base model.'
    """
    tests = {name: paired[name] for name in ("scratch", "raw") if name in paired}
    worse = [
        f"{baseline_title(name, task)} is better by {gain_text(test.metric, -test.difference, sign=False)} "
        f"({test.test}, {format_p_value(min(1.0, test.p_value * len(tests)))})"
        for name, test in tests.items()
        if test.difference < 0 and test.p_value * len(tests) < significance
    ]
    return f"Negative transfer: {', and '.join(worse)}; use it, or another base model." if worse else ""


def _notes(climbed: Climbed) -> list[str]:
    """Return what a reader of the figures must know about the climb."""
    climb, notes = climbed.climb, []
    tried = climb.tried
    if len(tried) > 1:
        flatters = gain_text(climb.metric, climb.optimism, sign=False)
        notes.append(
            f"{len(tried)} rungs were compared on the same {climb.rows:,} training rows; for being the best of them, the kept "
            f"rung's figure there flatters by about {flatters}. The sealed test rows chose nothing."
        )
    kept = next((line for line in tried if line.kept), None)
    tuned = [line for line in tried if line.name not in {"head", "base-model"}]
    if kept is not None and kept.name in {"head", "base-model"} and tuned:
        notes.append(
            "Fine-tuning did not beat the solved head on rows held out from both, so the solved head is delivered."
        )
    if kept is not None and kept.paired is not None and climb.stopped == "asked" and kept.paired.difference < 0:
        notes.append(
            f"The strategy asked for does worse than the solved head by "
            f"{gain_text(climb.metric, -kept.paired.difference, sign=False)} ({format_p_value(kept.paired.p_value)}) on rows "
            "held out from both; --strategy auto would deliver the better one."
        )
    served = next((line for line in climb.rungs if line.name == "adaptation"), None)
    if served is not None:
        notes.append(f"Rows without labels: {served.reason}.")
    return [*notes, *([climb.refit[:1].upper() + climb.refit[1:] + "."] if climb.refit else [])]


def _curves(done: Finished) -> list[TrainingCurves]:
    """Return the curves of every fine-tuned rung, then those from scratch."""
    tuned = [curves for curves in done.climbed.curves if curves is not None]
    return [*tuned, *(item.curves for item in done.baselines if item.curves is not None)]


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


def _goal(done: Finished, data: ReportData) -> Goal | None:
    """Return whether the goal was met: metrics on the sealed test rows, limits as measured."""
    if done.goal is None and not done.limits:
        return None
    values = {name: interval.value for name, interval in data.evaluation.metrics.items()}
    needs = {"size": data.size_bytes, "memory": data.memory_bytes, "latency": data.latency_seconds}
    broken = done.limits.broken_by(**needs)
    requirements = () if done.goal is None else done.goal.requirements
    met = not broken and (done.goal is None or done.goal.met_by(values))
    shown = ", ".join(f"{r.metric} {values.get(r.metric, float('nan')):.4g}" for r in requirements)
    note = f"On the sealed test rows: {shown}." if shown else ""
    if done.limits:
        known = [f"{name} {limit_text(name, need)}" for name, need in needs.items() if need is not None]
        note += f" Measured: {', '.join(known)}." if known else ""
        note += f" Above the limit: {'; '.join(broken)}." if broken else ""
    if not met:
        refused = {line.backbone for line in done.climbed.climb.rungs if line.reason.startswith("never started")}
        untried = [item.backbone for item in done.candidates if not item.chosen and item.score is not None]
        untried = [name for name in untried if name not in refused]
        note += f" Stopped: {done.climbed.climb.reason}."
        note += " To try next: more labelled rows, a stronger base model (--backbone), two views (--views 2)."
        note += f" Other base models considered: {', '.join(untried)}." if untried else ""
    stated = [] if done.goal is None else [done.goal.text]
    extra = str(done.limits) if done.goal is None or done.limits != done.goal.limits else ""
    return Goal(" and ".join([*stated, *([extra] if extra else [])]), met, note.strip())


def _class_rows(train: Dataset) -> dict[str, int]:
    task, targets = train.task, train.targets
    assert task is not None and targets is not None
    if task.kind == "regression":
        return {}
    counts = targets.sum(0) if task.kind == "multilabel" else np.bincount(targets, minlength=len(task.classes))
    return {name: int(count) for name, count in zip(task.classes, counts, strict=True)}


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


def _write(done: Finished, data: ReportData, rows: Dataset, predictions: Predictions, folder: Path) -> ReportData:
    """Write the run folder; ``run.toml`` comes last, so that a folder without it is an unfinished run."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(done.model, folder / "model")
    data = replace(data, size_bytes=folder_size(folder / "model"))
    data = replace(data, goal=_goal(done, data))
    write_report(data, folder)
    write_json(folder / "rungs.json", rungs_json(done.climbed.climb, finished=True))
    write_json(folder / "quarantine.json", [finding.to_dict() for finding in data.findings])
    frame = predictions.to_frame()
    frame.insert(1, "truth", _truth(rows))
    write_text(folder / "test_predictions.csv", frame.to_csv(index=False))
    write_text(folder / "run.toml", done.config.to_toml(done.source))
    return data


def _write_adaptation(done: Finished, data: ReportData, folder: Path) -> Adaptation | None:
    """Write what serves the rows without labels, and return it; that of an earlier run goes, for it belongs to other rows."""
    if _is_of_a_run(folder):
        shutil.rmtree(folder)
    if done.adaptation is None:
        return None
    names = (done.title, done.adaptation.names[1])
    adaptation = replace(done.adaptation, names=names, command=data.command, folder=folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_adaptation(adaptation, folder)
    return adaptation


def _is_of_a_run(folder: Path) -> bool:
    """Return whether `fit` wrote an adaptation; what a user keeps there by ``adapt --out`` is left alone."""
    try:
        about = json.loads((folder / "adapt.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and str(about.get("command")).startswith(("headstart fit", "headstart.fit"))


def _above_limits(done: Finished, adaptation: Adaptation | None) -> list[str]:
    """Return what a reader must know where the second model is larger than any model may be."""
    if adaptation is None or adaptation.folder is None:
        return []
    over = done.limits.broken_by(size=folder_size(adaptation.folder / "model"))
    return [f"The model in {ADAPTED}/ is above its limit: {'; '.join(over)}."] if over else []


def _truth(rows: Dataset) -> list[Any]:
    task, targets = rows.task, rows.targets
    assert task is not None and targets is not None
    if task.kind == "classification":
        return [task.classes[i] for i in targets]
    if task.kind == "regression":
        return [float(value) for value in targets]
    return ["|".join(task.classes[i] for i in np.flatnonzero(row)) for row in targets]
