"""One reader for each log format: turns a file into a table that DuckDB can select from."""

from __future__ import annotations

import csv
import glob
from collections import Counter

import duckdb

from data.errors import InputError
from data.events.log_table import LogFile, LogTable, Reader
from data.events.schema import TEXT, Column, Problem
from data.events.sql import identifier, literal
from data.events.text_files import check_text, first_line

Connection = duckdb.DuckDBPyConnection

_DELIMITERS = ",\t;|"
_KEYS_FROM = 10_000


def open_parquet(file: LogFile, db: Connection) -> LogTable:
    """Open a Parquet file with any inner compression; its columns have types."""
    source = "read_parquet(?, file_row_number = true, hive_partitioning = false)"
    parameters: list[object] = [glob.escape(str(file.path))]
    try:
        described = db.execute(f"DESCRIBE SELECT * FROM {source}", parameters).fetchall()
    except duckdb.Error as error:
        raise InputError(
            f"{file.path} is not a whole Parquet file ({str(error).splitlines()[0].removesuffix('.')}); "
            "copy or write it again."
        ) from None
    columns = {name: _typed(name, kind) for name, kind, *_ in described if name != "file_row_number"}
    return LogTable(source, columns, "file_row_number + 1", tuple(columns), parameters)


def open_jsonl(file: LogFile, db: Connection) -> LogTable:
    """Open JSON lines, one object per line; a key may be absent in some lines."""
    check_text(file.path, file.compression)
    if first_line(file.path, file.compression).lstrip().startswith("["):
        raise InputError(f"{file.path} holds a JSON array; JSON lines are needed, one object a line (jq -c '.[]').")
    # one call extracts all keys, so that each line is parsed once
    pointers = ", ".join(literal(_pointer(name)) for name in file.wanted)
    lines = f"read_ndjson_objects(?, ignore_errors = true, compression = '{file.compression or 'none'}')"
    source = f"(SELECT row_number() OVER () AS row, json, json_extract(json, [{pointers}]) AS found FROM {lines})"
    parameters: list[object] = [glob.escape(str(file.path))]
    keys = _keys(db, lines, parameters)
    columns = {name: Column(f"found[{place}]", "JSON") for place, name in enumerate(file.wanted, 1)}
    malformed = Problem("the line is not a JSON object", "json IS NULL OR json_type(json) <> 'OBJECT'")
    return LogTable(source, columns, "row", keys, parameters, malformed)


def open_csv(file: LogFile, db: Connection) -> LogTable:
    """Open CSV with a header, separated by comma, tab, semicolon or bar, with quotes as in RFC 4180."""
    check_text(file.path, file.compression)
    names, delimiter = _header(file)
    places = {name: f"c{place}" for place, name in enumerate(names)}
    reader = _read_csv(file, list(places.values()), delimiter)
    source = f"(SELECT row_number() OVER () AS row, * FROM {reader})"
    columns = {name: Column(place, TEXT) for name, place in places.items()}
    parameters: list[object] = [glob.escape(str(file.path))]

    def line_by_line() -> LogTable:
        _read_line_by_line(file, db, _read_csv(file, list(places.values()), delimiter, ", " + _REJECTS))
        malformed = Problem("the line does not have as many values as the header, or a stray quote", "malformed")
        return LogTable("csv_rows", columns, "row", names, malformed=malformed)

    return LogTable(source, columns, "row", names, parameters, line_by_line=line_by_line)


def _typed(name: str, kind: str) -> Column:
    """Return a column of Parquet; a column of the type NULL has no values, and is read as text."""
    return Column("NULL::VARCHAR", TEXT) if kind == '"NULL"' else Column(identifier(name), kind)


_REJECTS = "store_rejects = true, rejects_table = 'csv_rejects', rejects_scan = 'csv_scans', rejects_limit = 0"


def _read_csv(file: LogFile, places: list[str], delimiter: str, more: str = "") -> str:
    columns = ", ".join(f"'{place}': 'VARCHAR'" for place in places)
    return (
        f"read_csv(?, auto_detect = false, header = true, delim = {literal(delimiter)}, quote = '\"', escape = '\"', "
        f"columns = {{{columns}}}, compression = '{file.compression or 'none'}'{more})"
    )


