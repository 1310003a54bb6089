"""The result of all readers of log files, so that the rest of ingest need not know the formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from data.events.schema import Column, Problem

Reader = Callable[["LogFile", duckdb.DuckDBPyConnection], "LogTable"]


@dataclass(frozen=True)
class LogFile:
    """One file of a log, its compression, and the columns that will be read."""

    path: Path
    compression: str | None
    wanted: tuple[str, ...]


@dataclass(frozen=True)
class LogTable:
    """The rows of one file, as an SQL table that DuckDB can select from."""

    source: str
    """The FROM clause."""
    columns: dict[str, Column]
    """The columns by their name in the file."""
    row: str
    """SQL expression for the number of a row, from 1."""
    names: tuple[str, ...] = ()
    """All columns of the file, for error messages."""
    parameters: list[object] = field(default_factory=list)
    """Values of the ``?`` in ``source``."""
    malformed: Problem | None = None
    """The problem of a row that cannot be divided into columns."""
    line_by_line: Callable[[], LogTable] | None = None
    """Reads the file line by line; called if reading it as a whole fails."""
