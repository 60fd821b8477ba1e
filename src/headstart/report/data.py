"""Everything the report shows, as plain values: the workflow fills it, the page and the contract read it.

Whatever is empty or None leaves its section out of the page; nothing here computes.
Shapes: n test rows, k classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from headstart.core.progress import StageCost
from headstart.core.tasks import Modality, Task
from headstart.evaluation.learning_curve import CurvePoint
from headstart.evaluation.paired import PairedTest
from headstart.evaluation.protocol import Evaluation
from headstart.evaluation.verdict import Verdict

if TYPE_CHECKING:
    from headstart.data.findings import Finding
    from headstart.report.rungs import Climb

__all__ = [
    "Baseline",
    "Candidate",
    "Cost",
    "Goal",
    "HeadSummary",
    "NoveltySummary",
    "RankData",
    "ReportData",
    "RowCounts",
    "RowExample",
    "RuntimeSummary",
    "TrainingCurves",
]


@dataclass(frozen=True)
class RowCounts:
    """How many rows served which purpose. ``quarantined`` rows were left out, with a finding for each."""

    train: int
    validation: int = 0
    test: int = 0
    quarantined: int = 0

    @property
    def total(self) -> int:
        """All rows found, quarantined ones included."""
        return self.train + self.validation + self.test + self.quarantined


@dataclass(frozen=True)
class Baseline:
    """A result to stand beside the model's, on the same test rows.

    Parameters
    ----------
    name : str
        ``"majority"``, ``"raw"`` or ``"scratch"``; another name is shown as it is.
    evaluation : Evaluation
        What it reached on the test rows.
    trained : str
        How it was trained, in one sentence.
    budget : str
        What it was allowed to cost, in words: ``"30 s of CPU time, that of the transfer run"``.
    cpu_seconds : float
        What it did cost.
    paired : PairedTest, optional
        The model against this baseline; positive favours the model.
    """

    name: str
    evaluation: Evaluation
    trained: str = ""
    budget: str = ""
    cpu_seconds: float = 0.0
    paired: PairedTest | None = None


@dataclass(frozen=True)
class Candidate:
    """One base model that was considered.

    Parameters
    ----------
    backbone : str
        Its name, as a user would type it.
    scores : mapping of str to float
        Transferability scores by name (``"logme"``, ``"probe"``); the page shows a column for each.
    score : float
        The one the order was made by; higher is better.
    low, high : float, optional
        Bootstrap interval of ``score``.
    probe_accuracy : float, optional
        Leave-one-out accuracy (or R2) of a linear probe.
    cpu_seconds : float
        What scoring it cost.
    size_bytes, parameters, multiply_adds : int
        Of its weights; multiply-adds for one row.
    chosen : bool
        Whether the run used it.
    share_best : float in [0, 1], optional
        Share of bootstrap draws in which it came first.
    licence, note : str
        Shown where given; a candidate that failed has its reason as the note and a score of None.
    """

    backbone: str
    scores: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None
    low: float | None = None
    high: float | None = None
    probe_accuracy: float | None = None
    cpu_seconds: float = 0.0
    size_bytes: int = 0
    parameters: int = 0
    multiply_adds: int = 0
    chosen: bool = False
    share_best: float | None = None
    licence: str = ""
    note: str = ""


@dataclass(frozen=True)
class RowExample:
    """One row shown to the reader: a worst mistake, a suspect label, a row unlike the others.

    Parameters
    ----------
    row : str
        What a person can find it by: a relative path or ``"row 17"``.
    truth, predicted : str
        Label of the row and the model's answer; several classes joined by commas.
    confidence : float, optional
        The model's probability of its answer (or the size of the error, for regression).
    image : uint8 array of shape (height, width, 3), optional
        A small picture; larger ones are scaled down.
    text : str, optional
        The row's text; long ones are cut.
    note : str
        One more line.
    """

    row: str
    truth: str = ""
    predicted: str = ""
    confidence: float | None = None
    image: NDArray[np.uint8] | None = None
    text: str | None = None
    note: str = ""


@dataclass(frozen=True)
class TrainingCurves:
    """Loss and accuracy of a training run as it went on; every sequence has one value a step, or is empty.

    ``name`` says which run, ``measure`` what the two last ones are ("accuracy", "R2"), ``step`` what lies between two
    values: an "epoch", a "check".
    """

    name: str
    train_loss: Sequence[float] = ()
    validation_loss: Sequence[float] = ()
    train_measure: Sequence[float] = ()
    validation_measure: Sequence[float] = ()
    measure: str = "accuracy"
    step: str = "epoch"


@dataclass(frozen=True)
class HeadSummary:
    """Which head was chosen and why.

    Parameters
    ----------
    name : str
        ``"ridge"``, ``"logistic"``, ...
    reason : str
        One sentence.
    penalties, scores : sequences of float of equal length
        The path that was searched, and the validation score of each penalty.
    score_name : str
        What the scores are.
    chosen : float, optional
        The penalty taken.
    contenders : mapping of str to float
        Validation score of every head that competed.
    """

    name: str
    reason: str = ""
    penalties: Sequence[float] = ()
    scores: Sequence[float] = ()
    score_name: str = "validation score"
    chosen: float | None = None
    contenders: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class NoveltySummary:
    """Test rows unlike the training data: how many of how many, by which rule, and some to look at."""

    flagged: int
    rows: int
    rule: str = ""
    examples: Sequence[RowExample] = ()


@dataclass(frozen=True)
class RuntimeSummary:
    """Where the network ran.

    ``label`` such as ``"openvino-bf16"``; ``rows_per_cpu_second`` of every runtime probed; ``cosine`` and
    ``relative_error`` against fp32 on the first batch.
    """

    label: str
    rows_per_cpu_second: Mapping[str, float] = field(default_factory=dict)
    cosine: float | None = None
    relative_error: float | None = None


@dataclass(frozen=True)
class Cost:
    """What the whole run cost; ``from_cache`` counts the rows whose features were already known."""

    cpu_seconds: float
    wall_seconds: float
    from_cache: int = 0


@dataclass(frozen=True)
class Goal:
    """What the user asked for (``"macro_f1 >= 0.95"``), and whether it was met; ``note`` says what to try next."""

    text: str
    met: bool
    note: str = ""


@dataclass(frozen=True)
class ReportData:
    """Everything ``report.html`` and ``report.json`` are made of.

    Only the first seven fields are needed. ``targets_n`` and ``predictions_n`` are for regression: test targets and
    predictions, shape (n,). ``class_rows`` counts the training rows of every class. ``order_confidence`` is the share
    of bootstrap draws that keep the best candidate first. ``climb`` is what was tried; ``negative_transfer`` says in a sentence
    what beats the model without transfer, and is empty where nothing does. ``size_bytes``, ``memory_bytes`` and
    ``latency_seconds`` are measured: of the saved model, the process's peak, one row. ``test_digest`` names the test rows.
    """

    title: str
    task: Task
    modality: Modality
    verdict: Verdict
    rows: RowCounts
    evaluation: Evaluation
    cost: Cost
    backbone: str = ""
    baselines: Sequence[Baseline] = ()
    goal: Goal | None = None
    class_rows: Mapping[str, int] = field(default_factory=dict)
    preflight: Sequence[str] = ()
    findings: Sequence[Finding] = ()
    learning_curve: Sequence[CurvePoint] = ()
    training_curves: Sequence[TrainingCurves] = ()
    candidates: Sequence[Candidate] = ()
    score_name: str = "logme"
    order_confidence: float | None = None
    head: HeadSummary | None = None
    mistakes: Sequence[RowExample] = ()
    suspects: Sequence[RowExample] = ()
    novelty: NoveltySummary | None = None
    targets_n: NDArray[np.float64] | None = None
    predictions_n: NDArray[np.float64] | None = None
    stages: Sequence[StageCost] = ()
    runtime: RuntimeSummary | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    config_toml: str = ""
    created: str = ""
    notes: Sequence[str] = ()
    climb: Climb | None = None
    negative_transfer: str = ""
    size_bytes: int | None = None
    memory_bytes: float | None = None
    latency_seconds: float | None = None
    test_digest: str = ""


@dataclass(frozen=True)
class RankData:
    """Everything the page of ``headstart rank`` is made of: the candidates, best first, and how sure their order is."""

    title: str
    task: Task
    modality: Modality
    rows: int
    candidates: Sequence[Candidate]
    score_name: str = "logme"
    order_confidence: float | None = None
    cost: Cost | None = None
    runtime: RuntimeSummary | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    created: str = ""
    notes: Sequence[str] = ()
