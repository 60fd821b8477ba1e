"""Charts of a gap: both domains in two dimensions, and the features that carry it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.distances.diagnosis import FeatureShift
from headstart.report.svg import COLOURS, figure, short_text, spread_rows, to_svg

__all__ = ["domain_map", "feature_chart"]

_MOST_DOTS = 700


def domain_map(source_n2: NDArray[Any], target_m2: NDArray[Any], name: str = "domains", width: float = 560.0) -> str:
    """Return source rows as dots and target rows as rings on two shared axes; at most 700 of each.

    Parameters
    ----------
    source_n2, target_m2 : arrays of shape (n, 2) and (m, 2)
        Places of the rows.
    name : str
        Unique on the page.
    width : float
        In CSS pixels.
    """
    with figure(width, 0.77 * width) as drawing:
        axes = drawing.add_subplot()
        shown = source_n2[spread_rows(len(source_n2), _MOST_DOTS)]
        axes.plot(
            shown[:, 0],
            shown[:, 1],
            "o",
            color=COLOURS["model"],
            markersize=4.5,
            alpha=0.5,
            markeredgewidth=0,
            label="source",
        )
        shown = target_m2[spread_rows(len(target_m2), _MOST_DOTS)]
        axes.plot(
            shown[:, 0],
            shown[:, 1],
            "o",
            color=COLOURS["second"],
            markersize=4.5,
            markerfacecolor="none",
            markeredgewidth=1.1,
            alpha=0.7,
            label="target",
        )
        axes.set(xlabel="first direction", ylabel="second direction", xticks=[], yticks=[])
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.1), ncols=2)
        told = (
            f"{len(source_n2)} source rows and {len(target_m2)} target rows on the two directions of largest variance"
        )
        return to_svg(drawing, name, "Both domains in two dimensions", told)


def feature_chart(features: Sequence[FeatureShift]) -> str:
    """Return the difference of each feature's means, in deviations, as bars; the largest first."""
    drawn = [item for item in features if math.isfinite(item.difference)]
    with figure(520, 60 + 26 * max(1, len(drawn))) as drawing:
        axes = drawing.add_subplot()
        places = np.arange(len(drawn))[::-1]
        colours = [COLOURS["second"] if item.difference > 0 else COLOURS["model"] for item in drawn]
        axes.barh(places, [item.difference for item in drawn], color=colours, alpha=0.8, height=0.7)
        axes.axvline(0, color=COLOURS["base"], linewidth=1.2)
        axes.set_yticks(places, [short_text(item.name, 24) for item in drawn])
        axes.set(xlabel="target mean less source mean, in deviations")
        axes.grid(axis="x")
        told = "; ".join(f"{item.name} {item.difference:+.2f}" for item in drawn)
        return to_svg(drawing, "features", "Features that carry the gap", told)
