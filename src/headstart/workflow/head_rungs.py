"""Rungs 1 and 2: a frozen base model, features extracted once, a solved head; the next base models the same way."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.core.errors import BackboneError
from headstart.core.preprocessing import View
from headstart.data import Dataset
from headstart.features import Features, FeatureStore, extract_features
from headstart.heads import LinearHead
from headstart.methods import FeatureExtraction
from headstart.metrics import compute_metrics
from headstart.model import Model
from headstart.report.rungs import short_name
from headstart.workflow.examples import held_out_scores
from headstart.workflow.expectation import Expectation, base_model_gain
from headstart.workflow.ladder import Needs, Standing, Tried
from headstart.workflow.limits import Limits, estimate_size, measure_latency, resident_memory

__all__ = ["HeadRung", "HeadSettings", "LostRows", "base_model_needs"]

_BATCH_BYTES = 200 << 20  # decoded pictures and activations of the batches on their way


@dataclass(frozen=True)
class HeadSettings:
    """What every head of a run has in common."""

    train: Dataset
    method: FeatureExtraction
    views: tuple[View, ...]
    runtime: str
    groups: NDArray[np.int64] | None = None
    store: FeatureStore | bool | None = None
    limits: Limits = field(default_factory=Limits)


class LostRows(Exception):
    """Training rows that passed the check and then could not be read; ``kept`` are the others."""

    def __init__(self, features: Features) -> None:
        super().__init__("training rows were lost")
        self.kept, self.failures = features.kept, features.failures


@dataclass
class HeadRung:
    """A solved head on one base model.

    Parameters
    ----------
    candidate : Backbone
        The base model.
    settings : HeadSettings
        What all heads share.
    first : bool
        Whether it is the first rung; the others are "base-model" rungs.
    success : dict of str to array
        For each ranked base model how well its probe did on each ranking row.
    seed : int
        Draws of the expectation.
    """

    candidate: Backbone
    settings: HeadSettings
    first: bool = True
    success: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    seed: int = 0
    forced: bool = False

    def __post_init__(self) -> None:
        self.name = "head" if self.first else "base-model"
        self.title = f"solved head on {short_name(self.candidate.name)}"
        self.backbone = self.candidate.name

    def expect(self, standing: Standing) -> Expectation:
        """Return what the bootstrap of the ranking says."""
        assert standing.best is not None
        best, other = self.success.get(standing.best.backbone), self.success.get(self.backbone)
        if best is None or other is None:
            return Expectation(0.0, "it could not be ranked")
        return base_model_gain(standing.judging.metric, standing.value, best, other, self.seed)

    def needs(self, standing: Standing) -> Needs:
        """Return its size and memory; time only as far as the ranking told it."""
        return base_model_needs(self.candidate, self.settings)

    def run(self, standing: Standing) -> Tried:
        """Extract, solve, and hand out the held-out predictions of the judging rows."""
        settings, progress = self.settings, standing.progress
        features = extract_features(
            settings.train,
            self.candidate,
            views=settings.views,
            store=settings.store,
            runtime=settings.runtime,
            progress=progress,
        )
        _same_rows(features, len(settings.train), self.backbone, self.first)
        task, targets = settings.train.task, settings.train.targets
        assert task is not None and targets is not None
        groups = settings.groups
        with progress.stage("head", len(targets)) as stage:
            model = settings.method.fit(self.candidate, features, targets, task, groups=groups)
            stage.advance(len(targets))
            stage.note = str(model.head.report.get("why", ""))
        assert isinstance(model.head, LinearHead)
        scores = held_out_scores(model.head, len(targets))
        everything = compute_metrics(task, targets, scores)
        metric = standing.judging.metric
        limits = settings.limits
        return Tried(
            model,
            scores[standing.judging.rows],
            self.backbone,
            everything,
            features=features,
            held_out=everything.get(metric),
            size=estimate_size(self.candidate, task.num_outputs, len(targets)),
            latency=measure_latency(model, settings.train) if np.isfinite(limits.latency) else None,
            settings={"head": model.head.kind, "penalty": model.head.report.get("penalty")},
        )


def base_model_needs(backbone: Backbone, settings: HeadSettings) -> Needs:
    """Return what a frozen base model and its head need."""
    if not settings.limits:
        return Needs()
    task = settings.train.task
    assert task is not None
    size = estimate_size(backbone, task.num_outputs, len(settings.train))
    memory = resident_memory() + 2.0 * size + (0 if backbone.modality == "vector" else _BATCH_BYTES)
    latency = None
    if np.isfinite(settings.limits.latency):
        latency = measure_latency(_bare(backbone, settings), settings.train)
    return Needs(0.0, size, memory, latency)


def _bare(backbone: Backbone, settings: HeadSettings) -> Model:
    """Return the network with a head of zeros: as slow as the real one."""
    from headstart.heads import RidgeHead

    task = settings.train.task
    assert task is not None
    head = RidgeHead()
    head.task, head.temperature = task, 1.0
    head.weight = np.zeros((task.num_outputs, backbone.width), np.float32)
    head.bias = np.zeros(task.num_outputs, np.float32)
    return Model(backbone, head, task, views=settings.views)


def _same_rows(features: Features, num_rows: int, name: str, first: bool) -> None:
    """Rungs are judged on the same rows: the first base model settles which can be read, another that reads fewer is refused."""
    if len(features.kept) == num_rows:
        return
    if first:
        raise LostRows(features)
    raise BackboneError(f"{name}: reads {len(features.kept)} rows where the first base model read {num_rows}.")
