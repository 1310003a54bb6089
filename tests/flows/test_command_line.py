"""The command line: help that reads well, and one sentence with exit code 2 for whatever a person can get wrong."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect import flow
from prefect.logging.configuration import DEFAULT_LOGGING_SETTINGS_PATH, load_logging_config
from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS

from data.errors import InputError
from flows.build_graph import build
from flows.command_line import command, own_server
from flows.train import train
from tasks.options import LOG_OPTIONS, RUN_OPTIONS

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = ("--preset", "tiny", "--epochs", "1")

Refused = Callable[..., str]


@pytest.fixture
def refused(prefect_api: str, home: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run ``flows.train`` with options that end in exit code 2, and return the sentence."""

    def run(*options: str, flow=train) -> str:
        with pytest.raises(SystemExit) as ended:
            command(flow, LOG_OPTIONS if flow is build else RUN_OPTIONS)(list(options))
        told = capsys.readouterr().err
        assert ended.value.code == 2, told
        assert "Traceback" not in told
        *_, last = told.strip().splitlines()
        assert last.startswith("Error: ")
        assert told.count("Error: ") == 1
        return last

    return run


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--events", "no/such.parquet"), "no/such.parquet"),
        (("--config", "no/such.toml"), "Error: The config file 'no/such.toml' does not exist; give the path"),
        (("--trainer", "advancd"), "Did you mean 'advanced'?"),
        (("--model", "gta"), "Did you mean 'gat'?"),
        (("--set", "training.patienc=3"), "Did you mean 'patience'?"),
        (("--set", "trainign.patience=3"), "Did you mean 'training'?"),
        (("--set", "ingest.colums={a = 'b'}"), "Did you mean 'columns'?"),
        (
            ("--set", "training.lr"),
            "--set was given 'training.lr'; write KEY=VALUE, for example --set training.lr=0.005.",
        ),
        (("--set", "training.lr=fast"), "training_config.lr is 'fast'"),
        (("--set", "ingest.events=5"), "ingest.events is 5; give a path"),
        (("--trainer", "no_such.module:Trainer"), "trainer 'no_such.module:Trainer' cannot be found"),
        (("--trainer", "sys:Trainer"), "there is no Python source of a module 'sys'"),
        (("--model", "..module:Model"), "architecture '..module:Model' cannot be found"),
        (("--set", "model=gat", "--set", "model.dropout=0.2"), "but also model=gat"),
        (("--model", "gat", "--set", "model.embedding_dim=30", "--set", "model.heads=4"), "heads"),
        (("--set", "model.embedding_dim=30"), "model_config.heads is 4: does not divide embedding_dim 30"),
        (("--set", "training.val_ratio=0.6", "--set", "training.test_ratio=0.4"), "train"),
        (("--set", "training.eval_k=1000"), "eval_k"),
        (("--name", "no/slash"), "name"),
        (("--preset", "huge"), "preset"),
        (("--set", "split.strategy=columns"), "strategy"),
        (
            ("--set", "split.test_ratio=0.2", "--set", "training.test_ratio=0.1"),
            "training.test_ratio is 0.1, but split.test_ratio is 0.2; give only split.test_ratio.",
        ),
    ],
)
def test_what_is_not_allowed_is_said_in_a_sentence(refused: Refused, options: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused(*TINY, *options)


def test_a_config_that_is_no_toml_is_named(refused: Refused, tmp_path: Path) -> None:
    config = tmp_path / "broken.toml"
    config.write_text("[training\nlr = 1")
    assert f"Error: The config file '{config}' is not valid TOML" in refused("--config", str(config))


@pytest.mark.parametrize("config", ["lastfm-tracks", "lastfm-artists"])
def test_absent_benchmark_data_names_the_variable_that_says_where_it_is(
    refused: Refused, config: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SONGGRAPH_BENCH_DATA", str(tmp_path / "nowhere"))
    told = refused("--config", str(CONFIGS / f"{config}.toml"))
    assert str(tmp_path / "nowhere") in told
    assert "SONGGRAPH_BENCH_DATA" in told


def test_a_log_without_a_required_column_names_those_it_has(refused: Refused, tmp_path: Path) -> None:
    log = tmp_path / "log.parquet"
    pq.write_table(pa.table({"user_id": ["a"], "song": ["b"]}), log)
    told = refused("--events", str(log))
    assert "track_id" in told
    assert "song" in told


def test_a_file_in_the_place_of_the_artifacts_folder_is_named(refused: Refused, home: Path) -> None:
    store = home / "artifacts" / "store"
    store.write_text("in the way")
    assert str(store) in refused(*TINY)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_artifacts_folder_is_named(refused: Refused, home: Path) -> None:
    (home / "artifacts").chmod(0o500)
    try:
        assert "Permission denied" in refused(*TINY)
    finally:
        (home / "artifacts").chmod(0o700)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_no_more_publishes_nothing_and_the_next_run_goes_on(
    refused: Refused, home: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def fail(graph: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(error, os.strerror(error), str(path))

    with monkeypatch.context() as full:
        full.setattr("data.graph.save_graph", fail)
        told = refused("--preset", "tiny", "--set", "model.embedding_dim=8", "--epochs", "1")
    assert f"The stage graph could not write '{home}" in told
    assert os.strerror(error) in told
    assert "Nothing was published" in told
    stored = home / "artifacts" / "store"
    assert not list(stored.rglob("graph.pt"))
    assert not (home / "data" / "graph.pt").exists()
    command(build, LOG_OPTIONS)(["--preset", "tiny"], standalone_mode=False)
    assert (home / "data" / "graph.pt").exists()


def test_the_summary_says_what_was_measured_and_where_it_is(
    prefect_api: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*TINY, "--model", "lightgcn", "--set", "model.embedding_dim=8"]
    command(train, RUN_OPTIONS)(options, standalone_mode=False)
    told = capsys.readouterr().out
    for part in ("recall@10", "popularity", "Registered  songgraph version 1: ", "data/graph.pt", "first run"):
        assert part in told
    command(train, RUN_OPTIONS)(options, standalone_mode=False)
    assert "Nothing new: every stage was cached." in capsys.readouterr().out


FULL_DISK = """
import resource, signal
from flows.build_graph import build
from flows.command_line import command

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from contextlib import contextmanager
from tasks.cache.result_store import ResultStore
from tasks.options import LOG_OPTIONS
scratch = ResultStore.scratch

@contextmanager
def within_limits(*arguments):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))
    try:
        with scratch(*arguments) as folder:
            yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

ResultStore.scratch = within_limits
command(build, LOG_OPTIONS)()
"""


@pytest.mark.slow
def test_files_that_cannot_grow_end_in_a_sentence_with_nothing_half_written(songgraph: Callable, home: Path) -> None:
    ended = songgraph("-c", FULL_DISK, "--preset", "tiny")
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 2
    assert not list((home / "artifacts" / "store").rglob("*.parquet"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["flows.train", "flows.build_graph", "flows.evaluate", "flows.tune", "tasks.explain"]
)
def test_the_help_names_the_options(songgraph: Callable, home: Path, module: str) -> None:
    ended = songgraph("-m", module, "--help")
    assert ended.returncode == 0
    for option in ("--config", "--events", "--help"):
        assert option in ended.stdout


@pytest.mark.slow
def test_a_mistake_ends_with_two_and_one_line_on_standard_error(songgraph: Callable, home: Path) -> None:
    ended = songgraph("-m", "flows.train", "--trainer", "advancd")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert len(ended.stderr.strip().splitlines()) == 1
    ended = songgraph("-m", "tasks.explain", "--config", "no/such.toml")
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1


def test_a_run_gives_the_server_that_it_starts_itself_time_on_a_busy_machine(refused: Refused) -> None:
    @flow(name="patient")
    def patient(config: str | None = None, name: str | None = None, overrides: dict[str, Any] | None = None) -> None:
        raise InputError(f"it waits {PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()} s.")

    assert refused("--preset", "tiny", flow=patient) == "Error: it waits 180 s."


@pytest.mark.parametrize(("given", "level"), [(None, "CRITICAL"), ("DEBUG", "DEBUG")])
def test_the_server_of_a_run_logs_no_traceback_when_it_is_stopped(
    monkeypatch: pytest.MonkeyPatch, given: str | None, level: str
) -> None:
    monkeypatch.delenv("PREFECT_LOGGING_ROOT_LEVEL", raising=False)
    if given:
        monkeypatch.setenv("PREFECT_LOGGING_ROOT_LEVEL", given)
    with own_server():  # the server's process reads its levels from the environment, by this function of Prefect's
        assert load_logging_config(DEFAULT_LOGGING_SETTINGS_PATH)["root"]["level"] == level
    assert os.environ.get("PREFECT_LOGGING_ROOT_LEVEL") == given
