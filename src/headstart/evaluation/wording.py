"""Figures and metric names as a person reads them; the verdict and the report share them."""

from __future__ import annotations

import math

from headstart.evaluation.intervals import Interval

__all__ = ["format_interval", "format_metric", "format_number", "format_p_value", "is_share", "metric_title"]

_WORDS = {"roc": "ROC", "auc": "AUC", "f1": "F1", "rmse": "RMSE", "mae": "MAE", "r2": "R²"}
_SHARE_WORDS = ("accuracy", "precision", "recall", "f1")
_AVERAGES = ("macro", "micro", "weighted", "samples")


def is_share(metric: str) -> bool:
    """Return whether a metric is a share of rows, shown in per cent.

    Examples
    --------
    >>> is_share("balanced_accuracy"), is_share("rmse")
    (True, False)
    """
    return any(word in metric.split("_") for word in _SHARE_WORDS)


def metric_title(metric: str) -> str:
    """Return a metric's name for people.

    Examples
    --------
    >>> metric_title("f1_macro"), metric_title("roc_auc"), metric_title("log_loss")
    ('F1 (macro)', 'ROC AUC', 'log loss')
    """
    words = metric.split("_")
    average = next((word for word in words if word in _AVERAGES), None)
    title = " ".join(_WORDS.get(word, word) for word in words if word != average)
    return f"{title} ({average})" if average else title


def format_metric(metric: str, value: float | None) -> str:
    """Return a value with its unit: per cent for shares, three or four digits otherwise, a dash where there is none.

    Examples
    --------
    >>> format_metric("accuracy", 0.9123), format_metric("rmse", 12.3456), format_metric("r2", float("nan"))
    ('91.2 %', '12.35', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if is_share(metric):
        return f"{100 * value:.1f} %"
    return format_number(value)


def format_number(value: float) -> str:
    """Return a number with about four digits.

    Examples
    --------
    >>> format_number(0.12345), format_number(123456.7), format_number(0.000012)
    ('0.123', '123,457', '1.2e-05')
    """
    size = abs(value)
    if size < 1e-9:
        return "0"
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}" if size >= 0.001 else f"{value:.2g}"


def format_interval(metric: str, interval: Interval) -> str:
    """Return ``"low to high"`` without repeating the unit.

    Examples
    --------
    >>> format_interval("accuracy", Interval(0.912, 0.889, 0.931))
    '88.9 to 93.1'
    """
    if not interval.finite:
        return "–"
    return f"{format_metric(metric, interval.low).removesuffix(' %')} to " + format_metric(
        metric, interval.high
    ).removesuffix(" %")


def format_p_value(p_value: float) -> str:
    """Return ``"p < 0.001"`` or ``"p = 0.02"``.

    Examples
    --------
    >>> format_p_value(0.0002), format_p_value(0.0213), format_p_value(0.31)
    ('p < 0.001', 'p = 0.021', 'p = 0.31')
    """
    if p_value < 0.001:
        return "p < 0.001"
    return f"p = {p_value:.3f}" if p_value < 0.1 else f"p = {p_value:.2f}"
