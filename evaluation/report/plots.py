"""Draw the report's pictures, each small enough for a telephone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from evaluation.report.svg import HEIGHT, INK, MUTED, SERIES, inline, panel
from evaluation.statistics.intervals import Interval

ROW = 24.0
"""Height in points of a row in a plot of intervals."""
DASHES = ("-", (0, (4, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
"""Line styles, so that lines do not differ by colour only."""
ROUND = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000}
PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.3g} %")


@dataclass(frozen=True)
class Line:
    """A line over x, with a band if its low and high ends are given."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Dot:
    """A value with its interval, in its own row."""

    label: str
    interval: Interval
    strong: bool = False
    """True: drawn in the model's colour."""


def lines(
    name: str,
    drawn: Sequence[Line],
    x_label: str,
    *,
    log_x: bool = False,
    share: bool = False,
    mark: float | None = None,
    alt_text: str = "",
) -> str:
    """Draw lines over one x; the first is the model's and has a band.

    Args:
        name: name of the figure, unique on its page.
        drawn: the lines.
        x_label: label of the x axis.
        log_x: draw x on a log scale of base 2.
        share: y is a share; write it as a percentage.
        mark: an x to mark by a dotted line, for example the best epoch.
        alt_text: text for screen readers.
    """
    with panel() as (figure, axes):
        for place, line in enumerate(drawn):
            _line(axes, line, place, markers=len(line.x) <= 30)
        if mark is not None:
            axes.axvline(mark, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.set_xlabel(x_label)
        _x_ticks(axes, drawn[0].x, log_x)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if share:
            axes.yaxis.set_major_formatter(PERCENT)
        if len(drawn) > 1:
            axes.legend(loc="best", handlelength=2.2)
        return inline(figure, name, alt_text)


def intervals(name: str, dots: Sequence[Dot], x_label: str, *, zero: bool = False, alt_text: str = "") -> str:
    """Draw values with their intervals, one row each, the first on top; ``zero`` adds a line at zero."""
    with panel(max(HEIGHT / 2, ROW * len(dots) + 50)) as (figure, axes):
        for row, dot in enumerate(dots):
            colour = SERIES[0] if dot.strong else SERIES[1]
            ends = dot.interval
            axes.plot([ends.low, ends.high], [row, row], color=colour, linewidth=2.4, solid_capstyle="butt")
            axes.plot([ends.mean], [row], "o", color=colour, markersize=5)
        if zero:
            axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(dots)), [dot.label for dot in dots], color=INK)
        axes.set_ylim(len(dots) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(x_label)
        return inline(figure, name, alt_text)


def histogram(
    name: str, edges: Sequence[int], counts: Sequence[int], x_label: str, y_label: str, alt_text: str = ""
) -> str:
    """Draw a histogram whose bins double in width; all bars are drawn equally wide."""
    with panel() as (figure, axes):
        places = np.arange(len(counts))
        axes.bar(places + 0.5, counts, width=0.92, color=SERIES[0])
        step = 1 + len(counts) // 9
        shown = range(0, len(edges), step)
        axes.set_xticks(list(shown), [_short(edges[place]) for place in shown])
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        axes.grid(visible=False, axis="x")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        return inline(figure, name, alt_text)


def shares(
    name: str, groups: Sequence[str], series: Mapping[str, Sequence[float]], x_label: str = "", alt_text: str = ""
) -> str:
    """Draw bars side by side for each group, one bar per series: the share of the series in the group."""
    with panel() as (figure, axes):
        width = 0.84 / len(series)
        for place, (label, values) in enumerate(series.items()):
            at = np.arange(len(groups)) + (place - (len(series) - 1) / 2) * width
            axes.bar(at, values, width=width * 0.92, color=SERIES[place], label=label)
        axes.set_xticks(range(len(groups)), list(groups))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(PERCENT)
        axes.grid(visible=False, axis="x")
        axes.set_xlabel(x_label)
        axes.margins(y=0.3)
        axes.legend(loc="upper right")
        return inline(figure, name, alt_text)


def _line(axes: Axes, line: Line, place: int, markers: bool) -> None:
    colour, dash = SERIES[place % len(SERIES)], DASHES[place % len(DASHES)]
    axes.plot(
        line.x, line.y, color=colour, linestyle=dash, marker="o" if markers and place == 0 else None, label=line.label
    )
    if place == 0 and line.low is not None and line.high is not None:
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)


def _x_ticks(axes: Axes, x: Sequence[float], log_x: bool) -> None:
    if not log_x:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return
    axes.set_xscale("log", base=2)
    shown = _apart(x)
    axes.set_xticks(shown, [f"{value:g}" for value in shown])
    axes.xaxis.set_minor_formatter(NullFormatter())


def _apart(x: Sequence[float]) -> list[float]:
    """Choose tick labels from rising values: the round ones, or those whose labels do not touch on a log scale."""
    if len(found := [value for value in x if value in ROUND]) > 2:
        return found
    shown: list[float] = []
    for value in x:
        if not shown or value >= 1.6 * shown[-1]:
            shown.append(value)
    return shown


def _short(value: float) -> str:
    for size, sign in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:.3g}{sign}"
    return f"{value:g}"
