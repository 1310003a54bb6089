"""Contract of every source: the same events give the same listens in any format, compression and number of files."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from data.errors import InputError
from data.events.ingest import ingest
from data.events.ingest_config import IngestConfig
from data.events.log_files import FORMATS, find_files, format_of

EVENTS = [
    {
        "user_id": user,
        "track_id": track,
        "artist_id": artists,
        "artist_name": [f"The {artist}" for artist in artists] if artists else None,
        "track_name": f'"{track}", live; ünplugged',
        "played_at": datetime(2026, 1, day, 23, 59, 58, 250_000, tzinfo=UTC),
        "ms_played": ms,
        "duration_ms": 200_000,
        "plays": plays,
        "skipped": skipped,
        "split": "train" if day < 5 else "validation",
    }
    for user, track, artists, day, ms, plays, skipped in [
        ("u1", "t1", ["a1"], 1, 200_000, 1, False),
        ("u1", "t1", ["a1"], 2, 50_000, 2, True),
        ("u1", "été", ["a2", "a1"], 2, 250_000, None, None),
        ("ü,2", "it's", None, 3, None, 3, False),
        ("u3", 'quo"te', ["[unknown]"], 5, 0, 1, True),
        ("u3", "10", ["a2"], 6, 100_000, 1, None),
    ]
]
SCHEMA = pa.schema(
    {
        "user_id": pa.string(),
        "track_id": pa.string(),
        "artist_id": pa.list_(pa.string()),
        "artist_name": pa.list_(pa.string()),
        "track_name": pa.string(),
        "played_at": pa.timestamp("us", tz="UTC"),
        "ms_played": pa.int64(),
        "duration_ms": pa.int32(),
        "plays": pa.int16(),
        "skipped": pa.bool_(),
        "split": pa.string(),
    }
)
TABLES = ("listens.parquet", "users.parquet", "songs.parquet", "artists.parquet", "song_artists.parquet", "counts.json")


def write_parquet(events: list[dict[str, Any]], path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(events, schema=SCHEMA), path)


def write_csv(events: list[dict[str, Any]], path: Path) -> None:
    plain = [{key: json.dumps(value) if isinstance(value, list) else value for key, value in e.items()} for e in events]
    sink = pa.BufferOutputStream()
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    pa.csv.write_csv(pa.Table.from_pylist(plain), sink, pa.csv.WriteOptions(delimiter=delimiter))
    path.write_bytes(compressed(sink.getvalue().to_pybytes(), path.suffix))


def write_jsonl(events: list[dict[str, Any]], path: Path) -> None:
    lines = "".join(json.dumps({k: v for k, v in e.items() if v is not None}, default=str) + "\n" for e in events)
    path.write_bytes(compressed(lines.encode(), path.suffix))


def compressed(content: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(content)
    return pa.compress(content, codec="zstd", asbytes=True) if suffix == ".zst" else content


WRITERS = {".parquet": write_parquet, ".pq": write_parquet, ".csv": write_csv, ".tsv": write_csv} | dict.fromkeys(
    (".jsonl", ".ndjson", ".json"), write_jsonl
)
SUFFIXES = [".parquet", ".pq"] + [
    suffix + compression
    for suffix in WRITERS
    if suffix not in (".parquet", ".pq")
    for compression in ("", ".gz", ".zst")
]


def write(events: list[dict[str, Any]], path: Path) -> Path:
    WRITERS["." + path.name.split(".")[1]](events, path)
    return path


def tables(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in TABLES}


def ingested(tmp_path: Path, **config: Any) -> dict[str, bytes]:
    folder = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
    ingest(IngestConfig.parse(config, "ingest"), folder)
    return tables(folder)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    tmp_path = tmp_path_factory.mktemp("expected")
    return ingested(tmp_path, events=str(write(EVENTS, tmp_path / "log.parquet")))


def test_every_format_has_a_writer_here():
    assert set(WRITERS) == set(FORMATS)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_and_compression_gives_the_same_tables(suffix: str, tmp_path: Path, expected: dict[str, bytes]):
    assert ingested(tmp_path, events=str(write(EVENTS, tmp_path / f"log{suffix}"))) == expected


def test_formats_mix_in_one_run(tmp_path: Path, expected: dict[str, bytes]):
    for place, suffix in enumerate((".jsonl.zst", ".csv", ".parquet", ".ndjson.gz", ".tsv.gz", ".csv.zst")):
        write(EVENTS[place : place + 1], tmp_path / f"{place}{suffix}")
    assert ingested(tmp_path, events=str(tmp_path)) == expected


def test_the_expected_listens_are_right(tmp_path: Path, expected: dict[str, bytes]):
    for name, content in expected.items():
        (tmp_path / name).write_bytes(content)
    users = pq.read_table(tmp_path / "users.parquet")["user_id"].to_pylist()
    songs = pq.read_table(tmp_path / "songs.parquet").to_pylist()
    artists = pq.read_table(tmp_path / "artists.parquet").to_pylist()
    assert users == ["u1", "u3", "ü,2"]
    assert [song["track_id"] for song in songs] == ["10", "it's", 'quo"te', "t1", "été"]
    assert songs[0]["track_name"] == '"10", live; ünplugged'
    assert [(a["artist_id"], a["artist_name"]) for a in artists] == [
        ("[unknown]", "The [unknown]"), ("a1", "The a1"), ("a2", "The a2"),
    ]  # fmt: skip
    by = pq.read_table(tmp_path / "song_artists.parquet").to_pylist()
    assert [(edge["song"], edge["artist"]) for edge in by] == [(0, 2), (2, 0), (3, 1), (4, 1), (4, 2)]
    noon_ish = int(datetime(2026, 1, 2, 23, 59, 58, tzinfo=UTC).timestamp())
    assert pq.read_table(tmp_path / "listens.parquet").to_pylist()[1] == {
        "user": 0,
        "song": 3,
        "day": 20455,
        "plays": 2,
        "skips": 2,
        "completion": 0.25,
        "first_played": noon_ish,
        "last_played": noon_ish,
        "split": "train",
    }


@pytest.mark.parametrize(
    "name", ["it's; DROP TABLE x.parquet", "st*r [1].csv", 'say "hi"?.jsonl.gz', "day=2026-01-01.csv", "ñ 漢字.parquet"]
)
def test_any_file_name_is_safe(name: str, tmp_path: Path, expected: dict[str, bytes]):
    decoy = [{**event, "user_id": "decoy"} for event in EVENTS]
    write(decoy, tmp_path / "star 1.csv")
    path = write(EVENTS, tmp_path / name) if "." in name else tmp_path
    assert ingested(tmp_path, events=[str(path)]) == expected


def test_columns_may_differ_from_file_to_file(tmp_path: Path):
    (tmp_path / "a.csv").write_text("user_id,track_id,ms_played,note\nu1,t1,5000,x\n")
    (tmp_path / "b.jsonl").write_text('{"track_id": "t2", "user_id": "u1", "artist_id": "a"}\n')
    counts = ingest(IngestConfig(events=(str(tmp_path),)), tmp_path / "out")
    assert (counts["listens"], counts["artists"]) == (2, 1)


def test_a_renamed_column_is_not_read_under_its_own_name(tmp_path: Path):
    (tmp_path / "a.csv").write_text("listener,artist_id\nu1,a1\n")
    config = IngestConfig(events=(str(tmp_path),), columns={"user_id": "listener", "track_id": "artist_id"})
    counts = ingest(config, tmp_path / "out")
    assert (counts["songs"], counts["artists"]) == (1, 0)


@pytest.mark.parametrize("header", ["user_id,track_id", "user_id;track_id", "user_id\ttrack_id", "user_id|track_id"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_dialects(header: str, line_end: str, mark: str, tmp_path: Path):
    rows = [header, header.replace("user_id", "u1").replace("track_id", "t1")]
    (tmp_path / "log.csv").write_bytes((mark + line_end.join(rows)).encode())
    ingest(IngestConfig(events=(str(tmp_path),)), tmp_path / "out")
    assert pq.read_table(tmp_path / "out/users.parquet")["user_id"].to_pylist() == ["u1"]
    assert pq.read_table(tmp_path / "out/songs.parquet")["track_id"].to_pylist() == ["t1"]


def test_files_folders_and_globs_are_looked_up_when_it_runs(tmp_path: Path):
    (tmp_path / "logs/deep").mkdir(parents=True)
    config = IngestConfig.parse({"events": [str(tmp_path / "logs/*.csv"), str(tmp_path / "logs/deep")]}, "ingest")
    for name in ("b.csv", "a.csv", "deep/c.parquet", "deep/_SUCCESS", "deep/.hidden.csv", "deep/README.md", "d.txt"):
        (tmp_path / "logs" / name).touch()
    assert [path.name for path in find_files(config)] == ["a.csv", "b.csv", "c.parquet"]
    (tmp_path / "logs/aa.csv").touch()
    assert [path.name for path in find_files(config)] == ["a.csv", "aa.csv", "b.csv", "c.parquet"]


def test_a_file_that_two_patterns_match_is_read_once(tmp_path: Path):
    (tmp_path / "a.csv").touch()
    config = IngestConfig(events=(str(tmp_path), str(tmp_path / "*.csv"), str(tmp_path / "a.csv")))
    assert find_files(config) == [tmp_path / "a.csv"]


def test_the_table_of_artists_is_not_events(tmp_path: Path):
    for name in ("log.csv", "tracks.csv"):
        (tmp_path / name).touch()
    config = IngestConfig(events=(str(tmp_path),), track_artists=(str(tmp_path / "tracks.csv"),))
    assert find_files(config) == [tmp_path / "log.csv", tmp_path / "tracks.csv"]


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("nowhere.csv", r"events: the file '.*nowhere.csv' does not exist; correct the path"),
        ("logs-*.csv", r"events: no log file matches '.*logs-\*.csv'; correct the path, or add files"),
        ("empty", r"events: no log file matches '.*empty'"),
        ("notes.txt", r"notes.txt: the suffix says nothing that can be read. Allowed: .parquet, .pq, .csv"),
        ("notes", r"notes: the suffix says nothing"),
    ],
)
def test_what_cannot_be_found_is_named(pattern: str, sentence: str, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "notes").touch()
    with pytest.raises(InputError, match=sentence):
        find_files(IngestConfig(events=(str(tmp_path / pattern),)))


@pytest.mark.parametrize("name", ["log.parquet.gz", "log.gz", "log.csv.bz2", "log.xlsx"])
def test_unknown_suffixes_are_refused(name: str):
    with pytest.raises(InputError, match=f"{name}: the suffix says nothing that can be read"):
        format_of(Path(name))


def test_events_that_are_only_the_table_of_artists_are_refused(tmp_path: Path):
    (tmp_path / "tracks.csv").touch()
    path = str(tmp_path / "tracks.csv")
    with pytest.raises(InputError, match="names no file besides those of track_artists"):
        find_files(IngestConfig(events=(path,), track_artists=(path,)))
