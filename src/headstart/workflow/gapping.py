"""`gap`: how far apart two domains are, what kind of gap it is, which rows carry it, and what that suggests.

    open and embed both -> evidence -> diagnosis in words -> every measure with its p-value -> page

Labels of the source, where there are any, tell label shift from covariate shift; those of the target are never read.
Shapes: n source rows, m target rows, d features.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.catalog import entries, find
from headstart.core.errors import HeadstartError
from headstart.core.progress import Progress
from headstart.distances import MEASURES, Measurement, measure_domains
from headstart.distances.diagnosis import Diagnosis, inspect_gap
from headstart.features import FeatureStore
from headstart.report import Cost, GapData, write_gap_report
from headstart.workflow.domains import TwoDomains, open_two_domains, places_of, title_of
from headstart.workflow.examples import row_example
from headstart.workflow.planes import plane_of
from headstart.workflow.ranking import runtime_summary
from headstart.workflow.versions import now, versions

__all__ = ["Gap", "diagnose_domains", "gap"]

_MOST_LABELS = 100
_MOST_FEATURES_FOR_DENSITIES = 20
_SHOWN = 12
_ADVICE = {
    "do-not-adapt": "use the source model as it is",
    "em-priors": "correct the answers for the target's class shares (headstart.distances.em_priors)",
    "label-some-novel-rows": "label some of the rows that are unlike the source: they may be new classes",
    "label-some-target-rows": "a few labelled target rows say more than any alignment",
    "reject-novel-rows": "leave rows unlike the training rows unanswered",
}


@dataclass(frozen=True)
class Gap:
    """What `gap` found; printing it prints the diagnosis and the table.

    Parameters
    ----------
    data : GapData
        What the page shows.
    folder : Path, optional
        Where ``gap.html`` and ``gap.json`` were written.
    """

    data: GapData
    folder: Path | None = None

    @property
    def diagnosis(self) -> Diagnosis:
        """What the gap is."""
        return self.data.diagnosis

    def __str__(self) -> str:
        from headstart.workflow.tables import text_table

        found = self.data.diagnosis
        rows = [
            [
                item.name,
                f"{item.value:.4g}",
                f"{item.low:.3g} to {item.high:.3g}" if np.isfinite([item.low, item.high]).all() else "",
                "" if item.p_value is None else f"{item.p_value:.3f}",
                item.unit,
            ]
            for item in found.measurements
        ]
        tries = [f"  {place}. {name}: {about}" for place, (name, about) in enumerate(self.data.suggestions, 1)]
        rows_named = [
            f"{which} rows of highest leverage: {', '.join(item.row for item in shown[:5])}"
            for which, shown in (("target", self.data.target_examples), ("source", self.data.source_examples))
            if shown and found.kind != "no shift"
        ]
        table = text_table(["measure", "value", "95 % interval", "p", "unit"], rows)
        return "\n".join([found.text, "", table, "", "What to try:", *tries, *rows_named])


def gap(
    source: Any,
    target: Any,
    *,
    labels: Any = None,
    measures: Sequence[str] | None = None,
    backbones: Sequence[str | Path | Backbone] = (),
    runtime: str = "auto",
    seed: int = 0,
    out: str | Path | None = None,
    store: FeatureStore | bool | None = None,
    progress: Progress | None = None,
    **columns: str | None,
) -> Gap:
    """Measure the gap between two domains and say what it means.

    Parameters
    ----------
    source, target : path, DataFrame, array, list or Dataset
        Rows of both domains, in any form `open_dataset` takes. Labels of the source help; those of the target are not read.
    labels : sequence, optional
        Labels of the source rows, for arrays and lists.
    measures : sequence of str, optional
        Which to print, by their names in the catalog; all that compare features when left out.
    backbones, runtime, store
        The base model that embeds both domains, as for `rank`.
    seed : int
        Of folds, permutations and draws.
    out : path, optional
        Folder for gap.html and gap.json.
    progress : Progress, optional
        Where the lines go.
    **columns : str, optional
        Columns of tables: ``text``, ``image``, ``label``, as for `open_dataset`.

    Returns
    -------
    Gap

    Raises
    ------
    HeadstartError
        If the rows cannot be opened or compared, or there is no such measure.

    Examples
    --------
    >>> rows = np.random.default_rng(0).normal(size=(200, 3))
    >>> found = gap(rows[:100], rows[100:], measures=["energy"], progress=Progress(quiet=True))
    >>> found.diagnosis.kind
    'no shift'
    """
    progress = progress or Progress()
    started, cpu_started = time.perf_counter(), time.process_time()
    for name in measures or ():
        find(name, "distance")
    two = open_two_domains(
        "gap",
        source,
        target,
        labelled=False,
        columns=columns,
        labels=labels,
        backbones=backbones,
        runtime=runtime,
        store=store,
        progress=progress,
    )
    is_vector = two.source.modality == "vector"
    with progress.stage("gap", len(two.source_nd) + len(two.target_md)) as stage:
        found, notes = diagnose_domains(two, seed=seed)
        names = measures if measures is not None else _measures(two.source_nd.shape[1])
        found = replace(found, measurements=_measurements(found, two, names, seed))
        stage.advance(len(two.source_nd) + len(two.target_md))
    source_n2, target_m2, explained = plane_of(two.source_nd, two.target_md)
    data = GapData(
        source=title_of(source, "source"),
        target=title_of(target, "target"),
        source_rows=len(two.source),
        target_rows=len(two.target),
        modality=two.source.modality,
        diagnosis=found,
        suggestions=_suggestions(found),
        source_n2=source_n2,
        target_m2=target_m2,
        explained=explained,
        source_examples=[row_example(two.source, place) for place in found.unlike_target_rows[:_SHOWN]],
        target_examples=[row_example(two.target, place) for place in found.unlike_source_rows[:_SHOWN]],
        backbone="" if is_vector else two.backbone.name,
        cost=Cost(
            time.process_time() - cpu_started,
            time.perf_counter() - started,
            sum(item.from_cache for item in two.features),
        ),
        runtime=None if is_vector else runtime_summary(two.features[0]),
        versions=versions(),
        command=f"headstart gap {' '.join([*places_of(source), *places_of(target)])}",
        created=now(),
        notes=(*two.notes, *notes, *(str(item) for item in two.findings)),
    )
    folder = None if out is None else Path(out)
    if folder is not None:
        write_gap_report(data, folder)
    return Gap(data, folder)


def diagnose_domains(two: TwoDomains, *, seed: int = 0, most_rows: int | None = None) -> tuple[Diagnosis, list[str]]:
    """Return what the gap between two domains is, and what could not be looked at.

    Parameters
    ----------
    two : TwoDomains
        The rows.
    seed : int
        Of folds, permutations and draws.
    most_rows : int, optional
        Rows of each domain that are looked at, drawn at random; all of them when left out.
    """
    labels, notes = _labels(two)
    draws = np.random.default_rng(seed)
    places = [np.sort(draws.permutation(len(part))[:most_rows]) for part in (two.source_nd, two.target_md)]
    found = inspect_gap(
        two.source_nd[places[0]],
        two.target_md[places[1]],
        source_labels_n=None if labels is None else labels[places[0]],
        metric="standardised" if two.source.modality == "vector" else "cosine",
        feature_names=two.feature_names,
        seed=seed,
    )
    return found, notes


def _labels(two: TwoDomains) -> tuple[NDArray[Any] | None, list[str]]:
    """Return class names of the source rows where there are some that can be used."""
    task, targets = two.source.task, two.source.targets
    if task is None or targets is None:
        return None, []
    if task.kind != "classification":
        return None, [f"the source's labels make a {task.kind} task: label shift was not looked for"]
    present = np.unique(targets)
    if not 2 <= len(present) <= _MOST_LABELS:
        return None, [f"the source has {len(present)} classes: label shift was not looked for"]
    return np.array(task.classes, dtype=object)[targets].astype(str), []


def _measures(width: int) -> list[str]:
    """Return the measures of two domains' features that are at hand; densities only of a few features."""
    wanted = {entry.name for entry in entries("distance") if entry.installed}
    if width > _MOST_FEATURES_FOR_DENSITIES:
        wanted -= {name for name in wanted if name.startswith(("kl-", "js-"))}
    return [name for name, entry in MEASURES.items() if entry.takes == "domains" and name in wanted]


def _measurements(found: Diagnosis, two: TwoDomains, names: Sequence[str], seed: int) -> tuple[Measurement, ...]:
    """Return those of the diagnosis and the others asked for; one that fails is left out."""
    known = {item.name: item for item in found.measurements}
    lines = list(found.measurements)
    for name in names:
        if name in known:
            continue
        try:
            lines += measure_domains(two.source_nd, two.target_md, names=[name], num_permutations=99, seed=seed)
        except HeadstartError as error:
            lines.append(
                Measurement(
                    name, float("nan"), float("nan"), float("nan"), None, "", MEASURES[name].meaning, str(error)
                )
            )
    return tuple(lines)


def _suggestions(found: Diagnosis) -> list[tuple[str, str]]:
    about = {entry.name: entry.summary for entry in entries("aligner")} | _ADVICE
    return [(name, about.get(name, "")) for name in found.suggestions]
