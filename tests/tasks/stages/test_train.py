"""From the log to the weights and their numbers: nothing held out is in the weights, and all numbers agree."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.synthetic.log import SyntheticConfig, write_log
from data.vocabulary import id_hash
from tasks.run_config import load_run_config
from tasks.stages.evaluate import evaluate
from tasks.stages.graph import build_graph
from tasks.stages.ingest import find_log, ingest
from tasks.stages.split import split
from tasks.stages.train import train_models
from tests.tasks.plain_run import PlainRun

SMALL = {"architecture": "gat", "embedding_dim": 8, "heads": 2}
TEST_FROM = date(2025, 2, 20)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """A made-up log of two months."""
    return pq.read_table(write_log(SyntheticConfig(preset="tiny"), tmp_path_factory.mktemp("log"))[0])


@pytest.fixture
def outputs(tmp_path: Path, own_home: Path) -> Callable[..., Mapping[str, Path]]:
    """Run the stages up to the evaluation, as plain calls, on a log, and give the folder of each."""

    def run_stages(log: pa.Table, name: str = "log", **tables: Any) -> Mapping[str, Path]:
        pq.write_table(log, tmp_path / f"{name}.parquet")
        overrides = {"model": SMALL, **tables}
        given = {"num_epochs": 2, "name": name}
        run = PlainRun(load_run_config(None, overrides, given, events=str(tmp_path / f"{name}.parquet")))
        listens = ingest(run, find_log(run))
        graph = build_graph(run, listens)
        training_graph = split(run, graph, listens)
        (model,) = train_models(run, training_graph, graph)
        scored = evaluate(run, model, training_graph, graph, {})
        return {"train": model.value, "evaluate": scored.value}

    return run_stages


def test_the_trainers_test_metrics_are_those_of_the_evaluation_on_the_same_users(
    events: pa.Table, outputs: Callable[..., Mapping[str, Path]]
) -> None:
    training = {"seed": 3, "eval_k": 5, "num_eval_users": 1000}
    folders = outputs(events, training=training, evaluation={"seed": 3, "num_eval_users": 1000})
    told = json.loads((folders["train"] / "results.json").read_text())["test"]
    record = json.loads((folders["evaluate"] / "metrics.json").read_text())
    assert {"recall@5", "map@5"} <= told.keys()
    assert told == {name: record["metrics"][name]["mean"] for name in told}
    assert record["num_users"] == record["eligible_users"]


@pytest.mark.parametrize("filters", [{}, {"min_user_songs": 3, "min_song_users": 2}])
def test_what_the_test_rows_hold_is_not_in_the_weights_of_a_temporal_split(
    events: pa.Table, outputs: Callable[..., Mapping[str, Path]], filters: dict[str, int]
) -> None:
    is_test = np.array([moment.date() >= TEST_FROM for moment in events["played_at"].to_pylist()])
    chosen: dict[str, Any] = {"split": {"strategy": "temporal", "test_from": TEST_FROM}, "ingest": filters}
    before = outputs(events, "before", **chosen)
    after = outputs(in_other_order(with_other_attributes(events, is_test), is_test), "after", **chosen)
    assert_same_model(before, after)


def test_what_the_test_rows_hold_is_not_in_the_weights_of_a_column_split(
    events: pa.Table, outputs: Callable[..., Mapping[str, Path]]
) -> None:
    ids = zip(events["user_id"].to_pylist(), events["track_id"].to_pylist(), strict=True)
    is_test = np.array([id_hash(f"{user} {track}") % 100 < 15 for user, track in ids])
    log = events.append_column("split", pa.array(np.where(is_test, "test", "train")))
    chosen: dict[str, Any] = {"split": {"strategy": "column"}}
    assert_same_model(outputs(log, "before", **chosen), outputs(with_other_attributes(log, is_test), "after", **chosen))


def with_other_attributes(events: pa.Table, rows: np.ndarray) -> pa.Table:
    """Other plays, lengths, skips and names, and a later time, in some rows."""
    numbers = np.random.default_rng(0).integers(1, 99, len(events))
    columns = {name: events[name].to_pylist() for name in ("ms_played", "skipped", "track_name", "played_at")}
    later = np.timedelta64(400, "D").astype("timedelta64[us]").item()
    for row in np.flatnonzero(rows):
        columns["ms_played"][row], columns["skipped"][row] = int(numbers[row]), bool(numbers[row] % 2)
        columns["track_name"][row], columns["played_at"][row] = "Another", columns["played_at"][row] + later
    for name, values in columns.items():
        place = events.schema.get_field_index(name)
        events = events.set_column(place, name, pa.array(values, events.schema.field(name).type))
    return events.append_column("plays", pa.array(np.where(rows, numbers, 1)))


def in_other_order(events: pa.Table, rows: np.ndarray) -> pa.Table:
    """The songs of some rows dealt out anew to their users: the same songs and users, other pairs."""
    order = np.arange(len(events))
    order[rows] = np.random.default_rng(1).permutation(order[rows])
    for name in ("track_id", "artist_id", "artist_name", "duration_ms"):
        events = events.set_column(events.schema.get_field_index(name), name, events[name].take(pa.array(order)))
    return events


def assert_same_model(before: Mapping[str, Path], after: Mapping[str, Path]) -> None:
    for name in ("model.safetensors", "embeddings.safetensors", "history.json"):
        assert (before["train"] / name).read_bytes() == (after["train"] / name).read_bytes(), name
