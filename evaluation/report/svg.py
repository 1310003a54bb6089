"""Convert figures to SVG for a page: text stays text, colours are those of the page, and the bytes never vary."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, LINE = "#1d2126", "#68707a", "#d9d6cf"
SERIES = ("#0067a5", "#8a8f98", "#d1730f", "#00876c", "#b04a8c", "#5aa9dd", "#9a7b00", "#c0392b")
"""Colours of the model and then of baselines, after Okabe and Ito: they differ for all kinds of colour vision."""

_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    **{colour: f"var(--series-{place})" for place, colour in enumerate(SERIES)},
}

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "songgraph",
    "font.family": "DejaVu Sans",
    "font.size": 11.5,
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.major.size": 0.0,
    "ytick.minor.size": 0.0,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "legend.fontsize": 11.0,
}
WIDTH, HEIGHT = 380.0, 250.0
"""Size in points; on a page, a panel has about this width in pixels."""


@contextmanager
def panel(height: float = HEIGHT) -> Iterator[tuple[Figure, Axes]]:
    """Create a figure with one pair of axes in the report's style, without pyplot's global state."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # the stubs know no rc name but as a literal
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        yield figure, figure.add_subplot()


def inline(figure: Figure, name: str, alt_text: str) -> str:
    """Return the figure as an ``<svg>`` element. Call it inside the ``panel`` block.

    Args:
        figure: the figure.
        name: prefix of the element's ids, unique on its page.
        alt_text: text for screen readers.
    """
    target = io.StringIO()
    FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawing = target.getvalue()
    inside = drawing[drawing.index(">", drawing.index("<svg")) + 1 :]
    size = figure.get_size_inches() * 72
    attributes = f'viewBox="0 0 {size[0]:.0f} {size[1]:.0f}" role="img" aria-label="{html.escape(alt_text)}"'
    return f"<svg {attributes}>{_adapt_to_page(inside, name)}".strip()


def _adapt_to_page(drawing: str, name: str) -> str:
    """Make the ids unique, and use the page's font and colours."""
    drawing = re.sub(r"<(metadata|style)\b.*?</\1>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r"<!--.*?-->\s*", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'\bid="', f'id="{name}-', drawing)
    drawing = re.sub(r'xlink:href="#', f'href="#{name}-', drawing)
    drawing = re.sub(r"url\(#", f"url(#{name}-", drawing)
    drawing = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans)", drawing)
    for colour, variable in _VARIABLES.items():
        drawing = drawing.replace(colour, variable)
    return drawing
