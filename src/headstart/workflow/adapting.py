"""`adapt`: a labelled source serves an unlabelled target; aligners compete with "do not adapt", and no target label chooses.

    open and embed both -> fit every candidate -> a rule chooses without target labels -> predictions for the target
    -> labels that came with the target, if any, are opened once: source only, selected, and the best in hindsight

Classification. The best in hindsight is printed as what it is: nobody can reach it without target labels.
Shapes: n source rows, m target rows, d features, k classes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.catalog import find, resolve
from headstart.core.errors import ConfigError, DataError
from headstart.core.files import atomic_path, write_json
from headstart.core.progress import Progress, format_seconds
from headstart.core.tasks import Task
from headstart.data import Dataset
from headstart.evaluation import Interval, PairedTest, bootstrap_interval, format_p_value, paired_test
from headstart.evaluation.selection import Selection, SelectionRule, select
from headstart.features import FeatureStore
from headstart.model import Model
from headstart.workflow.adaptations import (
    NO_ADAPTATION,
    base_classifier,
    default_candidates,
    make_candidates,
    try_candidates,
)
from headstart.workflow.domains import TwoDomains, open_two_domains
from headstart.workflow.rivals import Rival
from headstart.workflow.versions import now, versions

__all__ = ["DEFAULT_RULE", "Adaptation", "AdaptedLine", "Hindsight", "adapt"]

DEFAULT_RULE = "circular-validation"


@dataclass(frozen=True)
class AdaptedLine:
    """One candidate in the table.

    Parameters
    ----------
    name : str
        As in the catalog, or "do not adapt".
    score : float, optional
        The rule's; None where there is none.
    note : str
        Why not, then.
    changed : float, optional
        Share of target rows that it answers otherwise than "do not adapt" does.
    cpu_seconds : float
        What fitting it and gathering the evidence took.
    accuracy : Interval, optional
        On the target's labels, where some came with it; looked at after the choice.
    """

    name: str
    score: float | None
    note: str
    changed: float | None
    cpu_seconds: float
    accuracy: Interval | None = None


@dataclass(frozen=True)
class Hindsight:
    """What the target's labels say once the choice is made.

    Parameters
    ----------
    rows : int
        Target rows with a label.
    unknown : int
        Of these, rows of classes the source does not have: no candidate can name them.
    source_only, selected, oracle : Interval
        Accuracy without adaptation, of what was chosen, and of the best candidate, which only these labels can name.
    oracle_name : str
        That candidate.
    test : PairedTest, optional
        Selected against source only; None where they are the same.
    """

    rows: int
    unknown: int
    source_only: Interval
    selected: Interval
    oracle: Interval
    oracle_name: str
    test: PairedTest | None

    def __str__(self) -> str:
        def shown(value: Interval) -> str:
            return f"{100 * value.value:.1f} % (95 % CI {100 * value.low:.1f} to {100 * value.high:.1f})"

        gain = 100 * (self.selected.value - self.source_only.value)
        verdict = "Nothing was adapted"
        if self.test is not None:
            verdict = "Adapting helped" if gain > 0 else "Adapting hurt (negative transfer)"
            verdict = verdict if self.test.p_value < 0.05 else "No difference beyond chance"
        lines = [
            f"{verdict}: selected {shown(self.selected)}, source only {shown(self.source_only)}"
            + (
                f"; {gain:+.1f} points, paired test {format_p_value(self.test.p_value)}"
                if self.test is not None
                else ""
            )
            + f", on {self.rows:,} labelled target rows that chose nothing.",
            f"Oracle, unreachable without target labels: {self.oracle_name} {shown(self.oracle)}.",
        ]
        if self.unknown:
            lines.append(
                f"{self.unknown:,} of these rows belong to classes the source does not have; none can be named rightly."
            )
        return "\n".join(lines)


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
        Of the chosen candidate for the target rows.
    rival : Rival
        The chosen candidate, fitted.
    domains : TwoDomains
        The rows.
    hindsight : Hindsight, optional
        Where the target had labels.
    folder : Path, optional
        Where predictions.csv and adapt.json were written.
    """

    selection: Selection
    lines: tuple[AdaptedLine, ...]
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    probabilities_mk: NDArray[np.float64]
    rival: Rival = field(repr=False)
    domains: TwoDomains = field(repr=False)
    hindsight: Hindsight | None = None
    folder: Path | None = None

    @property
    def predictions(self) -> tuple[str, ...]:
        """Class name of each target row."""
        return tuple(self.classes[place] for place in self.probabilities_mk.argmax(axis=1))

    @cached_property
    def model(self) -> Model:
        """The chosen candidate as a model that answers for new rows of the target."""
        assert self.rival.fitted is not None
        return self.rival.fitted.to_model(self.domains, Task("classification", self.classes))

    def __str__(self) -> str:
        from headstart.workflow.tables import text_table

        selected = f"Selected: {self.selection.chosen}. {self.selection.reason}"
        labelled = self.hindsight is not None
        header = ["candidate", "score", "changes", "CPU s", *(["accuracy", "95 % interval"] if labelled else []), ""]
        table = text_table(header, [self._cells(line, labelled) for line in self.lines])
        failed = [f"left out: {line.name}: {line.note}" for line in self.lines if line.score is None]
        after = [] if self.hindsight is None else ["", str(self.hindsight)]
        return "\n".join([selected, "", table, *failed, *after])

    def _cells(self, line: AdaptedLine, labelled: bool) -> list[str]:
        cells = [
            line.name,
            "" if line.score is None else f"{line.score:.4g}",
            "" if line.changed is None else f"{100 * line.changed:.1f} %",
            f"{line.cpu_seconds:.1f}",
        ]
        if labelled:
            value = line.accuracy
            cells += (
                ["", ""]
                if value is None
                else [f"{100 * value.value:.1f} %", f"{100 * value.low:.1f} to {100 * value.high:.1f}"]
            )
        return [*cells, "selected" if line.name == self.selection.chosen else ""]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON value: the choice, every candidate, and the labels' verdict where there were labels."""
        seen = self.hindsight
        return {
            "selection": self.selection.to_dict(),
            "candidates": [
                {
                    "name": line.name,
                    "score": line.score,
                    "note": line.note,
                    "changed": line.changed,
                    "cpu_seconds": line.cpu_seconds,
                    "accuracy": None if line.accuracy is None else line.accuracy.to_dict(),
                }
                for line in self.lines
            ],
            "classes": list(self.classes),
            "rows": {"source": len(self.domains.source), "target": len(self.domains.target)},
            "backbone": self.domains.backbone.name,
            "hindsight": None
            if seen is None
            else {
                "rows": seen.rows,
                "unknown": seen.unknown,
                "source_only": seen.source_only.to_dict(),
                "selected": seen.selected.to_dict(),
                "oracle_unreachable": {"name": seen.oracle_name, **seen.oracle.to_dict()},
                "paired_test": None if seen.test is None else seen.test.to_dict(),
            },
            "created": now(),
            "versions": versions(),
        }


