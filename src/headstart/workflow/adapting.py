"""`adapt`: a labelled source serves an unlabelled target; aligners compete with "do not adapt", and no target label chooses.

    open and embed both -> fit every candidate there is time for -> a rule chooses without target labels -> predictions
    -> labels that came with the target, if any, are opened once: source only, selected, and the best in hindsight

Classes, or numbers (`value_adaptations`); a saved model in the place of the source is another matter (`adapting_saved`). Where a
few labelled rows of the target's domain are given, methods that can learn from them do (`few_labels`), and enough of them choose,
each held out in turn (`few_choice`); the labels of ``target`` itself never do.
The best in hindsight is printed as what it is: nobody can reach it without target labels.
Shapes: n source rows, m target rows, d features, k classes.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.catalog import resolve
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import Progress, format_seconds
from headstart.data import Dataset
from headstart.evaluation import Interval
from headstart.evaluation.selection import Selection, SelectionRule, select
from headstart.features import FeatureStore
from headstart.report import Cost
from headstart.report.adapted import AdaptedLine
from headstart.workflow.absent_classes import caution
from headstart.workflow.adaptation import Adaptation
from headstart.workflow.adaptation_folder import check_folder, write_adaptation
from headstart.workflow.adaptations import NO_ADAPTATION
from headstart.workflow.adapting_saved import adapt_saved, saved_source
from headstart.workflow.candidates_of_adapt import CandidatePlan, check_plan, read_candidates, try_all
from headstart.workflow.clock import Clock
from headstart.workflow.domains import TwoDomains, open_two_domains, places_of, title_of
from headstart.workflow.entrants import Room
from headstart.workflow.few_choice import FewLabelTest, few_test
from headstart.workflow.few_rows import FewRows, open_few
from headstart.workflow.goal import parse_budget
from headstart.workflow.rivals import Rival
from headstart.workflow.saved_adaptation import SavedAdaptation
from headstart.workflow.staged_rivals import StagedTraining, check_judge
from headstart.workflow.target_truth import open_truth
from headstart.workflow.value_adaptations import check_recipes, rule_for_values, try_values

__all__ = ["DEFAULT_RULE", "adapt", "adapt_between"]

DEFAULT_RULE = "circular-test"
_LEAST_ROWS = 4
DEFAULT_VALUE_RULE = "circular-validation"  # for numbers no rule gains; this one does no harm (docs/benchmarks.md)


def adapt(  # noqa: PLR0913 (an argument an option, as on the command line)
    source: Any,
    target: Any,
    *,
    labels: Any = None,
    target_labels: Any = None,
    few: Any = None,
    few_labels: Any = None,
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
) -> Adaptation | SavedAdaptation:
    """Answer for target rows with the knowledge of a labelled source, adapting only if a rule says so that sees no label of them.

    Parameters
    ----------
    source : path, DataFrame, array, list or Dataset, a list of several, or a Model
        Labelled rows; a list of folders, tables, arrays with columns or data sets is as many sources. Or a model whose training
        rows are gone: `Model`, its folder, or a run's folder (`headstart.workflow.adapting_saved`).
    target : the same
        Rows of the other domain. Labels that come with them choose nothing; they are opened once, at the end.
    labels, target_labels : sequence, optional
        Labels for arrays and lists; for several sources a list of such lists.
    few : path, DataFrame, array, list or Dataset, optional
        A few labelled rows of the target's domain, which are not among ``target``. Methods that can learn from them do, and with
        five of every class, or ten where labels are numbers, they choose, each held out in turn
        (`headstart.workflow.few_choice`).
    few_labels : sequence, optional
        Their labels, for arrays and lists.
    methods : str or sequence of str, optional
        Aligners, recipes and objectives for networks, or translations of source images (``"fda"``), by their names in the catalog
        (a name that is both is the aligner); the default candidates when left out. "do not adapt" always competes. For a saved
        model methods of the kind "test-time", and at least one.
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
    Adaptation, or SavedAdaptation of a saved model

    Raises
    ------
    HeadstartError
        If rows, names or options will not do.
    """
    progress = progress or Progress()
    methods = (methods,) if isinstance(methods, str) else tuple(methods)
    if (saved := saved_source(source)) is not None:
        return adapt_saved(
            saved,
            target,
            methods=methods,
            few=few,
            few_labels=few_labels,
            target_labels=target_labels,
            options={
                "objectives": objectives,
                "strategy": strategy,
                "rule": rule,
                "budget": budget,
                "backbones": backbones,
                "labels": labels,
            },
            columns=columns,
            runtime=runtime,
            seed=seed,
            out=out,
            store=store,
            progress=progress,
        )
    wall_started, cpu_started = time.perf_counter(), time.process_time()
    seconds = parse_budget(budget)
    room = Room(Clock(seconds))
    folder = None if out is None else check_folder(Path(out))
    named = _judge(rule, DEFAULT_RULE)  # what is wrong with it whatever the rows are
    plan = read_candidates(methods, objectives, strategy, few=few is not None)
    if plan.stages:
        check_judge(named)
    checkpoint = None if folder is None else folder / "checkpoint"
    training = StagedTraining(strategy or "", seed, store, checkpoint)

    def check(rows: Dataset, backbone: Backbone) -> None:
        if rows.task is not None and rows.task.kind == "regression":
            check_recipes(plan)
        check_plan(plan, training, rows, backbone, few=few is not None)

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
        check=check,
    )
    found = adapt_between(
        two,
        plan=plan,
        training=training,
        few=None if few is None else open_few(few, few_labels, two, _labels(two)[1], columns, store),
        rule=rule,
        room=room,
        seed=seed,
        progress=progress,
    )
    found = replace(
        found,
        names=(title_of(source, "source"), title_of(target, "target")),
        command=_command(
            source, target, few, methods, objectives, strategy, rule, budget, backbones, columns, seed, folder
        ),
        cost=Cost(
            time.process_time() - cpu_started,
            time.perf_counter() - wall_started,
            sum(item.from_cache for item in two.features),
        ),
        folder=folder,
        budget=seconds if room.has_end else None,
    )
    if folder is not None:
        write_adaptation(found, folder)
    return found


def adapt_between(
    two: TwoDomains,
    *,
    plan: CandidatePlan | None = None,
    training: StagedTraining | None = None,
    few: FewRows | None = None,
    rule: str | SelectionRule | None = None,
    room: Room | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Adaptation:
    """Let candidates compete between two domains that are open and embedded.

    Parameters
    ----------
    two : TwoDomains
        The rows.
    plan : CandidatePlan, optional
        What competes; the default candidates when left out.
    training : StagedTraining, optional
        How stages train, where the plan has some.
    few : FewRows, optional
        Labelled target rows.
    rule, seed, progress
        As for `adapt`.
    room : Room, optional
        Time there is; endless when left out.

    Returns
    -------
    Adaptation
        Without names, command, cost and folder, which are the caller's to say.

    Raises
    ------
    HeadstartError
        If labels or rule will not do.
    """
    progress = progress or Progress(quiet=True)
    is_numbers = _has_numbers(two)
    judge = _judge(rule, DEFAULT_VALUE_RULE if is_numbers else DEFAULT_RULE)
    how, plan = training or StagedTraining("", seed), plan or CandidatePlan()
    labels, classes = _labels(two)
    judge = rule_for_values(judge) if is_numbers else judge
    if plan.stages:
        check_judge(judge)
    why_not = "" if few is None else "a rule was named" if rule is not None else few.too_few(classes)
    chooses = few is not None and not why_not
    given: dict[str, Any] = {"needs": frozenset[str]() if chooses else judge.wants, "seed": seed, "room": room}
    if is_numbers:
        rivals = try_values(plan, two, how, **given, progress=progress, few=few)
    else:
        rivals = try_all(plan, two, labels, classes, how, **given, progress=progress, few=few)
    if why_not:
        progress.say(f"labelled target rows teach but do not choose: {why_not}")
    started, room = time.process_time(), room or Room()
    with room.within(max(0.0, room.clock.left)):  # ways back, and folds of labelled target rows
        if few is not None and chooses:
            judge = few_test(rivals, few, two, labels, seed)
        selection = select({rival.name: rival.evidence for rival in rivals}, judge, no_adaptation=NO_ADAPTATION)
    by = f"by {len(few)} labelled target rows" if isinstance(judge, FewLabelTest) and few else "without target labels"
    progress.say(f"selected {by}: {selection.chosen} ({format_seconds(time.process_time() - started)} of CPU time)")
    chosen = next(rival for rival in rivals if rival.name == selection.chosen)
    assert chosen.fitted is not None
    if not (is_numbers or isinstance(judge, FewLabelTest) or chosen is rivals[0]):
        selection = _with_caution(selection, rivals[0], chosen, classes)
    hindsight, measured, truth = open_truth(two, rivals, selection, classes, seed)
    answers = chosen.fitted.target_scores
    return Adaptation(
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
        values_m=answers if is_numbers else None,
        num_few=0 if few is None else len(few),
    )


def _with_caution(selection: Selection, first: Rival, chosen: Rival, classes: tuple[str, ...]) -> Selection:
    """Say beside the reason where the choice rests on classes that "do not adapt" hardly finds."""
    assert first.fitted is not None and chosen.fitted is not None
    answers = first.fitted.target_answers_m, chosen.fitted.target_answers_m
    return replace(selection, reason=selection.reason + caution(chosen.name, *answers, classes))


def _has_numbers(two: TwoDomains) -> bool:
    return two.source.task is not None and two.source.task.kind == "regression"


def _judge(rule: str | SelectionRule | None, default: str) -> SelectionRule:
    if rule is None or isinstance(rule, str):
        judge: SelectionRule = resolve(rule or default, "rule")()
        return judge
    return rule


def _labels(two: TwoDomains) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return class numbers of the source rows and the names of the classes there are, or numbers and no names."""
    task, targets = two.source.task, two.source.targets
    assert task is not None and targets is not None
    if task.kind == "regression":
        return np.asarray(targets, dtype=np.float64), ()
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
    few: Any,
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
        "few": "" if few is None else " ".join(places_of(few)),
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
    words = [*places_of(source), *places_of(target)]
    for name, value in options.items():
        words += [f"--{name}", value] if value else []
    return f"headstart adapt {shlex.join(words)}"
