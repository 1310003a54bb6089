"""The output tables of ingest: listens by day, vocabularies, and the artists of songs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from data.cutoff import day_to_date
from data.events.database import write_parquet
from data.events.filters import DAY_US
from data.vocabulary import id_hash_sql

Connection = duckdb.DuckDBPyConnection

_SHARES = 1_000_000_000
"""Completion is summed in whole billionths, because sums of integers do not depend on the order of threads."""


def write_tables(db: Connection, folder: Path) -> dict[str, Any]:
    """Write the tables of the kept events; return their numbers of rows, and the first and last day."""
    _number_nodes(db)
    _collect_artists(db)
    sizes = {
        "listens": write_parquet(db, _LISTENS, folder / "listens.parquet"),
        "users": write_parquet(db, _USERS, folder / "users.parquet"),
        "songs": write_parquet(db, _SONGS, folder / "songs.parquet"),
        "artists": write_parquet(db, _ARTISTS, folder / "artists.parquet"),
        "song_artists": write_parquet(db, _SONG_ARTISTS, folder / "song_artists.parquet"),
    }
    return sizes | _span(db)


def _number_nodes(db: Connection) -> None:
    """Create ``users`` and ``songs`` (node, number, id): kept users and songs, with node numbers without gaps."""
    for table, column in (("users", "user"), ("songs", "song")):
        db.execute(
            f"""CREATE TABLE {table} AS
            SELECT (row_number() OVER (ORDER BY number) - 1)::INTEGER AS node, number, id
            FROM all_{table} WHERE number IN (SELECT {column} FROM judged WHERE rule IS NULL)"""
        )


def _collect_artists(db: Connection) -> None:
    """Create ``credits`` (song, artist_id, artist_name, rows), ``artists`` (node, id), ``titles`` (song, name, rows).

    Names are matched to artists only in rows with as many names as artists.
    """
    columns = "track_id, artist_id, artist_name, track_name"
    db.execute(
        f"""
        CREATE TABLE facts AS SELECT {columns}, count(*) AS rows FROM (
            SELECT {columns} FROM checked_events WHERE reason IS NULL
            UNION ALL SELECT {columns} FROM checked_tracks WHERE reason IS NULL) GROUP BY ALL;
        CREATE TABLE titles AS
        SELECT songs.node AS song, track_name AS name, sum(rows) AS rows
        FROM facts JOIN songs ON songs.id = facts.track_id WHERE trim(track_name) <> '' GROUP BY ALL;
        CREATE TABLE credits AS
        SELECT song, artist_id, artist_name, sum(rows) AS rows FROM (
            SELECT songs.node AS song, rows, unnest(artist_id) AS artist_id,
                   unnest(CASE WHEN len(artist_name) = len(artist_id) THEN artist_name END) AS artist_name
            FROM facts JOIN songs ON songs.id = facts.track_id)
        WHERE trim(artist_id) <> '' GROUP BY ALL;
        CREATE TABLE artists AS
        SELECT (row_number() OVER (ORDER BY artist_id) - 1)::INTEGER AS node, artist_id AS id
        FROM (SELECT DISTINCT artist_id FROM credits)
        """
    )


def _span(db: Connection) -> dict[str, Any]:
    row = db.execute(f"SELECT min(played_at) // {DAY_US}, max(played_at) // {DAY_US} FROM judged WHERE rule IS NULL")
    first, last = row.fetchone() or (None, None)
    return {
        "first_day": None if first is None else day_to_date(first).isoformat(),
        "last_day": None if last is None else day_to_date(last).isoformat(),
    }


def _most_frequent(table: str, key: str, name: str) -> str:
    """Return the SQL query for the most frequent name of each key; among equally frequent ones the first by bytes."""
    return f"""(SELECT {key}, arg_min(name, (-rows, name)) AS name FROM (
        SELECT {key}, {name} AS name, sum(rows) AS rows FROM {table} WHERE trim({name}) <> '' GROUP BY ALL)
        GROUP BY {key})"""


_SHARE = f"round(least(ms_played, duration_ms) / nullif(duration_ms, 0) * {_SHARES})::BIGINT"
_KNOWN = "ms_played IS NOT NULL AND duration_ms > 0"

_LISTENS = f"""
SELECT users.node AS user, songs.node AS song, (played_at // {DAY_US})::INTEGER AS day, sum(plays)::BIGINT AS plays,
    CASE WHEN (SELECT count(skipped) > 0 FROM judged WHERE rule IS NULL)
         THEN coalesce(sum(plays) FILTER (skipped), 0)::BIGINT END AS skips,
    (sum({_SHARE} * plays::HUGEINT) FILTER ({_KNOWN})
     / (sum(plays) FILTER ({_KNOWN}) * {_SHARES}::DOUBLE))::FLOAT AS completion,
    min(played_at) // 1000000 AS first_played, max(played_at) // 1000000 AS last_played, min(split) AS split
FROM judged JOIN users ON judged.user = users.number JOIN songs ON judged.song = songs.number
WHERE rule IS NULL GROUP BY ALL ORDER BY user, song, day
"""
_USERS = f"SELECT id AS user_id, {id_hash_sql('id')} AS id_hash FROM users ORDER BY node"
_SONGS = f"""
SELECT id AS track_id, {id_hash_sql("id")} AS id_hash, name AS track_name
FROM songs LEFT JOIN {_most_frequent("titles", "song", "name")} AS t ON t.song = songs.node ORDER BY node
"""
_ARTISTS = f"""
SELECT id AS artist_id, {id_hash_sql("id")} AS id_hash, name AS artist_name
FROM artists LEFT JOIN {_most_frequent("credits", "artist_id", "artist_name")} AS n ON n.artist_id = artists.id
ORDER BY node
"""
_SONG_ARTISTS = """
SELECT DISTINCT song, artists.node AS artist FROM credits JOIN artists ON credits.artist_id = artists.id
ORDER BY song, artist
"""
