"""Which base model suits some rows: every candidate embeds the same subset, every score judges it, cost stands beside.

The order is that of the leave-one-out linear probe (accuracy, mean per-label accuracy, or R2); how sure it is comes from
bootstrap draws of the rows, in which candidates are compared on the same draw. The other scores are columns.
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
from headstart.core.errors import HeadstartError
from headstart.core.progress import Progress
from headstart.core.seeds import generator
from headstart.core.tasks import Task
from headstart.data import Dataset, check_dataset
from headstart.features import Features, FeatureStore, extract_features
from headstart.heads import RidgeHead
from headstart.report import Candidate, Cost, RankData, RuntimeSummary, write_rank_report
from headstart.transferability import h_score, leep, logme, nce, transrate
from headstart.workflow.candidates import open_candidates, stratified_rows
from headstart.workflow.preflight import open_labelled
from headstart.workflow.versions import now, versions

__all__ = ["Ranking", "Scored", "rank", "rank_backbones", "score_features"]

SCORE = "probe"


@dataclass(frozen=True)
class Scored:
    """One candidate with its scores, and for each row how well its held-out prediction did."""

    backbone: Backbone
    candidate: Candidate
    success_n: NDArray[np.float64]
    features: Features


@dataclass(frozen=True)
class Ranking:
    """Base models, best first; printing it prints the table.

    Parameters
    ----------
    data : RankData
        What the page shows.
    folder : Path, optional
        Where ``rank.html`` and ``rank.json`` were written.
    """

    data: RankData
    folder: Path | None = None

    @property
    def best(self) -> str:
        """Name of the first base model."""
        return self.data.candidates[0].backbone

    def __str__(self) -> str:
        from headstart.workflow.tables import rank_table

        return rank_table(self.data)


def rank(
    source: Any,
    *,
    text: str | None = None,
    image: str | None = None,
    label: str | None = None,
    task: str = "auto",
    backbones: Sequence[str | Path | Backbone] = (),
    rows: int = 500,
    runtime: str = "auto",
    seed: int = 0,
    out: str | Path | None = None,
    store: FeatureStore | bool | None = None,
    progress: Progress | None = None,
    **more: Any,
) -> Ranking:
    """Rank base models on your rows without training any.

    Parameters
    ----------
    source, text, image, label, task
        The labelled rows, as for `open_dataset`. Rows of a given test part are not looked at.
    backbones : sequence, optional
        Names, paths or Backbones; all that are at hand when left out.
    rows : int
        Size of the stratified subset that is embedded.
    runtime : str
        ``"auto"`` or a runtime's label.
    seed : int
        Subset and bootstrap.
    out : path, optional
        Folder for ``rank.html`` and ``rank.json``; nothing is written when left out.
    store : FeatureStore or bool, optional
        Feature cache.
    progress : Progress, optional
        Where the lines go.
    **more
        Further arguments of `open_dataset`: ``group``, ``split``, ``labels``, ...

    Returns
    -------
    Ranking
    """
    from headstart.workflow.config import FitConfig

    progress = progress or Progress()
    started, cpu_started = time.perf_counter(), time.process_time()
    columns = FitConfig(text=text, image=image, label=label, task=task).columns
    dataset = open_labelled("rank", source, **columns, **more)
    if dataset.given_split is not None and (dataset.given_split == "train").any():
        dataset = dataset.subset(dataset.given_split != "test")
    assert dataset.task is not None and dataset.targets is not None
    subset = dataset.subset(stratified_rows(dataset.targets, dataset.task, rows, seed))
    subset = check_dataset(subset, near=False, progress=progress).clean(subset)
    opened, left_out = open_candidates("rank", backbones, subset, progress)
    scored, failed = rank_backbones(opened, subset, runtime=runtime, seed=seed, store=store, progress=progress)
    candidates = [item.candidate for item in scored] + [
        Candidate(name, note=reason) for name, reason in (left_out | failed).items()
    ]
    data = RankData(
        title=Path(dataset.root).name or "data",
        task=dataset.task,
        modality=dataset.modality,
        rows=len(subset),
        candidates=candidates,
        score_name=SCORE,
        order_confidence=scored[0].candidate.share_best if scored else None,
        cost=Cost(
            time.process_time() - cpu_started, time.perf_counter() - started, sum(c.from_cache for c in progress.costs)
        ),
        runtime=runtime_summary(scored[0].features) if scored else None,
        versions=versions(),
        command=f"headstart rank {dataset.root}",
        created=now(),
    )
    folder = None if out is None else Path(out)
    if folder is not None:
        write_rank_report(data, folder)
    return Ranking(data, folder)


def rank_backbones(
    backbones: Sequence[Backbone],
    rows: Dataset,
    *,
    runtime: str = "auto",
    seed: int = 0,
    store: FeatureStore | bool | None = None,
    progress: Progress,
) -> tuple[list[Scored], dict[str, str]]:
    """Return candidates with scores, best first, and the reason for each that failed. Rows are labelled."""
    embedded: list[tuple[Backbone, Features]] = []
    failed: dict[str, str] = {}
    for backbone in backbones:
        progress.say(f"base model {backbone.name}")
        try:
            embedded.append(
                (backbone, extract_features(rows, backbone, store=store, runtime=runtime, progress=progress))
            )
        except HeadstartError as error:
            if len(backbones) == 1:
                raise
            failed[backbone.name] = str(error)
            progress.say(f"left out: {backbone.name}: {error}")
    scored = []
    with progress.stage("rank", len(rows) * len(embedded)) as stage:
        for backbone, features in embedded:
            scored.append(score_features(backbone, features, rows))
            stage.advance(len(rows))
    return _order(scored, seed), failed


def score_features(backbone: Backbone, features: Features, rows: Dataset) -> Scored:
    """Return every transferability score of one candidate on labelled rows."""
    started = time.process_time()
    assert rows.task is not None and rows.targets is not None
    task, targets = rows.task, rows.targets[features.kept]
    values_nd = features.values_nd if features.values_nd.ndim == 2 else features.values_nd[:, 0]
    head = RidgeHead().fit(values_nd, targets, task)
    assert head.validation_predictions is not None
    success_n = _success(task, targets, head.validation_predictions)
    scores = {SCORE: float(success_n.mean())}
    if task.kind == "classification":
        scores |= {"logme": logme(values_nd, targets), "h_score": h_score(values_nd, targets)}
        scores["transrate"] = transrate(values_nd, targets)
        probabilities_nz = _source_probabilities(backbone, values_nd)
        if probabilities_nz is not None:
            scores |= {"leep": leep(probabilities_nz, targets), "nce": nce(probabilities_nz.argmax(1), targets)}
    elif task.kind == "regression":
        scores["logme"] = logme(values_nd, targets)
    spent = time.process_time() - started
    info = backbone.info
    candidate = Candidate(
        backbone.name,
        scores=scores,
        score=scores[SCORE],
        probe_accuracy=scores[SCORE],
        cpu_seconds=features.cpu_seconds + spent,
        size_bytes=info.size_bytes,
        parameters=info.parameters,
        multiply_adds=info.multiply_adds,
        licence=info.licence,
    )
    return Scored(backbone, candidate, success_n, features)


def _order(scored: list[Scored], seed: int) -> list[Scored]:
    """Sort by score, with intervals and the share of draws in which each comes first."""
    if not scored:
        return []
    num_rows = min(len(item.success_n) for item in scored)
    if any(len(item.success_n) != num_rows for item in scored):
        return sorted(scored, key=lambda item: -(item.candidate.score or 0.0))
    success_nc = np.column_stack([item.success_n for item in scored])
    weights_bn = generator(seed, "rank").multinomial(num_rows, np.full(num_rows, 1 / num_rows), size=1000) / num_rows
    draws_bc = weights_bn @ success_nc
    first_b = draws_bc.argmax(1)
    low_c, high_c = np.quantile(draws_bc, [0.025, 0.975], axis=0)
    ranked = [
        replace(
            item,
            candidate=replace(
                item.candidate,
                low=min(float(low_c[c]), item.candidate.score or 0.0),
                high=max(float(high_c[c]), item.candidate.score or 0.0),
                share_best=float(np.mean(first_b == c)),
            ),
        )
        for c, item in enumerate(scored)
    ]
    return sorted(ranked, key=lambda item: -(item.candidate.score or 0.0))


def _success(task: Task, targets: NDArray[Any], held_out: NDArray[Any]) -> NDArray[np.float64]:
    """Return for each row: right or wrong, the share of labels right, or its share of R2; the mean is the score."""
    if task.kind == "classification":
        return np.asarray(held_out.argmax(1) == targets, np.float64)
    if task.kind == "multilabel":
        return np.asarray(((held_out >= 0.5) == targets).mean(1), np.float64)
    spread = float(np.var(targets)) or 1.0
    return np.asarray(1 - (held_out - targets) ** 2 / spread, np.float64)


def _source_probabilities(backbone: Backbone, values_nd: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """Return what the source task's own classifier says of the rows, where the backbone still has it."""
    if backbone.source_head is None:
        return None
    import torch

    with torch.no_grad():
        return np.asarray(torch.softmax(backbone.source_head(torch.from_numpy(values_nd)).double(), 1).numpy())


def runtime_summary(features: Features) -> RuntimeSummary:
    """Return where the network ran, for the report."""
    choice = features.choice
    if choice is None:
        return RuntimeSummary(features.runtime.label)
    return RuntimeSummary(
        features.runtime.label, choice.timings, cosine=choice.cosine, relative_error=choice.relative_error
    )
