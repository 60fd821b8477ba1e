"""What adapting a saved model found: each method beside the model as it was, who is delivered, and the folder of it.

The gap between the domains cannot be measured, because source rows are gone. What is shown instead: how many answers changed,
their mean entropy, and how many target rows are unlike the training rows that the model keeps as features (`NoveltyScorer`), as
its head sees them before and after. The head learned from those very rows, so they are what it takes target rows for.
Shapes: m target rows, r kept training rows, d features, k classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headstart.catalog import entries
from headstart.core.digests import digest_many
from headstart.core.tasks import Task
from headstart.evaluation.selection import Selection
from headstart.model import Model
from headstart.model.predictions import UNKNOWN
from headstart.report import Cost
from headstart.report.adapt import AdaptData, DomainsInPlane, SavedFigures
from headstart.report.adapted import AdaptedLine, Hindsight
from headstart.workflow.adaptation_folder import write_parts
from headstart.workflow.adaptation_page import answer_shifts, changed_examples, spread_rows
from headstart.workflow.adaptations import NO_ADAPTATION
from headstart.workflow.few_choice import FewLabelTest
from headstart.workflow.planes import plane_of
from headstart.workflow.ranking import runtime_summary
from headstart.workflow.saved_candidates import Answered, SavedCandidate, SavedTarget
from headstart.workflow.versions import now, versions

__all__ = ["SavedAdaptation", "write_saved"]

Array = NDArray[Any]
_MOST_DRAWN = 2000
_NEW_ROWS = {
    "lame": "the model's own answer, moved one step towards the answers of their nearest target rows of the adaptation"
}


@dataclass(frozen=True)
class SavedAdaptation:
    """What `adapt` found for a saved model; printing it prints the choice and the table.

    Parameters
    ----------
    selection : Selection
        Who is delivered, and why.
    lines : tuple of AdaptedLine
        "do not adapt" first, then every method.
    given : Model
        The model as it was.
    target : SavedTarget
        The rows.
    candidates : tuple of SavedCandidate
        Every method, carried through.
    rule : FewLabelTest, optional
        Where labelled target rows chose.
    hindsight : Hindsight, optional
        Where the target had labels.
    truth : tuple of str, optional
        These labels, a target row each; None for a row without.
    names : (str, str)
        What model and target are called.
    command : str
        What repeats it.
    cost : Cost, optional
        What all of it took.
    folder : Path, optional
        Where the model, predictions.csv, adapt.html and adapt.json were written.
    num_few : int
        Labelled target rows that were given.
    """

    selection: Selection
    lines: tuple[AdaptedLine, ...]
    given: Model = field(repr=False)
    target: SavedTarget = field(repr=False)
    candidates: tuple[SavedCandidate, ...] = field(repr=False)
    rule: FewLabelTest | None = field(default=None, repr=False)
    hindsight: Hindsight | None = None
    truth: tuple[str | None, ...] | None = None
    names: tuple[str, str] = ("the model", "target")
    command: str = ""
    cost: Cost | None = None
    folder: Path | None = None
    num_few: int = 0

    @property
    def task(self) -> Task:
        """What is answered."""
        return self.given.task

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the probabilities' columns; none for numbers."""
        return self.task.classes

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the target rows."""
        return tuple(self.answered.predictions.ids)

    @property
    def chosen_by(self) -> str:
        """What the choice was made by, in words."""
        return "because it was asked for" if self.rule is None else f"by {self.num_few} labelled target rows"

    @property
    def stays(self) -> Answered:
        """The answers of the model as it was."""
        found = self.candidates[0].found
        assert found is not None
        return found

    @property
    def answered(self) -> Answered:
        """The answers that are delivered."""
        found = next(item.found for item in self.candidates if item.name == self.selection.chosen)
        assert found is not None
        return found

    @property
    def predictions(self) -> tuple[Any, ...]:
        """Class name of each target row (or "unknown"), its class names where there are several, or its number."""
        return tuple(self.answered.predictions.labels)

    @cached_property
    def model(self) -> Model:
        """The delivered model, with all that its card says; the model as it was where nothing was adapted."""
        if not self.selection.adapts:
            return replace(self.given, folder=None)
        made = self.answered.model
        return replace(made, provenance={**_forgotten(made.provenance), **_provenance(self)})

    def __str__(self) -> str:
        from headstart.workflow.tables import text_table

        seen = self.hindsight
        header = [
            "candidate",
            *([] if self.rule is None else ["score"]),
            "changes",
            "entropy",
            "unlike training",
            "CPU s",
        ]
        header += [] if seen is None else seen.titles
        table = text_table([*header, ""], [self._cells(line) for line in self.lines])
        failed = [f"left out: {item.name}: {item.reason}" for item in self.candidates if item.found is None]
        after = [] if seen is None else ["", str(seen)]
        return "\n".join([f"Selected: {self.selection.chosen}. {self.selection.reason}", "", table, *failed, *after])

    def _cells(self, line: AdaptedLine) -> list[str]:
        cells = [line.name, *([] if self.rule is None else ["" if line.score is None else f"{line.score:.4g}"])]
        cells += ["" if line.changed is None else f"{100 * line.changed:.1f} %"]
        cells += ["" if line.entropy is None else f"{line.entropy:.3f}"]
        cells += ["" if line.unlike is None else f"{100 * line.unlike:.1f} %", f"{line.cpu_seconds:.1f}"]
        if self.hindsight is not None:
            cells += self.hindsight.cells(line)
        return [*cells, "selected" if line.name == self.selection.chosen else ""]


def write_saved(found: SavedAdaptation, folder: Path) -> None:
    """Write the folder as `adapt` writes it.

    Raises
    ------
    ModelError
        If it cannot be written.
    """
    write_parts(folder, lambda: found.model, lambda: _answers(found), lambda: _page_data(found))


def _answers(found: SavedAdaptation) -> pd.DataFrame:
    scores = found.answered.target_scores
    if found.task.kind == "regression":
        return pd.DataFrame({"row": list(found.ids), "value": scores})
    several = found.task.kind == "multilabel"
    words = ["|".join(names) for names in found.predictions] if several else list(found.predictions)
    table: dict[str, Any] = {"row": list(found.ids), "class": words}
    table |= {f"p({name})": scores[:, place] for place, name in enumerate(found.classes)}
    return pd.DataFrame(table)


def _forgotten(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return what a model says of itself without figures that were measured before it was adapted."""
    return {name: value for name, value in provenance.items() if name not in {"metrics", "measured_on", "baselines"}}


