"""Every way in which a log can be unusable is a sentence that names the file and what to do."""

from __future__ import annotations

import gzip
import os
import signal
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.config import Config
from data.errors import InputError
from data.events.database import database, run_interruptibly, write_parquet
from data.events.ingest import ingest
from data.events.ingest_config import IngestConfig

HEADER = "user_id,track_id,played_at,ms_played,duration_ms,plays,skipped,split"
GOOD = "u1,t1,2026-01-01,1,1,1,true,train"


def run(tmp_path: Path, content: str | bytes | pa.Table, name: str = "log.csv", **config: Any) -> dict[str, Any]:
    path = tmp_path / name
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return ingest(IngestConfig.parse({"events": str(tmp_path / "*.*")} | config, "ingest"), tmp_path / "out")


def rejects(tmp_path: Path) -> list[tuple[str, int, str]]:
    rows = pq.read_table(tmp_path / "out/rejects.parquet").to_pylist()
    return [(Path(row["file"]).name, row["row"], row["reason"]) for row in rows]


ROWS = {
    ",t1,2026-01-01,1,1,1,true,train": "user_id is empty",
    "u1,  ,2026-01-01,1,1,1,true,train": "track_id is empty",
    "u1,t1,yesterday,1,1,1,true,train": "played_at is not a time",
    "u1,t1,1970-01-01,1,1,1,true,train": "played_at is before 1990 or after 2099",
    "u1,t1,2100-01-01,1,1,1,true,train": "played_at is before 1990 or after 2099",
    "u1,t1,-5,1,1,1,true,train": "played_at is before 1990 or after 2099",
    "u1,t1,0,1,1,1,true,train": "played_at is before 1990 or after 2099",
    "u1,t1,infinity,1,1,1,true,train": "played_at is not a time",
    "u1,t1,,1,1,1,true,train": "played_at is empty, and other rows have it",
    "u1,t1,2026-01-01,-1,1,1,true,train": "ms_played is negative",
    "u1,t1,2026-01-01,long,1,1,true,train": "ms_played is not a number",
    "u1,t1,2026-01-01,inf,1,1,true,train": "ms_played is not a number",
    "u1,t1,2026-01-01,1,1e300,1,true,train": "duration_ms is not a number",
    "u1,t1,2026-01-01,1,-1,1,true,train": "duration_ms is negative",
    "u1,t1,2026-01-01,1,1,0,true,train": "plays is not a whole number above 0",
    "u1,t1,2026-01-01,1,1,1.5,true,train": "plays is not a whole number above 0",
    "u1,t1,2026-01-01,1,1,many,true,train": "plays is not a number",
    "u1,t1,2026-01-01,1,1,1e10,true,train": "plays is above 1,000,000,000",
    "u1,t1,2026-01-01,1,1,1,maybe,train": "skipped is not true or false",
    "u1,t1,2026-01-01,1,1,1,true,dev": "split is not train, valid or test",
    "u1,t1,2026-01-01,1,1,1,true,": "split is empty, and other rows have it",
    "u1,t1": "the line does not have as many values as the header, or a stray quote",
    "u1,t1,2026-01-01,1,1,1,true,train,more": "the line does not have as many values as the header, or a stray quote",
    '"u"1,t1,2026-01-01,1,1,1,true,train': "the line does not have as many values as the header, or a stray quote",
}


@pytest.mark.parametrize(("row", "reason"), ROWS.items())
def test_a_row_that_breaks_the_schema_goes_to_the_rejects(row: str, reason: str, tmp_path: Path):
    counts = run(tmp_path, "\n".join([HEADER, GOOD, row, GOOD.replace("u1", "u2")]), max_rejected=0.5)
    assert rejects(tmp_path) == [("log.csv", 2, reason)]
    assert counts["rejected_by_reason"] == {reason: 1}
    assert (counts["read"], counts["kept"]) == (3, 2)


