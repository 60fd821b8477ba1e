"""Floor 6: the page a run explains itself with, and the JSON contract other programs read."""

from headstart.report.data import (
    Baseline,
    Candidate,
    Cost,
    Goal,
    HeadSummary,
    NoveltySummary,
    RankData,
    ReportData,
    RowCounts,
    RowExample,
    RuntimeSummary,
    TrainingCurves,
)

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
