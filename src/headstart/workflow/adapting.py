"""`adapt`: a labelled source serves an unlabelled target; aligners compete with "do not adapt", and no target label chooses.

    open and embed both -> fit every candidate there is time for -> a rule chooses without target labels -> predictions
    -> labels that came with the target, if any, are opened once: source only, selected, and the best in hindsight

Classes, or numbers (`value_adaptations`). The best in hindsight is printed as what it is: nobody can reach it without target
labels.
Shapes: n source rows, m target rows, d features, k classes.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.catalog import resolve
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import Progress, format_seconds
from headstart.core.tasks import Task
from headstart.evaluation import Interval, format_interval, format_metric, metric_title
from headstart.evaluation.selection import FailedCandidate, Selection, SelectionRule, select
from headstart.features import FeatureStore
from headstart.model import Model
from headstart.model.predictions import UNKNOWN
from headstart.report import Cost
from headstart.report.adapted import AdaptedLine, Hindsight
from headstart.workflow.adaptation_folder import check_folder, provenance, write_adaptation
from headstart.workflow.adaptations import NO_ADAPTATION
from headstart.workflow.candidates_of_adapt import read_candidates, try_all
from headstart.workflow.class_truth import open_class_truth
from headstart.workflow.domains import TwoDomains, open_two_domains, place_of, title_of
from headstart.workflow.entrants import Room
from headstart.workflow.goal import parse_budget
from headstart.workflow.ladder import Clock
from headstart.workflow.network_rivals import StagedTraining
from headstart.workflow.rivals import Rival
from headstart.workflow.value_adaptations import rule_for_values, try_values
from headstart.workflow.value_truth import open_value_truth

__all__ = ["DEFAULT_RULE", "Adaptation", "AdaptedLine", "Hindsight", "adapt"]

DEFAULT_RULE = "circular-test"
_LEAST_ROWS = 4
DEFAULT_VALUE_RULE = "circular-validation"  # for numbers no rule gains; this one does no harm (docs/benchmarks.md)


@dataclass(frozen=True)
class Adaptation:
    """What `adapt` found; printing it prints the choice and the table.

    Parameters
    ----------
    selection : Selection
        What was chosen, and why.
    lines : tuple of AdaptedLine
        Every candidate, "do not adapt" first.
    classes : tuple of str
        Names, in the order of the probabilities' columns.
    ids : tuple of str
        Names of the target rows.
    probabilities_mk : float64 array of shape (m, k)
        Of the chosen candidate for the target rows; k is 0 where it predicts numbers.
    rivals : tuple of Rival
        Every candidate, carried through.
    rule : SelectionRule
        Who chose.
    domains : TwoDomains
        The rows.
    hindsight : Hindsight, optional
        Where the target had labels.
    truth : tuple of str, optional
        These labels, a target row each; None for a row without.
    seed : int
        Of folds and draws.
    names : (str, str)
        What source and target are called.
    command : str
        What repeats it.
    cost : Cost, optional
        What all of it took.
    folder : Path, optional
        Where the model, predictions.csv, adapt.html and adapt.json were written.
    values_m : float64 array of shape (m,), optional
        Predicted numbers of the target rows, where the task is numbers.
    budget : float, optional
        Wall-clock seconds that were allowed.
    """

    selection: Selection
    lines: tuple[AdaptedLine, ...]
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    probabilities_mk: NDArray[np.float64]
    rivals: tuple[Rival, ...] = field(repr=False)
    rule: SelectionRule = field(repr=False)
    domains: TwoDomains = field(repr=False)
    hindsight: Hindsight | None = None
    truth: tuple[str | None, ...] | None = None
    seed: int = 0
    names: tuple[str, str] = ("source", "target")
    command: str = ""
    cost: Cost | None = None
    folder: Path | None = None
    values_m: NDArray[np.float64] | None = None
    budget: float | None = None

    @property
    def left_out(self) -> tuple[str, ...]:
        """Candidates that the budget had no time for."""
        return tuple(
            rival.name
            for rival in self.rivals
            if isinstance(rival.evidence, FailedCandidate) and not rival.evidence.begun
        )

    @property
    def predictions(self) -> tuple[str, ...] | tuple[float, ...]:
        """Class name of each target row (or "unknown", of a candidate that has learned to tell), or its number."""
        if self.values_m is not None:
            return tuple(self.values_m.tolist())
        assert self.rival.fitted is not None
        names = (*self.classes, UNKNOWN)
        return tuple(names[place] for place in self.rival.fitted.target_answers_m)

    @property
    def rival(self) -> Rival:
        """The chosen candidate."""
        return next(rival for rival in self.rivals if rival.name == self.selection.chosen)

    @property
    def task(self) -> Task:
        """What is answered; classes in the order of the probabilities' columns."""
        return Task("classification", self.classes) if self.values_m is None else Task("regression")

    @cached_property
    def model(self) -> Model:
        """The chosen candidate as a model that answers for new rows of the target, with all that its card says."""
        assert self.rival.fitted is not None
        model = self.rival.fitted.to_model(self.domains, self.task)
        model.provenance, model.feature_names = provenance(self), self.domains.feature_names or ()
        return model

    def __str__(self) -> str:
        from headstart.workflow.tables import text_table

        selected = f"Selected: {self.selection.chosen}. {self.selection.reason}"
        figures: list[str] = []
        if self.hindsight is not None:
            figures = [metric_title(self.hindsight.metric), "95 % interval", *map(metric_title, self.hindsight.further)]
        changes = ["changes"] if self.values_m is None else []
        header = ["candidate", "score", *changes, "CPU s", *figures, ""]
        table = text_table(header, [self._cells(line) for line in self.lines])
        failed = [f"left out: {line.name}: {line.note}" for line in self.lines if line.score is None]
        after = [] if self.hindsight is None else ["", str(self.hindsight)]
        return "\n".join([selected, "", table, *failed, *after])

    def _cells(self, line: AdaptedLine) -> list[str]:
        cells = [line.name, "" if line.score is None else f"{line.score:.4g}"]
        if self.values_m is None:
            cells.append("" if line.changed is None else f"{100 * line.changed:.1f} %")
        cells.append(f"{line.cpu_seconds:.1f}")
        if self.hindsight is not None:
            metric, value = self.hindsight.metric, line.measured
            cells += ["", ""] if value is None else [format_metric(metric, value.value), format_interval(metric, value)]
            cells += [
                format_metric(name, line.further[name].value) if name in line.further else ""
                for name in self.hindsight.further
            ]
        return [*cells, "selected" if line.name == self.selection.chosen else ""]


