"""What every reader of a log format gives back, so that the rest of ingest does not know formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from data.events.schema import Column, Problem

Reader = Callable[["LogFile", duckdb.DuckDBPyConnection], "LogTable"]


@dataclass(frozen=True)
class LogFile:
    """One file of a log, its compression, and the columns that someone will ask it for."""

    path: Path
    compression: str | None
    wanted: tuple[str, ...]


@dataclass(frozen=True)
class LogTable:
    """The rows of one file as something DuckDB can select from."""

    source: str
    """The FROM clause."""
    columns: dict[str, Column]
    """Name in the file to column."""
    row: str
    """Expression for the number of a row, from 1."""
    names: tuple[str, ...] = ()
    """The columns there are, for a person to read."""
    parameters: list[object] = field(default_factory=list)
    """Values of the ``?`` in ``source``."""
    malformed: Problem | None = None
    """What is wrong with a row that cannot be divided into columns."""
    line_by_line: Callable[[], LogTable] | None = None
    """How to read the file row by row once reading it whole has failed."""
