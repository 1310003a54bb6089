"""The blocks of a report: sections with tables, figures, notes and listeners. The template knows only these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.config import flat


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    kind: str = "text"
    """Classes of the style sheet: number, code, strong, muted, good, bad; with below, good or bad colours the last line
    only."""
    share: float | None = None
    """Length of a bar behind the text, from 0 to 1; None draws no bar."""
    details: Sequence[str] = ()
    """Smaller lines below the text."""


@dataclass(frozen=True)
class Table:
    """A table; its first column names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    folded: bool = False
    """True: the table is closed, with its caption visible, until the reader opens it."""
    narrow: bool = False
    """True: two of these tables fit side by side on a wide page."""
    block: str = "table"


@dataclass(frozen=True)
class Figures:
    """Small figures side by side, each a title and an SVG of ``evaluation.report.svg``."""

    panels: Sequence[tuple[str, str]]
    block: str = "figures"


@dataclass(frozen=True)
class Note:
    """A sentence."""

    text: str
    kind: str = "muted"
    block: str = "note"


@dataclass(frozen=True)
class Song:
    """A line of a list of songs."""

    title: str
    artist: str
    mark: str = ""
    """Text at the end of the line, for example how often the song was played."""
    found: bool = False
    """True if the song is both recommended and listened to."""


@dataclass(frozen=True)
class Listener:
    """One user: the known songs, the recommended songs, and the held-out songs."""

    user_id: str
    summary: str
    columns: Sequence[tuple[str, Sequence[Song]]]


@dataclass(frozen=True)
class Listeners:
    """A few users; the first ones are open."""

    people: Sequence[Listener]
    block: str = "listeners"


Block = Table | Figures | Note | Listeners


@dataclass(frozen=True)
class Section:
    """A section of the report, with a text that says how to read it."""

    anchor: str
    title: str
    text: str
    blocks: Sequence[Block] = ()
    absent: str = ""
    """Why the section has nothing to show; empty if it has something."""


def number(text: str, kind: str = "") -> Cell:
    """Create a cell with aligned digits."""
    return Cell(text, f"number {kind}".strip())


def settings_table(caption: str, values: Mapping[str, Any], folded: bool = True) -> Table:
    """Create a table of names and values; nested tables get dotted names."""
    rows = []
    for name, value in sorted(flat(values).items()):
        text = "not set" if value is None or value in ([], {}) else str(value)
        rows.append((Cell(name, "code"), Cell(text, "code")))
    return Table(("key", "value"), rows, caption, folded, narrow=True)
