"""What ingest keeps, counts and writes."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.cutoff import CutConfig, temporal_cut
from data.events.ingest import ingest
from data.events.ingest_config import IngestConfig
from data.vocabulary import id_hash

DAY_0 = datetime(2026, 1, 1, 12, tzinfo=UTC)
TABLES = ("listens.parquet", "users.parquet", "songs.parquet", "artists.parquet", "song_artists.parquet", "counts.json")

rows = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(["u1", "u2", "ü", "u10", None]),
        "track_id": st.sampled_from(["t1", "t2", "t3", "é", ""]),
        "played_at": st.sampled_from([DAY_0 + timedelta(hours=7 * step) for step in range(9)]),
        "ms_played": st.sampled_from([None, 0, 1_000, 30_000, -1]),
        "duration_ms": st.sampled_from([None, 0, 30_000, 7]),
        "plays": st.sampled_from([None, 1, 2, 0]),
        "skipped": st.sampled_from([None, True, False]),
        "artist_id": st.sampled_from([None, [], ["a1"], ["a2", "a1", ""]]),
        "track_name": st.sampled_from([None, "One", "Two"]),
    }
)
SCHEMA = pa.schema(
    {
        "user_id": pa.string(),
        "track_id": pa.string(),
        "played_at": pa.timestamp("ms"),
        "ms_played": pa.int64(),
        "duration_ms": pa.int64(),
        "plays": pa.int64(),
        "skipped": pa.bool_(),
        "artist_id": pa.list_(pa.string()),
        "track_name": pa.string(),
    }
)
quick = settings(max_examples=15, deadline=None)


def run(parts: list[list[dict[str, Any]]], **config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ingest one Parquet file a part; returns the counts, and per file its table (or bytes under ``raw``)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for place, part in enumerate(parts):
            pq.write_table(pa.Table.from_pylist(part, schema=SCHEMA), folder / f"part-{place}.parquet")
        counts = ingest(IngestConfig.parse({"events": name, "max_rejected": 1.0} | config, "ingest"), folder / "out")
        assert json.loads((folder / "out/counts.json").read_text()) == counts
        assert {path.name for path in (folder / "out").iterdir()} == {*TABLES, "rejects.parquet"}
        tables = {path.stem: pq.read_table(path) for path in (folder / "out").glob("*.parquet")}
        return counts, tables | {"raw": {name: (folder / "out" / name).read_bytes() for name in TABLES}}


def event(user: str = "u", track: str = "t", day: int = 0, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "track_id": track, "played_at": DAY_0 + timedelta(days=day)} | more


GOOD = [event(f"u{i % 3}", f"t{i % 4}", i, ms_played=60_000) for i in range(24)]


@quick
@given(st.lists(rows, max_size=40))
def test_counts_reconcile(events: list[dict[str, Any]]):
    filters = {"min_ms_played": 500, "since": "2026-01-01T13:00", "until": "2026-01-24", "min_user_songs": 2}
    counts, tables = run([events + GOOD], min_song_users=2, **filters)
    assert counts["read"] == len(events) + len(GOOD)
    gone = counts["rejected"] + counts["duplicates"] + sum(counts["dropped"].values())
    assert counts["read"] == counts["kept"] + gone
    assert counts["rejected"] == sum(counts["rejected_by_reason"].values()) == tables["rejects"].num_rows
    assert counts["rejected"] == sum(
        not row["user_id"] or not row["track_id"] or row["ms_played"] == -1 or row["plays"] == 0 for row in events
    )
    for name in ("listens", "users", "songs", "artists", "song_artists"):
        assert counts[name] == tables[name].num_rows


@quick
@given(st.lists(rows, max_size=30), st.randoms(use_true_random=False), st.integers(1, 4))
def test_bytes_do_not_depend_on_order_or_files(events: list[dict[str, Any]], random: Any, files: int):
    _, whole = run([events + GOOD], min_song_users=2)
    shuffled = random.sample(events + GOOD, len(events + GOOD))
    _, divided = run([shuffled[place::files] for place in range(files)], min_song_users=2, memory_limit="100MB")
    assert divided["raw"] == whole["raw"]


@quick
@given(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=40), st.integers(0, 3), st.integers(0, 3))
def test_filters_reach_the_same_fixed_point_as_a_naive_loop(pairs: set[tuple[int, int]], user_min: int, song_min: int):
    core = {("x", f"x{song}") for song in range(3)} | {
        (f"y{user}", f"x{song}") for user in range(3) for song in range(3)
    }
    alive = {(f"u{user}", f"t{song}") for user, song in pairs} | core
    events = [event(user, song, day) for user, song in sorted(alive) for day in range(2)]
    while True:
        songs_of, users_of = Counter(user for user, _ in alive), Counter(song for _, song in alive)
        left = {(u, s) for u, s in alive if songs_of[u] >= user_min and users_of[s] >= song_min}
        if left == alive:
            break
        alive = left
    counts, tables = run([events], min_user_songs=user_min, min_song_users=song_min)
    assert tables["users"]["user_id"].to_pylist() == sorted({user for user, _ in alive})
    assert tables["songs"]["track_id"].to_pylist() == sorted({song for _, song in alive})
    assert counts["kept"] == 2 * len(alive)


def test_each_event_that_goes_is_charged_to_the_rule_that_went_first():
    events = [event("u1", f"t{i}", ms_played=9) for i in range(3)] + [event("u2", "t0", ms_played=1)]
    events += [event("u2", "t1"), event("u3", "t0", -9), event("u3", "t0", 9)]
    counts, _ = run([events], min_ms_played=5, since="2025-12-25", until="2026-01-05", min_user_songs=2)
    assert counts["dropped"] == {
        "min_ms_played": 1, "since": 1, "until": 1, "min_user_songs": 1, "min_song_users": 0,
    }  # fmt: skip


def test_listens_are_one_a_user_song_and_utc_day():
    late, early = DAY_0.replace(hour=23, minute=59), DAY_0 + timedelta(hours=12, minutes=1)
    events = [
        event(played_at=late, ms_played=50, duration_ms=100, plays=3, skipped=True),
        event(played_at=late - timedelta(hours=1), ms_played=500, duration_ms=100, skipped=False),
        event(played_at=late - timedelta(hours=2), ms_played=77),
        event(played_at=early, skipped=None),
    ]
    _, tables = run([events])
    first, second = tables["listens"].to_pylist()
    assert (first["plays"], first["skips"], first["completion"]) == (5, 3, (3 * 0.5 + 1) / 4)
    assert first["last_played"] - first["first_played"] == 7200
    assert (second["day"] - first["day"], second["plays"], second["skips"], second["completion"]) == (1, 1, 0, None)


def test_columns_that_the_log_does_not_give_are_null_with_their_types(tmp_path: Path):
    (tmp_path / "log.csv").write_text("user_id,track_id\nu,t\nu,t\n")
    counts = ingest(IngestConfig(events=(str(tmp_path / "log.csv"),)), tmp_path / "out")
    table = pq.read_table(tmp_path / "out/listens.parquet")
    assert table.to_pylist() == [
        {"user": 0, "song": 0, "day": None, "plays": 2, "skips": None, "completion": None, "first_played": None,
         "last_played": None, "split": None}
    ]  # fmt: skip
    assert table.schema == pa.schema(
        {"user": pa.int32(), "song": pa.int32(), "day": pa.int32(), "plays": pa.int64(), "skips": pa.int64(),
         "completion": pa.float32(), "first_played": pa.int64(), "last_played": pa.int64(), "split": pa.string()}
    )  # fmt: skip
    assert pq.read_schema(tmp_path / "out/artists.parquet").names == ["artist_id", "id_hash", "artist_name"]
    assert (counts["duplicates"], counts["first_day"], counts["last_day"]) == (0, None, None)


def test_an_event_that_is_there_twice_counts_once():
    counts, tables = run([[event(ms_played=5), event(day=1)], [event(ms_played=7), event()]])
    assert (counts["kept"], counts["duplicates"]) == (2, 2)
    assert tables["listens"]["plays"].to_pylist() == [1, 1]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-01-01", "2026-01-01T00:00:00"),
        ("2026-01-01 10:00:00", "2026-01-01T10:00:00"),
        ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00"),
        ("2026-01-01T10:00:00.123456+02:00", "2026-01-01T08:00:00"),
        ("1767261600", "2026-01-01T10:00:00"),
        ("1767261600.9", "2026-01-01T10:00:00"),
        ("1767261600123", "2026-01-01T10:00:00"),
        ("1767261600123456", "2026-01-01T10:00:00"),
        ("1767261600123456789", "2026-01-01T10:00:00"),
        ("1990-01-01T00:00:00Z", "1990-01-01T00:00:00"),
        ("2099-12-31T23:59:59Z", "2099-12-31T23:59:59"),
    ],
)
def test_times_in_text(written: str, expected: str, tmp_path: Path):
    (tmp_path / "log.csv").write_text(f"user_id,track_id,played_at\nu,t,{written}\n")
    ingest(IngestConfig(events=(str(tmp_path / "log.csv"),)), tmp_path / "out")
    seconds = pq.read_table(tmp_path / "out/listens.parquet")["first_played"][0].as_py()
    assert datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat() == expected


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1767261600], pa.int64()),
        pa.array([1767261600123], pa.int64()),
        pa.array([1767261600.25], pa.float64()),
        pa.array([datetime(2026, 1, 1, 10)], pa.timestamp("s")),
        pa.array([datetime(2026, 1, 1, 10)], pa.timestamp("ns")),
        pa.array([datetime(2026, 1, 1, 10, tzinfo=UTC)], pa.timestamp("us", tz="Asia/Tokyo")),
        pa.array(["2026-01-01T10:00:00"]),
        pa.array(["2026-01-01T10:00:00"]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_times_in_parquet(column: pa.Array, tmp_path: Path):
    pq.write_table(pa.table({"user_id": ["u"], "track_id": ["t"], "played_at": column}), tmp_path / "log.parquet")
    ingest(IngestConfig(events=(str(tmp_path),)), tmp_path / "out")
    seconds = pq.read_table(tmp_path / "out/listens.parquet")["first_played"][0].as_py()
    assert datetime.fromtimestamp(seconds, UTC) == datetime(2026, 1, 1, 10, tzinfo=UTC)


def test_columns_without_a_value_do_not_matter(tmp_path: Path):
    """Writers disagree about the type of a column in which nothing is known."""
    nothing = {"track_name": pa.nulls(1), "played_at": pa.nulls(1), "split": pa.nulls(1), "artist_id": pa.nulls(1)}
    numbers = {"ms_played": pa.array([np.nan]), "skipped": pa.array([1.0])}
    pq.write_table(pa.table({"user_id": ["u"], "track_id": ["t"]} | nothing | numbers), tmp_path / "log.parquet")
    ingest(IngestConfig(events=(str(tmp_path),)), tmp_path / "out")
    assert pq.read_table(tmp_path / "out/listens.parquet")["skips"].to_pylist() == [1]


def test_ids_that_are_numbers_become_text_in_byte_order(tmp_path: Path):
    pq.write_table(
        pa.table({"user_id": pa.array([10, 9, 1], pa.uint32()), "track_id": ["t"] * 3}), tmp_path / "l.parquet"
    )
    ingest(IngestConfig(events=(str(tmp_path),)), tmp_path / "out")
    assert pq.read_table(tmp_path / "out/users.parquet")["user_id"].to_pylist() == ["1", "10", "9"]


def test_vocabularies_hash_ids_as_python_does():
    _, tables = run([[event("ü", "漢字", artist_id=["a'1"]), event("u2", "", 1), event("u2", "t")]])
    for table, column in (("users", "user_id"), ("songs", "track_id"), ("artists", "artist_id")):
        rows = tables[table].to_pylist()
        assert [row["id_hash"] for row in rows] == [id_hash(row[column]) for row in rows]
        assert all(0 <= row["id_hash"] < 1 << 63 for row in rows)


def test_the_hash_of_an_id_never_changes():
    assert id_hash("a") == 7000413967451013937
    assert id_hash("a") == int.from_bytes(hashlib.md5(b"a").digest()[8:], "little") % (1 << 63)


def test_names_are_the_most_frequent_then_the_first():
    names = ["b", "a", "b", "c", "c", None]
    events = [event(day=day, track_name=name) for day, name in enumerate(names)] + [event(track="t2")]
    _, tables = run([events])
    assert tables["songs"]["track_name"].to_pylist() == ["b", None]


def test_artists_come_from_a_separate_table_too(tmp_path: Path):
    (tmp_path / "log.csv").write_text("user_id,track_id,artist_id\nu,t1,a9\nu,t2,\nu,t3,\n")
    (tmp_path / "tracks.jsonl").write_text(
        '{"song": "t1", "artist_id": ["a1", "a2"], "artist_name": ["One", "Two"]}\n'
        '{"song": "t2", "artist_id": "a1", "track_name": "Second"}\n'
        '{"song": "not in the log", "artist_id": "a7"}\n'
    )
    config = IngestConfig(
        events=(str(tmp_path / "log.csv"),),
        track_artists=(str(tmp_path / "tracks.jsonl"),),
        track_artists_columns={"track_id": "song"},
    )
    counts = ingest(config, tmp_path / "out")
    artists = pq.read_table(tmp_path / "out/artists.parquet").to_pylist()
    assert [(row["artist_id"], row["artist_name"]) for row in artists] == [("a1", "One"), ("a2", "Two"), ("a9", None)]
    edges = pq.read_table(tmp_path / "out/song_artists.parquet").to_pylist()
    assert [(edge["song"], edge["artist"]) for edge in edges] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert pq.read_table(tmp_path / "out/songs.parquet")["track_name"].to_pylist() == [None, "Second", None]
    assert counts["track_artists_read"] == 3


def test_the_names_of_parts_are_normalised(tmp_path: Path):
    parts = ["train", "valid", "val", "validation", "test"]
    lines = "".join(f"u,t{place},{part}\n" for place, part in enumerate(parts))
    (tmp_path / "log.csv").write_text("user_id,track_id,split\n" + lines)
    ingest(IngestConfig(events=(str(tmp_path),)), tmp_path / "out")
    assert pq.read_table(tmp_path / "out/listens.parquet")["split"].to_pylist() == ["train", *["valid"] * 3, "test"]


def test_since_is_included_and_until_is_not():
    events = [event(day=day, played_at=datetime(2026, 1, day, tzinfo=UTC)) for day in (1, 2, 3, 4)]
    counts, _ = run([events], since=date(2026, 1, 2), until="2026-01-04")
    assert (counts["first_day"], counts["last_day"]) == ("2026-01-02", "2026-01-03")


def test_under_a_cut_the_filters_do_not_see_what_is_held_out():
    before = [event(user, song, day) for day in range(6) for user in ("u1", "u2") for song in ("t1", "t2")]
    after = [event(user, "late", 8) for user in ("u1", "u2", "u3")] + [event("u1", "t1", 9)]
    cut = {"val_from": "2026-01-08", "test_from": "2026-01-10"}
    counts, tables = run([before + after], min_song_users=2, cut=cut)
    assert tables["songs"]["track_id"].to_pylist() == ["t1", "t2"]
    assert tables["users"]["user_id"].to_pylist() == ["u1", "u2"]
    assert counts["cut"] == cut
    assert counts["dropped"]["min_song_users"] == 3
    assert run([before + after], min_song_users=2)[0]["songs"] == 3


def test_the_cut_of_the_filters_is_that_of_the_split():
    config = {"val_ratio": 0.2, "test_ratio": 0.3}
    counts, tables = run([GOOD], cut=config)
    cut = temporal_cut(tables["listens"]["day"].to_numpy(), CutConfig(**config))
    assert counts["cut"]["test_from"] == str(date(1970, 1, 1) + timedelta(days=cut.test_from_day))
    assert counts["cut"]["val_from"] == str(date(1970, 1, 1) + timedelta(days=cut.val_from_day))