def adapt(
    source: Any,
    target: Any,
    *,
    labels: Any = None,
    target_labels: Any = None,
    methods: Sequence[str] = (),
    rule: str | SelectionRule = DEFAULT_RULE,
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
    methods : sequence of str, optional
        Aligners by their names in the catalog; the default candidates when left out. "do not adapt" always competes.
    rule : str or SelectionRule
        How to choose, by its name in the catalog.
    backbones, runtime, store
        The base model that embeds both domains, as for `rank`.
    seed : int
        Of folds and draws.
    out : path, optional
        Folder for predictions.csv and adapt.json.
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
    judge = resolve(rule, "rule")() if isinstance(rule, str) else rule
    for name in methods:
        find(name, "aligner")
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
    codes, classes = _classes(two)
    names = tuple(methods) or default_candidates(len(two.source_nd) + len(two.target_md))
    base = base_classifier(two.source_nd, codes, seed=seed)
    needs = frozenset[str]().union(*judge.needs)
    rivals = try_candidates(
        make_candidates(names, base), two.source_nd, codes, two.target_md, needs=needs, seed=seed, progress=progress
    )
    started = time.process_time()
    selection = select({rival.name: rival.evidence for rival in rivals}, judge, no_adaptation=NO_ADAPTATION)
    progress.say(
        f"selected without target labels: {selection.chosen} ({format_seconds(time.process_time() - started)} of CPU time)"
    )
    chosen = next(rival for rival in rivals if rival.name == selection.chosen)
    assert chosen.fitted is not None
    hindsight, accuracies = _open_truth(two, rivals, selection, classes, seed)
    found = Adaptation(
        selection,
        tuple(_line(rival, rivals[0], selection, accuracies.get(rival.name)) for rival in rivals),
        classes,
        tuple(two.target.ids),
        chosen.fitted.target_scores,
        chosen,
        two,
        hindsight,
        None if out is None else Path(out),
    )
    if found.folder is not None:
        _write(found, found.folder)
    return found


def _classes(two: TwoDomains) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return class numbers of the source rows and the names of the classes there are."""
    task, targets = two.source.task, two.source.targets
    assert task is not None and targets is not None
    if task.kind != "classification":
        raise ConfigError(
            f"adapt: the source's labels make a {task.kind} task; choosing without target labels is for classes. Use the "
            "estimators of headstart.alignment (AdaptedRegressor) for numbers."
        )
    present, codes = np.unique(targets, return_inverse=True)
    if len(present) < 2:
        raise DataError(
            f"adapt: the source needs at least two classes; every row is {task.classes[int(present[0])]!r}."
        )
    return np.asarray(codes, dtype=np.int64), tuple(task.classes[int(place)] for place in present)


def _line(rival: Rival, first: Rival, selection: Selection, accuracy: Interval | None) -> AdaptedLine:
    score = selection.scores[rival.name]
    changed = None
    if rival.fitted is not None and first.fitted is not None:
        answers = (item.target_scores.argmax(axis=1) for item in (rival.fitted, first.fitted))
        changed = float(np.mean(next(answers) != next(answers)))
    return AdaptedLine(
        rival.name, score.value if score.is_judged else None, score.reason, changed, rival.cpu_seconds, accuracy
    )


def _open_truth(
    two: TwoDomains, rivals: Sequence[Rival], selection: Selection, classes: tuple[str, ...], seed: int
) -> tuple[Hindsight | None, dict[str, Interval]]:
    """Open the target's labels, once, after the choice."""
    if two.truth is None:
        return None, {}
    labelled: Dataset = two.truth.open("accuracy of candidates that were chosen without it")
    task, targets = labelled.task, labelled.targets
    if task is None or task.kind != "classification" or targets is None:
        return None, {}
    every = (*classes, *(name for name in task.classes if name not in classes))
    places = {name: place for place, name in enumerate(every)}
    truth = np.array([places[task.classes[int(value)]] for value in targets], dtype=np.int64)
    scores: dict[str, NDArray[np.float64]] = {}
    for rival in rivals:
        if rival.fitted is not None:
            scores[rival.name] = np.pad(rival.fitted.target_scores, ((0, 0), (0, len(every) - len(classes))))
    named = Task("classification", every)
    intervals = {name: bootstrap_interval("accuracy", named, truth, table, seed=seed) for name, table in scores.items()}
    best = max(intervals, key=lambda name: intervals[name].value)
    test = None
    if selection.adapts:
        test = paired_test(named, truth, scores[selection.chosen], scores[NO_ADAPTATION], "accuracy", seed=seed)
    unknown = int((truth >= len(classes)).sum())
    hindsight = Hindsight(
        len(truth), unknown, intervals[NO_ADAPTATION], intervals[selection.chosen], intervals[best], best, test
    )
    return hindsight, intervals


def _write(found: Adaptation, folder: Path) -> None:
    """Write predictions.csv and adapt.json."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    table: dict[str, Any] = {"row": list(found.ids), "class": list(found.predictions)}
    table |= {f"p({name})": found.probabilities_mk[:, place] for place, name in enumerate(found.classes)}
    with atomic_path(folder / "predictions.csv") as temporary:
        pd.DataFrame(table).to_csv(temporary, index=False)
    write_json(folder / "adapt.json", found.to_dict())
