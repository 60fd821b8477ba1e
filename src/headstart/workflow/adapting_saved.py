"""`adapt` on a saved model: its training rows are gone, target rows without labels adapt it, "do not adapt" stands beside.

    answers as it is -> each method that was named -> who is delivered -> labels that came with the target, opened once
    one method          it is delivered, because it was asked for; nobody has compared it with not adapting
    several             all are reported and the model stays as it is: nothing honest tells which of them helps
    few labelled rows   choose, five of every class or ten numbers: a method has to beat "do not adapt" beyond chance

Rules that need no source row judge by how sure answers are, which these methods raise by design; so none is asked. No method here
learns from labelled target rows, so each answers all of them.
Shapes: m target rows, l labelled target rows, d features, k classes.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import ConfigError
from headstart.core.progress import Progress
from headstart.evaluation.selection import (
    CandidateEvidence,
    FailedCandidate,
    Score,
    Selection,
    ValueEvidence,
    select,
)
from headstart.features import FeatureStore
from headstart.model import Model, find_model, load_model
from headstart.report import Cost
from headstart.report.adapted import AdaptedLine
from headstart.workflow.adaptation_folder import check_folder
from headstart.workflow.adaptations import NO_ADAPTATION
from headstart.workflow.domains import as_sources, places_of, title_of
from headstart.workflow.few_choice import FewLabelTest, FewValueTest
from headstart.workflow.few_rows import FewRows, class_numbers, refuse_shared
from headstart.workflow.saved_adaptation import SavedAdaptation, write_saved
from headstart.workflow.saved_candidates import (
    Answered,
    SavedCandidate,
    SavedTarget,
    check_kind,
    labelled_rows,
    open_target,
    read_methods,
    try_methods,
)
from headstart.workflow.target_truth import measure_answers

__all__ = ["adapt_saved", "saved_source"]

Array = NDArray[Any]
_AS_IT_WAS = "the model as it was"
_COLUMNS = {"text", "image", "label", "task"}
_STATISTICS = {"adabn", "tent", "eata"}
_TRAINED = ("fine-tuned from", "adapted")  # how the origin of a base model begins that learned from a task's rows
_REFUSED = {
    "objectives": "a joint loss reads source rows with labels",
    "strategy": "stages of a base model train on source rows with labels",
    "rule": "rules judge by source rows with labels, or by how sure answers are, which these methods raise by design",
    "budget": "each method takes one pass over the rows or about fifty steps; name fewer methods for less time",
    "backbones": "the model has its own base model",
    "labels": "labels of source rows have no rows to stand with",
}


def saved_source(source: Any) -> Model | Path | None:
    """Return the saved model that stands in the place of a source, or its folder; None where it is rows.

    Raises
    ------
    ConfigError
        If it stands among several sources.

    Examples
    --------
    >>> saved_source([[1.0], [2.0]]) is None
    True
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, list | tuple):
        wholes = as_sources(source)
        if any(isinstance(one, Model) or (len(wholes) > 1 and find_model(one) is not None) for one in source):
            raise ConfigError(
                "adapt: a saved model is adapted by itself, and one of the sources is one; give it alone, or only labelled rows."
            )
        return None
    return find_model(source)