def test_rows_keep_their_numbers_between_lines_that_cannot_be_divided(tmp_path: Path):
    bad = {2: "u1", 3: "u1,t,x", 7: ",t7", 8: "u", 10: "u,", 12: '"u"x,t'}
    lines = [bad.get(row, f"u{row},t{row}") for row in range(1, 13)]
    run(tmp_path, "\n".join(["user_id,track_id", *lines]), max_rejected=1)
    assert [row for _, row, _ in rejects(tmp_path)] == list(bad)
    assert pq.read_table(tmp_path / "out/users.parquet").num_rows == 6


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{bad", "the line is not a JSON object"),
        ("[1, 2]", "the line is not a JSON object"),
        ('{"user_id": "u1"}', "track_id is empty"),
        ('{"user_id": null, "track_id": "t"}', "user_id is empty"),
        ('{"user_id": {"id": 1}, "track_id": "t"}', "user_id is not text or a whole number"),
        ('{"user_id": "u1", "track_id": 1.5}', "track_id is not text or a whole number"),
        ('{"user_id": "u1", "track_id": "t", "played_at": "soon"}', "played_at is not a time"),
        ('{"user_id": "u1", "track_id": "t", "played_at": 1e17}', "played_at is before 1990 or after 2099"),
        ('{"user_id": "u1", "track_id": "t", "plays": "x"}', "plays is not a number"),
    ],
)
def test_a_json_line_that_breaks_the_schema(line: str, reason: str, tmp_path: Path):
    good = '{"user_id": "u1", "track_id": "t1"}'
    run(tmp_path, "\n".join([good, line, good]), "log.jsonl", max_rejected=0.5)
    assert rejects(tmp_path)[0][1:] == (2, reason)


def test_too_many_rejected_rows_fail_the_run_and_say_where(tmp_path: Path):
    with pytest.raises(
        InputError,
        match=r"2 of 4 rows cannot be used \(50.0%, max_rejected allows 1.0%\): user_id is empty \(2\). "
        r"The first: .*log.csv, row 2: user_id is empty. Repair the log, or raise max_rejected.",
    ):
        run(tmp_path, "user_id,track_id\nu,t\n,t\n,t\nu,t\n")


