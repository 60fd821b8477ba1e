"""`fit`: labelled rows become a proven model.

    open, check, split -> choose a base model -> extract once -> solve the head -> goal met? else the next base model
    -> baselines -> open the sealed test rows, once -> verdict, report, model

Everything up to the last arrow sees training rows only; test rows are embedded without labels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headstart.backbones import Backbone
from headstart.core.errors import BackboneError
from headstart.core.preprocessing import View
from headstart.core.progress import Progress, format_seconds
from headstart.core.tasks import Task
from headstart.features import Features, FeatureStore, extract_features
from headstart.methods import FeatureExtraction
from headstart.metrics import compute_metrics
from headstart.model import Model
from headstart.report import Candidate
from headstart.workflow.baselines import (
    BaselineScores,
    majority_baseline,
    raw_baseline,
    scratch_baseline,
    scratch_seconds,
)
from headstart.workflow.candidates import open_candidates, stratified_rows
from headstart.workflow.config import FitConfig, make_config
from headstart.workflow.estimate import announce_plan
from headstart.workflow.examples import held_out_scores
from headstart.workflow.finishing import Finished, finish
from headstart.workflow.goal import Goal, parse_budget, parse_goal
from headstart.workflow.preflight import Prepared, prepare
from headstart.workflow.ranking import Scored, rank_backbones, score_features
from headstart.workflow.run import Run, check_out, free_folder

__all__ = ["fit"]

_RANK_ROWS = 500
_SCORE_ROWS = 1500


def fit(
    source: Any,
    *,
    labels: Any = None,
    classes: Sequence[str] | None = None,
    out: str | Path | None = None,
    backbones: Sequence[str | Path | Backbone] = (),
    config: FitConfig | None = None,
    store: FeatureStore | bool | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Run:
    """Make a proven model out of labelled rows.

    Parameters
    ----------
    source : path, DataFrame, array, list or Dataset
        Labelled rows in any form `open_dataset` takes: a folder of class folders is enough.
    labels : sequence, optional
        Labels for arrays and lists.
    classes : sequence of str, optional
        Class names in the order wanted.
    out : path, optional
        Folder of the run; ``runs/NAME`` when left out.
    backbones : sequence, optional
        Base models to choose from: names, paths or Backbones. All that are at hand when left out.
    config : FitConfig, optional
        Every other option at once.
    store : FeatureStore or bool, optional
        Feature cache; False computes everything anew.
    progress : Progress, optional
        Where the lines go; standard error when left out.
    **options
        Fields of `FitConfig`: ``text``, ``image``, ``label``, ``group``, ``split``, ``task``, ``goal``, ``budget``,
        ``head``, ``class_weight``, ``views``, ``scratch``, ``runtime``, ``test``, ``seed``.

    Returns
    -------
    Run
        Its first printed line is the verdict.

    Raises
    ------
    HeadstartError
        If the rows, an option, or a base model will not do; nothing is half-written.
    """
    names = [
        backbone if isinstance(backbone, str) else str(getattr(backbone, "name", backbone)) for backbone in backbones
    ]
    config = config or make_config({**options, "backbones": tuple(names)})
    progress = progress or Progress()
    clock = _Clock(parse_budget(config.budget))
    extra = {name: value for name, value in (("labels", labels), ("classes", classes)) if value is not None}
    folder = check_out(Path(out)) if out is not None else free_folder(_title(source))
    prepared = prepare(source, config, progress, **extra)
    assert prepared.train.task is not None
    goal = None if config.goal is None else parse_goal(config.goal, prepared.train.task)
    job = _Fit(prepared, config, goal, clock, store, progress)
    tried = job.climb(backbones or config.backbones)
    baselines = job.baselines(tried)
    return finish(
        Finished(
            source=str(source) if isinstance(source, (str, Path)) else "memory",
            title=_title(source),
            config=config,
            goal=goal,
            prepared=prepared,
            model=tried.model,
            train_features=tried.features,
            test_features=job.test_features(tried.model.backbone),
            candidates=job.candidate_lines(tried),
            baselines=baselines,
            cpu_seconds=time.process_time() - clock.cpu_started,
            wall_seconds=time.perf_counter() - clock.started,
            progress=progress,
            notes=tuple(job.notes),
        ),
        folder,
    )


def _title(source: Any) -> str:
    return Path(source).resolve().stem if isinstance(source, (str, Path)) else "data"


@dataclass
class _Clock:
    """Time spent against the budget."""

    budget: float

    def __post_init__(self) -> None:
        self.started, self.cpu_started = time.perf_counter(), time.process_time()

    @property
    def left(self) -> float:
        return self.budget - (time.perf_counter() - self.started)


@dataclass(frozen=True)
class _Tried:
    """One base model carried through to a head, judged on predictions made without the row they are for."""

    model: Model
    features: Features
    validation: dict[str, float]


class _Fit:
    """The rungs of one run."""

    def __init__(
        self,
        prepared: Prepared,
        config: FitConfig,
        goal: Goal | None,
        clock: _Clock,
        store: FeatureStore | bool | None,
        progress: Progress,
    ) -> None:
        self.prepared, self.config, self.goal = prepared, config, goal
        self.clock, self.store, self.progress = clock, store, progress
        self.train = prepared.train
        assert self.train.task is not None and self.train.targets is not None
        self.task: Task = self.train.task
        self.views = (View(),) if config.views == 1 or self.train.modality != "image" else (View(), View(flip=True))
        self.method = FeatureExtraction(
            config.head,
            "balanced" if config.class_weight == "balanced" else None,
            self.views,
            config.seed,
            memo=store is not False,
        )
        self.ranked: list[Scored] = []
        self.failed: dict[str, str] = {}
        self.notes: list[str] = []

    def climb(self, wanted: Sequence[str | Path | Backbone]) -> _Tried:
        """Try base models, best first, until the goal is met or there is no reason to go on."""
        opened, left_out = open_candidates(wanted, self.train, self.progress)
        self.failed |= left_out
        order = self._rank(opened) if len(opened) > 1 else opened
        announce_plan(self.prepared, order[0], self.views, self.config, self.store, self.progress)
        best: _Tried | None = None
        for number, backbone in enumerate(order):
            tried = self._try(backbone)
            if best is None or self._better(tried, best):
                best = tried
            if self.goal is None or self.goal.met_by(best.validation):
                break
            shown = ", ".join(
                f"{r.metric} {best.validation.get(r.metric, math.nan):.4g}" for r in self.goal.requirements
            )
            self.progress.say(f"goal {self.goal.text} not met on validation predictions ({shown})")
            if number + 1 < len(order) and self.clock.left <= 0:
                self._note(
                    f"The budget of {self.config.budget} was spent before {order[number + 1].name} could be tried."
                )
                break
        assert best is not None
        return best

    def baselines(self, tried: _Tried) -> list[BaselineScores]:
        """Train what the model has to beat; the test rows they answer for carry no labels."""
        config, rows = self.config, self.prepared.test_rows
        spent = time.process_time() - self.clock.cpu_started
        found = [majority_baseline(self.train, len(rows))]
        if self.train.modality == "vector":
            self._note(
                "The rows are features already: raw input and model input are the same, and nothing was transferred."
            )
            return found
        found.append(raw_baseline(self.train, rows, self.prepared.train_groups, config.seed, self.progress))
        if config.scratch != "off":
            seconds = math.inf if config.scratch == "full" else scratch_seconds(spent)
            if self.clock.left < seconds and math.isfinite(self.clock.budget):
                seconds = max(5.0, self.clock.left)
                self._note(f"The budget left {format_seconds(seconds)} of CPU time for training from scratch.")
            found.append(
                scratch_baseline(
                    self.train,
                    rows,
                    tried.model.backbone,
                    cpu_seconds=seconds,
                    seed=config.seed,
                    runtime=config.runtime,
                    memo=self.store is not False,
                    progress=self.progress,
                )
            )
        return found

    def test_features(self, backbone: Backbone) -> Features:
        """Embed the test rows; their labels stay sealed."""
        return extract_features(
            self.prepared.test_rows,
            backbone,
            views=self.views,
            store=self.store,
            runtime=self.config.runtime,
            progress=self.progress,
        )

    def candidate_lines(self, chosen: _Tried) -> list[Candidate]:
        """Return every base model considered, best first, with what it cost; those that failed last, with the reason."""
        scored = self.ranked or [self._scored(chosen.model.backbone, chosen.features)]
        name = chosen.model.backbone.name
        lines = [replace(item.candidate, chosen=item.candidate.backbone == name) for item in scored]
        return lines + [Candidate(failed, note=reason) for failed, reason in self.failed.items()]

    def _rank(self, opened: list[Backbone]) -> list[Backbone]:
        assert self.train.targets is not None
        subset = self.train.subset(stratified_rows(self.train.targets, self.task, _RANK_ROWS, self.config.seed))
        self.progress.say(f"ranking {len(opened)} base models on {len(subset):,} rows")
        self.ranked, failed = rank_backbones(
            opened,
            subset,
            runtime=self.config.runtime,
            seed=self.config.seed,
            store=self.store,
            progress=self.progress,
        )
        self.failed |= failed
        if not self.ranked:
            raise BackboneError(f"fit: every base model failed: {'; '.join(failed.values())}")
        return [item.backbone for item in self.ranked]

    def _try(self, backbone: Backbone) -> _Tried:
        features = extract_features(
            self.train,
            backbone,
            views=self.views,
            store=self.store,
            runtime=self.config.runtime,
            progress=self.progress,
        )
        assert self.train.targets is not None
        targets = self.train.targets[features.kept]
        groups = self.prepared.train_groups
        with self.progress.stage("head", len(targets)) as stage:
            model = self.method.fit(
                backbone, features, targets, self.task, groups=None if groups is None else groups[features.kept]
            )
            stage.advance(len(targets))
            stage.note = str(model.head.report.get("why", ""))
        validation = compute_metrics(self.task, targets, held_out_scores(model.head, len(targets)))
        return _Tried(model, features, validation)

    def _scored(self, backbone: Backbone, features: Features) -> Scored:
        assert self.train.targets is not None
        places = stratified_rows(self.train.targets[features.kept], self.task, _SCORE_ROWS, self.config.seed)
        part = replace(features, values_nd=features.values_nd[places], kept=features.kept[places])
        return score_features(backbone, part, self.train)

    def _better(self, first: _Tried, second: _Tried) -> bool:
        from headstart.metrics import find_metric

        assert self.goal is not None
        metric = find_metric(self.goal.metric)
        return metric.better(first.validation[metric.name], second.validation[metric.name])

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.progress.say(text)
