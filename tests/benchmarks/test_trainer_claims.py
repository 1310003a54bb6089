"""The table of claims keeps earlier rows, and the committed table is readable; how claims train and attack."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData

from data.graph import LISTENS
from data.split import SplitConfig
from data.synthetic.log import SyntheticConfig
from tasks.run_config import load_run_config


def test_rows_of_one_trainer_replace_its_own_and_leave_the_others(script: Any, tmp_path: Path) -> None:
    claims, claim = script("trainer_claims"), script("claims.claim").Claim
    results = tmp_path / "results" / "claims.json"
    claims.keep(results, "online", [claim("online", "nightly", "0.1", False, 0.5)], 5)
    claims.keep(results, "meta", [claim("meta", "new users", "0.2", True, 2.0)], 3)
    claims.keep(results, "online", [claim("online", "nightly", "0.3", True, 0.25)], 5)
    rows = [line for line in results.with_suffix(".md").read_text().splitlines() if line.startswith("| `")]
    assert rows == ["| `meta` | new users | 0.2 | yes | 2.00 |", "| `online` | nightly | 0.3 | yes | 0.25 |"]


def test_the_committed_table_is_that_of_the_committed_numbers(script: Any) -> None:
    claims = script("trainer_claims")
    known = json.loads(claims.RESULTS.read_text(encoding="utf-8"))
    assert claims.RESULTS.with_suffix(".md").read_text(encoding="utf-8") == claims.page(known)
    assert set(known) == set(claims.CLAIMS)
    assert all(found["rows"] and found["commit"] and found["machine"] for found in known.values())
    assert re.search(r"/(home|work|tmp|root|Users)/", json.dumps(known)) is None


def test_epochs_are_counted_until_the_mean_curve_is_near_where_it_ends(script: Any) -> None:
    warm_start = script("claims.warm_start")
    cold = np.array([[0.0, 0.5, 0.8, 1.0, 1.0, 1.0], [0.0, 0.7, 0.8, 1.0, 1.0, 1.0]])
    warm = np.array([[0.9, 1.1, 1.1, 1.1, 1.1, 1.1], [0.9, 1.1, 1.0, 1.0, 1.0, 1.0]])
    assert warm_start.epochs_to_bar(cold, warm) == (4, 2)
    assert warm_start.epochs_to_bar(cold, warm * 0.5) == (4, 7)


def test_a_training_stops_after_its_seconds_and_its_recall_is_that_of_the_test_listens(
    script: Any, tiny_training_graph: HeteroData, tmp_path: Path
) -> None:
    training, run = script("claims.training"), load_run_config("configs/synthetic.toml")
    run = run.model_copy(update={"model": {"architecture": "mf"}, "training": {"device": "cpu", "eval_k": 5}})
    trainer = training.create("advanced", run, tiny_training_graph, tmp_path, batch_size=64)
    model = training.train(trainer, tiny_training_graph, 5, cpu_budget=0.0)
    assert len(trainer.history) == 1
    assert model.cpu_seconds > 0
    test = tiny_training_graph[LISTENS].test_mask
    assert len(model.per_user("recall@5", 5)) == tiny_training_graph[LISTENS].edge_index[0, test].unique().numel()


@pytest.mark.parametrize("attack", ["average", "bandwagon", "popular", "segment"])
def test_an_attack_adds_train_listens_of_fake_users_and_changes_nothing_else(script: Any, attack: str) -> None:
    training_graph, shilling = script("claims.synthetic_log"), script("claims.shilling")
    config = SyntheticConfig(preset="small", num_users=200, num_songs=150, num_artists=30, num_events=6000)
    with TemporaryDirectory() as folder:
        graph = training_graph.synthetic_graph(config, Path(folder)).split(SplitConfig())
    poisoned, pushed = shilling.attack_graph(graph, attack, seed=0)
    assert shilling.attack_graph(graph, "average", seed=0)[1] == pushed
    honest, (user, song) = graph["user"].num_nodes, poisoned[LISTENS].edge_index
    fake = user >= honest
    assert poisoned["user"].num_nodes == honest + 2
    assert bool(poisoned[LISTENS].train_mask[fake].all())
    assert [int((song[user == number] == pushed).sum()) for number in (honest, honest + 1)] == [1, 1]
    assert torch.equal(poisoned[LISTENS].edge_index[:, ~fake], graph[LISTENS].edge_index)
    assert torch.equal(poisoned[LISTENS].test_mask[~fake], graph[LISTENS].test_mask)