def adapt_saved(
    source: Model | Path,
    target: Any,
    *,
    methods: Sequence[str] = (),
    few: Any = None,
    few_labels: Any = None,
    target_labels: Any = None,
    options: Mapping[str, Any] | None = None,
    columns: Mapping[str, Any] | None = None,
    runtime: str = "auto",
    seed: int = 0,
    out: str | Path | None = None,
    store: FeatureStore | bool | None = None,
    progress: Progress | None = None,
) -> SavedAdaptation:
    """Adapt a saved model to target rows.

    Parameters
    ----------
    source : Model or Path
        The model, its folder, or a run's folder.
    target, few, few_labels, target_labels, columns, runtime, seed, out, store, progress
        As for `adapt`.
    methods : sequence of str
        Of the catalog's kind "test-time".
    options : mapping
        What else `adapt` was told; anything but None or nothing is refused by name.

    Raises
    ------
    HeadstartError
        If options, names, rows or the model will not do.
    """
    progress = progress or Progress()
    wall_started, cpu_started = time.perf_counter(), time.process_time()
    _refuse(options or {})
    given = _columns(columns or {})
    names = read_methods(methods)
    folder = None if out is None else check_folder(Path(out))
    model = source if isinstance(source, Model) else load_model(source)
    if given.pop("task", model.task.kind) not in {model.task.kind, "auto"}:
        raise ConfigError(f"adapt: the model answers {model.task.kind}, whatever the task is called; leave --task out.")
    opened = open_target(model, target, target_labels, given, runtime=runtime, store=store, progress=progress)
    known = None if few is None else _open_few(model, few, few_labels, given, opened, store)
    candidates = try_methods(model, opened, names, seed=seed, store=store, progress=progress)
    selection, rule = _choose(candidates, model, known, opened.features.runtime.label, progress)
    answered = {item.name: item.found for item in candidates if item.found is not None}
    hindsight, measured, truth = measure_answers(
        opened.truth, opened.truth_rows, len(opened.rows), answered, selection, model.task, seed, _AS_IT_WAS
    )
    stays = answered[NO_ADAPTATION]
    found = SavedAdaptation(
        selection=selection,
        lines=tuple(_line(item, stays, selection, measured.get(item.name, {})) for item in candidates),
        given=model,
        target=opened,
        candidates=tuple(candidates),
        rule=rule,
        hindsight=hindsight,
        truth=truth,
        names=(_name(source, model), title_of(target, "target")),
        command=_command(source, model, target, few, names, given, runtime, seed, folder),
        cost=Cost(time.process_time() - cpu_started, time.perf_counter() - wall_started, opened.features.from_cache),
        folder=folder,
        num_few=0 if known is None else len(known),
    )
    if folder is not None:
        write_saved(found, folder)
    return found


def _refuse(options: Mapping[str, Any]) -> None:
    """Refuse options that mean nothing without source rows."""
    for name, value in options.items():
        if value is not None and (not hasattr(value, "__len__") or len(value)):
            option = f"--{name.removesuffix('s') if name == 'backbones' else name}"
            raise ConfigError(
                f"adapt: {option} is not for a saved model: {_REFUSED[name]}. Leave it out, or give labelled source rows in the "
                "place of the model."
            )


def _columns(columns: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in columns.items() if value is not None}
    if unknown := sorted(set(given) - _COLUMNS):
        raise ConfigError(f"adapt: there is no option {unknown[0]!r}.")
    return given


def _open_few(
    model: Model,
    few: Any,
    labels: Any,
    columns: Mapping[str, Any],
    target: SavedTarget,
    store: FeatureStore | bool | None,
) -> FewRows:
    """Open labelled target rows as the model reads them, with class numbers as it has them."""
    if model.task.kind == "multilabel":
        raise ConfigError(
            "adapt: few labelled rows choose for one class or one number a row; this model gives several labels. Leave --few out."
        )
    rows = check_kind(model, labelled_rows(model, few, labels, columns))
    assert rows.targets is not None
    classes = model.task.classes
    values = class_numbers(rows, classes) if classes else np.asarray(rows.targets, np.float64)
    found = model.features(rows.unlabelled(), runtime=target.features.runtime.label, store=store)
    kept, values = rows.subset(found.kept), values[found.kept]
    if target.truth is not None:
        refuse_shared(kept, target.rows)
    plain = found.values_nd if found.values_nd.ndim == 2 else found.values_nd[:, 0]
    return FewRows(kept.relabelled(model.task, values), values, plain, plain)