def adapt(  # noqa: PLR0913 (an argument an option, as on the command line)
    source: Any,
    target: Any,
    *,
    labels: Any = None,
    target_labels: Any = None,
    methods: str | Sequence[str] = (),
    objectives: str | None = None,
    strategy: str | None = None,
    rule: str | SelectionRule | None = None,
    budget: str | float | None = None,
    backbones: Sequence[str | Path | Backbone] = (),
    runtime: str = "auto",
    seed: int = 0,
    out: str | Path | None = None,
    store: FeatureStore | bool | None = None,
    progress: Progress | None = None,
    **columns: str | None,
) -> Adaptation:
    """Answer for target rows with the knowledge of a labelled source, adapting only if a rule without target labels says so.

    Parameters
    ----------
    source : path, DataFrame, array, list or Dataset
        Labelled rows.
    target : the same
        Rows of the other domain. Labels that come with them choose nothing; they are opened once, at the end.
    labels, target_labels : sequence, optional
        Labels for arrays and lists.
    methods : str or sequence of str, optional
        Aligners, recipes and objectives for networks, or translations of source images (``"fda"``), by their names in the catalog
        (a name that is both is the aligner); the default candidates when left out. "do not adapt" always competes.
    objectives : str, optional
        A joint loss in words, ``"ce + 0.5*coral + mcc"``, for a network: one more candidate.
    strategy : str, optional
        Which stages of the base model networks train, ``"last-stages:1"`` or ``"full"``; the base model stays frozen and
        networks train on its features when left out. With it, names stand for networks, and the same stages trained on the
        source alone compete too.
    rule : str or SelectionRule, optional
        How to choose, by its name in the catalog; the default for classes or for numbers when left out.
    budget : str or float, optional
        Wall-clock limit, such as ``"2min"``; a number counts seconds. Candidates start in the order of their cost, and those that
        no longer fit are left out and named; "do not adapt" always competes.
    backbones, runtime, store
        The base model that embeds both domains, as for `rank`.
    seed : int
        Of folds and draws.
    out : path, optional
        Folder for the model, predictions.csv, the page adapt.html and adapt.json.
    progress : Progress, optional
        Where the lines go.
    **columns : str, optional
        Columns of tables: ``text``, ``image``, ``label``, as for `open_dataset`; the target's table need not have the label.

    Returns
    -------
    Adaptation

    Raises
    ------
    HeadstartError
        If rows, names or options will not do.
    """
    progress = progress or Progress()
    wall_started, cpu_started = time.perf_counter(), time.process_time()
    seconds = parse_budget(budget)
    room = Room(Clock(seconds))
    folder = None if out is None else check_folder(Path(out))
    judge = _judge(rule, DEFAULT_RULE)
    methods = (methods,) if isinstance(methods, str) else tuple(methods)
    plan = read_candidates(methods, objectives, strategy)
    two = open_two_domains(
        "adapt",
        source,
        target,
        labelled=True,
        columns=columns,
        labels=labels,
        target_labels=target_labels,
        backbones=backbones,
        runtime=runtime,
        store=store,
        progress=progress,
    )
    is_numbers = two.source.task is not None and two.source.task.kind == "regression"
    if is_numbers:
        judge = rule_for_values(_judge(rule, DEFAULT_VALUE_RULE))
        if objectives or strategy:
            raise ConfigError(
                "adapt: networks answer for classes; leave out objectives and strategy where labels are numbers."
            )
        classes: tuple[str, ...] = ()
        rivals = try_values(two, methods, needs=judge.wants, seed=seed, room=room, progress=progress)
    else:
        codes, classes = _classes(two)
        training = StagedTraining(strategy or "", seed, store, None if folder is None else folder / "checkpoint")
        rivals = try_all(
            plan, two, codes, classes, training, needs=judge.wants, seed=seed, progress=progress, room=room
        )
    started = time.process_time()
    selection = select({rival.name: rival.evidence for rival in rivals}, judge, no_adaptation=NO_ADAPTATION)
    progress.say(
        f"selected without target labels: {selection.chosen} ({format_seconds(time.process_time() - started)} of CPU time)"
    )
    chosen = next(rival for rival in rivals if rival.name == selection.chosen)
    assert chosen.fitted is not None
    hindsight: Hindsight | None
    measured: dict[str, dict[str, Interval]]
    if is_numbers:
        hindsight, measured, truth = open_value_truth(two, rivals, selection, seed)
    else:
        hindsight, accuracies, truth = open_class_truth(two, rivals, selection, classes, seed)
        measured = {name: {"accuracy": value} for name, value in accuracies.items()}
    answers = chosen.fitted.target_scores
    found = Adaptation(
        selection,
        tuple(_line(rival, rivals[0], selection, measured.get(rival.name, {})) for rival in rivals),
        classes,
        tuple(two.target.ids),
        np.zeros((len(answers), 0)) if is_numbers else answers,
        tuple(rivals),
        judge,
        two,
        hindsight,
        truth,
        seed,
        (title_of(source, "source"), title_of(target, "target")),
        _command(source, target, methods, objectives, strategy, rule, budget, backbones, columns, seed, folder),
        Cost(
            time.process_time() - cpu_started,
            time.perf_counter() - wall_started,
            sum(item.from_cache for item in two.features),
        ),
        folder,
        answers if is_numbers else None,
        seconds if math.isfinite(seconds) else None,
    )
    if folder is not None:
        write_adaptation(found, folder)
    return found


