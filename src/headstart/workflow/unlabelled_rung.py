"""The rung for rows without labels: whether they are of another domain than the labelled ones, and which model serves them.

    features of both by the solved head's base model -> what the gap is
    features moved (covariate shift, support mismatch)    candidates compete as in `adapt`, chosen without labels -> adapted/
    no shift, label shift, new classes                    nothing is adapted: aligning features would not help, or would harm

It makes a second model and leaves the first alone. Judging rows and sealed test rows are like the labelled ones: they judge the
first model as before and cannot judge the second, so that one has no figure here, and the rung says so.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headstart.backbones import Backbone
from headstart.core.errors import DataError, DomainError, HeadstartError
from headstart.core.progress import Progress
from headstart.data import Dataset, is_table, open_dataset
from headstart.distances.diagnosis import Diagnosis
from headstart.evaluation.selection import Selection
from headstart.report import Cost, RungLine
from headstart.workflow.adaptation import Adaptation
from headstart.workflow.adapting import adapt_between
from headstart.workflow.clock import BudgetSpent, with_deadline
from headstart.workflow.config import FitConfig
from headstart.workflow.domains import TwoDomains, open_two_domains, title_of
from headstart.workflow.entrants import Room
from headstart.workflow.gapping import diagnose_domains
from headstart.workflow.head_rungs import HeadSettings

__all__ = ["ADAPTED", "Served", "UnlabelledRows", "UnlabelledRung", "open_unlabelled"]

ADAPTED = "adapted"
"""Folder within that of a run, as `adapt` writes one."""

_NAME, _TITLE = "adaptation", "adaptation to rows without labels"
_FEATURES_MOVED = {"covariate shift", "support mismatch"}
_MOST_MEASURED = 2000  # rows of each domain that the gap is measured on


@dataclass(frozen=True)
class UnlabelledRows:
    """Rows without labels beside those a run learns from, and what they are called."""

    rows: Dataset
    name: str


@dataclass(frozen=True)
class Served:
    """What the rung found; ``adaptation`` is None where `model/` is all there is for the unlabelled rows."""

    line: RungLine
    adaptation: Adaptation | None = None


def open_unlabelled(
    source: Any, train: Dataset, config: FitConfig, *, labelled: Any = None, labelled_ids: Collection[str] = ()
) -> UnlabelledRows:
    """Open rows without labels, by the columns of the labelled ones; labels that come with them are left behind.

    Parameters
    ----------
    source : path, DataFrame, array, list or Dataset
        The rows. Where they are the same table as the labelled ones: those of its rows that have no label.
    train : Dataset
        Rows of the run.
    config : FitConfig
        Columns of tables.
    labelled : the same
        Where the labelled rows came from.
    labelled_ids : collection of str
        Names of all labelled rows, sealed ones too.

    Raises
    ------
    HeadstartError
        If they cannot be opened, are of another kind or width than the labelled ones, or none is without a label.
    """
    columns: dict[str, Any] = {}
    if is_table(source):
        columns = {name: value for name, value in config.columns.items() if name in {"text", "image"}}
        if train.feature_names and not columns:
            columns = {"features": train.feature_names}
        columns |= {"prefer": train.content_column or None}
    rows = open_dataset(source, unlabelled=True, **columns)
    if _is_same(source, labelled):
        known = set(labelled_ids)
        rows = rows.subset([place for place, name in enumerate(rows.ids) if name not in known])
        if len(rows) == 0:
            raise DataError(
                "fit: every row has a label; name other rows as unlabelled, or leave the label of some rows empty."
            )
    if rows.modality != train.modality:
        raise DomainError(
            f"fit: labelled rows are {train.modality} rows, but those without labels {rows.modality} rows; one base model must "
            "read both."
        )
    if rows.modality == "vector" and rows.matrix().shape[1] != train.matrix().shape[1]:
        raise DomainError(
            f"fit: labelled rows have {train.matrix().shape[1]} feature columns but those without labels "
            f"{rows.matrix().shape[1]}; give both the same columns."
        )
    return UnlabelledRows(rows.unlabelled(), title_of(source, "the unlabelled rows"))


def _is_same(one: Any, two: Any) -> bool:
    if isinstance(one, (str, Path)) and isinstance(two, (str, Path)):
        return Path(one).expanduser().resolve() == Path(two).expanduser().resolve()
    return one is two


@dataclass(frozen=True)
class UnlabelledRung:
    """Measures the gap, and lets candidates compete where features moved.

    Parameters
    ----------
    given : UnlabelledRows
        The rows.
    settings : HeadSettings
        The labelled rows, runtime and store.
    backbone : Backbone
        Of the solved head.
    room : Room
        Time there is.
    seed : int
        Of folds and draws.
    """

    given: UnlabelledRows
    settings: HeadSettings
    backbone: Backbone
    room: Room
    seed: int = 0

    def run(self, number: int, progress: Progress) -> Served:
        """Carry it out; what goes wrong costs the rung, not the run.

        Parameters
        ----------
        number : int
            Place in the climb.
        progress : Progress
            Where lines go.
        """
        wall, cpu = time.perf_counter(), time.process_time()
        line = RungLine(number, _NAME, _TITLE, self.backbone.name, settings={"unlabelled_rows": len(self.given.rows)})
        adaptation = None
        try:
            line, adaptation = self._tried(line, progress)
        except BudgetSpent:
            line = replace(line, status="cut-off", reason="the budget ran out in the middle of it")
        except HeadstartError as error:
            line = replace(line, status="failed", reason=str(error))
        progress.say(f"{_TITLE}: {line.reason}")
        costs = time.process_time() - cpu, time.perf_counter() - wall
        if adaptation is not None:
            known = sum(item.from_cache for item in adaptation.domains.features)
            adaptation = replace(adaptation, cost=Cost(*costs, known))
        return Served(replace(line, cpu_seconds=costs[0], wall_seconds=costs[1]), adaptation)

    def _tried(self, line: RungLine, progress: Progress) -> tuple[RungLine, Adaptation | None]:
        """Return the rung's line, and the adaptation where one was chosen."""
        task = self.settings.train.task
        assert task is not None
        if task.kind == "multilabel":
            return replace(line, status="skipped", reason="never started: several labels a row are not adapted"), None
        if self.room.left <= 0:
            return replace(line, status="skipped", reason="the budget was spent"), None
        two = self._open(progress)
        gap, remarks = diagnose_domains(two, seed=self.seed, most_rows=_MOST_MEASURED)
        about: dict[str, Any] = {**line.settings, "gap": gap.kind, "domain_accuracy": gap.accuracy}
        if gap.kind not in _FEATURES_MOVED:
            notes = [gap.text, *remarks]
            return replace(line, status="skipped", reason=_nothing_done(gap), settings=about, notes=notes), None
        progress.say(f"gap between labelled and unlabelled rows: {gap.text}")
        found = adapt_between(two, room=self.room, seed=self.seed, progress=progress)
        selection = found.selection
        about |= {"rule": selection.rule, "selected": selection.chosen, "folder": ADAPTED if selection.adapts else ""}
        left_out = [f"{name}: the budget had no time for it" for name in found.left_out]
        line = replace(
            line,
            reason=_adapted(gap, selection, self.given.name),
            settings=about,
            notes=[gap.text, selection.reason, *left_out, *remarks],
        )
        budget = self.room.clock.budget if self.room.has_end else None
        named = replace(found, names=("labelled rows", self.given.name), budget=budget)
        return line, named if selection.adapts else None

    def _open(self, progress: Progress) -> TwoDomains:
        return open_two_domains(
            "fit",
            self.settings.train,
            self.given.rows,
            labelled=True,
            backbones=[self.backbone],
            runtime=self.settings.runtime,
            store=self.settings.store,
            progress=with_deadline(progress, self.room.left),
        )


def _nothing_done(gap: Diagnosis) -> str:
    if gap.kind == "no shift":
        return "no shift that matters between labelled and unlabelled rows, so nothing was adapted; model/ is for both"
    return (
        f"{gap.kind} between labelled and unlabelled rows, for which features are not aligned, so nothing was adapted; model/ is "
        f"for rows like the labelled ones, and for the others try {', '.join(gap.suggestions)}"
    )


def _adapted(gap: Diagnosis, selection: Selection, name: str) -> str:
    """Return what the rung gave, and for which rows each model is."""
    if not selection.adapts:
        return (
            f"{gap.kind} between labelled and unlabelled rows, but no adaptation brings back more than the source model does, "
            f"so nothing was adapted; model/ is for rows like the labelled ones, and nobody has measured it on {name}"
        )
    return (
        f"{gap.kind} between labelled and unlabelled rows; {selection.chosen} was chosen without labels and lies in {ADAPTED}/, "
        f"for rows like {name}; model/ is for rows like the labelled ones. Judging and test rows are like the labelled ones and "
        f"cannot judge {ADAPTED}/: label some of {name}, and headstart evaluate says what it is worth there"
    )
