"""A search on a tiny graph without test listens, ready for workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch_geometric.data import HeteroData

from data.graph import save_graph
from data.training_graph import without_test
from tasks.cache.result_store import write_json
from tasks.run_config import load_run_config
from tasks.tuning.space import search_space
from tasks.tuning.study import SearchStudy, require_optuna
from tasks.tuning.worker import SPEC

TRAINING = {"batch_size": 64, "num_eval_users": 20, "eval_k": 5, "device": "cpu", "patience": 1000}

MakeStudy = Callable[..., SearchStudy]


@pytest.fixture(autouse=True)
def quiet_optuna() -> None:
    require_optuna()


@pytest.fixture
def graph_file(tiny_training_graph: HeteroData, tmp_path: Path) -> Path:
    path = tmp_path / "validation_graph.pt"
    save_graph(without_test(tiny_training_graph), path)
    return path


@pytest.fixture
def make_study(graph_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeStudy:
    """Make a study of LightGCN that workers can open, in a home of its own. Made again, it is what a restart finds."""
    monkeypatch.setenv("SONGGRAPH_HOME", str(tmp_path / "home"))

    def make(trainer: str = "advanced", training: Any = TRAINING, num_epochs: int = 2, **tune: Any) -> SearchStudy:
        tables = {
            "model": {"architecture": "lightgcn", "embedding_dim": 8},
            "training": training,
            "tune": {"search": ["lr"], "trials": 3, "pruner": "none", **tune},
        }
        run = load_run_config(None, tables, {"trainer": trainer, "num_epochs": num_epochs})
        folder = tmp_path / "search"
        write_json(folder / SPEC, {"run": run.model_dump(mode="json"), "graph": str(graph_file)})
        study = SearchStudy(folder, search_space(run))
        study.prepare()
        return study

    return make