def _judge(rule: str | SelectionRule | None, default: str) -> SelectionRule:
    if rule is None or isinstance(rule, str):
        judge: SelectionRule = resolve(rule or default, "rule")()
        return judge
    return rule


def _classes(two: TwoDomains) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return class numbers of the source rows and the names of the classes there are."""
    task, targets = two.source.task, two.source.targets
    assert task is not None and targets is not None
    if task.kind != "classification":
        raise ConfigError(
            f"adapt: the source's labels make a {task.kind} task; choosing without target labels is for one class or one number "
            "a row. Give one label column."
        )
    present, codes = np.unique(targets, return_inverse=True)
    if len(present) < 2:
        raise DataError(
            f"adapt: the source needs at least two classes; every row is {task.classes[int(present[0])]!r}."
        )
    if len(codes) < _LEAST_ROWS:
        raise DataError(
            f"adapt: the source needs at least {_LEAST_ROWS} labelled rows, because a part of them is held out to choose by; "
            f"got {len(codes)}. Label more rows."
        )
    return np.asarray(codes, dtype=np.int64), tuple(task.classes[int(place)] for place in present)


def _line(rival: Rival, first: Rival, selection: Selection, measured: dict[str, Interval]) -> AdaptedLine:
    score = selection.scores[rival.name]
    changed = None
    if rival.fitted is not None and first.fitted is not None and first.fitted.target_scores.ndim == 2:
        changed = float(np.mean(rival.fitted.target_answers_m != first.fitted.target_answers_m))
    return AdaptedLine(
        rival.name,
        score.value if score.is_judged else None,
        score.reason,
        changed,
        rival.cpu_seconds,
        next(iter(measured.values()), None),
        dict(list(measured.items())[1:]),
    )


def _command(
    source: Any,
    target: Any,
    methods: Sequence[str],
    objectives: str | None,
    strategy: str | None,
    rule: str | SelectionRule | None,
    budget: str | float | None,
    backbones: Sequence[str | Path | Backbone],
    columns: dict[str, str | None],
    seed: int,
    folder: Path | None,
) -> str:
    """Return the command line that repeats this; rows in memory are named as what they are."""
    options = {
        "method": ",".join(methods),
        "objectives": objectives,
        "strategy": strategy,
        "rule": "" if rule is None else str(getattr(rule, "name", rule)),
        "budget": "" if budget is None else str(budget),
        "backbone": ",".join(str(getattr(item, "name", item)) for item in backbones),
        **columns,
        "seed": str(seed or ""),
        "out": "" if folder is None else str(folder),
    }
    words = [place_of(source), place_of(target)]
    for name, value in options.items():
        words += [f"--{name}", value] if value else []
    return f"headstart adapt {shlex.join(words)}"
