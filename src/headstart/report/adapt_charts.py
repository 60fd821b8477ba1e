"""The chart of an adaptation: both domains in two dimensions, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from headstart.report.svg import COLOURS, figure, short_text, spread_rows, to_svg

if TYPE_CHECKING:
    from headstart.report.adapt import DomainsInPlane

__all__ = ["PLANE_WIDTH", "class_map"]

PLANE_WIDTH = 440.0
_MOST_DOTS = 300
_LOOKS = (
    ("model", "o"),
    ("second", "s"),
    ("good", "^"),
    ("bad", "D"),
    ("ink", "v"),
    ("unsure", "P"),
    ("model", "X"),
    ("good", "h"),
)
_OTHERS = "other classes"


def class_map(plane: DomainsInPlane, order: Sequence[str], name: str) -> str:
    """Return both domains by class: eight classes by colour and shape, the others grey; at most 300 rows of each domain.

    Parameters
    ----------
    plane : DomainsInPlane
        Places and classes.
    order : sequence of str
        Classes, those to tell apart first.
    name : str
        Unique on the page.
    """
    looks = dict(zip(order, _LOOKS, strict=False))
    groups = [*looks, *([_OTHERS] if len(order) > len(looks) else [])]
    with figure(PLANE_WIDTH, 0.85 * PLANE_WIDTH) as drawing:
        axes = drawing.add_subplot()
        for places, classes, hollow in (
            (plane.source_n2, plane.source_classes_n, False),
            (plane.target_m2, plane.target_classes_m, True),
        ):
            if not classes:
                continue  # training rows of a saved model, which keeps no classes of them
            kept = spread_rows(len(places), _MOST_DOTS)
            shown = np.array([item if item in looks else _OTHERS for item in classes], dtype=object)[kept]
            for group in groups:
                rows = places[kept][shown == group]
                colour, shape = looks.get(group, ("base", "o"))
                axes.plot(
                    rows[:, 0],
                    rows[:, 1],
                    shape,
                    color=COLOURS[colour],
                    markersize=5,
                    alpha=0.85 if hollow else 0.45,
                    markerfacecolor="none" if hollow else COLOURS[colour],
                    markeredgewidth=1.2 if hollow else 0,
                    label="_" if hollow and plane.source_classes_n else short_text(group, 16),
                )
        axes.set(xticks=[], yticks=[])
        handles, labels = axes.get_legend_handles_labels()
        told_apart = axes.legend(
            handles, labels, loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=3, markerscale=1.3
        )
        for handle in told_apart.legend_handles:
            handle.set_alpha(1.0)
        told = f"{len(plane.source_n2)} source rows and {len(plane.target_m2)} target rows, told apart by {', '.join(groups)}"
        return to_svg(drawing, name, "Both domains by class", told)
