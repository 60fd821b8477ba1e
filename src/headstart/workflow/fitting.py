"""`fit`: labelled rows become a proven model.

    open, check, split -> rank base models -> climb: solved head, better base models, fine-tuning, search -> baselines
    -> rows without labels: another domain? -> open the sealed test rows, once -> verdict, report, model

Everything up to the last arrow sees training rows only; test rows are embedded without labels. Which rungs there are depends on
what was asked: without a goal the solved head alone, with one rung after rung (`headstart.workflow.ladder`), with a named
strategy that strategy after the head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from headstart.backbones import Backbone
from headstart.core.errors import BackboneError, ConfigError, HeadstartError
from headstart.core.files import write_json
from headstart.core.preprocessing import View
from headstart.core.progress import Progress, format_seconds
from headstart.core.tasks import Task
from headstart.evaluation import CurvePoint, default_metric
from headstart.features import Features, FeatureStore, extract_features
from headstart.methods import FeatureExtraction
from headstart.model import Model
from headstart.report import Candidate, Climb
from headstart.report.contract import rungs_json
from headstart.training.crew import Crew
from headstart.workflow.adaptation import Adaptation
from headstart.workflow.baselines import (
    BaselineScores,
    majority_baseline,
    raw_baseline,
    scratch_baseline,
    scratch_seconds,
)
from headstart.workflow.candidates import open_candidates, stratified_rows
from headstart.workflow.clock import Clock, with_deadline
from headstart.workflow.config import FitConfig, check_strategy, make_config
from headstart.workflow.curve import head_curve
from headstart.workflow.entrants import Room
from headstart.workflow.estimate import announce_plan
from headstart.workflow.finishing import Finished, finish
from headstart.workflow.goal import Goal, parse_budget, parse_goal
from headstart.workflow.head_rungs import HeadRung, HeadSettings, LostRows
from headstart.workflow.judging import choose_rows
from headstart.workflow.ladder import Climbed, Ladder, Rung, Standing
from headstart.workflow.limits import Limits
from headstart.workflow.preflight import Prepared, prepare
from headstart.workflow.ranking import Scored, rank_backbones, score_features
from headstart.workflow.recipes import tune
from headstart.workflow.run import Run, check_out, free_folder
from headstart.workflow.searching import SearchRung
from headstart.workflow.sharing import check_called, shared_out
from headstart.workflow.tuning_rungs import TuningRung
from headstart.workflow.unfinished import Unfinished
from headstart.workflow.unlabelled_rung import UnlabelledRows, UnlabelledRung, open_unlabelled

__all__ = ["fit"]

_RANK_ROWS = 500
_SCORE_ROWS = 1500
_FULL = "layerwise-decay:0.75"


def fit(
    source: Any,
    *,
    labels: Any = None,
    classes: Sequence[str] | None = None,
    unlabelled: Any = None,
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
    unlabelled : path, DataFrame, array, list or Dataset, optional
        Rows without labels, which the model will meet; the labelled table again for its rows that have none. Where a gap shows
        that features moved away from those of the labelled ones, candidates compete to serve them (as in `adapt`), and a second
        model lies in ``adapted/`` of the run's folder.
    out : path, optional
        Folder of the run; ``runs/NAME`` when left out. A run that was killed goes on when it is asked for again.
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
        ``strategy``, ``max_size``, ``max_memory``, ``head``, ``class_weight``, ``views``, ``scratch``, ``runtime``,
        ``test``, ``seed``.

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
    if isinstance(unlabelled, (str, Path)):
        config = replace(config, unlabelled=str(unlabelled))
    unlabelled = config.unlabelled if unlabelled is None else unlabelled
    progress = progress or Progress()
    clock = Clock(parse_budget(config.budget))
    limits = config.limits
    check_strategy(config.strategy)
    check_called()
    if config.goal is not None:
        parse_goal(config.goal)  # what is wrong with it whatever the rows are
    extra = {name: value for name, value in (("labels", labels), ("classes", classes)) if value is not None}
    place = str(source) if isinstance(source, (str, Path)) else "memory"
    command = {"source": place, **asdict(config), "backbones": list(config.backbones)}
    known = command if place != "memory" else None
    folder = check_out(Path(out)) if out is not None else free_folder(_title(source), known)
    prepared = prepare(source, config, progress, **extra)
    assert prepared.train.task is not None
    goal = None if config.goal is None else parse_goal(config.goal, prepared.train.task)
    limits = limits if goal is None else limits.tightened(goal.limits)
    others = None
    if unlabelled is not None:
        ids = [*prepared.train.ids, *prepared.test_rows.ids]
        others = open_unlabelled(unlabelled, prepared.train, config, labelled=source, labelled_ids=ids)
    job = _Fit(prepared, config, goal, limits, clock, store, progress, folder, command)
    try:
        climbed = job.climb(backbones or config.backbones)
    except LostRows as lost:
        prepared = prepared.without(lost.kept, lost.failures)
        job = _Fit(prepared, config, goal, limits, clock, store, progress, folder, command)
        climbed = job.climb(backbones or config.backbones)
    except KeyboardInterrupt:
        job.write_spent()
        raise
    climbed, model = job.final_model(climbed)
    climbed, adaptation = job.serve(others, climbed)
    baselines = job.baselines(climbed)
    run = finish(
        Finished(
            source=place,
            title=_title(source),
            config=config,
            goal=goal,
            limits=limits,
            prepared=prepared,
            model=model,
            climbed=climbed,
            curve=job.curve(climbed),
            test_features=job.test_features(model),
            candidates=job.candidate_lines(climbed),
            baselines=baselines,
            cpu_seconds=clock.cpu_spent,
            wall_seconds=clock.wall_spent,
            progress=progress,
            notes=tuple(job.notes),
            adaptation=adaptation,
        ),
        folder,
    )
    job.unfinished.clear()
    return run


def _title(source: Any) -> str:
    return Path(source).resolve().stem if isinstance(source, (str, Path)) else "data"


class _Fit:
    """One run up to the sealed test rows."""

    def __init__(
        self,
        prepared: Prepared,
        config: FitConfig,
        goal: Goal | None,
        limits: Limits,
        clock: Clock,
        store: FeatureStore | bool | None,
        progress: Progress,
        folder: Path,
        command: dict[str, Any],
    ) -> None:
        self.prepared, self.config, self.goal, self.limits = prepared, config, goal, limits
        self.clock, self.store, self.progress, self.folder = clock, store, progress, folder
        self.train = prepared.train
        assert self.train.task is not None and self.train.targets is not None
        self.task: Task = self.train.task
        self.metric = goal.metric if goal is not None else default_metric(self.task)
        self.views = (View(),) if config.views == 1 or self.train.modality != "image" else (View(), View(flip=True))
        self.ranked: list[Scored] = []
        self.failed: dict[str, str] = {}
        self.notes: list[str] = []
        self.unfinished = Unfinished(folder if self.tunes else None, command, progress)
        self.settings = HeadSettings(
            self.train,
            FeatureExtraction(
                config.head,
                "balanced" if config.class_weight == "balanced" else None,
                self.views,
                config.seed,
                memo=store is not False,
            ),
            self.views,
            config.runtime,
            prepared.train_groups,
            store,
            limits,
        )
        self._curves: dict[int, Sequence[CurvePoint]] = {}
        self.standing: Standing | None = None

    @property
    def named(self) -> bool:
        """Whether the user named a way to fine-tune."""
        return self.config.strategy not in {"auto", "head"}

    @property
    def tunes(self) -> bool:
        """Whether rungs beyond the solved head may run."""
        if self.train.modality == "vector":
            return False
        return self.named or (self.goal is not None and self.config.strategy == "auto")

    @property
    def reserve(self) -> float:
        """Seconds of the budget kept for the baselines and the report."""
        if not math.isfinite(self.clock.budget):
            return 0.0
        return 2.0 + (0.0 if self.config.scratch == "off" else min(30.0, 0.15 * self.clock.budget))

    def climb(self, wanted: Sequence[str | Path | Backbone]) -> Climbed:
        """Try rung after rung."""
        opened, left_out = open_candidates("fit", wanted, self.train, self.progress)
        self.failed |= left_out
        if self.named and self.train.modality == "vector":
            raise ConfigError(
                f"fit: strategy {self.config.strategy!r} trains a base model, but the rows are features already; leave it out."
            )
        if self.tunes and (size := Crew.current().size) > 1:
            self._note(f"Fine-tuning was shared by {size} processes; CPU time and memory are those of the first.")
        order = self._rank(opened) if len(opened) > 1 else opened
        announce_plan(self.prepared, order[0], self.views, self.config, self.store, self.progress)
        self.clock.earlier, self.clock.cpu_earlier = self.unfinished.begin(self.train)
        groups = self.prepared.train_groups
        judging = choose_rows(self.train, groups, self.metric, seed=self.config.seed, all_rows=not self.tunes)
        standing = Standing(judging, self.clock, self.progress)
        standing.curve = lambda: self._curve(standing)
        self.standing = standing
        ladder = Ladder(
            standing, self.goal, self.limits, reserve=self.reserve, on_change=self._write_rungs if self.tunes else None
        )
        return ladder.climb(self._rungs(order))

    def final_model(self, climbed: Climbed) -> tuple[Climbed, Model]:
        """Return the model to deliver: a fine-tuned one is made again from all training rows if the budget allows."""
        best = climbed.best
        if best.refit is None:
            return climbed, best.model
        kept = next(line for line in climbed.climb.rungs if line.kept)
        judging = len(climbed.climb.rungs) and climbed.climb.rows
        needed = kept.wall_seconds * len(self.train) / max(1, len(self.train) - judging)
        room = self.clock.left - self.reserve
        model, said = best.model, ""
        if needed > room:
            said = (
                f"the model learnt from {len(self.train) - judging:,} of {len(self.train):,} training rows: making it again "
                f"from all would take about {format_seconds(needed)}, and the budget left {format_seconds(max(room, 0))}"
            )
        else:
            try:
                model = best.refit(with_deadline(self.progress, self.clock.left))
                said = f"made again from all {len(self.train):,} training rows by the same recipe"
            except HeadstartError as error:
                said = f"the model learnt from the rows that do not judge; making it again from all failed: {error}"
        self.progress.say(said)
        return replace(climbed, climb=replace(climbed.climb, refit=said)), model

    def serve(self, others: UnlabelledRows | None, climbed: Climbed) -> tuple[Climbed, Adaptation | None]:
        """Return the climb with the rung for rows without labels, where there are any, and what serves them."""
        if others is None:
            return climbed, None
        room = Room(self.clock, self.reserve)
        rung = UnlabelledRung(others, self.settings, climbed.head.model.backbone, room, self.config.seed)
        served = rung.run(len(climbed.climb.rungs) + 1, self.progress)
        rungs = [*climbed.climb.rungs, served.line]
        return replace(climbed, climb=replace(climbed.climb, rungs=rungs)), served.adaptation

    def baselines(self, climbed: Climbed) -> list[BaselineScores]:
        """Train what the model has to beat; the test rows they answer for carry no labels."""
        config, rows = self.config, self.prepared.test_rows
        spent = self.clock.cpu_spent
        found = [majority_baseline(self.train, len(rows))]
        if self.train.modality == "vector":
            self._note(
                "The rows are features already: raw input and model input are the same, and nothing was transferred."
            )
            return found
        found.append(raw_baseline(self.train, rows, self.prepared.train_groups, config.seed, self.progress))
        if config.scratch != "off":
            kept = next((line for line in climbed.climb.rungs if line.kept), None)
            tuned = kept.cpu_seconds if kept is not None and climbed.best.refit is not None else 0.0
            seconds = math.inf if config.scratch == "full" else max(scratch_seconds(spent), tuned)
            waiting = max(5.0, self.clock.left - 2.0)  # answering for the test rows and the report come after it
            if math.isfinite(self.clock.budget) and self.clock.left * self.clock.busy < seconds:
                seconds = max(5.0, self.clock.left * self.clock.busy)
                self._note(f"The budget left {format_seconds(seconds)} of CPU time for training from scratch.")
            found.append(
                scratch_baseline(
                    self.train,
                    rows,
                    climbed.head.model.backbone,
                    cpu_seconds=seconds,
                    wall_seconds=waiting,
                    seed=config.seed,
                    runtime=config.runtime,
                    memo=self.store is not False,
                    progress=self.progress,
                )
            )
        return found

    def test_features(self, model: Model) -> Features:
        """Embed the test rows; their labels stay sealed."""
        return extract_features(
            self.prepared.test_rows,
            model.backbone,
            views=model.views,
            store=self.store,
            runtime=self.config.runtime,
            progress=self.progress,
        )

    def curve(self, climbed: Climbed) -> Sequence[CurvePoint]:
        """Return the learning curve of the best solved head."""
        assert self.standing is not None
        self.standing.head = climbed.head
        return self.standing.curve()

    def candidate_lines(self, climbed: Climbed) -> list[Candidate]:
        """Return every base model considered, best first, with what it cost; those that failed last, with the reason."""
        head = climbed.head
        assert head.features is not None
        scored = self.ranked or [self._scored(head.model.backbone, head.features)]
        name = climbed.best.backbone
        lines = [replace(item.candidate, chosen=item.candidate.backbone == name) for item in scored]
        return lines + [Candidate(failed, note=reason) for failed, reason in self.failed.items()]

    def _rungs(self, order: Sequence[Backbone]) -> list[Rung]:
        """Return what may be tried, cheapest first. Without a goal the later rungs only say what they would bring."""
        success = {item.backbone.name: item.success_n for item in self.ranked}
        rungs: list[Rung] = [HeadRung(order[0], self.settings)]
        if self.limits or (self.goal is not None and not self.named):  # where the first does not fit, another may
            rungs += [HeadRung(one, self.settings, False, success, self.config.seed) for one in order[1:]]
        shared: dict[str, Any] = {"reserve": self.reserve, "seed": self.config.seed, "carry_out": shared_out(tune)}
        if self.train.modality == "vector" or self.config.strategy == "head":
            return rungs
        if self.config.strategy == "search":
            return [*rungs, SearchRung(self.settings, self.unfinished, **shared, forced=True)]
        if self.named:
            return [
                *rungs,
                TuningRung("asked", self.config.strategy, self.settings, self.unfinished, **shared, forced=True),
            ]
        rungs.append(TuningRung("partial", "", self.settings, self.unfinished, **shared))
        rungs.append(TuningRung("full", _FULL, self.settings, self.unfinished, **shared))
        if self.goal is not None:
            rungs.append(SearchRung(self.settings, self.unfinished, **shared))
        return rungs

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

    def _scored(self, backbone: Backbone, features: Features) -> Scored:
        assert self.train.targets is not None
        places = stratified_rows(self.train.targets[features.kept], self.task, _SCORE_ROWS, self.config.seed)
        part = replace(features, values_nd=features.values_nd[places], kept=features.kept[places])
        return score_features(backbone, part, self.train)

    def _curve(self, standing: Standing) -> Sequence[CurvePoint]:
        head = standing.head
        assert head is not None and head.features is not None
        if id(head) not in self._curves:
            self._curves[id(head)] = head_curve(
                self.train,
                head.features,
                self.prepared.train_groups,
                head.model.head,
                self.metric,
                seed=self.config.seed,
                progress=self.progress,
            )
        return self._curves[id(head)]

    def _write_rungs(self, climb: Climb) -> None:
        self.write_spent()
        try:
            write_json(self.folder / "rungs.json", rungs_json(climb, finished=False))
        except OSError as error:
            self.progress.say(f"{self.folder / 'rungs.json'} cannot be written: {error}")

    def write_spent(self) -> None:
        """Write down what was spent, so that the run counts it when it goes on."""
        self.unfinished.spent(self.clock.wall_spent, self.clock.cpu_spent)

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.progress.say(text)
