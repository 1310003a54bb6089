"""The audit stage: the pipeline's own training graphs pass, and a leaking trainer is not trained."""

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

from data.errors import InputError
from data.graph import LISTENS, load_graph, save_graph
from data.synthetic.log import SyntheticConfig, write_log
from data.vocabulary import id_hash
from evaluation.audit.auditor import IN_SAMPLE, WITHOUT_MASKS
from tasks.run_config import load_run_config
from tasks.stages.audit import audit
from tasks.stages.graph import build_graph
from tasks.stages.ingest import find_log, ingest
from tasks.stages.split import split
from tests.tasks.plain_run import PlainRun

TEST_FROM = date(2025, 2, 20)
LEAKY = """
import torch

from data.graph import LISTENS
from trainers.advanced import AdvancedTrainer


class LeakyTrainer(AdvancedTrainer):
    def prepare(self, graph):
        self.all_pairs = graph[LISTENS].edge_index
        return super().prepare(graph)

    def train_epoch(self, graph):
        return self.train_on_pairs(graph, self.all_pairs)
"""


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """A made-up log of two months, with a column for the split."""
    log = pq.read_table(write_log(SyntheticConfig(preset="tiny"), tmp_path_factory.mktemp("log"))[0])
    ids = zip(log["user_id"].to_pylist(), log["track_id"].to_pylist(), strict=True)
    drawn = np.array([id_hash(f"{user} {track}") % 100 for user, track in ids])
    return log.append_column("split", pa.array(np.select([drawn < 15, drawn < 30], ["test", "valid"], "train")))


Spoil = Callable[[Path], None]


@pytest.fixture
def audited(events: pa.Table, tmp_path: Path, own_home: Path) -> Callable[..., Mapping[str, Any]]:
    """Run the stages up to the audit, as plain calls, and give ``audit.json``; ``spoil`` changes the split's folder."""
    pq.write_table(events, tmp_path / "log.parquet")

    def run_stages(spoil: Spoil | None = None, trainer: str = "advanced", **tables: Any) -> Mapping[str, Any]:
        model = {"architecture": "lightgcn", "embedding_dim": 8}
        overrides = {"model": model, "trainer": trainer, **tables}
        run = PlainRun(load_run_config(None, overrides, events=str(tmp_path / "log.parquet")))
        listens = ingest(run, find_log(run))
        graph = build_graph(run, listens)
        training_graph = split(run, graph, listens)
        if spoil:
            spoil(training_graph.value)
        found = audit(run, training_graph, graph, listens)
        return json.loads((found.value / "audit.json").read_text())

    return run_stages


@pytest.mark.parametrize(
    "tables",
    [
        {"split": {"strategy": "random"}},
        {"split": {"strategy": "leave_last_out"}},
        {"split": {"strategy": "column"}},
        {"split": {"strategy": "temporal", "test_from": TEST_FROM}},
        {"split": {"strategy": "temporal", "gap_days": 3}},
        {"split": {"strategy": "temporal"}, "ingest": {"min_user_songs": 3, "min_song_users": 2}},
    ],
    ids=lambda tables: "-".join(map(str, [*tables["split"].values(), *tables.get("ingest", {})])),
)
def test_the_pipelines_own_training_graphs_are_clean(audited, tables: dict[str, Any]) -> None:
    found = audited(**tables)
    assert found["passed"]
    assert [check["name"] for check in found["checks"] if not check["passed"]] == []
    assert found["canary"]["passed"]
    assert {check["name"] for check in found["checks"]} >= {"messages", "attributes of train edges"}


def test_it_refuses_to_train_on_a_leak_in_the_graph(audited, tmp_path: Path) -> None:
    def spoil(folder: Path) -> None:
        graph = load_graph(folder / "training_graph.pt")
        graph[LISTENS].plays[graph[LISTENS].test_mask] = 1
        save_graph(graph, folder / "training_graph.pt")

    with pytest.raises(InputError) as refused:
        audited(spoil)
    assert str(refused.value).startswith("The audit refuses to train: ")
    assert "(listens.plays); they tell what is hidden." in str(refused.value)
    assert not list((tmp_path / "home" / "artifacts" / "store" / "audit").glob("*/audit.json"))


def test_it_refuses_to_train_a_trainer_that_leaks(audited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaky_trainer.py").write_text(LEAKY)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError) as refused:
        audited(trainer="leaky_trainer:LeakyTrainer")
    assert str(refused.value) == (
        "The audit refuses to train: Planted held-out pairs changed the training (training pairs, weights, embeddings; "
        "planted in: val, test, none)."
    )


def test_of_a_trainer_that_trains_on_everything_it_says_so(audited) -> None:
    found = audited(trainer="simple")
    assert found["passed"]
    assert found["canary"] is None
    assert {IN_SAMPLE, *WITHOUT_MASKS} <= set(found["cannot_say"])