def _provenance(found: SavedAdaptation) -> dict[str, Any]:
    """Return what became of the model: the rows it adapted to, why this method, and what labels said afterwards."""
    seen, rows, known = found.hindsight, found.target.rows, versions()
    about: dict[str, Any] = {
        "title": f"{found.names[0]}, adapted to {found.names[1]}",
        "verdict": "Without labels of the target nobody has measured this model there."
        if seen is None
        else seen.sentence,
        "test_time": {
            **found.answered.model.provenance["test_time"],
            "target": {"name": found.names[1], "rows": len(rows), "digest": digest_many(sorted(rows.digests()))},
            "reason": found.selection.reason,
            "chosen": found.chosen_by,
            "labelled_target_rows": found.num_few,
            "new_rows": _NEW_ROWS.get(found.selection.chosen, ""),
        },
        "like": "target rows it adapted to",
        "created": now(),
        "command": found.command,
        "headstart": known.get("headstart", ""),
        "versions": known,
    }
    if found.rule is not None and seen is None:
        about["verdict"] = f"It was chosen {found.chosen_by}; no other labels have measured it."
    if seen is not None and seen.selected.finite:
        about["metrics"] = {seen.metric: seen.selected.to_dict()}
        about["measured_on"] = "target rows whose labels chose nothing; it had seen the rows, not their labels"
    return about


def _page_data(found: SavedAdaptation) -> AdaptData:
    """Return everything the page shows."""
    stays, chosen, rows = found.stays, found.answered, found.target.rows
    is_vector = rows.modality == "vector"
    is_one = found.task.kind == "classification"
    answers = stays.target_answers, chosen.target_answers
    before, after = _planes(found, stays, chosen)
    return AdaptData(
        source=found.names[0],
        target=found.names[1],
        source_rows=None,
        target_rows=len(rows),
        modality=rows.modality,
        task=found.task,
        selection=found.selection,
        rule_title="" if found.rule is None else found.rule.facts.title,
        rule_fails="" if found.rule is None else found.rule.facts.fails_when,
        rule_sees=f"{found.num_few} of them, none among the target rows answered here",
        lines=found.lines,
        hindsight=found.hindsight,
        changed=chosen.changed(stays),
        before=before,
        after=after,
        shifts=answer_shifts(found.classes, found.truth, answers) if is_one else [],
        examples=changed_examples(
            rows, found.classes, found.truth, answers, (stays.target_scores, chosen.target_scores)
        )
        if is_one and not is_vector
        else [],
        summaries={
            NO_ADAPTATION: "the model as it was",
            **{entry.name: entry.summary for entry in entries("test-time")},
        },
        new_rows=_NEW_ROWS.get(found.selection.chosen, ""),
        folder="" if found.folder is None else str(found.folder),
        backbone="" if is_vector else found.given.backbone.name,
        cost=found.cost,
        runtime=None if is_vector else runtime_summary(found.target.features),
        findings=found.target.features.failures,
        versions=versions(),
        command=found.command,
        created=now(),
        saved=SavedFigures(
            _pair(stays.entropy, chosen.entropy),
            _pair(stays.unlike, chosen.unlike),
            0 if found.given.novelty is None else len(found.given.novelty.reference_rd),
        ),
    )


def _pair(before: float | None, after: float | None) -> tuple[float, float] | None:
    return None if before is None or after is None else (before, after)


def _planes(
    found: SavedAdaptation, stays: Answered, chosen: Answered
) -> tuple[DomainsInPlane | None, DomainsInPlane | None]:
    """Return training rows that the model keeps and target rows before and after, all on the same two directions."""
    novelty = found.given.novelty
    if novelty is None:
        return None, None
    rows = spread_rows(len(stays.seen_md), _MOST_DRAWN)
    moved = found.selection.adapts and not np.array_equal(stays.seen_md, chosen.seen_md)
    seen = [novelty.place(item.seen_md[rows]) for item in ((stays, chosen) if moved else (stays,))]
    source_r2, target_2, explained = plane_of(novelty.reference_rd, np.concatenate(seen))
    names = np.array([*found.classes, UNKNOWN], dtype=object)

    def plane(places: Array, answered: Answered) -> DomainsInPlane:
        is_one = found.task.kind == "classification"
        answers = [str(name) for name in names[answered.target_answers[rows]]] if is_one else []
        return DomainsInPlane(source_r2, places, [], answers, explained)

    before = plane(target_2[: len(rows)], stays if moved else chosen)
    return before, plane(target_2[len(rows) :], chosen) if moved else None