ONE = {"user_id": ["u"], "track_id": ["t"]}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("log.csv", "", r"log.csv is empty \(0 bytes\); remove it"),
        ("log.parquet", "", r"log.parquet is empty \(0 bytes\)"),
        ("log.jsonl", "", r"The log has no rows \(.*log.jsonl\); give files with events"),
        ("log.csv", "user_id,track_id\n", "The log has no rows"),
        ("log.parquet", pa.table({k: pa.array([], pa.string()) for k in ONE}), "The log has no rows"),
        ("log.csv", "user_id,song\nu,t\n", r"log.csv has no column 'track_id'; it has user_id, song. Say which"),
        ("log.jsonl", '{"user_id": 1, "song": 2}', r"log.jsonl has no column 'track_id'; it has song, user_id. Say"),
        ("log.parquet", pa.table({"user_id": ["u"]}), r"log.parquet has no column 'track_id'; it has user_id. Say"),
        ("log.csv", "user_id,track_id,user_id\nu,t,u\n", "log.csv names the column 'user_id' twice"),
        ("log.csv", "user_id,track_id\nu,Bj\xf6rk\n".encode("latin-1"), "log.csv is not UTF-8 in line 2; convert it"),
        ("log.jsonl", b'{"user_id": "u", "track_id": "\xe9"}', "log.jsonl is not UTF-8 in line 1"),
        ("log.csv", "user_id,track_id\nu,t".encode("utf-16"), "log.csv is not UTF-8 in line 1"),
        ("log.csv", b"user_id,track_id\nu,t\xc3", "log.csv is not UTF-8 in line 2"),
        ("log.csv", "user_id,track_id\ru,t\r", "log.csv has a first line that cannot be divided .*; end every line"),
        ("log.csv", 'user_id,track_id\nu,"t\nu,t\nu,t\n', "log.csv has a quote that is never closed, near line 2"),
        ("log.csv", 'user_id,track_id\nu,"' + "x" * 3_000_000 + "\nu,t\n", "quote that is never closed, near line 2"),
        ("log.json", '[{"user_id": 1, "track_id": 2}]', "log.json holds a JSON array; JSON lines are needed"),
        ("log.parquet", b"PAR1 and no more", r"log.parquet is not a whole Parquet file \(.*\); copy or write it again"),
        ("log.csv.gz", b"not gzip", r"log.csv.gz is not a whole gzip file \(.*\); copy or compress it again"),
        ("log.jsonl.zst", b"not zstd", "log.jsonl.zst is not a whole zstd file"),
        ("log.parquet", pa.table({"user_id": [1.5], "track_id": ["t"]}), "'user_id' holds DOUBLE, but user_id must"),
        ("log.parquet", pa.table(ONE | {"played_at": [True]}), "holds BOOLEAN, but played_at must be timestamps"),
        ("log.parquet", pa.table(ONE | {"ms_played": ["1"]}), "holds VARCHAR, but ms_played must be numbers"),
        ("log.parquet", pa.table(ONE | {"plays": ["1"]}), "holds VARCHAR, but plays must be whole numbers; convert it"),
        ("log.parquet", pa.table(ONE | {"skipped": ["no"]}), "holds VARCHAR, but skipped must be true and false"),
        ("log.parquet", pa.table(ONE | {"split": [1]}), "holds BIGINT, but split must be train, valid or test"),
        ("log.parquet", pa.table(ONE | {"artist_id": [{"id": 1}]}), "artist_id must be text, whole numbers, or a list"),
        ("log.parquet", pa.table(ONE | {"track_name": [datetime(2026, 1, 1)]}), "track_name must be text"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used(name: str, content: str | bytes | pa.Table, sentence: str, tmp_path: Path):
    with pytest.raises(InputError, match=sentence):
        run(tmp_path, content, name)


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.zst", ".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("damage", ["cut off", "changed"])
def test_a_damaged_compressed_file_is_never_read_in_part(suffix: str, damage: str, tmp_path: Path):
    line = '{{"user_id": "u{0}", "track_id": "t{0}"}}\n' if "json" in suffix else "u{0},t{0}\n"
    text = ("" if "json" in suffix else "user_id,track_id\n") + "".join(line.format(row) for row in range(50_000))
    whole = gzip.compress(text.encode()) if suffix.endswith("gz") else pa.compress(text.encode(), "zstd", asbytes=True)
    middle = len(whole) // 2
    damaged = whole[:middle] if damage == "cut off" else whole[:middle] + bytes(99) + whole[middle + 99 :]
    with pytest.raises(InputError, match=f"log{suffix} is not (a whole|UTF-8)"):
        run(tmp_path, damaged, f"log{suffix}")


def test_a_cut_off_parquet_file(tmp_path: Path):
    pq.write_table(pa.table({"user_id": ["u"] * 999, "track_id": ["t"] * 999}), tmp_path / "log.parquet")
    whole = (tmp_path / "log.parquet").read_bytes()
    with pytest.raises(InputError, match=r"log.parquet is not a whole Parquet file"):
        run(tmp_path, whole[: len(whole) // 2], "log.parquet")


def test_a_parquet_file_with_damaged_pages(tmp_path: Path):
    pq.write_table(pa.table({k: [f"{k}{i}" for i in range(9999)] for k in ONE}), tmp_path / "log.parquet")
    whole = (tmp_path / "log.parquet").read_bytes()
    with pytest.raises(InputError, match=r"log.parquet cannot be read"):
        run(tmp_path, whole[:40] + bytes(2000) + whole[2040:], "log.parquet")


def test_ids_of_two_types_name_both_files(tmp_path: Path):
    pq.write_table(pa.table({"user_id": [1], "track_id": ["t"]}), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("user_id,track_id\n1,t\n")
    with pytest.raises(InputError, match=r"user_id is given as whole numbers in .*a.parquet and as text in .*c.jsonl;"):
        run(tmp_path, '{"user_id": "1", "track_id": "t"}', "c.jsonl")


def test_ids_of_two_types_inside_a_file(tmp_path: Path):
    with pytest.raises(
        InputError, match=r"track_id is given as whole numbers in .*log.jsonl and as text in .*log.jsonl;"
    ):
        run(tmp_path, '{"user_id": "1", "track_id": "t"}\n{"user_id": "1", "track_id": 7}', "log.jsonl")


def test_the_table_of_artists_has_the_same_type_of_ids(tmp_path: Path):
    tracks = tmp_path / "tracks.parquet"
    pq.write_table(pa.table({"track_id": [1], "artist_id": ["a"]}), tracks)
    with pytest.raises(InputError, match=r"track_id is given as whole numbers in .*tracks.parquet and as text in"):
        run(tmp_path, pa.table(ONE), "log.parquet", track_artists=str(tracks))


def test_a_pair_in_two_parts_is_named(tmp_path: Path):
    with pytest.raises(
        InputError, match="The user 'u' and the track 't' are in two parts of the split, test and train; a"
    ):
        run(tmp_path, "user_id,track_id,split\nu,t,train\nu,t,test\n")


def test_nobody_left_after_the_filters(tmp_path: Path):
    with pytest.raises(
        InputError, match="No user is left: of 2 rows 0 were rejected and 2 dropped by min_user_songs; loosen"
    ):
        run(tmp_path, "user_id,track_id\nu,t\nu,s\n", min_user_songs=3)


@pytest.mark.parametrize(
    ("setting", "column"), [({"since": "2026-01-01"}, "played_at"), ({"min_ms_played": 1}, "ms_played")]
)
def test_a_filter_on_a_column_that_is_not_there(setting: dict[str, Any], column: str, tmp_path: Path):
    with pytest.raises(InputError, match=f"{next(iter(setting))} is set, but the log has no {column}; give a log with"):
        run(tmp_path, "user_id,track_id\nu,t\n", **setting)


def test_a_cut_without_times(tmp_path: Path):
    with pytest.raises(InputError, match="the log has no played_at"):
        run(tmp_path, "user_id,track_id\nu,t\n", cut={})


def test_a_renamed_column_that_no_file_has(tmp_path: Path):
    with pytest.raises(
        InputError, match=r"columns.ms_played names a column that no file has, 'msPlayed'. Did you mean 'ms_play'"
    ):
        run(tmp_path, "user_id,track_id,ms_play\nu,t,1\n", columns={"ms_played": "msPlayed"})


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"event": "x"}, r"ingest has the unknown key 'event'. Did you mean 'events'"),
        ({"events": "x", "columns": {"track": "y"}}, "no canonical column: 'track'"),
        ({"events": "x", "since": "soon"}, "ingest.since is 'soon'"),
        ({"events": "x", "memory_limit": "a lot"}, "ingest.memory_limit is 'a lot'"),
        ({"events": "x", "max_rejected": 2}, "ingest.max_rejected is 2"),
        ({"events": "x", "cut": {"val_ratio": 0.6, "test_ratio": 0.5}}, "leave no train data"),
    ],
)
def test_a_setting_that_is_not_allowed(config: dict[str, Any], sentence: str):
    assert issubclass(IngestConfig, Config)
    with pytest.raises(InputError, match=sentence):
        IngestConfig.parse(config, "ingest")


