"""Rung 5: a search over fine-tuning recipes (strategy, learning rate, weights of losses) with Optuna's TPE sampler.

The search is nested: every try learns from four fifths of the learning rows and is scored on the last fifth, which chooses the
recipe. The winner then learns from all learning rows and is judged once on the judging rows, which the choice never saw; so its
figure there does not flatter for the number of tries.

Source: Bergstra et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011 (TPE); Akiba et al., KDD 2019 (Optuna).
Each try draws its parameters with a seed of its own and the tries before it, and every try is written down: a search that was
killed goes on with the try it was at, and finds what it would have found.
"""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass, replace
from typing import Any

from headstart.core.errors import HeadstartError, MissingExtra
from headstart.core.progress import Progress, format_seconds
from headstart.core.seeds import derive_seed
from headstart.data import Dataset
from headstart.evaluation import format_metric
from headstart.metrics import METRICS
from headstart.workflow.clock import BudgetSpent
from headstart.workflow.expectation import Expectation, evidence_of, search_gain
from headstart.workflow.head_rungs import HeadSettings
from headstart.workflow.judging import Judging, choose_rows
from headstart.workflow.ladder import Needs, Standing, Tried
from headstart.workflow.limits import estimate_size, resident_memory, training_memory
from headstart.workflow.recipes import Recipe, Tune, TuningRows, recipe_for, seconds_for, tune
from headstart.workflow.tuning_rungs import solved_on, tried_from
from headstart.workflow.unfinished import Unfinished

__all__ = ["SearchRung", "search_is_possible"]

_STRATEGIES = ("last-stages:1", "last-stages:2", "layerwise-decay:0.75", "full")
_LEAST_TRIES, _TRIES = 3, 10
_SHARE_OF_ROOM = 0.8


def search_is_possible() -> bool:
    """Return whether Optuna is installed."""
    return importlib.util.find_spec("optuna") is not None


