"""Which log a run is about: by what its files hold and what they are for, whatever they are called."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.errors import InputError
from tasks.run_config import load_run_config
from tasks.stages import ingest as ingesting
from tasks.stages.ingest import Log, find_log
from tests.tasks.plain_run import PlainRun

HEADER = "user_id,track_id,artist_id\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SONGGRAPH_HOME", str(tmp_path / "home"))
    (tmp_path / "a.csv").write_text(f"{HEADER}u1,t1,a1\n")
    (tmp_path / "b.csv").write_text(f"{HEADER}u2,t1,a2\n")
    return tmp_path


@pytest.fixture
def log_of(folder: Path) -> Callable[..., Log]:
    def find(*events: str, **ingest: Any) -> Log:
        paths = {key: str(folder / name) for key, name in ingest.items()}
        named = [str(folder / name) for name in events]
        return find_log(PlainRun(load_run_config(None, {"ingest": paths}, events=named)))

    return find


def test_names_and_order_do_not_matter(folder: Path, log_of: Callable[..., Log]) -> None:
    before = log_of("a.csv", "b.csv").files.sha256
    assert log_of("b.csv", "a.csv").files.sha256 == before
    (folder / "a.csv").rename(folder / "c.csv")
    assert log_of("b.csv", "c.csv").files.sha256 == before


def test_a_file_that_is_there_twice_counts_twice(folder: Path, log_of: Callable[..., Log]) -> None:
    (folder / "again.csv").write_bytes((folder / "a.csv").read_bytes())
    assert log_of("a.csv", "again.csv").files.sha256 != log_of("a.csv").files.sha256


def test_a_link_to_a_file_is_the_same_file(folder: Path, log_of: Callable[..., Log]) -> None:
    (folder / "link.csv").symlink_to(folder / "a.csv")
    assert log_of("a.csv", "link.csv").files.sha256 == log_of("a.csv").files.sha256


def test_what_the_files_are_for_matters(log_of: Callable[..., Log]) -> None:
    as_events = log_of("a.csv", "b.csv").files.sha256
    as_tracks = log_of("a.csv", track_artists="b.csv").files.sha256
    assert len({as_events, as_tracks, log_of("b.csv", track_artists="a.csv").files.sha256}) == 3


def test_a_link_to_nothing_is_named(folder: Path, log_of: Callable[..., Log]) -> None:
    (folder / "gone.csv").symlink_to(folder / "nowhere.csv")
    with pytest.raises(InputError, match=r"gone.csv cannot be read \(No such file or directory\)"):
        log_of("gone.csv")


@pytest.mark.parametrize("memory", ["[]", "{", "null"])
def test_a_damaged_memory_of_digests_is_forgotten(folder: Path, log_of: Callable[..., Log], memory: str) -> None:
    before = log_of("a.csv").files.sha256
    (folder / "home/artifacts/file_digests.json").write_text(memory)
    assert log_of("a.csv").files.sha256 == before


def test_a_log_that_changes_while_it_is_read_is_not_stored(folder: Path, log_of: Callable[..., Log]) -> None:
    log, out = log_of("a.csv"), folder / "out"
    out.mkdir()
    ingesting._ingest(out, {}, log.files.value, log)
    with (folder / "a.csv").open("a") as file:
        file.write("u3,t3,a3\n")
    os.utime(folder / "a.csv", (1, 1))
    with pytest.raises(InputError, match="The log changed while it was read, so nothing was stored; run again"):
        ingesting._ingest(out, {}, log.files.value, log)
