"""Floor 6: the page a run explains itself with, and the JSON contract other programs read."""

from headstart.report.contract import RANK_SCHEMA, REPORT_SCHEMA, rank_json, report_json
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
from headstart.report.gap import GapData, gap_json, render_gap, write_gap_report
from headstart.report.page import render_rank, render_report, write_rank_report, write_report
from headstart.report.rungs import Climb, RungLine, RungStatus, StoppedBy

__all__ = [
    "RANK_SCHEMA",
    "REPORT_SCHEMA",
    "Baseline",
    "Candidate",
    "Climb",
    "Cost",
    "GapData",
    "Goal",
    "HeadSummary",
    "NoveltySummary",
    "RankData",
    "ReportData",
    "RowCounts",
    "RowExample",
    "RungLine",
    "RungStatus",
    "RuntimeSummary",
    "StoppedBy",
    "TrainingCurves",
    "gap_json",
    "rank_json",
    "render_gap",
    "render_rank",
    "render_report",
    "report_json",
    "write_gap_report",
    "write_rank_report",
    "write_report",
]