def _choose(
    candidates: Sequence[SavedCandidate], model: Model, few: FewRows | None, runtime: str, progress: Progress
) -> tuple[Selection, FewLabelTest | None]:
    """Return who is delivered, and the rule by which labelled target rows have said so, where they have."""
    why_not = "" if few is None else few.too_few(model.task.classes)
    if few is not None and not why_not:
        rule = (_FewLabels if few.has_classes else _FewValues)(few.labels_l, _answers_of_few(candidates, few, runtime))
        evidence = {item.name: _evidence(item, few.has_classes) for item in candidates}
        selection = select(evidence, rule, no_adaptation=NO_ADAPTATION)
        progress.say(f"selected by {len(few)} labelled target rows: {selection.chosen}")
        return selection, rule
    if why_not:
        progress.say(f"labelled target rows do not choose: {why_not}")
    named = [item.name for item in candidates[1:]]
    if len(named) == 1:
        chosen = named[0]
        reason = (
            f"{chosen} was asked for; without labelled target rows (--few) nobody has compared it with not adapting."
            f"{_caution(chosen, model)}"
        )
    else:
        chosen = NO_ADAPTATION
        reason = (
            f"None of {', '.join(named)} was chosen: without source rows nothing tells which of them helps. Name one, or let a "
            "few labelled target rows choose (--few)."
        )
    scores = {item.name: Score(math.nan, item.reason) for item in candidates}
    return Selection(chosen, reason, scores, "", NO_ADAPTATION, 0.0), None


def _caution(name: str, model: Model) -> str:
    """Return what to know of methods that replace statistics where the base model did not learn from the source."""
    if name not in _STATISTICS or model.backbone.origin.startswith(_TRAINED):
        return ""
    return (
        f" Its base model learned nothing from the training rows and has the statistics of pretraining, by which the head was "
        f"solved; {name} replaces them, which has cost such models tens of points. moments leaves the network as it is."
    )


class _FewLabels(FewLabelTest):
    """The same of candidates none of which learns from labelled rows, so that there are no folds."""

    facts = replace(FewLabelTest.facts, title="labelled target rows")
    name = FewLabelTest.__name__


class _FewValues(FewValueTest):
    """Likewise for numbers."""

    facts = replace(FewValueTest.facts, title="labelled target rows")
    name = FewValueTest.__name__


def _answers_of_few(candidates: Sequence[SavedCandidate], few: FewRows, runtime: str) -> dict[str, Array | str]:
    """Return what each candidate says of the labelled target rows."""
    rows = few.rows.unlabelled()
    return {
        item.name: item.found.model.predict(rows, store=False, runtime=runtime).scores
        for item in candidates
        if item.found is not None
    }


def _evidence(item: SavedCandidate, has_classes: bool) -> CandidateEvidence | ValueEvidence | FailedCandidate:
    if item.found is None:
        return FailedCandidate(item.reason)
    scores = item.found.target_scores
    return CandidateEvidence(target_probabilities_mk=scores) if has_classes else ValueEvidence(target_values_m=scores)


def _line(item: SavedCandidate, stays: Answered, selection: Selection, measured: dict[str, Any]) -> AdaptedLine:
    score, found = selection.scores[item.name], item.found
    changed = None if found is None else found.changed(stays)
    return AdaptedLine(
        item.name,
        score.value if score.is_judged else None,
        item.reason,
        None if changed is None else changed / max(1, len(stays.predictions)),
        item.cpu_seconds,
        next(iter(measured.values()), None),
        dict(list(measured.items())[1:]),
        None if found is None else found.entropy,
        None if found is None else found.unlike,
    )


def _name(source: Model | Path, model: Model) -> str:
    """Return what the model is called: its run's or its own folder."""
    folder = source if isinstance(source, Path) else model.folder
    if folder is None:
        return "the model"
    folder = Path(folder).resolve()
    return (folder.parent if folder.name == "model" else folder).name


def _command(
    source: Model | Path,
    model: Model,
    target: Any,
    few: Any,
    methods: Sequence[str],
    columns: Mapping[str, Any],
    runtime: str,
    seed: int,
    folder: Path | None,
) -> str:
    """Return the command line that repeats this; what is in memory is named as what it is."""
    path = source if isinstance(source, Path) else model.folder
    options = {
        "method": ",".join(methods),
        "few": "" if few is None else " ".join(places_of(few)),
        **columns,
        "runtime": "" if runtime == "auto" else runtime,
        "seed": str(seed or ""),
        "out": "" if folder is None else str(folder),
    }
    words = ["MODEL" if path is None else str(path), *places_of(target)]
    for name, value in options.items():
        words += [f"--{name}", str(value)] if value else []
    return f"headstart adapt {shlex.join(words)}"
