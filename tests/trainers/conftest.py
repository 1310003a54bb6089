"""Configs that train the small random graph of ``tests/conftest.py`` in a moment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import NODE_TYPES, node_counts
from registry.bundle.seen_tables import seen_table
from trainers.base import BaseTrainer
from trainers.factory import create_trainer
from trainers.federated.flower_process import flower_python


@pytest.fixture
def model_config(tiny_graph: HeteroData) -> dict[str, Any]:
    return {**node_counts(tiny_graph), "embedding_dim": 16, "heads": 2}


@pytest.fixture
def training_config() -> dict[str, Any]:
    return {"batch_size": 64, "num_eval_users": 20, "eval_k": 5, "device": "cpu"}


@pytest.fixture
def make_trainer(model_config, training_config, tmp_path) -> Callable[..., BaseTrainer]:
    """``make_trainer("advanced", output_dir=..., patience=3)``: further keys go into ``training_config``."""

    def make(trainer: str = "advanced", output_dir: Path = tmp_path / "out", **training: Any) -> BaseTrainer:
        return create_trainer(trainer, model_config, {**training_config, **training}, output_dir)

    return make


@pytest.fixture
def as_bundle() -> Callable[..., Path]:
    """``as_bundle(trainer, graph, folder, refit=True)``: what a warm start reads of the bundle of a trained model."""

    def write(trainer: BaseTrainer, graph: HeteroData, folder: Path, **facts: Any) -> Path:
        trainer.save_model(folder)
        for kind in NODE_TYPES:
            pq.write_table(pa.table({"id_hash": graph[kind].id_hash.numpy()}), folder / f"{kind}s.parquet")
        pq.write_table(seen_table(graph), folder / "seen.parquet")
        told = {"facts": {"in_sample": False, "refit": False, "seen_splits": [{}], **facts}}
        (folder / "manifest.json").write_text(json.dumps(told))
        return folder

    return write


@pytest.fixture(scope="session")
def flower() -> None:
    """Skips tests that need Flower's environment where there is none."""
    try:
        flower_python()
    except InputError as error:
        pytest.skip(str(error))
