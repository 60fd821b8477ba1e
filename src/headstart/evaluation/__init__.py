"""Floor 5: what a model is worth on rows it never saw, beside its baselines, with intervals and a verdict."""

from headstart.evaluation.baselines import RawBaseline, majority_scores
from headstart.evaluation.intervals import Interval, bootstrap_interval, bootstrap_intervals, wilson_interval
from headstart.evaluation.labels import SuspectLabel, suspect_labels
from headstart.evaluation.learning_curve import CurvePoint, learning_curve, learning_sizes
from headstart.evaluation.open_set import OpenSetResult, evaluate_open_set
from headstart.evaluation.paired import PairedTest, paired_test
from headstart.evaluation.protocol import ClassRow, Evaluation, ReliabilityBin, evaluate
from headstart.evaluation.sealed import SealedTest
from headstart.evaluation.verdict import Verdict, baseline_title, default_metric, judge
from headstart.evaluation.wording import format_interval, format_metric, format_number, format_p_value, metric_title

__all__ = [
    "ClassRow",
    "CurvePoint",
    "Evaluation",
    "Interval",
    "OpenSetResult",
    "PairedTest",
    "RawBaseline",
    "ReliabilityBin",
    "SealedTest",
    "SuspectLabel",
    "Verdict",
    "baseline_title",
    "bootstrap_interval",
    "bootstrap_intervals",
    "default_metric",
    "evaluate",
    "evaluate_open_set",
    "format_interval",
    "format_metric",
    "format_number",
    "format_p_value",
    "judge",
    "learning_curve",
    "learning_sizes",
    "majority_scores",
    "metric_title",
    "paired_test",
    "suspect_labels",
    "wilson_interval",
]
