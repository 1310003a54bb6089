"""Turns log files into the listens table and its vocabularies."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from data.cutoff import Cut, day_to_date
from data.errors import InputError
from data.events.database import database, run_interruptibly
from data.events.filters import CORE_RULES, ROW_RULES, charge_to_core_rules, drop_outside_core, log_cut, row_rule
from data.events.ingest_config import IngestConfig
from data.events.listen_tables import write_tables
from data.events.log_files import event_files, track_artist_files
from data.events.merging import has_values, merge_duplicates, number_ids, refuse_pairs_in_two_parts
from data.events.rejects import count_rejected, reject_incomplete_rows, require_few_rejected, write_rejects
from data.events.schema import EVENTS, TRACK_ARTISTS
from data.events.staging import load_files, require_one_id_type

Connection = duckdb.DuckDBPyConnection
Counts = dict[str, Any]
log = logging.getLogger(__name__)


def ingest(config: IngestConfig, folder: Path, files: Sequence[Path] | None = None) -> Counts:
    """Aggregate a log into the tables of the ingest folder.

    Writes ``listens.parquet``, ``users.parquet``, ``songs.parquet``, ``artists.parquet``, ``song_artists.parquet``,
    ``rejects.parquet`` and ``counts.json``. The same events give the same bytes, for any number and order of files
    (except the file and row in ``rejects.parquet``). An event that occurs twice (same user, track and time) counts
    once. If the log has no times, equal rows count as repeated listens and add up.

    Args:
        config: what to read and what to keep.
        folder: where to write; the caller publishes it as a whole. Data that does not fit into memory spills into it.
        files: the result of ``find_files(config)``, if it was called before.

    Returns:
        the content of ``counts.json``: ``read`` = ``kept`` + ``rejected`` + ``duplicates`` + the sum of ``dropped``.

    Raises:
        InputError: the log cannot be used; the sentence says why and what to do.
    """
    tracks = track_artist_files(config)
    of_tracks = {path.resolve() for path in tracks}
    if files is None:
        events = event_files(config, tracks)
    else:
        events = [path for path in files if path.resolve() not in of_tracks]
    with database(folder / "work", config.memory_limit) as db:
        counts = run_interruptibly(db, lambda: _ingest(db, config, events, tracks, folder))
    log.info("Kept %d of %d events: %d listens.", counts["kept"], counts["read"], counts["listens"])
    return counts


def _ingest(
    db: Connection, config: IngestConfig, events: Sequence[Path], tracks: Sequence[Path], folder: Path
) -> Counts:
    load_files(db, "raw_events", events, EVENTS, config.columns)
    load_files(db, "raw_tracks", tracks, TRACK_ARTISTS, config.track_artists_columns)
    _check(db, config, events, tracks)
    cut = _apply_filters(db, config)
    counts = _counts(db, cut) | write_tables(db, folder)
    write_rejects(db, {"checked_events": events, "checked_tracks": tracks}, folder / "rejects.parquet")
    (folder / "counts.json").write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    return counts


def _check(db: Connection, config: IngestConfig, events: Sequence[Path], tracks: Sequence[Path]) -> None:
    require_one_id_type(db, {"raw_events": events}, "user_id")
    require_one_id_type(db, {"raw_events": events, "raw_tracks": tracks}, "track_id")
    reject_incomplete_rows(db)
    if count_rejected(db, "checked_events")[0] == 0:
        raise InputError(f"The log has no rows ({', '.join(map(str, events[:3]))}); give files with events.")
    require_few_rejected(db, "checked_events", events, config.max_rejected)
    require_few_rejected(db, "checked_tracks", tracks, config.max_rejected)
    if has_values(db, "split"):
        refuse_pairs_in_two_parts(db)
    for key, column in (("min_ms_played", "ms_played"), ("since", "played_at"), ("until", "played_at")):
        if getattr(config, key) and not has_values(db, column):
            raise InputError(f"{key} is set, but the log has no {column}; give a log with {column}, or remove {key}.")


def _apply_filters(db: Connection, config: IngestConfig) -> Cut | None:
    """Create ``judged``, the events with the rule that drops each; return the temporal cut, if there is one."""
    number_ids(db)
    merge_duplicates(db, row_rule(config.min_ms_played, config.since, config.until))
    cut = log_cut(db, config.cut) if config.cut else None
    before = None if cut is None or config.cut is None else cut.val_from_day - config.cut.gap_days
    drop_outside_core(db, config.min_user_songs, config.min_song_users, before)
    charge_to_core_rules(db)
    return cut


def _counts(db: Connection, cut: Cut | None) -> Counts:
    read, by_reason = count_rejected(db, "checked_events")
    tracks_read, tracks_by_reason = count_rejected(db, "checked_tracks")
    found = db.execute("SELECT rule, count(*), sum(copies - 1)::BIGINT FROM judged GROUP BY rule").fetchall()
    by_rule = {rule: rows for rule, rows, _ in found}
    dropped = {rule: by_rule.get(rule, 0) for rule in (*ROW_RULES, *CORE_RULES.values())}
    if not by_rule.get(None):
        raise InputError(
            f"No user is left: of {read} rows {sum(by_reason.values())} were rejected and "
            f"{', '.join(f'{rows} dropped by {rule}' for rule, rows in dropped.items() if rows) or 'none dropped'}; "
            "loosen these settings, or give a longer log."
        )
    return {
        "read": read,
        "kept": by_rule[None],
        "rejected": sum(by_reason.values()),
        "rejected_by_reason": by_reason,
        "duplicates": sum(copies for _, _, copies in found),
        "dropped": dropped,
        "track_artists_read": tracks_read,
        "track_artists_rejected": tracks_by_reason,
        "cut": None if cut is None else {"val_from": _iso(cut.val_from_day), "test_from": _iso(cut.test_from_day)},
    }


def _iso(day: int) -> str:
    return day_to_date(day).isoformat()
