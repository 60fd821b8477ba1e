"""The answers a model has to beat on the same sealed rows, and a memo of the costly one.

The from-scratch network's answers depend on its architecture, the rows, the split, the seed and its budget, so they are kept
beside the feature cache: a repeat with the same rows (and no larger budget) reads them instead of training again.
"""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.core.digests import digest_array, digest_json, digest_many
from headstart.core.files import atomic_path
from headstart.core.places import cache_folder
from headstart.core.preprocessing import ImageTransform
from headstart.core.progress import Progress
from headstart.data import Dataset
from headstart.evaluation import RawBaseline, majority_scores
from headstart.methods import FromScratch
from headstart.report import TrainingCurves
from headstart.training import History

__all__ = ["BaselineScores", "majority_baseline", "raw_baseline", "scratch_baseline", "scratch_seconds"]

_LEAST, _MOST = 30.0, 120.0


@dataclass(frozen=True)
class BaselineScores:
    """Scores of one baseline on the test rows, how they came about, and what they cost."""

    name: str
    scores: NDArray[np.float64]
    trained: str
    budget: str = ""
    cpu_seconds: float = 0.0
    curves: TrainingCurves | None = None


def scratch_seconds(transfer_cpu_seconds: float) -> float:
    """Return the from-scratch budget: what the transfer run cost, at least 30 s and at most 2 minutes of CPU time.

    Examples
    --------
    >>> scratch_seconds(3.0), scratch_seconds(50.0), scratch_seconds(1000.0)
    (30.0, 50.0, 120.0)
    """
    return min(_MOST, max(_LEAST, transfer_cpu_seconds))


def majority_baseline(train: Dataset, num_rows: int) -> BaselineScores:
    """Return class shares (or the mean) of the training rows as the answer for every test row."""
    assert train.task is not None and train.targets is not None
    what = "the training rows' mean" if train.task.kind == "regression" else "the training rows' most common answer"
    return BaselineScores("majority", majority_scores(train.task, train.targets, num_rows), f"{what} for every row")


def raw_baseline(
    train: Dataset, test_rows: Dataset, groups: NDArray[Any] | None, seed: int, progress: Progress
) -> BaselineScores:
    """Return a linear model on the raw input."""
    with progress.stage("raw", len(train) + len(test_rows)) as stage:
        model = RawBaseline(seed).fit(train, groups)
        stage.advance(len(train))
        scores = model.scores(test_rows)
        stage.advance(len(test_rows))
    return BaselineScores("raw", scores, model.trained, "no limit", model.cpu_seconds)


def scratch_baseline(
    train: Dataset,
    test_rows: Dataset,
    backbone: Backbone,
    *,
    cpu_seconds: float,
    seed: int,
    wall_seconds: float = math.inf,
    runtime: str = "auto",
    memo: bool = True,
    progress: Progress,
) -> BaselineScores:
    """Return the same network trained from random weights; either budget may be infinite."""
    path = cache_folder() / "scratch" / f"{_key(train, test_rows, backbone, seed)}.npz"
    done = _read_memo(path, cpu_seconds) if memo else None
    if done is not None:
        with progress.stage("scratch", len(train)) as stage:
            stage.advance(len(train), from_cache=len(train))
    else:
        learner = FromScratch(cpu_seconds, seed, wall_seconds=wall_seconds)
        done = _train(learner, train, test_rows, backbone, runtime, progress)
        if memo:
            _write_memo(path, done)
    measure = "R2" if train.task is not None and train.task.kind == "regression" else "accuracy"
    curves = TrainingCurves(
        "from scratch",
        done.history.train_loss,
        done.history.validation_loss,
        done.history.train_measure,
        done.history.validation_measure,
        measure,
        step="check",
    )
    allowed = "until it stopped improving" if math.isinf(done.budget) else f"{done.budget:.0f} s of CPU time"
    return BaselineScores("scratch", done.scores, done.trained, allowed, done.history.cpu_seconds, curves)


@dataclass(frozen=True)
class _Done:
    """A finished from-scratch run: what the memo keeps."""

    scores: NDArray[np.float64]
    history: History
    budget: float
    trained: str


def _train(
    learner: FromScratch, train: Dataset, test_rows: Dataset, backbone: Backbone, runtime: str, progress: Progress
) -> _Done:
    model = learner.fit(train, backbone, progress=progress)
    scores = model.predict(test_rows, runtime=runtime, progress=Progress(quiet=True))
    transform = model.backbone.transform
    size = f" at {transform.width} x {transform.height} pixels" if isinstance(transform, ImageTransform) else ""
    trained = (
        f"{backbone.name} with random weights{size}, all parameters trained with AdamW for {model.history.epochs:.1f} "
        f"epochs ({model.history.steps:,} steps), best validated weights kept"
    )
    history = model.history
    cut = history.stopped == "budget" and history.cpu_seconds < learner.cpu_seconds  # the waiting time ran out first
    return _Done(scores, history, history.cpu_seconds if cut else learner.cpu_seconds, trained)


def _key(train: Dataset, test_rows: Dataset, backbone: Backbone, seed: int) -> str:
    assert train.task is not None and train.targets is not None
    spec = backbone.spec()
    import torch

    parts = {
        "architecture": spec["architecture"],
        "transform": backbone.transform.to_dict(),
        "task": train.task.to_dict(),
        "train": digest_many(train.digests()),
        "targets": digest_array(train.targets),
        "test": digest_many(test_rows.digests()),
        "seed": seed,
        "torch": torch.__version__,
    }
    return digest_json(parts)


def _write_memo(path: Path, done: _Done) -> None:
    budget = None if math.isinf(done.budget) else done.budget
    about = json.dumps({"history": asdict(done.history), "budget": budget, "trained": done.trained})
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, scores=done.scores, about=np.frombuffer(about.encode(), np.uint8))
    except OSError:
        return  # a full disk costs the memo, not the run


def _read_memo(path: Path, wanted: float) -> _Done | None:
    """Return a finished run that was allowed at least ``wanted`` seconds, None where there is none that can be read."""
    try:
        with np.load(path, allow_pickle=False) as memo:
            about = json.loads(memo["about"].tobytes())
            budget = math.inf if about["budget"] is None else float(about["budget"])
            done = _Done(
                np.asarray(memo["scores"], np.float64), History(**about["history"]), budget, str(about["trained"])
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    return done if budget >= wanted else None
