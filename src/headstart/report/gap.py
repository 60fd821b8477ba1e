"""``gap.html`` and ``gap.json``: how far apart two domains are, what kind of gap it is, what carries it, what to do.

Shapes: n source rows, m target rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.files import write_json, write_text
from headstart.core.tasks import Modality, Task
from headstart.distances import Measurement
from headstart.distances.diagnosis import Diagnosis
from headstart.report import tables
from headstart.report.contract import clean_text, plain
from headstart.report.data import Cost, RowExample, RuntimeSummary
from headstart.report.gap_charts import domain_map, feature_chart
from headstart.report.page import page_environment, safe_markup

__all__ = ["GapData", "gap_json", "render_gap", "write_gap_report"]

_KINDS = {"no shift": "good", "support mismatch": "bad"}


@dataclass(frozen=True)
class GapData:
    """Everything the page of ``headstart gap`` is made of.

    Parameters
    ----------
    source, target : str
        Names of the two sets of rows.
    source_rows, target_rows : int
        Rows compared.
    modality : {"image", "text", "vector"}
        What a row is.
    diagnosis : Diagnosis
        What the gap is.
    suggestions : sequence of (str, str)
        What to try and what that is, the most promising first.
    source_n2, target_m2 : arrays of shape (n, 2) and (m, 2)
        Both domains on the two directions of largest variance.
    explained : float
        Share of all variance these two hold.
    source_examples, target_examples : sequence of RowExample
        Rows of highest leverage.
    """

    source: str
    target: str
    source_rows: int
    target_rows: int
    modality: Modality
    diagnosis: Diagnosis
    suggestions: Sequence[tuple[str, str]]
    source_n2: NDArray[np.float64]
    target_m2: NDArray[np.float64]
    explained: float
    source_examples: Sequence[RowExample] = ()
    target_examples: Sequence[RowExample] = ()
    backbone: str = ""
    cost: Cost | None = None
    runtime: RuntimeSummary | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    created: str = ""
    notes: Sequence[str] = ()


def write_gap_report(data: GapData, folder: Path) -> Path:
    """Write ``gap.html`` and ``gap.json`` into a folder, and return the page's path."""
    write_json(folder / "gap.json", gap_json(data))
    write_text(folder / "gap.html", render_gap(data))
    return folder / "gap.html"


def render_gap(data: GapData) -> str:
    """Return the page as text."""
    found = data.diagnosis
    task = Task("regression")  # cards without classes
    view = {
        "data": data,
        "kind": _KINDS.get(found.kind, "unsure"),
        "headline": found.kind[:1].upper() + found.kind[1:],
        "map": safe_markup(domain_map(data.source_n2, data.target_m2)),
        "features": safe_markup(feature_chart(found.features))
        if data.modality == "vector" and found.features
        else None,
        "measurements": [_line(item) for item in found.measurements],
        "shares": _shares(found),
        "source_cards": tables.cards(data.source_examples, task),
        "target_cards": tables.cards(data.target_examples, task),
    }
    return clean_text(page_environment().get_template("gap.html").render(view))


def gap_json(data: GapData) -> dict[str, Any]:
    """Return the contract: diagnosis, measurements, estimated class shares, rows of highest leverage, suggestions."""
    found = data.diagnosis
    shift = found.label_shift
    value = {
        "format": "headstart gap 1",
        "source": data.source,
        "target": data.target,
        "rows": {"source": data.source_rows, "target": data.target_rows},
        "modality": data.modality,
        "backbone": data.backbone,
        "diagnosis": found.kind,
        "text": found.text,
        "accuracy": found.accuracy,
        "novel_share": found.novel_share,
        "suggestions": [name for name, _ in data.suggestions],
        "measurements": [vars(item) for item in found.measurements],
        "label_shift": None
        if shift is None
        else {
            "method": shift.method,
            "classes": list(shift.classes),
            "source": shift.source_priors_k,
            "target": shift.target_priors_k,
            "low": shift.low_k,
            "high": shift.high_k,
            "p_value": shift.p_value,
        },
        "features": [vars(item) for item in found.features],
        "leverage": {
            "source": [item.row for item in data.source_examples],
            "target": [item.row for item in data.target_examples],
        },
        "cost": None if data.cost is None else vars(data.cost),
        "notes": list(data.notes),
        "versions": dict(data.versions),
        "command": data.command,
        "created": data.created,
    }
    return dict(plain(value))


def _line(item: Measurement) -> dict[str, str]:
    p_value = "–" if item.p_value is None else "< 0.001" if item.p_value < 0.001 else f"{item.p_value:.3f}"
    interval = f"{item.low:.3g} to {item.high:.3g}" if math.isfinite(item.low) and math.isfinite(item.high) else "–"
    return {
        "name": item.name,
        "value": f"{item.value:.4g}",
        "interval": interval,
        "p_value": p_value,
        "unit": item.unit,
        "meaning": item.meaning,
        "note": item.note,
    }


def _shares(found: Diagnosis) -> list[dict[str, str]]:
    """Return class shares of both domains, the largest change first."""
    shift = found.label_shift
    if shift is None:
        return []
    order = np.argsort(-np.abs(shift.target_priors_k - shift.source_priors_k), kind="stable")[:20]
    return [
        {
            "name": str(shift.classes[place]),
            "source": f"{100 * shift.source_priors_k[place]:.1f} %",
            "target": f"{100 * shift.target_priors_k[place]:.1f} %",
            "interval": f"{100 * shift.low_k[place]:.1f} to {100 * shift.high_k[place]:.1f}",
        }
        for place in order
    ]
