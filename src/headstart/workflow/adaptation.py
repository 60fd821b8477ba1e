"""What `adapt` found: the choice with its reason, every candidate, answers for the target, and the chosen one as a model.

Shapes: n source rows, m target rows, k classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.core.tasks import Task
from headstart.evaluation.selection import FailedCandidate, Selection, SelectionRule
from headstart.model import Model
from headstart.model.predictions import UNKNOWN
from headstart.report import Cost
from headstart.report.adapted import AdaptedLine, Hindsight
from headstart.workflow.adaptation_folder import provenance
from headstart.workflow.domains import TwoDomains
from headstart.workflow.few_choice import FewLabelTest
from headstart.workflow.rivals import Rival

__all__ = ["Adaptation"]


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
    num_few : int
        Labelled target rows that were given to learn from.
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
    num_few: int = 0

    @property
    def chosen_by(self) -> str:
        """What the choice was made by, in words."""
        chooses = isinstance(self.rule, FewLabelTest)
        return f"by {self.num_few} labelled target rows" if chooses else "without target labels"

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
        model.provenance = {**model.provenance, **provenance(self)}  # stages have said already what of them trained
        model.feature_names = self.domains.feature_names or ()
        model.content_column = self.domains.source.content_column
        return model

    def __str__(self) -> str:
        from headstart.workflow.tables import text_table

        selected = f"Selected: {self.selection.chosen}. {self.selection.reason}"
        figures = [] if self.hindsight is None else self.hindsight.titles
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
            cells += self.hindsight.cells(line)
        return [*cells, "selected" if line.name == self.selection.chosen else ""]
