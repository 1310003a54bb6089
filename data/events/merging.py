"""Merges duplicate events, and replaces ids by numbers."""

from __future__ import annotations

import duckdb

from data.errors import InputError

Connection = duckdb.DuckDBPyConnection


def number_ids(db: Connection) -> None:
    """Create ``all_users`` and ``all_songs`` (number, id), numbered in the byte order of the ids."""
    for table, column in (("all_users", "user_id"), ("all_songs", "track_id")):
        db.execute(
            f"CREATE TABLE {table} AS "
            f"SELECT (row_number() OVER (ORDER BY {column}) - 1)::INTEGER AS number, {column} AS id "
            f"FROM (SELECT DISTINCT {column} FROM checked_events WHERE reason IS NULL)"
        )


def merge_duplicates(db: Connection, rule: str) -> None:
    """Create ``events``: one row per event, with its number of ``copies`` and the ``rule`` that drops it, or NULL.

    Copies of an event may differ. The largest length and number of plays count. The event counts as skipped if all
    copies with a value say so.
    """
    numbered = """(SELECT u.number AS user, s.number AS song, e.* FROM checked_events AS e
        JOIN all_users AS u ON e.user_id = u.id JOIN all_songs AS s ON e.track_id = s.id WHERE e.reason IS NULL)"""
    if has_values(db, "played_at"):
        merged = f"""SELECT user, song, played_at, max(ms_played) AS ms_played, max(duration_ms) AS duration_ms,
            max(plays) AS plays, bool_and(skipped) AS skipped, min(split) AS split, count(*) AS copies
            FROM {numbered} GROUP BY user, song, played_at"""
    else:
        merged = (
            f"SELECT user, song, played_at, ms_played, duration_ms, plays, skipped, split, 1 AS copies FROM {numbered}"
        )
    db.execute(f"CREATE TABLE events AS SELECT *, {rule} AS rule FROM ({merged})")


def has_values(db: Connection, column: str) -> bool:
    """Return whether any row without a problem has a value in the column."""
    found = db.execute(f"SELECT 1 FROM checked_events WHERE reason IS NULL AND {column} IS NOT NULL LIMIT 1")
    return found.fetchone() is not None


def refuse_pairs_in_two_parts(db: Connection) -> None:
    """Refuse a user-song pair that is both in train and in test: a model would be tested on what it learned.

    Raises:
        InputError: names the first pair that is in two parts.
    """
    found = db.execute(
        """SELECT user_id, track_id, min(split), max(split) FROM checked_events WHERE reason IS NULL
           GROUP BY user_id, track_id HAVING min(split) <> max(split) ORDER BY user_id, track_id LIMIT 1"""
    ).fetchone()
    if found:
        user, track, one, other = found
        raise InputError(
            f"The user '{user}' and the track '{track}' are in two parts of the split, {one} and {other}; "
            "a pair belongs to one, so correct the split column."
        )
