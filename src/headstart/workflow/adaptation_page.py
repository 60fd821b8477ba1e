"""What the page of `adapt` shows and the choice did not need: maps, gaps, classes and rows, before and after.

Nothing here is looked at by anybody who chooses; it is worked out when a folder is written.
Shapes: n source rows, m target rows, d features before and r after adaptation, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.catalog import Kind, entries
from headstart.core.errors import HeadstartError
from headstart.data import Dataset
from headstart.distances import Measurement, measure_domains
from headstart.model.predictions import UNKNOWN
from headstart.report import RowExample
from headstart.report.adapt import AdaptData, AnswerShift, DomainsInPlane
from headstart.workflow.adaptations import NO_ADAPTATION
from headstart.workflow.committee import COMMITTEE
from headstart.workflow.examples import row_example
from headstart.workflow.few_choice import FewLabelTest
from headstart.workflow.few_labels import FEW_ALONE
from headstart.workflow.network_rivals import FittedNetwork
from headstart.workflow.planes import plane_of, turned_like
from headstart.workflow.ranking import runtime_summary
from headstart.workflow.rivals import FittedCandidate, Rival
from headstart.workflow.staged_rivals import FittedStages
from headstart.workflow.versions import now, versions

if TYPE_CHECKING:
    from headstart.workflow.adaptation import Adaptation

__all__ = ["answer_shifts", "changed_examples", "page_data", "spread_rows"]

Array = NDArray[Any]
_MEASURES = ("proxy-a", "mk-mmd", "energy")  # free of the number of features, which adapting may change
_SUMMARIES = {
    NO_ADAPTATION: "what the source teaches, as it is",
    COMMITTEE: "the mean of the answers of all candidates on features",
    FEW_ALONE: "labelled target rows and nothing else",
}
_MOST_MEASURED = 1000
_MOST_DRAWN = 2000
_MOST_EXAMPLES = 12


def page_data(found: Adaptation) -> AdaptData:
    """Return everything the page shows."""
    two, selection = found.domains, found.selection
    stays = next(rival for rival in found.rivals if rival.name == selection.no_adaptation).fitted
    chosen = found.rival.fitted
    assert stays is not None and chosen is not None
    seen = _moved(found, chosen)
    before, after = _planes(found, stays, chosen, seen)
    answers = (stays.target_answers_m, chosen.target_answers_m) if found.values_m is None else None
    is_vector = two.source.modality == "vector"
    return AdaptData(
        source=found.names[0],
        target=found.names[1],
        source_rows=len(two.source),
        target_rows=len(two.target),
        modality=two.source.modality,
        task=found.task,
        selection=selection,
        rule_title=found.rule.facts.title,
        rule_fails=found.rule.facts.fails_when,
        **_seen_by(found),
        lines=found.lines,
        hindsight=found.hindsight,
        changed=None if answers is None else int((answers[0] != answers[1]).sum()),
        before=before,
        after=after,
        gaps=_gaps(two.source_nd, two.target_md, seen, found.seed),
        shifts=[] if answers is None else answer_shifts(found.classes, found.truth, answers),
        examples=[]
        if is_vector or answers is None
        else changed_examples(
            two.target, found.classes, found.truth, answers, (stays.target_scores, chosen.target_scores)
        ),
        summaries={rival.name: _summary(rival) for rival in found.rivals},
        seen_as=chosen.seen_as,
        new_rows=chosen.new_rows,
        folder="" if found.folder is None else str(found.folder),
        backbone="" if is_vector else two.backbone.name,
        cost=found.cost,
        runtime=None if is_vector else runtime_summary(two.features[0]),
        findings=two.findings,
        notes=(*two.notes, *chosen.notes),
        versions=versions(),
        command=found.command,
        created=now(),
        budget=found.budget,
        left_out=found.left_out,
    )


def _seen_by(found: Adaptation) -> dict[str, Any]:
    """Return what the rule has seen of the target's labels, where it has seen some."""
    if not isinstance(found.rule, FewLabelTest):
        return {}
    return {"rule_sees": f"{found.num_few} of them, each held out in turn and none of the target rows answered here"}


def _summary(rival: Rival) -> str:
    """Return what a candidate is, by its name in the catalog; a name may stand for an aligner and for a recipe."""
    if rival.name in _SUMMARIES:
        return _SUMMARIES[rival.name]
    is_network = isinstance(rival.fitted, FittedNetwork | FittedStages)
    kinds: tuple[Kind, ...] = ("translation", "adaptation", "objective")
    kinds = kinds if is_network else ("aligner", *kinds)
    known = (entry.summary for kind in kinds for entry in entries(kind) if entry.name == rival.name)
    return next(known, "a network trained by this joint loss")


def _moved(found: Adaptation, chosen: FittedCandidate) -> tuple[Array, Array] | None:
    """Return rows of both domains as the chosen candidate sees them; None where it moves none."""
    source, target = chosen.source_seen_nr, chosen.target_seen_mr
    if source is None or target is None:
        return None
    unmoved = source is found.domains.source_nd and target is found.domains.target_md
    return None if unmoved or not found.selection.adapts else (source, target)


def spread_rows(num_rows: int, most: int) -> NDArray[np.int64]:
    """Return places of rows drawn at random, in order; all of them where there are few."""
    return np.sort(np.random.default_rng(0).permutation(num_rows)[:most])


