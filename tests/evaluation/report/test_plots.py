"""Pictures stand inside a page: their text is text, their colours are the page's, their bytes do not change."""

from __future__ import annotations

import matplotlib as mpl
import pytest

from evaluation.report.plots import Dot, Line, histogram, intervals, lines, shares
from evaluation.report.svg import SERIES
from evaluation.statistics.intervals import Interval

DRAW = {
    "lines": lambda name: lines(name, [Line("a", [1, 2, 4], [1, 2, 3], [0, 1, 2], [2, 3, 4])], "k", log_x=True, mark=2),
    "intervals": lambda name: intervals(name, [Dot("<b>$x$ & y", Interval(1, 0, 2))], "recall", zero=True),
    "histogram": lambda name: histogram(name, [1, 2, 4], [5, 6], "songs", "users"),
    "shares": lambda name: shares(name, ["head", "tail"], {"places": [0.7, 0.3], "listens": [0.5, 0.5]}),
}


@pytest.mark.parametrize("kind", sorted(DRAW))
def test_the_same_picture_has_the_same_bytes_and_the_pages_colours(kind: str) -> None:
    drawing = DRAW[kind]("one")
    assert drawing == DRAW[kind]("one")
    assert drawing.startswith("<svg viewBox=")
    assert drawing.endswith("</svg>")
    assert "var(--series-" in drawing
    assert not any(colour in drawing for colour in SERIES)
    assert "<style" not in drawing
    assert "http" not in drawing


def test_names_are_escaped_and_never_read_as_formulas() -> None:
    assert "&lt;b&gt;$x$ &amp; y" in DRAW["intervals"]("one")


def test_drawing_leaves_the_style_of_others_alone() -> None:
    before = dict(mpl.rcParams)
    DRAW["lines"]("one")
    assert dict(mpl.rcParams) == before


def test_a_line_of_one_point_and_an_empty_histogram_can_be_drawn() -> None:
    assert "<svg" in lines("one", [Line("loss", [1], [0.5])], "epoch", mark=1)
    assert "<svg" in histogram("two", [1], [], "songs", "artists")
