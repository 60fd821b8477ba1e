"""The report's charts. Each takes plain values and returns inline SVG; see `headstart.report.svg`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.evaluation import CurvePoint, Interval, ReliabilityBin, format_metric, format_number, metric_title
from headstart.evaluation.wording import is_share
from headstart.report.data import Candidate, TrainingCurves
from headstart.report.rungs import RungLine
from headstart.report.svg import COLOURS, figure, short_text, spread_rows, to_svg

__all__ = [
    "climb_chart",
    "comparison_chart",
    "learning_chart",
    "penalty_chart",
    "rank_chart",
    "reliability_chart",
    "residual_chart",
    "scatter_chart",
    "training_chart",
]

_MOST_DOTS = 1500


def comparison_chart(metric: str, bars: Sequence[tuple[str, Interval]]) -> str:
    """Return the model (first) and its baselines as dots with their intervals, one line each."""
    with figure(440, 50 + 38 * len(bars)) as drawing:
        axes = drawing.add_subplot()
        for place, (_, interval) in enumerate(bars):
            colour = COLOURS["model" if place == 0 else "base"]
            axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=3, alpha=0.55)
            axes.plot([interval.value], [place], "o", color=colour, markersize=9 if place == 0 else 7)
            axes.annotate(
                format_metric(metric, interval.value),
                (interval.high, place),
                xytext=(9, 0),
                textcoords="offset points",
                va="center",
                fontsize=14 if place == 0 else 13,
                fontweight="bold" if place == 0 else "normal",
                color=COLOURS["ink"],
            )
        axes.set_yticks(range(len(bars)), [short_text(label, 24) for label, _ in bars], color=COLOURS["ink"])
        axes.set_ylim(len(bars) - 0.5, -0.5)
        _fit_range(axes, metric, [number for _, i in bars for number in (i.low, i.high)])
        _per_cent(axes.xaxis, metric)
        axes.grid(axis="x")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        told = "; ".join(f"{label} {format_metric(metric, interval.value)}" for label, interval in bars)
        return to_svg(drawing, "comparison", f"{metric_title(metric)} of the model and its baselines", told)


def climb_chart(metric: str, rungs: Sequence[RungLine], goal: float | None = None) -> str:
    """Return the figure of every rung that was tried, with its interval, in the order they were tried; the goal as a line."""
    with figure(480, 300) as drawing:
        axes = drawing.add_subplot()
        numbers: list[float] = []
        for place, line in enumerate(rungs):
            assert line.value is not None and line.low is not None and line.high is not None
            colour = COLOURS["model" if line.kept else "base"]
            axes.plot([place, place], [line.low, line.high], color=colour, linewidth=3, alpha=0.5)
            axes.plot([place], [line.value], "o", color=colour, markersize=9 if line.kept else 7)
            axes.annotate(
                format_metric(metric, line.value),
                (place, line.value),
                xytext=(9, 0),
                textcoords="offset points",
                va="center",
                fontsize=12.5,
                color=COLOURS["ink"],
                fontweight="bold" if line.kept else "normal",
            )
            numbers += [line.low, line.high]
        if goal is not None and math.isfinite(goal):
            axes.axhline(goal, color=COLOURS["good"], linewidth=1.2, linestyle=(0, (4, 4)))
            axes.annotate(
                "goal",
                (0, goal),
                xycoords=("axes fraction", "data"),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=12,
                color=COLOURS["good"],
            )
            numbers.append(goal)
        axes.set_xticks(range(len(rungs)), [str(line.number) for line in rungs])
        axes.set_xlim(-0.5, len(rungs) - 0.1)
        axes.set(xlabel="rung", ylabel=metric_title(metric))
        _fit_range(axes, metric, numbers, vertical=True)
        _per_cent(axes.yaxis, metric)
        axes.grid(axis="y")
        told = "; ".join(f"rung {one.number}, {one.title}: {format_metric(metric, one.value)}" for one in rungs)
        return to_svg(drawing, "climb", "What each rung reached on the judging rows", told)


def reliability_chart(bins: Sequence[ReliabilityBin]) -> str:
    """Return stated confidence against what came true, with the number of rows in each bin below."""
    filled = [one for one in bins if one.count]
    most = max(one.count for one in filled)
    with figure(420, 400) as drawing:
        axes, below = drawing.subplots(2, 1, height_ratios=[4, 1], sharex=True)
        axes.plot([0, 1], [0, 1], color=COLOURS["base"], linewidth=1.2, linestyle=(0, (4, 4)))
        axes.plot(
            [one.confidence for one in filled], [one.accuracy for one in filled], color=COLOURS["model"], linewidth=1.6
        )
        for one in filled:
            size = 4 + 7 * math.sqrt(one.count / most)
            axes.plot([one.confidence], [one.accuracy], "o", color=COLOURS["model"], markersize=size, alpha=0.9)
        axes.set(ylabel="came true", xlim=(-0.02, 1.02), ylim=(-0.03, 1.03))
        below.bar(
            [(one.low + one.high) / 2 for one in bins],
            [one.count for one in bins],
            width=[0.86 * (one.high - one.low) for one in bins],
            color=COLOURS["base"],
        )
        below.set(xlabel="stated confidence", ylabel="rows")
        below.yaxis.get_major_locator().set_params(nbins=2, integer=True)
        for one in (axes, below):
            one.grid(axis="y")
            _per_cent(one.xaxis, "accuracy")
        _per_cent(axes.yaxis, "accuracy")
        told = "; ".join(f"stated {one.confidence:.0%}, true {one.accuracy:.0%}, {one.count} rows" for one in filled)
        return to_svg(drawing, "reliability", "Reliability diagram", told)


def learning_chart(metric: str, points: Sequence[CurvePoint], final: Interval | None = None) -> str:
    """Return the metric against the number of training rows: mean of the folds, and their range as a band."""
    with figure(460, 320) as drawing:
        axes = drawing.add_subplot()
        sizes = [point.size for point in points]
        axes.fill_between(
            sizes, [p.low for p in points], [p.high for p in points], color=COLOURS["model"], alpha=0.16, linewidth=0
        )
        axes.plot(sizes, [p.value for p in points], "-o", color=COLOURS["model"], markersize=6)
        if len(sizes) > 1:
            axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        numbers = [number for p in points for number in (p.low, p.high)]
        if final is not None and final.finite:
            axes.axhline(final.value, color=COLOURS["base"], linewidth=1.2, linestyle=(0, (4, 4)))
            axes.annotate(
                "on the test rows",
                (0, final.value),
                xycoords=("axes fraction", "data"),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=12,
                color=COLOURS["soft"],
            )
            numbers.append(final.value)
        axes.set(xlabel="training rows", ylabel=metric_title(metric))
        _fit_range(axes, metric, numbers, vertical=True)
        _per_cent(axes.yaxis, metric)
        axes.grid(axis="y")
        told = "; ".join(f"{p.size} rows {format_metric(metric, p.value)}" for p in points)
        return to_svg(drawing, "learning", "Learning curve", told)


def training_chart(curves: TrainingCurves, name: str = "training") -> str:
    """Return loss and accuracy after each step, on training and on validation rows."""
    panels = [
        ("loss", curves.train_loss, curves.validation_loss),
        (curves.measure, curves.train_measure, curves.validation_measure),
    ]
    panels = [panel for panel in panels if len(panel[1]) or len(panel[2])]
    with figure(460, 190 * len(panels) + 30) as drawing:
        for place, (label, train, validation) in enumerate(panels):
            axes = drawing.add_subplot(len(panels), 1, place + 1)
            lines = [(train, "base", "training rows"), (validation, "model", "validation rows")]
            for values, colour, words in lines:
                if len(values):
                    epochs = range(1, len(values) + 1)
                    axes.plot(
                        epochs,
                        values,
                        "-o" if len(values) < 30 else "-",
                        color=COLOURS[colour],
                        markersize=4,
                        label=words,
                    )
            axes.set_ylabel(label)
            axes.xaxis.get_major_locator().set_params(integer=True)
            _per_cent(axes.yaxis, label)
            axes.grid(axis="y")
            if place == 0:
                axes.legend(labelcolor=COLOURS["ink"], loc="best")
            if place == len(panels) - 1:
                axes.set_xlabel(short_text(curves.step, 30))
        last = [f"{label} {values[-1]:.3g}" for label, _, values in panels if len(values)]
        return to_svg(
            drawing, name, f"Training curves of {curves.name}", "validation rows at the end: " + ", ".join(last)
        )


def rank_chart(candidates: Sequence[Candidate], score_name: str, numbers: Sequence[int]) -> str:
    """Return score against cost for each base model; the area of a circle is the size of its weights.

    ``numbers`` are written into the circles and stand in the table beside it.
    """
    scored = [
        (c, n) for c, n in zip(candidates, numbers, strict=True) if c.score is not None and math.isfinite(c.score)
    ]
    most = max((c.size_bytes for c, _ in scored), default=1) or 1
    by_work = all(c.multiply_adds > 0 for c, _ in scored)
    with figure(480, 370) as drawing:
        axes = drawing.add_subplot()
        for candidate, number in sorted(scored, key=lambda pair: -pair[0].size_bytes):
            assert candidate.score is not None
            cost = candidate.multiply_adds / 1e6 if by_work else max(candidate.cpu_seconds, 1e-3)
            colour = COLOURS["model" if candidate.chosen else "base"]
            if candidate.low is not None and candidate.high is not None:
                axes.plot([cost, cost], [candidate.low, candidate.high], color=colour, linewidth=1.5, alpha=0.6)
            size = 15 + 15 * math.sqrt(candidate.size_bytes / most)
            axes.plot([cost], [candidate.score], "o", color=COLOURS["card"], markersize=size + 2)
            axes.plot([cost], [candidate.score], "o", color=colour, markersize=size, alpha=0.85)
            axes.annotate(
                str(number),
                (cost, candidate.score),
                ha="center",
                va="center_baseline",
                fontsize=12.5,
                fontweight="bold",
                color=COLOURS["card"],
            )
        axes.set_xscale("log")
        axes.margins(0.12, 0.16)
        _plain_logs(axes.xaxis)
        axes.set_xlabel("million multiply-adds a row" if by_work else "CPU seconds to rank it")
        axes.set_ylabel(f"{score_name} (higher is better)")
        axes.grid()
        told = "; ".join(f"{n}: {c.backbone} {format_number(c.score or 0)}" for c, n in scored)
        return to_svg(drawing, "rank", "Base models: score against cost", told)


def penalty_chart(penalties: Sequence[float], scores: Sequence[float], chosen: float | None, score_name: str) -> str:
    """Return the validation score along the path of penalties, with the one taken."""
    order = np.argsort(penalties)
    along = [(penalties[i], scores[i]) for i in order if penalties[i] > 0 and math.isfinite(scores[i])]
    with figure(460, 280) as drawing:
        axes = drawing.add_subplot()
        axes.plot(*zip(*along, strict=True), "-", color=COLOURS["model"])
        if chosen is not None and chosen > 0:
            nearest = min(along, key=lambda pair: abs(math.log(pair[0] / chosen)))
            axes.plot(*nearest, "o", color=COLOURS["model"], markersize=9)
            below = nearest[1] < np.mean([score for _, score in along])  # in a valley the curve is above
            axes.annotate(
                "taken",
                nearest,
                xytext=(0, -10 if below else 10),
                textcoords="offset points",
                ha="center",
                va="top" if below else "bottom",
                color=COLOURS["ink"],
            )
        axes.set_xscale("log")
        axes.margins(0.05, 0.22)
        axes.set(xlabel="penalty", ylabel=score_name)
        _plain_logs(axes.xaxis)
        axes.grid(axis="y")
        told = f"{len(along)} penalties; taken {format_number(chosen)}" if chosen else f"{len(along)} penalties"
        return to_svg(drawing, "penalty", "Validation score along the penalties", told)


def scatter_chart(targets_n: NDArray[Any], predictions_n: NDArray[Any], target_name: str) -> str:
    """Return predicted against true numbers, with the diagonal on which they agree; at most 1,500 dots."""
    rows = spread_rows(len(targets_n), _MOST_DOTS)
    with figure(420, 400) as drawing:
        axes = drawing.add_subplot()
        both = np.concatenate([targets_n[rows], predictions_n[rows]])
        ends = [float(both.min()), float(both.max())]
        axes.plot(ends, ends, color=COLOURS["base"], linewidth=1.2, linestyle=(0, (4, 4)))
        axes.plot(
            targets_n[rows],
            predictions_n[rows],
            "o",
            color=COLOURS["model"],
            markersize=4,
            alpha=0.45,
            markeredgewidth=0,
        )
        axes.set(xlabel=f"true {short_text(target_name, 30)}", ylabel=f"predicted {short_text(target_name, 30)}")
        axes.grid()
        correlation = _correlation(targets_n, predictions_n)
        told = f"{len(targets_n)} rows, correlation {correlation:.2f}; dots on the dashed line are exact"
        return to_svg(drawing, "scatter", "Predicted against true", told)


def residual_chart(targets_n: NDArray[Any], predictions_n: NDArray[Any], target_name: str) -> str:
    """Return a histogram of predicted minus true."""
    errors_n = np.asarray(predictions_n - targets_n, dtype=np.float64)
    with figure(420, 280) as drawing:
        axes = drawing.add_subplot()
        axes.hist(errors_n, bins=min(40, max(8, int(math.sqrt(len(errors_n))))), color=COLOURS["model"], alpha=0.75)
        axes.axvline(0, color=COLOURS["base"], linewidth=1.2, linestyle=(0, (4, 4)))
        axes.set(xlabel=f"predicted minus true {short_text(target_name, 30)}", ylabel="rows")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y")
        told = f"mean {errors_n.mean():.3g}, standard deviation {errors_n.std():.3g}"
        return to_svg(drawing, "residuals", "Errors", told)


def _correlation(targets_n: NDArray[Any], predictions_n: NDArray[Any]) -> float:
    if len(targets_n) < 2 or np.ptp(targets_n) == 0 or np.ptp(predictions_n) == 0:
        return 0.0
    return float(np.corrcoef(targets_n, predictions_n)[0, 1])


def _fit_range(axes: Any, metric: str, numbers: Sequence[float], vertical: bool = False) -> None:
    """Leave room for labels beside the numbers; shares stay within what shares can be."""
    finite = [number for number in numbers if math.isfinite(number)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    room = max(0.08 * (high - low), 0.02 * max(abs(low), abs(high)), 1e-9)
    low, high = low - room, high + (room if vertical else 2.2 * room)
    if is_share(metric):
        low = max(low, -0.02)
        high = min(high, 1.02) if vertical else high
    (axes.set_ylim if vertical else axes.set_xlim)(low, high)
    if is_share(metric):
        axis = axes.yaxis if vertical else axes.xaxis
        axis.set_ticks([tick for tick in axis.get_majorticklocs() if max(low, 0) <= tick <= min(high, 1.0001)])


def _per_cent(axis: Any, metric: str) -> None:
    if is_share(metric):
        axis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")


def _plain_logs(axis: Any) -> None:
    """Write 100 instead of 10 to the power of 2, and label enough ticks on a short axis."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    decades = math.log10(max(high, 1e-300) / max(low, 1e-300))
    subs = (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=8))
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:.3g}")
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", length=0)