def _planes(
    found: Adaptation, stays: FittedCandidate, chosen: FittedCandidate, seen: tuple[Array, Array] | None
) -> tuple[DomainsInPlane, DomainsInPlane | None]:
    """Return the same rows before and after, the second picture turned like the first."""
    two = found.domains
    known = None if seen is None else chosen.source_seen_rows
    learnt = np.arange(len(two.source_nd)) if known is None else known
    rows = spread_rows(len(learnt), _MOST_DRAWN), spread_rows(len(two.target_md), _MOST_DRAWN)
    names = np.array([*found.classes, UNKNOWN], dtype=object)
    classes: list[str] = []
    if two.source.task is not None and two.source.targets is not None and len(found.classes):
        classes = [two.source.task.classes[int(place)] for place in two.source.targets[learnt[rows[0]]]]

    def plane(parts: tuple[Array, Array], fitted: FittedCandidate) -> DomainsInPlane:
        source, target, explained = plane_of(parts[0][rows[0]], parts[1][rows[1]])
        answers = list(names[fitted.target_answers_m[rows[1]]]) if len(found.classes) else []
        return DomainsInPlane(source, target, classes, answers, explained)

    whole = two.source_nd[learnt], two.target_md
    before = plane(whole, chosen if seen is None else stays)
    if seen is None:
        return before, None
    after = plane(seen, chosen)
    signs = turned_like(
        np.concatenate([after.source_n2, after.target_m2]), np.concatenate([before.source_n2, before.target_m2])
    )
    return before, replace(after, source_n2=after.source_n2 * signs, target_m2=after.target_m2 * signs)


def _gaps(
    source_nd: Array, target_md: Array, seen: tuple[Array, Array] | None, seed: int
) -> list[tuple[Measurement, Measurement | None]]:
    """Return each measure before and after; both on rows brought to one size, so that the figures compare."""
    before = _measured(source_nd, target_md, seed)
    after = [None] * len(before) if seen is None else _measured(*seen, seed)
    return [
        (first, second)
        for first, second in zip(before, after, strict=True)
        if first is not None and (seen is None or second is not None)
    ]


def _measured(source_nd: Array, target_md: Array, seed: int) -> list[Measurement | None]:
    parts = [
        np.asarray(part[spread_rows(len(part), _MOST_MEASURED)], dtype=np.float64) for part in (source_nd, target_md)
    ]
    pooled = np.concatenate(parts)
    size = float(np.sqrt(np.square(pooled - pooled.mean(axis=0)).sum(axis=1).mean())) or 1.0
    found: list[Measurement | None] = []
    for name in _MEASURES:
        try:
            found += measure_domains(parts[0] / size, parts[1] / size, names=[name], num_permutations=99, seed=seed)
        except HeadstartError:
            found.append(None)  # too few rows for this one
    return found


def answer_shifts(
    classes: Sequence[str], labels: Sequence[str | None] | None, answers: tuple[Array, Array]
) -> list[AnswerShift]:
    """Return answers given and answers right, class by class; classes the source lacks come last.

    Parameters
    ----------
    classes : sequence of str
        Of the source.
    labels : sequence of str or None, optional
        The target rows' own.
    answers : pair of int64 arrays of shape (m,)
        Class numbers before and after; the number of classes stands for "unknown".

    Examples
    --------
    >>> shifts = answer_shifts(["ant", "bee"], ["ant", "bee"], (np.array([0, 0]), np.array([0, 1])))
    >>> [(shift.name, shift.right_before, shift.right_after) for shift in shifts]
    [('ant', 1, 1), ('bee', 0, 1)]
    """
    truth = None if labels is None else np.asarray(labels, dtype=object)
    shifts = []
    for place, name in enumerate(classes):
        given = [answer == place for answer in answers]
        own = None if truth is None else truth == name
        shifts.append(
            AnswerShift(
                name,
                *(int(item.sum()) for item in given),
                *(() if own is None else (int(own.sum()), *(int((item & own).sum()) for item in given))),
            )
        )
    if truth is not None:
        others = sorted(set(truth.tolist()) - {None, *classes})
        kept = [answer == len(classes) for answer in answers]  # "unknown" is right there
        shifts += [
            AnswerShift(name, 0, 0, int(own.sum()), *(int((item & own).sum()) for item in kept))
            for name in others
            for own in [truth == name]
        ]
    return shifts


def changed_examples(
    rows: Dataset,
    classes: Sequence[str],
    labels: Sequence[str | None] | None,
    answers: tuple[Array, Array],
    scores: tuple[Array, Array],
) -> list[RowExample]:
    """Return changed rows on which the two disagree most, the new classes taking turns.

    Parameters
    ----------
    rows : Dataset
        The target's.
    classes, labels, answers
        As for `answer_shifts`.
    scores : pair of arrays of shape (m, k)
        Probabilities before and after.
    """
    before, after = scores
    names = (*classes, UNKNOWN)
    differ = np.abs(after - before).max(axis=1)
    changed = np.flatnonzero(answers[0] != answers[1])
    changed = changed[np.argsort(-differ[changed], kind="stable")]
    turn: dict[int, int] = {}
    order = []
    for row in changed:
        turn[int(answers[1][row])] = place = turn.get(int(answers[1][row]), -1) + 1
        order.append((place, int(row)))
    shown = [row for _, row in sorted(order, key=lambda item: item[0])[:_MOST_EXAMPLES]]
    return [
        row_example(
            rows,
            row,
            names[answers[0][row]],
            names[answers[1][row]],
            float(after[row].max()),
            "" if labels is None or labels[row] is None else f"labelled {labels[row]}",
        )
        for row in shown
    ]
