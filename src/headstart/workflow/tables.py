"""Results as plain text for a terminal: columns that line up, nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headstart.evaluation import format_interval, format_metric, metric_title
from headstart.report import RankData

if TYPE_CHECKING:
    from headstart.workflow.applying import Assessment
    from headstart.workflow.comparing import Comparison
    from headstart.workflow.index import RunLine

__all__ = ["comparison_table", "evaluation_table", "rank_table", "runs_table", "text_table"]


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
    if result.open_set is not None:
        found = result.open_set
        figures = {
            "known classes named rightly": found.known,
            f"{found.num_unknown:,} rows of other classes answered unknown": found.unknown,
            "harmonic mean of both": found.both,
        }
        shown = [
            [name, format_metric("accuracy", one.value), format_interval("accuracy", one)]
            for name, one in figures.items()
        ]
        lines += ["", text_table(["with unknown as an answer", "value", "95 % interval"], shown), ""]
    if result.unusual:
        lines.append(f"{result.unusual:,} rows are unlike the training rows")
    if result.unreadable:
        lines.append(f"{result.unreadable:,} rows could not be read")
    return "\n".join([*lines, *result.evaluation.notes, *result.notes])


def runs_table(lines: Sequence[RunLine]) -> str:
    """Return finished runs, newest first: when, what was reached, with what, and at what cost."""
    from headstart.core.progress import format_seconds
    from headstart.evaluation import Interval

    if not lines:
        return "No finished runs are known; `headstart fit` makes one."
    names = _short_names([line.folder for line in lines])
    header = ["run", "when (UTC)", "metric", "value", "95 % interval", "transfer helped", "goal", "kept", "CPU", "size"]
    rows = []
    for name, line in zip(names, lines, strict=True):
        known = line.value is not None and line.low is not None and line.high is not None
        interval = Interval(line.value or 0.0, line.low or 0.0, line.high or 0.0)
        rows.append(
            [
                name,
                line.created[:16].replace("T", " "),
                metric_title(line.metric),
                format_metric(line.metric, line.value),
                format_interval(line.metric, interval) if known else "",
                {"true": "yes", "false": "no"}.get(line.transfer_helped, line.transfer_helped),
                "" if line.goal_met is None else "met" if line.goal_met else "not met",
                line.rung or line.backbone,
                format_seconds(line.cpu_seconds),
                f"{line.size_bytes / 1e6:.1f} MB" if line.size_bytes else "",
            ]
        )
    return text_table(header, rows)


def _short_names(folders: Sequence[str]) -> list[str]:
    """Return how each folder can be typed here: relative where it lies below, else whole."""
    from pathlib import Path

    here = Path.cwd()
    return [str(Path(one).relative_to(here)) if Path(one).is_relative_to(here) else one for one in folders]


def comparison_table(result: Comparison) -> str:
    """Return two runs side by side: the test first, then every metric, costs and the settings that differ."""
    first, second = result.names
    rows = [
        [metric_title(name), format_metric(name, a), format_metric(name, b)] for name, (a, b) in result.metrics.items()
    ]
    rows += [[name, *values] for name, values in result.costs.items()]
    lines = [str(result.verdict), text_table(["", first, second], rows)]
    if result.settings:
        lines.append(text_table(["settings that differ", first, second], [[k, *v] for k, v in result.settings.items()]))
    return "\n\n".join([*lines, *result.notes])
