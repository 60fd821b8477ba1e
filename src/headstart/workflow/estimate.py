"""The plan and an estimated time, before the work begins, from a timed probe of two batches."""

from __future__ import annotations

import time
from collections.abc import Sequence

from headstart.backbones import Backbone
from headstart.core.preprocessing import View
from headstart.core.progress import Progress, format_seconds
from headstart.features import FeatureStore, extract_features
from headstart.workflow.config import FitConfig
from headstart.workflow.preflight import Prepared

__all__ = ["announce_plan"]

_BATCH = 16


def announce_plan(
    prepared: Prepared,
    backbone: Backbone,
    views: Sequence[View],
    config: FitConfig,
    store: FeatureStore | bool | None,
    progress: Progress,
) -> float:
    """Print what will be done and about how long it takes; return the estimate in seconds of wall-clock time.

    Two batches are decoded and embedded; the second is timed, so that start-up does not count for every row. Rows that
    are cached already cost next to nothing, and the probe finds that out by itself.
    """
    rows = len(prepared.train) + len(prepared.test_rows)
    plan = (
        f"plan: {backbone.name} frozen ({backbone.width} features a row), head {config.head}, scratch {config.scratch}"
    )
    if backbone.modality == "vector":
        progress.say(plan)
        return 0.0
    sample = prepared.train
    quiet = Progress(quiet=True)
    seconds = 0.0
    for start in (0, _BATCH):
        part = sample.subset(range(min(start, len(sample) - 1), min(start + _BATCH, len(sample))))
        started = time.perf_counter()
        extract_features(part, backbone, views=tuple(views), store=store, runtime=config.runtime, progress=quiet)
        seconds = (time.perf_counter() - started) / len(part)
    embedding = seconds * rows
    scratch = {"off": 0.0, "auto": 20.0 + min(100.0, embedding), "full": 600.0}[config.scratch]
    estimate = embedding + scratch + 2.0
    about = "at least " if config.scratch == "full" else "about "
    progress.say(f"{plan}; {about}{format_seconds(estimate)} for {rows:,} rows (embedding {format_seconds(embedding)})")
    return estimate
