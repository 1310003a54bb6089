"""Rows that break the schema: counts them, limits their number and writes where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

from data.errors import InputError
from data.events.database import write_parquet

Connection = duckdb.DuckDBPyConnection

STORED = 100_000
"""At most this many rejected rows are stored; the counts are always exact."""

_ALL_OR_NONE = ("played_at", "split")


def reject_incomplete_rows(db: Connection) -> None:
    """Create ``checked_events``: raw events, and rows without a time (or a split part) are rejected if others have one.

    A temporal split could not place such a row. The result does not depend on the file that a row is in.
    """
    cases = ""
    for name in _ALL_OR_NONE:
        given = db.execute(f"SELECT 1 FROM raw_events WHERE reason IS NULL AND {name} IS NOT NULL LIMIT 1").fetchone()
        cases += f" WHEN {name} IS NULL THEN '{name} is empty, and other rows have it'" if given else ""
    reason = f"CASE WHEN reason IS NOT NULL THEN reason {cases} END"
    db.execute(f"CREATE VIEW checked_events AS SELECT * REPLACE ({reason} AS reason) FROM raw_events")
    db.execute("CREATE VIEW checked_tracks AS FROM raw_tracks")


def count_rejected(db: Connection, checked: str) -> tuple[int, dict[str, int]]:
    """Return the number of rows read, and the number of rejected rows for each reason."""
    found = db.execute(f"SELECT reason, count(*) FROM {checked} GROUP BY reason ORDER BY reason").fetchall()
    by_reason = {reason: rows for reason, rows in found if reason is not None}
    return sum(rows for _, rows in found), by_reason


def require_few_rejected(db: Connection, checked: str, files: Sequence[Path], max_rejected: float) -> None:
    """Refuse a log in which too many rows break the schema.

    Raises:
        InputError: names all reasons with their counts, and the first rejected row.
    """
    read, by_reason = count_rejected(db, checked)
    rejected = sum(by_reason.values())
    if rejected <= max_rejected * read:
        return
    reasons = ", ".join(f"{reason} ({rows})" for reason, rows in sorted(by_reason.items(), key=lambda item: -item[1]))
    first = db.execute(
        f"SELECT file, row, reason FROM {checked} WHERE reason IS NOT NULL ORDER BY 1, 2 LIMIT 1"
    ).fetchone()
    assert first is not None
    raise InputError(
        f"{rejected} of {read} rows cannot be used ({rejected / read:.1%}, max_rejected allows {max_rejected:.1%}): "
        f"{reasons}. The first: {files[first[0]]}, row {first[1]}: {first[2]}. Repair the log, or raise max_rejected."
    )


def write_rejects(db: Connection, files: Mapping[str, Sequence[Path]], path: Path) -> None:
    """Write ``file``, ``row`` (from 1) and ``reason`` of the first ``STORED`` rejected rows of each checked table."""
    db.execute("CREATE TEMP TABLE file_names (checked VARCHAR, file INTEGER, name VARCHAR)")
    names = [(checked, place, str(file)) for checked, paths in files.items() for place, file in enumerate(paths)]
    db.executemany("INSERT INTO file_names VALUES (?, ?, ?)", names)
    rejected = " UNION ALL ".join(
        f"(SELECT name, row, reason FROM {checked} JOIN file_names USING (file) "
        f"WHERE reason IS NOT NULL AND checked = '{checked}')"
        for checked in files
    )
    write_parquet(db, f"SELECT name AS file, row, reason FROM ({rejected}) ORDER BY file, row LIMIT {STORED}", path)
