"""The canonical schema of a log, and how columns of any source are converted to it.

Each conversion is a set of DuckDB expressions, for the value and for its problems, so that a log of any size is checked
without a Python loop. A column of a type that cannot be converted is an error of the whole file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

EARLIEST, END = "1990-01-01", "2100-01-01"
"""``played_at`` is in [EARLIEST, END): earlier there were no such logs, and later times come from a wrong clock. The
bounds are fixed, so that a log gives the same result on every day; ``until`` can set an earlier end."""

MOST_PLAYS = 1_000_000_000
"""The most plays in one row: nobody plays a song more often, and the sums of all rows fit into 64 bits."""

TEXT = "TEXT"
"""The type of all columns of a source without types (CSV)."""

_EARLIEST_US, _END_US = 631_152_000_000_000, 4_102_444_800_000_000
_PARTS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
_JSON_INTEGERS = "('BIGINT', 'UBIGINT')"
_INTEGER = r"U?(TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)"
_NUMBER = rf"{_INTEGER}|FLOAT|DOUBLE|DECIMAL\(.*\)"
_STRING = r"VARCHAR|ENUM\(.*\)|UUID"
_TIMESTAMP = r"TIMESTAMP(_S|_MS|_NS)?|DATE"


class Problem(NamedTuple):
    """A reason to reject a row, and the SQL expression that is true if it applies."""

    reason: str
    where: str


class Converted(NamedTuple):
    """The SQL expression of a canonical value, and its possible problems; the first one that applies is reported."""

    value: str
    problems: tuple[Problem, ...] = ()


class Column(NamedTuple):
    """A column of a source: the SQL expression that reads it, and its type: a DuckDB type, ``TEXT`` or ``JSON``."""

    sql: str
    type: str

    def is_a(self, pattern: str) -> bool:
        """Return whether the whole type matches the pattern."""
        return re.fullmatch(pattern, self.type) is not None

    @property
    def text(self) -> str:
        """SQL expression of the value as text; empty text is NULL."""
        text = f"({self.sql} ->> '$')" if self.type == "JSON" else f"({self.sql})::VARCHAR"
        return f"nullif({text}, '')"


class Kind(NamedTuple):
    """A kind of canonical column: its DuckDB type, the values that a source may have, and the conversion."""

    stored: str
    allowed: str
    convert: Callable[[str, Column], Converted | None]


class Field(NamedTuple):
    """A canonical column."""

    name: str
    kind: Kind
    required: bool = False


def _id(name: str, column: Column) -> Converted | None:
    empty = Problem(f"{name} is empty", f"({column.text}) IS NULL OR trim({column.text}) = ''")
    if column.type == "JSON":
        odd = f"json_type({column.sql}) NOT IN ('VARCHAR', 'NULL') AND json_type({column.sql}) NOT IN {_JSON_INTEGERS}"
        return Converted(column.text, (Problem(f"{name} is not text or a whole number", odd), empty))
    return Converted(column.text, (empty,)) if column.is_a(rf"TEXT|{_STRING}|{_INTEGER}") else None


def _texts(name: str, column: Column) -> Converted | None:
    whole = f"CASE WHEN {column.text} IS NOT NULL THEN [{column.text}] END"
    if column.is_a(r"TEXT|JSON"):
        json = column.sql if column.type == "JSON" else f"try_cast({column.sql} AS JSON)"
        is_list = f"json_type({json}) = 'ARRAY'"
        if column.type == TEXT:  # most values are plain ids, so parse only those that begin like a list
            is_list = f"starts_with({column.sql}, '[') AND {is_list}"
        return Converted(f"CASE WHEN {is_list} THEN json_extract_string({json}, '$[*]') ELSE {whole} END")
    if column.is_a(rf"({_STRING}|{_INTEGER})\[\]"):
        return Converted(f"({column.sql})::VARCHAR[]")
    return Converted(whole) if column.is_a(rf"{_STRING}|{_INTEGER}") else None


def _name(name: str, column: Column) -> Converted | None:
    return Converted(column.text) if column.is_a(rf"TEXT|JSON|{_STRING}|{_INTEGER}") else None


def _time(name: str, column: Column) -> Converted | None:
    """Convert to microseconds since 1970 UTC; a time without a zone is UTC.

    A number counts seconds, milliseconds, microseconds or nanoseconds: from EARLIEST to END these ranges do not
    overlap, so the size of the number tells the unit.
    """
    given = column.text
    if column.is_a(r"TIMESTAMP WITH TIME ZONE"):
        value = _microseconds(column.sql)
    elif column.is_a(_TIMESTAMP):
        value = _microseconds(f"({column.sql})::TIMESTAMP")
    elif column.is_a(_NUMBER):
        given, value = _finite(column), _epoch(_finite(column))
    elif column.is_a(r"TEXT|JSON|VARCHAR"):
        value = f"coalesce({_epoch(given)}, {_microseconds(f'try_cast({given} AS TIMESTAMPTZ)')})"
    else:
        return None
    return Converted(
        value,
        (
            Problem(f"{name} is not a time", f"({given}) IS NOT NULL AND ({value}) IS NULL"),
            Problem(
                f"{name} is before {EARLIEST[:4]} or after {int(END[:4]) - 1}",
                f"({value}) NOT BETWEEN {_EARLIEST_US} AND {_END_US} - 1",
            ),
        ),
    )


def _microseconds(timestamp: str) -> str:
    return f"CASE WHEN isfinite({timestamp}) THEN epoch_us({timestamp}) END"


def _epoch(number: str) -> str:
    exact = f"try_cast({number} AS DECIMAL(28, 6))"
    units = {1: 10**6, 10**3: 10**3, 10**6: 1}
    cases = " ".join(
        f"WHEN {exact} >= {_EARLIEST_US // 10**6 * unit} AND {exact} < {_END_US // 10**6 * unit} "
        f"THEN ({exact} * {factor})::BIGINT"
        for unit, factor in units.items()
    )
    nano = f"WHEN {exact} >= {_EARLIEST_US * 1000} AND {exact} < {_END_US * 1000} THEN ({exact} // 1000)::BIGINT"
    return f"CASE {cases} {nano} WHEN {exact} IS NOT NULL THEN -1 END"


def _finite(column: Column) -> str:
    """Return the SQL expression of a number; NaN, which some writers use for a missing value, becomes NULL."""
    if column.is_a(r"FLOAT|DOUBLE"):
        return f"CASE WHEN NOT isnan({column.sql}) THEN {column.sql} END"
    return column.sql if column.is_a(_NUMBER) else column.text


def _number(name: str, column: Column) -> tuple[str, Problem] | None:
    if not column.is_a(rf"TEXT|JSON|{_NUMBER}"):
        return None
    given = _finite(column)
    number = f"try_cast({given} AS DOUBLE)"
    unusable = f"({given}) IS NOT NULL AND ({number} IS NULL OR NOT isfinite({number}) OR abs({number}) > 1e15)"
    return number, Problem(f"{name} is not a number", unusable)


def _duration(name: str, column: Column) -> Converted | None:
    found = _number(name, column)
    if found is None:
        return None
    number, unusable = found
    value = f"CASE WHEN abs({number}) <= 1e15 THEN round({number})::BIGINT END"
    return Converted(value, (unusable, Problem(f"{name} is negative", f"{number} < 0")))


def _plays(name: str, column: Column) -> Converted | None:
    found = _number(name, column)
    if found is None:
        return None
    number, unusable = found
    value = f"CASE WHEN abs({number}) <= {MOST_PLAYS} THEN coalesce(round({number})::BIGINT, 1) ELSE 1 END"
    wrong = Problem(f"{name} is not a whole number above 0", f"{number} < 1 OR {number} <> round({number})")
    absurd = Problem(f"{name} is above {MOST_PLAYS:,}", f"{number} > {MOST_PLAYS}")
    return Converted(value, (unusable, wrong, absurd))


def _flag(name: str, column: Column) -> Converted | None:
    if column.is_a("BOOLEAN"):
        return Converted(column.sql)
    if not column.is_a(rf"TEXT|JSON|{_NUMBER}"):
        return None
    given = _finite(column)
    text = f"lower(({given})::VARCHAR)"
    value = f"CASE WHEN {text} IN ('true', '1', '1.0') THEN true WHEN {text} IN ('false', '0', '0.0') THEN false END"
    return Converted(value, (Problem(f"{name} is not true or false", f"({given}) IS NOT NULL AND ({value}) IS NULL"),))


def _part(name: str, column: Column) -> Converted | None:
    if not column.is_a(rf"TEXT|JSON|{_STRING}"):
        return None
    cases = " ".join(f"WHEN '{given}' THEN '{part}'" for given, part in _PARTS.items())
    value = f"CASE {column.text} {cases} END"
    wrong = f"({column.text}) IS NOT NULL AND ({value}) IS NULL"
    return Converted(value, (Problem(f"{name} is not train, valid or test", wrong),))


ID = Kind("VARCHAR", "text or whole numbers", _id)
IDS = Kind("VARCHAR[]", "text, whole numbers, or a list of them", _texts)
NAMES = Kind("VARCHAR[]", "text or a list of texts", _texts)
NAME = Kind("VARCHAR", "text", _name)
TIME = Kind("BIGINT", "timestamps, ISO 8601 text, or numbers counted from 1970", _time)
DURATION = Kind("BIGINT", "numbers (milliseconds)", _duration)
PLAYS = Kind("BIGINT", "whole numbers", _plays)
FLAG = Kind("BOOLEAN", "true and false", _flag)
PART = Kind("VARCHAR", "train, valid or test", _part)

EVENTS = (
    Field("user_id", ID, required=True),
    Field("track_id", ID, required=True),
    Field("artist_id", IDS),
    Field("artist_name", NAMES),
    Field("track_name", NAME),
    Field("played_at", TIME),
    Field("ms_played", DURATION),
    Field("duration_ms", DURATION),
    Field("plays", PLAYS),
    Field("skipped", FLAG),
    Field("split", PART),
)

TRACK_ARTISTS = (
    Field("track_id", ID, required=True),
    Field("artist_id", IDS, required=True),
    Field("artist_name", NAMES),
    Field("track_name", NAME),
)


def source_names(fields: tuple[Field, ...], renamed: Mapping[str, str]) -> dict[str, str]:
    """Return the name in the source for each canonical name; a renamed source column is not read a second time."""
    taken = {given for canonical, given in renamed.items() if given != canonical}
    own = {field.name: field.name for field in fields if field.name not in taken}
    return own | {canonical: given for canonical, given in renamed.items() if canonical in {f.name for f in fields}}


def id_type(column: Column) -> str:
    """Return the SQL expression for the type of an id: 1 whole number, 2 text, NULL if the source has no types."""
    if column.type == "JSON":
        given = f"json_type({column.sql})"
        return f"CASE WHEN {given} = 'VARCHAR' THEN 2 WHEN {given} IN {_JSON_INTEGERS} THEN 1 END"
    if column.type == TEXT:
        return "NULL"
    return f"CASE WHEN {column.sql} IS NOT NULL THEN {1 if column.is_a(_INTEGER) else 2} END"
