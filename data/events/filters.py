"""Filters of events: rules for single rows, and the k-core of users and songs.

Each dropped event is counted under exactly one rule, so that the counts add up.
"""

from __future__ import annotations

from datetime import UTC, datetime

import duckdb
import numpy as np

from data.cutoff import Cut, CutConfig, temporal_cut

Connection = duckdb.DuckDBPyConnection

ROW_RULES = ("min_ms_played", "since", "until")
CORE_RULES = {"user": "min_user_songs", "song": "min_song_users"}
DAY_US = 86_400_000_000


def row_rule(min_ms_played: int, since: datetime | None, until: datetime | None) -> str:
    """Return the SQL expression for the rule that drops an event, or NULL; an event of unknown length is kept."""
    cases = [f"WHEN ms_played < {int(min_ms_played)} THEN 'min_ms_played'"]
    if since:
        cases.append(f"WHEN played_at < {microseconds(since)} THEN 'since'")
    if until:
        cases.append(f"WHEN played_at >= {microseconds(until)} THEN 'until'")
    return f"CASE {' '.join(cases)} END"


def microseconds(moment: datetime) -> int:
    """Return the microseconds since 1970 UTC; a time without a zone is UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round((aware - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000)


def log_cut(db: Connection, config: CutConfig) -> Cut:
    """Decide the temporal cut from the events that the row rules keep.

    It counts one row per user, song and day, as the split does.
    """
    rows = "SELECT DISTINCT user, song, played_at // $day AS day FROM events WHERE rule IS NULL"
    by_day = db.execute(
        f"SELECT day, count(*) AS rows FROM ({rows}) WHERE day IS NOT NULL GROUP BY day ORDER BY day", {"day": DAY_US}
    ).fetchnumpy()
    return temporal_cut(np.asarray(by_day["day"]), config, np.asarray(by_day["rows"]))


def drop_outside_core(db: Connection, min_user_songs: int, min_song_users: int, before_day: int | None) -> None:
    """Drop users with too few songs and songs with too few users, in turn, until all others have enough.

    Fills ``dropped_user`` and ``dropped_song`` (node, step). The rest is the largest set in which all users and songs
    satisfy both minima; it does not depend on the order (the k-core of a bipartite graph; Seidman 1983). A user-song
    pair counts once, for any number of plays. With ``before_day`` only listens before that day count, so that the
    result does not depend on what a temporal split holds out.
    """
    minima = {"user": min_user_songs, "song": min_song_users}
    counted = "true" if before_day is None else f"played_at < {int(before_day) * DAY_US}"
    db.execute(f"CREATE TEMP TABLE pairs AS SELECT DISTINCT user, song FROM events WHERE rule IS NULL AND {counted}")
    for kind in minima:
        db.execute(f"CREATE TEMP TABLE alive_{kind} AS SELECT DISTINCT {kind} AS node FROM events WHERE rule IS NULL")
        db.execute(f"CREATE TEMP TABLE dropped_{kind} (node INTEGER, step INTEGER)")
    step, unchanged = 0, 0
    while unchanged < len(minima):
        kind = ("user", "song")[step % 2]
        step += 1
        unchanged = 0 if _drop_weak(db, kind, minima[kind], step) else unchanged + 1
    db.execute("DROP TABLE pairs")


def _drop_weak(db: Connection, kind: str, minimum: int, step: int) -> int:
    degrees = f"SELECT {kind} AS node, count(*) AS degree FROM pairs GROUP BY {kind}"
    db.execute(
        f"CREATE OR REPLACE TEMP TABLE weak AS SELECT node FROM alive_{kind} LEFT JOIN ({degrees}) USING (node) "
        f"WHERE coalesce(degree, 0) < {int(minimum)}"
    )
    row = db.execute(f"INSERT INTO dropped_{kind} SELECT node, {step} FROM weak").fetchone()
    dropped = int(row[0]) if row else 0
    if dropped:
        db.execute(f"DELETE FROM alive_{kind} WHERE node IN (FROM weak)")
        db.execute(f"DELETE FROM pairs WHERE {kind} IN (FROM weak)")
    return dropped


def charge_to_core_rules(db: Connection) -> None:
    """Create ``judged``: the events, each with the rule that drops it.

    If both the user and the song of an event were dropped, the rule of the one that was dropped first counts.
    """
    core = f"""CASE WHEN u.step < coalesce(s.step, u.step + 1) THEN '{CORE_RULES["user"]}'
                    WHEN s.step IS NOT NULL THEN '{CORE_RULES["song"]}' END"""
    db.execute(
        f"""
        CREATE TABLE judged AS
        SELECT events.* REPLACE (coalesce(events.rule, {core}) AS rule) FROM events
        LEFT JOIN dropped_user AS u ON events.user = u.node LEFT JOIN dropped_song AS s ON events.song = s.node
        """
    )
