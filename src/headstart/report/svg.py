"""Charts as inline SVG whose colours are the page's CSS variables, so that one picture serves light and dark.

A chart is drawn with placeholder colours; on the way out each becomes ``var(--name)``. Text stays text (selectable,
readable by assistive programs, in the page's own font). The same data give the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLOURS", "figure", "short_text", "spread_rows", "to_svg"]

COLOURS: dict[str, str] = {
    "ink": "#010203",
    "soft": "#010204",
    "grid": "#010205",
    "card": "#010206",
    "model": "#010207",
    "base": "#010208",
    "second": "#010209",
    "good": "#01020a",
    "bad": "#01020b",
    "unsure": "#01020c",
}
"""Placeholder colour of each CSS variable a chart may use."""

_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "font.size": 13,
    "axes.labelsize": 13,
    "xtick.labelsize": 12.5,
    "ytick.labelsize": 12.5,
    "legend.fontsize": 12.5,
    "legend.frameon": False,
    "text.color": COLOURS["ink"],
    "axes.titlecolor": COLOURS["ink"],
    "axes.labelcolor": COLOURS["soft"],
    "axes.edgecolor": COLOURS["grid"],
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "xtick.color": COLOURS["grid"],
    "ytick.color": COLOURS["grid"],
    "xtick.labelcolor": COLOURS["soft"],
    "ytick.labelcolor": COLOURS["soft"],
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
}


@contextlib.contextmanager
def figure(width: float, height: float) -> Iterator[Any]:
    """Yield an empty matplotlib figure in the report's style; sizes in CSS pixels.

    Without pyplot: nothing global stays behind, and no display is needed.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield Figure(figsize=(width / 72, height / 72), layout="constrained")


def to_svg(drawing: Any, name: str, title: str, description: str) -> str:
    """Return a figure as SVG to stand inside a page; call it inside the `figure` block.

    Parameters
    ----------
    drawing : matplotlib Figure
        What to write.
    name : str
        Unique on the page; keeps the ids of several charts apart.
    title, description : str
        What a reader who cannot see the chart is told.

    Returns
    -------
    str
        An ``<svg>`` element without size, so that it fills its place; no script, no address outside the page.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]+)"', text)
    assert box is not None
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box[1]}" '
        f'role="img" aria-labelledby="{name}-title {name}-desc" style="max-width:{float(box[1].split()[2]):.0f}px">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    )
    text = head + text[text.index(">") + 1 :]
    text = re.sub(r' id="[A-Za-z]+[A-Za-z.]*_[0-9]+"', "", text)
    for word in ('id="', "url(#", 'xlink:href="#'):
        text = re.sub(rf"{re.escape(word)}(?!{name}-)", f"{word}{name}-", text)
    for colour, placeholder in COLOURS.items():
        text = text.replace(placeholder, f"var(--{colour})")
    text = re.sub(r"font: ([0-9.]+)px [^;\"]*(?=[;\"])", r"font-size: \1px", text)
    return re.sub(r"\n\s*", "\n", text)


def spread_rows(num_rows: int, most: int) -> NDArray[np.int64]:
    """Return rows spread evenly over all, at most ``most``: as many as a page can draw.

    Examples
    --------
    >>> spread_rows(5, 3).tolist()
    [0, 2, 4]
    """
    return np.unique(np.linspace(0, num_rows - 1, min(num_rows, most)).astype(np.int64))


def short_text(text: str, most: int) -> str:
    """Return text that fits a label: control characters out, the middle of a long one left out.

    Examples
    --------
    >>> short_text("a very long name", 9)
    'a ve…name'
    """
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"
