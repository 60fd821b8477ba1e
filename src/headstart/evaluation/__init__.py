"""Floor 5: what a model is worth on rows it never saw, beside its baselines, with intervals and a verdict."""

from headstart.evaluation.intervals import Interval
from headstart.evaluation.learning_curve import CurvePoint
from headstart.evaluation.paired import PairedTest
from headstart.evaluation.protocol import ClassRow, Evaluation, ReliabilityBin
from headstart.evaluation.verdict import Verdict

__all__ = ["ClassRow", "CurvePoint", "Evaluation", "Interval", "PairedTest", "ReliabilityBin", "Verdict"]