def _header(file: LogFile) -> tuple[tuple[str, ...], str]:
    line = first_line(file.path, file.compression)
    if not line:
        raise InputError(f"{file.path} is empty; a CSV file begins with a line that names its columns.")
    try:
        splits = {delimiter: next(csv.reader([line], delimiter=delimiter)) for delimiter in _DELIMITERS}
    except csv.Error as error:
        raise InputError(
            f"{file.path} has a first line that cannot be divided into names of columns ({error}); "
            "end every line with a line feed, as CSV files do (RFC 4180)."
        ) from None
    delimiter = max(splits, key=lambda delimiter: len(splits[delimiter]))
    names = splits[delimiter]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise InputError(
            f"{file.path} names the column '{twice[0]}' twice in its first line; each name may be there once."
        )
    return tuple(names), delimiter


def _read_line_by_line(file: LogFile, db: Connection, reader: str) -> None:
    """Fill ``csv_rows`` with all rows and their numbers; rows that cannot be divided into columns are malformed."""
    db.execute("DROP TABLE IF EXISTS csv_rejects; DROP TABLE IF EXISTS csv_scans")
    db.execute(
        f"CREATE OR REPLACE TEMP TABLE csv_read AS SELECT row_number() OVER () AS place, * FROM {reader}",
        [glob.escape(str(file.path))],
    )
    _refuse_open_quotes(file, db)
    # for DuckDB the header is line 1, and the rows that it could read are numbered without gaps
    db.execute(
        """
        CREATE OR REPLACE TEMP TABLE csv_malformed AS
        SELECT row, row_number() OVER (ORDER BY row) AS nth FROM (SELECT DISTINCT line - 1 AS row FROM csv_rejects);
        CREATE OR REPLACE TEMP TABLE csv_rows AS
        WITH skipped AS (SELECT row - nth AS readable_before, max(nth) AS nth FROM csv_malformed GROUP BY 1)
        SELECT place + coalesce(nth, 0) AS row, false AS malformed, csv_read.* EXCLUDE place
        FROM csv_read ASOF LEFT JOIN skipped ON csv_read.place > skipped.readable_before
        UNION ALL BY NAME SELECT row, true AS malformed FROM csv_malformed
        """
    )
    db.execute("DROP TABLE csv_read; DROP TABLE csv_rejects; DROP TABLE csv_scans; DROP TABLE csv_malformed")


def _refuse_open_quotes(file: LogFile, db: Connection) -> None:
    """Refuse a quote that is never closed: it takes in the following lines, and the number of lost rows is unknown."""
    # DuckDB keeps the first 10,000 characters of a line
    spans = "contains(rtrim(csv_line, chr(10) || chr(13)), chr(10)) OR length(csv_line) >= 10000"
    found = db.execute(f"SELECT min(line) FROM csv_rejects WHERE {spans}").fetchone()
    if found and found[0] is not None:
        raise InputError(f"{file.path} has a quote that is never closed, near line {found[0]}; repair that line.")
    if db.execute("SELECT count(*) FROM csv_rejects").fetchone() == (0,):
        raise InputError(
            f"{file.path} cannot be divided into rows, probably for a quote that is never closed; repair it."
        )


def _keys(db: Connection, lines: str, parameters: list[object]) -> tuple[str, ...]:
    """Return the keys in the first lines, sorted."""
    head = f"SELECT json FROM {lines} LIMIT {_KEYS_FROM}"
    found = db.execute(f"SELECT DISTINCT unnest(json_keys(json)) AS key FROM ({head}) ORDER BY key", parameters)
    return tuple(key for (key,) in found.fetchall())


def _pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")


READERS: dict[str, Reader] = {"parquet": open_parquet, "csv": open_csv, "jsonl": open_jsonl}
"""The reader of each format; ``data.events.log_files`` knows their suffixes."""
