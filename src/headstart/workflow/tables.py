"""Results as plain text for a terminal: columns that line up, nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headstart.evaluation import format_interval, format_metric, metric_title
from headstart.report import RankData

if TYPE_CHECKING:
    from headstart.workflow.applying import Assessment

__all__ = ["evaluation_table", "rank_table", "text_table"]


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the first column is aligned left, the others right.

    Examples
    --------
    >>> print(text_table(["name", "score"], [["a", "1.5"], ["bcdef", "10.25"]]))
    name   score
    a        1.5
    bcdef  10.25
    """
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [header, *rows]
    )


def rank_table(data: RankData) -> str:
    """Return base models, best first: scores, cost and size, and how sure the order is."""
    scored = [item for item in data.candidates if item.score is not None]
    if not scored:
        return "No base model could be scored:\n" + "\n".join(
            f"{item.backbone}: {item.note}" for item in data.candidates
        )
    names = [name for name in dict.fromkeys(n for item in scored for n in item.scores) if name != data.score_name]
    header = ["base model", data.score_name, "95 % interval", "first in", *names, "params", "madds", "size", "CPU s"]
    rows = [
        [
            item.backbone,
            f"{item.score:.3f}",
            f"{item.low:.3f} to {item.high:.3f}" if item.low is not None and item.high is not None else "",
            f"{100 * item.share_best:.0f} %" if item.share_best is not None else "",
            *(f"{item.scores[name]:.3f}" if name in item.scores else "" for name in names),
            f"{item.parameters / 1e6:.1f} M",
            f"{item.multiply_adds / 1e6:.0f} M",
            f"{item.size_bytes / 1e6:.1f} MB",
            f"{item.cpu_seconds:.1f}",
        ]
        for item in scored
        if item.score is not None
    ]
    failed = [f"left out: {item.backbone}: {item.note}" for item in data.candidates if item.score is None]
    sure = data.order_confidence
    words = ""
    if sure is not None and len(scored) > 1:
        strength = "clearly" if sure >= 0.95 else "probably" if sure >= 0.7 else "not surely"
        share = f"first in {100 * sure:.0f} % of bootstrap draws of {data.rows:,} rows"
        words = f"\n{scored[0].backbone} is {strength} the best: {share}."
    return "\n".join([text_table(header, rows) + words, *failed])


def evaluation_table(result: Assessment) -> str:
    """Return every metric with its interval."""
    rows = [
        [metric_title(name), format_metric(name, interval.value), format_interval(name, interval)]
        for name, interval in result.evaluation.metrics.items()
    ]
    lines = [f"{result.rows:,} rows", text_table(["metric", "value", "95 % interval"], rows)]
    if result.unusual:
        lines.append(f"{result.unusual:,} rows are unlike the training rows")
    if result.unreadable:
        lines.append(f"{result.unreadable:,} rows could not be read")
    return "\n".join([*lines, *result.evaluation.notes, *result.notes])
