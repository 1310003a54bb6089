"""Loads log files into one table with the canonical columns and, for each row, the reason if it is rejected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from data.config import unknown_name
from data.errors import InputError
from data.events.log_files import format_of
from data.events.log_table import LogFile, LogTable
from data.events.readers import READERS
from data.events.schema import Converted, Field, id_type, source_names

Connection = duckdb.DuckDBPyConnection

_ID_TYPES = {1: "whole numbers", 2: "text"}


def load_files(
    db: Connection, table: str, files: Sequence[Path], fields: tuple[Field, ...], renamed: Mapping[str, str]
) -> None:
    """Create ``table`` and load all files into it.

    Its columns are ``file`` (index into ``files``), ``row`` (from 1), ``reason`` (NULL if nothing is wrong), the
    canonical columns, and ``<id>_type`` for each required id.

    Raises:
        InputError: a file cannot be read, lacks a required column, or has one of a type that cannot be converted.
    """
    stored = ", ".join(f"{field.name} {field.kind.stored}" for field in fields)
    types = ", ".join(f"{field.name}_type UTINYINT" for field in _ids(fields))
    db.execute(f"CREATE TABLE {table} (file INTEGER, row BIGINT, reason VARCHAR, {stored}, {types})")
    names = source_names(fields, renamed)
    there: set[str] = set()
    for place, path in enumerate(files):
        there.update(_load_file(db, table, place, path, fields, names))
    _require_renamed(renamed, names, there, files)


def require_one_id_type(db: Connection, tables: Mapping[str, Sequence[Path]], name: str) -> None:
    """Refuse an id that is text in one file and a whole number in another: '007' and 7 would be different ids.

    Raises:
        InputError: names a file of each type.
    """
    union = " UNION ALL ".join(f"SELECT '{table}' AS log, file, {name}_type AS type FROM {table}" for table in tables)
    found = db.execute(
        f"SELECT type, min((log, file)) FROM ({union}) WHERE type IS NOT NULL GROUP BY type ORDER BY type"
    ).fetchall()
    if len(found) > 1:
        given = [f"{_ID_TYPES[kind]} in {tables[log][file]}" for kind, (log, file) in found]
        raise InputError(f"{name} is given as {' and as '.join(given)}; write it the same way in all files.")


def _load_file(
    db: Connection, table: str, place: int, path: Path, fields: tuple[Field, ...], names: Mapping[str, str]
) -> tuple[str, ...]:
    log_format, compression = format_of(path)
    wanted = tuple(dict.fromkeys(names[field.name] for field in fields if field.name in names))
    with _reading(path):
        log_table = READERS[log_format](LogFile(path, compression, wanted), db)
        _require_columns(path, log_table, fields, names)
        try:
            _insert(db, table, place, path, log_table, fields, names)
        except duckdb.InvalidInputException:
            if log_table.line_by_line is None:
                raise
            _insert(db, table, place, path, log_table.line_by_line(), fields, names)
    return log_table.names


def _insert(
    db: Connection,
    table: str,
    place: int,
    path: Path,
    log_table: LogTable,
    fields: tuple[Field, ...],
    names: Mapping[str, str],
) -> None:
    converted = {field.name: _convert(path, log_table, field, names) for field in fields}
    problems = [problem for values in converted.values() for problem in values.problems]
    if log_table.malformed:
        problems = [log_table.malformed, *problems]
    reasons = " ".join(f"WHEN {problem.where} THEN '{problem.reason}'" for problem in problems)
    reason = f"CASE {reasons} END"
    values = [f"{converted[field.name].value} AS {field.name}" for field in fields]
    types = [f"{id_type(log_table.columns[names[field.name]])} AS {field.name}_type" for field in _ids(fields)]
    selected = ", ".join([f"{place} AS file", f"{log_table.row} AS row", f"{reason} AS reason", *values, *types])
    db.execute(f"INSERT INTO {table} BY NAME SELECT {selected} FROM {log_table.source}", log_table.parameters)


def _convert(path: Path, log_table: LogTable, field: Field, names: Mapping[str, str]) -> Converted:
    column = log_table.columns.get(names.get(field.name, ""))
    if column is None:
        return Converted("1" if field.name == "plays" else "NULL")
    converted = field.kind.convert(field.name, column)
    if converted is None:
        raise InputError(
            f"{path}: the column '{names[field.name]}' holds {column.type}, but {field.name} must be "
            f'{field.kind.allowed}; convert it, or name another column with columns = {{{field.name} = "…"}}.'
        )
    return converted


def _require_columns(path: Path, log_table: LogTable, fields: tuple[Field, ...], names: Mapping[str, str]) -> None:
    if not log_table.names and log_table.malformed:  # JSON lines without a line
        return
    for field in fields:
        if field.required and names.get(field.name) not in log_table.names:
            given = names.get(field.name, field.name)
            raise InputError(
                f"{path} has no column '{given}'; it has {', '.join(log_table.names)}. "
                f'Say which one is the {field.name} with columns = {{{field.name} = "…"}}.'
            )


def _require_renamed(
    renamed: Mapping[str, str], names: Mapping[str, str], there: set[str], files: Sequence[Path]
) -> None:
    for canonical, given in renamed.items():
        if canonical in names and files and there and given not in there:
            raise InputError(unknown_name(f"columns.{canonical} names a column that no file has,", given, there))


def _ids(fields: tuple[Field, ...]) -> list[Field]:
    return [field for field in fields if field.required and field.kind.stored == "VARCHAR"]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn all errors that reading a file can cause into a sentence that names the file."""
    try:
        if path.suffix.lower() != ".jsonl" and path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes); remove it, or write it again.")
        yield
    except FileNotFoundError:
        raise InputError(f"{path} does not exist (any more); run again with the files there are.") from None
    except PermissionError:
        raise InputError(f"{path} may not be read; change its permissions.") from None
    except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.SerializationException) as error:
        raise InputError(f"{path} cannot be read ({str(error).splitlines()[0]}); write it again.") from None
    except duckdb.IOException as error:
        if path.name not in str(error):
            raise
        raise InputError(f"{path} cannot be read ({str(error).splitlines()[0]}); copy it again.") from None
