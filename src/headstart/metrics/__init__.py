"""Floor 1: measures of success. Arrays in, numbers out; no torch."""

from headstart.metrics.calibration import ReliabilityBins, calibration_error, reliability_bins
from headstart.metrics.classification import (
    Average,
    ClassCounts,
    accuracy,
    balanced_accuracy,
    class_counts,
    confusion_matrix,
    counts_from_confusion,
    f1,
    hamming_loss,
    precision,
    recall,
    to_predictions,
)
from headstart.metrics.probability import class_roc_auc, log_loss, roc_auc
from headstart.metrics.regression import mean_absolute_error, r2, root_mean_squared_error
from headstart.metrics.table import (
    ALIASES,
    METRICS,
    Metric,
    Needs,
    compute_metrics,
    find_metric,
    metric_notes,
    metrics_for,
)

__all__ = [
    "ALIASES",
    "METRICS",
    "Average",
    "ClassCounts",
    "Metric",
    "Needs",
    "ReliabilityBins",
    "accuracy",
    "balanced_accuracy",
    "calibration_error",
    "class_counts",
    "class_roc_auc",
    "compute_metrics",
    "confusion_matrix",
    "counts_from_confusion",
    "f1",
    "find_metric",
    "hamming_loss",
    "log_loss",
    "mean_absolute_error",
    "metric_notes",
    "metrics_for",
    "precision",
    "r2",
    "recall",
    "reliability_bins",
    "roc_auc",
    "root_mean_squared_error",
    "to_predictions",
]