@dataclass
class SearchRung:
    """The best of several recipes; parameters as in `TuningRung`."""

    settings: HeadSettings
    unfinished: Unfinished
    reserve: float = 0.0
    seed: int = 0
    forced: bool = False
    carry_out: Tune = tune
    num_tries: int = _TRIES

    def __post_init__(self) -> None:
        self.name = "search"
        self.title = "search over recipes"
        self.backbone = ""

    def expect(self, standing: Standing) -> Expectation:
        """Return what the rule for a search says; nothing without Optuna."""
        if not search_is_possible():
            return Expectation(0.0, 'not installed: pip install "headstart[tune]" adds the search')
        judging = standing.judging
        evidence = evidence_of(*standing.tuned) if standing.tuned is not None else 1.0
        num_rows = len(judging.learning)
        return search_gain(
            judging.metric, standing.value, judging.task, num_rows, standing.curve(), self.num_tries, evidence
        )

    def needs(self, standing: Standing) -> Needs:
        """Return time, size and memory; the number of tries is what the budget allows."""
        if not search_is_possible():
            raise MissingExtra("fit", "optuna", "tune")
        assert standing.head is not None
        judging, backbone = standing.judging, standing.head.model.backbone
        self.backbone = backbone.name
        rows = self.settings.train.subset(judging.learning)
        recipe = recipe_for("full", rows)
        before, each = seconds_for(recipe, backbone, rows, len(judging))
        one = before + each * recipe.epochs
        room = _SHARE_OF_ROOM * (standing.clock.left - self.reserve)
        tries = min(self.num_tries, int(room / one) - 1) if room < float("inf") else self.num_tries
        self.num_tries = max(tries, _LEAST_TRIES)
        size = memory = None
        if self.settings.limits:
            size = estimate_size(backbone, judging.task.num_outputs, len(self.settings.train))
            memory = resident_memory() + training_memory(backbone, recipe.batch_size)
        seconds = one * (self.num_tries + 1)
        return Needs(seconds / (_SHARE_OF_ROOM if tries < _LEAST_TRIES else 1.0), size, memory, standing.head.latency)

    def run(self, standing: Standing) -> Tried:
        """Search, then train the winner on all learning rows."""
        if not search_is_possible():
            raise MissingExtra("fit", "optuna", "tune")
        assert standing.head is not None
        judging, train, head = standing.judging, self.settings.train, standing.head
        learning = train.subset(judging.learning)
        groups = None if self.settings.groups is None else self.settings.groups[judging.learning]
        inner = choose_rows(learning, groups, judging.metric, seed=derive_seed(self.seed, "search rows") % 2**31)
        shared = TuningRows(
            head.model.backbone,
            solved_on(head, judging.learning[inner.learning], self.settings),
            self.settings.views,
            self.settings.method.class_weight or "none",
            self.settings.runtime,
            self.seed,
            self.settings.store,
        )
        found, tries = self._search(learning, inner, shared, standing.progress)
        shared = replace(shared, solved=solved_on(head, judging.learning, self.settings))
        key = self.unfinished.key(self.name, found, shared.backbone, learning)
        done = self.unfinished.recall(key)
        if done is None:
            started, cpu_started = time.perf_counter(), time.process_time()
            judged, folder = train.subset(judging.rows), self.unfinished.folder(key)
            tuned = self.carry_out(found, learning, judged, shared, folder, standing.progress)
            costs = time.process_time() - cpu_started, time.perf_counter() - started
            done = self.unfinished.remember(key, tuned, *costs)
        note = (
            f"the recipe was chosen among {len(tries)} by {len(inner):,} of the learning rows, so its figure on the judging "
            "rows does not flatter for the number of tries"
        )
        tried = tried_from(replace(done, costs=None), found, self, standing, learning)
        return replace(tried, tries=tries, notes=[note, *tried.notes])

    def _search(
        self, learning: Dataset, inner: Judging, shared: TuningRows, progress: Progress
    ) -> tuple[Recipe, list[dict[str, Any]]]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        higher = METRICS[inner.metric].higher_is_better
        study = optuna.create_study(direction="maximize" if higher else "minimize")
        base = recipe_for("full", learning)
        tries: list[dict[str, Any]] = []
        known = self.unfinished.tries()
        for number in range(self.num_tries):
            seed = derive_seed(self.seed, "search", number) % 2**31
            study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=4, multivariate=True)
            if number == 0:
                study.enqueue_trial({"strategy": _STRATEGIES[0], "rate": 1.0, "l2_sp": 0.01, "bss": False})
            trial = study.ask()
            recipe = _drawn(trial, base, learning)
            value, why = None, ""
            if number < len(known) and known[number].get("recipe") == recipe.to_dict():
                value, why = known[number].get("value"), str(known[number].get("problem", ""))
            else:
                try:
                    value = self._value(recipe, learning, inner, shared, progress)
                except BudgetSpent:
                    if not any(item["value"] is not None for item in tries):
                        raise
                    progress.say(f"search: the budget allowed {number} tries")
                    break
                except HeadstartError as error:
                    why = str(error)
            if value is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, value)
            tries.append({"recipe": recipe.to_dict(), "value": value, "problem": why})
            self.unfinished.write_tries(tries)
            shown = format_metric(inner.metric, value) if value is not None else why
            progress.say(f"search, try {number + 1} of {self.num_tries}: {recipe}: {shown}")
        scored = [item for item in tries if item["value"] is not None]
        if not scored:
            raise HeadstartError(f"search: none of {len(tries)} recipes could be trained; {tries[-1]['problem']}")
        best = (max if higher else min)(scored, key=lambda item: float(item["value"]))
        return Recipe(**best["recipe"]), tries

    def _value(
        self, recipe: Recipe, learning: Dataset, inner: Judging, shared: TuningRows, progress: Progress
    ) -> float:
        started = time.perf_counter()
        rows, judged = learning.subset(inner.learning), learning.subset(inner.rows)
        tuned = self.carry_out(recipe, rows, judged, shared, self.unfinished.folder("search-try"), progress)
        scores = tuned.scores
        if scores is None:
            scores = tuned.model.predict(judged.unlabelled(), progress=Progress(quiet=True)).scores
        self.unfinished.drop("search-try")
        progress.say(f"search: a try took {format_seconds(time.perf_counter() - started)}")
        return inner.value(scores)


def _drawn(trial: Any, base: Recipe, rows: Dataset) -> Recipe:
    """Return the recipe of a try: strategy, learning rate around the usual one, weights of the regularisers."""
    strategy = trial.suggest_categorical("strategy", _STRATEGIES)
    usual = recipe_for(strategy, rows)
    rate = trial.suggest_float("rate", 0.2, 5.0, log=True)
    l2_sp = trial.suggest_float("l2_sp", 0.001, 10.0, log=True)
    bss = trial.suggest_categorical("bss", [False, True])
    weights = {"l2-sp": l2_sp} | ({"bss": 0.001} if bss else {})
    return replace(
        usual,
        epochs=base.epochs,
        learning_rate=float(f"{usual.learning_rate * rate:.3g}"),
        weight_decay=0.0,
        regularisers=weights,
    )