def test_a_memory_limit_that_is_too_low_is_said(tmp_path: Path):
    lines = "".join(f"user-with-a-long-name-{row},t{row}\n" for row in range(60_000))
    with pytest.raises(InputError, match="does not fit into memory_limit 1MB"):
        run(tmp_path, "user_id,track_id\n" + lines, memory_limit="1MB")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_a_sentence(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot be written to \(.*No space left on device\); free"):  # noqa: SIM117
        with database(tmp_path / "work", "1GB") as db:
            write_parquet(db, "SELECT * FROM range(2000000)", Path("/dev/full"))


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path):
    (tmp_path / "out").touch()  # for root a read-only folder is writable, but a file is never a folder
    with pytest.raises(InputError, match=r"cannot be written to \(Not a directory\)"):
        run(tmp_path, "user_id,track_id\nu,t\n")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path):
    (tmp_path / "log.csv").write_text("user_id,track_id\nu,t\n")
    (tmp_path / "log.csv").chmod(0)
    with pytest.raises(InputError, match=r"log.csv may not be read; change its permissions"):
        ingest(IngestConfig(events=(str(tmp_path / "log.csv"),)), tmp_path / "out")


def test_a_log_without_files(tmp_path: Path):
    with pytest.raises(InputError, match="events is empty; name the files of the log"):
        ingest(IngestConfig.parse({"events": []}, "ingest"), tmp_path / "out")


def test_a_file_that_vanishes_between_looking_and_reading(tmp_path: Path):
    (tmp_path / "log.csv").write_text("user_id,track_id\nu,t\n")
    config = IngestConfig(events=(str(tmp_path / "log.csv"),))
    with pytest.raises(InputError, match=r"gone.csv does not exist \(any more\); run again"):
        ingest(config, tmp_path / "out", [tmp_path / "gone.csv"])


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_ends_a_query_as_its_handler_says(number: signal.Signals, error: type, tmp_path: Path):
    def leave(*_: object) -> None:
        raise error

    endless = "SELECT count(*) FROM range(100000000) AS a, range(100000) AS b WHERE a.range * b.range % 7 = 3"
    before = signal.signal(number, leave)
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), number))
    try:
        with pytest.raises(error), database(tmp_path / "work", "1GB") as db:  # noqa: PT012
            timer.start()
            run_interruptibly(db, lambda: db.execute(endless))
    finally:
        timer.cancel()
        signal.signal(number, before)
