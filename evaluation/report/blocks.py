"""What a report is made of: sections of tables, figures, and listeners. The template knows these and no others."""

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
    """Classes of the style sheet: number, code, strong, muted, good, bad; below, where the last line is good or bad."""
    share: float | None = None
    """Length of a bar behind the text, from 0 to 1; none draws no bar."""
    details: Sequence[str] = ()
    """Further, smaller lines."""


@dataclass(frozen=True)
class Table:
    """A table; its first column names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    folded: bool = False
    """Whether it is closed until someone opens it; the caption is what one then sees."""
    narrow: bool = False
    """Whether two of them fit beside each other on a wide page."""
    block: str = "table"


@dataclass(frozen=True)
class Figures:
    """Small figures side by side, each an SVG that ``evaluation.report.svg`` made, with its title."""

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
    """What is said at the line's end, for example how often it was played."""
    found: bool = False
    """Whether the song is both recommended and listened to."""


@dataclass(frozen=True)
class Listener:
    """One user: what the model knew, what it recommends, and what the user went on to listen to."""

    user_id: str
    summary: str
    columns: Sequence[tuple[str, Sequence[Song]]]


@dataclass(frozen=True)
class Listeners:
    """A few users; the first are open."""

    people: Sequence[Listener]
    block: str = "listeners"


Block = Table | Figures | Note | Listeners


@dataclass(frozen=True)
class Section:
    """A part of the report, with one sentence that says how to read it."""

    anchor: str
    title: str
    reading: str
    blocks: Sequence[Block] = ()
    absent: str = ""
    """Why the section has nothing to show; empty where it has."""


def number(text: str, kind: str = "") -> Cell:
    """A cell whose digits stand below each other."""
    return Cell(text, f"number {kind}".strip())


def settings_table(caption: str, values: Mapping[str, Any], folded: bool = True) -> Table:
    """A table of names and values; nested tables get dotted names."""
    rows = [(Cell(name, "code"), Cell(_plain(value), "code")) for name, value in sorted(flat(values).items())]
    return Table(("key", "value"), rows, caption, folded, narrow=True)


def _plain(value: Any) -> str:
    return "not set" if value is None or value in ([], {}) else str(value)
